//! Keyed streams whose windows lose records before they fire. All records of a window are kept until then: an evictor
//! chooses among them.

use crate::{TriggeredStream, triggered::Triggered};
use std::{ops::AddAssign, time::Duration};
use thalweg_dataflow::{
    Data, OutputTag, Time,
    fold::{AggregateFunction, Aggregating, Count, Reduce, Sum},
    key::KeySelect,
    ops::ClonedToSubtasks,
    pipe::Pipe,
    window::{
        Aggregated, AggregatedWith, Apply, Evictor, OfLeft, RecordAssigner, TimeWindow, Trigger, WindowFunction,
        WithTimes, WithWindow,
    },
};

/// Windows from which records are dropped before they fire.
#[must_use = "windows do nothing until they have a function"]
pub struct EvictedStream<T, S, P, W, G, V> {
    windows: TriggeredStream<T, S, P, W, G>,
    evictor: V,
}

/// What comes out of them.
type Evicted<T, S, W, G, V, R> = Triggered<T, S, W, G, V, WithTimes, R>;

impl<T, S, P, W, G, V> EvictedStream<T, S, P, W, G, V> {
    pub(crate) fn new(windows: TriggeredStream<T, S, P, W, G>, evictor: V) -> Self {
        Self { windows, evictor }
    }

    /// When windows fire, instead of at their end.
    #[track_caller]
    pub fn trigger<H: Trigger<T>>(self, trigger: H) -> EvictedStream<T, S, P, W, H, V> {
        EvictedStream { windows: self.windows.trigger(trigger), evictor: self.evictor }
    }

    /// See [`WindowedStream::allowed_lateness`](crate::WindowedStream::allowed_lateness).
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { windows: self.windows.allowed_lateness(lateness), ..self }
    }

    /// Records that come too late for all their windows go to this tag: `stream.side_output(&tag)` of what comes out.
    pub fn side_output_late_data(self, tag: &OutputTag<T>) -> Self {
        Self { windows: self.windows.side_output_late_data(tag), ..self }
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
    /// How many records are left of each key in each window; nothing where none is.
    #[track_caller]
    pub fn count(self) -> Evicted<T, S, W, G, V, OfLeft<T, Count, WithWindow>> {
        self.with("window-count", OfLeft::new(Count, WithWindow))
    }

    /// The sum of what the function gives of the records that are left; nothing where none is.
    #[track_caller]
    pub fn sum<N: Data + Clone + AddAssign, F: FnMut(T) -> N + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Evicted<T, S, W, G, V, OfLeft<T, Sum<F>, WithWindow>> {
        self.with("window-sum", OfLeft::new(Sum(f), WithWindow))
    }

    /// One record of each key and window, into which the function merges the others that are left, in the order in
    /// which they came; nothing where none is.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Evicted<T, S, W, G, V, OfLeft<T, Reduce<F>, WithWindow>> {
        self.with("window-reduce", OfLeft::new(Reduce(f), WithWindow))
    }

    /// [`EvictedStream::reduce`], and a [`WindowFunction`] of what it gives.
    #[track_caller]
    pub fn reduce_with<F, R>(self, f: F, function: R) -> Evicted<T, S, W, G, V, OfLeft<T, Reduce<F>, R>>
    where
        F: FnMut(&mut T, T) + ClonedToSubtasks,
        R: WindowFunction<S::Key, T>,
    {
        self.with("window-reduce", OfLeft::new(Reduce(f), function))
    }

    /// An aggregate of your own of the records that are left of each key and window; nothing where none is.
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(
        self,
        f: A,
    ) -> Evicted<T, S, W, G, V, OfLeft<T, Aggregating<A>, Aggregated<A, T>>> {
        self.with("window-aggregate", OfLeft::new(Aggregating(f.clone()), Aggregated::new(f)))
    }

    /// [`EvictedStream::aggregate`], and a [`WindowFunction`] of what it gives.
    #[track_caller]
    pub fn aggregate_with<A: AggregateFunction<T>, R: WindowFunction<S::Key, A::Out>>(
        self,
        f: A,
        function: R,
    ) -> Evicted<T, S, W, G, V, OfLeft<T, Aggregating<A>, AggregatedWith<A, T, R>>> {
        self.with("window-aggregate", OfLeft::new(Aggregating(f.clone()), AggregatedWith::new(f, function)))
    }

    /// A function of the records that are left of each key and window, each with its time; of none, where none is left.
    #[track_caller]
    pub fn apply<I, F>(self, f: F) -> Evicted<T, S, W, G, V, Apply<F, I>>
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<(Time, T)>) -> I + ClonedToSubtasks,
    {
        self.with("window-apply", Apply::new(f))
    }

    /// A [`WindowFunction`] of the records that are left of each key and window, each with its time; of none, where
    /// none is left.
    #[track_caller]
    pub fn process<F: WindowFunction<S::Key, Vec<(Time, T)>>>(self, f: F) -> Evicted<T, S, W, G, V, F> {
        self.with("window-process", f)
    }

    #[track_caller]
    fn with<R: WindowFunction<S::Key, Vec<(Time, T)>>>(
        self,
        kind: &'static str,
        result: R,
    ) -> Evicted<T, S, W, G, V, R> {
        self.windows.with(kind, self.evictor, WithTimes, result)
    }
}
