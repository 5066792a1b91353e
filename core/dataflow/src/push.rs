//! The push nest: what flows through a chain of operators, and what an operator has to say.
//!
//! A chain is `Chained<.., Chained<.., Exchange>>`, one type, so a record goes through it without a dynamic call. An
//! operator never forwards control: [`Chained`] does all of it, so that no operator can forget a barrier or an end.

use crate::{
    batch::{Batch, Time},
    panics::Guard,
};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, sync::Arc};
use thalweg_model::Epoch;

/// A watermark, or the word that none will come for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Mark {
    /// No record with an earlier time follows.
    At(Time),
    /// This input does not hold the others back.
    Idle,
}

/// Which checkpoint. A barrier of a lower epoch than the task's is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// Counted over the life of the job.
    pub n: u64,
    /// The epoch of the leader that asked for it.
    pub epoch: Epoch,
}

/// A barrier on its way through one task, gathering its operators' states.
pub struct Barrier {
    /// Which.
    pub id: CheckpointId,
    /// By uid, in the order of the chain.
    pub states: Vec<(Arc<str>, Vec<u8>)>,
}

/// Is something that may take several steps over?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Flow {
    /// It is.
    Done,
    /// Call again with the same argument, and with nothing else before that.
    More,
}

/// May records and control be pushed?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Ready {
    /// Yes.
    Yes,
    /// An operator still emits what an earlier record gave; ask again soon.
    Busy,
    /// Something outside must happen first, and the slot's signal tells when.
    Blocked,
}

/// How many records a head may push before it asks `ready` again.
pub const STRIDE: usize = 256;

/// The part of a nest that does not know the item's type.
pub trait Control {
    /// Is there room downstream? Drains overdraft and cursors as far as it goes without waiting. Heads ask at least
    /// every [`STRIDE`] records.
    fn ready(&mut self) -> Ready;
    /// A watermark. Emits at most about `budget` records and counts it down.
    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow;
    /// A barrier; only when `ready` said yes. States are added on the way.
    fn barrier(&mut self, barrier: &mut Barrier);
    /// The input pauses: send what was gathered.
    fn flush(&mut self);
    /// No record follows. Emits at most about `budget` records and counts it down.
    fn end(&mut self, budget: &mut usize) -> Flow;
    /// After the end: has everything left the task?
    fn drained(&mut self) -> bool;
}

/// Takes records.
pub trait Push<T>: Control {
    /// Takes one record. Never waits: what does not fit goes to the overdraft.
    fn push(&mut self, at: Time, item: T);
    /// Takes up to `limit` records of the batch.
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize);
    /// Takes one record without event time.
    #[inline(always)]
    fn emit(&mut self, item: T) {
        self.push(crate::batch::NO_TIME, item);
    }
}

/// A live operator: written once, without forwarding.
///
/// Whatever emits without bound for one input keeps a cursor: `item` stops, `ready` goes on and answers `Busy` until
/// the cursor is used up.
pub trait Operator<T>: 'static {
    /// What comes out.
    type Out: 'static;
    /// One record.
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>);
    /// Up to `limit` records of a batch.
    #[inline(always)]
    fn batch(&mut self, batch: &mut Batch<T>, limit: usize, out: &mut impl Push<Self::Out>) {
        batch.each(limit, |_, at, item| self.item(at, item, out));
    }
    /// Goes on with what an earlier record began. At most about [`STRIDE`] records a call.
    #[inline(always)]
    fn ready(&mut self, _out: &mut impl Push<Self::Out>) -> Ready {
        Ready::Yes
    }
    /// A watermark; it is forwarded once the answer is `Done`.
    fn mark(&mut self, _mark: Mark, _budget: &mut usize, _out: &mut impl Push<Self::Out>) -> Flow {
        Flow::Done
    }
    /// The input pauses.
    fn flush(&mut self, _out: &mut impl Push<Self::Out>) {}
    /// No record follows; the end is forwarded once the answer is `Done`.
    fn end(&mut self, _budget: &mut usize, _out: &mut impl Push<Self::Out>) -> Flow {
        Flow::Done
    }
    /// The state, for the operator of this uid to be opened with again, at any parallelism.
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// An operator in a nest: forwards everything that is not a record.
pub struct Chained<T, O, N> {
    op: O,
    uid: Arc<str>,
    next: N,
    // The operator itself is done with the mark or end that is on its way; the rest of the chain is not.
    passed: bool,
    _t: PhantomData<fn(T)>,
}

impl<T, O, N> Chained<T, O, N> {
    /// `op` before `next`.
    pub fn new(op: O, uid: Arc<str>, next: N) -> Self {
        Self { op, uid, next, passed: false, _t: PhantomData }
    }
}

impl<T: 'static, O: Operator<T>, N: Push<O::Out>> Chained<T, O, N> {
    fn settled(&mut self) -> bool {
        self.ready() == Ready::Yes
    }
}

impl<T: 'static, O: Operator<T>, N: Push<O::Out>> Control for Chained<T, O, N> {
    #[inline]
    fn ready(&mut self) -> Ready {
        match self.next.ready() {
            Ready::Yes => {
                let guard = Guard::new(&self.uid);
                let ready = self.op.ready(&mut self.next);
                guard.leave();
                ready
            }
            not => not,
        }
    }

    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow {
        if !self.passed {
            if !self.settled() {
                return Flow::More;
            }
            let guard = Guard::new(&self.uid);
            let flow = self.op.mark(mark, budget, &mut self.next);
            guard.leave();
            if flow == Flow::More {
                return Flow::More;
            }
            self.passed = true;
        }
        let flow = self.next.mark(mark, budget);
        self.passed = flow == Flow::More;
        flow
    }

    fn barrier(&mut self, barrier: &mut Barrier) {
        let guard = Guard::new(&self.uid);
        if let Some(state) = self.op.snapshot() {
            barrier.states.push((self.uid.clone(), state));
        }
        guard.leave();
        self.next.barrier(barrier);
    }

    fn flush(&mut self) {
        let guard = Guard::new(&self.uid);
        self.op.flush(&mut self.next);
        guard.leave();
        self.next.flush();
    }

    fn end(&mut self, budget: &mut usize) -> Flow {
        if !self.passed {
            if !self.settled() {
                return Flow::More;
            }
            let guard = Guard::new(&self.uid);
            let flow = self.op.end(budget, &mut self.next);
            guard.leave();
            if flow == Flow::More {
                return Flow::More;
            }
            self.passed = true;
        }
        let flow = self.next.end(budget);
        self.passed = flow == Flow::More;
        flow
    }

    fn drained(&mut self) -> bool {
        self.next.drained()
    }
}

impl<T: 'static, O: Operator<T>, N: Push<O::Out>> Push<T> for Chained<T, O, N> {
    #[inline(always)]
    fn push(&mut self, at: Time, item: T) {
        let guard = Guard::new(&self.uid);
        self.op.item(at, item, &mut self.next);
        guard.leave();
    }

    #[inline]
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        let guard = Guard::new(&self.uid);
        self.op.batch(batch, limit, &mut self.next);
        guard.leave();
    }
}

impl<X: Control + ?Sized> Control for Box<X> {
    fn ready(&mut self) -> Ready {
        (**self).ready()
    }
    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow {
        (**self).mark(mark, budget)
    }
    fn barrier(&mut self, barrier: &mut Barrier) {
        (**self).barrier(barrier);
    }
    fn flush(&mut self) {
        (**self).flush();
    }
    fn end(&mut self, budget: &mut usize) -> Flow {
        (**self).end(budget)
    }
    fn drained(&mut self) -> bool {
        (**self).drained()
    }
}

impl<T, X: Push<T> + ?Sized> Push<T> for Box<X> {
    fn push(&mut self, at: Time, item: T) {
        (**self).push(at, item);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        (**self).push_batch(batch, limit);
    }
}
