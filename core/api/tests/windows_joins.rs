//! Joined windows of every kind against naive models: sessions of two streams, late records, triggers, windows by the
//! clock. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod seeded;

use rand::{Rng, rngs::SmallRng};
use seeded::{Record, each, environment, ms};
use std::collections::BTreeMap;
use thalweg_api::{
    CountTrigger, CustomWindows, Either, EventTimeTrigger, GlobalWindows, KeyedStream, PurgingTrigger,
    TumblingProcessingTimeWindows, WindowAssigner, WindowTime, prelude::*, testing,
};
use thalweg_dataflow::{key::KeySelect, pipe::Pipe};

/// Of a key in a window, the numbers of both streams.
type Groups = BTreeMap<(u64, i64, i64), (Vec<u64>, Vec<u64>)>;

fn records(random: &mut SmallRng, disorder: i64) -> Vec<Record> {
    let mut at = 0;
    let (n, step) = (random.random_range(0..200), random.random_range(1..15));
    (0..n)
        .map(|i| {
            at += random.random_range(0..=step);
            (random.random_range(0..4), at - random.random_range(0..=disorder), i)
        })
        .collect()
}

fn keyed(
    env: &Environment,
    all: &[Record],
    bound: i64,
) -> KeyedStream<Record, impl KeySelect<Record, Key = u64>, impl Pipe<Item = Record>> {
    let source = env.from_collection(all.to_vec()).parallelism(1);
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(bound));
    source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).key_by(|r: &Record| r.0)
}

/// What a co-group tells.
type Told = (u64, i64, i64, Vec<u64>, Vec<u64>);

fn tell(key: u64, window: TimeWindow, left: Vec<Record>, right: Vec<Record>) -> Option<Told> {
    let numbers = |mut all: Vec<Record>| {
        all.sort_unstable();
        all.iter().map(|r| r.2).collect::<Vec<u64>>()
    };
    Some((key, window.start, window.end, numbers(left), numbers(right)))
}

/// The last that is told of each window.
fn groups(told: Vec<Told>) -> Groups {
    told.into_iter().map(|(key, start, end, left, right)| ((key, start, end), (left, right))).collect()
}

/// Both streams' records, in the windows that a function of all of a key's times says.
fn model(a: &[Record], b: &[Record], windows: impl Fn(&[i64]) -> Vec<(i64, i64)>) -> Groups {
    let mut groups = Groups::new();
    for key in 0..4 {
        let mut times: Vec<i64> = a.iter().chain(b).filter(|r| r.0 == key).map(|r| r.1).collect();
        times.sort_unstable();
        for (start, end) in windows(&times) {
            let within = |all: &[Record]| {
                let mut all: Vec<_> = all.iter().filter(|r| r.0 == key && start <= r.1 && r.1 < end).collect();
                all.sort_unstable();
                all.iter().map(|r| r.2).collect::<Vec<u64>>()
            };
            let both = (within(a), within(b));
            if both != (vec![], vec![]) {
                groups.insert((key, start, end), both);
            }
        }
    }
    groups
}

fn sessions(gap: i64) -> impl Fn(&[i64]) -> Vec<(i64, i64)> {
    move |times| {
        let mut all: Vec<(i64, i64)> = Vec::new();
        for at in times {
            match all.last_mut() {
                Some((_, end)) if *at < *end => *end = at + gap,
                _ => all.push((*at, at + gap)),
            }
        }
        all
    }
}

fn tumbling(size: i64) -> impl Fn(&[i64]) -> Vec<(i64, i64)> {
    move |times| {
        let mut starts: Vec<i64> = times.iter().map(|at| at.div_euclid(size) * size).collect();
        starts.dedup();
        starts.into_iter().map(|start| (start, start + size)).collect()
    }
}

#[test]
fn sessions_of_two_streams_are_those_of_a_naive_model() {
    each(200, |seed, random| {
        let disorder = random.random_range(0..40);
        let (a, b) = (records(random, disorder), records(random, disorder));
        let gap = random.random_range(1..40);
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        let env = environment(seed, random, mode);
        let both = || keyed(&env, &a, disorder).join(keyed(&env, &b, disorder));
        let windows = EventTimeSessionWindows::with_gap(ms(gap));
        let grouped = both().window(windows).co_group(tell).collect();
        let pairs = both().window(windows).apply(|a, b| (a.0, a.2, b.2)).collect();
        let result = env.execute("sessions").unwrap();
        let told = result.collected(&grouped).unwrap();
        let wanted = model(&a, &b, sessions(gap));
        assert_eq!(told.len(), wanted.len(), "each fires once");
        assert_eq!(groups(told), wanted);
        let mut wanted: Vec<(u64, u64, u64)> = wanted
            .iter()
            .flat_map(|((key, ..), (left, right))| {
                left.iter().flat_map(move |a| right.iter().map(move |b| (*key, *a, *b)))
            })
            .collect();
        let mut pairs = result.collected(&pairs).unwrap();
        pairs.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(pairs, wanted);
    });
}

#[test]
fn what_is_late_but_allowed_gives_joined_windows_again_and_the_last_has_all() {
    each(200, |seed, random| {
        let disorder = random.random_range(1..80);
        let (a, b) = (records(random, disorder), records(random, disorder));
        let size = random.random_range(1..60);
        let env = environment(seed, random, ExecutionMode::Streaming);
        // The watermark runs ahead of what is still to come, and the lateness makes up for it.
        let both = || keyed(&env, &a, 0).join(keyed(&env, &b, 0));
        let windows = || both().window(TumblingEventTimeWindows::of(ms(size))).allowed_lateness(ms(disorder + 1));
        let panes = windows().co_group(tell).collect();
        let lists = windows().trigger(EventTimeTrigger).co_group(tell).collect();
        let result = env.execute("late").unwrap();
        let wanted = model(&a, &b, tumbling(size));
        for told in [&panes, &lists] {
            assert_eq!(groups(result.collected(told).unwrap()), wanted);
        }
    });
}

#[test]
fn what_is_too_late_for_joined_windows_comes_out_by_the_side_and_nothing_is_lost() {
    each(200, |seed, random| {
        let (a, b) = (records(random, 200), records(random, 200));
        let env = environment(seed, random, ExecutionMode::Streaming);
        let both = || keyed(&env, &a, 0).join(keyed(&env, &b, 0));
        let size = random.random_range(1..60);
        let tags = [(); 2].map(|()| OutputTag::<Either<Record, Record>>::new("late"));
        let panes =
            both().window(TumblingEventTimeWindows::of(ms(size))).side_output_late_data(&tags[0]).co_group(tell);
        let session = both().window(EventTimeSessionWindows::with_gap(ms(size))).side_output_late_data(&tags[1]);
        let session = session.co_group(tell);
        let late = [panes.side_output(&tags[0]).collect(), session.side_output(&tags[1]).collect()];
        let told = [panes.collect(), session.collect()];
        let result = env.execute("late").unwrap();
        for (told, late) in told.iter().zip(&late) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            for (.., l, r) in result.collected(told).unwrap() {
                left.extend(l);
                right.extend(r);
            }
            for record in result.collected(late).unwrap() {
                match record {
                    Either::Left(r) => left.push(r.2),
                    Either::Right(r) => right.push(r.2),
                }
            }
            left.sort_unstable();
            right.sort_unstable();
            assert_eq!(left, (0..a.len() as u64).collect::<Vec<_>>(), "each record once");
            assert_eq!(right, (0..b.len() as u64).collect::<Vec<_>>(), "each record once");
        }
    });
    // Something is late with these times.
    let env = testing::stepped(1, std::env::temp_dir(), 3).unwrap();
    env.mode(ExecutionMode::Streaming);
    let all: Vec<Record> = (0..2_000).map(|i| (0, if i % 1_000 == 999 { 0 } else { i as i64 * 10 }, i)).collect();
    let tag = OutputTag::<Either<Record, Record>>::new("late");
    let both = keyed(&env, &all, 0).join(keyed(&env, &all, 0)).window(EventTimeSessionWindows::with_gap(ms(5)));
    let told = both.side_output_late_data(&tag).co_group(tell);
    let late = told.side_output(&tag).collect();
    told.discard();
    assert!(!env.execute("late").unwrap().collected(&late).unwrap().is_empty());
}

#[test]
fn joined_windows_take_triggers_and_the_clock() {
    each(50, |seed, random| {
        let (a, b) = (records(random, 0), records(random, 0));
        let env = environment(seed, random, ExecutionMode::Streaming);
        let n = random.random_range(1..20);
        let both = || keyed(&env, &a, 0).join(keyed(&env, &b, 0));
        let each_n =
            both().window(GlobalWindows).trigger(PurgingTrigger::of(CountTrigger::of(n))).co_group(tell).collect();
        let plain = |all: &[Record]| env.from_collection(all.to_vec()).key_by(|r: &Record| r.0);
        let size = random.random_range(1..20);
        let windows = TumblingProcessingTimeWindows::of(ms(size));
        let by_clock = plain(&a).join(plain(&b)).window(windows).co_group(tell).collect();
        let result = env.execute("triggers").unwrap();
        let told = result.collected(&each_n).unwrap();
        assert!(told.iter().all(|(.., l, r)| (l.len() + r.len()) as u64 == n), "{told:?}");
        for key in 0..4 {
            let of_key = a.iter().chain(&b).filter(|r| r.0 == key).count() as u64;
            assert_eq!(told.iter().filter(|t| t.0 == key).count() as u64, of_key / n);
        }
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (_, start, end, l, r) in result.collected(&by_clock).unwrap() {
            assert!(start.rem_euclid(size) == 0 && end - start == size, "[{start}, {end})");
            left.extend(l);
            right.extend(r);
        }
        left.sort_unstable();
        right.sort_unstable();
        assert_eq!(left, (0..a.len() as u64).collect::<Vec<_>>());
        assert_eq!(right, (0..b.len() as u64).collect::<Vec<_>>());
    });
}

/// Windows from one multiple of ten to the next but one.
#[derive(Clone)]
struct Twenties;

impl WindowAssigner for Twenties {
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }
    fn assign(&self, at: i64, to: &mut Vec<TimeWindow>) {
        let ten = at.div_euclid(10) * 10;
        to.extend([ten - 10, ten].map(|start| TimeWindow { start, end: start + 20 }));
    }
}

#[test]
fn windows_of_ones_own_are_joined() {
    each(50, |seed, random| {
        let (a, b) = (records(random, 20), records(random, 20));
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        let env = environment(seed, random, mode);
        let both = keyed(&env, &a, 20).join(keyed(&env, &b, 20)).window(CustomWindows::of(Twenties));
        let told = both.co_group(tell).collect();
        let told = env.execute("own").unwrap().collected(&told).unwrap();
        let windows = |times: &[i64]| {
            let mut starts: Vec<i64> =
                times.iter().flat_map(|at| [at.div_euclid(10) * 10 - 10, at.div_euclid(10) * 10]).collect();
            starts.sort_unstable();
            starts.dedup();
            starts.into_iter().map(|start| (start, start + 20)).collect()
        };
        let wanted = model(&a, &b, windows);
        assert_eq!(told.len(), wanted.len(), "each fires once");
        assert_eq!(groups(told), wanted);
    });
}

#[test]
fn what_is_wrong_with_joined_windows_is_said_before_anything_runs() {
    let env = testing::stepped(1, std::env::temp_dir(), 1).unwrap();
    let plain = || env.from_collection([(1u64, 2i64, 3u64)]).key_by(|r: &Record| r.0);
    let sessions = |gap| EventTimeSessionWindows::with_gap(ms(gap));
    plain().join(plain()).window(sessions(0)).apply(|a, _| *a).discard();
    let error = env.execute("wrong").unwrap_err().to_string();
    for part in ["a window join needs event time on both streams", "gap is at least 1 ms", "tests/windows_joins.rs:"] {
        assert!(error.contains(part), "{part} not in {error}");
    }
}
