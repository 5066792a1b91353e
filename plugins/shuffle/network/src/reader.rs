//! The receiving end of a channel: a queue that the I/O task fills and a slot thread empties.

use crate::{
    budget::{Account, Budget},
    connection::Connection,
    environment::Shared,
    frame::{Damage, Frame},
    packing::Packed,
    sync::Mutex,
};
use std::{collections::VecDeque, sync::Arc, task::Waker};
use thalweg_spi::{ChannelId, ChannelReader, ErrorKind, Parcel, ParcelKind, Result, ServiceError, Waiting};

/// Why a channel ended. An error can be told many times.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn error(&self, operation: &'static str, channel: &ChannelId) -> ServiceError {
        let error = ServiceError::new(self.kind, operation, self.text.clone());
        error.with("edge", channel.partition.edge).with("channel", place(channel))
    }
}

/// From which producing to which consuming subtask.
fn place(channel: &ChannelId) -> String {
    format!("{}->{}", channel.partition.producer, channel.consumer)
}

/// What slot thread and I/O share.
pub(crate) struct ReaderShared {
    pub(crate) channel: ChannelId,
    waker: Waker,
    // The length of the queue, written under its lock.
    waiting: Waiting,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Packed>,
    account: Account,
    /// Where credit goes, once the connection is there.
    place: Option<(Arc<Connection>, u32)>,
    /// `End` has arrived: what happens to the connection is no concern any more.
    ended: bool,
    failure: Option<Failure>,
    closed: bool,
}

impl ReaderShared {
    pub(crate) fn new(channel: ChannelId, waker: Waker) -> Self {
        Self { channel, waker, waiting: Waiting::default(), inner: Mutex::default() }
    }

    /// The channel in words, for what concerns all of a connection's channels.
    pub(crate) fn channel_text(&self) -> String {
        format!("edge {}, channel {}", self.channel.partition.edge, place(&self.channel))
    }

    /// The connection is there; answers the first grant, or `None` when nobody reads any more.
    pub(crate) fn attach(&self, connection: &Arc<Connection>, stream: u32, budget: &Budget) -> Option<usize> {
        let mut inner = self.inner.lock();
        if inner.closed || inner.failure.is_some() {
            return None;
        }
        inner.place = Some((connection.clone(), stream));
        Some(inner.account.open(budget))
    }

    /// A parcel arrived. `Err` when it was not granted: the other side does not keep the rules. `true`: the slot thread
    /// may wait for it and is to be woken, by [`Self::wake`], when what came with it is delivered too.
    pub(crate) fn deliver(&self, parcel: Packed, budget: &Budget) -> std::result::Result<bool, ()> {
        let mut inner = self.inner.lock();
        if inner.closed || inner.failure.is_some() {
            return Ok(false);
        }
        if inner.ended || !inner.account.arrived(parcel.cost()) {
            return Err(());
        }
        inner.ended = parcel.kind == ParcelKind::End;
        budget.hold(parcel.cost());
        inner.queue.push_back(parcel);
        let first = inner.queue.len() == 1;
        self.waiting.set(inner.queue.len());
        Ok(first)
    }

    /// Wakes the slot thread.
    pub(crate) fn wake(&self) {
        self.waker.wake_by_ref();
    }

    /// The writer waits for credit of so many bytes.
    pub(crate) fn need(&self, bytes: usize, budget: &Budget) {
        let mut inner = self.inner.lock();
        if inner.place.is_some() && inner.failure.is_none() {
            let grant = inner.account.need(budget, bytes);
            inner.send_credit(grant);
        }
    }

    /// It ends for this reason, after what has arrived. Nothing is told after an end.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut inner = self.inner.lock();
        if inner.ended || inner.failure.is_some() {
            return;
        }
        inner.failure = Some(failure);
        drop(inner);
        self.waker.wake_by_ref();
    }

    /// The next parcel, or `None` when there is none yet. Called by the one slot thread that reads.
    pub(crate) fn recv(&self, budget: &Budget) -> std::result::Result<Option<Packed>, Failure> {
        let mut inner = self.inner.lock();
        if let Some(parcel) = inner.queue.pop_front() {
            self.waiting.set(inner.queue.len());
            let cost = parcel.cost();
            budget.release(cost);
            let grant = inner.account.taken(budget, cost);
            if !inner.ended {
                inner.send_credit(grant);
            }
            return Ok(Some(parcel));
        }
        inner.failure.clone().map_or(Ok(None), Err)
    }

    /// Frees what it holds, now. With a failure the slot thread is told it, end or no end.
    pub(crate) fn close(&self, failure: Option<Failure>, budget: &Budget) -> Option<(Arc<Connection>, u32)> {
        let mut inner = self.inner.lock();
        let held: usize = inner.queue.drain(..).map(|p| p.cost()).sum();
        self.waiting.set(0);
        budget.release(held);
        let place = inner.place.take();
        if place.is_some() {
            inner.account.close(budget);
        }
        let told = failure.is_some();
        if let Some(failure) = failure {
            inner.ended = false;
            inner.failure = Some(failure);
        }
        inner.closed = true;
        drop(inner);
        if told {
            self.waker.wake_by_ref();
        }
        place
    }

    /// Nobody reads any more: the writer is told, unless it has ended.
    pub(crate) fn leave(&self, budget: &Budget) {
        if let Some((connection, stream)) = self.close(None, budget) {
            // Not within the call: this lock would be held in it, while the connection takes that of its streams.
            let ended = self.inner.lock().ended;
            connection.end_reading(stream, !ended);
        }
    }
}

impl Inner {
    fn send_credit(&self, bytes: usize) {
        if let (Some((connection, stream)), true) = (&self.place, bytes > 0) {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            connection.outbox.control(&Frame::Credit { stream: *stream, bytes });
        }
    }
}

/// What the task holds.
pub(crate) struct Reader {
    pub(crate) me: Arc<ReaderShared>,
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// A parcel came as it was sent, and cannot be unpacked: what was sent is wrong. Nothing behind it may be read.
    fn unreadable(&self, damage: &Damage) -> ServiceError {
        let connection = self.me.inner.lock().place.as_ref().map(|(connection, _)| connection.clone());
        let peer = connection.map_or_else(|| "?".to_owned(), |c| c.peer.clone());
        let text = format!("host {peer} sent a parcel that cannot be unpacked: {}", damage.text);
        let failure = Failure::new(ErrorKind::Damaged, text);
        if let Some((connection, stream)) = self.me.close(Some(failure.clone()), &self.shared.budget) {
            connection.end_reading(stream, true);
        }
        failure.error("receive parcel", &self.me.channel)
    }
}

impl ChannelReader for Reader {
    fn try_recv(&mut self) -> Result<Option<Parcel>> {
        match self.me.recv(&self.shared.budget) {
            // Without the lock: what comes meanwhile must not wait for LZ4.
            Ok(Some(parcel)) => parcel.unpack().map(Some).map_err(|damage| self.unreadable(&damage)),
            Ok(None) => Ok(None),
            Err(failure) => Err(failure.error("receive parcel", &self.me.channel)),
        }
    }

    fn waiting(&self) -> Waiting {
        self.me.waiting.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.forget_reader(&self.me);
        self.me.leave(&self.shared.budget);
    }
}
