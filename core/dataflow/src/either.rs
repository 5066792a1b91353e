//! Two streams of different types as one.
//!
//! What is done to two inputs together is done to a union of both, whose records say which one they are of: alignment,
//! watermarks, state and windows are then those of one input.

use crate::{
    build::OpCx,
    fold::Fold,
    key::{Data, KeySelect, OwnedKey},
    keyed::{KeyedContext, KeyedProcess, TimeDomain},
    metrics::Metrics,
    ops::ClonedToSubtasks,
    state::KeyedStates,
    window::{WindowContext, WindowFunction},
};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, time::Duration};
use thalweg_model::TaskFailure;

/// A record of the first or of the second of two streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Either<A, B> {
    /// Of the first.
    Left(A),
    /// Of the second.
    Right(B),
}

/// Finds the key of either.
#[derive(Clone)]
pub struct EitherKey<S, R> {
    /// In a record of the first stream.
    pub left: S,
    /// In one of the second.
    pub right: R,
}

impl<A, B, K: OwnedKey, S: KeySelect<A, Key = K>, R: KeySelect<B, Key = K>> KeySelect<Either<A, B>>
    for EitherKey<S, R>
{
    type Key = K;
    #[inline(always)]
    fn hash(&self, item: &Either<A, B>) -> u64 {
        match item {
            Either::Left(a) => self.left.hash(a),
            Either::Right(b) => self.right.hash(b),
        }
    }
    #[inline(always)]
    fn same(&self, item: &Either<A, B>, key: &K) -> bool {
        match item {
            Either::Left(a) => self.left.same(a, key),
            Either::Right(b) => self.right.same(b, key),
        }
    }
    #[inline(always)]
    fn own(&self, item: &Either<A, B>) -> K {
        match item {
            Either::Left(a) => self.left.own(a),
            Either::Right(b) => self.right.own(b),
        }
    }
}

/// All records of both, apart.
#[derive(Clone, Copy)]
pub struct Both;

impl<A: Data + Clone, B: Data + Clone> Fold<Either<A, B>> for Both {
    type Acc = (Vec<A>, Vec<B>);
    #[inline(always)]
    fn lift(&mut self, item: Either<A, B>) -> Self::Acc {
        match item {
            Either::Left(a) => (vec![a], Vec::new()),
            Either::Right(b) => (Vec::new(), vec![b]),
        }
    }
    #[inline(always)]
    fn add(&mut self, acc: &mut Self::Acc, item: Either<A, B>) {
        match item {
            Either::Left(a) => acc.0.push(a),
            Either::Right(b) => acc.1.push(b),
        }
    }
    fn merge(&mut self, acc: &mut Self::Acc, mut more: Self::Acc) {
        acc.0.append(&mut more.0);
        acc.1.append(&mut more.1);
    }
}

/// A result for each pair of one window and key.
pub struct JoinPairs<F, O>(F, PhantomData<fn() -> O>);

impl<F, O> JoinPairs<F, O> {
    /// By this function.
    pub fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}

impl<F: Clone, O> Clone for JoinPairs<F, O> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

/// The pairs that are left.
pub struct Pairing<A, B, F> {
    left: Vec<A>,
    right: Vec<B>,
    at: (usize, usize),
    f: F,
}

impl<A, B, O, F: FnMut(&A, &B) -> O> Iterator for Pairing<A, B, F> {
    type Item = O;
    #[inline(always)]
    fn next(&mut self) -> Option<O> {
        if self.at.1 == self.right.len() {
            self.at = (self.at.0 + 1, 0);
        }
        let pair = (self.left.get(self.at.0)?, self.right.get(self.at.1)?);
        self.at.1 += 1;
        Some((self.f)(pair.0, pair.1))
    }
}

impl<K, A, B, O, F> WindowFunction<K, (Vec<A>, Vec<B>)> for JoinPairs<F, O>
where
    A: 'static,
    B: 'static,
    O: 'static,
    F: FnMut(&A, &B) -> O + ClonedToSubtasks,
{
    type Out = O;
    type Results = Pairing<A, B, F>;
    const WRITES: bool = false;
    #[inline(always)]
    fn apply(&mut self, (left, right): (Vec<A>, Vec<B>), _: WindowContext<'_, K>) -> Self::Results {
        Pairing { left, right, at: (0, 0), f: self.0.clone() }
    }
}

/// A keyed function over two streams with one state a key.
pub trait KeyedCoProcess<A, B>: Clone + Send + 'static {
    /// The streams' key.
    type Key: OwnedKey;
    /// One value for each key.
    type State: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// See [`KeyedProcess::state_ttl`].
    fn state_ttl(&self) -> Option<Duration> {
        None
    }
    /// A subtask begins, on the thread that it will run on: connections are opened here.
    fn open(&mut self, _cx: &OpCx) -> Result<(), TaskFailure> {
        Ok(())
    }
    /// A subtask begins: a function that has named states adds each of them.
    fn states(&mut self, _states: &mut KeyedStates<'_, Self::Key>) {}
    /// A subtask begins: a function that has metrics adds each of them.
    fn metrics(&mut self, _metrics: &mut Metrics<'_>) {}
    /// One record of the first stream.
    fn left(&mut self, item: A, state: &mut Self::State, ctx: &mut impl KeyedContext<Self::Key, Self::Out>);
    /// One record of the second.
    fn right(&mut self, item: B, state: &mut Self::State, ctx: &mut impl KeyedContext<Self::Key, Self::Out>);
    /// See [`KeyedProcess::resume`].
    #[doc(hidden)]
    fn resume(&mut self, _state: &mut Self::State, _ctx: &mut impl KeyedContext<Self::Key, Self::Out>) {}
    /// A time that was asked for has come.
    fn on_timer(
        &mut self,
        _domain: TimeDomain,
        _state: &mut Self::State,
        _ctx: &mut impl KeyedContext<Self::Key, Self::Out>,
    ) {
    }
}

/// A [`KeyedCoProcess`] as a [`KeyedProcess`] of either.
pub struct CoOf<F, A, B>(F, PhantomData<fn(A, B)>);

impl<F, A, B> CoOf<F, A, B> {
    /// Of this one.
    pub fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}

impl<F: Clone, A, B> Clone for CoOf<F, A, B> {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

/// Two iterators with one kind of item as one.
impl<A: Iterator, B: Iterator<Item = A::Item>> Iterator for Either<A, B> {
    type Item = A::Item;
    #[inline]
    fn next(&mut self) -> Option<A::Item> {
        match self {
            Either::Left(a) => a.next(),
            Either::Right(b) => b.next(),
        }
    }
}

impl<A: 'static, B: 'static, F: KeyedCoProcess<A, B>> KeyedProcess<Either<A, B>> for CoOf<F, A, B> {
    type Key = F::Key;
    type State = F::State;
    type Out = F::Out;
    fn state_ttl(&self) -> Option<Duration> {
        self.0.state_ttl()
    }
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.0.open(cx)
    }
    fn states(&mut self, states: &mut KeyedStates<'_, F::Key>) {
        self.0.states(states);
    }
    fn metrics(&mut self, metrics: &mut Metrics<'_>) {
        self.0.metrics(metrics);
    }
    #[inline(always)]
    fn process(&mut self, item: Either<A, B>, state: &mut F::State, ctx: &mut impl KeyedContext<F::Key, F::Out>) {
        match item {
            Either::Left(a) => self.0.left(a, state, ctx),
            Either::Right(b) => self.0.right(b, state, ctx),
        }
    }
    fn resume(&mut self, state: &mut F::State, ctx: &mut impl KeyedContext<F::Key, F::Out>) {
        self.0.resume(state, ctx);
    }
    fn on_timer(&mut self, domain: TimeDomain, state: &mut F::State, ctx: &mut impl KeyedContext<F::Key, F::Out>) {
        self.0.on_timer(domain, state, ctx);
    }
}
