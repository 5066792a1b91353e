//! Splits that never end and become known while the job runs, as the partitions of a log do: each reaches a reader that
//! reads others already, and its records come once, also after a restore at another parallelism, and where readers wait
//! for each other. In steps drawn from a seed. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod paced;

use paced::{MS, Snapshot, each};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use thalweg_api::{
    Assignment, Enumerator, Polled, Reader, ReaderCx, Source, TaskFailure, operator::TaskCell, prelude::*,
    testing::Stepped,
};
use thalweg_dataflow::{OpCx, Push, Time};
use thalweg_env::Env;
use thalweg_model::Moment;

/// Each partition has given so many records before the log may end.
const ENOUGH: u64 = 60;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Partition {
    number: usize,
    from: u64,
}

#[derive(Clone)]
struct Log {
    partitions: usize,
    /// How many there are from the beginning.
    early: usize,
    /// Records of each partition that were given out in this run or before.
    given: Arc<Mutex<BTreeMap<usize, u64>>>,
    /// Who has read which.
    read_by: Arc<Mutex<BTreeSet<(u32, usize)>>>,
}

impl Log {
    fn new(partitions: usize, early: usize) -> Self {
        Self { partitions, early, given: Arc::default(), read_by: Arc::default() }
    }

    fn is_over(&self) -> bool {
        let given = self.given.lock();
        given.len() == self.partitions && given.values().all(|n| *n >= ENOUGH)
    }
}

struct Discovery {
    log: Log,
    assigned: usize,
    began: Moment,
    asked: u32,
    env: Env,
    cell: std::rc::Rc<TaskCell>,
}

impl Enumerator for Discovery {
    type Split = Partition;
    fn next(&mut self, _: u32) -> Result<Assignment<Partition>, TaskFailure> {
        self.asked += 1;
        assert!(self.asked < 200_000, "the log never ends: {:?}", self.log.given.lock());
        if self.assigned == self.log.partitions {
            return Ok(Assignment::NoMore);
        }
        let due = self.began + MS * 7 * self.assigned.saturating_sub(self.log.early - 1) as u32;
        if self.env.clock.now() < due {
            self.cell.wake_at(due);
            return Ok(Assignment::Wait);
        }
        self.assigned += 1;
        Ok(Assignment::Split(Partition { number: self.assigned - 1, from: 0 }))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.assigned).map_err(|e| e.to_string())
    }
}

struct LogReader {
    log: Log,
    me: u32,
    open: Vec<Partition>,
    reading: usize,
    due: Moment,
    given: u32,
}

impl Source for Log {
    type Item = (usize, u64);
    type Split = Partition;
    type Enumerator = Discovery;
    type Reader = LogReader;
    fn kind(&self) -> &'static str {
        "log-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Discovery, TaskFailure> {
        let assigned = cx.restored().map(|(_, state)| serde_json::from_slice(state).unwrap()).next().unwrap_or(0);
        let (log, env) = (self.clone(), cx.env().clone());
        Ok(Discovery { log, assigned, began: env.clock.now(), asked: 0, env, cell: cx.cell() })
    }
    fn reader(&self, cx: &OpCx) -> Result<LogReader, TaskFailure> {
        Ok(LogReader {
            log: self.clone(),
            me: cx.subtask,
            open: Vec::new(),
            reading: 0,
            due: Moment::default(),
            given: 0,
        })
    }
}

impl Reader for LogReader {
    type Item = (usize, u64);
    type Split = Partition;
    fn add(&mut self, partition: Partition) {
        self.log.given.lock().entry(partition.number).or_insert(partition.from);
        self.open.push(partition);
    }
    /// One record of one partition after the other, 1 ms apart.
    fn poll(&mut self, _: usize, out: &mut impl Push<(usize, u64)>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        if self.log.is_over() {
            self.open.remove(self.reading);
            self.reading = 0;
            return Ok(if self.open.is_empty() { Polled::Done } else { Polled::Ended });
        }
        if cx.now() < self.due {
            cx.wake_at(self.due);
            return Ok(Polled::Idle);
        }
        self.due = cx.now() + MS;
        self.given += 1;
        assert!(self.given < 20_000, "the log never ends: {:?}", self.log.given.lock());
        let partition = &mut self.open[self.reading];
        self.log.read_by.lock().insert((self.me, partition.number));
        out.emit((partition.number, partition.from));
        partition.from += 1;
        let mut given = self.log.given.lock();
        let known = given.entry(partition.number).or_default();
        *known = partition.from.max(*known);
        drop(given);
        self.reading = (self.reading + 1) % self.open.len();
        Ok(Polled::Progress)
    }
    fn unfinished(&self) -> Vec<Partition> {
        self.open.clone()
    }
    fn reading(&self) -> Option<usize> {
        (!self.open.is_empty()).then_some(self.reading)
    }
    fn wants_more(&self) -> bool {
        true
    }
    fn turn_to(&mut self, place: usize) -> bool {
        self.reading = place;
        true
    }
}

struct Case {
    seed: u64,
    parallelism: u32,
    aligned: bool,
    log: Log,
}

fn run(case: &Case, from: &Snapshot, checkpoint_at: Option<u64>) -> Result<Vec<(usize, u64)>, Snapshot> {
    let taken = Arc::default();
    let steps = Stepped { seed: case.seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
    let env = steps.environment(case.parallelism, std::env::temp_dir()).unwrap();
    env.mode(ExecutionMode::Streaming);
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let strategy = if case.aligned { strategy.with_alignment("log", MS * 20, MS * 3) } else { strategy };
    let records = env.source(case.log.clone()).uid("log");
    let timed = records.assign_timestamps_and_watermarks(|r| r.1 as Time, strategy).uid("times");
    let out = timed.collect().with_uid("out");
    let ended = env.execute("log");
    if let Some(snapshot) = taken.lock().unwrap().take() {
        return Err(snapshot);
    }
    Ok(ended.unwrap_or_else(|e| panic!("{e}")).collected(&out).unwrap())
}

#[test]
fn partitions_that_never_end_all_find_a_reader_and_lose_nothing() {
    each(80, |seed| {
        let mut random = SmallRng::seed_from_u64(seed);
        let partitions = random.random_range(1..9);
        let log = Log::new(partitions, random.random_range(1..=partitions));
        let mut case = Case { seed, parallelism: random.random_range(1..4), aligned: random.random(), log };
        let mut from = Snapshot::new();
        let mut at = random.random::<bool>().then(|| random.random_range(1..400));
        let all = loop {
            match run(&case, &from, at.take()) {
                Ok(all) => break all,
                Err(snapshot) => {
                    (from, case.parallelism) = (snapshot, random.random_range(1..4));
                    case.log.given.lock().clear();
                }
            }
        };
        let mut of = BTreeMap::<usize, Vec<u64>>::new();
        all.iter().for_each(|(partition, n)| of.entry(*partition).or_default().push(*n));
        assert_eq!(of.len(), partitions);
        for (partition, mut seen) in of {
            seen.sort_unstable();
            let n = seen.len() as u64;
            assert!(n >= ENOUGH, "partition {partition} gave {n}");
            assert!(seen.iter().copied().eq(0..n), "partition {partition}: {seen:?}");
        }
    });
}

#[test]
fn more_readers_than_before_have_partitions_at_once_and_fewer_have_all_of_them() {
    for (before, after, each) in [(1, 3, [2, 2, 2].as_slice()), (3, 1, &[6]), (2, 4, &[2, 2, 1, 1]), (4, 3, &[2, 2, 2])]
    {
        let mut case = Case { seed: 1, parallelism: before, aligned: false, log: Log::new(6, 6) };
        // Late enough for all to be dealt out, and before the log ends.
        let from = (1..100).find_map(|n| {
            case.log.given.lock().clear();
            case.log.read_by.lock().clear();
            let snapshot = run(&case, &Snapshot::new(), Some(n * 20)).err()?;
            (case.log.read_by.lock().len() == 6).then_some(snapshot)
        });
        let from = from.unwrap_or_else(|| panic!("no checkpoint had all partitions"));
        case.log.given.lock().clear();
        case.log.read_by.lock().clear();
        case.parallelism = after;
        assert!(run(&case, &from, None).is_ok());
        let mut of = BTreeMap::<u32, usize>::new();
        case.log.read_by.lock().iter().for_each(|(reader, _)| *of.entry(*reader).or_default() += 1);
        let mut shares: Vec<usize> = of.into_values().collect();
        shares.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(shares, each, "{before} readers to {after}");
    }
}

/// Partitions that each end after so many records in order, several at a time.
#[derive(Clone)]
struct Bounded {
    partitions: u64,
    records: u64,
}

struct Deals {
    left: Vec<Partition>,
}

impl Enumerator for Deals {
    type Split = Partition;
    fn next(&mut self, _: u32) -> Result<Assignment<Partition>, TaskFailure> {
        Ok(self.left.pop().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}

struct InTurn {
    records: u64,
    open: Vec<Partition>,
    next: usize,
}

impl Source for Bounded {
    type Item = (usize, u64);
    type Split = Partition;
    type Enumerator = Deals;
    type Reader = InTurn;
    fn kind(&self) -> &'static str {
        "bounded-log"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, _: &OpCx) -> Result<Deals, TaskFailure> {
        Ok(Deals { left: (0..self.partitions).map(|n| Partition { number: n as usize, from: 0 }).collect() })
    }
    fn reader(&self, _: &OpCx) -> Result<InTurn, TaskFailure> {
        Ok(InTurn { records: self.records, open: Vec::new(), next: 0 })
    }
}

impl Reader for InTurn {
    type Item = (usize, u64);
    type Split = Partition;
    fn add(&mut self, partition: Partition) {
        self.open.push(partition);
    }
    /// Some records of one partition after the other.
    fn poll(&mut self, _: usize, out: &mut impl Push<(usize, u64)>, _: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let partition = &mut self.open[self.next];
        let until = self.records.min(partition.from + 7);
        (partition.from..until).for_each(|n| out.emit((partition.number, n)));
        partition.from = until;
        if until == self.records {
            self.open.remove(self.next);
            self.next = 0;
            return Ok(if self.open.is_empty() { Polled::Done } else { Polled::Ended });
        }
        self.next = (self.next + 1) % self.open.len();
        Ok(Polled::Progress)
    }
    fn unfinished(&self) -> Vec<Partition> {
        self.open.clone()
    }
    fn reading(&self) -> Option<usize> {
        (!self.open.is_empty()).then_some(self.next)
    }
    fn wants_more(&self) -> bool {
        true
    }
}

#[test]
fn no_partition_is_late_for_another_of_the_same_time() {
    let program = |env: &Environment| {
        env.mode(ExecutionMode::Streaming);
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        let timed = env
            .source(Bounded { partitions: 6, records: 300 })
            .assign_timestamps_and_watermarks(|r| r.1 as Time, strategy);
        let counts = timed.key_by(|r| r.0).window(TumblingEventTimeWindows::of(MS * 10)).count().collect();
        let counts = env.execute("log").unwrap().collected(&counts).unwrap();
        assert_eq!(counts.iter().map(|w| w.value).sum::<u64>(), 6 * 300);
    };
    each(60, |seed| {
        let parallelism = SmallRng::seed_from_u64(seed).random_range(1..5);
        program(&thalweg_api::testing::stepped(parallelism, std::env::temp_dir(), seed).unwrap());
    });
    for parallelism in [1, 2, 3] {
        program(&thalweg_api::testing::environment(parallelism, std::env::temp_dir()).unwrap());
    }
}
