//! Adding records to a value of each key in the order in which they come, all of it behind the exchange.

use super::kept::Kept;
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    key::{Data, KeySelect},
    keyed::keep,
    ops::ClonedToSubtasks,
    pipe::Transform,
    push::{Flow, Operator, Push},
    task::TaskCell,
};
use std::{rc::Rc, sync::Arc};
use thalweg_model::TaskFailure;

/// Adds records to a value of each key, in the order in which they come: for what is not associative. In batch mode a
/// value is given out at the end, with the latest time of its key's records.
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
    kept: Kept<K, V>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl<T: 'static, V: Data + Clone, F: FnMut(&mut V, T) + ClonedToSubtasks, S: KeySelect<T>> Transform<T>
    for FoldSpec<F, V, S>
{
    type Out = (S::Key, V);
    type Op = FoldOp<F, V, S, S::Key>;
    fn open(self, cx: &OpCx) -> Result<Self::Op, TaskFailure> {
        // Each key is in one part.
        let kept = Kept::open(cx, |_| true, |hash| cx.owns(hash), |a, b| *a = b)?;
        let (uid, cell) = (cx.uid.clone(), cx.cell());
        Ok(FoldOp { f: self.f, init: self.init, key: self.key, batch: cx.is_batch(), kept, uid, cell })
    }
}

impl<T: 'static, V: Data + Clone, F: FnMut(&mut V, T) + ClonedToSubtasks, S: KeySelect<T>> Operator<T>
    for FoldOp<F, V, S, S::Key>
{
    type Out = (S::Key, V);
    #[inline(always)]
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<Self::Out>) {
        let (select, init, hash) = (&self.key, &self.init, self.key.hash(&item));
        let latest = if self.batch { at } else { NO_TIME };
        let row = self.kept.row(hash, latest, |k| select.same(&item, k), || (select.own(&item), init.clone()));
        (self.f)(&mut row.1, item);
        if !self.batch {
            out.push(at, (row.0.clone(), row.1.clone()));
        }
    }
    fn end(&mut self, budget: &mut usize, out: &mut impl Push<Self::Out>) -> Flow {
        if self.batch {
            self.kept.begin_leaving();
        }
        self.kept.leave(budget, |k, v| (k, v), out)
    }
    fn snapshot(&mut self) -> Option<Vec<u8>> {
        keep(self.kept.snapshot(), &self.cell, &self.uid)
    }
}
