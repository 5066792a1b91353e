//! The two ends of a channel, whatever lies between them.

use super::{ExchangeSizes, ring, signal::Signal, waiting::Passed};
use crate::{
    batch::{Batch, Time},
    codec::{self, DecodeError, EncodeError},
    key::Data,
    push::{CheckpointId, Mark},
    task::{TaskCell, add},
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, OnceLock},
};
use thalweg_model::{FailureKind, TaskFailure};
use thalweg_spi::{ChannelReader, ChannelWriter, Parcel, ParcelKind, ServiceError, Waiting};

/// What flows through a channel, in order.
pub(crate) enum Msg<T> {
    Data(Batch<T>),
    Mark(Mark),
    Latency(Time),
    Barrier(CheckpointId),
    End,
}

/// A queue within one slot. No other thread sees it.
pub(crate) struct Queue<T> {
    messages: VecDeque<Msg<T>>,
    spare: Vec<Batch<T>>,
    depth: usize,
    pub(crate) waiting: Waiting,
}

impl<T> Queue<T> {
    pub(crate) fn new(depth: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { messages: VecDeque::new(), spare: Vec::new(), depth, waiting: Waiting::default() }))
    }
}

/// The signals of a ring's two slots, each set when its end is opened.
#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) reader: OnceLock<Arc<Signal>>,
    pub(crate) writer: OnceLock<Arc<Signal>>,
    pub(crate) passed: Arc<Passed>,
}

fn wake(signal: &OnceLock<Arc<Signal>>) {
    if let Some(signal) = signal.get() {
        signal.wake();
    }
}

enum Sending<T> {
    Queue(Rc<RefCell<Queue<T>>>),
    Ring { data: ring::Producer<Msg<T>>, spare: ring::Consumer<Batch<T>>, signals: Arc<Signals> },
    Remote { writer: Box<dyn ChannelWriter>, over: VecDeque<Parcel> },
}

/// The sending end. What does not fit is kept in its overdraft, of messages or of encoded parcels.
pub(crate) struct Sender<T> {
    sending: Sending<T>,
    over: VecDeque<Msg<T>>,
    sizes: ExchangeSizes,
    cell: Rc<TaskCell>,
    // Told when a record is too long.
    uid: Arc<str>,
    batch_kind: ParcelKind,
    // How much of the overdraft the task's counter has.
    counted: usize,
    /// The reader may be gone, and that is fine: a reader of splits that was told that there are no more.
    pub(crate) lenient: bool,
}

impl<T: Data> Sender<T> {
    fn new(sending: Sending<T>, sizes: ExchangeSizes, cell: Rc<TaskCell>, uid: Arc<str>) -> Self {
        Self {
            sending,
            over: VecDeque::new(),
            sizes,
            cell,
            uid,
            batch_kind: ParcelKind::Batch,
            counted: 0,
            lenient: false,
        }
    }

    pub(crate) fn queue(q: Rc<RefCell<Queue<T>>>, sizes: ExchangeSizes, cell: Rc<TaskCell>, uid: Arc<str>) -> Self {
        Self::new(Sending::Queue(q), sizes, cell, uid)
    }

    pub(crate) fn ring(
        data: ring::Producer<Msg<T>>,
        spare: ring::Consumer<Batch<T>>,
        signals: Arc<Signals>,
        sizes: ExchangeSizes,
        cell: Rc<TaskCell>,
        uid: Arc<str>,
    ) -> Self {
        Self::new(Sending::Ring { data, spare, signals }, sizes, cell, uid)
    }

    pub(crate) fn remote(
        writer: Box<dyn ChannelWriter>,
        sizes: ExchangeSizes,
        cell: Rc<TaskCell>,
        uid: Arc<str>,
        feedback: bool,
    ) -> Self {
        let mut new = Self::new(Sending::Remote { writer, over: VecDeque::new() }, sizes, cell, uid);
        if feedback {
            new.batch_kind = ParcelKind::Request;
        }
        new
    }

    /// An empty batch, used before where there is one.
    pub(crate) fn fresh(&mut self) -> Batch<T> {
        let spare = match &mut self.sending {
            Sending::Queue(q) => q.borrow_mut().spare.pop(),
            Sending::Ring { spare, .. } => spare.pop(),
            Sending::Remote { .. } => None,
        };
        spare.unwrap_or_default()
    }

    /// Takes a message and never waits. A remote channel gives its batch back to be filled again.
    pub(crate) fn send(&mut self, message: Msg<T>) -> Option<Batch<T>> {
        if let Sending::Remote { over, .. } = &mut self.sending {
            let mut back = None;
            let parcel = |kind, body: Vec<u8>| Parcel { kind, body: Bytes::from(body) };
            match message {
                Msg::Data(mut batch) => {
                    let kind = self.batch_kind;
                    let (limit, max) = (self.sizes.batch, self.sizes.max_record);
                    let encoded = codec::encode_batch(batch.items(), batch.times(), limit, max, |body| {
                        over.push_back(parcel(kind, body));
                    });
                    if let Err(e) = encoded {
                        self.cell.fail_in(&self.uid, FailureKind::User, unsendable::<T>(&e, max));
                    }
                    batch.clear();
                    back = Some(batch);
                }
                Msg::Mark(m) => over.push_back(parcel(ParcelKind::Mark, codec::encode_mark(m))),
                // A word of the task's own, of which a plugin knows nothing: a mark of another length.
                Msg::Latency(at) => over.push_back(parcel(ParcelKind::Mark, codec::encode_latency(at))),
                Msg::Barrier(id) => over.push_back(parcel(ParcelKind::Barrier, codec::encode_barrier(id))),
                Msg::End => over.push_back(parcel(ParcelKind::End, Vec::new())),
            }
            self.pump();
            return back;
        }
        self.over.push_back(message);
        self.pump();
        None
    }

    /// Sends what was kept back. True when nothing is left.
    pub(crate) fn pump(&mut self) -> bool {
        let clear = self.push_on();
        let over = match &self.sending {
            Sending::Remote { over, .. } => over.len(),
            Sending::Queue(_) | Sending::Ring { .. } => self.over.len(),
        };
        let counted = std::mem::replace(&mut self.counted, over);
        if over != counted {
            self.cell.metrics().overdraft(counted, over);
        }
        clear
    }

    fn push_on(&mut self) -> bool {
        match &mut self.sending {
            Sending::Queue(q) => {
                let mut q = q.borrow_mut();
                while q.messages.len() < q.depth {
                    let Some(m) = self.over.pop_front() else { break };
                    q.messages.push_back(m);
                }
                q.waiting.set(q.messages.len());
                self.lenient && forget_control(&mut self.over) || self.over.is_empty()
            }
            Sending::Ring { data, signals, .. } => {
                let mut sent = 0;
                while let Some(m) = self.over.pop_front() {
                    if let Err(m) = data.push(m) {
                        self.over.push_front(m);
                        break;
                    }
                    sent += 1;
                }
                if sent > 0 {
                    signals.passed.sent(sent);
                    wake(&signals.reader);
                }
                self.lenient && forget_control(&mut self.over) || self.over.is_empty()
            }
            Sending::Remote { writer, over } => {
                while let Some(parcel) = over.pop_front() {
                    let bytes = parcel.body.len() as u64;
                    match writer.try_send(parcel) {
                        Ok(None) => add(&self.cell.metrics().bytes_out, bytes),
                        Ok(Some(parcel)) => {
                            over.push_front(parcel);
                            return false;
                        }
                        Err(e) => {
                            over.clear();
                            if self.lenient {
                                return true;
                            }
                            self.cell.fail(lost(&e));
                            return false;
                        }
                    }
                }
                true
            }
        }
    }

    /// Has everything left this task?
    pub(crate) fn drained(&mut self) -> bool {
        if !self.pump() {
            return false;
        }
        match &mut self.sending {
            // A queue or a ring outlives its writer: what is in it has left.
            Sending::Queue(_) | Sending::Ring { .. } => true,
            Sending::Remote { writer, .. } => match writer.is_drained() {
                Ok(drained) => drained,
                Err(_) if self.lenient => true,
                Err(e) => {
                    self.cell.fail(lost(&e));
                    false
                }
            },
        }
    }
}

/// Forgets what does not fit and is no data: the reader may be gone, and would never make room. Answers whether
/// nothing is left.
fn forget_control<T>(over: &mut VecDeque<Msg<T>>) -> bool {
    while over.pop_back_if(|m| !matches!(m, Msg::Data(_))).is_some() {}
    over.is_empty()
}

fn unsendable<T>(error: &EncodeError, max: usize) -> String {
    let item = std::any::type_name::<T>();
    match error {
        EncodeError::TooLong => {
            format!(
                "one record ({item}) takes more than {max} bytes, exchange.max-record is {max}: emit smaller records or \
                 raise exchange.max-record"
            )
        }
        EncodeError::Refused(e) => format!("one record ({item}) cannot be encoded: {e}"),
    }
}

fn lost(error: &ServiceError) -> TaskFailure {
    TaskFailure::new(FailureKind::Lost, format!("exchange: {error}"))
}

enum Receiving<T> {
    Queue(Rc<RefCell<Queue<T>>>),
    Ring { data: ring::Consumer<Msg<T>>, spare: ring::Producer<Batch<T>>, signals: Arc<Signals> },
    Remote { reader: Box<dyn ChannelReader>, spare: Option<Batch<T>>, cell: Rc<TaskCell> },
}

/// The receiving end.
pub(crate) struct Receiver<T>(Receiving<T>);

impl<T: Data> Receiver<T> {
    pub(crate) fn queue(q: Rc<RefCell<Queue<T>>>) -> Self {
        Self(Receiving::Queue(q))
    }

    pub(crate) fn ring(data: ring::Consumer<Msg<T>>, spare: ring::Producer<Batch<T>>, signals: Arc<Signals>) -> Self {
        Self(Receiving::Ring { data, spare, signals })
    }

    pub(crate) fn remote(reader: Box<dyn ChannelReader>, cell: Rc<TaskCell>) -> Self {
        Self(Receiving::Remote { reader, spare: None, cell })
    }

    /// The next message, or `None` when there is none yet.
    pub(crate) fn recv(&mut self) -> Result<Option<Msg<T>>, TaskFailure> {
        match &mut self.0 {
            Receiving::Queue(q) => {
                let mut q = q.borrow_mut();
                let message = q.messages.pop_front();
                q.waiting.set(q.messages.len());
                Ok(message)
            }
            Receiving::Ring { data, signals, .. } => {
                let message = data.pop();
                if message.is_some() {
                    signals.passed.took();
                    wake(&signals.writer);
                }
                Ok(message)
            }
            Receiving::Remote { reader, spare, cell } => {
                let Some(parcel) = reader.try_recv().map_err(|e| lost(&e))? else { return Ok(None) };
                add(&cell.metrics().bytes_in, parcel.body.len() as u64);
                let damaged = |d: codec::Damaged| TaskFailure::new(FailureKind::Lost, d.0);
                Ok(Some(match parcel.kind {
                    ParcelKind::Batch | ParcelKind::Request => {
                        let mut batch = spare.take().unwrap_or_default();
                        codec::decode_batch(&parcel.body, &mut batch).map_err(|e| match e {
                            DecodeError::Damaged(what) => TaskFailure::new(FailureKind::Lost, what),
                            DecodeError::Unreadable(what) => TaskFailure::new(FailureKind::User, what),
                        })?;
                        Msg::Data(batch)
                    }
                    ParcelKind::Mark => match codec::decode_latency(&parcel.body) {
                        Some(marker) => Msg::Latency(marker),
                        None => Msg::Mark(codec::decode_mark(&parcel.body).map_err(damaged)?),
                    },
                    ParcelKind::Barrier => Msg::Barrier(codec::decode_barrier(&parcel.body).map_err(damaged)?),
                    ParcelKind::End => Msg::End,
                }))
            }
        }
    }

    /// Gives a consumed batch back to be filled again.
    pub(crate) fn recycle(&mut self, mut batch: Batch<T>) {
        batch.clear();
        match &mut self.0 {
            Receiving::Queue(q) => {
                let mut q = q.borrow_mut();
                if q.spare.len() < q.depth {
                    q.spare.push(batch);
                }
            }
            // No room: the batch is dropped.
            Receiving::Ring { spare, .. } => drop(spare.push(batch)),
            Receiving::Remote { spare, .. } => *spare = Some(batch),
        }
    }
}
