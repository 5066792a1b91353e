//! Sockets: TCP and Unix sockets of the system, and a network that stays in this process.
//!
//! A [`Network`] only listens and connects; framing, time-outs and who may speak are the callers' business.

use crate::Address;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
};

/// What is known of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// For logs.
    pub name: String,
}

/// A two-way byte stream.
pub enum BoxStream {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A pipe within this process.
    Memory(DuplexStream),
}

impl BoxStream {
    /// The descriptor, where there is one.
    pub fn raw_fd(&self) -> Option<RawFd> {
        match self {
            Self::Tcp(s) => Some(s.as_raw_fd()),
            Self::Unix(s) => Some(s.as_raw_fd()),
            Self::Memory(_) => None,
        }
    }
}

impl AsyncRead for BoxStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Memory(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BoxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Memory(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Memory(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Memory(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Memory(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// Takes connections. Dropping it stops listening; a Unix socket's file is removed.
pub trait Listener: Send + Sync + 'static {
    /// The address that peers dial: a port 0 has become a real one.
    fn address(&self) -> Address;
    /// The next connection. May be dropped at any time without losing one.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, PeerInfo)>>;
}

/// Listens and connects.
pub trait Network: Send + Sync + 'static {
    /// Starts to listen. `AddrInUse` when somebody else does.
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Dials. `ConnectionRefused` when nobody listens.
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>>;
}

fn unsupported(at: &Address) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{at} is not an address of this network"))
}

/// TCP and Unix sockets.
pub struct SystemNetwork;

impl Network for SystemNetwork {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            match at {
                Address::Tcp(at) => Ok(Box::new(TcpListener::bind(at.as_str()).await?) as Box<dyn Listener>),
                Address::Unix(path) => {
                    Ok(Box::new(UnixAcceptor { inner: UnixListener::bind(path)?, path: path.clone() }) as _)
                }
                Address::Memory(_) => Err(unsupported(at)),
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            match to {
                Address::Tcp(at) => {
                    let stream = TcpStream::connect(at.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Ok(BoxStream::Tcp(stream))
                }
                Address::Unix(path) => Ok(BoxStream::Unix(UnixStream::connect(path).await?)),
                Address::Memory(_) => Err(unsupported(to)),
            }
        })
    }
}

impl Listener for TcpListener {
    fn address(&self) -> Address {
        Address::Tcp(self.local_addr().map_or_else(|_| "0.0.0.0:0".to_owned(), |a| a.to_string()))
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, PeerInfo)>> {
        Box::pin(async move {
            let (stream, peer) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((BoxStream::Tcp(stream), PeerInfo { name: peer.to_string() }))
        })
    }
}

struct UnixAcceptor {
    inner: UnixListener,
    path: std::path::PathBuf,
}

impl Listener for UnixAcceptor {
    fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, PeerInfo)>> {
        Box::pin(async move {
            let (stream, _) = self.inner.accept().await?;
            let pid = stream.peer_cred().ok().and_then(|c| c.pid());
            let name = pid.map_or_else(|| "unix peer".to_owned(), |p| format!("pid {p}"));
            Ok((BoxStream::Unix(stream), PeerInfo { name }))
        })
    }
}

impl Drop for UnixAcceptor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Pipes between names of one process. TCP addresses are taken as names too, so that code which derives an address
/// from configuration runs on it unchanged; port 0 becomes a fresh number.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    listening: HashMap<Address, mpsc::UnboundedSender<DuplexStream>>,
    next_port: u16,
}

/// Bytes that one direction of a pipe holds before the writer waits.
const PIPE: usize = 256 * 1024;

struct MemoryListener {
    at: Address,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<DuplexStream>>,
    names: Arc<Mutex<Names>>,
}

impl Listener for MemoryListener {
    fn address(&self) -> Address {
        self.at.clone()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, PeerInfo)>> {
        Box::pin(async move {
            let stream = self.incoming.lock().await.recv().await;
            let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted))?;
            Ok((BoxStream::Memory(stream), PeerInfo { name: "in-process peer".into() }))
        })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.names.lock().listening.remove(&self.at);
    }
}

impl Network for MemoryNetwork {
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut names = self.names.lock();
            let at = match at {
                Address::Tcp(host) if host.ends_with(":0") => {
                    names.next_port = names.next_port.checked_add(1).unwrap_or(1);
                    Address::Tcp(format!("{}{}", host.trim_end_matches('0'), names.next_port))
                }
                other => other.clone(),
            };
            if names.listening.contains_key(&at) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (sender, incoming) = mpsc::unbounded_channel();
            names.listening.insert(at.clone(), sender);
            let incoming = tokio::sync::Mutex::new(incoming);
            Ok(Box::new(MemoryListener { at, incoming, names: self.names.clone() }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let sender = self.names.lock().listening.get(to).cloned().ok_or_else(refused)?;
            let (ours, theirs) = tokio::io::duplex(PIPE);
            sender.send(theirs).map_err(|_| refused())?;
            Ok(BoxStream::Memory(ours))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn echoes(network: &dyn Network, at: Address) {
        let listener = network.listen(&at).await.unwrap();
        let to = listener.address();
        let (server, client) = tokio::join!(listener.accept(), network.connect(&to));
        let (mut server, mut client) = (server.unwrap().0, client.unwrap());
        client.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        drop(client);
        assert_eq!(server.read(&mut got).await.unwrap(), 0, "the end is seen");
        assert!(network.listen(&to).await.is_err(), "{to} is taken");
        drop(listener);
        assert_eq!(network.connect(&to).await.err().map(|e| e.kind() == io::ErrorKind::AddrInUse), Some(false));
    }

    #[tokio::test]
    async fn every_transport_carries_bytes_and_their_end() {
        let dir = tempfile::tempdir().unwrap();
        echoes(&SystemNetwork, Address::Tcp("127.0.0.1:0".into())).await;
        echoes(&SystemNetwork, Address::Unix(dir.path().join("s"))).await;
        echoes(&MemoryNetwork::default(), Address::Memory("a".into())).await;
        echoes(&MemoryNetwork::default(), Address::Tcp("localhost:0".into())).await;
    }

    #[tokio::test]
    async fn an_address_of_another_network_is_refused_by_name() {
        let error = SystemNetwork.connect(&Address::Memory("x".into())).await.err().unwrap();
        assert_eq!(error.to_string(), "memory:x is not an address of this network");
    }
}
