//! Two keyed streams, joined by windows.

use crate::{DataStream, KeyedStream};
use std::{panic::Location, time::Duration};
use thalweg_dataflow::{
    Data, Either, PlanBuilder, Time,
    either::{Both, EitherKey, JoinPairs},
    gate_task::add_gate,
    key::KeySelect,
    ops::{ClonedToSubtasks, Map},
    pipe::{Inlet, Pipe, Then, close},
    routes::KeyRoute,
    side::Sides,
    window::{Apply, TimeWindow, TimeWindows, WindowFunction, WindowSpec},
};
use thalweg_model::{Partitioner, VertexRole};

/// Two streams with the same kind of key.
#[must_use = "a join does nothing until it has windows and a function"]
pub struct JoinedStreams<A, B, S, R, P, Q> {
    pub(crate) left: KeyedStream<A, S, P>,
    pub(crate) right: KeyedStream<B, R, Q>,
}

impl<A, B, S, R, P, Q> JoinedStreams<A, B, S, R, P, Q> {
    /// What meets is what has one key in one window.
    #[track_caller]
    pub fn window(self, windows: TimeWindows) -> JoinedWindows<A, B, S, R, P, Q> {
        let plan = &self.left.up.plan;
        if !self.left.up.timed || !self.right.up.timed {
            plan.error(format!(
                "{}: a window join needs event time on both streams: call assign_timestamps_and_watermarks before key_by",
                Location::caller()
            ));
        }
        if let Err(e) = windows.check() {
            plan.error(format!("{}: {e}", Location::caller()));
        }
        JoinedWindows { streams: self, windows, lateness: 0 }
    }
}

/// Two streams with the same kind of key and windows.
#[must_use = "a join does nothing until it has a function"]
pub struct JoinedWindows<A, B, S, R, P, Q> {
    streams: JoinedStreams<A, B, S, R, P, Q>,
    windows: TimeWindows,
    lateness: Time,
}

/// What comes out of joined windows.
type Joined<A, B, S, R, W> = DataStream<
    <W as WindowFunction<<S as KeySelect<A>>::Key, (Vec<A>, Vec<B>)>>::Out,
    Then<Inlet<Either<A, B>>, WindowSpec<Either<A, B>, Both, EitherKey<S, R>, W>>,
>;

impl<A, B, S, R, P, Q> JoinedWindows<A, B, S, R, P, Q>
where
    A: Data + Clone,
    B: Data + Clone,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    /// See [`WindowedStream::allowed_lateness`](crate::WindowedStream::allowed_lateness). All pairs of the window and key
    /// come again.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness: Time::try_from(lateness.as_millis()).unwrap_or(Time::MAX), ..self }
    }

    /// A record for each pair of one key and window.
    #[track_caller]
    pub fn apply<O: 'static, F: FnMut(&A, &B) -> O + ClonedToSubtasks>(
        self,
        f: F,
    ) -> Joined<A, B, S, R, JoinPairs<F, O>> {
        self.with("window-join", JoinPairs::new(f))
    }

    /// Any number of records for all of one key and window, also where one side has nothing: outer joins are made of this.
    #[track_caller]
    pub fn co_group<I, F>(
        self,
        mut f: F,
    ) -> Joined<A, B, S, R, impl WindowFunction<S::Key, (Vec<A>, Vec<B>), Out = I::Item>>
    where
        I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
        F: FnMut(S::Key, TimeWindow, Vec<A>, Vec<B>) -> I + ClonedToSubtasks,
    {
        let f = move |key, window, (left, right): (Vec<A>, Vec<B>)| f(key, window, left, right);
        self.with("window-co-group", Apply::new(f))
    }

    /// A [`WindowFunction`] of all records of both streams of one key and window, also where one side has nothing: for
    /// functions that ask for time, and have side outputs, states or metrics.
    #[track_caller]
    pub fn process<W: WindowFunction<S::Key, (Vec<A>, Vec<B>)>>(self, f: W) -> Joined<A, B, S, R, W> {
        self.with("window-join-process", f)
    }

    #[track_caller]
    fn with<W: WindowFunction<S::Key, (Vec<A>, Vec<B>)>>(self, kind: &'static str, result: W) -> Joined<A, B, S, R, W> {
        let JoinedStreams { left, right } = self.streams;
        let plan = left.up.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        let key = EitherKey { left: left.key, right: right.key };
        let edges = vec![
            into_either(&plan, left.up, to, Either::Left, key.clone()),
            into_either(&plan, right.up, to, Either::Right, key.clone()),
        ];
        let inlet = add_gate(&plan, to, edges, op);
        let sides = Sides::default();
        let (windows, lateness) = (self.windows, self.lateness);
        let spec = WindowSpec { windows, lateness, fold: Both, key, result, late: None, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), true).with_sides(sides)
    }
}

/// Ends one of two streams in a keyed exchange that both share.
#[track_caller]
pub(crate) fn into_either<T, A, B, P, S>(
    plan: &PlanBuilder,
    up: DataStream<T, P>,
    to: usize,
    side: impl FnMut(T) -> Either<A, B> + ClonedToSubtasks,
    key: S,
) -> u32
where
    T: 'static,
    A: Data,
    B: Data,
    P: Pipe<Item = T>,
    S: KeySelect<Either<A, B>>,
{
    let timed = up.timed;
    let up = up.apply("input", Map(side));
    let edge = plan.edge::<Either<A, B>>(up.op.vertex, to, Partitioner::Hash, false);
    close(plan, up.op.vertex, up.pipe, KeyRoute { edge, timed, key });
    edge
}
