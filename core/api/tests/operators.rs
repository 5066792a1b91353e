//! Joins, connected streams, timers and the rest, against naive models, over random streams, parallelism and order of
//! steps. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    AsyncOptions, BroadcastProcessFunction, Either, KeyedCoProcess, ProcessContext, ProcessFunction, Time, TimeDomain,
    prelude::*, testing,
};

fn cases(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (0..n).collect()
}

fn each(default: u64, case: impl Fn(&Environment, &mut SmallRng)) {
    for seed in cases(default) {
        let mut random = SmallRng::seed_from_u64(seed);
        let parallelism = random.random_range(1..4);
        let dir = std::env::temp_dir();
        // One of eight on real threads, the others in steps.
        let env = if seed % 8 == 7 {
            testing::environment(parallelism, dir)
        } else {
            testing::stepped(parallelism, dir, seed)
        };
        let env = env.unwrap();
        let run = std::panic::AssertUnwindSafe(|| case(&env, &mut random));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

/// (key, time, number)
type Record = (u64, i64, u64);

fn records(random: &mut SmallRng, from: u64) -> Vec<Record> {
    let mut at = 0;
    let n = random.random_range(0..120);
    (from..from + n)
        .map(|i| {
            at += random.random_range(0..20);
            (random.random_range(0..5), at, i)
        })
        .collect()
}

macro_rules! timed {
    ($env:expr, $records:expr) => {
        $env.from_collection($records.clone())
            .parallelism(1)
            .assign_timestamps_and_watermarks(|r: &Record| r.1, WatermarkStrategy::for_monotonous_timestamps())
    };
}

fn pairs(a: &[Record], b: &[Record], meet: impl Fn(&Record, &Record) -> bool) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for x in a {
        all.extend(b.iter().filter(|y| x.0 == y.0 && meet(x, y)).map(|y| (x.2, y.2)));
    }
    all.sort_unstable();
    all
}

#[test]
fn joins_give_each_pair_once() {
    each(300, |env, random| {
        let (a, b) = (records(random, 0), records(random, 1000));
        let size = random.random_range(1..100);
        let (lower, width) = (random.random_range(-60i64..60), random.random_range(0..80));
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let [a1, a2] = timed!(env, a).split();
        let [b1, b2] = timed!(env, b).split();
        let windowed = a1
            .key_by(|r| r.0)
            .join(b1.key_by(|r| r.0))
            .window(TumblingEventTimeWindows::of(Duration::from_millis(size as u64)))
            .apply(|x, y| (x.2, y.2))
            .collect();
        let interval = a2
            .key_by(|r| r.0)
            .interval_join(b2.key_by(|r| r.0))
            .between(lower, lower + width)
            .apply(|x, y| (x.2, y.2))
            .collect();
        let result = env.execute("joins").unwrap();
        let sorted = |c| {
            let mut all: Vec<(u64, u64)> = result.collected(c).unwrap();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&windowed), pairs(&a, &b, |x, y| x.1.div_euclid(size) == y.1.div_euclid(size)));
        let near = |x: &Record, y: &Record| y.1 >= x.1 + lower && y.1 <= x.1 + lower + width;
        assert_eq!(sorted(&interval), pairs(&a, &b, near), "between {lower} and {}", lower + width);
    });
}

#[test]
fn a_co_group_sees_also_what_has_no_partner() {
    each(50, |env, random| {
        let (a, b) = (records(random, 0), records(random, 1000));
        let groups = timed!(env, a)
            .key_by(|r| r.0)
            .join(timed!(env, b).key_by(|r| r.0))
            .window(TumblingEventTimeWindows::of(Duration::from_millis(50)))
            .co_group(|key, window, left: Vec<Record>, right: Vec<Record>| {
                Some((key, window.start, left.len() as u64, right.len() as u64))
            })
            .collect();
        let result = env.execute("groups").unwrap();
        let mut expected = BTreeMap::<(u64, i64), (u64, u64)>::new();
        a.iter().for_each(|r| expected.entry((r.0, r.1.div_euclid(50) * 50)).or_default().0 += 1);
        b.iter().for_each(|r| expected.entry((r.0, r.1.div_euclid(50) * 50)).or_default().1 += 1);
        let got = result.collected(&groups).unwrap().into_iter().map(|(k, w, a, b)| ((k, w), (a, b)));
        assert_eq!(got.collect::<BTreeMap<_, _>>(), expected);
    });
}

/// Asks for a time 30 ms behind each record, and takes that back for each third number; tells how many records had come by
/// that time.
#[derive(Clone)]
struct Later;

impl KeyedProcess<Record> for Later {
    type Key = u64;
    type State = Vec<Time>;
    type Out = (u64, Time, u64);
    fn process(&mut self, item: Record, times: &mut Vec<Time>, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        assert_eq!(ctx.time(), item.1);
        times.push(item.1);
        ctx.register_event_time_timer(item.1 + 30);
        ctx.register_event_time_timer(item.1 + 30);
        if item.2.is_multiple_of(3) {
            ctx.delete_event_time_timer(item.1 + 30);
        }
    }
    fn on_timer(&mut self, domain: TimeDomain, times: &mut Vec<Time>, ctx: &mut impl KeyedContext<u64, Self::Out>) {
        assert_eq!(domain, TimeDomain::EventTime);
        assert!(ctx.watermark() >= ctx.time());
        let n = times.iter().filter(|t| **t <= ctx.time()).count();
        ctx.emit((*ctx.key(), ctx.time(), n as u64));
    }
}

#[test]
fn timers_fire_once_in_time_and_can_be_taken_back() {
    each(300, |env, random| {
        let all = records(random, 0);
        env.mode(ExecutionMode::Streaming);
        let later = timed!(env, all).key_by(|r| r.0).process(Later).collect();
        let result = env.execute("later").unwrap();
        let mut got: Vec<_> = result.collected(&later).unwrap();
        got.sort_unstable();
        let mut asked = BTreeSet::new();
        for (key, at, n) in &all {
            asked.insert((*key, at + 30));
            if n.is_multiple_of(3) {
                asked.remove(&(*key, at + 30));
            }
        }
        let by = |key, at| all.iter().filter(|r| r.0 == key && r.1 <= at).count() as u64;
        assert_eq!(got, asked.into_iter().map(|(key, at)| (key, at, by(key, at))).collect::<Vec<_>>());
    });
}

/// Ticks each 10 ms of the machine's clock, three times.
#[derive(Clone)]
struct Ticks;

impl KeyedProcess<u64> for Ticks {
    type Key = u64;
    type State = u64;
    type Out = (u64, u64);
    fn process(&mut self, _: u64, _: &mut u64, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        ctx.register_processing_time_timer(ctx.processing_time() + 10);
    }
    fn on_timer(&mut self, domain: TimeDomain, n: &mut u64, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        assert_eq!(domain, TimeDomain::ProcessingTime);
        assert!(ctx.processing_time() >= ctx.time());
        *n += 1;
        ctx.emit((*ctx.key(), *n));
        if *n < 3 {
            ctx.register_processing_time_timer(ctx.time() + 10);
        }
    }
}

#[test]
fn timers_of_the_machines_clock_fire_while_the_input_pauses() {
    each(20, |env, _| {
        // One number a second, so that the input lasts longer than the ticks.
        let source = env.source(thalweg_api::Sequence::new(0..3).rate(1.0)).parallelism(1);
        let ticks = source.key_by(|i| *i).process(Ticks).collect();
        let result = env.execute("ticks").unwrap();
        let got: BTreeSet<_> = result.collected(&ticks).unwrap().into_iter().collect();
        // What is asked for by the last number may be cut off by the end.
        for expected in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)] {
            assert!(got.contains(&expected), "{got:?}");
        }
    });
}

/// Remembers the last left record of a key for the right ones that follow.
#[derive(Clone)]
struct Enrich;

impl KeyedCoProcess<(u64, u64), u64> for Enrich {
    type Key = u64;
    type State = (Option<u64>, u64);
    type Out = (u64, u64);
    fn left(&mut self, item: (u64, u64), state: &mut Self::State, _: &mut impl KeyedContext<u64, (u64, u64)>) {
        state.0 = Some(item.1);
    }
    fn right(&mut self, item: u64, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        state.1 += 1;
        ctx.emit((item, state.1));
    }
}

#[derive(Clone)]
struct Rules;

impl BroadcastProcessFunction<u64, u64> for Rules {
    type State = BTreeSet<u64>;
    type Out = u64;
    fn process(&mut self, item: u64, rules: &BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        assert!(rules.iter().all(|r| *r < 10));
        ctx.emit(item);
    }
    fn process_broadcast(&mut self, rule: u64, rules: &mut BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        assert!(rules.insert(rule), "a rule comes once to each subtask");
        ctx.emit(1000 + rule);
    }
    fn end(&mut self, rules: &BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        ctx.emit(2000 + rules.len() as u64);
    }
}

#[test]
fn streams_are_connected_and_broadcast() {
    each(100, |env, random| {
        let parallelism = random.random_range(1..4u32);
        let n = random.random_range(0..200u64);
        let numbers = env.sequence(0..n);
        let mapped = numbers.connect(env.from_collection(["x".to_owned()])).map(|i| i.to_string(), |s| s).collect();
        let flat = env
            .sequence(0..n)
            .connect(env.from_collection([7u8]))
            .flat_map(|i| 0..i % 3, |b| Some(u64::from(b)))
            .collect();
        let left = env.sequence(0..n).map(|i| (i % 5, i)).key_by(|p| p.0);
        let right = env.source(thalweg_api::Sequence::new(0..n).interleaved()).parallelism(1);
        let counted = left.connect(right.key_by(|i| i % 5)).process(Enrich).collect();
        let ruled = env
            .sequence(0..n)
            .connect_broadcast(env.from_collection(0..10u64))
            .process(Rules)
            .parallelism(parallelism)
            .collect();
        let spread = env.sequence(0..n).broadcast().map(|i| i).parallelism(parallelism).collect();
        let global = env.sequence(0..n).global().map(|i| i).parallelism(parallelism).collect();
        let shuffled = env.sequence(0..n).shuffle().map(|i| i).parallelism(parallelism).collect();
        let chained = env.sequence(0..n).start_new_chain().map(|i| i).collect();
        let custom = env.sequence(0..n).partition_custom(|i, n| *i as usize % n).map(|i| i).collect();
        let rescaled = env.sequence(0..n).rescale().map(|i| i).parallelism(parallelism).collect();
        let result = env.execute("connected").unwrap();
        assert_eq!(result.collected(&mapped).unwrap().len() as u64, n + 1);
        assert_eq!(result.collected(&flat).unwrap().len() as u64, (0..n).map(|i| i % 3).sum::<u64>() + 1);
        let mut counted: Vec<_> = result.collected(&counted).unwrap();
        counted.sort_unstable();
        assert_eq!(counted, (0..n).map(|i| (i, i / 5 + 1)).collect::<Vec<_>>());
        let ruled = result.collected(&ruled).unwrap();
        assert_eq!(ruled.iter().filter(|i| (1000..2000).contains(*i)).count(), 10 * parallelism as usize);
        let ends: Vec<_> = ruled.iter().filter(|i| **i >= 2000).collect();
        assert_eq!(ends, vec![&2010; parallelism as usize], "each subtask ends once, behind both streams");
        assert_eq!(ruled.iter().filter(|i| **i < 1000).count() as u64, n);
        assert_eq!(result.collected(&spread).unwrap().len() as u64, n * u64::from(parallelism));
        for all in [global, shuffled, custom, chained, rescaled] {
            let mut all: Vec<u64> = result.collected(&all).unwrap();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
        }
    });
}

/// Even numbers go on, odd ones leave by the side.
#[derive(Clone)]
struct Sort(OutputTag<u64>);

impl ProcessFunction<u64> for Sort {
    type Out = u64;
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<u64>) {
        if item.is_multiple_of(2) { ctx.emit(item) } else { ctx.output(&self.0, item) }
    }
}

#[test]
fn side_outputs_split_a_stream_and_may_be_left_alone() {
    each(50, |env, random| {
        let n = random.random_range(0..500u64);
        let tag = OutputTag::new("odd");
        let even = env.sequence(0..n).process(Sort(tag.clone()));
        let odd = even.side_output(&tag).rebalance().collect();
        let even = even.map(|i| i).collect();
        let alone = env.sequence(0..n).process(Sort(OutputTag::new("nobody"))).collect();
        let result = env.execute("sides").unwrap();
        let sorted = |c| {
            let mut all: Vec<u64> = result.collected(c).unwrap();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&even), (0..n).filter(|i| i % 2 == 0).collect::<Vec<_>>());
        assert_eq!(sorted(&odd), (0..n).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert_eq!(sorted(&alone), sorted(&even));
    });
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let tag = OutputTag::new("odd");
    let even = env.sequence(0..3).process(Sort(tag.clone()));
    let (a, b) = (even.side_output(&tag), even.side_output(&tag));
    a.union(b).discard();
    even.discard();
    assert!(env.execute("twice").unwrap_err().to_string().contains("\"odd\" is taken twice"));
}

/// The mean of some numbers.
#[derive(Clone)]
struct Mean;

impl AggregateFunction<u64> for Mean {
    type Acc = (u64, u64);
    type Out = f64;
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&mut self, acc: &mut (u64, u64), item: u64) {
        self.merge(acc, (item, 1));
    }
    fn merge(&mut self, acc: &mut (u64, u64), more: (u64, u64)) {
        *acc = (acc.0 + more.0, acc.1 + more.1);
    }
    fn result(&mut self, acc: (u64, u64)) -> f64 {
        acc.0 as f64 / acc.1 as f64
    }
}

#[test]
fn aggregates_of_keys_are_those_of_a_naive_model() {
    each(100, |env, random| {
        let n = random.random_range(0..300u64);
        env.mode(ExecutionMode::Batch);
        let all: Vec<u64> = (0..n).map(|_| random.random_range(0..1000)).collect();
        let keyed = || env.from_collection(all.clone()).key_by(|i| i % 7);
        let (max, min) = (keyed().max(|i| i).collect(), keyed().min(|i| i).collect());
        let (greatest, least) = (keyed().max_by(Ord::cmp).collect(), keyed().min_by(Ord::cmp).collect());
        let mean = keyed().aggregate(Mean).collect();
        let list = keyed().fold(Vec::new(), |list: &mut Vec<u64>, i| list.push(i)).collect();
        let distinct = env.from_collection(all.clone()).key_by(|i| *i).distinct().collect();
        let windowed = env.from_collection(all.clone()).key_by(|i| *i % 7).without_combining().count().collect();
        let result = env.execute("aggregates").unwrap();
        let mut groups = BTreeMap::<u64, Vec<u64>>::new();
        all.iter().for_each(|i| groups.entry(i % 7).or_default().push(*i));
        let of = |f: fn(&Vec<u64>) -> u64| groups.iter().map(|(k, v)| (*k, f(v))).collect::<BTreeMap<_, _>>();
        let map = |c| result.collected::<(u64, u64)>(c).unwrap().into_iter().collect::<BTreeMap<_, _>>();
        assert_eq!(map(&max), of(|v| *v.iter().max().unwrap()));
        assert_eq!(map(&min), of(|v| *v.iter().min().unwrap()));
        assert_eq!(map(&windowed), of(|v| v.len() as u64));
        let set = |c| result.collected::<u64>(c).unwrap().into_iter().collect::<BTreeSet<_>>();
        assert_eq!(set(&greatest), of(|v| *v.iter().max().unwrap()).into_values().collect());
        assert_eq!(set(&least), of(|v| *v.iter().min().unwrap()).into_values().collect());
        let distinct = result.collected(&distinct).unwrap();
        assert_eq!(distinct.len(), distinct.iter().collect::<BTreeSet<_>>().len());
        assert_eq!(distinct.into_iter().collect::<BTreeSet<u64>>(), all.iter().copied().collect());
        for (key, mean) in result.collected(&mean).unwrap() {
            let group = &groups[&key];
            assert!((mean - group.iter().sum::<u64>() as f64 / group.len() as f64).abs() < 1e-9);
        }
        for (key, mut list) in result.collected(&list).unwrap() {
            let mut group = groups[&key].clone();
            list.sort_unstable();
            group.sort_unstable();
            assert_eq!(list, group);
        }
    });
}

#[test]
fn either_is_an_iterator_too() {
    let both: [Either<std::ops::Range<u8>, std::option::IntoIter<u8>>; 2] =
        [Either::Left(0..2), Either::Right(Some(9).into_iter())];
    assert_eq!(both.into_iter().flatten().collect::<Vec<_>>(), [0, 1, 9]);
}

#[test]
fn functions_that_wait_lose_nothing_and_keep_order_where_that_is_asked() {
    each(20, |env, random| {
        let n = random.random_range(0..300u64);
        let wait = |i: u64| Duration::from_micros(i * 7919 % 900);
        let capacity = random.random_range(1..40);
        let retries = |o: AsyncOptions| o.capacity(capacity).retries(2, Duration::ZERO);
        let source = || {
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            env.sequence(0..n).parallelism(1).assign_timestamps_and_watermarks(|i| *i as i64, strategy)
        };
        let asks = move |i: u64| async move {
            tokio::time::sleep(wait(i)).await;
            Ok::<_, String>(i + 1)
        };
        let ordered = source().map_async(retries(AsyncOptions::ordered()), asks).collect();
        // A window behind it: no watermark may pass what is under way.
        let windows = source()
            .map_async(retries(AsyncOptions::unordered()), asks)
            .key_by(|_| 0u8)
            .window(TumblingEventTimeWindows::of(Duration::from_millis(10)))
            .count()
            .collect();
        let blocking = source().map_blocking(AsyncOptions::unordered(), |i| Ok::<_, String>(i + 1)).collect();
        let result = env.execute("waits").unwrap();
        assert_eq!(result.collected(&ordered).unwrap(), (1..=n).collect::<Vec<_>>());
        let total: u64 = result.collected(&windows).unwrap().iter().map(|w| w.value).sum();
        assert_eq!(total, n);
        let mut blocking: Vec<u64> = result.collected(&blocking).unwrap();
        blocking.sort_unstable();
        assert_eq!(blocking, (1..=n).collect::<Vec<_>>());
    });
}

#[test]
fn a_function_that_fails_hangs_or_panics_is_tried_again_and_then_fails_the_job() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = tries.clone();
    let options = AsyncOptions::ordered().retries(3, Duration::from_millis(1));
    let second = env
        .from_collection([7u64])
        .map_async(options, move |i| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            async move { if n < 2 { Err("not yet") } else { Ok(i) } }
        })
        .collect();
    let result = env.execute("tries").unwrap();
    assert_eq!((result.collected(&second).unwrap(), tries.load(Ordering::Relaxed)), (vec![7], 3));

    let fails = |name: &str, part: &str| {
        let error = env.execute(name).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("asks"), "{error}");
    };
    env.sequence(0..9).map_async(options, |_| async { Err::<u64, _>("never") }).uid("asks").discard();
    fails("fails", "never (tried 4 times)");
    let short = AsyncOptions::unordered().timeout(Duration::from_millis(5));
    env.sequence(0..9).map_async(short, |_| std::future::pending::<Result<u64, String>>()).uid("asks").discard();
    fails("hangs", "no answer within 5ms");
    let patient = AsyncOptions::unordered();
    env.sequence(0..9).map_async(patient, |i| async move { panics(i) }).uid("asks").discard();
    fails("panics", "number 3 is bad");
    env.sequence(0..9).map_blocking(patient, panics).uid("asks").discard();
    fails("panics too", "number 3 is bad");
}

fn panics(i: u64) -> Result<u64, String> {
    assert!(i != 3, "number {i} is bad");
    Ok(i)
}
