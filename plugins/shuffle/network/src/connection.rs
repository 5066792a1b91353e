//! One connection to one other host: its streams, and the two tasks that move bytes.
//!
//! It ends for one cause, the first. Who finds it says it to the other side in a last frame, so that both hosts' tasks
//! fail with the same words; where nothing can be said any more, both find out for themselves.

use crate::{
    budget::Budget,
    buffers::ReadBuffer,
    environment::Shared,
    frame::{Damage, Decoder, Frame},
    outbox::{Batch, Outbox},
    reader::{Failure, ReaderShared},
    sync::Mutex,
    writer::WriterShared,
};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use thalweg_env::{BoxStream, Shutdown, timeout};
use thalweg_spi::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long the last word may take, and how long it is listened for.
const LAST_WORD: Duration = Duration::from_millis(500);
/// Signs of life in the time after which a silent connection is lost.
const SIGNS: u32 = 4;

pub(crate) type Half<T> = Pin<Box<T>>;

/// A connection that both sides have agreed on.
pub(crate) struct Connection {
    /// The other host's data address.
    pub(crate) peer: String,
    pub(crate) incarnation: [u8; 16],
    pub(crate) outbox: Outbox,
    streams: Mutex<Streams>,
    ends: Shutdown,
    /// Something was read since this was last looked at.
    heard: AtomicBool,
}

#[derive(Default)]
struct Streams {
    /// By our number.
    reading: HashMap<u32, Arc<ReaderShared>>,
    /// By the other side's number.
    writing: HashMap<u32, Arc<WriterShared>>,
    next: u32,
}

/// Why a half of the connection has ended.
struct Ended {
    failure: Failure,
    /// The other side does not know yet, and may still hear it.
    tell: bool,
}

impl Ended {
    /// The connection is gone, or the other side has said it.
    fn there(text: String) -> Self {
        Self { failure: Failure::new(ErrorKind::Closed, text), tell: false }
    }

    fn here(kind: ErrorKind, text: String) -> Self {
        Self { failure: Failure::new(kind, text), tell: true }
    }
}

impl Connection {
    pub(crate) fn new(peer: String, incarnation: [u8; 16], limit: usize, ends: Shutdown) -> Arc<Self> {
        let (outbox, heard) = (Outbox::new(limit), AtomicBool::new(true));
        Arc::new(Self { peer, incarnation, outbox, streams: Mutex::default(), ends, heard })
    }

    /// Starts the two tasks.
    pub(crate) fn start(shared: &Arc<Shared>, peer: String, incarnation: [u8; 16], stream: BoxStream) -> Arc<Self> {
        let (read, write) = split(stream);
        let connection = Self::new(peer, incarnation, shared.out_limit, shared.shutdown.child());
        let spawner = &shared.env.spawner;
        spawner.spawn("shuffle-read", connection.clone().read_all(shared.clone(), read));
        spawner.spawn("shuffle-write", connection.clone().write_all(shared.clone(), write));
        connection
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.outbox.closed().is_some()
    }

    /// Asks the other side for the reader's channel.
    pub(crate) fn open_stream(self: &Arc<Self>, reader: &Arc<ReaderShared>, budget: &Budget) {
        let stream = {
            let mut streams = self.streams.lock();
            streams.next = streams.next.wrapping_add(1);
            let stream = streams.next;
            streams.reading.insert(stream, reader.clone());
            stream
        };
        let Some(credit) = reader.attach(self, stream, budget) else {
            self.streams.lock().reading.remove(&stream);
            return;
        };
        let credit = u32::try_from(credit).unwrap_or(u32::MAX);
        self.outbox.control(&Frame::Open { stream, channel: reader.channel, credit });
        // A connection that closes meanwhile takes the streams that it finds; the one that came too late is told here.
        if let Some(failure) = self.outbox.closed() {
            reader.fail(failure);
        }
    }

    /// Joins a reader's stream with its writer.
    pub(crate) fn attach_writer(self: &Arc<Self>, writer: &Arc<WriterShared>, stream: u32, credit: usize) {
        self.streams.lock().writing.insert(stream, writer.clone());
        if !writer.attach(self, stream, credit) {
            self.streams.lock().writing.remove(&stream);
            let cause = "the channel has a reader already, or its writer has failed".to_owned();
            self.outbox.control(&Frame::WriterGone { stream, cause });
        } else if let Some(failure) = self.outbox.closed() {
            writer.fail(failure);
        }
    }

    /// The reader of this stream is gone; the writer is told unless it has ended.
    pub(crate) fn end_reading(&self, stream: u32, tell: bool) {
        if self.streams.lock().reading.remove(&stream).is_some() && tell {
            self.outbox.control(&Frame::ReaderGone { stream });
        }
    }

    /// The writer of this stream is gone, for this reason or because it has ended.
    pub(crate) fn end_writing(&self, stream: u32, cause: Option<String>) {
        self.streams.lock().writing.remove(&stream);
        if let Some(cause) = cause {
            self.outbox.control(&Frame::WriterGone { stream, cause });
        }
    }

    /// The other side's writer of this stream is gone. What ends a channel is told without the streams' lock.
    pub(crate) fn writer_gone(&self, stream: u32, cause: &str) {
        let reader = self.streams.lock().reading.remove(&stream);
        if let Some(reader) = reader {
            reader.fail(Failure::new(ErrorKind::Closed, format!("host {}: {cause}", self.peer)));
        }
    }

    /// The other side's reader of this stream is gone.
    pub(crate) fn reader_gone(&self, stream: u32) {
        let writer = self.streams.lock().writing.remove(&stream);
        if let Some(writer) = writer {
            writer.fail(Failure::new(ErrorKind::Closed, format!("host {}: the reader is gone", self.peer)));
        }
    }

    /// Ends the connection and everything on it. `false` when it has ended before.
    pub(crate) fn close(self: &Arc<Self>, shared: &Shared, failure: Failure) -> bool {
        let first = self.end(failure);
        if first {
            shared.forget_connection(self);
        }
        first
    }

    pub(crate) fn end(&self, failure: Failure) -> bool {
        if !self.outbox.close(failure.clone()) {
            return false;
        }
        self.ends.trigger();
        let streams = std::mem::take(&mut *self.streams.lock());
        for reader in streams.reading.into_values() {
            reader.fail(failure.clone());
        }
        for writer in streams.writing.into_values() {
            writer.fail(failure.clone());
        }
        true
    }

    async fn read_all(self: Arc<Self>, shared: Arc<Shared>, mut from: Half<dyn AsyncRead + Send>) {
        let mut buffer = ReadBuffer::new(&shared.blocks);
        let ended = tokio::select! {
            () = self.ends.triggered() => None,
            ended = self.read_frames(&shared, &mut from, &mut buffer) => Some(ended),
        };
        let tell = match ended {
            None => true,
            Some(Ended { failure, tell }) => self.close(&shared, failure) && tell,
        };
        if tell {
            // What is not read when a socket closes makes the system cut it off, and the last word with it.
            let _ = timeout(&*shared.env.clock, LAST_WORD, async {
                loop {
                    buffer.bytes.clear();
                    buffer.make_room(0);
                    if !matches!(from.read_buf(&mut buffer.bytes).await, Ok(1..)) {
                        return;
                    }
                }
            })
            .await;
        }
    }

    /// Reads until it cannot any more; answers why.
    async fn read_frames(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        from: &mut Half<dyn AsyncRead + Send>,
        buffer: &mut ReadBuffer,
    ) -> Ended {
        let (mut decoder, mut to_wake) = (Decoder::new(shared.max_parcel), Vec::new());
        loop {
            buffer.make_room(decoder.missing(&buffer.bytes));
            match from.read_buf(&mut buffer.bytes).await {
                Ok(0) if decoder.is_within_a_frame(&buffer.bytes) => {
                    return Ended::there(format!("the connection to host {} broke off within a frame", self.peer));
                }
                Ok(0) => return Ended::there(format!("host {} has closed the connection", self.peer)),
                Ok(n) => {
                    self.heard.store(true, Ordering::Relaxed);
                    shared.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(e) => return Ended::there(format!("the connection to host {} was lost: {e}", self.peer)),
            }
            let ended = loop {
                match decoder.next(&mut buffer.bytes) {
                    Ok(None) => break None,
                    Ok(Some(frame)) => {
                        if let Some(ended) = self.dispatch(shared, frame, &mut to_wake) {
                            break Some(ended);
                        }
                    }
                    Err(damage) => break Some(self.damaged(&damage, shared)),
                }
            };
            // Once for all that was read: a slot thread that is woken for each parcel sleeps again before the next.
            to_wake.drain(..).for_each(|reader| reader.wake());
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// What came is not what was sent. Nothing behind it is believed.
    fn damaged(&self, damage: &Damage, shared: &Shared) -> Ended {
        let reader = damage.stream.and_then(|stream| self.streams.lock().reading.get(&stream).cloned());
        let of = reader.map_or_else(String::new, |r| format!(" of {}", r.channel_text()));
        let text = format!(
            "what host {} sent to host {} was damaged on its way: {}{of}; if it comes again, look for a faulty network \
             card, cable or memory on or between the two",
            self.peer, shared.address, damage.text
        );
        tracing::warn!("{text}");
        Ended::here(ErrorKind::Damaged, text)
    }

    /// Acts on a frame; answers why the connection ends with it, where it does.
    fn dispatch(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        frame: Frame,
        to_wake: &mut Vec<Arc<ReaderShared>>,
    ) -> Option<Ended> {
        // A stream that is not known has been ended on this side while the frame was on its way.
        let reading = |stream| self.streams.lock().reading.get(&stream).cloned();
        let writing = |stream| self.streams.lock().writing.get(&stream).cloned();
        match frame {
            Frame::Data { stream, parcel } => {
                let reader = reading(stream)?;
                match reader.deliver(parcel, &shared.budget) {
                    Ok(true) => to_wake.push(reader),
                    Ok(false) => {}
                    Err(()) => {
                        let of = reader.channel_text();
                        let text = format!("host {} sent a parcel of {of} that was not asked for", self.peer);
                        return Some(Ended::here(ErrorKind::Damaged, text));
                    }
                }
            }
            Frame::Credit { stream, bytes } => {
                if let Some(writer) = writing(stream) {
                    writer.grant(bytes as usize);
                }
            }
            Frame::Need { stream, bytes } => {
                if let Some(reader) = reading(stream) {
                    reader.need((bytes as usize).min(shared.longest_cost()), &shared.budget);
                }
            }
            Frame::Open { stream, channel, credit } => shared.opened(self, stream, channel, credit as usize),
            Frame::WriterGone { stream, cause } => self.writer_gone(stream, &cause),
            Frame::ReaderGone { stream } => {
                shared.withdrawn(self, stream);
                self.reader_gone(stream);
            }
            Frame::Goodbye { cause } => {
                return Some(Ended::there(format!("host {} has closed the connection: {cause}", self.peer)));
            }
            Frame::Alive => {}
        }
        None
    }

    async fn write_all(self: Arc<Self>, shared: Arc<Shared>, mut to: Half<dyn AsyncWrite + Send>) {
        let mut batch = Batch::default();
        let clock = &*shared.env.clock;
        tokio::select! {
            () = self.ends.triggered() => {
                // With the host, unless there is a cause already.
                self.close(&shared, Failure::new(ErrorKind::Closed, format!("host {} ends", shared.address)));
            }
            ended = self.write_frames(&shared, &mut to, &mut batch) => {
                // The other side's last word may be there to be read, and says more.
                let _ = timeout(clock, LAST_WORD, self.ends.triggered()).await;
                self.close(&shared, ended.failure);
            }
            ended = self.listen(&shared) => {
                self.close(&shared, ended.failure);
            }
        }
        if let Some(failure) = self.outbox.closed() {
            // Where it is gone already this fails at once.
            let _ = timeout(clock, LAST_WORD, async {
                batch.last(&Frame::Goodbye { cause: failure.text });
                batch.write(&mut to).await?;
                to.shutdown().await
            })
            .await;
        }
    }

    async fn write_frames(&self, shared: &Shared, to: &mut Half<dyn AsyncWrite + Send>, batch: &mut Batch) -> Ended {
        loop {
            self.outbox.ready.notified().await;
            loop {
                self.outbox.fill(batch);
                if batch.is_empty() {
                    break;
                }
                match batch.write(to).await {
                    Ok(bytes) => shared.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed),
                    Err(e) => return Ended::there(format!("the connection to host {} was lost: {e}", self.peer)),
                };
                self.outbox.written(batch);
            }
        }
    }

    /// Shows that this host is there, and looks whether the other one is. A cable that is pulled closes no connection.
    async fn listen(&self, shared: &Shared) -> Ended {
        let mut silent = 0;
        loop {
            shared.env.clock.sleep(shared.silence_timeout / SIGNS).await;
            silent = if self.heard.swap(false, Ordering::Relaxed) { 0 } else { silent + 1 };
            if silent == SIGNS {
                let text = format!(
                    "nothing was heard of host {} for {:?} (shuffle.network.silence-timeout): the host stands still or \
                     the network between it and host {} is broken",
                    self.peer, shared.silence_timeout, shared.address
                );
                return Ended::here(ErrorKind::Timeout, text);
            }
            self.outbox.control(&Frame::Alive);
        }
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
