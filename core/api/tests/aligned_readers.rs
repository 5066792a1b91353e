//! Readers that wait for each other: a fast one stays within its bound of a slow one, and nobody waits for one that ends,
//! is idle or has nothing to read. In steps drawn from a seed; who waits must let the clock go on, so one that spins
//! hangs the run. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod paced;

use paced::{DRIFT, FAST, Kind, Log, MS, Paced, RUN, SLOW, STEP, Snapshot, each, fast, seeds};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{sync::Arc, time::Duration};
use thalweg_api::{ProcessContext, ProcessFunction, prelude::*, testing::Stepped};
use thalweg_dataflow::Time;

/// Says whether a record is late.
#[derive(Clone)]
struct Late;

impl ProcessFunction<Time> for Late {
    type Out = bool;
    fn process(&mut self, at: Time, ctx: &mut impl ProcessContext<bool>) {
        ctx.emit(at <= ctx.watermark());
    }
}

struct Case {
    seed: u64,
    parallelism: u32,
    kinds: Vec<Kind>,
    idleness: Option<Duration>,
    holds: bool,
    aligned: bool,
}

/// How a run ended: what was given in which order, and the checkpoint if that ended it.
fn run(case: &Case, from: &Snapshot, checkpoint_at: Option<u64>) -> (Vec<(usize, Time)>, Option<Snapshot>) {
    let log = Log::default();
    let source = Paced {
        kinds: case.kinds.clone(),
        first: 0,
        log: log.clone(),
        holds: case.holds,
        fast_ended: Arc::default(),
        bounded: true,
    };
    let taken = Arc::default();
    let steps = Stepped { seed: case.seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
    let env = steps.environment(case.parallelism, std::env::temp_dir()).unwrap();
    env.mode(ExecutionMode::Streaming);
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let strategy = match case.idleness {
        Some(after) => strategy.with_idleness(after),
        None => strategy,
    };
    let strategy = if case.aligned {
        strategy.with_alignment("readers", Duration::from_millis(DRIFT as u64), Duration::from_millis(3))
    } else {
        strategy
    };
    let times = env.source(source).uid("paced");
    let timed = times.assign_timestamps_and_watermarks(|t| *t, strategy).uid("times");
    let late = timed.process(Late).uid("late").collect().with_uid("out");
    let ended = env.execute("paced");
    let log = std::mem::take(&mut *log.lock());
    if let Some(snapshot) = taken.lock().unwrap().take() {
        return (log, Some(snapshot));
    }
    let ended = ended.unwrap_or_else(|e| panic!("{e}"));
    let late = ended.collected(&late).unwrap();
    assert_eq!(late.len() as u64, case.kinds.iter().map(|k| k.records).sum::<u64>());
    assert!(!late.contains(&true), "nothing is late");
    (log, None)
}

/// The furthest that the fast split was ahead of the slow one, while that had records left. Both have given up to these
/// times before.
fn furthest(log: &[(usize, Time)], slow_records: u64, reached: &mut [Time; 2]) -> Time {
    let mut furthest = 0;
    for (split, at) in log {
        reached[*split] = *at;
        if *split == FAST && reached[SLOW] < (slow_records as Time - 1) * STEP {
            furthest = furthest.max(at - reached[SLOW]);
        }
    }
    furthest
}

#[test]
fn a_fast_reader_stays_near_a_slow_one_also_when_a_checkpoint_ends_both() {
    // One call goes too far before it is looked at again; until the slow one has a watermark the fast one is alone.
    let bound = 2 * (DRIFT + RUN as Time * STEP);
    let restored = std::cell::Cell::new(0);
    let run_all = |seed: u64, aligned: bool| {
        let mut random = SmallRng::seed_from_u64(seed);
        let slow = Kind { records: 300, pause: MS * random.random_range(1..4), stall: None };
        let mut case =
            Case { seed, parallelism: 2, kinds: vec![fast(3000), slow], idleness: None, holds: false, aligned };
        let (mut from, mut reached, mut furthest_ever) = (Snapshot::new(), [0; 2], 0);
        for attempt in 0..3 {
            let (log, taken) = run(&case, &from, (attempt < 2).then(|| random.random_range(100..4000)));
            furthest_ever = furthest_ever.max(furthest(&log, 300, &mut reached));
            let Some(snapshot) = taken else { break };
            restored.set(restored.get() + 1);
            from = snapshot;
            case.parallelism = random.random_range(1..4);
            // What was given after the barrier is given again.
            reached[FAST] = Time::MIN / 2;
        }
        furthest_ever
    };
    each(30, |seed| {
        let ahead = run_all(seed, true);
        assert!(ahead <= bound, "{ahead} ms ahead, {bound} are allowed");
    });
    assert!(restored.get() > 10 || seeds(30).len() < 30, "{} restores", restored.get());
    assert!(run_all(1, false) > 5 * bound, "without alignment it runs away");
}

#[test]
fn nobody_waits_for_a_reader_that_ends_is_idle_or_has_nothing() {
    let long = Duration::from_secs(3600);
    let kinds = |slow: Kind| vec![fast(2000), slow];
    let slow = |records, stall| Kind { records, pause: MS, stall };
    each(20, |seed| {
        let case = |kinds, idleness, holds, parallelism| {
            let case = Case { seed, parallelism, kinds, idleness, holds, aligned: true };
            let (log, _) = run(&case, &Snapshot::new(), None);
            let last = |split| log.iter().rposition(|(s, _)| *s == split).unwrap();
            (last(FAST), last(SLOW))
        };
        // It ends early.
        case(kinds(slow(20, None)), None, false, 2);
        // It is idle for an hour, and the strategy says that it does not count.
        let (fast_end, slow_end) = case(kinds(slow(40, Some((20, long)))), Some(MS * 50), false, 2);
        assert!(fast_end < slow_end, "the fast one does not wait for the idle one");
        // It has a split, and no record for an hour.
        let (fast_end, slow_end) = case(kinds(slow(5, Some((0, long)))), None, false, 2);
        assert!(fast_end < slow_end, "the fast one does not wait for one that has begun nothing");
        // The slow one has ended its split and waits for another one, as does a third reader that never had any.
        case(kinds(slow(20, None)), None, true, 3);
    });
}

/// Reads files of times, one millisecond a line. Tells which were given in which order.
fn read_files(folder: &std::path::Path, seed: u64, aligned: bool, from: &Snapshot) -> (Vec<(usize, Time)>, Snapshot) {
    let (log, taken) = (Log::default(), Arc::default());
    let checkpoint_at = from.is_empty().then_some(12 + seed % 12);
    let steps = Stepped { seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
    let env = steps.environment(if from.is_empty() { 3 } else { 1 }, std::env::temp_dir()).unwrap();
    env.mode(ExecutionMode::Streaming);
    let mut strategy = WatermarkStrategy::for_monotonous_timestamps();
    if aligned {
        strategy = strategy.with_alignment("files", Duration::from_millis(DRIFT as u64), MS);
    }
    let given = log.clone();
    let lines = env.read_text(folder).uid("files").map(move |line| {
        let (file, at) = line.split_once(' ').unwrap();
        let record = (file.parse().unwrap(), at.parse().unwrap());
        given.lock().push(record);
        record
    });
    let timed = lines.assign_timestamps_and_watermarks(|(_, at): &(usize, Time)| *at, strategy).uid("times");
    timed.discard();
    let ended = env.execute("files");
    let snapshot = taken.lock().unwrap().take();
    assert!(snapshot.is_some() || ended.is_ok(), "{:?}", ended.err());
    (std::mem::take(&mut *log.lock()), snapshot.unwrap_or_default())
}

#[test]
fn half_read_files_of_one_reader_are_read_in_turns() {
    const LINES: Time = 6000;
    let folder = tempfile::tempdir().unwrap();
    for file in 0..3 {
        let text: String = (0..LINES).map(|at| format!("{file} {at}\n")).collect();
        std::fs::write(folder.path().join(file.to_string()), text).unwrap();
    }
    // A call gives up to 256 lines.
    let bound = DRIFT + 2 * 256;
    each(20, |seed| {
        for aligned in [true, false] {
            let (_, snapshot) = read_files(folder.path(), seed, true, &Snapshot::new());
            assert!(!snapshot.is_empty(), "there is something left");
            let (log, _) = read_files(folder.path(), seed, aligned, &snapshot);
            // Where each begins, and nothing is missing.
            let first = |file| log.iter().find(|(f, _)| *f == file).map_or(LINES, |(_, at)| *at);
            let mut next = [first(0), first(1), first(2)];
            assert!(next.iter().all(|at| (1..LINES).contains(at)), "each is half-read: {next:?}");
            let mut furthest = 0;
            for (file, at) in &log {
                assert_eq!(*at, next[*file]);
                next[*file] += 1;
                furthest = furthest.max(at - next.iter().min().unwrap());
            }
            assert_eq!(next, [LINES; 3]);
            assert_eq!(furthest <= bound, aligned, "{furthest} ms ahead, {bound} are allowed");
        }
    });
}

#[test]
fn alignment_where_it_cannot_be_is_refused_with_its_place() {
    let env = Stepped::default().environment(2, std::env::temp_dir()).unwrap();
    let strategy =
        |ms| WatermarkStrategy::for_monotonous_timestamps().with_alignment("g", MS, Duration::from_millis(ms));
    let times = || env.from_collection([1i64, 2]);
    times().rebalance().assign_timestamps_and_watermarks(|t| *t, strategy(1)).discard();
    let error = env.execute("behind an exchange").unwrap_err().to_string();
    assert!(error.contains("right behind a source") && error.contains("aligned_readers.rs:"), "{error}");
    times().assign_timestamps_and_watermarks(|t| *t, strategy(0)).discard();
    let error = env.execute("no interval").unwrap_err().to_string();
    assert!(error.contains("update interval of nothing"), "{error}");
    let [one, other] = times().split();
    one.assign_timestamps_and_watermarks(|t| *t, strategy(1)).discard();
    let group = WatermarkStrategy::for_monotonous_timestamps().with_alignment("other", MS, MS);
    other.assign_timestamps_and_watermarks(|t| *t, group).discard();
    let error = env.execute("two groups").unwrap_err().to_string();
    assert!(
        error.contains("group \"g\", and are to be in \"other\"") && error.contains("aligned_readers.rs:"),
        "{error}"
    );
}
