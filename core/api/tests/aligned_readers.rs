//! Readers that wait for each other: a fast one stays within its bound of a slow one, and nobody waits for one that ends,
//! is idle or has nothing to read. In steps drawn from a seed; who waits must let the clock go on, so one that spins
//! hangs the run. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    Assignment, Enumerator, Polled, ProcessContext, ProcessFunction, Reader, ReaderCx, Source, TaskFailure, prelude::*,
    testing::Stepped,
};
use thalweg_dataflow::{OpCx, Push, Time, task::TaskCell};
use thalweg_env::Env;
use thalweg_model::Moment;

const FAST: usize = 0;
const SLOW: usize = 1;
/// Records that a fast split gives in one call, and the time between two of them.
const RUN: u64 = 40;
const STEP: Time = 10;
const DRIFT: Time = 300;

/// How a split comes.
#[derive(Clone, Copy)]
struct Kind {
    records: u64,
    /// Between two records; 0: as fast as it goes.
    pause: Duration,
    /// From this record on it says nothing for so long.
    stall: Option<(u64, Duration)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    split: usize,
    from: u64,
}

/// Splits that were given, and up to what time; in order.
type Log = Arc<Mutex<Vec<(usize, Time)>>>;

#[derive(Clone)]
struct Paced {
    kinds: Vec<Kind>,
    log: Log,
    /// Whoever asks for more waits until the fast split has ended.
    holds: bool,
    fast_ended: Arc<AtomicBool>,
}

struct Dealer {
    left: Vec<Part>,
    source: Paced,
    env: Env,
    cell: Rc<TaskCell>,
}

impl Enumerator for Dealer {
    type Split = Part;
    fn next(&mut self, _: u32) -> Result<Assignment<Part>, TaskFailure> {
        if self.left.is_empty() && self.source.holds && !self.source.fast_ended.load(Ordering::Relaxed) {
            self.cell.wake_at(self.env.clock.now() + Duration::from_millis(10));
            return Ok(Assignment::Wait);
        }
        Ok(self.left.pop().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.left).map_err(|e| e.to_string())
    }
}

struct PacedReader {
    source: Paced,
    open: Vec<Part>,
    reading: usize,
    due: BTreeMap<usize, Moment>,
}

impl Source for Paced {
    type Item = Time;
    type Split = Part;
    type Enumerator = Dealer;
    type Reader = PacedReader;
    fn kind(&self) -> &'static str {
        "paced-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Dealer, TaskFailure> {
        let mut left: Vec<_> = (0..self.kinds.len()).map(|split| Part { split, from: 0 }).collect();
        for (_, state) in cx.restored() {
            left = serde_json::from_slice(state).unwrap();
        }
        Ok(Dealer { left, source: self.clone(), env: cx.env().clone(), cell: cx.cell() })
    }
    fn reader(&self, _: &OpCx) -> Result<PacedReader, TaskFailure> {
        Ok(PacedReader { source: self.clone(), open: Vec::new(), reading: 0, due: BTreeMap::new() })
    }
}

impl Reader for PacedReader {
    type Item = Time;
    type Split = Part;
    fn add(&mut self, split: Part) {
        self.open.push(split);
        self.reading = self.open.len() - 1;
    }
    fn poll(&mut self, _: usize, out: &mut impl Push<Time>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let part = &mut self.open[self.reading];
        let kind = self.source.kinds[part.split];
        let now = cx.now();
        let due = *self.due.entry(part.split).or_insert_with(|| match kind.stall {
            Some((0, long)) if part.from == 0 => now + long,
            _ => now,
        });
        if now < due {
            cx.wake_at(due);
            return Ok(Polled::Idle);
        }
        let n = if kind.pause.is_zero() { RUN } else { 1 };
        for _ in 0..n.min(kind.records - part.from) {
            let at = part.from as Time * STEP;
            self.source.log.lock().push((part.split, at));
            out.emit(at);
            part.from += 1;
        }
        let rest = kind.stall.filter(|(record, _)| *record == part.from).map_or(kind.pause, |(_, long)| long);
        self.due.insert(part.split, now + rest);
        if part.from < kind.records {
            return Ok(Polled::Progress);
        }
        if part.split == FAST {
            self.source.fast_ended.store(true, Ordering::Relaxed);
        }
        self.open.remove(self.reading);
        self.reading = self.open.len().saturating_sub(1);
        Ok(if self.open.is_empty() { Polled::Done } else { Polled::Ended })
    }
    fn unfinished(&self) -> Vec<Part> {
        self.open.clone()
    }
    fn reading(&self) -> Option<usize> {
        (!self.open.is_empty()).then_some(self.reading)
    }
    fn at_once(&self) -> bool {
        false
    }
    fn turn_to(&mut self, place: usize) -> bool {
        self.reading = place;
        true
    }
}

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
    let source = Paced { kinds: case.kinds.clone(), log: log.clone(), holds: case.holds, fast_ended: Arc::default() };
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

type Snapshot = BTreeMap<(String, u32), Vec<u8>>;

fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

fn each(default: u64, case: impl Fn(u64)) {
    for seed in seeds(default) {
        let run = std::panic::AssertUnwindSafe(|| case(seed));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

const MS: Duration = Duration::from_millis(1);

fn fast(records: u64) -> Kind {
    Kind { records, pause: Duration::ZERO, stall: None }
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
    times().assign_timestamps_and_watermarks(|t| *t, strategy(1)).discard();
    times().assign_timestamps_and_watermarks(|t| *t, strategy(1)).discard();
    let error = env.execute("two sources").unwrap_err().to_string();
    assert!(error.contains("a group is the readers of one"), "{error}");
}
