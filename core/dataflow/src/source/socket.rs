//! Lines from a TCP socket, for trying things out: what was read before a failure is not read again.
//!
//! The socket lives on tokio, not on the slot's thread: a task that waits for it costs no CPU and is cancelled at once.

use super::{Assignment, Enumerator, Polled, Reader, ReaderCx, Source};
use crate::{build::OpCx, push::Push, sink::is_address};
use std::{collections::VecDeque, path::Path, task::Waker};
use thalweg_env::{Address, Env, Task};
use thalweg_model::{FailureKind, TaskFailure};
use tokio::{
    io::AsyncReadExt,
    sync::mpsc::{Receiver, channel, error::TryRecvError},
};

/// A source of the lines that a server at this address sends. It ends when the server closes.
#[derive(Clone)]
pub struct SocketText {
    address: String,
}

impl SocketText {
    /// `host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

impl Source for SocketText {
    type Item = String;
    type Split = String;
    type Enumerator = One;
    type Reader = SocketReader;
    fn kind(&self) -> &'static str {
        "socket-source"
    }
    fn is_bounded(&self) -> bool {
        false
    }
    fn check(&self, _: &Path) -> Result<(), String> {
        let wrong = || format!("{:?} is no address to read from: name host:port, as localhost:9999", self.address);
        is_address(&self.address).then_some(()).ok_or_else(wrong)
    }
    fn enumerator(&self, cx: &OpCx) -> Result<One, TaskFailure> {
        // A reader has it then.
        let dealt = cx.restored().any(|(_, state)| state == DEALT);
        Ok(One((!dealt).then(|| self.address.clone())))
    }
    fn reader(&self, cx: &OpCx) -> Result<SocketReader, TaskFailure> {
        Ok(SocketReader {
            env: cx.env().clone(),
            waker: cx.waker(),
            max_record: cx.max_record(),
            open: None,
            partial: Vec::new(),
            lines: VecDeque::new(),
        })
    }
}

/// One split: the first reader that asks has the socket, the others have nothing.
pub struct One(Option<String>);

impl Enumerator for One {
    type Split = String;
    fn next(&mut self, _: u32) -> Result<Assignment<String>, TaskFailure> {
        Ok(self.0.take().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Ok(if self.0.is_none() { DEALT.to_vec() } else { Vec::new() })
    }
}

/// The state of an enumerator whose split was dealt.
const DEALT: &[u8] = b"dealt";

struct Open {
    address: String,
    chunks: Receiver<Result<Vec<u8>, String>>,
    task: Task,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the socket.
pub struct SocketReader {
    env: Env,
    waker: Waker,
    max_record: usize,
    open: Option<Open>,
    partial: Vec<u8>,
    lines: VecDeque<String>,
}

impl SocketReader {
    fn take_lines(&mut self, chunk: &[u8]) -> Result<(), TaskFailure> {
        let mut rest = chunk;
        while let Some(i) = memchr::memchr(b'\n', rest) {
            self.partial.extend_from_slice(&rest[..i]);
            self.line();
            rest = &rest[i + 1..];
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > self.max_record {
            let max = self.max_record;
            let message = format!("a line of more than {max} bytes came from the socket: exchange.max-record is {max}");
            return Err(TaskFailure::new(FailureKind::User, message));
        }
        Ok(())
    }

    fn line(&mut self) {
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        self.lines.push_back(String::from_utf8_lossy(line).into_owned());
        self.partial.clear();
    }
}

impl Reader for SocketReader {
    type Item = String;
    type Split = String;
    fn add(&mut self, split: String) {
        let (sender, chunks) = channel(16);
        let (network, waker, at) = (self.env.outside.clone(), self.waker.clone(), split.clone());
        let task = self.env.spawner.spawn("socket-source", async move {
            let result = async {
                let mut stream = network.connect(&Address::Tcp(at.clone())).await.map_err(|e| format!("{at}: {e}"))?;
                loop {
                    let mut chunk = vec![0; 16 << 10];
                    let n = stream.read(&mut chunk).await.map_err(|e| format!("{at}: {e}"))?;
                    chunk.truncate(n);
                    if n == 0 || sender.send(Ok(chunk)).await.is_err() {
                        return Ok(());
                    }
                    waker.wake_by_ref();
                }
            };
            if let Err(e) = result.await {
                let _ = sender.send(Err(e)).await;
            }
            drop(sender);
            waker.wake();
        });
        self.open = Some(Open { address: split, chunks, task });
    }

    fn poll(&mut self, budget: usize, out: &mut impl Push<String>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        for _ in 0..budget {
            if let Some(line) = self.lines.pop_front() {
                out.emit(line);
                continue;
            }
            let Some(open) = &mut self.open else { return Ok(Polled::Done) };
            match open.chunks.try_recv() {
                Ok(Ok(chunk)) => {
                    cx.read_bytes(chunk.len() as u64);
                    self.take_lines(&chunk)?;
                }
                Ok(Err(e)) => return Err(TaskFailure::new(FailureKind::Storage, format!("socket {e}"))),
                Err(TryRecvError::Empty) => return Ok(Polled::Idle),
                Err(TryRecvError::Disconnected) => {
                    self.open = None;
                    if !self.partial.is_empty() {
                        self.line();
                    }
                }
            }
        }
        Ok(Polled::Progress)
    }

    fn unfinished(&self) -> Vec<String> {
        self.open.iter().map(|o| o.address.clone()).collect()
    }
}
