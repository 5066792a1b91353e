//! Keyed streams that are grouped by windows.

use crate::{DataStream, EvictedStream, KeyedStream, TriggeredStream, timed::Timed, triggered::checked};
use std::{ops::AddAssign, time::Duration};
use thalweg_dataflow::{
    Data, OutputTag, Time,
    fold::{AggregateFunction, Aggregating, Count, Fold, Gathered, Reduce, Sum, ToList},
    gate_task::add_gate,
    key::{ByFirst, KeySelect},
    ops::ClonedToSubtasks,
    pipe::{Inlet, Pipe, Then, close},
    routes::KeyRoute,
    side::Sides,
    window::{
        Aggregated, AggregatedWith, Apply, EventTimeTrigger, Evictor, TimeWindow, TimeWindows, Trigger, WindowCombine,
        WindowFunction, WindowSpec, WithWindow,
    },
};
use thalweg_model::{Partitioner, VertexRole};

/// A keyed stream that is grouped by windows of event time. The result of a window comes when the watermark has passed
/// its end; in batch mode, when the input has ended.
#[must_use = "windows do nothing until they are aggregated"]
pub struct WindowedStream<T, S, P> {
    keyed: KeyedStream<T, S, P>,
    windows: TimeWindows,
    lateness: Time,
    late: Option<OutputTag<T>>,
}

/// What comes out of windows that are gathered before the exchange.
type Combined<T, S, F, R> = DataStream<
    <R as WindowFunction<<S as KeySelect<T>>::Key, <F as Fold<T>>::Acc>>::Out,
    Then<
        Inlet<(<S as KeySelect<T>>::Key, <F as Fold<T>>::Acc)>,
        WindowSpec<(<S as KeySelect<T>>::Key, <F as Fold<T>>::Acc), Gathered<F, T>, ByFirst, R>,
    >,
>;

impl<T, S, P> WindowedStream<T, S, P> {
    pub(crate) fn new(keyed: KeyedStream<T, S, P>, windows: TimeWindows) -> Self {
        Self { keyed, windows, lateness: 0, late: None }
    }

    /// Records that come so much later than their window's end give its result once more, changed; ms precision. State
    /// is kept for so long.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness: Time::try_from(lateness.as_millis()).unwrap_or(Time::MAX), ..self }
    }
}

impl<T: 'static, S: KeySelect<T>, P: Pipe<Item = T>> WindowedStream<T, S, P> {
    /// When windows fire, instead of at their end alone.
    #[track_caller]
    pub fn trigger<G: Trigger<T>>(self, trigger: G) -> TriggeredStream<T, S, P, TimeWindows, G> {
        checked(&self.keyed.up.plan, &trigger);
        TriggeredStream::new(self.keyed, self.windows, trigger).late(self.lateness, self.late)
    }

    /// What is dropped of a window before it fires. All its records are kept until then.
    pub fn evictor<V: Evictor<Vec<(Time, T)>>>(
        self,
        evictor: V,
    ) -> EvictedStream<T, S, P, TimeWindows, EventTimeTrigger, V> {
        self.trigger(EventTimeTrigger).evictor(evictor)
    }

    #[track_caller]
    fn combined<F: Fold<T>, R: WindowFunction<S::Key, F::Acc>>(
        self,
        kind: &'static str,
        fold: F,
        result: R,
    ) -> Combined<T, S, F, R> {
        let (up, windows) = (self.keyed.up.open(), self.windows);
        let plan = up.plan.clone();
        let before = plan.operator(up.op.vertex, "window-combine", &["gathered"]);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        plan.set_companion(before, op, "/combine");
        let edge = plan.edge::<(S::Key, F::Acc)>(up.op.vertex, to, Partitioner::Hash, false);
        let combine = WindowCombine { windows, fold: fold.clone(), key: self.keyed.key, gathers: self.keyed.combines };
        let pipe = Then::new(up.pipe, combine, before.op);
        close(&plan, up.op.vertex, pipe, KeyRoute { edge, timed: true, key: ByFirst });
        let inlet = add_gate(&plan, to, vec![edge], op);
        let sides = Sides::of_late::<T>(None, R::WRITES);
        let spec = WindowSpec {
            windows,
            lateness: self.lateness,
            fold: Gathered::new(fold),
            key: ByFirst,
            result,
            late: None,
            sides: sides.clone(),
        };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), Timed::Event).with_sides(sides)
    }

    /// How many records of each key in each window.
    #[track_caller]
    pub fn count(self) -> Combined<T, S, Count, WithWindow> {
        self.combined("window-count", Count, WithWindow)
    }

    /// The sum of what the function gives, of each key in each window.
    #[track_caller]
    pub fn sum<V: Data + Clone + AddAssign, F: FnMut(T) -> V + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Combined<T, S, Sum<F>, WithWindow> {
        self.combined("window-sum", Sum(f), WithWindow)
    }

    /// One record of each key and window, into which the function merges the others. It must be associative.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(self, f: F) -> Combined<T, S, Reduce<F>, WithWindow>
    where
        T: Data + Clone,
    {
        self.combined("window-reduce", Reduce(f), WithWindow)
    }

    /// An aggregate of your own for each key and window.
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(self, f: A) -> Combined<T, S, Aggregating<A>, Aggregated<A, T>> {
        self.combined("window-aggregate", Aggregating(f.clone()), Aggregated::new(f))
    }

    /// [`WindowedStream::reduce`], and a [`WindowFunction`] of what it gives: records are combined before they travel,
    /// and the function sees key, window and one record.
    #[track_caller]
    pub fn reduce_with<F, R>(self, f: F, function: R) -> Combined<T, S, Reduce<F>, R>
    where
        T: Data + Clone,
        F: FnMut(&mut T, T) + ClonedToSubtasks,
        R: WindowFunction<S::Key, T>,
    {
        self.combined("window-reduce", Reduce(f), function)
    }

    /// [`WindowedStream::aggregate`], and a [`WindowFunction`] of what it gives: records are combined before they
    /// travel, and the function sees key, window and one result.
    #[track_caller]
    pub fn aggregate_with<A: AggregateFunction<T>, R: WindowFunction<S::Key, A::Out>>(
        self,
        f: A,
        function: R,
    ) -> Combined<T, S, Aggregating<A>, AggregatedWith<A, T, R>> {
        self.combined("window-aggregate", Aggregating(f.clone()), AggregatedWith::new(f, function))
    }

    /// A function of all records of each key and window, in no order. They are kept until the window's time has come:
    /// aggregate them instead where that is possible.
    #[track_caller]
    pub fn apply<I, F>(self, f: F) -> DataStream<I::Item, Then<Inlet<T>, WindowSpec<T, ToList, S, Apply<F, I>>>>
    where
        T: Data + Clone,
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<T>) -> I + ClonedToSubtasks,
    {
        self.whole("window-apply", ToList, Apply::new(f))
    }

    /// A [`WindowFunction`] of all records of each key and window, in no order: for functions that ask for
    /// time, and have side outputs, states or metrics. See
    /// [`WindowedStream::apply`].
    #[track_caller]
    pub fn process<F: WindowFunction<S::Key, Vec<T>>>(self, f: F) -> Whole<T, S, ToList, F>
    where
        T: Data + Clone,
    {
        self.whole("window-process", ToList, f)
    }

    /// Records that come too late for all their windows go to this tag: `stream.side_output(&tag)` of what comes out.
    pub fn side_output_late_data(self, tag: &OutputTag<T>) -> LateAware<T, S, P> {
        LateAware(Self { late: Some(tag.clone()), ..self })
    }

    /// Records cross the exchange as they are.
    #[track_caller]
    fn whole<F: Fold<T>, R: WindowFunction<S::Key, F::Acc>>(
        self,
        kind: &'static str,
        fold: F,
        result: R,
    ) -> DataStream<R::Out, Then<Inlet<T>, WindowSpec<T, F, S, R>>>
    where
        T: Data,
    {
        let (up, key) = (self.keyed.up, self.keyed.key);
        let plan = up.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        let edge = plan.edge::<T>(up.op.vertex, to, Partitioner::Hash, false);
        close(&plan, up.op.vertex, up.pipe, KeyRoute { edge, timed: true, key: key.clone() });
        let inlet = add_gate(&plan, to, vec![edge], op);
        let (windows, lateness, late) = (self.windows, self.lateness, self.late);
        let sides = Sides::of_late(late.as_ref(), R::WRITES);
        let spec = WindowSpec { windows, lateness, fold, key, result, late, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), Timed::Event).with_sides(sides)
    }
}

/// Windows whose late records have a stream of their own. Records cross the exchange one by one, so that what is late
/// can be given back as it was.
#[must_use = "windows do nothing until they are aggregated"]
pub struct LateAware<T, S, P>(WindowedStream<T, S, P>);

/// What comes out of them.
type Whole<T, S, F, R> = DataStream<
    <R as WindowFunction<<S as KeySelect<T>>::Key, <F as Fold<T>>::Acc>>::Out,
    Then<Inlet<T>, WindowSpec<T, F, S, R>>,
>;

impl<T: Data, S: KeySelect<T>, P: Pipe<Item = T>> LateAware<T, S, P> {
    /// See [`WindowedStream::allowed_lateness`].
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self(self.0.allowed_lateness(lateness))
    }

    /// See [`WindowedStream::trigger`].
    #[track_caller]
    pub fn trigger<G: Trigger<T>>(self, trigger: G) -> TriggeredStream<T, S, P, TimeWindows, G> {
        self.0.trigger(trigger)
    }

    /// See [`WindowedStream::evictor`].
    pub fn evictor<V: Evictor<Vec<(Time, T)>>>(
        self,
        evictor: V,
    ) -> EvictedStream<T, S, P, TimeWindows, EventTimeTrigger, V> {
        self.0.evictor(evictor)
    }

    /// See [`WindowedStream::count`].
    #[track_caller]
    pub fn count(self) -> Whole<T, S, Count, WithWindow> {
        self.0.whole("window-count", Count, WithWindow)
    }

    /// See [`WindowedStream::sum`].
    #[track_caller]
    pub fn sum<V: Data + Clone + AddAssign, F: FnMut(T) -> V + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Whole<T, S, Sum<F>, WithWindow> {
        self.0.whole("window-sum", Sum(f), WithWindow)
    }

    /// See [`WindowedStream::reduce`].
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(self, f: F) -> Whole<T, S, Reduce<F>, WithWindow>
    where
        T: Clone,
    {
        self.0.whole("window-reduce", Reduce(f), WithWindow)
    }

    /// See [`WindowedStream::aggregate`].
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(self, f: A) -> Whole<T, S, Aggregating<A>, Aggregated<A, T>> {
        self.0.whole("window-aggregate", Aggregating(f.clone()), Aggregated::new(f))
    }

    /// See [`WindowedStream::reduce_with`].
    #[track_caller]
    pub fn reduce_with<F, R>(self, f: F, function: R) -> Whole<T, S, Reduce<F>, R>
    where
        T: Clone,
        F: FnMut(&mut T, T) + ClonedToSubtasks,
        R: WindowFunction<S::Key, T>,
    {
        self.0.whole("window-reduce", Reduce(f), function)
    }

    /// See [`WindowedStream::aggregate_with`].
    #[track_caller]
    pub fn aggregate_with<A: AggregateFunction<T>, R: WindowFunction<S::Key, A::Out>>(
        self,
        f: A,
        function: R,
    ) -> Whole<T, S, Aggregating<A>, AggregatedWith<A, T, R>> {
        self.0.whole("window-aggregate", Aggregating(f.clone()), AggregatedWith::new(f, function))
    }

    /// See [`WindowedStream::apply`].
    #[track_caller]
    pub fn apply<I, F>(self, f: F) -> Whole<T, S, ToList, Apply<F, I>>
    where
        T: Clone,
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<T>) -> I + ClonedToSubtasks,
    {
        self.0.whole("window-apply", ToList, Apply::new(f))
    }

    /// A [`WindowFunction`] of all records of each key and window, in no order: for functions that ask for
    /// time, and have side outputs, states or metrics. See
    /// [`WindowedStream::apply`].
    #[track_caller]
    pub fn process<F: WindowFunction<S::Key, Vec<T>>>(self, f: F) -> Whole<T, S, ToList, F>
    where
        T: Clone,
    {
        self.0.whole("window-process", ToList, f)
    }
}
