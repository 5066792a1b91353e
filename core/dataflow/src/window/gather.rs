//! What a window of any kind gathers of its records: an aggregate of them, or all of them with their times, so that an
//! evictor can choose.

use crate::{batch::Time, fold::Fold, key::Data};

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
