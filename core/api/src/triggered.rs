//! Keyed streams whose windows are of any kind, with triggers and evictors.

use crate::{DataStream, EvictedStream, KeyedStream, WindowedStream, timed::Timed};
use std::{ops::AddAssign, time::Duration};
use thalweg_dataflow::{
    Data, OutputTag, PlanBuilder, Time,
    fold::{AggregateFunction, Aggregating, Count, Reduce, Sum, ToList},
    gate_task::add_gate,
    key::KeySelect,
    ops::ClonedToSubtasks,
    pipe::{Inlet, Pipe, Then, close},
    routes::KeyRoute,
    side::Sides,
    window::{
        Aggregated, AggregatedWith, Apply, DynamicSessionWindows, EventTimeTrigger, Evictor, Gather, GlobalWindows,
        NoEvictor, ProcessingTimeTrigger, ProcessingTimeWindows, RecordAssigner, SessionWindows, TimeWindow,
        TimeWindows, Trigger, TriggerContext, TriggerResult, TriggeredSpec, Untimed, WindowAssigner, WindowFunction,
        WindowTime, WithWindow,
    },
};
use thalweg_model::{Partitioner, VertexRole};

/// What can be given to [`KeyedStream::window`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of windows",
    note = "for example `TumblingEventTimeWindows::of(Duration::from_secs(10))`, `SlidingEventTimeWindows::of(size, slide)`, `EventTimeSessionWindows::with_gap(gap)` or `GlobalWindows`"
)]
pub trait Windows: Clone + Send + 'static {
    /// A keyed stream grouped by them.
    type Of<T, S, P>;
    /// Whose time they are of.
    fn time(&self) -> WindowTime;
    /// What is wrong with them, if something is.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
    /// Groups it.
    fn group<T, S, P>(self, keyed: KeyedStream<T, S, P>) -> Self::Of<T, S, P>;
}

impl Windows for TimeWindows {
    type Of<T, S, P> = WindowedStream<T, S, P>;
    fn time(&self) -> WindowTime {
        WindowAssigner::time(self)
    }
    fn check(&self) -> Result<(), String> {
        WindowAssigner::check(self)
    }
    fn group<T, S, P>(self, keyed: KeyedStream<T, S, P>) -> WindowedStream<T, S, P> {
        WindowedStream::new(keyed, self)
    }
}

macro_rules! triggered { ($($windows:ty),*) => { $(
    impl Windows for $windows {
        type Of<T, S, P> = TriggeredStream<T, S, P, Self, DefaultTrigger>;
        fn time(&self) -> WindowTime {
            WindowAssigner::time(self)
        }
        fn check(&self) -> Result<(), String> {
            WindowAssigner::check(self)
        }
        fn group<T, S, P>(self, keyed: KeyedStream<T, S, P>) -> Self::Of<T, S, P> {
            TriggeredStream::new(keyed, self, DefaultTrigger(WindowAssigner::time(&self)))
        }
    }
)* } }
triggered!(SessionWindows, ProcessingTimeWindows, GlobalWindows);

impl<F: ClonedToSubtasks> Windows for DynamicSessionWindows<F> {
    type Of<T, S, P> = TriggeredStream<T, S, P, Self, DefaultTrigger>;
    fn time(&self) -> WindowTime {
        self.time()
    }
    fn group<T, S, P>(self, keyed: KeyedStream<T, S, P>) -> Self::Of<T, S, P> {
        let time = self.time();
        TriggeredStream::new(keyed, self, DefaultTrigger(time))
    }
}

/// Fires at the window's end, by whose time the windows are; windows without an end never fire.
#[derive(Clone, Copy, Debug)]
pub struct DefaultTrigger(WindowTime);

impl DefaultTrigger {
    pub(crate) fn of(time: WindowTime) -> Self {
        Self(time)
    }
}

impl<T> Trigger<T> for DefaultTrigger {
    type State = ();
    fn on_element(
        &mut self,
        item: &T,
        at: Time,
        window: &TimeWindow,
        state: &mut (),
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        match self.0 {
            WindowTime::Event => EventTimeTrigger.on_element(item, at, window, state, ctx),
            WindowTime::Processing => ProcessingTimeTrigger.on_element(item, at, window, state, ctx),
            WindowTime::Never => TriggerResult::Continue,
        }
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut (),
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        Trigger::<T>::on_event_time(&mut EventTimeTrigger, at, window, state, ctx)
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut (),
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        Trigger::<T>::on_processing_time(&mut ProcessingTimeTrigger, at, window, state, ctx)
    }
    fn on_merge(&mut self, window: &TimeWindow, state: &mut (), other: (), ctx: &mut TriggerContext) {
        match self.0 {
            WindowTime::Event => Trigger::<T>::on_merge(&mut EventTimeTrigger, window, state, other, ctx),
            WindowTime::Processing => Trigger::<T>::on_merge(&mut ProcessingTimeTrigger, window, state, other, ctx),
            WindowTime::Never => {}
        }
    }
}

/// A trigger that cannot be is an error of the plan.
#[track_caller]
pub(crate) fn checked<T, G: Trigger<T>>(plan: &PlanBuilder, trigger: &G) {
    plan.checked(trigger.check());
}

/// A keyed stream that is grouped by windows of any kind.
#[must_use = "windows do nothing until they are aggregated"]
pub struct TriggeredStream<T, S, P, W, G> {
    keyed: KeyedStream<T, S, P>,
    assigner: W,
    trigger: G,
    lateness: Time,
    late: Option<OutputTag<T>>,
}

/// What comes out of them.
pub(crate) type Triggered<T, S, W, G, V, F, R> = DataStream<
    <R as WindowFunction<<S as KeySelect<T>>::Key, <F as Gather<T>>::Acc>>::Out,
    Then<Inlet<T>, TriggeredSpec<T, W, G, V, F, S, R>>,
>;

impl<T, S, P, W, G> TriggeredStream<T, S, P, W, G> {
    pub(crate) fn new(keyed: KeyedStream<T, S, P>, assigner: W, trigger: G) -> Self {
        Self { keyed, assigner, trigger, lateness: 0, late: None }
    }

    pub(crate) fn late(self, lateness: Time, late: Option<OutputTag<T>>) -> Self {
        Self { lateness, late, ..self }
    }

    /// When windows fire, instead of at their end.
    #[track_caller]
    pub fn trigger<H: Trigger<T>>(self, trigger: H) -> TriggeredStream<T, S, P, W, H> {
        checked(&self.keyed.up.plan, &trigger);
        let Self { keyed, assigner, lateness, late, .. } = self;
        TriggeredStream { keyed, assigner, trigger, lateness, late }
    }

    /// See [`WindowedStream::allowed_lateness`].
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness: Time::try_from(lateness.as_millis()).unwrap_or(Time::MAX), ..self }
    }

    /// Records that come too late for all their windows go to this tag: `stream.side_output(&tag)` of what comes out.
    pub fn side_output_late_data(self, tag: &OutputTag<T>) -> Self {
        Self { late: Some(tag.clone()), ..self }
    }

    /// What is dropped of a window before it fires. All its records are kept until then.
    pub fn evictor<V: Evictor<Vec<(Time, T)>>>(self, evictor: V) -> EvictedStream<T, S, P, W, G, V> {
        EvictedStream::new(self, evictor)
    }
}

impl<T, S, P, W, G> TriggeredStream<T, S, P, W, G>
where
    T: Data + Clone,
    S: KeySelect<T>,
    P: Pipe<Item = T>,
    W: RecordAssigner<T>,
    G: Trigger<T>,
{
    /// How many records of each key in each window.
    #[track_caller]
    pub fn count(self) -> Triggered<T, S, W, G, NoEvictor, Untimed<Count>, WithWindow> {
        self.with("window-count", NoEvictor, Untimed(Count), WithWindow)
    }

    /// The sum of what the function gives, of each key in each window.
    #[track_caller]
    pub fn sum<N: Data + Clone + AddAssign, F: FnMut(T) -> N + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Triggered<T, S, W, G, NoEvictor, Untimed<Sum<F>>, WithWindow> {
        self.with("window-sum", NoEvictor, Untimed(Sum(f)), WithWindow)
    }

    /// One record of each key and window, into which the function merges the others.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Triggered<T, S, W, G, NoEvictor, Untimed<Reduce<F>>, WithWindow> {
        self.with("window-reduce", NoEvictor, Untimed(Reduce(f)), WithWindow)
    }

    /// [`TriggeredStream::reduce`], and a [`WindowFunction`] of what it gives.
    #[track_caller]
    pub fn reduce_with<F, R>(self, f: F, function: R) -> Triggered<T, S, W, G, NoEvictor, Untimed<Reduce<F>>, R>
    where
        F: FnMut(&mut T, T) + ClonedToSubtasks,
        R: WindowFunction<S::Key, T>,
    {
        self.with("window-reduce", NoEvictor, Untimed(Reduce(f)), function)
    }

    /// An aggregate of your own for each key and window.
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(
        self,
        f: A,
    ) -> Triggered<T, S, W, G, NoEvictor, Untimed<Aggregating<A>>, Aggregated<A, T>> {
        self.with("window-aggregate", NoEvictor, Untimed(Aggregating(f.clone())), Aggregated::new(f))
    }

    /// [`TriggeredStream::aggregate`], and a [`WindowFunction`] of what it gives.
    #[track_caller]
    pub fn aggregate_with<A: AggregateFunction<T>, R: WindowFunction<S::Key, A::Out>>(
        self,
        f: A,
        function: R,
    ) -> Triggered<T, S, W, G, NoEvictor, Untimed<Aggregating<A>>, AggregatedWith<A, T, R>> {
        let result = AggregatedWith::new(f.clone(), function);
        self.with("window-aggregate", NoEvictor, Untimed(Aggregating(f)), result)
    }

    /// A function of all records of each key and window, in the order in which they came; of sessions that became one,
    /// one after the other.
    #[track_caller]
    pub fn apply<I, F>(self, f: F) -> Triggered<T, S, W, G, NoEvictor, Untimed<ToList>, Apply<F, I>>
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<T>) -> I + ClonedToSubtasks,
    {
        self.with("window-apply", NoEvictor, Untimed(ToList), Apply::new(f))
    }

    /// A [`WindowFunction`] of all records of each key and window, in the order in which they came: for functions that
    /// ask for time, and have side outputs, states or metrics.
    #[track_caller]
    pub fn process<F: WindowFunction<S::Key, Vec<T>>>(
        self,
        f: F,
    ) -> Triggered<T, S, W, G, NoEvictor, Untimed<ToList>, F> {
        self.with("window-process", NoEvictor, Untimed(ToList), f)
    }

    #[track_caller]
    pub(crate) fn with<V, F, R>(
        self,
        kind: &'static str,
        evictor: V,
        fold: F,
        result: R,
    ) -> Triggered<T, S, W, G, V, F, R>
    where
        V: Evictor<F::Acc>,
        F: Gather<T>,
        R: WindowFunction<S::Key, F::Acc>,
    {
        let Self { keyed, assigner, trigger, lateness, late } = self;
        let (up, key) = keyed.parts();
        let (plan, timed) = (up.plan.clone(), up.timed.travels());
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        let edge = plan.edge::<T>(up.op.vertex, to, Partitioner::Hash, false);
        close(&plan, up.op.vertex, up.pipe, KeyRoute { edge, timed, key: key.clone() });
        let inlet = add_gate(&plan, to, vec![edge], op);
        let (sides, gives) = (Sides::of_late(late.as_ref(), R::WRITES), Timed::of_windows(assigner.time()));
        let spec =
            TriggeredSpec { assigner, trigger, evictor, lateness, fold, key, result, late, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), gives).with_sides(sides)
    }
}
