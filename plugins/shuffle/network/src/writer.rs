//! The sending end of a channel: spends credit, and hands parcels to the connection's queue.

use crate::{
    connection::Connection,
    environment::Shared,
    frame::Frame,
    outbox::Place,
    packing::{Compression, Packed, cost_of},
    reader::Failure,
    sync::{Mutex, MutexGuard},
};
use std::{sync::Arc, task::Waker};
use thalweg_spi::{ChannelId, ChannelWriter, ErrorKind, Parcel, ParcelKind, Result, Waiting};

/// What holds for every parcel of a host.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_parcel: usize,
    pub(crate) compression: Compression,
}

/// What slot thread and I/O share.
pub(crate) struct WriterShared {
    pub(crate) channel: ChannelId,
    waker: Waker,
    // What is queued, written under the lock.
    waiting: Waiting,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    place: Option<(Arc<Connection>, u32)>,
    credit: usize,
    /// A parcel was given back and the slot thread waits for a wake.
    blocked: bool,
    /// It stands in the connection's list of those that wait for room.
    listed: bool,
    /// What the reader was asked for; 0 for nothing.
    asked: usize,
    /// Parcels of this channel in the connection's queue, or on their way into it.
    queued: usize,
    /// Somebody asked whether it is drained, and it was not.
    watched: bool,
    ended: bool,
    failure: Option<Failure>,
}

impl WriterShared {
    pub(crate) fn new(channel: ChannelId, waker: Waker) -> Self {
        Self { channel, waker, waiting: Waiting::default(), inner: Mutex::default() }
    }

    /// A reader asked for this channel. `false` when another has it.
    pub(crate) fn attach(&self, connection: &Arc<Connection>, stream: u32, credit: usize) -> bool {
        let mut inner = self.inner.lock();
        if inner.place.is_some() || inner.failure.is_some() {
            return false;
        }
        inner.place = Some((connection.clone(), stream));
        inner.credit = credit;
        self.unblock(inner);
        true
    }

    /// The reader granted more.
    pub(crate) fn grant(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.credit = inner.credit.saturating_add(bytes);
        self.unblock(inner);
    }

    /// The connection's queue has room again.
    pub(crate) fn room(&self) {
        let mut inner = self.inner.lock();
        inner.listed = false;
        self.unblock(inner);
    }

    /// `parcels` of this channel were written to the socket.
    pub(crate) fn written(&self, parcels: usize) {
        let mut inner = self.inner.lock();
        inner.queued = inner.queued.saturating_sub(parcels);
        self.waiting.set(inner.queued);
        if inner.queued == 0 && std::mem::take(&mut inner.watched) {
            drop(inner);
            self.waker.wake_by_ref();
        }
    }

    /// It ends for this reason. One that has sent its end and lost nothing has succeeded already.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut inner = self.inner.lock();
        if inner.failure.is_none() && !(inner.ended && inner.queued == 0) {
            inner.failure = Some(failure);
            drop(inner);
            self.waker.wake_by_ref();
        }
    }

    /// Where its reader is.
    pub(crate) fn place(&self) -> Option<(Arc<Connection>, u32)> {
        self.inner.lock().place.clone()
    }

    /// Takes a parcel, or gives it back when there is no credit or no room. Called by the one slot thread that writes.
    pub(crate) fn send(
        self: &Arc<Self>,
        parcel: Parcel,
        limits: Limits,
    ) -> std::result::Result<Option<Parcel>, Failure> {
        let mut inner = self.inner.lock();
        if let Some(failure) = &inner.failure {
            return Err(failure.clone());
        }
        if inner.ended {
            return Err(Failure::new(ErrorKind::Internal, "a parcel behind the end"));
        }
        if parcel.body.len() > limits.max_parcel {
            let (length, limit) = (parcel.body.len(), limits.max_parcel);
            let text = format!("a parcel of {length} bytes is longer than the {limit} allowed");
            return Err(Failure::new(ErrorKind::TooLarge, text));
        }
        let Some((connection, stream)) = inner.place.clone() else {
            inner.blocked = true;
            return Ok(Some(parcel));
        };
        let cost = cost_of(parcel.body.len());
        if cost > inner.credit {
            inner.blocked = true;
            if inner.asked != cost {
                inner.asked = cost;
                connection.outbox.control(&Frame::Need { stream, bytes: u32::try_from(cost).unwrap_or(u32::MAX) });
            }
            return Ok(Some(parcel));
        }
        let wait = (!inner.listed).then_some(self);
        match connection.outbox.reserve(cost, wait) {
            Place::Reserved => {}
            Place::Full => {
                (inner.blocked, inner.listed) = (true, true);
                return Ok(Some(parcel));
            }
            Place::Closed(failure) => {
                inner.failure = Some(failure.clone());
                return Err(failure);
            }
        }
        inner.credit -= cost;
        inner.asked = 0;
        inner.queued += 1;
        self.waiting.set(inner.queued);
        inner.ended = parcel.kind == ParcelKind::End;
        drop(inner);
        // Without the lock: credit that comes meanwhile must not wait for LZ4.
        let packed = Packed::new(parcel, limits.compression);
        let saved = cost - packed.cost();
        if let Err(failure) = connection.outbox.parcel(stream, packed, cost, self) {
            self.inner.lock().failure = Some(failure.clone());
            return Err(failure);
        }
        if saved > 0 {
            self.inner.lock().credit += saved;
        }
        Ok(None)
    }

    /// Has all of it left? Otherwise the slot thread is woken when it has.
    pub(crate) fn is_drained(&self) -> std::result::Result<bool, Failure> {
        let mut inner = self.inner.lock();
        if let Some(failure) = &inner.failure {
            return Err(failure.clone());
        }
        inner.watched = inner.queued > 0;
        Ok(inner.queued == 0)
    }

    fn unblock(&self, mut inner: MutexGuard<'_, Inner>) {
        if std::mem::take(&mut inner.blocked) {
            drop(inner);
            self.waker.wake_by_ref();
        }
    }
}

/// What the task holds.
pub(crate) struct Writer {
    pub(crate) me: Arc<WriterShared>,
    pub(crate) shared: Arc<Shared>,
}

impl ChannelWriter for Writer {
    fn try_send(&mut self, parcel: Parcel) -> Result<Option<Parcel>> {
        let limits = Limits { max_parcel: self.shared.max_parcel, compression: self.shared.compression };
        self.me.send(parcel, limits).map_err(|failure| failure.error("send parcel", &self.me.channel))
    }

    fn is_drained(&mut self) -> Result<bool> {
        self.me.is_drained().map_err(|failure| failure.error("drain channel", &self.me.channel))
    }

    fn waiting(&self) -> Waiting {
        self.me.waiting.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (ended, place) = {
            let mut inner = self.me.inner.lock();
            if !inner.ended {
                // A reader that is being joined at this moment is refused by it.
                inner.failure = Some(Failure::new(ErrorKind::Closed, "the writer is gone"));
            }
            (inner.ended, inner.place.take())
        };
        let cause = (!ended).then(|| "the writer ended without an end of its data".to_owned());
        self.shared.forget_writer(&self.me, cause.clone());
        if let Some((connection, stream)) = place {
            connection.end_writing(stream, cause);
        }
    }
}
