//! What a window gives out when its time has come.

use super::TimeWindow;
use crate::{fold::AggregateFunction, metrics::Metrics, ops::ClonedToSubtasks};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// Makes results of what a window gathered of a key.
pub trait WindowFunction<K, A>: Clone + Send + 'static {
    /// What comes out.
    type Out: 'static;
    /// Results are taken one by one while there is room for them.
    type Results: Iterator<Item = Self::Out> + 'static;
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// Of one key and window.
    fn apply(&mut self, key: K, window: TimeWindow, gathered: A) -> Self::Results;
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
    #[inline(always)]
    fn apply(&mut self, key: K, window: TimeWindow, gathered: A) -> Self::Results {
        Some(Windowed { key, window, value: gathered }).into_iter()
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
    #[inline(always)]
    fn apply(&mut self, key: K, window: TimeWindow, gathered: A) -> I::IntoIter {
        (self.0)(key, window, gathered).into_iter()
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
    #[inline(always)]
    fn apply(&mut self, key: K, window: TimeWindow, gathered: A::Acc) -> Self::Results {
        Some(Windowed { key, window, value: self.0.result(gathered) }).into_iter()
    }
}
