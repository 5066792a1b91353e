//! Two keyed streams, joined by windows.

use crate::{DataStream, DefaultTrigger, KeyedStream, Windows, timed::Timed, triggered::checked};
use std::{panic::Location, time::Duration};
use thalweg_dataflow::{
    Data, Either, OpId, OutputTag, PlanBuilder, Time,
    either::{Both, EitherKey, JoinPairs},
    gate_task::add_gate,
    key::KeySelect,
    ops::{ClonedToSubtasks, Map},
    pipe::{Inlet, Pipe, Then, close},
    routes::KeyRoute,
    side::Sides,
    window::{
        Apply, GlobalWindows, NoEvictor, ProcessingTimeWindows, SessionWindows, TimeWindow, TimeWindows, Trigger,
        TriggeredSpec, Untimed, WindowAssigner, WindowFunction, WindowSpec, WindowTime,
    },
};
use thalweg_model::{Partitioner, VertexRole};

/// Two streams with the same kind of key.
#[must_use = "a join does nothing until it has windows and a function"]
pub struct JoinedStreams<A, B, S, R, P, Q> {
    pub(crate) left: KeyedStream<A, S, P>,
    pub(crate) right: KeyedStream<B, R, Q>,
}

/// What can be given to [`JoinedStreams::window`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of windows of a join",
    note = "for example `TumblingEventTimeWindows::of(Duration::from_secs(10))`, `SlidingEventTimeWindows::of(size, slide)` or `EventTimeSessionWindows::with_gap(gap)`; gaps that records say are of one stream"
)]
pub trait JoinWindows: Windows {
    /// Two streams grouped by them.
    type Joined<A, B, S, R, P, Q>;
    /// Groups them.
    fn join<A, B, S, R, P, Q>(self, streams: JoinedStreams<A, B, S, R, P, Q>) -> Self::Joined<A, B, S, R, P, Q>;
}

impl JoinWindows for TimeWindows {
    type Joined<A, B, S, R, P, Q> = JoinedWindows<A, B, S, R, P, Q>;
    fn join<A, B, S, R, P, Q>(self, streams: JoinedStreams<A, B, S, R, P, Q>) -> Self::Joined<A, B, S, R, P, Q> {
        JoinedWindows { streams, windows: self, lateness: 0, late: None }
    }
}

macro_rules! triggered { ($($windows:ty),*) => { $(
    impl JoinWindows for $windows {
        type Joined<A, B, S, R, P, Q> = JoinedTriggered<A, B, S, R, P, Q, Self, DefaultTrigger>;
        fn join<A, B, S, R, P, Q>(self, streams: JoinedStreams<A, B, S, R, P, Q>) -> Self::Joined<A, B, S, R, P, Q> {
            let trigger = DefaultTrigger::of(WindowAssigner::time(&self));
            JoinedTriggered::new(streams, self, trigger)
        }
    }
)* } }
triggered!(SessionWindows, ProcessingTimeWindows, GlobalWindows);

impl<A, B, S, R, P, Q> JoinedStreams<A, B, S, R, P, Q> {
    /// What meets is what has one key in one window. A session is one of both streams: each record of either makes it
    /// go on.
    #[track_caller]
    pub fn window<W: JoinWindows>(self, windows: W) -> W::Joined<A, B, S, R, P, Q> {
        let (plan, timed) = (&self.left.up.plan, self.left.up.timed.min(self.right.up.timed));
        if windows.time() == WindowTime::Event && !timed.is_event() {
            plan.error(format!(
                "{}: a window join needs event time on both streams{}: call assign_timestamps_and_watermarks before key_by",
                Location::caller(),
                timed.why_not()
            ));
        }
        plan.checked(windows.check());
        windows.join(self)
    }
}

/// Both streams at the gate of a new operator, and how the key is found there.
type Met<A, B, S, R> = (PlanBuilder, OpId, Inlet<Either<A, B>>, EitherKey<S, R>);

impl<A, B, S, R, P, Q> JoinedStreams<A, B, S, R, P, Q>
where
    A: Data,
    B: Data,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    #[track_caller]
    fn meet(self, kind: &'static str) -> Met<A, B, S, R> {
        let Self { left, right } = self;
        let plan = left.up.plan.clone();
        let to = plan.vertex(VertexRole::Task, None);
        let op = plan.operator(to, kind, &["windows"]);
        let key = EitherKey { left: left.key, right: right.key };
        let edges = vec![
            into_either(left.up, to, Either::Left, key.clone()),
            into_either(right.up, to, Either::Right, key.clone()),
        ];
        let inlet = add_gate(&plan, to, edges, op);
        (plan, op, inlet, key)
    }
}

/// Two streams with the same kind of key and windows.
#[must_use = "a join does nothing until it has a function"]
pub struct JoinedWindows<A, B, S, R, P, Q> {
    streams: JoinedStreams<A, B, S, R, P, Q>,
    windows: TimeWindows,
    lateness: Time,
    late: Option<OutputTag<Either<A, B>>>,
}

/// What comes out of joined windows.
type Joined<A, B, S, R, W> = DataStream<
    <W as WindowFunction<<S as KeySelect<A>>::Key, (Vec<A>, Vec<B>)>>::Out,
    Then<Inlet<Either<A, B>>, WindowSpec<Either<A, B>, Both, EitherKey<S, R>, W>>,
>;

impl<A, B, S, R, P, Q> JoinedWindows<A, B, S, R, P, Q> {
    /// When windows fire, instead of at their end alone. It sees the records of both streams.
    #[track_caller]
    pub fn trigger<G: Trigger<Either<A, B>>>(self, trigger: G) -> JoinedTriggered<A, B, S, R, P, Q, TimeWindows, G> {
        checked(&self.streams.left.up.plan, &trigger);
        let Self { streams, windows, lateness, late } = self;
        JoinedTriggered { streams, assigner: windows, trigger, lateness, late }
    }
}

/// Two streams with the same kind of key and windows of any kind, with a trigger.
#[must_use = "a join does nothing until it has a function"]
pub struct JoinedTriggered<A, B, S, R, P, Q, W, G> {
    streams: JoinedStreams<A, B, S, R, P, Q>,
    assigner: W,
    trigger: G,
    lateness: Time,
    late: Option<OutputTag<Either<A, B>>>,
}

/// What comes out of them.
type Triggered<A, B, S, R, W, G, F> = DataStream<
    <F as WindowFunction<<S as KeySelect<A>>::Key, (Vec<A>, Vec<B>)>>::Out,
    Then<Inlet<Either<A, B>>, TriggeredSpec<Either<A, B>, W, G, NoEvictor, Untimed<Both>, EitherKey<S, R>, F>>,
>;

impl<A, B, S, R, P, Q, W, G> JoinedTriggered<A, B, S, R, P, Q, W, G> {
    pub(crate) fn new(streams: JoinedStreams<A, B, S, R, P, Q>, assigner: W, trigger: G) -> Self {
        Self { streams, assigner, trigger, lateness: 0, late: None }
    }

    /// When windows fire, instead of at their end. It sees the records of both streams.
    #[track_caller]
    pub fn trigger<H: Trigger<Either<A, B>>>(self, trigger: H) -> JoinedTriggered<A, B, S, R, P, Q, W, H> {
        checked(&self.streams.left.up.plan, &trigger);
        let Self { streams, assigner, lateness, late, .. } = self;
        JoinedTriggered { streams, assigner, trigger, lateness, late }
    }
}

/// What both kinds of joined windows have.
macro_rules! functions { ($joined:ident [$($w:ident),*] $out:ident; $($bound:tt)*) => {
    impl<A, B, S, R, P, Q, $($w),*> $joined<A, B, S, R, P, Q, $($w),*>
    where
        A: Data + Clone,
        B: Data + Clone,
        S: KeySelect<A>,
        R: KeySelect<B, Key = S::Key>,
        P: Pipe<Item = A>,
        Q: Pipe<Item = B>,
        $($bound)*
    {
        /// See [`WindowedStream::allowed_lateness`](crate::WindowedStream::allowed_lateness). All pairs of the window
        /// and key come again.
        pub fn allowed_lateness(self, lateness: Duration) -> Self {
            Self { lateness: Time::try_from(lateness.as_millis()).unwrap_or(Time::MAX), ..self }
        }

        /// Records of either stream that come too late for all their windows go to this tag: `stream.side_output(&tag)`
        /// of what comes out.
        pub fn side_output_late_data(self, tag: &OutputTag<Either<A, B>>) -> Self {
            Self { late: Some(tag.clone()), ..self }
        }

        /// A record for each pair of one key and window.
        #[track_caller]
        pub fn apply<O: 'static, F: FnMut(&A, &B) -> O + ClonedToSubtasks>(
            self,
            f: F,
        ) -> $out<A, B, S, R, $($w,)* JoinPairs<F, O>> {
            self.with("window-join", JoinPairs::new(f))
        }

        /// Any number of records for all of one key and window, also where one side has nothing: outer joins are made
        /// of this.
        #[track_caller]
        pub fn co_group<I, F>(
            self,
            mut f: F,
        ) -> $out<A, B, S, R, $($w,)* impl WindowFunction<S::Key, (Vec<A>, Vec<B>), Out = I::Item>>
        where
            I: IntoIterator<Item: 'static, IntoIter: 'static> + 'static,
            F: FnMut(S::Key, TimeWindow, Vec<A>, Vec<B>) -> I + ClonedToSubtasks,
        {
            let f = move |key, window, (left, right): (Vec<A>, Vec<B>)| f(key, window, left, right);
            self.with("window-co-group", Apply::new(f))
        }

        /// A [`WindowFunction`] of all records of both streams of one key and window, also where one side has nothing:
        /// for functions that ask for time, and have side outputs, states or metrics.
        #[track_caller]
        pub fn process<F: WindowFunction<S::Key, (Vec<A>, Vec<B>)>>(self, f: F) -> $out<A, B, S, R, $($w,)* F> {
            self.with("window-join-process", f)
        }
    }
} }
functions!(JoinedWindows [] Joined;);
functions!(JoinedTriggered [W, G] Triggered; W: WindowAssigner, G: Trigger<Either<A, B>>);

impl<A, B, S, R, P, Q> JoinedWindows<A, B, S, R, P, Q>
where
    A: Data + Clone,
    B: Data + Clone,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
{
    #[track_caller]
    fn with<F: WindowFunction<S::Key, (Vec<A>, Vec<B>)>>(self, kind: &'static str, result: F) -> Joined<A, B, S, R, F> {
        let Self { streams, windows, lateness, late } = self;
        let (plan, op, inlet, key) = streams.meet(kind);
        let sides = Sides::of_late(late.as_ref(), F::WRITES);
        let spec = WindowSpec { windows, lateness, fold: Both, key, result, late, sides: sides.clone() };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), Timed::Event).with_sides(sides)
    }
}

impl<A, B, S, R, P, Q, W, G> JoinedTriggered<A, B, S, R, P, Q, W, G>
where
    A: Data + Clone,
    B: Data + Clone,
    S: KeySelect<A>,
    R: KeySelect<B, Key = S::Key>,
    P: Pipe<Item = A>,
    Q: Pipe<Item = B>,
    W: WindowAssigner,
    G: Trigger<Either<A, B>>,
{
    #[track_caller]
    fn with<F: WindowFunction<S::Key, (Vec<A>, Vec<B>)>>(
        self,
        kind: &'static str,
        result: F,
    ) -> Triggered<A, B, S, R, W, G, F> {
        let Self { streams, assigner, trigger, lateness, late } = self;
        let (plan, op, inlet, key) = streams.meet(kind);
        let (sides, fold) = (Sides::of_late(late.as_ref(), F::WRITES), Untimed(Both));
        let timed = Timed::of_windows(assigner.time());
        let spec = TriggeredSpec {
            assigner,
            trigger,
            evictor: NoEvictor,
            lateness,
            fold,
            key,
            result,
            late,
            sides: sides.clone(),
        };
        DataStream::new(plan, op, Then::new(inlet, spec, op.op), timed).with_sides(sides)
    }
}

/// Ends one of two streams in a keyed exchange that both share.
#[track_caller]
pub(crate) fn into_either<T, A, B, P, S>(
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
    let timed = up.timed.travels();
    let up = up.apply("input", Map(side));
    let edge = up.plan.edge::<Either<A, B>>(up.op.vertex, to, Partitioner::Hash, false);
    close(&up.plan, up.op.vertex, up.pipe, KeyRoute { edge, timed, key });
    edge
}
