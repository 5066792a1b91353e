//! The half of an aggregation that lies behind the exchange: the last value of each key in batch mode, each new value in
//! streaming mode.

use super::{AggregateFunction, Fold, kept::Kept};
use crate::{
    batch::{Batch, NO_TIME, Time},
    build::OpCx,
    key::{ByFirst, OwnedKey},
    keyed::keep,
    pipe::Transform,
    push::{Flow, Operator, Push},
    state::TILE,
    task::TaskCell,
};
use std::{marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// What is emitted of a row.
pub trait Yield<K, A>: Clone + Send + 'static {
    /// The record.
    type Out: 'static;
    /// Of a row that stays.
    fn of(&mut self, key: &K, acc: &A) -> Self::Out;
    /// Of a row that goes.
    fn last(&mut self, key: K, acc: A) -> Self::Out;
}

/// Key and value.
#[derive(Clone, Copy)]
pub struct Pairs;
impl<K: Clone + 'static, A: Clone + 'static> Yield<K, A> for Pairs {
    type Out = (K, A);
    #[inline(always)]
    fn of(&mut self, key: &K, acc: &A) -> (K, A) {
        (key.clone(), acc.clone())
    }
    fn last(&mut self, key: K, acc: A) -> (K, A) {
        (key, acc)
    }
}

/// The value alone.
#[derive(Clone, Copy)]
pub struct Values;
impl<K, A: Clone + 'static> Yield<K, A> for Values {
    type Out = A;
    #[inline(always)]
    fn of(&mut self, _: &K, acc: &A) -> A {
        acc.clone()
    }
    fn last(&mut self, _: K, acc: A) -> A {
        acc
    }
}

/// Key, and what an [`AggregateFunction`] makes of what it gathered.
pub struct Results<A, T>(A, PhantomData<fn(T)>);

impl<A, T> Results<A, T> {
    /// By this one.
    pub fn new(f: A) -> Self {
        Self(f, PhantomData)
    }
}

impl<A: Clone, T> Clone for Results<A, T> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl<K: Clone + 'static, T: 'static, A: AggregateFunction<T>> Yield<K, A::Acc> for Results<A, T> {
    type Out = (K, A::Out);
    #[inline(always)]
    fn of(&mut self, key: &K, acc: &A::Acc) -> (K, A::Out) {
        (key.clone(), self.0.result(acc.clone()))
    }
    fn last(&mut self, key: K, acc: A::Acc) -> (K, A::Out) {
        (key, self.0.result(acc))
    }
}

/// The half behind the exchange. In batch mode a value is given out with the latest time of its key's records.
pub struct Merge<F, T, Y> {
    fold: F,
    yields: Y,
    _t: PhantomData<fn() -> T>,
}

impl<F, T, Y> Merge<F, T, Y> {
    /// Of this aggregate; of a row it emits this.
    pub fn new(fold: F, yields: Y) -> Self {
        Self { fold, yields, _t: PhantomData }
    }
}

impl<F: Clone, T, Y: Clone> Clone for Merge<F, T, Y> {
    fn clone(&self) -> Self {
        Self::new(self.fold.clone(), self.yields.clone())
    }
}

/// A live [`Merge`].
pub struct MergeOp<F, K, A, T, Y> {
    fold: F,
    batch: bool,
    kept: Kept<K, A>,
    yields: Y,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn() -> T>,
}

impl<K: OwnedKey, T: 'static, F: Fold<T>, Y: Yield<K, F::Acc>> Transform<(K, F::Acc)> for Merge<F, T, Y> {
    type Out = Y::Out;
    type Op = MergeOp<F, K, F::Acc, T, Y>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        // Each key is in one part.
        let kept = Kept::open(cx, |_| true, |hash| cx.owns(hash), |a, b| *a = b)?;
        let (fold, yields, batch) = (self.fold, self.yields, cx.is_batch());
        Ok(MergeOp { fold, batch, kept, yields, uid: cx.uid.clone(), cell: cx.cell(), _t: PhantomData })
    }
}

impl<K: OwnedKey, T: 'static, F: Fold<T>, Y: Yield<K, F::Acc>> MergeOp<F, K, F::Acc, T, Y> {
    #[inline(always)]
    fn one(&mut self, hash: u64, at: Time, item: (K, F::Acc), out: &mut impl Push<Y::Out>) {
        let merge = |fold: &mut F, acc: &mut F::Acc, item: (K, F::Acc)| fold.merge(acc, item.1);
        let latest = if self.batch { at } else { NO_TIME };
        let row = self.kept.upsert(hash, latest, item, &mut self.fold, |i, k| i.0 == *k, merge, |_, item| item);
        if !self.batch {
            out.push(at, self.yields.of(&row.0, &row.1));
        }
    }
}

impl<K: OwnedKey, T: 'static, F: Fold<T>, Y: Yield<K, F::Acc>> Operator<(K, F::Acc)> for MergeOp<F, K, F::Acc, T, Y> {
    type Out = Y::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: (K, F::Acc), out: &mut impl Push<Y::Out>) {
        self.one(item.0.stable_hash(), at, item, out);
    }
    fn batch(&mut self, batch: &mut Batch<(K, F::Acc)>, mut limit: usize, out: &mut impl Push<Y::Out>) {
        let mut hashes = [0; TILE];
        while let n @ 1.. = batch.hashes(&ByFirst, &mut limit, &mut hashes) {
            self.kept.near(&hashes[..n]);
            let mut hash = hashes.iter();
            batch.each(n, |_, at, item| self.one(hash.next().copied().unwrap_or(0), at, item, out));
        }
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Y::Out>) -> Flow {
        if self.batch {
            self.kept.begin_leaving();
        }
        self.kept.leave(budget, |k, a| self.yields.last(k, a), out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.kept.snapshot(), &self.cell, &self.uid)
    }
}
