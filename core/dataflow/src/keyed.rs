//! Keyed functions: one value of state a key, handed over as an argument.

use crate::{
    batch::{Batch, Time},
    build::OpCx,
    key::{Data, KeySelect, OwnedKey},
    ops::UserFn,
    pipe::Transform,
    push::{Operator, Push},
    state::Rows,
    task::TaskCell,
};
use std::{marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

/// What a keyed function may ask and do beside its state.
pub trait KeyedContext<K, O> {
    /// The key.
    fn key(&self) -> &K;
    /// The record's event time, or `NO_TIME`.
    fn time(&self) -> Time;
    /// Gives a record out.
    fn emit(&mut self, item: O);
}

/// A function over a keyed stream. The state of one key is one value of a plain type; it begins as its default.
pub trait KeyedProcess<T>: Clone + Send + 'static {
    /// The stream's key.
    type Key: OwnedKey;
    /// One value for each key.
    type State: Default + Data;
    /// What comes out.
    type Out: 'static;
    /// One record.
    fn process(&mut self, item: T, state: &mut Self::State, ctx: &mut impl KeyedContext<Self::Key, Self::Out>);
}

struct RowCx<'a, K, N> {
    key: &'a K,
    at: Time,
    out: &'a mut N,
}

impl<K, O, N: Push<O>> KeyedContext<K, O> for RowCx<'_, K, N> {
    fn key(&self) -> &K {
        self.key
    }
    fn time(&self) -> Time {
        self.at
    }
    #[inline(always)]
    fn emit(&mut self, item: O) {
        self.out.push(self.at, item);
    }
}

/// A [`KeyedProcess`] and how its key is found.
#[derive(Clone)]
pub struct ProcessSpec<F, S> {
    /// The function.
    pub f: F,
    /// Finds the key.
    pub key: S,
}

/// A live one.
pub struct ProcessOp<F, S, K, V> {
    f: F,
    key: S,
    rows: Rows<K, V>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: 'static, F: KeyedProcess<T>, S: KeySelect<T, Key = F::Key>> Transform<T> for ProcessSpec<F, S> {
    type Out = F::Out;
    type Op = ProcessOp<F, S, F::Key, F::State>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        Ok(ProcessOp { f: self.f, key: self.key, rows: Rows::open(cx)?, uid: cx.uid.clone(), cell: cx.cell() })
    }
}

impl<F, S, K: OwnedKey, V: Default + Data> ProcessOp<F, S, K, V> {
    #[inline(always)]
    fn one<T>(&mut self, hash: u64, at: Time, item: T, out: &mut impl Push<F::Out>)
    where
        F: KeyedProcess<T, Key = K, State = V>,
        S: KeySelect<T, Key = K>,
    {
        let select = &self.key;
        let (key, state) = self.rows.row(hash, |k| select.same(&item, k), || (select.own(&item), V::default()));
        self.f.process(item, state, &mut RowCx { key, at, out });
    }
}

impl<T: 'static, F: KeyedProcess<T>, S: KeySelect<T, Key = F::Key>> Operator<T> for ProcessOp<F, S, F::Key, F::State> {
    type Out = F::Out;
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<F::Out>) {
        self.one(self.key.hash(&item), at, item, out);
    }
    fn batch(&mut self, batch: &mut Batch<T>, limit: usize, out: &mut impl Push<F::Out>) {
        batch.each(limit, |hash, at, item| {
            // Hashes travel within a process where they are dear; from elsewhere, and cheap ones, are made here.
            let hash = if S::DEAR { hash.unwrap_or_else(|| self.key.hash(&item)) } else { self.key.hash(&item) };
            self.one(hash, at, item, out);
        });
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.rows.snapshot(), &self.cell, &self.uid)
    }
}

/// State that cannot be encoded fails the task: a checkpoint without it would be a lie.
pub(crate) fn keep(state: Result<Vec<u8>, String>, cell: &TaskCell, uid: &str) -> Option<Vec<u8>> {
    match state {
        Ok(state) => Some(state),
        Err(e) => {
            cell.fail_in(uid, FailureKind::User, format!("the state cannot be encoded: {e}"));
            None
        }
    }
}

/// State and item in, one item out: the short form of [`KeyedProcess`].
pub struct StatefulMap<F, V, K>(F, PhantomData<fn() -> (V, K)>);

impl<F, V, K> StatefulMap<F, V, K> {
    /// Of this function.
    pub fn new(f: F) -> Self {
        Self(f, PhantomData)
    }
}

impl<F: Clone, V, K> Clone for StatefulMap<F, V, K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T, V: Default + Data, U: 'static, K: OwnedKey, F: FnMut(&mut V, T) -> U + UserFn> KeyedProcess<T>
    for StatefulMap<F, V, K>
{
    type Key = K;
    type State = V;
    type Out = U;
    #[inline(always)]
    fn process(&mut self, item: T, state: &mut V, ctx: &mut impl KeyedContext<K, U>) {
        let u = (self.0)(state, item);
        ctx.emit(u);
    }
}
