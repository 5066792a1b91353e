//! Streams that are grouped by key.

use crate::{
    DataStream, JoinedStreams, KeyedBroadcastConnectedStreams, KeyedConnectedStreams, TriggeredStream, Windows,
    triggered::checked,
};
use std::{cmp::Ordering, marker::PhantomData, ops::AddAssign, panic::Location};
use thalweg_dataflow::{
    Data, Either, Key, OpId, OwnedKey, PlanBuilder, Time,
    either::{CoOf, EitherKey},
    fold::{
        AggregateFunction, Aggregating, Combine, Count, CountKeys, Extreme, Fold, FoldSpec, Keys, Merge, Pairs, Reduce,
        Results, Sum, Values, Yield,
    },
    gate_task::add_gate,
    interval::IntervalJoin,
    key::{ByFirst, KeySelect},
    keyed::{First, KeyedProcess, ProcessSpec, StatefulMap},
    ops::ClonedToSubtasks,
    pipe::{Inlet, Pipe, Then, Transform, close},
    routes::KeyRoute,
    side::Sides,
    window::{CountTrigger, GlobalWindows, PurgingTrigger, Trigger, WindowTime},
};
use thalweg_model::{Partitioner, VertexRole};

/// A stream whose records are grouped by key. Records of one key meet in one subtask.
#[must_use = "a keyed stream does nothing until it is aggregated or processed"]
pub struct KeyedStream<T, S, P> {
    pub(crate) up: DataStream<T, P>,
    pub(crate) key: S,
    pub(crate) combines: bool,
}

/// What comes out of an aggregation of `A` by `K`.
type Aggregated<K, A, F, T, Y> = DataStream<<Y as Yield<K, A>>::Out, Then<Inlet<(K, A)>, Merge<F, T, Y>>>;

impl<T, S, P> KeyedStream<T, S, P> {
    pub(crate) fn new(up: DataStream<T, P>, key: S) -> Self {
        Self { up, key, combines: true }
    }

    pub(crate) fn parts(self) -> (DataStream<T, P>, S) {
        (self.up, self.key)
    }
}

/// The half of an aggregation that lies behind the exchange.
#[track_caller]
fn merged<C, K, F, T, Y, P>(
    up: DataStream<T, P>,
    combine: C,
    kind: &'static str,
    fold: F,
    yields: Y,
) -> Aggregated<K, F::Acc, F, T, Y>
where
    T: 'static,
    P: Pipe<Item = T>,
    K: OwnedKey,
    F: Fold<T>,
    Y: Yield<K, F::Acc>,
    C: Transform<T, Out = (K, F::Acc)>,
{
    let up = up.open();
    let plan: PlanBuilder = up.plan.clone();
    let before = plan.operator(up.op.vertex, "combine", &["gathered"]);
    let to = plan.vertex(VertexRole::Task, None);
    let op = plan.operator(to, kind, &["value"]);
    plan.set_companion(before, op, "/combine");
    let edge = plan.edge::<(K, F::Acc)>(up.op.vertex, to, Partitioner::Hash, false);
    close(
        &plan,
        up.op.vertex,
        Then::new(up.pipe, combine, before.op),
        KeyRoute { edge, timed: up.timed.travels(), key: ByFirst },
    );
    let inlet = add_gate(&plan, to, vec![edge], op);
    DataStream::new(plan, op, Then::new(inlet, Merge::new(fold, yields), op.op), up.timed)
}

impl<T: 'static, S: KeySelect<T>, P: Pipe<Item = T>> KeyedStream<T, S, P> {
    #[track_caller]
    fn fold_by<F: Fold<T>, Y: Yield<S::Key, F::Acc>>(
        self,
        kind: &'static str,
        fold: F,
        yields: Y,
    ) -> Aggregated<S::Key, F::Acc, F, T, Y> {
        let combine = Combine { fold: fold.clone(), key: self.key, gathers: self.combines };
        merged(self.up, combine, kind, fold, yields)
    }

    /// Each record crosses the exchange by itself in batch mode and for windows too, where else those of one key are combined
    /// before: for keys that hardly ever repeat.
    pub fn without_combining(self) -> Self {
        Self { combines: false, ..self }
    }

    /// How many records of each key. In batch mode one pair a key at the end, in streaming mode one a record.
    #[track_caller]
    pub fn count(self) -> Aggregated<S::Key, u64, Count, T, Pairs> {
        self.fold_by("count", Count, Pairs)
    }

    /// The sum of what the function gives of the records of each key.
    #[track_caller]
    pub fn sum<V: Data + Clone + AddAssign, F: FnMut(T) -> V + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Aggregated<S::Key, V, Sum<F>, T, Pairs> {
        self.fold_by("sum", Sum(f), Pairs)
    }

    /// The greatest of what the function gives of the records of each key.
    #[track_caller]
    pub fn max<V: Data + Clone + Ord, F: FnMut(T) -> V + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Aggregated<S::Key, V, Extreme<F>, T, Pairs> {
        self.fold_by("max", Extreme { f, greatest: true }, Pairs)
    }

    /// The least of what the function gives of the records of each key.
    #[track_caller]
    pub fn min<V: Data + Clone + Ord, F: FnMut(T) -> V + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Aggregated<S::Key, V, Extreme<F>, T, Pairs> {
        self.fold_by("min", Extreme { f, greatest: false }, Pairs)
    }

    /// The greatest record of each key by this order; of equal ones the first that came.
    #[track_caller]
    pub fn max_by<C: FnMut(&T, &T) -> Ordering + ClonedToSubtasks>(
        self,
        mut compare: C,
    ) -> Aggregated<S::Key, T, Reduce<impl FnMut(&mut T, T) + ClonedToSubtasks>, T, Values>
    where
        T: Data + Clone,
    {
        self.fold_by(
            "max-by",
            Reduce(move |best: &mut T, other: T| {
                if compare(&other, best) == Ordering::Greater {
                    *best = other;
                }
            }),
            Values,
        )
    }

    /// The least record of each key by this order; of equal ones the first that came.
    #[track_caller]
    pub fn min_by<C: FnMut(&T, &T) -> Ordering + ClonedToSubtasks>(
        self,
        mut compare: C,
    ) -> Aggregated<S::Key, T, Reduce<impl FnMut(&mut T, T) + ClonedToSubtasks>, T, Values>
    where
        T: Data + Clone,
    {
        self.fold_by(
            "min-by",
            Reduce(move |best: &mut T, other: T| {
                if compare(&other, best) == Ordering::Less {
                    *best = other;
                }
            }),
            Values,
        )
    }

    /// An aggregate of your own: each key with what `result` makes of it. In batch mode at the end, in streaming mode for
    /// each record.
    #[track_caller]
    pub fn aggregate<A: AggregateFunction<T>>(
        self,
        f: A,
    ) -> Aggregated<S::Key, A::Acc, Aggregating<A>, T, Results<A, T>> {
        self.fold_by("aggregate", Aggregating(f.clone()), Results::new(f))
    }

    /// Adds records to a value of each key, in the order in which they come; it begins as `init`. For what is not
    /// associative: else `aggregate`, which is combined before the exchange. In batch mode at the end, in streaming mode
    /// for each record.
    #[track_caller]
    pub fn fold<V: Data + Clone, F: FnMut(&mut V, T) + ClonedToSubtasks>(
        self,
        init: V,
        f: F,
    ) -> DataStream<(S::Key, V), Then<Inlet<T>, FoldSpec<F, V, S>>>
    where
        T: Data,
    {
        let (key, timed) = (self.key.clone(), self.up.timed);
        let (plan, inlet, op) = self.exchanged("fold");
        DataStream::new(plan, op, Then::new(inlet, FoldSpec { f, init, key }, op.op), timed)
    }

    /// The first record of each key. State grows with the number of keys.
    #[track_caller]
    pub fn distinct(self) -> DataStream<T, Then<Inlet<T>, ProcessSpec<First<S::Key>, S>>>
    where
        T: Data,
    {
        self.processed("distinct", First::new())
    }

    /// Pairs with another stream's records of one key whose times are near each other.
    #[track_caller]
    pub fn interval_join<U, R: KeySelect<U, Key = S::Key>, Q: Pipe<Item = U>>(
        self,
        other: KeyedStream<U, R, Q>,
    ) -> IntervalJoined<T, U, S, R, P, Q> {
        self.up.plan.meets(&other.up.plan, "interval_join");
        for stream in [self.up.timed, other.up.timed] {
            if !stream.is_event() {
                self.up.plan.error(format!(
                    "{}: an interval join needs event time on both streams{}: call assign_timestamps_and_watermarks before \
                     key_by",
                    Location::caller(),
                    stream.why_not()
                ));
            }
        }
        IntervalJoined { streams: KeyedConnectedStreams { left: self, right: other }, lower: 0, upper: 0 }
    }

    /// One record of each key, into which the function merges the others. It must be associative.
    #[track_caller]
    pub fn reduce<F: FnMut(&mut T, T) + ClonedToSubtasks>(self, f: F) -> Aggregated<S::Key, T, Reduce<F>, T, Values>
    where
        T: Data + Clone,
    {
        self.fold_by("reduce", Reduce(f), Values)
    }

    /// Groups further, by windows.
    #[track_caller]
    pub fn window<W: Windows>(self, windows: W) -> W::Of<T, S, P> {
        if !self.up.timed.is_event() && windows.time() == WindowTime::Event {
            self.up.plan.error(format!(
                "{}: a window needs event time{}: call assign_timestamps_and_watermarks on the stream before key_by",
                Location::caller(),
                self.up.timed.why_not()
            ));
        }
        self.up.plan.checked(windows.check());
        windows.group(self)
    }

    /// Brings another stream's records with the same keys together with this one's.
    #[track_caller]
    pub fn join<U, R: KeySelect<U, Key = S::Key>, Q: Pipe<Item = U>>(
        self,
        other: KeyedStream<U, R, Q>,
    ) -> JoinedStreams<T, U, S, R, P, Q> {
        self.up.plan.meets(&other.up.plan, "join");
        JoinedStreams { left: self, right: other }
    }

    /// Groups further, by so many records each.
    #[track_caller]
    pub fn count_window(self, records: u64) -> TriggeredStream<T, S, P, GlobalWindows, PurgingTrigger<CountTrigger>>
    where
        CountTrigger: Trigger<T>,
    {
        let trigger = PurgingTrigger::of(CountTrigger::of(records));
        checked(&self.up.plan, &trigger);
        TriggeredStream::new(self, GlobalWindows, trigger)
    }

    /// Another stream's records with the same keys, to be handled together with this one's over one state.
    #[track_caller]
    pub fn connect<U, R: KeySelect<U, Key = S::Key>, Q: Pipe<Item = U>>(
        self,
        other: KeyedStream<U, R, Q>,
    ) -> KeyedConnectedStreams<T, U, S, R, P, Q> {
        self.up.plan.meets(&other.up.plan, "connect");
        KeyedConnectedStreams { left: self, right: other }
    }

    /// Another stream that every subtask gets all of, to be known beside the state of each key: rules, rates.
    #[track_caller]
    pub fn connect_broadcast<U: Data + Clone, Q: Pipe<Item = U>>(
        self,
        other: DataStream<U, Q>,
    ) -> KeyedBroadcastConnectedStreams<T, U, S, P, Q> {
        self.up.plan.meets(&other.plan, "connect_broadcast");
        KeyedBroadcastConnectedStreams { keyed: self, broadcast: other }
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
    pub fn stateful_map<V: Default + Data, U: 'static, F: FnMut(&mut V, T) -> U + ClonedToSubtasks>(
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
        let (key, timed, sides) = (self.key.clone(), self.up.timed, Sides::default());
        let (plan, inlet, op) = self.exchanged(kind);
        let spec = ProcessSpec { f, key, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), timed).with_sides(sides)
    }

    /// Records as they are, in the subtasks of a new operator that own their keys.
    #[track_caller]
    fn exchanged(self, kind: &'static str) -> (PlanBuilder, Inlet<T>, OpId)
    where
        T: Data,
    {
        let plan = self.up.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["value"]);
        let edge = plan.edge::<T>(self.up.op.vertex, to, Partitioner::Hash, false);
        close(&plan, self.up.op.vertex, self.up.pipe, KeyRoute { edge, timed: self.up.timed.travels(), key: self.key });
        let inlet = add_gate(&plan, to, vec![edge], op);
        (plan, inlet, op)
    }
}

/// Two keyed streams whose records meet within a span of time.
#[must_use = "a join does nothing until it has a function"]
pub struct IntervalJoined<A, B, S, R, P, Q> {
    streams: KeyedConnectedStreams<A, B, S, R, P, Q>,
    lower: Time,
    upper: Time,
}

impl<A, B, S, R, P, Q> IntervalJoined<A, B, S, R, P, Q>
where
    A: Data,
    B: Data,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    /// A record `b` of the other stream meets `a` if `a + lower <= b <= a + upper` by their times, in ms; negative bounds are
    /// before. Without it: at the same time.
    #[track_caller]
    pub fn between(self, lower: Time, upper: Time) -> Self {
        if lower > upper {
            let plan = &self.streams.left.up.plan;
            plan.error(format!("{}: the lower bound {lower} is above the upper one, {upper}", Location::caller()));
        }
        Self { lower, upper, ..self }
    }

    /// A record for each pair; its time is the later one of the two. What is behind the watermark is dropped.
    #[track_caller]
    pub fn apply<O: 'static, F: FnMut(&A, &B) -> O + ClonedToSubtasks>(
        self,
        f: F,
    ) -> DataStream<O, Then<Inlet<Either<A, B>>, ProcessSpec<CoOf<IntervalJoin<F, S::Key, O>, A, B>, EitherKey<S, R>>>>
    {
        self.streams.process(IntervalJoin::new(self.lower, self.upper, f))
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
    F: for<'a> Keys<'a, T, Q> + ClonedToSubtasks,
    P: Pipe<Item = T>,
{
    /// How often each key was found. In batch mode one pair a key at the end, in streaming mode one for each.
    #[track_caller]
    pub fn count(self) -> Aggregated<Q::Owned, u64, Count, T, Pairs> {
        merged(self.up, CountKeys::new(self.keys), "count", Count, Pairs)
    }
}
