//! The operator tester with functions of every shape, and what they write to side outputs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    AsyncOptions, BroadcastProcessFunction, FailureKind, KeyedBroadcastProcessFunction, KeyedCoProcess, KeyedStates,
    OperatorListState, OperatorStates, ProcessContext, ProcessFunction, StateTtl, TaskFailure, ValueState,
    operator::{OpCx, Transform},
    prelude::*,
    testing::{self, Either, OperatorTester, TestRuntime},
};

/// Tells what was shipped without an order by the side, once the watermark has passed it.
#[derive(Clone)]
struct Shipped {
    lost: OutputTag<(u64, String)>,
}

impl KeyedCoProcess<(u64, u64), (u64, String)> for Shipped {
    type Key = u64;
    type State = (Option<u64>, Option<String>);
    type Out = (u64, u64, String);
    fn left(&mut self, order: (u64, u64), state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        state.0 = Some(order.1);
        self.pair(state, ctx);
    }
    fn right(&mut self, parcel: (u64, String), state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        state.1 = Some(parcel.1);
        ctx.register_event_time_timer(ctx.time() + 10);
        self.pair(state, ctx);
    }
    fn on_timer(&mut self, _: TimeDomain, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        if let Some(parcel) = state.1.take() {
            let key = *ctx.key();
            ctx.output(&self.lost, (key, parcel));
        }
    }
}

impl Shipped {
    fn pair(
        &self,
        state: &mut <Self as KeyedCoProcess<(u64, u64), (u64, String)>>::State,
        ctx: &mut impl KeyedContext<u64, (u64, u64, String)>,
    ) {
        if let (Some(order), Some(_)) = state {
            let (order, key) = (*order, *ctx.key());
            if let Some(parcel) = state.1.take() {
                ctx.emit((key, order, parcel));
            }
        }
    }
}

#[test]
fn two_streams_of_keys_are_fed_as_either_and_side_outputs_are_seen() {
    let rt = TestRuntime::new().unwrap();
    let lost = OutputTag::new("lost");
    let other = OutputTag::<(u64, String)>::new("lost");
    let f = Shipped { lost: lost.clone() };
    let spec = testing::co_process(f, |o: &(u64, u64)| o.0, |p: &(u64, String)| p.0);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(1, Either::Right((1, "first".into()))).unwrap();
    tester.push(2, Either::Right((2, "second".into()))).unwrap();
    tester.push(3, Either::Left((1, 70))).unwrap();
    tester.watermark(12).unwrap();
    assert_eq!(tester.take(), [(3, (1, 70, "first".into()))]);
    assert_eq!(tester.take_side(&other), [], "tags are told apart by what they are, not by name");
    assert_eq!(tester.take_side(&lost), [(12, (2, "second".into()))]);
    assert_eq!(tester.take_side(&lost), [], "once");
}

#[test]
fn a_watermark_that_falls_is_refused() {
    let rt = TestRuntime::new().unwrap();
    let lost = OutputTag::new("lost");
    let f = Shipped { lost: lost.clone() };
    let spec = testing::co_process(f, |o: &(u64, u64)| o.0, |p: &(u64, String)| p.0);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(3, Either::Right((2, "second".into()))).unwrap();
    tester.watermark(12).unwrap();
    let error = tester.watermark(11).unwrap_err().message;
    assert!(error.contains("falls from 12 to 11") && error.contains("push one with an earlier time"), "{error}");
    // It has changed nothing.
    tester.watermark(12).unwrap();
    assert_eq!(tester.take_side(&lost), []);
    tester.end().unwrap();
    assert_eq!(tester.take_side(&lost), [(13, (2, "second".into()))]);
}

/// Gives out what the rule of its kind lets through, and the rest by the side.
#[derive(Clone)]
struct Allowed {
    refused: OutputTag<(u8, u64)>,
}

impl BroadcastProcessFunction<(u8, u64), (u8, u64)> for Allowed {
    type State = BTreeMap<u8, u64>;
    type Out = u64;
    fn process(&mut self, item: (u8, u64), rules: &BTreeMap<u8, u64>, ctx: &mut impl ProcessContext<u64>) {
        if rules.get(&item.0).is_some_and(|least| item.1 >= *least) {
            ctx.emit(item.1);
        } else {
            ctx.output(&self.refused, item);
        }
    }
    fn process_broadcast(&mut self, rule: (u8, u64), rules: &mut BTreeMap<u8, u64>, _: &mut impl ProcessContext<u64>) {
        rules.insert(rule.0, rule.1);
    }
}

#[test]
fn what_is_broadcast_comes_on_the_right() {
    let rt = TestRuntime::new().unwrap();
    let refused = OutputTag::new("refused");
    let spec = || testing::broadcast_process(Allowed { refused: refused.clone() });
    let mut tester = OperatorTester::new(&rt.env, spec()).unwrap();
    tester.push_untimed(Either::Left((1, 5))).unwrap();
    tester.push_untimed(Either::Right((1, 5))).unwrap();
    tester.push_untimed(Either::Left((1, 5))).unwrap();
    tester.push_untimed(Either::Left((1, 4))).unwrap();
    let items = |all: Vec<(i64, u64)>| all.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    assert_eq!(items(tester.take()), [5]);
    let by_the_side: Vec<_> = tester.take_side(&refused).into_iter().map(|(_, r)| r).collect();
    assert_eq!(by_the_side, [(1, 5), (1, 4)]);
    let state = tester.snapshot().unwrap().unwrap();
    let mut again = OperatorTester::restored(&rt.env, spec(), state).unwrap();
    again.push_untimed(Either::Left((1, 6))).unwrap();
    assert_eq!(items(again.take()), [6], "the rule was in the snapshot");
}

/// Counts a key's records that are at least as large as the limit.
#[derive(Clone)]
struct Large;

impl KeyedBroadcastProcessFunction<(u8, u64), u64> for Large {
    type Key = u8;
    type State = u64;
    type Broadcast = u64;
    type Out = (u8, u64);
    fn process(&mut self, item: (u8, u64), n: &mut u64, least: &u64, ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
        if item.1 >= *least {
            *n += 1;
            ctx.emit((item.0, *n));
        }
    }
    fn process_broadcast(&mut self, least: u64, known: &mut u64, _: &mut impl ProcessContext<(u8, u64)>) {
        *known = least;
    }
}

#[test]
fn keys_have_state_beside_what_is_broadcast() {
    let rt = TestRuntime::new().unwrap();
    let spec = testing::keyed_broadcast_process(Large, |item: &(u8, u64)| item.0);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    for item in [Either::Right(10), Either::Left((1, 10)), Either::Left((2, 9)), Either::Left((1, 11))] {
        tester.push_untimed(item).unwrap();
    }
    let out: Vec<_> = tester.take().into_iter().map(|(_, o)| o).collect();
    assert_eq!(out, [(1, 1), (1, 2)]);
}

/// Keeps each key's last record for no time at all.
#[derive(Clone)]
struct NoTime {
    last: ValueState<u64>,
    all: Option<Duration>,
}

impl KeyedProcess<u64> for NoTime {
    type Key = u64;
    type State = u64;
    type Out = u64;
    fn state_ttl(&self) -> Option<Duration> {
        self.all
    }
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.last);
    }
    fn process(&mut self, item: u64, _: &mut u64, ctx: &mut impl KeyedContext<u64, u64>) {
        ctx.state(&self.last).set(item);
    }
}

#[test]
fn a_time_to_live_of_nothing_is_refused() {
    let rt = TestRuntime::new().unwrap();
    let refused =
        |f: NoTime| OperatorTester::keyed(&rt.env, f, |n: &u64| *n).err().map(|e| e.message).unwrap_or_default();
    let last = ValueState::new("last");
    let named = NoTime { last: last.clone().ttl(StateTtl::of(Duration::from_micros(900))), all: None };
    assert!(refused(named).contains("the time to live of state \"last\" is less than 1 ms"));
    let all = NoTime { last: last.clone(), all: Some(Duration::ZERO) };
    assert!(refused(all).contains("state_ttl is less than 1 ms"));
    let good = NoTime { last: last.ttl(StateTtl::of(Duration::from_millis(1))), all: Some(Duration::from_millis(1)) };
    assert_eq!(refused(good), "");
}

/// Reads its limits when it begins, and fails for what is beyond them.
#[derive(Clone, Default)]
struct Limited {
    most: u64,
    broken: bool,
}

impl Limited {
    fn read(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.most = 10;
        if self.broken { Err(cx.failure(FailureKind::User, "no limits")) } else { Ok(()) }
    }
    fn why(n: u64) -> String {
        format!("{n} is beyond 10: raise the limit")
    }
}

impl KeyedProcess<u64> for Limited {
    type Key = u64;
    type State = ();
    type Out = u64;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.read(cx)
    }
    fn process(&mut self, n: u64, (): &mut (), ctx: &mut impl KeyedContext<u64, u64>) {
        if n > self.most { ctx.fail(Self::why(n)) } else { ctx.emit(n) }
    }
}

impl KeyedCoProcess<u64, u64> for Limited {
    type Key = u64;
    type State = ();
    type Out = u64;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.read(cx)
    }
    fn left(&mut self, n: u64, (): &mut (), ctx: &mut impl KeyedContext<u64, u64>) {
        if n > self.most { ctx.fail(Self::why(n)) } else { ctx.emit(n) }
    }
    fn right(&mut self, _: u64, (): &mut (), _: &mut impl KeyedContext<u64, u64>) {}
}

impl ProcessFunction<u64> for Limited {
    type Out = u64;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.read(cx)
    }
    fn process(&mut self, n: u64, ctx: &mut impl ProcessContext<u64>) {
        if n > self.most { ctx.fail(Self::why(n)) } else { ctx.emit(n) }
    }
}

impl BroadcastProcessFunction<u64, u64> for Limited {
    type State = u64;
    type Out = u64;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.read(cx)
    }
    fn process(&mut self, n: u64, _: &u64, ctx: &mut impl ProcessContext<u64>) {
        if n > self.most { ctx.fail(Self::why(n)) } else { ctx.emit(n) }
    }
    fn process_broadcast(&mut self, _: u64, _: &mut u64, _: &mut impl ProcessContext<u64>) {}
}

impl KeyedBroadcastProcessFunction<u64, u64> for Limited {
    type Key = u64;
    type State = ();
    type Broadcast = u64;
    type Out = u64;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.read(cx)
    }
    fn process(&mut self, n: u64, (): &mut (), _: &u64, ctx: &mut impl KeyedContext<u64, u64>) {
        if n > self.most { ctx.fail(Self::why(n)) } else { ctx.emit(n) }
    }
    fn process_broadcast(&mut self, _: u64, _: &mut u64, _: &mut impl ProcessContext<u64>) {}
}

/// 10 passes, 11 fails the task with the function's words and the operator's uid, and so does a function that cannot begin.
fn limited<T: 'static, X: Transform<T, Out = u64>>(of: impl Fn(Limited) -> X, record: fn(u64) -> T) {
    let rt = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::new(&rt.env, of(Limited::default())).unwrap();
    tester.push(1, record(10)).unwrap();
    let failure = tester.push(2, record(11)).unwrap_err();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::User, Some("tested")));
    assert_eq!(failure.message, "11 is beyond 10: raise the limit");
    assert_eq!(tester.take(), [(1, 10)]);
    let unopened = OperatorTester::new(&rt.env, of(Limited { broken: true, ..Limited::default() }));
    assert!(unopened.err().is_some_and(|e| e.message.contains("no limits")));
}

#[test]
fn functions_of_every_shape_begin_with_open_and_fail_with_an_error_of_their_own() {
    limited(testing::process, |n| n);
    limited(|f| testing::keyed_process(f, |n: &u64| *n), |n| n);
    limited(|f| testing::co_process(f, |n: &u64| *n, |n: &u64| *n), Either::<u64, u64>::Left);
    limited(testing::broadcast_process, Either::<u64, u64>::Left);
    limited(|f| testing::keyed_broadcast_process(f, |n: &u64| *n), Either::<u64, u64>::Left);
}

#[test]
fn time_jumps_to_what_a_function_that_waits_waits_for_and_a_job_that_hangs_says_where() {
    let tries: Arc<[AtomicU64; 2]> = Arc::default();
    let counted = tries.clone();
    let fails_or_hangs = move |n: u64| {
        // Of a hundred records one fails at first, and one gets no answer.
        let first = n % 50 == 7 && counted[n as usize / 50].fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match n {
                7 if first => Err("not now"),
                57 if first => std::future::pending().await,
                n => Ok(n),
            }
        }
    };
    let options = AsyncOptions::ordered().timeout(Duration::from_secs(60)).retries(3, Duration::from_secs(3600));
    let env = testing::stepped(2, std::env::temp_dir(), 3).unwrap();
    let out = env.sequence(0..100).map_async(options, fails_or_hangs).collect();
    let mut all = env.execute("waits").unwrap().collected(&out).unwrap();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<u64>>());
    assert_eq!(tries.each_ref().map(|n| n.load(Ordering::SeqCst)), [2, 2], "each of both was called for once more");

    let hangs = |_: u64| std::future::pending::<Result<u64, String>>();
    env.sequence(0..1).map_async(AsyncOptions::ordered(), hangs).name("asks for ever").discard();
    let error = env.execute("hangs").unwrap_err().to_string();
    assert!(error.contains("asks for ever") && error.contains("subtask 0"), "{error}");
}

/// Says at its end how many there were; and of each key how many, when all is over.
#[derive(Clone)]
struct InAll(OperatorListState<u64>);

impl ProcessFunction<u64> for InAll {
    type Out = u64;
    fn states(&mut self, states: &mut OperatorStates) {
        states.add(&mut self.0);
    }
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<u64>) {
        ctx.list(&self.0).push(item);
    }
    fn end(&mut self, ctx: &mut impl ProcessContext<u64>) {
        let n = ctx.list(&self.0).len() as u64;
        ctx.emit(n);
    }
}

impl KeyedProcess<u64> for InAll {
    type Key = u64;
    type State = u64;
    type Out = u64;
    fn process(&mut self, _: u64, n: &mut u64, ctx: &mut impl KeyedContext<u64, u64>) {
        *n += 1;
        ctx.register_event_time_timer(i64::MAX);
    }
    fn on_timer(&mut self, _: TimeDomain, n: &mut u64, ctx: &mut impl KeyedContext<u64, u64>) {
        ctx.emit(*n);
    }
}

#[test]
fn what_is_given_out_at_the_end_is_in_time_also_where_nothing_came_since_the_snapshot() {
    let rt = TestRuntime::new().unwrap();
    let function = || testing::process(InAll(OperatorListState::new("all")));
    let mut tester = OperatorTester::new(&rt.env, function()).unwrap();
    tester.push(50, 1).unwrap();
    tester.push(30, 2).unwrap();
    let snapshot = tester.snapshot().unwrap().unwrap();
    let mut again = OperatorTester::restored(&rt.env, function(), snapshot).unwrap();
    again.end().unwrap();
    assert_eq!(again.take(), [(50, 2)]);

    let keyed = || InAll(OperatorListState::new("none"));
    let mut tester = OperatorTester::keyed(&rt.env, keyed(), |_: &u64| 7).unwrap();
    tester.push(30, 1).unwrap();
    tester.watermark(60).unwrap();
    let snapshot = tester.snapshot().unwrap().unwrap();
    let mut again = OperatorTester::keyed_restored(&rt.env, keyed(), |_: &u64| 7, snapshot).unwrap();
    again.end().unwrap();
    assert_eq!(again.take(), [(61, 1)], "behind the watermark");
}
