//! Operators with state, ended by a checkpoint at any moment and gone on with at another parallelism: the answer is that of
//! a run without it. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use thalweg_api::{
    AsyncOptions, BroadcastProcessFunction, JobResult, KeyedBroadcastProcessFunction, KeyedStates, ListState, MapState,
    OperatorListState, OperatorStates, ProcessContext, ProcessFunction, ReducingState, TimeDomain, ValueState,
    prelude::*,
    testing::{self, Stepped},
};

type Record = (u64, i64, u64);

fn records(random: &mut SmallRng, n: u64) -> Vec<Record> {
    let mut at = 0;
    let mut one = |i| {
        at += random.random_range(0..20);
        (random.random_range(0..9), at, i)
    };
    (0..n).map(&mut one).collect()
}

fn timed(env: &Environment, all: &[Record]) -> DataStream<Record> {
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let source = env.from_collection(all.to_vec()).parallelism(1).uid("records");
    source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).uid("times").boxed()
}

/// What a program answers, in an order that does not depend on the run.
type Program = fn(&Environment, &[Record]) -> Result<Vec<String>, JobError>;

fn answers<T: serde::Serialize + serde::de::DeserializeOwned + Send + std::fmt::Debug + 'static>(
    result: &JobResult,
    collected: &thalweg_api::Collected<T>,
) -> Vec<String> {
    let mut all: Vec<String> = result.collected(collected).unwrap().iter().map(|x| format!("{x:?}")).collect();
    all.sort_unstable();
    all
}

fn sliding(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let windows = SlidingEventTimeWindows::of(Duration::from_millis(90), Duration::from_millis(30));
    let sums = timed(env, all).key_by(|r| r.0).window(windows).sum(|r| r.2).uid("sums").collect().with_uid("out");
    Ok(answers(&env.execute("sliding")?, &sums))
}

fn joined(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let [a, b] = timed(env, all).split();
    let (a, b) = (a.filter(|r| r.2 % 2 == 0), b.filter(|r| r.2 % 2 == 1));
    let pairs = a
        .key_by(|r| r.0)
        .join(b.key_by(|r| r.0))
        .window(TumblingEventTimeWindows::of(Duration::from_millis(100)))
        .apply(|x, y| (x.2, y.2))
        .uid("pairs")
        .collect()
        .with_uid("out");
    Ok(answers(&env.execute("joined")?, &pairs))
}

fn near(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let [a, b] = timed(env, all).split();
    let (a, b) = (a.filter(|r| r.2 % 2 == 0), b.filter(|r| r.2 % 2 == 1));
    let pairs = a.key_by(|r| r.0).interval_join(b.key_by(|r| r.0)).between(-40, 25).apply(|x, y| (x.2, y.2));
    let pairs = pairs.uid("pairs").collect().with_uid("out");
    Ok(answers(&env.execute("near")?, &pairs))
}

fn sessions(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let windows = EventTimeSessionWindows::with_gap(Duration::from_millis(40));
    let sums = timed(env, all).key_by(|r| r.0).window(windows).sum(|r| r.2).uid("sums").collect().with_uid("out");
    Ok(answers(&env.execute("sessions")?, &sums))
}

/// Counts a key's records up to a time 50 ms after each.
#[derive(Clone)]
struct Later;

impl KeyedProcess<Record> for Later {
    type Key = u64;
    type State = Vec<i64>;
    type Out = (u64, i64, u64);
    fn process(&mut self, item: Record, times: &mut Vec<i64>, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        times.push(item.1);
        ctx.register_event_time_timer(item.1 + 50);
    }
    fn on_timer(&mut self, _: TimeDomain, times: &mut Vec<i64>, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        ctx.emit((*ctx.key(), ctx.time(), times.iter().filter(|t| **t <= ctx.time()).count() as u64));
    }
}

fn timers(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let later = timed(env, all).key_by(|r| r.0).process(Later).uid("later").collect().with_uid("out");
    Ok(answers(&env.execute("timers")?, &later))
}

fn waiting(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let asks = |r: Record| async move {
        tokio::time::sleep(Duration::from_micros(r.2 * 37 % 200)).await;
        Ok::<_, String>(r)
    };
    let windows = TumblingEventTimeWindows::of(Duration::from_millis(100));
    let asked = timed(env, all).map_async(AsyncOptions::unordered().capacity(7), asks).uid("asks");
    let sums = asked.key_by(|r| r.0).window(windows).sum(|r| r.2).uid("sums").collect().with_uid("out");
    Ok(answers(&env.execute("waiting")?, &sums))
}

/// Every rule is known before any record, so that what comes out does not depend on who was first.
#[derive(Clone)]
struct Rules;

impl BroadcastProcessFunction<Record, u64> for Rules {
    type State = BTreeMap<u64, u64>;
    type Out = (u64, u64);
    fn process(&mut self, item: Record, _: &BTreeMap<u64, u64>, ctx: &mut impl ProcessContext<(u64, u64)>) {
        ctx.emit((0, item.2));
    }
    fn process_broadcast(
        &mut self,
        rule: u64,
        rules: &mut BTreeMap<u64, u64>,
        ctx: &mut impl ProcessContext<(u64, u64)>,
    ) {
        // Told by the first subtask that has all of them.
        let n = rules.entry(rule % 3).or_default();
        *n += 1;
        ctx.emit((1 + rule % 3, *n));
    }
}

fn rules(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let rules = env.source(thalweg_api::Sequence::new(0..60).interleaved()).parallelism(1).uid("rules");
    let ruled = timed(env, all).connect_broadcast(rules).process(Rules).uid("ruled").collect().with_uid("out");
    let mut all = answers(&env.execute("rules")?, &ruled);
    // Each subtask tells of the same rules: as many times as there are subtasks.
    all.dedup();
    Ok(all)
}

/// Much of one record, behind a box and a filter that keeps some back.
fn spread(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let source = env.from_collection(all.to_vec()).parallelism(1).uid("records").boxed();
    let numbers = source.flat_map(|r| r.2..r.2 + r.2 * 7 % 900).filter(|n| n % 3 != 1);
    let [a, b] = numbers.split();
    let counts = a.union(b.filter(|n| n % 2 == 0)).key_by(|n| n % 7).count().uid("counts").collect().with_uid("out");
    Ok(answers(&env.execute("spread")?, &counts))
}

/// Numbers each key's records, and tells what all its named states have.
#[derive(Clone)]
struct Named {
    last: ValueState<u64>,
    all: ListState<u64>,
    thirds: MapState<u64, u64>,
    sum: ReducingState<u64>,
}

impl KeyedProcess<Record> for Named {
    type Key = u64;
    type State = ();
    type Out = String;
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.last);
        states.add(&mut self.all);
        states.add(&mut self.thirds);
        states.add(&mut self.sum);
    }
    fn process(&mut self, item: Record, (): &mut (), ctx: &mut impl KeyedContext<u64, String>) {
        let before = ctx.state(&self.last).get().copied();
        ctx.state(&self.last).set(item.2);
        ctx.state(&self.all).add(item.2);
        *ctx.state(&self.thirds).or_insert_with(item.2 % 3, || 0) += 1;
        ctx.state(&self.sum).add(item.2);
        let all: Vec<u64> = ctx.state(&self.all).iter().copied().collect();
        let third = ctx.state(&self.thirds).get(&(item.2 % 3)).copied();
        let sum = ctx.state(&self.sum).get().copied();
        ctx.emit(format!("{before:?} {all:?} {third:?} {sum:?}"));
    }
}

fn named(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let f = Named {
        last: ValueState::new("last"),
        all: ListState::new("all"),
        thirds: MapState::new("thirds"),
        sum: ReducingState::new("sum", |a, b| *a += b),
    };
    let told = timed(env, all).key_by(|r| r.0).process(f).uid("named").collect().with_uid("out");
    Ok(answers(&env.execute("named")?, &told))
}

/// Gives records out seven at a time, and at the end all that any subtask ever saw.
#[derive(Clone)]
struct Gathers {
    few: OperatorListState<u64>,
    seen: OperatorListState<u64>,
}

impl ProcessFunction<Record> for Gathers {
    type Out = (bool, u64);
    fn states(&mut self, states: &mut OperatorStates) {
        states.add(&mut self.few);
        states.add(&mut self.seen);
    }
    fn process(&mut self, item: Record, ctx: &mut impl ProcessContext<(bool, u64)>) {
        ctx.list(&self.seen).push(item.2);
        ctx.list(&self.few).push(item.2);
        if ctx.list(&self.few).len() >= 7 {
            let few = std::mem::take(ctx.list(&self.few));
            few.into_iter().for_each(|n| ctx.emit((false, n)));
        }
    }
    fn end(&mut self, ctx: &mut impl ProcessContext<(bool, u64)>) {
        let few = std::mem::take(ctx.list(&self.few));
        few.into_iter().for_each(|n| ctx.emit((false, n)));
        let seen = std::mem::take(ctx.list(&self.seen));
        seen.into_iter().for_each(|n| ctx.emit((true, n)));
    }
}

fn gathered(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let f = Gathers { few: OperatorListState::new("few"), seen: OperatorListState::union("seen") };
    let dealt = env.from_collection(all.to_vec()).parallelism(1).uid("records").rebalance();
    let told = dealt.process(f).uid("gathers").collect().with_uid("out");
    let mut all = answers(&env.execute("gathered")?, &told);
    // Of what was seen each subtask has what all had: told more than once after a restore, and never lost.
    all.dedup_by(|a, b| a == b && a.starts_with("(true"));
    Ok(all)
}

/// Counts each key's records until a time that a key is given back with what is known by then.
#[derive(Clone)]
struct RulesOfKeys;

impl KeyedBroadcastProcessFunction<Record, u64> for RulesOfKeys {
    type Key = u64;
    type State = u64;
    type Broadcast = Vec<u64>;
    type Out = String;
    fn process(&mut self, item: Record, n: &mut u64, _: &Vec<u64>, ctx: &mut impl KeyedContext<u64, String>) {
        *n += 1;
        ctx.emit(format!("{} {n}", ctx.key()));
        ctx.register_event_time_timer(item.1 + 1_000_000);
    }
    fn process_broadcast(&mut self, rule: u64, known: &mut Vec<u64>, _: &mut impl ProcessContext<String>) {
        known.push(rule);
    }
    fn on_timer(&mut self, _: TimeDomain, n: &mut u64, known: &Vec<u64>, ctx: &mut impl KeyedContext<u64, String>) {
        // Far behind all records and rules: all is known.
        ctx.emit(format!("{} at {}: {n} {known:?}", ctx.key(), ctx.time()));
    }
}

fn ruled(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    let rules = env.source(thalweg_api::Sequence::new(0..40).interleaved()).parallelism(1).uid("rules");
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let rules = rules.assign_timestamps_and_watermarks(|n| *n as i64, strategy);
    let told = timed(env, all).key_by(|r| r.0).connect_broadcast(rules).process(RulesOfKeys).uid("ruled");
    let told = told.collect().with_uid("out");
    Ok(answers(&env.execute("ruled")?, &told))
}

/// In batch mode what is known of a key leaves at the end, with the latest time of its records.
fn totals(env: &Environment, all: &[Record]) -> Result<Vec<String>, JobError> {
    env.mode(ExecutionMode::Batch);
    let windows = || TumblingEventTimeWindows::of(Duration::from_millis(30));
    let [records, others] = timed(env, all).split();
    let counts = records.key_by(|r| r.2 % 40).count().uid("counts");
    let folds = others.key_by(|r| r.2 % 30).fold(1, |all: &mut u64, r| *all = *all * 31 % 1009 + r.2).uid("folds");
    let counts = counts.key_by(|c| c.0 % 3).window(windows()).sum(|c| c.1).uid("sums").collect().with_uid("out");
    let folds = folds.key_by(|f| f.0 % 3).window(windows()).sum(|f| f.1).uid("more").collect().with_uid("second");
    let result = env.execute("totals")?;
    Ok([answers(&result, &counts), answers(&result, &folds)].concat())
}

const PROGRAMS: [(&str, Program); 12] = [
    ("sliding", sliding),
    ("joined", joined),
    ("near", near),
    ("sessions", sessions),
    ("timers", timers),
    ("waiting", waiting),
    ("rules", rules),
    ("spread", spread),
    ("named", named),
    ("gathered", gathered),
    ("ruled", ruled),
    ("totals", totals),
];

fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(360);
    (0..n).collect()
}

#[test]
fn a_checkpoint_at_any_moment_changes_no_answer() {
    let mut complete = BTreeMap::<&str, u32>::new();
    for seed in seeds() {
        let mut random = SmallRng::seed_from_u64(seed);
        let (name, program) = PROGRAMS[seed as usize % PROGRAMS.len()];
        let n = random.random_range(50..400);
        let all = records(&mut random, n);
        let dir = std::env::temp_dir();
        let streaming = |env: Environment| {
            env.mode(ExecutionMode::Streaming);
            env
        };
        let whole = streaming(testing::stepped(random.random_range(1..4), &dir, seed).unwrap());
        let expected = program(&whole, &all).unwrap_or_else(|e| panic!("THALWEG_SEED={seed} ({name}): {e}"));
        let taken = Arc::default();
        let checkpoint_at = Some(random.random_range(1..60));
        let first = Stepped { seed, checkpoint_at, taken: Arc::clone(&taken), ..Stepped::default() };
        let first = streaming(first.environment(random.random_range(1..4), &dir).unwrap());
        let ended = program(&first, &all);
        let Some(from) = taken.lock().unwrap().take() else {
            // It came too late to be complete, and the job simply ended.
            assert_eq!(ended.unwrap_or_else(|e| panic!("THALWEG_SEED={seed} ({name}): {e}")), expected);
            continue;
        };
        *complete.entry(name).or_default() += 1;
        let second = Stepped { seed: seed + 1, from, ..Stepped::default() };
        let second = streaming(second.environment(random.random_range(1..5), &dir).unwrap());
        let got = program(&second, &all).unwrap_or_else(|e| panic!("THALWEG_SEED={seed} ({name}): {e}"));
        assert_eq!(got, expected, "THALWEG_SEED={seed} ({name})");
    }
    let enough = complete.len() == PROGRAMS.len() || seeds().len() < 200;
    assert!(enough, "some programs were never ended by a checkpoint: {complete:?}");
}

#[test]
fn a_source_that_the_snapshot_does_not_know_begins() {
    let all = records(&mut SmallRng::seed_from_u64(1), 50);
    let dir = std::env::temp_dir();
    let from = (1..60).find_map(|at| {
        let taken = Arc::default();
        let first = Stepped { seed: 1, checkpoint_at: Some(at), taken: Arc::clone(&taken), ..Stepped::default() };
        let _ = sliding(&first.environment(2, &dir).unwrap(), &all);
        taken.lock().unwrap().take()
    });
    let second = Stepped { seed: 2, from: from.unwrap(), ..Stepped::default() };
    let env = second.environment(2, &dir).unwrap();
    let new = env.sequence(0..20).uid("new").collect().with_uid("new-out");
    let old = timed(&env, &all).map(|record| record.2).collect().with_uid("out");
    let result = env.execute("more").unwrap();
    let mut got = result.collected(&new).unwrap();
    got.sort_unstable();
    assert!(got.into_iter().eq(0..20));
    assert!(result.collected(&old).unwrap().len() <= 50);
}
