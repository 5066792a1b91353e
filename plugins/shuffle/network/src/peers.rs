//! One connection for each pair of hosts, whoever dials first, and although both may dial at once.
//!
//! When two hosts dial each other at one moment, the dial of the one with the lower address counts: the other side
//! answers *duplicate*, and who hears that waits for the connection that it is about to accept.

use crate::{
    connection::Connection,
    environment::Shared,
    handshake::{self, Hello, PROTOCOL, Verdict},
    reader::{Failure, ReaderShared},
};
use std::{io, sync::Arc, time::Duration};
use thalweg_env::{Address, BoxStream, Listener, PeerInfo, timeout};
use thalweg_spi::ErrorKind;

/// What is known of another host.
pub(crate) enum Peer {
    /// A connection is on its way and readers wait for it: dialed by us, or by the other side and just welcomed.
    Coming { waiting: Vec<Arc<ReaderShared>>, dialing: bool },
    /// It is there.
    Connected(Arc<Connection>),
}

/// A dialer that has not said who it is within this time is sent away.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// After *duplicate* without a connection: the other side may not have noticed yet that the old one is gone.
const DIAL_AGAIN: Duration = Duration::from_millis(50);

enum Dialed {
    Connected(BoxStream, [u8; 16]),
    Duplicate,
}

impl Shared {
    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            job: self.job,
            incarnation: self.incarnation,
            address: self.address.clone(),
            secret: self.secret.expose().clone(),
        }
    }

    /// Finds the connection for a reader, or starts to make one.
    pub(crate) fn connect_reader(self: &Arc<Self>, peer: Address, reader: Arc<ReaderShared>) {
        let name = peer.to_string();
        let mut state = self.state.lock();
        match state.peers.get_mut(&name) {
            Some(Peer::Connected(connection)) if !connection.is_closed() => {
                let connection = connection.clone();
                drop(state);
                connection.open_stream(&reader, &self.budget);
            }
            Some(Peer::Coming { waiting, .. }) => waiting.push(reader),
            _ => {
                state.peers.insert(name, Peer::Coming { waiting: vec![reader], dialing: true });
                drop(state);
                let shared = self.clone();
                self.env.spawner.spawn("shuffle-dial", async move { shared.dial(peer).await });
            }
        }
    }

    async fn dial(self: Arc<Self>, peer: Address) {
        let until = self.env.clock.now() + self.connect_timeout;
        loop {
            let clock = self.env.clock.clone();
            let left = until.since(clock.now());
            let dialed = tokio::select! {
                () = self.shutdown.triggered() => return,
                dialed = timeout(&*clock, left, self.dial_once(&peer)) => dialed,
            };
            match dialed {
                Ok(Ok(Dialed::Connected(stream, incarnation))) => {
                    let connection = Connection::start(&self, peer.to_string(), incarnation, stream);
                    self.connected(connection);
                    return;
                }
                Ok(Ok(Dialed::Duplicate)) => {
                    clock.sleep(DIAL_AGAIN).await;
                    if !matches!(self.state.lock().peers.get(&peer.to_string()), Some(Peer::Coming { .. })) {
                        return;
                    }
                }
                Ok(Err(e)) => {
                    self.dial_failed(&peer, &e.to_string());
                    return;
                }
                Err(_) => {
                    self.dial_failed(&peer, &format!("no connection within {:?}", self.connect_timeout));
                    return;
                }
            }
        }
    }

    async fn dial_once(&self, peer: &Address) -> io::Result<Dialed> {
        let mut stream = self.env.network.connect(peer).await?;
        handshake::send_hello(&mut stream, &self.hello()).await?;
        match handshake::read_verdict(&mut stream, &self.secret).await? {
            Verdict::Welcome { incarnation, .. } => Ok(Dialed::Connected(stream, incarnation)),
            Verdict::Duplicate { .. } => Ok(Dialed::Duplicate),
            Verdict::Refused { text, .. } => Err(io::Error::new(io::ErrorKind::PermissionDenied, text)),
        }
    }

    fn dial_failed(&self, peer: &Address, cause: &str) {
        let name = peer.to_string();
        let mut state = self.state.lock();
        let waiting = match state.peers.get_mut(&name) {
            Some(Peer::Coming { waiting, .. }) => std::mem::take(waiting),
            // Accepted meanwhile.
            _ => return,
        };
        state.peers.remove(&name);
        drop(state);
        for reader in waiting {
            reader.fail(Failure::new(ErrorKind::Unavailable, format!("host {name} cannot be reached: {cause}")));
        }
    }

    /// Takes the connection into use, and closes the one that it replaces.
    fn connected(self: &Arc<Self>, connection: Arc<Connection>) {
        let old = self.state.lock().peers.insert(connection.peer.clone(), Peer::Connected(connection.clone()));
        match old {
            Some(Peer::Coming { waiting, .. }) => {
                for reader in waiting {
                    connection.open_stream(&reader, &self.budget);
                }
            }
            Some(Peer::Connected(old)) => {
                let text = format!("host {} has lost this connection and made another", old.peer);
                old.close(self, Failure::new(ErrorKind::Closed, text));
            }
            None => {}
        }
        // One that ended before it was in the table did not take itself out of it.
        if connection.is_closed() {
            self.forget_connection(&connection);
        }
    }

    /// Accepts until this host ends.
    pub(crate) async fn accept_all(self: Arc<Self>, listener: Box<dyn Listener>) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.triggered() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let shared = self.clone();
                    self.env.spawner.spawn("shuffle-accept", async move { shared.accept(stream, from).await });
                }
                Err(e) => {
                    // Out of descriptors, mostly: it passes, and spinning would not help.
                    tracing::warn!("cannot accept a data connection: {e}");
                    self.env.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(self: Arc<Self>, mut stream: BoxStream, from: PeerInfo) {
        let clock = self.env.clock.clone();
        let hello = timeout(&*clock, HELLO_TIMEOUT, handshake::read_hello(&mut stream, &self.secret)).await;
        let hello = match hello {
            Ok(Ok(hello)) => hello,
            Ok(Err(e)) => return tracing::warn!("closed a data connection from {}: {e}", from.name),
            Err(_) => return tracing::warn!("closed a data connection from {}: it said nothing", from.name),
        };
        let verdict = self.judge(&hello);
        let welcome = matches!(verdict, Verdict::Welcome { .. });
        let sent = timeout(&*clock, HELLO_TIMEOUT, handshake::send_verdict(&mut stream, &verdict)).await;
        match (welcome, sent) {
            (true, Ok(Ok(()))) => {
                let connection = Connection::start(&self, hello.address, hello.incarnation, stream);
                self.connected(connection);
            }
            (true, _) => {
                tracing::warn!("a data connection from {} ended at its first frame", from.name);
                self.not_accepted(&hello.address);
            }
            (false, _) => {}
        }
    }

    fn judge(&self, hello: &Hello) -> Verdict {
        let secret = self.secret.expose().clone();
        let refused = |text: String| Verdict::Refused { text, secret: secret.clone() };
        if hello.protocol != PROTOCOL {
            return refused(format!("it speaks protocol {PROTOCOL} and this host {}", hello.protocol));
        }
        if hello.job != self.job {
            return refused(format!("it is a host of job {}", self.job));
        }
        if hello.address == self.address {
            return refused("a host does not read from itself by way of the network".into());
        }
        let mut state = self.state.lock();
        let (waiting, dialing, old) = match state.peers.remove(&hello.address) {
            // Our own dial is on its way to it, and the lower address's counts.
            Some(coming @ Peer::Coming { .. }) if self.address < hello.address => {
                state.peers.insert(hello.address.clone(), coming);
                return Verdict::Duplicate { secret };
            }
            Some(Peer::Coming { waiting, dialing }) => (waiting, dialing, None),
            Some(Peer::Connected(there)) => {
                if !there.is_closed() && there.incarnation == hello.incarnation {
                    state.peers.insert(hello.address.clone(), Peer::Connected(there));
                    return Verdict::Duplicate { secret };
                }
                (Vec::new(), false, Some(there))
            }
            None => (Vec::new(), false, None),
        };
        // From here on our readers wait for this connection and do not dial one of their own.
        state.peers.insert(hello.address.clone(), Peer::Coming { waiting, dialing });
        drop(state);
        if let Some(old) = old {
            let text = format!("another process listens at the address of host {} now", hello.address);
            old.close(self, Failure::new(ErrorKind::Closed, text));
        }
        Verdict::Welcome { incarnation: self.incarnation, secret }
    }

    /// A connection that was welcomed did not come: readers that waited for it dial by themselves.
    fn not_accepted(self: &Arc<Self>, name: &str) {
        let mut state = self.state.lock();
        let Some(Peer::Coming { waiting, dialing: dialing @ false }) = state.peers.get_mut(name) else { return };
        if waiting.is_empty() {
            state.peers.remove(name);
            return;
        }
        *dialing = true;
        drop(state);
        match name.parse() {
            Ok(peer) => {
                let shared = self.clone();
                self.env.spawner.spawn("shuffle-dial", async move { shared.dial(peer).await });
            }
            Err(e) => tracing::warn!("a host gave a data address that is none: {e}"),
        }
    }
}
