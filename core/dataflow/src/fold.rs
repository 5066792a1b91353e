//! Associative aggregation by key, in two halves: before the exchange records of one key are combined (batch mode
//! alone), behind it what arrives is merged.

use crate::{
    batch::{Batch, Time},
    build::OpCx,
    codec,
    key::{ByFirst, Data, Key, KeySelect, OwnedKey},
    keyed::keep,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Flow, Operator, Push, Ready, STRIDE},
    state::{IntoEntries, RowTable, Rows, TILE},
    task::TaskCell,
};
use std::{marker::PhantomData, ops::AddAssign, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

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

/// Rows that are on their way out.
type Leaving<K, A> = Option<IntoEntries<(K, A)>>;

/// Emits rows until `budget` is used up.
fn leave<K, A, O>(
    leaving: &mut Leaving<K, A>,
    budget: &mut usize,
    mut emit: impl FnMut(K, A) -> O,
    out: &mut impl Push<O>,
) -> Flow {
    while let Some(rows) = leaving {
        if *budget == 0 {
            return Flow::More;
        }
        match rows.next() {
            Some((k, a)) => {
                *budget -= 1;
                out.emit(emit(k, a));
            }
            None => *leaving = None,
        }
    }
    Flow::Done
}

/// Rows that are gathered before an exchange: beyond these all go, so that memory is bounded.
const GATHERED: usize = 1 << 17;

/// Gathers rows before an exchange.
pub(crate) struct Gatherer<K, A> {
    rows: Rows<K, A>,
    leaving: Leaving<K, A>,
}

impl<K: OwnedKey, A: Data> Gatherer<K, A> {
    /// What earlier subtasks had gathered is dealt out by their number: any subtask may gather any key.
    fn open(cx: &OpCx, mut merge: impl FnMut(&mut A, A)) -> Result<Self, TaskFailure> {
        let mut rows = Rows::new();
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<(K, A)> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the state that subtask {writer} wrote cannot be read: {e}"))
            })?;
            for (key, acc) in part {
                let hash = key.stable_hash();
                rows.upsert(hash, (key, acc), &mut merge, |i, k| i.0 == *k, |m, a, i| m(a, i.1), |_, i| i);
            }
        }
        Ok(Self { rows, leaving: None })
    }

    #[inline(always)]
    fn add(
        &mut self,
        hash: u64,
        same: impl Fn(&K) -> bool,
        own: impl FnOnce() -> K,
        acc: A,
        merge: impl FnOnce(&mut A, A),
    ) {
        self.rows.upsert(hash, acc, &mut (), |_, k| same(k), |_, a, b| merge(a, b), |_, a| (own(), a));
        if self.rows.len() > GATHERED && self.leaving.is_none() {
            self.leaving = Some(self.rows.take().into_iter());
        }
    }

    fn ready(&mut self, out: &mut impl Push<(K, A)>) -> Ready {
        if self.leaving.is_none() {
            return Ready::Yes;
        }
        let _ = leave(&mut self.leaving, &mut STRIDE.clone(), |k, a| (k, a), out);
        Ready::Busy
    }

    fn end(&mut self, budget: &mut usize, out: &mut impl Push<(K, A)>) -> Flow {
        if self.leaving.is_none() && self.rows.len() > 0 {
            self.leaving = Some(self.rows.take().into_iter());
        }
        leave(&mut self.leaving, budget, |k, a| (k, a), out)
    }
}

/// The half before the exchange: pairs of key and what was gathered. In streaming mode each record passes at once.
#[derive(Clone)]
pub struct Combine<F, S> {
    /// The aggregate.
    pub fold: F,
    /// Finds the key.
    pub key: S,
    /// Else each record passes at once in batch mode too.
    pub gathers: bool,
}

/// A live [`Combine`].
pub struct CombineOp<F, S, K, A> {
    fold: F,
    key: S,
    batch: bool,
    gathered: Gatherer<K, A>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: 'static, F: Fold<T>, S: KeySelect<T>> Transform<T> for Combine<F, S> {
    type Out = (S::Key, F::Acc);
    type Op = CombineOp<F, S, S::Key, F::Acc>;
    fn open(mut self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let gathered = Gatherer::open(cx, |a, b| self.fold.merge(a, b))?;
        let (uid, cell) = (cx.uid.clone(), cx.cell());
        Ok(CombineOp { fold: self.fold, key: self.key, batch: cx.is_batch() && self.gathers, gathered, uid, cell })
    }
}

impl<T: 'static, F: Fold<T>, S: KeySelect<T>> Operator<T> for CombineOp<F, S, S::Key, F::Acc> {
    type Out = (S::Key, F::Acc);
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>) {
        if !self.batch {
            let key = self.key.own(&item);
            return out.push(at, (key, self.fold.lift(item)));
        }
        let (select, hash) = (&self.key, self.key.hash(&item));
        let make = |fold: &mut F, item| (select.own(&item), fold.lift(item));
        let merge = |fold: &mut F, acc: &mut F::Acc, item| {
            let more = fold.lift(item);
            fold.merge(acc, more);
        };
        self.gathered.rows.upsert(hash, item, &mut self.fold, |item, k| select.same(item, k), merge, make);
        if self.gathered.rows.len() > GATHERED && self.gathered.leaving.is_none() {
            self.gathered.leaving = Some(self.gathered.rows.take().into_iter());
        }
    }
    fn ready(&mut self, out: &mut impl Push<Self::Out>) -> Ready {
        self.gathered.ready(out)
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        self.gathered.end(budget, out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        if self.batch { keep(self.gathered.rows.snapshot(), &self.cell, &self.uid) } else { None }
    }
}

/// Keys that lie in an item: `fn words(block: &TextBlock) -> impl Iterator<Item = &[u8]>`.
///
/// Pass a `fn`, or a method by its path: a closure's type cannot say that the keys borrow from its argument.
pub trait Keys<'a, T: 'a, Q: ?Sized + 'a>: Fn(&'a T) -> Self::Iter {
    /// The keys of one item.
    type Iter: Iterator<Item = &'a Q>;
}
impl<'a, T: 'a, Q: ?Sized + 'a, F: Fn(&'a T) -> I, I: Iterator<Item = &'a Q>> Keys<'a, T, Q> for F {
    type Iter = I;
}

/// Counts keys that lie in items, without making one of them unless it is new: the fast path of counting words.
pub struct CountKeys<F, Q: ?Sized>(F, PhantomData<fn(&Q)>);

impl<F, Q: ?Sized> CountKeys<F, Q> {
    /// Of the keys that this function finds.
    pub fn new(keys: F) -> Self {
        Self(keys, PhantomData)
    }
}

impl<F: Clone, Q: ?Sized> Clone for CountKeys<F, Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

/// A live [`CountKeys`].
pub struct CountKeysOp<F, Q: ?Sized, K> {
    keys: F,
    batch: bool,
    gathered: Gatherer<K, u64>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _q: PhantomData<fn(&Q)>,
}

impl<T, Q, F> Transform<T> for CountKeys<F, Q>
where
    T: 'static,
    Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
    F: for<'a> Keys<'a, T, Q> + ClonedToSubtasks,
{
    type Out = (Q::Owned, u64);
    type Op = CountKeysOp<F, Q, Q::Owned>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let gathered = Gatherer::open(cx, |a, b| *a += b)?;
        let (uid, cell) = (cx.uid.clone(), cx.cell());
        Ok(CountKeysOp { keys: self.0, batch: cx.is_batch(), gathered, uid, cell, _q: PhantomData })
    }
}

impl<T, Q, F> Operator<T> for CountKeysOp<F, Q, Q::Owned>
where
    T: 'static,
    Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
    F: for<'a> Keys<'a, T, Q> + ClonedToSubtasks,
{
    type Out = (Q::Owned, u64);
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>) {
        use std::borrow::Borrow;
        if !self.batch {
            (self.keys)(&item).for_each(|key| out.push(at, (key.to_owned(), 1)));
            return;
        }
        for key in (self.keys)(&item) {
            self.gathered.add(key.stable_hash(), |k| k.borrow() == key, || key.to_owned(), 1, |a, b| *a += b);
        }
    }
    fn ready(&mut self, out: &mut impl Push<Self::Out>) -> Ready {
        self.gathered.ready(out)
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        self.gathered.end(budget, out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        if self.batch { keep(self.gathered.rows.snapshot(), &self.cell, &self.uid) } else { None }
    }
}

/// The half behind the exchange: the last value of each key in batch mode, each new value in streaming mode.
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
    rows: Rows<K, A>,
    leaving: Leaving<K, A>,
    yields: Y,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
    _t: PhantomData<fn() -> T>,
}

impl<K: OwnedKey, T: 'static, F: Fold<T>, Y: Yield<K, F::Acc>> Transform<(K, F::Acc)> for Merge<F, T, Y> {
    type Out = Y::Out;
    type Op = MergeOp<F, K, F::Acc, T, Y>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let (rows, uid, cell) = (Rows::open(cx)?, cx.uid.clone(), cx.cell());
        let (fold, yields, batch) = (self.fold, self.yields, cx.is_batch());
        Ok(MergeOp { fold, batch, rows, leaving: None, yields, uid, cell, _t: PhantomData })
    }
}

impl<K: OwnedKey, T: 'static, F: Fold<T>, Y: Yield<K, F::Acc>> MergeOp<F, K, F::Acc, T, Y> {
    #[inline(always)]
    fn one(&mut self, hash: u64, at: Time, item: (K, F::Acc), out: &mut impl Push<Y::Out>) {
        let merge = |fold: &mut F, acc: &mut F::Acc, item: (K, F::Acc)| fold.merge(acc, item.1);
        let row = self.rows.upsert(hash, item, &mut self.fold, |i, k| i.0 == *k, merge, |_, item| item);
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
            self.rows.near(&hashes[..n]);
            let mut hash = hashes.iter();
            batch.each(n, |_, at, item| self.one(hash.next().copied().unwrap_or(0), at, item, out));
        }
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Y::Out>) -> Flow {
        if self.batch && self.leaving.is_none() && self.rows.len() > 0 {
            self.leaving = Some(self.rows.take().into_iter());
        }
        leave(&mut self.leaving, budget, |k, a| self.yields.last(k, a), out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.rows.snapshot(), &self.cell, &self.uid)
    }
}

/// Adds records to a value of each key, in the order in which they come: for what is not associative.
pub struct FoldSpec<F, V, S> {
    /// Adds one.
    pub f: F,
    /// Where each key begins.
    pub init: V,
    /// Finds the key.
    pub key: S,
}

impl<F: Clone, V: Clone, S: Clone> Clone for FoldSpec<F, V, S> {
    fn clone(&self) -> Self {
        Self { f: self.f.clone(), init: self.init.clone(), key: self.key.clone() }
    }
}

/// A live [`FoldSpec`].
pub struct FoldOp<F, V, S, K> {
    f: F,
    init: V,
    key: S,
    batch: bool,
    rows: Rows<K, V>,
    leaving: Leaving<K, V>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: 'static, V: Data + Clone, F: FnMut(&mut V, T) + ClonedToSubtasks, S: KeySelect<T>> Transform<T>
    for FoldSpec<F, V, S>
{
    type Out = (S::Key, V);
    type Op = FoldOp<F, V, S, S::Key>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        let (rows, uid, cell) = (Rows::open(cx)?, cx.uid.clone(), cx.cell());
        Ok(FoldOp { f: self.f, init: self.init, key: self.key, batch: cx.is_batch(), rows, leaving: None, uid, cell })
    }
}

impl<T: 'static, V: Data + Clone, F: FnMut(&mut V, T) + ClonedToSubtasks, S: KeySelect<T>> Operator<T>
    for FoldOp<F, V, S, S::Key>
{
    type Out = (S::Key, V);
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>) {
        let (select, init, hash) = (&self.key, &self.init, self.key.hash(&item));
        let row = self.rows.row(hash, |k| select.same(&item, k), || (select.own(&item), init.clone()));
        (self.f)(&mut row.1, item);
        if !self.batch {
            out.push(at, (row.0.clone(), row.1.clone()));
        }
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        if self.batch && self.leaving.is_none() && self.rows.len() > 0 {
            self.leaving = Some(self.rows.take().into_iter());
        }
        leave(&mut self.leaving, budget, |k, v| (k, v), out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.rows.snapshot(), &self.cell, &self.uid)
    }
}
