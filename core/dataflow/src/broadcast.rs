//! Broadcast state: what every subtask of an operator knows alike, beside the records that it gets of another stream.

use crate::{
    batch::Time,
    build::OpCx,
    codec,
    either::Either,
    key::Data,
    keyed::keep,
    metrics::Metrics,
    pipe::Transform,
    process::{Course, Cx, ProcessContext},
    push::{Control, Flow, Mark, Operator, Push},
    side::{LiveSides, Sides},
    state::{OperatorStates, named::SavedStates},
    task::TaskCell,
};
use std::{marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_env::Clock;
use thalweg_model::TaskFailure;

/// A function over a stream and a broadcast one. Every subtask gets all records of the broadcast stream and makes the same
/// state of them.
pub trait BroadcastProcessFunction<A, B>: Clone + Send + 'static {
    /// What is known.
    type State: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// A subtask begins, on the thread that it will run on: connections are opened here.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// A subtask begins: a function that has lists adds each of them.
    fn states(&mut self, _states: &mut OperatorStates) {}
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// One record of the stream. It cannot change what is known, since the other subtasks would not know of it.
    fn process(&mut self, item: A, state: &Self::State, ctx: &mut impl ProcessContext<Self::Out>);
    /// One record of the broadcast stream. What it does to the state must depend on the record and the state alone.
    fn process_broadcast(&mut self, item: B, state: &mut Self::State, ctx: &mut impl ProcessContext<Self::Out>);
    /// No record follows, on either stream. What it gives out has the latest time of all records, and comes before the
    /// last watermark.
    fn end(&mut self, _state: &Self::State, _ctx: &mut impl ProcessContext<Self::Out>) {}
}

/// A [`BroadcastProcessFunction`] in a plan.
pub struct BroadcastSpec<F, A, B> {
    f: F,
    sides: Sides,
    _t: PhantomData<fn(A, B)>,
}

impl<F, A, B> BroadcastSpec<F, A, B> {
    /// Of this function, with these side outputs.
    pub fn new(f: F, sides: Sides) -> Self {
        Self { f, sides, _t: PhantomData }
    }
}

impl<F: Clone, A, B> Clone for BroadcastSpec<F, A, B> {
    fn clone(&self) -> Self {
        Self::new(self.f.clone(), self.sides.clone())
    }
}

/// A live one.
pub struct BroadcastOp<F, V> {
    f: F,
    state: V,
    course: Course,
    clock: Arc<dyn Clock>,
    sides: LiveSides,
    states: OperatorStates,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<F, V> BroadcastOp<F, V> {
    #[inline(always)]
    fn call<O, N: Push<O>>(&mut self, at: Time, out: &mut N, call: impl FnOnce(&mut F, &mut V, &mut Cx<'_, N>)) {
        let (clock, sides, states) = (&*self.clock, &mut self.sides, &mut self.states);
        let (watermark, task) = (self.course.watermark, (&*self.cell, &*self.uid));
        call(&mut self.f, &mut self.state, &mut Cx { at, watermark, clock, sides, states, task, out });
    }
}

impl<A: 'static, B: 'static, F: BroadcastProcessFunction<A, B>> Transform<Either<A, B>> for BroadcastSpec<F, A, B> {
    type Out = F::Out;
    type Op = BroadcastOp<F, F::State>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        self.f.open(cx)?;
        let mut states = OperatorStates::new();
        self.f.states(&mut states);
        cx.metrics(|metrics| self.f.metrics(metrics))?;
        let (mut known, mut lists, mut reached) = (Vec::new(), Vec::new(), Vec::new());
        for (writer, (state, at, list)) in cx.saved::<(F::State, Time, SavedStates)>()? {
            known.push((writer, state));
            lists.push((writer, list));
            reached.push(at);
        }
        states.restore(cx, lists)?;
        // All subtasks wrote the same where one subtask gave the broadcast records, and else what the order in which they
        // came made of them; this one's own is as good as any.
        let at = known.iter().position(|(writer, _)| *writer == cx.subtask).unwrap_or(0);
        let state = if known.is_empty() { F::State::default() } else { known.swap_remove(at).1 };
        Ok(BroadcastOp {
            f: self.f,
            state,
            course: Course::restored(reached.into_iter()),
            clock: cx.env().clock.clone(),
            sides: self.sides.open(cx)?,
            states,
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<A: 'static, B: 'static, F: BroadcastProcessFunction<A, B>> Operator<Either<A, B>> for BroadcastOp<F, F::State> {
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: Either<A, B>, out: &mut impl Push<F::Out>) {
        self.course.item(at);
        self.call(at, out, |f, state, cx| match item {
            Either::Left(item) => f.process(item, state, cx),
            Either::Right(item) => f.process_broadcast(item, state, cx),
        });
    }
    fn mark(&mut self, mark: Mark, _: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        if let Some(at) = self.course.last_words(mark) {
            self.call(at, out, |f, state, cx| f.end(state, cx));
        }
        self.course.passed(mark);
        Flow::Done
    }
    fn end(&mut self, _: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        if let Some(at) = self.course.end() {
            self.call(at, out, |f, state, cx| f.end(state, cx));
        }
        Flow::Done
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        self.sides.control()
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let all = self.states.snapshot().and_then(|lists| codec::encode(&(&self.state, self.course.reached(), lists)));
        keep(all, &self.cell, &self.uid)
    }
}
