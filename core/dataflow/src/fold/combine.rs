//! The half of an aggregation that lies before the exchange: in batch mode what is known of a key is gathered and travels
//! once, in streaming mode each record passes at once.

use super::{Fold, kept::Kept};
use crate::{
    batch::Time,
    build::OpCx,
    key::{Data, Key, KeySelect, OwnedKey},
    keyed::keep,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Flow, Operator, Push, Ready, STRIDE},
    task::TaskCell,
};
use std::{borrow::Borrow, marker::PhantomData, rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// Rows that are gathered before an exchange: beyond these all go, so that memory is bounded.
const GATHERED: usize = 1 << 17;

/// Gathers rows before an exchange.
struct Gatherer<K, A> {
    kept: Kept<K, A>,
}

impl<K: OwnedKey, A: Data> Gatherer<K, A> {
    /// What earlier subtasks had gathered is dealt out by their number: any subtask may gather any key.
    fn open(cx: &OpCx, merge: impl FnMut(&mut A, A)) -> Result<Self, TaskFailure> {
        let kept = Kept::open(cx, |writer| writer % cx.parallelism == cx.subtask, |_| true, merge)?;
        Ok(Self { kept })
    }

    #[inline(always)]
    fn check_room(&mut self) {
        if self.kept.len() > GATHERED {
            self.kept.begin_leaving();
        }
    }

    fn ready(&mut self, out: &mut impl Push<(K, A)>) -> Ready {
        if !self.kept.is_leaving() {
            return Ready::Yes;
        }
        let _ = self.kept.leave(&mut STRIDE.clone(), |k, a| (k, a), out);
        Ready::Busy
    }

    fn end(&mut self, budget: &mut usize, out: &mut impl Push<(K, A)>) -> Flow {
        self.kept.begin_leaving();
        self.kept.leave(budget, |k, a| (k, a), out)
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
        self.gathered.kept.upsert(hash, at, item, &mut self.fold, |item, k| select.same(item, k), merge, make);
        self.gathered.check_room();
    }
    fn ready(&mut self, out: &mut impl Push<Self::Out>) -> Ready {
        self.gathered.ready(out)
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        self.gathered.end(budget, out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        if self.batch { keep(self.gathered.kept.snapshot(), &self.cell, &self.uid) } else { None }
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
        if !self.batch {
            (self.keys)(&item).for_each(|key| out.push(at, (key.to_owned(), 1)));
            return;
        }
        for key in (self.keys)(&item) {
            let (_, n) = self.gathered.kept.row(key.stable_hash(), at, |k| k.borrow() == key, || (key.to_owned(), 0));
            *n += 1;
            self.gathered.check_room();
        }
    }
    fn ready(&mut self, out: &mut impl Push<Self::Out>) -> Ready {
        self.gathered.ready(out)
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        self.gathered.end(budget, out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        if self.batch { keep(self.gathered.kept.snapshot(), &self.cell, &self.uid) } else { None }
    }
}
