//! Lines to a server, over one TCP connection for each subtask. What the server has taken nobody knows: it is for
//! trying things out, and a connection that is lost fails the task.
//!
//! The socket lives on tokio, not on the slot's thread. Lines wait for it in a queue; when that is full the writer has
//! no room, and the records before it wait.

use super::{Display, LineFormat, Sink, SinkWriter, With};
use crate::{batch::Time, build::OpCx, codec, ops::ClonedToSubtasks, push::Ready};
use parking_lot::Mutex;
use std::{collections::VecDeque, path::Path, sync::Arc, task::Waker};
use thalweg_env::{Address, Env, Task};
use thalweg_model::{FailureKind, TaskFailure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

/// Bytes of one piece of the queue.
const PIECE: usize = 16 << 10;
/// Bytes that the queue holds before records wait; a little more, since room is asked for between batches.
const QUEUE: usize = 256 << 10;

/// A server at this address gets a line for each record.
#[derive(Clone)]
pub struct SocketSink<F = Display> {
    address: String,
    format: F,
}

impl SocketSink {
    /// `host:port`. Lines are as `Display` says.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), format: Display }
    }
}

impl<F> SocketSink<F> {
    /// Another form of lines.
    pub fn format<G>(self, format: G) -> SocketSink<G> {
        SocketSink { address: self.address, format }
    }

    /// Lines as a function appends them, without their ends.
    pub fn lines<T, G: FnMut(&T, &mut Vec<u8>) + ClonedToSubtasks>(self, line: G) -> SocketSink<With<G>> {
        self.format(With(line))
    }
}

/// Does it have the form of a server's address? Whether there is one shows when it is connected.
pub(crate) fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(|c: char| c == '/' || c.is_whitespace());
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl<T: 'static, F: LineFormat<T>> Sink<T> for SocketSink<F> {
    type Writer = SocketWriter<F>;
    fn kind(&self) -> &'static str {
        "socket-sink"
    }

    fn check(&self, _: &Path) -> Result<(), String> {
        let wrong = || format!("{:?} is no address to write to: name host:port, as localhost:9999", self.address);
        is_address(&self.address).then_some(()).ok_or_else(wrong)
    }

    fn writer(&self, cx: &OpCx) -> Result<SocketWriter<F>, TaskFailure> {
        let mut unsent = VecDeque::new();
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<u8> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the lines that subtask {writer} had cannot be read: {e}"))
            })?;
            unsent.push_back(part.into());
        }
        let queued = unsent.iter().map(|p: &Arc<[u8]>| p.len()).sum();
        let shared = Arc::new(Shared {
            state: Mutex::new(State { unsent, queued, over: false, end: None }),
            more: Notify::new(),
            waker: cx.waker(),
        });
        let task = send(cx.env(), self.address.clone(), shared.clone());
        Ok(SocketWriter { format: self.format.clone(), piece: Vec::new(), shared, task })
    }
}

struct State {
    /// Pieces of whole lines that the system has not taken yet.
    unsent: VecDeque<Arc<[u8]>>,
    queued: usize,
    /// No more will come.
    over: bool,
    /// How it ended.
    end: Option<Result<(), String>>,
}

struct Shared {
    state: Mutex<State>,
    more: Notify,
    waker: Waker,
}

impl Shared {
    /// The first piece; `None` when there will be no more.
    async fn next(&self) -> Option<Arc<[u8]>> {
        loop {
            {
                let state = self.state.lock();
                match state.unsent.front() {
                    Some(piece) => return Some(piece.clone()),
                    None if state.over => return None,
                    None => {}
                }
            }
            // What comes in between leaves its permit.
            self.more.notified().await;
        }
    }

    fn sent(&self) {
        let mut state = self.state.lock();
        if let Some(piece) = state.unsent.pop_front() {
            state.queued -= piece.len();
        }
        drop(state);
        self.waker.wake_by_ref();
    }
}

fn send(env: &Env, address: String, shared: Arc<Shared>) -> Task {
    let network = env.outside.clone();
    env.spawner.spawn("socket-sink", async move {
        let sending = async {
            let refused = |e: std::io::Error| {
                let port = address.rsplit_once(':').map_or("", |(_, port)| port);
                format!("{address}: {e}: start the server before the job, as with `nc -lk {port}`")
            };
            let stream = network.connect(&Address::Tcp(address.clone())).await.map_err(refused)?;
            let (mut answers, mut lines) = tokio::io::split(stream);
            let lost = |e: std::io::Error| {
                format!("{address}: the connection was lost: {e}: lines that were under way may be lost too")
            };
            let write = async {
                while let Some(piece) = shared.next().await {
                    lines.write_all(&piece).await?;
                    shared.sent();
                }
                lines.shutdown().await
            };
            // What the server says is nobody's business, but when it goes it may say so before a line does. One that
            // only stops to talk may still listen.
            let read = async {
                let mut answer = [0; 1 << 10];
                loop {
                    match answers.read(&mut answer).await {
                        Ok(0) => std::future::pending().await,
                        Ok(_) => {}
                        Err(e) => return Err::<(), _>(e),
                    }
                }
            };
            tokio::select! {
                written = write => written.map_err(lost),
                gone = read => gone.map_err(lost),
            }
        };
        let end = sending.await;
        shared.state.lock().end = Some(end);
        shared.waker.wake_by_ref();
    })
}

/// Gives lines to the connection.
pub struct SocketWriter<F> {
    format: F,
    piece: Vec<u8>,
    shared: Arc<Shared>,
    task: Task,
}

impl<F> SocketWriter<F> {
    fn hand_over(&mut self) {
        if !self.piece.is_empty() {
            let mut state = self.shared.state.lock();
            state.queued += self.piece.len();
            state.unsent.push_back(self.piece.as_slice().into());
            self.piece.clear();
            drop(state);
            self.shared.more.notify_one();
        }
    }
}

impl<T: 'static, F: LineFormat<T>> SinkWriter<T> for SocketWriter<F> {
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        self.format.line(&item, &mut self.piece).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
        self.piece.push(b'\n');
        if self.piece.len() >= PIECE {
            self.hand_over();
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<Ready, TaskFailure> {
        let state = self.shared.state.lock();
        Ok(match &state.end {
            Some(Err(e)) => return Err(TaskFailure::new(FailureKind::Lost, format!("socket {e}"))),
            Some(Ok(())) => Ready::Yes,
            None if state.over || state.queued >= QUEUE => Ready::Blocked,
            None => Ready::Yes,
        })
    }

    fn flush(&mut self) -> Result<(), TaskFailure> {
        self.hand_over();
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        self.hand_over();
        self.shared.state.lock().over = true;
        self.shared.more.notify_one();
        Ok(Vec::new())
    }

    /// What the system has not taken: it is sent again.
    fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        self.hand_over();
        let state = self.shared.state.lock();
        let unsent = state.unsent.iter().map(|p| &p[..]).collect::<Vec<_>>().concat();
        codec::encode(&unsent).map(Some).map_err(|e| TaskFailure::new(FailureKind::User, e))
    }
}

impl<F> Drop for SocketWriter<F> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
