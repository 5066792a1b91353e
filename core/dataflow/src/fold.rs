//! Associative aggregation by key: what an aggregate is, and the usual ones. Its operators come in two halves: before the
//! exchange records of one key are combined, behind it what arrives is merged.

mod combine;
mod kept;
mod merge;
mod ordered;

pub use combine::{Combine, CombineOp, CountKeys, CountKeysOp, Keys};
pub use merge::{Merge, MergeOp, Pairs, Results, Values, Yield};
pub use ordered::{FoldOp, FoldSpec};

use crate::{key::Data, ops::ClonedToSubtasks};
use std::{marker::PhantomData, ops::AddAssign};

/// An associative aggregate.
pub trait Fold<T>: Clone + Send + 'static {
    /// What is gathered.
    type Acc: Data + Clone;
    /// Of one record.
    fn lift(&mut self, item: T) -> Self::Acc;
    /// Adds one record.
    #[inline(always)]
    fn add(&mut self, acc: &mut Self::Acc, item: T) {
        let more = self.lift(item);
        self.merge(acc, more);
    }
    /// Adds what was gathered elsewhere.
    fn merge(&mut self, acc: &mut Self::Acc, more: Self::Acc);
}

/// Of pairs of a key and what was gathered of it elsewhere.
pub struct Gathered<F, T>(pub F, PhantomData<fn(T)>);

// Not derived: records need no clones.
impl<F: Clone, T> Clone for Gathered<F, T> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl<F, T> Gathered<F, T> {
    /// By this aggregate.
    pub fn new(fold: F) -> Self {
        Self(fold, PhantomData)
    }
}

impl<K: 'static, T: 'static, F: Fold<T>> Fold<(K, F::Acc)> for Gathered<F, T> {
    type Acc = F::Acc;
    #[inline(always)]
    fn lift(&mut self, item: (K, F::Acc)) -> F::Acc {
        item.1
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut F::Acc, more: F::Acc) {
        self.0.merge(acc, more);
    }
}

/// An aggregate of your own: what is gathered begins as `create` has it, takes records and others of its kind, and gives
/// a result.
pub trait AggregateFunction<T>: Clone + Send + 'static {
    /// What is gathered.
    type Acc: Data + Clone;
    /// What comes of it.
    type Out: 'static;
    /// Of nothing.
    fn create(&self) -> Self::Acc;
    /// Adds one record.
    fn add(&mut self, acc: &mut Self::Acc, item: T);
    /// Adds what was gathered elsewhere, in no order.
    fn merge(&mut self, acc: &mut Self::Acc, more: Self::Acc);
    /// What came of it.
    fn result(&mut self, acc: Self::Acc) -> Self::Out;
}

/// An [`AggregateFunction`] as a [`Fold`].
#[derive(Clone)]
pub struct Aggregating<A>(pub A);
impl<T, A: AggregateFunction<T>> Fold<T> for Aggregating<A> {
    type Acc = A::Acc;
    #[inline(always)]
    fn lift(&mut self, item: T) -> A::Acc {
        let mut acc = self.0.create();
        self.0.add(&mut acc, item);
        acc
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut A::Acc, item: T) {
        self.0.add(acc, item);
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut A::Acc, more: A::Acc) {
        self.0.merge(acc, more);
    }
}

/// All records, in the order in which they come.
#[derive(Clone, Copy)]
pub struct ToList;
impl<T: Data + Clone> Fold<T> for ToList {
    type Acc = Vec<T>;
    #[inline(always)]
    fn lift(&mut self, item: T) -> Vec<T> {
        vec![item]
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut Vec<T>, item: T) {
        acc.push(item);
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut Vec<T>, mut more: Vec<T>) {
        acc.append(&mut more);
    }
}

/// How many.
#[derive(Clone, Copy)]
pub struct Count;
impl<T> Fold<T> for Count {
    type Acc = u64;
    #[inline(always)]
    fn lift(&mut self, _: T) -> u64 {
        1
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut u64, _: T) {
        *acc += 1;
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut u64, more: u64) {
        *acc += more;
    }
}

/// The greatest, or the least, of what a function gives.
#[derive(Clone)]
pub struct Extreme<F> {
    /// Gives what is compared.
    pub f: F,
    /// The greatest, else the least.
    pub greatest: bool,
}
impl<T, V: Data + Clone + Ord, F: FnMut(T) -> V + ClonedToSubtasks> Fold<T> for Extreme<F> {
    type Acc = V;
    #[inline(always)]
    fn lift(&mut self, item: T) -> V {
        (self.f)(item)
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut V, more: V) {
        if (more > *acc) == self.greatest && more != *acc {
            *acc = more;
        }
    }
}

/// The sum of what a function gives.
#[derive(Clone)]
pub struct Sum<F>(pub F);
impl<T, V: Data + Clone + AddAssign, F: FnMut(T) -> V + ClonedToSubtasks> Fold<T> for Sum<F> {
    type Acc = V;
    #[inline(always)]
    fn lift(&mut self, item: T) -> V {
        (self.0)(item)
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut V, more: V) {
        *acc += more;
    }
}

/// What a function makes of two.
#[derive(Clone)]
pub struct Reduce<F>(pub F);
impl<T: Data + Clone, F: FnMut(&mut T, T) + ClonedToSubtasks> Fold<T> for Reduce<F> {
    type Acc = T;
    #[inline(always)]
    fn lift(&mut self, item: T) -> T {
        item
    }
    #[inline(always)]
    fn merge(&mut self, acc: &mut T, more: T) {
        (self.0)(acc, more);
    }
}
