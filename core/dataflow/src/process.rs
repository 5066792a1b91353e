//! Functions over streams without keys that see time and have side outputs.

use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push},
    side::{LiveSides, OutputTag, Sides},
};
use std::sync::Arc;
use thalweg_env::Clock;
use thalweg_model::TaskFailure;

/// What a function may ask and do.
pub trait ProcessContext<O> {
    /// The record's event time, or `NO_TIME`.
    fn time(&self) -> Time;
    /// No record with this time or an earlier one is expected any more; `NO_TIME` before the first watermark.
    fn watermark(&self) -> Time;
    /// The machine's clock, ms since 1970 UTC.
    fn processing_time(&self) -> Time;
    /// Gives a record out. Its time is the one of the record that came in.
    fn emit(&mut self, item: O);
    /// Gives a record out by the side.
    fn output<U: 'static>(&mut self, tag: &OutputTag<U>, item: U);
}

/// A function over a stream.
pub trait ProcessFunction<T>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    /// A subtask begins, on the thread that it will run on.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// One record.
    fn process(&mut self, item: T, ctx: &mut impl ProcessContext<Self::Out>);
}

pub(crate) struct Cx<'a, N> {
    pub(crate) at: Time,
    pub(crate) watermark: Time,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) sides: &'a mut LiveSides,
    pub(crate) out: &'a mut N,
}

impl<O, N: Push<O>> ProcessContext<O> for Cx<'_, N> {
    #[inline(always)]
    fn time(&self) -> Time {
        self.at
    }
    #[inline(always)]
    fn watermark(&self) -> Time {
        self.watermark
    }
    fn processing_time(&self) -> Time {
        Time::try_from(self.clock.wall().0).unwrap_or(Time::MAX)
    }
    #[inline(always)]
    fn emit(&mut self, item: O) {
        self.out.push(self.at, item);
    }
    fn output<U: 'static>(&mut self, tag: &OutputTag<U>, item: U) {
        self.sides.emit(tag, self.at, item);
    }
}

/// A [`ProcessFunction`] in a plan.
#[derive(Clone)]
pub struct ProcessSpec<F> {
    /// The function.
    pub f: F,
    /// Who asked for side outputs.
    pub sides: Sides,
}

/// A live one.
pub struct ProcessOp<F> {
    f: F,
    watermark: Time,
    clock: Arc<dyn Clock>,
    sides: LiveSides,
}

impl<T: 'static, F: ProcessFunction<T>> Transform<T> for ProcessSpec<F> {
    type Out = F::Out;
    type Op = ProcessOp<F>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        self.f.open(cx)?;
        let (clock, sides) = (cx.env().clock.clone(), self.sides.open(cx.build)?);
        Ok(ProcessOp { f: self.f, watermark: NO_TIME, clock, sides })
    }
}

impl<T: 'static, F: ProcessFunction<T>> Operator<T> for ProcessOp<F> {
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<F::Out>) {
        let (watermark, clock, sides) = (self.watermark, &*self.clock, &mut self.sides);
        self.f.process(item, &mut Cx { at, watermark, clock, sides, out });
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
}
