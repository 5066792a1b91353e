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
    /// A latency marker: it goes on at once, behind what was pushed before, and past what operators hold back.
    fn latency(&mut self, marker: Time);
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
    /// A watermark; what [`passes`](Operator::passes) makes of it is forwarded once the answer is `Done`.
    fn mark(&mut self, _mark: Mark, _budget: &mut usize, _out: &mut impl Push<Self::Out>) -> Flow {
        Flow::Done
    }
    /// What goes on of a watermark that came in: all of it, but where an operator makes its own.
    #[inline(always)]
    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        Some(mark)
    }
    /// A watermark of the operator's own. Asked between records, at least every [`STRIDE`], and in every step.
    #[inline(always)]
    fn makes(&mut self) -> Option<Mark> {
        None
    }
    /// Where a second kind of output goes. It is told all that the first one is told.
    #[inline(always)]
    fn side(&mut self) -> Option<&mut dyn Control> {
        None
    }
    /// The input pauses.
    fn flush(&mut self, _out: &mut impl Push<Self::Out>) {}
    /// No record follows. It is called behind `mark` of the last watermark, and before that watermark is forwarded: who waits
    /// for time behind this operator gets what is given out here in time. Nothing is asked of the operator once the answer is
    /// `Done`, but its state.
    fn end(&mut self, _budget: &mut usize, _out: &mut impl Push<Self::Out>) -> Flow {
        Flow::Done
    }
    /// The state, for the operator of this uid to be opened with again, at any parallelism.
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// How far a mark or an end has come that is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// Nothing is on its way, or the operator itself is not done with it.
    Nobody,
    /// The operator is done with it; the rest of the chain has yet to be.
    Operator,
    /// Only the side output is left.
    Chain,
}

/// How near its end an operator is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Running,
    /// It is done with the last watermark.
    Marked,
    /// It has ended.
    Over,
}

/// An operator in a nest: forwards everything that is not a record.
pub struct Chained<T, O, N> {
    op: O,
    uid: Arc<str>,
    next: N,
    passed: Passed,
    course: Course,
    // What the rest of the chain is told: a mark that came in, or the operator's own.
    mark: Mark,
    own: bool,
    _t: PhantomData<fn(T)>,
}

impl<T, O, N> Chained<T, O, N> {
    /// `op` before `next`.
    pub fn new(op: O, uid: Arc<str>, next: N) -> Self {
        let (passed, course) = (Passed::Nobody, Course::Running);
        Self { op, uid, next, passed, course, mark: Mark::Idle, own: false, _t: PhantomData }
    }
}

impl<T: 'static, O: Operator<T>, N: Push<O::Out>> Chained<T, O, N> {
    fn settled(&mut self) -> bool {
        self.ready() == Ready::Yes
    }

    /// Tells what the operator is done with to the rest of the chain, and then to the side output.
    fn forward(&mut self, budget: &mut usize, mut say: impl FnMut(&mut dyn Control, &mut usize) -> Flow) -> Flow {
        if self.passed == Passed::Operator {
            if say(&mut self.next, budget) == Flow::More {
                return Flow::More;
            }
            self.passed = Passed::Chain;
        }
        if let Some(side) = self.op.side()
            && say(side, budget) == Flow::More
        {
            return Flow::More;
        }
        self.passed = Passed::Nobody;
        Flow::Done
    }

    fn room(&mut self) -> Ready {
        let next = self.next.ready();
        let side = self.op.side().map_or(Ready::Yes, |side| side.ready());
        match (next, side) {
            // One that is busy can go on by itself, so the slot must not park.
            (Ready::Busy, _) | (_, Ready::Busy) => Ready::Busy,
            (Ready::Yes, side) => side,
            (next, _) => next,
        }
    }

    /// Tells the operator a watermark; the last one, and that no record follows.
    fn tell(&mut self, mark: Option<Mark>, budget: &mut usize) -> Flow {
        let (op, next) = (&mut self.op, &mut self.next);
        let guard = Guard::new(&self.uid);
        let mut flow = Flow::Done;
        if let Some(mark) = mark
            && self.course == Course::Running
        {
            flow = op.mark(mark, budget, next);
            if flow == Flow::Done && mark == Mark::At(Time::MAX) {
                self.course = Course::Marked;
            }
        }
        if flow == Flow::Done && (mark.is_none() || self.course == Course::Marked) && self.course != Course::Over {
            flow = if *budget == 0 { Flow::More } else { op.end(budget, next) };
            if flow == Flow::Done {
                self.course = Course::Over;
            }
        }
        guard.leave();
        flow
    }

    /// Goes on with a mark of the operator's own.
    #[cold]
    #[inline(never)]
    fn tell_own(&mut self) -> Ready {
        let mark = self.mark;
        self.own = self.forward(&mut STRIDE.clone(), |to, budget| to.mark(mark, budget)) == Flow::More;
        if self.own { Ready::Busy } else { self.room() }
    }
}

impl<T: 'static, O: Operator<T>, N: Push<O::Out>> Control for Chained<T, O, N> {
    #[inline]
    fn ready(&mut self) -> Ready {
        match self.room() {
            Ready::Yes if self.own => return self.tell_own(),
            // What it gave behind its end nobody would take.
            Ready::Yes if self.course == Course::Over => return Ready::Yes,
            Ready::Yes => {}
            not => return not,
        }
        let guard = Guard::new(&self.uid);
        let ready = self.op.ready(&mut self.next);
        let made = if ready == Ready::Yes && self.passed == Passed::Nobody { self.op.makes() } else { None };
        guard.leave();
        match made {
            Some(mark) => {
                (self.mark, self.own, self.passed) = (mark, true, Passed::Operator);
                self.tell_own()
            }
            None => ready,
        }
    }

    fn mark(&mut self, mark: Mark, budget: &mut usize) -> Flow {
        // A mark of its own that is still on its way goes first.
        if self.own || self.passed == Passed::Nobody {
            if !self.settled() {
                return Flow::More;
            }
            if self.tell(Some(mark), budget) == Flow::More {
                return Flow::More;
            }
            let guard = Guard::new(&self.uid);
            let passes = self.op.passes(mark);
            guard.leave();
            let Some(mark) = passes else { return Flow::Done };
            (self.mark, self.passed) = (mark, Passed::Operator);
        }
        let mark = self.mark;
        self.forward(budget, |to, budget| to.mark(mark, budget))
    }

    fn barrier(&mut self, barrier: &mut Barrier) {
        let guard = Guard::new(&self.uid);
        if let Some(state) = self.op.snapshot() {
            barrier.states.push((self.uid.clone(), state));
        }
        guard.leave();
        self.next.barrier(barrier);
        if let Some(side) = self.op.side() {
            side.barrier(barrier);
        }
    }

    fn latency(&mut self, marker: Time) {
        self.next.latency(marker);
        if let Some(side) = self.op.side() {
            side.latency(marker);
        }
    }

    fn flush(&mut self) {
        // What is on its way down the chain is told to its end before anything else.
        if self.passed == Passed::Nobody && self.course != Course::Over {
            let guard = Guard::new(&self.uid);
            self.op.flush(&mut self.next);
            guard.leave();
        }
        self.next.flush();
        if let Some(side) = self.op.side() {
            side.flush();
        }
    }

    fn end(&mut self, budget: &mut usize) -> Flow {
        if self.own || self.passed == Passed::Nobody {
            if !self.settled() {
                return Flow::More;
            }
            if self.tell(None, budget) == Flow::More {
                return Flow::More;
            }
            self.passed = Passed::Operator;
        }
        self.forward(budget, |to, budget| to.end(budget))
    }

    fn drained(&mut self) -> bool {
        self.next.drained() && self.op.side().is_none_or(|side| side.drained())
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

/// The calls of [`Control`] for what only does something to records: all go on to a field.
macro_rules! forward_control {
    ($to:ident) => {
        fn ready(&mut self) -> $crate::push::Ready {
            self.$to.ready()
        }
        fn mark(&mut self, mark: $crate::push::Mark, budget: &mut usize) -> $crate::push::Flow {
            self.$to.mark(mark, budget)
        }
        fn barrier(&mut self, barrier: &mut $crate::push::Barrier) {
            self.$to.barrier(barrier);
        }
        fn latency(&mut self, marker: $crate::batch::Time) {
            self.$to.latency(marker);
        }
        fn flush(&mut self) {
            self.$to.flush();
        }
        fn end(&mut self, budget: &mut usize) -> $crate::push::Flow {
            self.$to.end(budget)
        }
        fn drained(&mut self) -> bool {
            self.$to.drained()
        }
    };
}
pub(crate) use forward_control;

/// The calls of [`Control`] where nothing is behind.
macro_rules! no_control {
    () => {
        fn ready(&mut self) -> $crate::push::Ready {
            $crate::push::Ready::Yes
        }
        fn mark(&mut self, _: $crate::push::Mark, _: &mut usize) -> $crate::push::Flow {
            $crate::push::Flow::Done
        }
        fn barrier(&mut self, _: &mut $crate::push::Barrier) {}
        fn latency(&mut self, _: $crate::batch::Time) {}
        fn flush(&mut self) {}
        fn end(&mut self, _: &mut usize) -> $crate::push::Flow {
            $crate::push::Flow::Done
        }
        fn drained(&mut self) -> bool {
            true
        }
    };
}
pub(crate) use no_control;

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
    fn latency(&mut self, marker: Time) {
        (**self).latency(marker);
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
