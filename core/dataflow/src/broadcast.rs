//! Broadcast state: what every subtask of an operator knows alike, beside the records that it gets of another stream.

use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    either::Either,
    key::Data,
    keyed::keep,
    pipe::Transform,
    process::{Cx, ProcessContext},
    push::{Control, Flow, Mark, Operator, Push},
    side::{LiveSides, Sides},
    task::TaskCell,
};
use std::{marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, TaskFailure};

/// A function over a stream and a broadcast one. Every subtask gets all records of the broadcast stream and makes the same
/// state of them.
pub trait BroadcastProcessFunction<A, B>: Clone + Send + 'static {
    /// What is known.
    type State: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// One record of the stream. It cannot change what is known, since the other subtasks would not know of it.
    fn process(&mut self, item: A, state: &Self::State, ctx: &mut impl ProcessContext<Self::Out>);
    /// One record of the broadcast stream. What it does to the state must depend on the record and the state alone.
    fn process_broadcast(&mut self, item: B, state: &mut Self::State, ctx: &mut impl ProcessContext<Self::Out>);
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
    watermark: Time,
    clock: Arc<dyn Clock>,
    sides: LiveSides,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<A: 'static, B: 'static, F: BroadcastProcessFunction<A, B>> Transform<Either<A, B>> for BroadcastSpec<F, A, B> {
    type Out = F::Out;
    type Op = BroadcastOp<F, F::State>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        // All subtasks wrote the same; this one's own is as good as any.
        let parts: Vec<_> = cx.restored().collect();
        let part = parts.iter().find(|(writer, _)| *writer == cx.subtask).or(parts.first());
        let state = match part {
            Some((writer, part)) => codec::decode(part).map_err(|e| {
                let message = format!("the broadcast state that subtask {writer} wrote cannot be read: {e}");
                cx.failure(FailureKind::Storage, message)
            })?,
            None => F::State::default(),
        };
        Ok(BroadcastOp {
            f: self.f,
            state,
            watermark: NO_TIME,
            clock: cx.env().clock.clone(),
            sides: self.sides.open(cx.build)?,
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<A: 'static, B: 'static, F: BroadcastProcessFunction<A, B>> Operator<Either<A, B>> for BroadcastOp<F, F::State> {
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: Either<A, B>, out: &mut impl Push<F::Out>) {
        let (watermark, clock, sides) = (self.watermark, &*self.clock, &mut self.sides);
        let mut cx = Cx { at, watermark, clock, sides, out };
        match item {
            Either::Left(item) => self.f.process(item, &self.state, &mut cx),
            Either::Right(item) => self.f.process_broadcast(item, &mut self.state, &mut cx),
        }
    }
    fn mark(&mut self, mark: Mark, _: &mut usize, _: &mut impl Push<F::Out>) -> Flow {
        if let Mark::At(at) = mark {
            self.watermark = self.watermark.max(at);
        }
        Flow::Done
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        self.sides.control()
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(codec::encode(&self.state), &self.cell, &self.uid)
    }
}
