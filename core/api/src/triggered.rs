//! Keyed streams whose windows are of any kind, with triggers and evictors.

use crate::{DataStream, KeyedStream, WindowedStream};
use std::{ops::AddAssign, time::Duration};
use thalweg_dataflow::{
    Data, OpCx, Operator, OutputTag, Push, TaskFailure, Time,
    fold::{AggregateFunction, Aggregating, Count, Fold, Reduce, Sum, ToList},
    gate_task::add_gate,
    key::KeySelect,
    ops::ClonedToSubtasks,
    pipe::{Inlet, Pipe, Then, Transform, close},
    routes::KeyRoute,
    side::Sides,
    window::{
        Aggregated, Apply, DynamicSessionWindows, EventTimeTrigger, Evictor, GlobalWindows, NoEvictor, OfTimedRecords,
        ProcessingTimeTrigger, ProcessingTimeWindows, RecordAssigner, SessionWindows, TimeWindow, TimeWindows, Trigger,
        TriggerContext, TriggerResult, TriggeredSpec, WindowAssigner, WindowFunction, WindowTime, WithWindow,
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
type Triggered<T, S, W, G, V, F, R> = DataStream<
    <R as WindowFunction<<S as KeySelect<T>>::Key, <F as Fold<T>>::Acc>>::Out,
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
    pub fn trigger<H: Trigger<T>>(self, trigger: H) -> TriggeredStream<T, S, P, W, H> {
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
        EvictedStream { windows: self, evictor }
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
    pub fn count(self) -> Triggered<T, S, W, G, NoEvictor, Count, WithWindow> {
        self.with("window-count", NoEvictor, Count, WithWindow)
    }

    /// The sum of what the function gives, of each key in each window.
    #[track_caller]
    pub fn sum<N: Data + Clone + AddAssign, F: FnMut(T) -> N + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Triggered<T, S, W, G, NoEvictor, Sum<F>, WithWindow> {
        self.with("window-sum", NoEvictor, Sum(f), WithWindow)
    }

    /// One record of each key and window, into which the function merges the others.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Triggered<T, S, W, G, NoEvictor, Reduce<F>, WithWindow> {
        self.with("window-reduce", NoEvictor, Reduce(f), WithWindow)
    }

    /// An aggregate of your own for each key and window.
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(
        self,
        f: A,
    ) -> Triggered<T, S, W, G, NoEvictor, Aggregating<A>, Aggregated<A, T>> {
        self.with("window-aggregate", NoEvictor, Aggregating(f.clone()), Aggregated::new(f))
    }

    /// A function of all records of each key and window, in the order in which they came.
    #[track_caller]
    pub fn apply<I, F>(self, f: F) -> Triggered<T, S, W, G, NoEvictor, ToList, Apply<F, I>>
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<T>) -> I + ClonedToSubtasks,
    {
        self.with("window-apply", NoEvictor, ToList, Apply::new(f))
    }

    /// A [`WindowFunction`] of all records of each key and window, in the order in which they came: for functions with
    /// metrics.
    #[track_caller]
    pub fn process<F: WindowFunction<S::Key, Vec<T>>>(self, f: F) -> Triggered<T, S, W, G, NoEvictor, ToList, F> {
        self.with("window-process", NoEvictor, ToList, f)
    }

    #[track_caller]
    fn with<V, F, R>(self, kind: &'static str, evictor: V, fold: F, result: R) -> Triggered<T, S, W, G, V, F, R>
    where
        V: Evictor<F::Acc>,
        F: Fold<T>,
        R: WindowFunction<S::Key, F::Acc>,
    {
        let Self { keyed, assigner, trigger, lateness, late } = self;
        let (up, key) = keyed.parts();
        let (plan, timed) = (up.plan.clone(), up.timed);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        let edge = plan.edge::<T>(up.op.vertex, to, Partitioner::Hash, false);
        close(&plan, up.op.vertex, up.pipe, KeyRoute { edge, timed, key: key.clone() });
        let inlet = add_gate(&plan, to, vec![edge], op);
        let sides = Sides::default();
        let spec =
            TriggeredSpec { assigner, trigger, evictor, lateness, fold, key, result, late, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), true).with_sides(sides)
    }
}

/// Windows from which records are dropped before they fire.
#[must_use = "windows do nothing until they have a function"]
pub struct EvictedStream<T, S, P, W, G, V> {
    windows: TriggeredStream<T, S, P, W, G>,
    evictor: V,
}

/// Records with their times.
#[derive(Clone, Copy)]
pub struct WithTime;

impl<T: 'static> Transform<T> for WithTime {
    type Out = (Time, T);
    type Op = Self;
    fn open(self, _: &OpCx) -> Result<Self, TaskFailure> {
        Ok(self)
    }
}

impl<T: 'static> Operator<T> for WithTime {
    type Out = (Time, T);
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<(Time, T)>) {
        out.push(at, (at, item));
    }
}

/// The key of a record with its time.
#[derive(Clone)]
pub struct OfTimed<S>(S);

impl<T: 'static, S: KeySelect<T>> KeySelect<(Time, T)> for OfTimed<S> {
    type Key = S::Key;
    fn hash(&self, item: &(Time, T)) -> u64 {
        self.0.hash(&item.1)
    }
    fn same(&self, item: &(Time, T), key: &S::Key) -> bool {
        self.0.same(&item.1, key)
    }
    fn own(&self, item: &(Time, T)) -> S::Key {
        self.0.own(&item.1)
    }
}

/// A trigger of records without their times.
#[derive(Clone)]
pub struct OfUntimed<G, T>(G, std::marker::PhantomData<fn(T)>);

impl<T: Clone + 'static, G: Trigger<T>> Trigger<(Time, T)> for OfUntimed<G, T> {
    type State = G::State;
    fn on_element(
        &mut self,
        item: &(Time, T),
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        self.0.on_element(&item.1, at, window, state, ctx)
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        self.0.on_event_time(at, window, state, ctx)
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        self.0.on_processing_time(at, window, state, ctx)
    }
    fn on_merge(&mut self, window: &TimeWindow, state: &mut G::State, other: G::State, ctx: &mut TriggerContext) {
        self.0.on_merge(window, state, other, ctx);
    }
}

impl<T, S, P, W, G, V> EvictedStream<T, S, P, W, G, V>
where
    T: Data + Clone,
    S: KeySelect<T>,
    P: Pipe<Item = T>,
    W: RecordAssigner<T>,
    G: Trigger<T>,
    V: Evictor<Vec<(Time, T)>>,
{
    /// A function of the records that are left of each key and window, each with its time.
    #[track_caller]
    pub fn apply<I, F>(
        self,
        f: F,
    ) -> Triggered<(Time, T), OfTimed<S>, OfTimedRecords<W>, OfUntimed<G, T>, V, ToList, Apply<F, I>>
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<(Time, T)>) -> I + ClonedToSubtasks,
    {
        let TriggeredStream { keyed, assigner, trigger, lateness, .. } = self.windows;
        let (up, key) = keyed.parts();
        let keyed = KeyedStream::new(up.apply("with-time", WithTime), OfTimed(key));
        let (assigner, trigger) = (OfTimedRecords(assigner), OfUntimed(trigger, std::marker::PhantomData));
        let windows = TriggeredStream { keyed, assigner, trigger, lateness, late: None };
        windows.with("window-apply", self.evictor, ToList, Apply::new(f))
    }
}
