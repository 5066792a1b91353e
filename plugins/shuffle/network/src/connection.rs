//! One connection to one other host: its streams, its queue, and the two tasks that move bytes.

use crate::{
    environment::Shared,
    frame::{self, Frame, PARCEL_OVERHEAD, cost},
    reader::{Failure, ReaderShared},
    writer::WriterShared,
};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};
use thalweg_env::{BoxStream, Shutdown};
use thalweg_spi::{ErrorKind, Parcel};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

/// Read at once, at most.
const READ: usize = 256 * 1024;
/// Bodies up to this length are gathered into one buffer; longer ones are written from where they are.
const GATHER_BELOW: usize = 4 * 1024;
/// Written at once, about.
const WRITE: usize = 512 * 1024;
/// Buffers in one system call, at most.
const SLICES: usize = 128;

type Half<T> = Pin<Box<T>>;

/// A connection that both sides have agreed on.
pub(crate) struct Connection {
    /// The other host's data address.
    pub(crate) peer: String,
    pub(crate) incarnation: [u8; 16],
    out: Mutex<Out>,
    ready: Notify,
    streams: Mutex<Streams>,
    ends: Shutdown,
    /// Bytes that the queue takes before writers wait.
    limit: usize,
}

#[derive(Default)]
struct Out {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    /// Writers to wake when there is room.
    waiting: Vec<Arc<WriterShared>>,
    /// Why it takes nothing more.
    closed: Option<String>,
}

enum Outgoing {
    Control(Bytes),
    Parcel { stream: u32, parcel: Parcel, writer: Arc<WriterShared> },
}

#[derive(Default)]
struct Streams {
    /// By our number.
    reading: HashMap<u32, Arc<ReaderShared>>,
    /// By the other side's number.
    writing: HashMap<u32, Arc<WriterShared>>,
    next: u32,
}

/// What became of a parcel.
pub(crate) enum Push {
    Taken,
    Full(Parcel),
    Closed(String),
}

impl Connection {
    /// Starts the two tasks. `first` are bytes that were read behind the handshake: none, since nothing follows it
    /// before the answer.
    pub(crate) fn start(shared: &Arc<Shared>, peer: String, incarnation: [u8; 16], stream: BoxStream) -> Arc<Self> {
        let (read, write) = split(stream);
        let connection = Arc::new(Self {
            peer,
            incarnation,
            out: Mutex::default(),
            ready: Notify::new(),
            streams: Mutex::default(),
            ends: shared.shutdown.child(),
            limit: shared.out_limit,
        });
        let spawner = &shared.env.spawner;
        spawner.spawn("shuffle-read", connection.clone().read_all(shared.clone(), read));
        spawner.spawn("shuffle-write", connection.clone().write_all(shared.clone(), write));
        connection
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.out.lock().closed.is_some()
    }

    /// Asks the other side for the reader's channel.
    pub(crate) fn open_stream(self: &Arc<Self>, reader: &Arc<ReaderShared>, shared: &Shared) {
        let stream = {
            let mut streams = self.streams.lock();
            streams.next = streams.next.wrapping_add(1);
            let stream = streams.next;
            streams.reading.insert(stream, reader.clone());
            stream
        };
        let Some(credit) = reader.attach(self, stream, &shared.budget) else {
            self.streams.lock().reading.remove(&stream);
            return;
        };
        let credit = u32::try_from(credit).unwrap_or(u32::MAX);
        // A connection that closes meanwhile takes the streams that it finds; the one that came too late is told here.
        if !self.push_control(&Frame::Open { stream, channel: reader.channel, credit }) {
            reader.fail(Failure::new(ErrorKind::Closed, self.cause()));
        }
    }

    /// Joins a reader's stream with its writer.
    pub(crate) fn attach_writer(self: &Arc<Self>, writer: &Arc<WriterShared>, stream: u32, credit: usize) {
        self.streams.lock().writing.insert(stream, writer.clone());
        if !writer.attach(self, stream, credit) {
            self.streams.lock().writing.remove(&stream);
            let cause = "the channel has a reader already, or its writer has failed".to_owned();
            self.push_control(&Frame::WriterGone { stream, cause });
        } else if self.is_closed() {
            writer.fail(Failure::new(ErrorKind::Closed, self.cause()));
        }
    }

    /// The reader of this stream is gone; the writer is told unless it has ended.
    pub(crate) fn end_reading(&self, stream: u32, tell: bool) {
        if self.streams.lock().reading.remove(&stream).is_some() && tell {
            self.push_control(&Frame::ReaderGone { stream });
        }
    }

    /// The writer of this stream is gone, for this reason or because it has ended.
    pub(crate) fn end_writing(&self, stream: u32, cause: Option<String>) {
        self.streams.lock().writing.remove(&stream);
        if let Some(cause) = cause {
            self.push_control(&Frame::WriterGone { stream, cause });
        }
    }

    /// Queues a frame that is no parcel; `false` when the connection is closed.
    pub(crate) fn push_control(&self, frame: &Frame) -> bool {
        let bytes = frame::encode(frame);
        let mut out = self.out.lock();
        if out.closed.is_some() {
            return false;
        }
        out.queue.push_back(Outgoing::Control(bytes));
        drop(out);
        self.ready.notify_one();
        true
    }

    /// Queues a parcel for which there is credit.
    pub(crate) fn push_parcel(&self, stream: u32, parcel: Parcel, writer: &Arc<WriterShared>) -> Push {
        let mut out = self.out.lock();
        if let Some(cause) = &out.closed {
            return Push::Closed(cause.clone());
        }
        // A first parcel goes in whatever its length, so that a long one does not wait for ever.
        if out.bytes >= self.limit {
            out.waiting.push(writer.clone());
            return Push::Full(parcel);
        }
        out.bytes += cost(&parcel);
        let idle = out.queue.is_empty();
        out.queue.push_back(Outgoing::Parcel { stream, parcel, writer: writer.clone() });
        drop(out);
        if idle {
            self.ready.notify_one();
        }
        Push::Taken
    }

    pub(crate) fn queued(&self) -> usize {
        self.out.lock().bytes
    }

    fn cause(&self) -> String {
        self.out.lock().closed.clone().unwrap_or_default()
    }

    /// Ends the connection and everything on it. The first cause counts.
    pub(crate) fn close(self: &Arc<Self>, shared: &Shared, cause: &str) {
        {
            let mut out = self.out.lock();
            if out.closed.is_some() {
                return;
            }
            out.closed = Some(cause.to_owned());
            out.queue.clear();
            out.waiting.clear();
            out.bytes = 0;
        }
        self.ends.trigger();
        shared.forget_connection(self);
        let streams = std::mem::take(&mut *self.streams.lock());
        for reader in streams.reading.into_values() {
            reader.fail(Failure::new(ErrorKind::Closed, cause));
        }
        for writer in streams.writing.into_values() {
            writer.fail(Failure::new(ErrorKind::Closed, cause));
        }
    }

    async fn read_all(self: Arc<Self>, shared: Arc<Shared>, mut from: Half<dyn AsyncRead + Send>) {
        let cause = tokio::select! {
            () = self.ends.triggered() => "this host ends".to_owned(),
            cause = self.read_frames(&shared, &mut from) => cause,
        };
        self.close(&shared, &cause);
    }

    /// Reads until it cannot any more; answers why.
    async fn read_frames(self: &Arc<Self>, shared: &Arc<Shared>, from: &mut Half<dyn AsyncRead + Send>) -> String {
        let mut buffer = BytesMut::with_capacity(READ);
        loop {
            if buffer.capacity() - buffer.len() < READ / 4 {
                buffer.reserve(READ);
            }
            match from.read_buf(&mut buffer).await {
                Ok(0) if buffer.is_empty() => return format!("host {} has closed the connection", self.peer),
                Ok(0) => return format!("the connection to host {} broke off within a frame", self.peer),
                Ok(n) => {
                    shared.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(e) => return format!("the connection to host {} was lost: {e}", self.peer),
            }
            loop {
                match frame::decode(&mut buffer, shared.max_parcel) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if let Err(damage) = self.dispatch(shared, frame) {
                            return format!("host {} sent {damage}: the connection is closed", self.peer);
                        }
                    }
                    Err(damage) => {
                        return format!("host {} sent damaged data, {}: the connection is closed", self.peer, damage.0);
                    }
                }
            }
        }
    }

    fn dispatch(self: &Arc<Self>, shared: &Arc<Shared>, frame: Frame) -> Result<(), &'static str> {
        // A stream that is not known has been ended on this side while the frame was on its way.
        let reading = |stream| self.streams.lock().reading.get(&stream).cloned();
        let writing = |stream| self.streams.lock().writing.get(&stream).cloned();
        match frame {
            Frame::Data { stream, parcel } => {
                if let Some(reader) = reading(stream) {
                    reader.deliver(parcel, shared).map_err(|()| "a parcel that was not granted")?;
                }
            }
            Frame::Credit { stream, bytes } => {
                if let Some(writer) = writing(stream) {
                    writer.grant(bytes as usize);
                }
            }
            Frame::Need { stream, bytes } => {
                if let Some(reader) = reading(stream) {
                    reader.need(bytes as usize, shared);
                }
            }
            Frame::Open { stream, channel, credit } => shared.opened(self, stream, channel, credit as usize),
            Frame::WriterGone { stream, cause } => {
                if let Some(reader) = self.streams.lock().reading.remove(&stream) {
                    reader.fail(Failure::new(ErrorKind::Closed, format!("host {}: {cause}", self.peer)));
                }
            }
            Frame::ReaderGone { stream } => {
                shared.withdrawn(self, stream);
                if let Some(writer) = self.streams.lock().writing.remove(&stream) {
                    writer.fail(Failure::new(ErrorKind::Closed, format!("host {}: the reader is gone", self.peer)));
                }
            }
        }
        Ok(())
    }

    async fn write_all(self: Arc<Self>, shared: Arc<Shared>, mut to: Half<dyn AsyncWrite + Send>) {
        let cause = tokio::select! {
            () = self.ends.triggered() => "this host ends".to_owned(),
            cause = self.write_frames(&shared, &mut to) => cause,
        };
        self.close(&shared, &cause);
        let _ = to.shutdown().await;
    }

    async fn write_frames(&self, shared: &Shared, to: &mut Half<dyn AsyncWrite + Send>) -> String {
        let mut batch = Batch::default();
        loop {
            self.ready.notified().await;
            loop {
                self.fill(&mut batch);
                if batch.chunks.is_empty() {
                    break;
                }
                match batch.write(to).await {
                    Ok(bytes) => shared.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed),
                    Err(e) => return format!("the connection to host {} was lost: {e}", self.peer),
                };
                for (writer, parcels) in batch.writers.drain(..) {
                    writer.written(parcels);
                }
                self.make_room(std::mem::take(&mut batch.bytes));
            }
        }
    }

    /// Moves frames from the queue into the batch.
    fn fill(&self, batch: &mut Batch) {
        let mut out = self.out.lock();
        while batch.length < WRITE && batch.chunks.len() < SLICES {
            match out.queue.pop_front() {
                None => break,
                Some(Outgoing::Control(bytes)) => batch.gather(&bytes),
                Some(Outgoing::Parcel { stream, parcel, writer }) => {
                    batch.bytes += cost(&parcel);
                    batch.gather(&frame::data_head(stream, &parcel));
                    batch.body(parcel.body);
                    match batch.writers.last_mut() {
                        Some((last, parcels)) if Arc::ptr_eq(last, &writer) => *parcels += 1,
                        _ => batch.writers.push((writer, 1)),
                    }
                }
            }
        }
        drop(out);
        batch.flush();
    }

    fn make_room(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut out = self.out.lock();
        out.bytes = out.bytes.saturating_sub(bytes);
        let waiting = if out.bytes <= self.limit / 2 { std::mem::take(&mut out.waiting) } else { Vec::new() };
        drop(out);
        for writer in waiting {
            writer.room();
        }
    }
}

/// Frames on their way into one or a few system calls.
#[derive(Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    gathered: BytesMut,
    length: usize,
    /// Cost of the parcels in it.
    bytes: usize,
    writers: Vec<(Arc<WriterShared>, usize)>,
}

impl Batch {
    fn gather(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        self.gathered.extend_from_slice(bytes);
    }

    fn body(&mut self, body: Bytes) {
        if body.len() < GATHER_BELOW {
            self.gather(&body);
        } else {
            self.flush();
            self.length += body.len();
            self.chunks.push_back(body);
        }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(self.gathered.split().freeze());
        }
    }

    async fn write(&mut self, to: &mut Half<dyn AsyncWrite + Send>) -> io::Result<usize> {
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

/// The halves of a stream. TCP and Unix sockets have halves of their own that share no lock.
fn split(stream: BoxStream) -> (Half<dyn AsyncRead + Send>, Half<dyn AsyncWrite + Send>) {
    match stream {
        BoxStream::Tcp(stream) => {
            let (read, write) = stream.into_split();
            (Box::pin(read), Box::pin(write))
        }
        BoxStream::Unix(stream) => {
            let (read, write) = stream.into_split();
            (Box::pin(read), Box::pin(write))
        }
        other => {
            let (read, write) = tokio::io::split(other);
            (Box::pin(read), Box::pin(write))
        }
    }
}

/// The most that one parcel costs.
pub(crate) fn longest_cost(max_parcel: usize) -> usize {
    max_parcel.saturating_add(PARCEL_OVERHEAD)
}
