//! What a window gives out when its time has come.

use super::{TimeWindow, WindowContext, WindowStates};
use crate::{build::OpCx, fold::AggregateFunction, metrics::Metrics, ops::ClonedToSubtasks};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use thalweg_model::TaskFailure;

/// Makes results of what a window gathered of a key.
///
/// It is asked each time that the window fires. The context says of which key and window, and at which time; it has
/// side outputs and states.
pub trait WindowFunction<K, A>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    /// Results are taken one by one while there is room for them.
    type Results: Iterator<Item = Self::Out> + 'static;
    /// May it write to side outputs?
    #[doc(hidden)]
    const WRITES: bool = true;
    /// A subtask begins, on the thread that it will run on: connections are opened here.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// A subtask begins: a function that has named states adds each of them.
    fn states(&mut self, _states: &mut WindowStates<'_, K>) {}
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// Of one key and window.
    fn apply(&mut self, gathered: A, ctx: WindowContext<'_, K>) -> Self::Results;
}

/// A result with its key and its window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// Which key.
    pub key: K,
    /// Which window.
    pub window: TimeWindow,
    /// What came of it.
    pub value: V,
}

/// One [`Windowed`] for each key and window.
#[derive(Clone, Copy)]
pub struct WithWindow;

impl<K: 'static, A: 'static> WindowFunction<K, A> for WithWindow {
    type Out = Windowed<K, A>;
    type Results = std::option::IntoIter<Windowed<K, A>>;
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(&mut self, gathered: A, ctx: WindowContext<'_, K>) -> Self::Results {
        let window = ctx.window();
        Some(Windowed { key: ctx.into_key(), window, value: gathered }).into_iter()
    }
}

/// Any number of results by a function.
pub struct Apply<F, I>(F, PhantomData<fn() -> I>);

impl<F, I> Apply<F, I> {
    /// By this one.
    pub fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}

impl<F: Clone, I> Clone for Apply<F, I> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl<K, A, I, F> WindowFunction<K, A> for Apply<F, I>
where
    F: FnMut(K, TimeWindow, A) -> I + ClonedToSubtasks,
    I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
{
    type Out = I::Item;
    type Results = I::IntoIter;
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(&mut self, gathered: A, ctx: WindowContext<'_, K>) -> I::IntoIter {
        let window = ctx.window();
        (self.0)(ctx.into_key(), window, gathered).into_iter()
    }
}

/// What an [`AggregateFunction`] makes of what it gathered, with its key and window.
pub struct Aggregated<A, T>(A, PhantomData<fn(T)>);

impl<A, T> Aggregated<A, T> {
    /// By this one.
    pub fn new(f: A) -> Self {
        Self(f, PhantomData)
    }
}

impl<A: Clone, T> Clone for Aggregated<A, T> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl<K: 'static, T: 'static, A: AggregateFunction<T>> WindowFunction<K, A::Acc> for Aggregated<A, T> {
    type Out = Windowed<K, A::Out>;
    type Results = std::option::IntoIter<Self::Out>;
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(&mut self, gathered: A::Acc, ctx: WindowContext<'_, K>) -> Self::Results {
        WithWindow.apply(self.0.result(gathered), ctx)
    }
}

/// A function of what an [`AggregateFunction`] makes of what it gathered.
pub struct AggregatedWith<A, T, R>(A, R, PhantomData<fn(T)>);

impl<A, T, R> AggregatedWith<A, T, R> {
    /// By these two.
    pub fn new(f: A, function: R) -> Self {
        Self(f, function, PhantomData)
    }
}

impl<A: Clone, T, R: Clone> Clone for AggregatedWith<A, T, R> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone(), self.1.clone())
    }
}

impl<K, T, A, R> WindowFunction<K, A::Acc> for AggregatedWith<A, T, R>
where
    T: 'static,
    A: AggregateFunction<T>,
    R: WindowFunction<K, A::Out>,
{
    type Out = R::Out;
    type Results = R::Results;
    const WRITES: bool = R::WRITES;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.1.open(cx)
    }
    fn states(&mut self, states: &mut WindowStates<'_, K>) {
        self.1.states(states);
    }
    fn metrics(&mut self, metrics: &mut Metrics<'_>) {
        self.1.metrics(metrics);
    }
    #[inline(always)]
    fn apply(&mut self, gathered: A::Acc, ctx: WindowContext<'_, K>) -> Self::Results {
        self.1.apply(self.0.result(gathered), ctx)
    }
}
