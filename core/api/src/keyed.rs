//! Streams that are grouped by key.

use crate::DataStream;
use std::{marker::PhantomData, ops::AddAssign};
use thalweg_dataflow::{
    Data, Key, OwnedKey, PlanBuilder,
    fold::{Combine, Count, CountKeys, Fold, Keys, Merge, Pairs, Reduce, Sum, Values, Yield},
    gate_task::add_gate,
    key::{ByFirst, KeySelect},
    keyed::{KeyedProcess, ProcessSpec, StatefulMap},
    ops::UserFn,
    pipe::{Inlet, KeyRoute, Pipe, Then, Transform, close},
};
use thalweg_model::{Partitioner, VertexRole};

/// A stream whose records are grouped by key. Records of one key meet in one subtask.
#[must_use = "a keyed stream does nothing until it is aggregated or processed"]
pub struct KeyedStream<T, S, P> {
    up: DataStream<T, P>,
    key: S,
}

/// What comes out of an aggregation of `A` by `K`.
type Aggregated<K, A, F, T, Y> = DataStream<<Y as Yield<K, A>>::Out, Then<Inlet<(K, A)>, Merge<F, T, Y>>>;

impl<T, S, P> KeyedStream<T, S, P> {
    pub(crate) fn new(up: DataStream<T, P>, key: S) -> Self {
        Self { up, key }
    }
}

/// The half of an aggregation that lies behind the exchange.
#[track_caller]
fn merged<C, K, F, T, Y, P>(
    up: DataStream<T, P>,
    combine: C,
    kind: &'static str,
    fold: F,
) -> Aggregated<K, F::Acc, F, T, Y>
where
    T: 'static,
    P: Pipe<Item = T>,
    K: OwnedKey,
    F: Fold<T>,
    Y: Yield<K, F::Acc>,
    C: Transform<T, Out = (K, F::Acc)>,
{
    let plan: PlanBuilder = up.plan.clone();
    let before = plan.operator(up.op.vertex, "combine", &["gathered"]);
    let to = plan.vertex(VertexRole::Task, None);
    let op = plan.operator(to, kind, &["value"]);
    plan.set_companion(before, op, "/combine");
    let edge = plan.edge::<(K, F::Acc)>(up.op.vertex, to, Partitioner::Hash, false);
    close(&plan, up.op.vertex, Then::new(up.pipe, combine, before.op), KeyRoute { edge, key: ByFirst });
    let inlet = add_gate(&plan, to, vec![edge], op);
    DataStream::new(plan, op, Then::new(inlet, Merge::new(fold), op.op))
}

impl<T: 'static, S: KeySelect<T>, P: Pipe<Item = T>> KeyedStream<T, S, P> {
    #[track_caller]
    fn fold<F: Fold<T>, Y: Yield<S::Key, F::Acc>>(
        self,
        kind: &'static str,
        fold: F,
    ) -> Aggregated<S::Key, F::Acc, F, T, Y> {
        let combine = Combine { fold: fold.clone(), key: self.key };
        merged(self.up, combine, kind, fold)
    }

    /// How many records of each key. In batch mode one pair a key at the end, in streaming mode one a record.
    #[track_caller]
    pub fn count(self) -> Aggregated<S::Key, u64, Count, T, Pairs> {
        self.fold("count", Count)
    }

    /// The sum of what the function gives of the records of each key.
    #[track_caller]
    pub fn sum<V: Data + Clone + AddAssign, F: FnMut(T) -> V + UserFn>(
        self,
        f: F,
    ) -> Aggregated<S::Key, V, Sum<F>, T, Pairs> {
        self.fold("sum", Sum(f))
    }

    /// One record of each key, into which the function merges the others. It must be associative.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + UserFn>(self, f: F) -> Aggregated<S::Key, T, Reduce<F>, T, Values>
    where
        T: Data + Clone,
    {
        self.fold("reduce", Reduce(f))
    }

    /// A function with one value of state for each key.
    #[track_caller]
    pub fn process<F: KeyedProcess<T, Key = S::Key>>(
        self,
        f: F,
    ) -> DataStream<F::Out, Then<Inlet<T>, ProcessSpec<F, S>>>
    where
        T: Data,
    {
        self.processed("process", f)
    }

    /// State and record in, one record out: the short form of [`KeyedStream::process`].
    #[track_caller]
    pub fn stateful_map<V: Default + Data, U: 'static, F: FnMut(&mut V, T) -> U + UserFn>(
        self,
        f: F,
    ) -> DataStream<U, Then<Inlet<T>, ProcessSpec<StatefulMap<F, V, S::Key>, S>>>
    where
        T: Data,
    {
        self.processed("stateful-map", StatefulMap::new(f))
    }

    #[track_caller]
    fn processed<F: KeyedProcess<T, Key = S::Key>>(
        self,
        kind: &'static str,
        f: F,
    ) -> DataStream<F::Out, Then<Inlet<T>, ProcessSpec<F, S>>>
    where
        T: Data,
    {
        let plan = self.up.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["value"]);
        let edge = plan.edge::<T>(self.up.op.vertex, to, Partitioner::Hash, false);
        close(&plan, self.up.op.vertex, self.up.pipe, KeyRoute { edge, key: self.key.clone() });
        let inlet = add_gate(&plan, to, vec![edge], op);
        DataStream::new(plan, op, Then::new(inlet, ProcessSpec { f, key: self.key }, op.op))
    }
}

/// A stream that is grouped by each of the keys in its records.
#[must_use = "a keyed stream does nothing until it is aggregated"]
pub struct KeyedKeys<T, Q: ?Sized, F, P> {
    up: DataStream<T, P>,
    keys: F,
    _q: PhantomData<fn(&Q)>,
}

impl<T, Q: ?Sized, F, P> KeyedKeys<T, Q, F, P> {
    pub(crate) fn new(up: DataStream<T, P>, keys: F) -> Self {
        Self { up, keys, _q: PhantomData }
    }
}

impl<T, Q, F, P> KeyedKeys<T, Q, F, P>
where
    T: 'static,
    Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
    F: for<'a> Keys<'a, T, Q> + UserFn,
    P: Pipe<Item = T>,
{
    /// How often each key was found. In batch mode one pair a key at the end, in streaming mode one for each.
    #[track_caller]
    pub fn count(self) -> Aggregated<Q::Owned, u64, Count, T, Pairs> {
        merged(self.up, CountKeys::new(self.keys), "count", Count)
    }
}
