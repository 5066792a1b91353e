//! A process's RPC: where it listens, what it serves, and the connections that it has.
//!
//! It ends with its [`Shutdown`]: the listener goes first, then every connection.

use crate::{
    connection::{Connection, Peer, Transport, codec},
    error::{Fault, RpcError},
    frame::Frame,
    gateway::{Reply, RpcMessage},
    handshake::{Hello, MAGIC, Role},
    mailbox::{Caller, Envelope, MailboxSender},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_env::{Address, BoxStream, Env, PeerInfo, Shutdown};
use thalweg_model::{ClusterId, Epoch, InstanceId};
use thalweg_spi::Secret;

/// How a process speaks.
#[derive(Debug, Clone)]
pub struct RpcSettings {
    /// What it is.
    pub role: Role,
    /// Its cluster.
    pub cluster: ClusterId,
    /// This life of it.
    pub instance: InstanceId,
    /// The cluster's secret.
    pub secret: Secret,
    /// How long a call, a dial and a handshake wait.
    pub timeout: Duration,
    /// Longest frame in bytes.
    pub max_frame: usize,
}

/// Connections that have not shown the secret yet: more wait in the system's queue.
const MAX_STRANGERS: usize = 64;
/// Longest first frame.
const MAX_HELLO: usize = 64 << 10;

type Post = Box<dyn Fn(Caller, &str, &[u8], Option<Reply<Bytes>>) -> Result<(), Fault> + Send + Sync>;

/// The endpoints of this process, by name.
#[derive(Clone, Default)]
pub(crate) struct Endpoints(Arc<RwLock<HashMap<String, Post>>>);

impl Endpoints {
    pub(crate) fn post(&self, name: &str, caller: Caller, method: &str, body: &[u8], answer: Option<Reply<Bytes>>) {
        let posts = self.0.read();
        let Some(post) = posts.get(name) else {
            if let Some(answer) = answer {
                answer.send(Err(Fault::NoEndpoint(name.into())));
            }
            return;
        };
        if let Err(fault) = post(caller, method, body, answer) {
            tracing::warn!(endpoint = name, method, "call refused: {fault}");
        }
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

struct Inner {
    env: Env,
    settings: RpcSettings,
    endpoints: Endpoints,
    address: Mutex<Option<Address>>,
    epoch: Mutex<Option<Epoch>>,
    /// Of the latest connection.
    number: AtomicU64,
    /// By address. One dial at a time for each.
    dialled: Mutex<HashMap<String, Slot>>,
    shutdown: Shutdown,
}

/// A handle; cheap to clone.
#[derive(Clone)]
pub struct RpcService(Arc<Inner>);

impl RpcService {
    /// A service that listens nowhere yet.
    pub fn new(env: Env, settings: RpcSettings, shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            env,
            settings,
            endpoints: Endpoints::default(),
            address: Mutex::new(None),
            epoch: Mutex::new(None),
            number: AtomicU64::new(0),
            dialled: Mutex::default(),
            shutdown,
        }))
    }

    /// Starts to listen; answers the address that peers dial.
    pub async fn listen(&self, at: &Address) -> io::Result<Address> {
        let listener = self.0.env.network.listen(at).await?;
        let address = listener.address();
        *self.0.address.lock() = Some(address.clone());
        let service = self.clone();
        self.0.env.spawner.spawn("rpc-accept", async move {
            let strangers = Arc::new(tokio::sync::Semaphore::new(MAX_STRANGERS));
            loop {
                let Ok(permit) = strangers.clone().acquire_owned().await else { return };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = service.0.shutdown.triggered() => return,
                };
                match accepted {
                    Ok((stream, peer)) => {
                        let greeted = service.clone();
                        // Not behind the handshake, where one could pass another.
                        let number = service.next_number();
                        service.0.env.spawner.spawn("rpc-greet", async move {
                            greeted.greet(stream, peer, number).await;
                            drop(permit);
                        });
                    }
                    Err(e) => {
                        // Out of descriptors, most likely: others may close some.
                        tracing::warn!("cannot accept a connection: {e}");
                        service.0.env.clock.sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(address)
    }

    /// From now on the first frame says that this process leads.
    pub fn set_epoch(&self, epoch: Epoch) {
        *self.0.epoch.lock() = Some(epoch);
    }

    /// Serves a mailbox under this name. A second one of the same name takes its place.
    pub fn serve<M: RpcMessage>(&self, name: &str, mailbox: MailboxSender<M>) {
        let post: Post = Box::new(move |caller, method, body, answer| {
            let mut answer = answer;
            match M::decode(method, body, &mut answer) {
                Ok(message) => mailbox.send(Envelope { caller, message }).map_err(|_| Fault::Ended),
                Err(fault) => {
                    if let Some(answer) = answer {
                        answer.send(Err(fault.clone()));
                    }
                    Err(fault)
                }
            }
        });
        self.0.endpoints.0.write().insert(name.into(), post);
    }

    /// No longer serves that name.
    pub fn withdraw(&self, name: &str) {
        self.0.endpoints.0.write().remove(name);
    }

    /// Where peers dial this process.
    pub fn address(&self) -> Option<Address> {
        self.0.address.lock().clone()
    }

    /// This life of this process.
    pub fn instance(&self) -> InstanceId {
        self.0.settings.instance
    }

    fn hello(&self) -> Hello {
        let settings = &self.0.settings;
        Hello {
            magic: MAGIC.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            role: settings.role,
            cluster: settings.cluster.clone(),
            instance: settings.instance,
            address: self.0.address.lock().as_ref().map(Address::to_string),
            epoch: *self.0.epoch.lock(),
            secret: settings.secret.expose().clone(),
        }
    }

    /// The connection to that address: the one that is open, or a new one.
    pub async fn connect(&self, to: &Address) -> Result<Connection, RpcError> {
        let slot = self.0.dialled.lock().entry(to.to_string()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|c| !c.is_closed()) {
            return Ok(open.clone());
        }
        let connection = self.dial(to).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// A new connection to that address, which nobody else shares. For a look who is there.
    pub async fn dial(&self, to: &Address) -> Result<Connection, RpcError> {
        let unreachable = |cause: String| RpcError::Unreachable { address: to.to_string(), cause };
        let limit = self.0.settings.timeout;
        let handshake = async {
            let stream = self.0.env.network.connect(to).await.map_err(|e| match e.kind() {
                // A Unix socket whose file is gone has nobody behind it either.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    RpcError::ConnectionRefused { address: to.to_string() }
                }
                _ => unreachable(e.to_string()),
            })?;
            let mut transport = Transport::new(stream, codec(MAX_HELLO));
            let hello = encoded(&Frame::Hello(self.hello()));
            transport.send(hello).await.map_err(|e| unreachable(e.to_string()))?;
            let refused = |reason: String| RpcError::HandshakeRefused { address: to.to_string(), reason };
            match next_frame(&mut transport).await {
                Ok(Frame::Hello(peer)) => {
                    peer.check(&self.hello(), &self.0.settings.secret).map_err(refused)?;
                    Ok((transport, peer))
                }
                Ok(Frame::Refuse(reason)) => Err(refused(reason)),
                Ok(_) => Err(refused("it did not answer the first frame".into())),
                Err(e) => Err(unreachable(e)),
            }
        };
        let (transport, peer) = thalweg_env::timeout(&*self.0.env.clock, limit, handshake)
            .await
            .map_err(|_| unreachable(format!("no answer within {}s", limit.as_secs_f64())))??;
        Ok(self.start(transport, Peer { number: self.next_number(), hello: peer }))
    }

    fn next_number(&self) -> u64 {
        self.0.number.fetch_add(1, Relaxed) + 1
    }

    async fn greet(&self, stream: BoxStream, from: PeerInfo, number: u64) {
        let mut transport = Transport::new(stream, codec(MAX_HELLO));
        let first = thalweg_env::timeout(&*self.0.env.clock, self.0.settings.timeout, next_frame(&mut transport)).await;
        let peer = match first {
            Ok(Ok(Frame::Hello(peer))) => peer,
            Ok(Ok(_)) => return tracing::warn!(from = from.name, "closing: the first frame is not a hello"),
            Ok(Err(e)) => return tracing::debug!(from = from.name, "closing: no first frame: {e}"),
            Err(_) => return tracing::debug!(from = from.name, "closing: no first frame in time"),
        };
        let ours = self.hello();
        if let Err(reason) = peer.check(&ours, &self.0.settings.secret) {
            tracing::warn!(from = from.name, role = %peer.role, "refused: {reason}");
            let _ = transport.send(encoded(&Frame::Refuse(reason))).await;
            let _ = SinkExt::<Bytes>::close(&mut transport).await;
            return;
        }
        if transport.send(encoded(&Frame::Hello(ours))).await.is_ok() {
            self.start(transport, Peer { number, hello: peer });
        }
    }

    fn start(&self, transport: Transport, peer: Peer) -> Connection {
        let inner = &self.0;
        let mut parts = transport.into_parts();
        parts.codec = codec(inner.settings.max_frame);
        Connection::start(
            &inner.env,
            Transport::from_parts(parts),
            peer,
            inner.endpoints.clone(),
            inner.settings.timeout,
            inner.settings.max_frame,
            inner.shutdown.child(),
        )
    }

    /// How long a call waits.
    pub fn timeout(&self) -> Duration {
        self.0.settings.timeout
    }

    /// The seams that this service uses.
    pub fn env(&self) -> &Env {
        &self.0.env
    }
}

fn encoded(frame: &Frame) -> Bytes {
    thalweg_wire::encode(frame).into()
}

async fn next_frame(transport: &mut Transport) -> Result<Frame, String> {
    match transport.next().await {
        None => Err("closed".into()),
        Some(Err(e)) => Err(e.to_string()),
        Some(Ok(bytes)) => thalweg_wire::decode(&bytes, MAX_HELLO).map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests;
