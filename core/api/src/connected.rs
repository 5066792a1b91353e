//! Two streams of different types that are handled together.

use crate::{DataStream, KeyedStream};
use thalweg_dataflow::{
    Data, Either,
    broadcast::{BroadcastProcessFunction, BroadcastSpec},
    either::{CoOf, EitherKey, KeyedCoProcess},
    gate_task::add_gate,
    key::KeySelect,
    keyed::ProcessSpec,
    keyed_broadcast::{KeyedBroadcastProcessFunction, KeyedBroadcastSpec},
    ops::{ClonedToSubtasks, FlatMap, Map},
    pipe::{Inlet, Pipe, Then, close},
    routes::{BroadcastRoute, LeftRoute},
    side::Sides,
};
use thalweg_model::{Partitioner, VertexRole};

use crate::joined::into_either;

/// Two streams of different types.
#[must_use = "connected streams do nothing until they have a function"]
pub struct ConnectedStreams<A, B, P, Q> {
    pub(crate) left: DataStream<A, P>,
    pub(crate) right: DataStream<B, Q>,
}

impl<A: Data, B: Data, P: Pipe<Item = A>, Q: Pipe<Item = B>> ConnectedStreams<A, B, P, Q> {
    /// Both as one stream, in no order between them.
    #[track_caller]
    pub fn either(self) -> DataStream<Either<A, B>> {
        self.left.map(Either::Left).met(self.right.map(Either::Right))
    }

    /// One record for each: the first function makes those of the first stream, the second those of the second.
    #[track_caller]
    pub fn map<U, F, G>(
        self,
        mut f: F,
        mut g: G,
    ) -> DataStream<U, Then<Inlet<Either<A, B>>, Map<impl FnMut(Either<A, B>) -> U + ClonedToSubtasks>>>
    where
        U: 'static,
        F: FnMut(A) -> U + ClonedToSubtasks,
        G: FnMut(B) -> U + ClonedToSubtasks,
    {
        let both = move |item| match item {
            Either::Left(a) => f(a),
            Either::Right(b) => g(b),
        };
        self.either().apply("co-map", Map(both))
    }

    /// Any number of records for each.
    #[track_caller]
    pub fn flat_map<I, J, F, G>(
        self,
        mut f: F,
        mut g: G,
    ) -> DataStream<
        I::Item,
        Then<
            Inlet<Either<A, B>>,
            FlatMap<impl FnMut(Either<A, B>) -> Either<I::IntoIter, J::IntoIter> + ClonedToSubtasks>,
        >,
    >
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        J: IntoIterator<Item = I::Item, IntoIter: 'static> + 'static,
        F: FnMut(A) -> I + ClonedToSubtasks,
        G: FnMut(B) -> J + ClonedToSubtasks,
    {
        let both = move |item| match item {
            Either::Left(a) => Either::Left(f(a).into_iter()),
            Either::Right(b) => Either::Right(g(b).into_iter()),
        };
        self.either().apply("co-flat-map", FlatMap(both))
    }
}

/// Two keyed streams with the same kind of key, over one state.
#[must_use = "connected streams do nothing until they have a function"]
pub struct KeyedConnectedStreams<A, B, S, R, P, Q> {
    pub(crate) left: KeyedStream<A, S, P>,
    pub(crate) right: KeyedStream<B, R, Q>,
}

impl<A, B, S, R, P, Q> KeyedConnectedStreams<A, B, S, R, P, Q>
where
    A: Data,
    B: Data,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    /// A function over both, with one value of state for each key.
    #[track_caller]
    pub fn process<F: KeyedCoProcess<A, B, Key = S::Key>>(
        self,
        f: F,
    ) -> DataStream<F::Out, Then<Inlet<Either<A, B>>, ProcessSpec<CoOf<F, A, B>, EitherKey<S, R>>>> {
        let plan = self.left.up.plan.clone();
        let timed = self.left.up.timed.min(self.right.up.timed);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, "co-process", &["value"]);
        let key = EitherKey { left: self.left.key, right: self.right.key };
        let (mut left, mut right) = (self.left.up, self.right.up);
        (left.timed, right.timed) = (timed, timed);
        let edges =
            vec![into_either(left, to, Either::Left, key.clone()), into_either(right, to, Either::Right, key.clone())];
        let inlet = add_gate(&plan, to, edges, op);
        let sides = Sides::default();
        let spec = ProcessSpec { f: CoOf::new(f), key, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), timed).with_sides(sides)
    }
}

/// A stream, and another one that every subtask gets all of.
#[must_use = "connected streams do nothing until they have a function"]
pub struct BroadcastConnectedStreams<A, B, P, Q> {
    pub(crate) stream: DataStream<A, P>,
    pub(crate) broadcast: DataStream<B, Q>,
}

impl<A: Data + Clone, B: Data + Clone, P: Pipe<Item = A>, Q: Pipe<Item = B>> BroadcastConnectedStreams<A, B, P, Q> {
    /// A function over both, with broadcast state.
    #[track_caller]
    pub fn process<F: BroadcastProcessFunction<A, B>>(
        self,
        f: F,
    ) -> DataStream<F::Out, Then<Inlet<Either<A, B>>, BroadcastSpec<F, A, B>>> {
        let plan = self.stream.plan.clone();
        let timed = self.stream.timed.min(self.broadcast.timed);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, "broadcast-process", &["broadcast"]);
        let (mut stream, broadcast) =
            (self.stream.map(Either::<A, B>::Left), self.broadcast.map(Either::<A, B>::Right));
        stream.timed = timed;
        let first = stream.turn(to, Partitioner::Forward);
        let second = broadcast.plan.edge::<Either<A, B>>(broadcast.op.vertex, to, Partitioner::Broadcast, false);
        close(
            &broadcast.plan,
            broadcast.op.vertex,
            broadcast.pipe,
            BroadcastRoute { edge: second, timed: timed.travels() },
        );
        let inlet = add_gate(&plan, to, vec![first, second], op);
        let sides = Sides::default();
        let spec = BroadcastSpec::new(f, sides.clone());
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), timed).with_sides(sides)
    }
}

/// A keyed stream, and another one that every subtask gets all of.
#[must_use = "connected streams do nothing until they have a function"]
pub struct KeyedBroadcastConnectedStreams<A, B, S, P, Q> {
    pub(crate) keyed: KeyedStream<A, S, P>,
    pub(crate) broadcast: DataStream<B, Q>,
}

impl<A, B, S, P, Q> KeyedBroadcastConnectedStreams<A, B, S, P, Q>
where
    A: Data,
    B: Data + Clone,
    Either<A, B>: Clone,
    S: KeySelect<A>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    /// A function over both, with the state of keys and with broadcast state.
    #[track_caller]
    pub fn process<F: KeyedBroadcastProcessFunction<A, B, Key = S::Key>>(
        self,
        f: F,
    ) -> DataStream<F::Out, Then<Inlet<Either<A, B>>, KeyedBroadcastSpec<F, S, A, B>>> {
        let plan = self.keyed.up.plan.clone();
        let timed = self.keyed.up.timed.min(self.broadcast.timed);
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, "keyed-broadcast-process", &["value", "broadcast"]);
        let (key, sides) = (self.keyed.key, Sides::default());
        let (keyed, broadcast) = (self.keyed.up.map(Either::<A, B>::Left), self.broadcast.map(Either::<A, B>::Right));
        let first = plan.edge::<Either<A, B>>(keyed.op.vertex, to, Partitioner::Hash, false);
        close(&plan, keyed.op.vertex, keyed.pipe, LeftRoute { edge: first, timed: timed.travels(), key: key.clone() });
        let second = broadcast.plan.edge::<Either<A, B>>(broadcast.op.vertex, to, Partitioner::Broadcast, false);
        close(
            &broadcast.plan,
            broadcast.op.vertex,
            broadcast.pipe,
            BroadcastRoute { edge: second, timed: timed.travels() },
        );
        let inlet = add_gate(&plan, to, vec![first, second], op);
        let spec = KeyedBroadcastSpec::new(f, key, sides.clone());
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), timed).with_sides(sides)
    }
}
