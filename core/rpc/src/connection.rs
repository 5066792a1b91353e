//! One connection between two processes: all their calls, both ways.
//!
//! A reader task takes frames off the stream and posts calls to mailboxes in their order; a writer task puts frames on.
//! It ends when either side closes, when a frame is damaged, or when the owner says [`Connection::close`]; then every
//! call that waits gets [`RpcError::Closed`], and [`Connection::closed`] resolves.

use crate::{
    error::{Fault, RpcError},
    frame::{Fence, Frame},
    gateway::Reply,
    handshake::Hello,
    mailbox::Caller,
    service::Endpoints,
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_env::{BoxStream, Env, Shutdown};
use thalweg_model::InstanceId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Which process is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub InstanceId);

/// Calls of one connection that may be unanswered at once; more are refused as overload.
const MAX_CALLS: usize = 4096;
/// Bytes that may wait for a slow peer.
const MAX_QUEUED: usize = 64 << 20;

type Waiting = HashMap<u64, oneshot::Sender<Result<Bytes, RpcError>>>;

struct Inner {
    /// Its place among the service's connections.
    number: u64,
    peer: Hello,
    env: Env,
    timeout: Duration,
    max_frame: usize,
    next_call: AtomicU64,
    /// `None` once closed, so that no call can begin to wait after the last was told.
    waiting: Mutex<Option<Waiting>>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    queued: AtomicUsize,
    calls: AtomicUsize,
    closed: Shutdown,
}

/// A handle; cheap to clone. Dropping all handles does not close the connection, its owner (the service) does.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection(to {:?})", self.0.peer)
    }
}

/// Who is at the other end of a stream whose handshake is done.
pub(crate) struct Peer {
    /// Of the connection.
    pub number: u64,
    /// Its first frame.
    pub hello: Hello,
}

pub(crate) type Transport = Framed<BoxStream, LengthDelimitedCodec>;

pub(crate) fn codec(max_frame: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(max_frame).new_codec()
}

impl Connection {
    /// Starts both tasks on a stream whose handshake is done.
    pub(crate) fn start(
        env: &Env,
        transport: Transport,
        Peer { number, hello }: Peer,
        endpoints: Endpoints,
        timeout: Duration,
        max_frame: usize,
        closed: Shutdown,
    ) -> Self {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let connection = Connection(Arc::new(Inner {
            number,
            peer: hello,
            env: env.clone(),
            timeout,
            max_frame,
            next_call: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
            outgoing,
            queued: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            closed,
        }));
        let (sink, stream) = transport.split();
        env.spawner.spawn("rpc-write", write(connection.clone(), sink, queue));
        env.spawner.spawn("rpc-read", read(connection.clone(), stream, endpoints));
        connection
    }

    /// The peer's first frame.
    pub fn peer(&self) -> &Hello {
        &self.0.peer
    }

    /// Was it made after the other one?
    pub fn is_later(&self, other: &Connection) -> bool {
        self.0.number > other.0.number
    }

    /// Its place among the connections of this process, in the order in which they were accepted or dialled, from 1.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Which process is at the other end.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.0.peer.instance)
    }

    /// Most bytes of one message on it.
    pub fn max_frame(&self) -> usize {
        self.0.max_frame
    }

    /// Is it closed?
    pub fn is_closed(&self) -> bool {
        self.0.closed.is_triggered()
    }

    /// Resolves when it is closed.
    pub async fn closed(&self) {
        self.0.closed.triggered().await;
    }

    /// Closes it. Calls that wait are told.
    pub fn close(&self) {
        self.0.closed.trigger();
        let waiting = self.0.waiting.lock().take();
        for (_, caller) in waiting.into_iter().flatten() {
            let _ = caller.send(Err(RpcError::Closed));
        }
    }

    fn send(&self, frame: &Frame) -> Result<(), RpcError> {
        let bytes = thalweg_wire::encode(frame);
        if bytes.len() > self.0.max_frame {
            return Err(RpcError::TooLarge { size: bytes.len(), limit: self.0.max_frame });
        }
        if self.is_closed() {
            return Err(RpcError::Closed);
        }
        if self.0.queued.fetch_add(bytes.len(), Relaxed) > MAX_QUEUED {
            self.0.queued.fetch_sub(bytes.len(), Relaxed);
            return Err(RpcError::Fault(Fault::Overloaded));
        }
        self.0.outgoing.send(bytes.into()).map_err(|_| RpcError::Closed)
    }

    pub(crate) fn tell(&self, endpoint: &str, fence: Fence, method: &str, body: Bytes) -> Result<(), RpcError> {
        let (endpoint, method) = (endpoint.to_owned(), method.to_owned());
        self.send(&Frame::Call { call: 0, endpoint, fence, deadline: 0, method, body })
    }

    pub(crate) async fn ask(&self, endpoint: &str, fence: Fence, method: &str, body: Bytes) -> Result<Bytes, RpcError> {
        let call = self.0.next_call.fetch_add(1, Relaxed);
        let (send, receive) = oneshot::channel();
        match &mut *self.0.waiting.lock() {
            Some(waiting) => waiting.insert(call, send),
            None => return Err(RpcError::Closed),
        };
        let forget = Forget(self, call);
        let deadline = u32::try_from(self.0.timeout.as_millis()).unwrap_or(u32::MAX);
        let (endpoint, method) = (endpoint.to_owned(), method.to_owned());
        self.send(&Frame::Call { call, endpoint, fence, deadline, method, body })?;
        let answer = thalweg_env::timeout(&*self.0.env.clock, self.0.timeout, receive).await;
        drop(forget);
        match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(RpcError::Closed),
            Err(_) => Err(RpcError::Timeout),
        }
    }

    fn answered(&self, call: u64, outcome: Result<Bytes, Fault>) {
        let waiting = self.0.waiting.lock().as_mut().and_then(|w| w.remove(&call));
        // Nobody waits: the caller gave up. That is its right.
        if let Some(caller) = waiting {
            let _ = caller.send(outcome.map_err(RpcError::Fault));
        }
    }

    fn called(&self, endpoints: &Endpoints, call: u64, endpoint: &str, fence: Fence, method: &str, body: Bytes) {
        let answer = (call != 0).then(|| {
            let connection = self.clone();
            connection.0.calls.fetch_add(1, Relaxed);
            Reply::new(move |outcome| {
                connection.0.calls.fetch_sub(1, Relaxed);
                let too_large = |e: &RpcError| matches!(e, RpcError::TooLarge { .. });
                if let Err(e) = connection.send(&Frame::Answer { call, outcome })
                    && too_large(&e)
                {
                    let _ = connection.send(&Frame::Answer { call, outcome: Err(Fault::Refused(e.to_string())) });
                }
            })
        });
        if self.0.calls.load(Relaxed) > MAX_CALLS {
            if let Some(answer) = answer {
                answer.send(Err(Fault::Overloaded));
            }
            return;
        }
        let caller = Caller { fence, connection: Some(self.clone()) };
        endpoints.post(endpoint, caller, method, &body, answer);
    }
}

/// Takes a call off the list when its future is dropped.
struct Forget<'a>(&'a Connection, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.0.0.waiting.lock() {
            waiting.remove(&self.1);
        }
    }
}

async fn write(
    connection: Connection,
    mut sink: futures::stream::SplitSink<Transport, Bytes>,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
) {
    let run = async {
        while let Some(frame) = queue.recv().await {
            let mut sent = frame.len();
            sink.feed(frame).await?;
            while let Ok(frame) = queue.try_recv() {
                sent += frame.len();
                sink.feed(frame).await?;
            }
            sink.flush().await?;
            connection.0.queued.fetch_sub(sent, Relaxed);
        }
        std::io::Result::Ok(())
    };
    let outcome = tokio::select! {
        outcome = run => outcome,
        () = connection.closed() => Ok(()),
    };
    if let Err(e) = outcome {
        tracing::debug!(peer = ?connection.peer(), "connection lost while writing: {e}");
    }
    let _ = sink.close().await;
    connection.close();
}

async fn read(connection: Connection, mut stream: futures::stream::SplitStream<Transport>, endpoints: Endpoints) {
    loop {
        let frame: Option<Result<BytesMut, _>> = tokio::select! {
            frame = stream.next() => frame,
            () = connection.closed() => break,
        };
        let decoded = match frame {
            None => break,
            Some(Err(e)) => Err(e.to_string()),
            Some(Ok(bytes)) => thalweg_wire::decode::<Frame>(&bytes, connection.0.max_frame).map_err(|e| e.to_string()),
        };
        match decoded {
            Ok(Frame::Answer { call, outcome }) => connection.answered(call, outcome),
            Ok(Frame::Call { call, endpoint, fence, deadline: _, method, body }) => {
                connection.called(&endpoints, call, &endpoint, fence, &method, body);
            }
            Ok(Frame::Hello(_) | Frame::Refuse(_)) => {
                tracing::warn!(peer = ?connection.peer(), "closing: a second first frame");
                break;
            }
            Err(e) => {
                tracing::warn!(peer = ?connection.peer(), "closing: damaged frame: {e}");
                break;
            }
        }
    }
    connection.close();
}
