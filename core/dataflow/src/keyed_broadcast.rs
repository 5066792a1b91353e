//! Broadcast state beside the state of keys: a keyed function that also knows what every subtask knows alike. It is a
//! [`KeyedProcess`] that is handed what is known, and an operator that makes what is known of the broadcast records.

use crate::{
    batch::Time,
    build::OpCx,
    codec,
    either::Either,
    key::{Data, KeySelect, OwnedKey},
    keyed::{KeyedContext, KeyedProcess, ProcessOp, ProcessSpec, TimeDomain, keep},
    metrics::Metrics,
    pipe::Transform,
    process::{Cx, ProcessContext},
    push::{Control, Flow, Mark, Operator, Push, Ready},
    side::Sides,
    state::{KeyedStates, OperatorStates},
};
use std::{marker::PhantomData, time::Duration};
use thalweg_model::TaskFailure;

/// A function over a keyed stream and a broadcast one. Every subtask gets all records of the broadcast stream and makes the
/// same of them; records of the keyed one see that, and the state of their key.
pub trait KeyedBroadcastProcessFunction<A, B>: Clone + Send + 'static {
    /// The keyed stream's key.
    type Key: OwnedKey;
    /// One value for each key; `()` takes no room.
    type State: Default + Data;
    /// What is known.
    type Broadcast: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// See [`KeyedProcess::state_ttl`].
    fn state_ttl(&self) -> Option<Duration> {
        None
    }
    /// A subtask begins, on the thread that it will run on: connections are opened here.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// A subtask begins: a function that has named states adds each of them.
    fn states(&mut self, _states: &mut KeyedStates<'_, Self::Key>) {}
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// One record of the keyed stream. It cannot change what is known, since the other subtasks would not know of it.
    fn process(
        &mut self,
        item: A,
        state: &mut Self::State,
        known: &Self::Broadcast,
        ctx: &mut impl KeyedContext<Self::Key, Self::Out>,
    );
    /// One record of the broadcast stream. What it does to what is known must depend on the record and on that alone. There
    /// are no lists here.
    fn process_broadcast(&mut self, item: B, known: &mut Self::Broadcast, ctx: &mut impl ProcessContext<Self::Out>);
    /// A time that was asked for has come.
    fn on_timer(
        &mut self,
        _domain: TimeDomain,
        _state: &mut Self::State,
        _known: &Self::Broadcast,
        _ctx: &mut impl KeyedContext<Self::Key, Self::Out>,
    ) {
    }
}

/// The keyed half, with what is known.
pub struct Knowing<F, V, A, B> {
    f: F,
    known: V,
    _t: PhantomData<fn(A, B)>,
}

impl<F: Clone, V: Default, A, B> Clone for Knowing<F, V, A, B> {
    fn clone(&self) -> Self {
        // In a plan it knows nothing yet.
        Self { f: self.f.clone(), known: V::default(), _t: PhantomData }
    }
}

impl<A: 'static, B: 'static, F: KeyedBroadcastProcessFunction<A, B>> KeyedProcess<A>
    for Knowing<F, F::Broadcast, A, B>
{
    type Key = F::Key;
    type State = F::State;
    type Out = F::Out;
    fn state_ttl(&self) -> Option<Duration> {
        self.f.state_ttl()
    }
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.f.open(cx)
    }
    fn states(&mut self, states: &mut KeyedStates<'_, F::Key>) {
        self.f.states(states);
    }
    fn metrics(&mut self, metrics: &mut Metrics<'_>) {
        self.f.metrics(metrics);
    }
    #[inline(always)]
    fn process(&mut self, item: A, state: &mut F::State, ctx: &mut impl KeyedContext<F::Key, F::Out>) {
        self.f.process(item, state, &self.known, ctx);
    }
    fn on_timer(&mut self, domain: TimeDomain, state: &mut F::State, ctx: &mut impl KeyedContext<F::Key, F::Out>) {
        self.f.on_timer(domain, state, &self.known, ctx);
    }
}

/// A [`KeyedBroadcastProcessFunction`] in a plan.
pub struct KeyedBroadcastSpec<F, S, A, B> {
    f: F,
    key: S,
    sides: Sides,
    _t: PhantomData<fn(A, B)>,
}

impl<F, S, A, B> KeyedBroadcastSpec<F, S, A, B> {
    /// Of this function, whose key is found so, with these side outputs.
    pub fn new(f: F, key: S, sides: Sides) -> Self {
        Self { f, key, sides, _t: PhantomData }
    }
}

impl<F: Clone, S: Clone, A, B> Clone for KeyedBroadcastSpec<F, S, A, B> {
    fn clone(&self) -> Self {
        Self::new(self.f.clone(), self.key.clone(), self.sides.clone())
    }
}

/// A live one.
pub struct KeyedBroadcastOp<F: KeyedBroadcastProcessFunction<A, B>, S, A, B> {
    keyed: ProcessOp<Knowing<F, F::Broadcast, A, B>, S, F::Key, F::State, A>,
    none: OperatorStates,
}

impl<A, B, F, S> Transform<Either<A, B>> for KeyedBroadcastSpec<F, S, A, B>
where
    A: 'static,
    B: 'static,
    F: KeyedBroadcastProcessFunction<A, B>,
    S: KeySelect<A, Key = F::Key>,
{
    type Out = F::Out;
    type Op = KeyedBroadcastOp<F, S, A, B>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let (mut keyed, mut known) = (Vec::new(), Vec::new());
        for (writer, (rows, all)) in cx.saved::<(Vec<u8>, F::Broadcast)>()? {
            keyed.push((writer, rows));
            known.push((writer, all));
        }
        // All subtasks wrote the same where one subtask gave the broadcast records, and else what the order in which they
        // came made of them; this one's own is as good as any.
        let at = known.iter().position(|(writer, _)| *writer == cx.subtask).unwrap_or(0);
        let known = if known.is_empty() { F::Broadcast::default() } else { known.swap_remove(at).1 };
        let spec = ProcessSpec { f: Knowing { f: self.f, known, _t: PhantomData }, key: self.key, sides: self.sides };
        let parts = keyed.iter().map(|(writer, rows)| (*writer, &rows[..]));
        Ok(KeyedBroadcastOp { keyed: spec.open_from(cx, parts)?, none: OperatorStates::new() })
    }
}

impl<A, B, F, S> Operator<Either<A, B>> for KeyedBroadcastOp<F, S, A, B>
where
    A: 'static,
    B: 'static,
    F: KeyedBroadcastProcessFunction<A, B>,
    S: KeySelect<A, Key = F::Key>,
{
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: Either<A, B>, out: &mut impl Push<F::Out>) {
        match item {
            Either::Left(item) => self.keyed.item(at, item, out),
            Either::Right(item) => {
                self.keyed.saw(at);
                let (function, times, sides, task) = self.keyed.parts();
                let (watermark, clock) = times.now();
                let mut cx = Cx { at, watermark, clock, sides, states: &mut self.none, task, out };
                function.f.process_broadcast(item, &mut function.known, &mut cx);
            }
        }
    }
    fn ready(&mut self, out: &mut impl Push<F::Out>) -> Ready {
        Operator::<A>::ready(&mut self.keyed, out)
    }
    fn mark(&mut self, mark: Mark, budget: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        Operator::<A>::mark(&mut self.keyed, mark, budget, out)
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        Operator::<A>::side(&mut self.keyed)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        let rows = Operator::<A>::snapshot(&mut self.keyed)?;
        let (cell, uid) = self.keyed.task();
        let (function, ..) = self.keyed.parts();
        keep(codec::encode(&(rows, &function.known)), &cell, &uid)
    }
}
