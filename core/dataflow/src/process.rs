//! Functions over streams without keys that see time and have side outputs.

use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    event_time::LIMIT,
    key::Data,
    keyed::keep,
    metrics::Metrics,
    pipe::Transform,
    push::{Control, Flow, Mark, Operator, Push},
    side::{LiveSides, OutputTag, Sides},
    state::{OperatorListState, OperatorStates, named::SavedStates},
    task::TaskCell,
};
use std::{fmt::Display, rc::Rc, sync::Arc};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, TaskFailure};

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
    /// A list of this subtask, that the function has added; changed as you like.
    fn list<'a, V: Data>(&'a mut self, state: &OperatorListState<V>) -> &'a mut Vec<V>;
    /// Fails the job with this error once the function returns: the record cannot be handled. It says what to do, for
    /// whoever reads it at night.
    fn fail(&mut self, why: impl Display);
}

/// A function over a stream.
pub trait ProcessFunction<T>: Clone + Send + 'static {
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
    /// One record.
    fn process(&mut self, item: T, ctx: &mut impl ProcessContext<Self::Out>);
    /// No record follows. What it gives out has the latest time of all records, and comes before the last watermark.
    fn end(&mut self, _ctx: &mut impl ProcessContext<Self::Out>) {}
}

pub(crate) struct Cx<'a, N> {
    pub(crate) at: Time,
    pub(crate) watermark: Time,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) sides: &'a mut LiveSides,
    pub(crate) states: &'a mut OperatorStates,
    pub(crate) task: (&'a TaskCell, &'a str),
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
    #[inline]
    fn list<'b, V: Data>(&'b mut self, state: &OperatorListState<V>) -> &'b mut Vec<V> {
        self.states.list(state)
    }
    #[cold]
    fn fail(&mut self, why: impl Display) {
        let (cell, uid) = self.task;
        cell.fail_in(uid, FailureKind::User, why.to_string());
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

/// How far an operator's input is, and when it ends.
pub(crate) struct Course {
    pub(crate) watermark: Time,
    latest: Time,
    ended: bool,
}

impl Default for Course {
    fn default() -> Self {
        Self { watermark: NO_TIME, latest: NO_TIME, ended: false }
    }
}

impl Course {
    /// Goes on where those were that wrote a snapshot.
    pub(crate) fn restored(reached: impl Iterator<Item = Time>) -> Self {
        Self { latest: reached.max().unwrap_or(NO_TIME), ..Self::default() }
    }

    /// The time of what is given out at the end if it comes now: that of the latest record, and not behind the watermark.
    pub(crate) fn reached(&self) -> Time {
        // Behind the last watermark there is no time.
        let is_time = self.watermark != NO_TIME && self.watermark < LIMIT;
        self.latest.max(if is_time { self.watermark + 1 } else { NO_TIME })
    }

    /// A record of this time.
    #[inline(always)]
    pub(crate) fn item(&mut self, at: Time) {
        self.latest = self.latest.max(at);
    }

    /// A watermark. The last one is said before the end: what is still to come must not be late. Answers the time of
    /// that, when it is due; [`Self::passed`] comes behind it.
    pub(crate) fn last_words(&mut self, mark: Mark) -> Option<Time> {
        (mark == Mark::At(Time::MAX)).then(|| self.end()).flatten()
    }

    /// The watermark is this now.
    pub(crate) fn passed(&mut self, mark: Mark) {
        if let Mark::At(at) = mark {
            self.watermark = self.watermark.max(at);
        }
    }

    /// The end, where somebody before kept the last watermark to himself.
    pub(crate) fn end(&mut self) -> Option<Time> {
        (!std::mem::replace(&mut self.ended, true)).then(|| self.reached())
    }
}

/// A live one.
pub struct ProcessOp<F> {
    f: F,
    course: Course,
    clock: Arc<dyn Clock>,
    sides: LiveSides,
    states: OperatorStates,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<F> ProcessOp<F> {
    #[inline(always)]
    fn call<O, N: Push<O>>(&mut self, at: Time, out: &mut N, call: impl FnOnce(&mut F, &mut Cx<'_, N>)) {
        let (clock, sides, states) = (&*self.clock, &mut self.sides, &mut self.states);
        let (watermark, task) = (self.course.watermark, (&*self.cell, &*self.uid));
        call(&mut self.f, &mut Cx { at, watermark, clock, sides, states, task, out });
    }
}

impl<T: 'static, F: ProcessFunction<T>> Transform<T> for ProcessSpec<F> {
    type Out = F::Out;
    type Op = ProcessOp<F>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        self.f.open(cx)?;
        cx.metrics(|metrics| self.f.metrics(metrics))?;
        let mut states = OperatorStates::new();
        self.f.states(&mut states);
        let saved = cx.saved::<(Time, SavedStates)>()?;
        let (reached, lists): (Vec<_>, _) =
            saved.into_iter().map(|(w, (reached, lists))| (reached, (w, lists))).unzip();
        states.restore(cx, lists)?;
        Ok(ProcessOp {
            f: self.f,
            course: Course::restored(reached.into_iter()),
            clock: cx.env().clock.clone(),
            sides: self.sides.open(cx)?,
            states,
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }
}

impl<T: 'static, F: ProcessFunction<T>> Operator<T> for ProcessOp<F> {
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<F::Out>) {
        self.course.item(at);
        self.call(at, out, |f, cx| f.process(item, cx));
    }
    fn mark(&mut self, mark: Mark, _: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        if let Some(at) = self.course.last_words(mark) {
            self.call(at, out, |f, cx| f.end(cx));
        }
        self.course.passed(mark);
        Flow::Done
    }
    fn side(&mut self) -> Option<&mut dyn Control> {
        self.sides.control()
    }
    fn end(&mut self, _: &mut usize, out: &mut impl Push<F::Out>) -> Flow {
        if let Some(at) = self.course.end() {
            self.call(at, out, |f, cx| f.end(cx));
        }
        Flow::Done
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        if self.states.is_empty() {
            None
        } else {
            let all = self.states.snapshot().and_then(|lists| codec::encode(&(self.course.reached(), lists)));
            keep(all, &self.cell, &self.uid)
        }
    }
}
