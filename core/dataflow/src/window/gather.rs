//! What a window of any kind gathers of its records: an aggregate of them, or all of them with their times, so that an
//! evictor can choose.

use super::{WindowContext, WindowFunction, WindowStates};
use crate::{batch::Time, build::OpCx, fold::Fold, key::Data, metrics::Metrics};
use std::{iter::Flatten, marker::PhantomData, option};
use thalweg_model::TaskFailure;

/// An aggregate of records and their times.
pub trait Gather<T>: Clone + Send + 'static {
    /// What is gathered.
    type Acc: Data + Clone;
    /// Of one record.
    fn lift(&mut self, at: Time, item: T) -> Self::Acc;
    /// Adds one record.
    fn add(&mut self, acc: &mut Self::Acc, at: Time, item: T);
    /// Adds what another window gathered that became part of this one.
    fn merge(&mut self, acc: &mut Self::Acc, more: Self::Acc);
}

/// A [`Fold`], which does not see times.
#[derive(Clone, Copy)]
pub struct Untimed<F>(pub F);

impl<T, F: Fold<T>> Gather<T> for Untimed<F> {
    type Acc = F::Acc;
    #[inline(always)]
    fn lift(&mut self, _: Time, item: T) -> F::Acc {
        self.0.lift(item)
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut F::Acc, _: Time, item: T) {
        self.0.add(acc, item);
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut F::Acc, more: F::Acc) {
        self.0.merge(acc, more);
    }
}

/// All records with their times, in the order in which they come.
#[derive(Clone, Copy)]
pub struct WithTimes;

impl<T: Data + Clone> Gather<T> for WithTimes {
    type Acc = Vec<(Time, T)>;
    #[inline(always)]
    fn lift(&mut self, at: Time, item: T) -> Self::Acc {
        vec![(at, item)]
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut Self::Acc, at: Time, item: T) {
        acc.push((at, item));
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut Self::Acc, mut more: Self::Acc) {
        acc.append(&mut more);
    }
}

/// An aggregate of the records that an evictor has left, and what a function makes of it. Where nothing is left nothing
/// comes out.
pub struct OfLeft<T, F, R>(F, R, PhantomData<fn(T)>);

impl<T, F, R> OfLeft<T, F, R> {
    /// By these two.
    pub fn new(fold: F, function: R) -> Self {
        Self(fold, function, PhantomData)
    }
}

impl<T, F: Clone, R: Clone> Clone for OfLeft<T, F, R> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone(), self.1.clone())
    }
}

impl<K, T, F, R> WindowFunction<K, Vec<(Time, T)>> for OfLeft<T, F, R>
where
    T: 'static,
    F: Fold<T>,
    R: WindowFunction<K, F::Acc>,
{
    type Out = R::Out;
    type Results = Flatten<option::IntoIter<R::Results>>;
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
    fn apply(&mut self, left: Vec<(Time, T)>, ctx: WindowContext<'_, K>) -> Self::Results {
        let mut left = left.into_iter().map(|(_, item)| item);
        let first = left.next().map(|item| self.0.lift(item));
        let all = first.map(|mut acc| {
            left.for_each(|item| self.0.add(&mut acc, item));
            acc
        });
        all.map(|acc| self.1.apply(acc, ctx)).into_iter().flatten()
    }
}
