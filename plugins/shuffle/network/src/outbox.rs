//! What leaves on a connection: the queue that slot threads fill, and the batch that is on its way into the socket.

use crate::{
    connection::Half,
    frame::{self, Frame, Head},
    packing::Packed,
    reader::Failure,
    sync::Mutex,
    writer::WriterShared,
};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

/// Bodies up to this length are gathered into one buffer; longer ones are written from where they are.
const GATHER_BELOW: usize = 4 * 1024;
/// Written at once, about.
const WRITE: usize = 512 * 1024;
/// Buffers in one system call, at most.
const SLICES: usize = 128;

/// The queue of one connection.
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    pub(crate) ready: Notify,
    /// Bytes that it takes before writers wait.
    limit: usize,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Outgoing>,
    /// What is in the queue, in the batch, and reserved.
    bytes: usize,
    /// Writers to wake when there is room.
    waiting: Vec<Arc<WriterShared>>,
    /// Why it takes nothing more.
    closed: Option<Failure>,
}

enum Outgoing {
    Control(Head, Bytes),
    Parcel { stream: u32, parcel: Packed, writer: Arc<WriterShared> },
}

/// Is there a place for a parcel?
pub(crate) enum Place {
    Reserved,
    Full,
    Closed(Failure),
}

impl Outbox {
    pub(crate) fn new(limit: usize) -> Self {
        Self { inner: Mutex::default(), ready: Notify::new(), limit }
    }

    /// Why it is closed, if it is.
    pub(crate) fn closed(&self) -> Option<Failure> {
        self.inner.lock().closed.clone()
    }

    /// Empties it, and takes nothing more. `false` when it was closed before: the first cause counts.
    pub(crate) fn close(&self, failure: Failure) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return false;
        }
        *inner = Inner { closed: Some(failure), ..Inner::default() };
        true
    }

    /// Bytes of parcels in it.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Queues a frame that is no parcel; `false` when it is closed.
    pub(crate) fn control(&self, frame: &Frame) -> bool {
        let (head, body) = frame::control(frame);
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return false;
        }
        inner.queue.push_back(Outgoing::Control(head, body));
        drop(inner);
        self.ready.notify_one();
        true
    }

    /// Asks for a place. Where there is none, `wait` is told when there is: it stands in the list once.
    pub(crate) fn reserve(&self, cost: usize, wait: Option<&Arc<WriterShared>>) -> Place {
        let mut inner = self.inner.lock();
        if let Some(failure) = &inner.closed {
            return Place::Closed(failure.clone());
        }
        // A first parcel goes in whatever its length, so that a long one does not wait for ever.
        if inner.bytes >= self.limit {
            inner.waiting.extend(wait.cloned());
            return Place::Full;
        }
        inner.bytes += cost;
        Place::Reserved
    }

    /// Queues a parcel that has a place for `reserved` bytes and may have become smaller.
    pub(crate) fn parcel(
        &self,
        stream: u32,
        parcel: Packed,
        reserved: usize,
        writer: &Arc<WriterShared>,
    ) -> Result<(), Failure> {
        let mut inner = self.inner.lock();
        if let Some(failure) = &inner.closed {
            return Err(failure.clone());
        }
        inner.bytes -= reserved - parcel.cost();
        let idle = inner.queue.is_empty();
        inner.queue.push_back(Outgoing::Parcel { stream, parcel, writer: writer.clone() });
        drop(inner);
        if idle {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Moves frames from the queue into the batch.
    pub(crate) fn fill(&self, batch: &mut Batch) {
        let mut inner = self.inner.lock();
        while batch.length < WRITE && batch.chunks.len() < SLICES {
            match inner.queue.pop_front() {
                None => break,
                Some(Outgoing::Control(head, body)) => batch.frame(&head, body),
                Some(Outgoing::Parcel { stream, parcel, writer }) => {
                    batch.bytes += parcel.cost();
                    batch.frame(&Head::data(stream, &parcel), parcel.body);
                    match batch.writers.last_mut() {
                        Some((last, parcels)) if Arc::ptr_eq(last, &writer) => *parcels += 1,
                        _ => batch.writers.push((writer, 1)),
                    }
                }
            }
        }
        drop(inner);
        batch.flush();
    }

    /// The batch was written: its writers are told, and those that wait for room.
    pub(crate) fn written(&self, batch: &mut Batch) {
        for (writer, parcels) in batch.writers.drain(..) {
            writer.written(parcels);
        }
        let bytes = std::mem::take(&mut batch.bytes);
        if bytes == 0 {
            return;
        }
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        let waiting = if inner.bytes <= self.limit / 2 { std::mem::take(&mut inner.waiting) } else { Vec::new() };
        drop(inner);
        for writer in waiting {
            writer.room();
        }
    }
}

/// Frames on their way into one or a few system calls.
#[derive(Default)]
pub(crate) struct Batch {
    chunks: VecDeque<Bytes>,
    gathered: BytesMut,
    length: usize,
    /// Number of the next frame.
    number: u64,
    /// Cost of the parcels in it.
    bytes: usize,
    writers: Vec<(Arc<WriterShared>, usize)>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    #[cfg(all(test, thalweg_loom))]
    pub(crate) fn cost(&self) -> usize {
        self.bytes
    }

    /// A frame more; it has its number from now on.
    fn frame(&mut self, head: &Head, body: Bytes) {
        self.gather(&head.signed(self.number));
        self.number += 1;
        if body.len() < GATHER_BELOW {
            self.gather(&body);
        } else {
            self.flush();
            self.length += body.len();
            self.chunks.push_back(body);
        }
    }

    /// A last frame, behind what is in it.
    pub(crate) fn last(&mut self, frame: &Frame) {
        let (head, body) = frame::control(frame);
        self.frame(&head, body);
        self.flush();
    }

    fn gather(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.gathered.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(self.gathered.split().freeze());
        }
    }

    /// Writes all of it. Dropped half-way it goes on where it was.
    pub(crate) async fn write(&mut self, to: &mut Half<dyn AsyncWrite + Send>) -> io::Result<usize> {
        let total = std::mem::take(&mut self.length);
        while !self.chunks.is_empty() {
            let slices: Vec<_> = self.chunks.iter().take(SLICES).map(|c| IoSlice::new(c)).collect();
            let mut n = to.write_vectored(&slices).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while let Some(first) = self.chunks.front_mut() {
                if n < first.len() {
                    first.advance(n);
                    break;
                }
                n -= first.len();
                self.chunks.pop_front();
            }
        }
        to.flush().await?;
        Ok(total)
    }
}
