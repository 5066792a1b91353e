//! How cases are drawn and run, and a source with disorder and late records of which the model knows what becomes of
//! them, however the run goes: for the tests of operators against naive models. It is no test itself.
//!
//! A split gives its records in phases. A later phase begins when each subtask of the operator under test has passed on
//! the watermark that all earlier ones together allow, which a [`Probe`] behind it notices.
#![allow(dead_code, reason = "each test needs a part of it")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    Assignment, DataStream, Enumerator, Environment, NO_TIME, Polled, Reader, ReaderCx, Source, TaskFailure, Time,
    WatermarkStrategy, testing,
};
use thalweg_dataflow::{
    OpCx, Push,
    pipe::Transform,
    push::{Mark, Operator},
};

/// (key, time, number). The number divided by 10,000 is the split's.
pub type Record = (u64, Time, u64);

pub fn ms(n: Time) -> Duration {
    Duration::from_millis(n as u64)
}

pub fn cases(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (0..n).collect()
}

pub fn each(default: u64, case: impl Fn(&Environment, &mut SmallRng)) {
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

/// A record, and what is certain of the watermark of whoever gets it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub record: Record,
    /// It is at least this: the phase waits for it.
    pub at_least: Time,
    /// It is at most this: the split's own has come no further.
    pub at_most: Time,
}

impl Sent {
    /// Does it come before the watermark is `until`? Nothing, where that is not certain.
    pub fn before(&self, until: Time) -> Option<bool> {
        if self.at_most < until {
            return Some(true);
        }
        (self.at_least >= until).then_some(false)
    }
}

/// What a source gives.
#[derive(Clone)]
pub struct Drawn {
    /// By split and phase.
    splits: Vec<Vec<Vec<Record>>>,
    /// What each phase waits for.
    waits: Vec<Time>,
    bound: Time,
    pub sent: Vec<Sent>,
}

/// How far a split has come while it is drawn.
#[derive(Clone)]
struct Course {
    now: Time,
    max: Time,
}

/// Some sources whose records meet. Records come up to `bound` later than others of their split, and some more than that:
/// of those and of all others `certain` says which may be. In batch mode nothing is late. A crowd is of one key, dense and
/// eight times as large.
pub fn draw<const N: usize>(
    random: &mut SmallRng,
    bound: Time,
    batch: bool,
    crowd: bool,
    mut certain: impl FnMut(&Sent) -> bool,
) -> [Drawn; N] {
    let phases = random.random_range(1..4);
    let (most, keys, step) = if crowd { (250, 1, 2) } else { (30, 5, 15) };
    let mut all = std::array::from_fn(|_| {
        let splits = vec![vec![Vec::new(); phases]; random.random_range(1..3)];
        Drawn { splits, waits: Vec::new(), bound, sent: Vec::new() }
    });
    let mut courses = all.each_ref().map(|d| vec![Course { now: 0, max: NO_TIME }; d.splits.len()]);
    for phase in 0..phases {
        let lowest = courses.iter().flatten().map(|c| c.max).min().unwrap();
        let heard = if lowest == NO_TIME { NO_TIME } else { lowest - bound - 1 };
        let front = courses.iter().flatten().map(|c| c.now).max().unwrap();
        for (drawn, courses) in all.iter_mut().zip(&mut courses) {
            drawn.waits.push(if batch { NO_TIME } else { heard });
            for (split, course) in courses.iter_mut().enumerate() {
                course.now = course.now.max(front - random.random_range(0..80));
                for i in 0..random.random_range(0..most) {
                    // The first of a phase are nearest to what it waits for: late for some of their windows only.
                    let at = if heard != NO_TIME && random.random_bool(if i < 5 { 0.6 } else { 0.1 }) {
                        let far = if random.random() { 30 } else { 200 };
                        heard - random.random_range(0..far)
                    } else {
                        course.now += random.random_range(0..step);
                        course.now - random.random_range(0..=bound)
                    };
                    let at_most = if course.max == NO_TIME { NO_TIME } else { course.max - bound - 1 };
                    let record = (random.random_range(0..keys), at, split as u64 * 10_000 + drawn.sent.len() as u64);
                    let sent = match batch {
                        true => Sent { record, at_least: NO_TIME, at_most: NO_TIME },
                        false => Sent { record, at_least: heard, at_most },
                    };
                    if certain(&sent) {
                        course.max = course.max.max(at);
                        drawn.splits[split][phase].push(record);
                        drawn.sent.push(sent);
                    }
                }
            }
        }
    }
    all
}

impl Drawn {
    /// The stream of it, with event time.
    pub fn stream(&self, env: &Environment, seen: &Seen) -> DataStream<Record> {
        let source =
            env.source(Phased { splits: self.clone(), seen: seen.clone() }).parallelism(self.splits.len() as u32);
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(self.bound));
        source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).boxed()
    }
}

/// The watermark that each subtask of an operator has passed on.
#[derive(Clone)]
pub struct Seen(Arc<[AtomicI64]>);

impl Seen {
    pub fn by(parallelism: u32) -> Self {
        Self((0..parallelism).map(|_| AtomicI64::new(NO_TIME)).collect())
    }

    fn everywhere(&self, at: Time) -> bool {
        self.0.iter().all(|seen| seen.load(Ordering::Acquire) >= at)
    }
}

/// Behind the operator, in its chain: notes what it passes on.
#[derive(Clone)]
pub struct Probe(pub Seen);

pub struct ProbeOp {
    seen: Seen,
    subtask: usize,
}

impl<T: 'static> Transform<T> for Probe {
    type Out = T;
    type Op = ProbeOp;
    fn open(self, cx: &OpCx) -> Result<ProbeOp, TaskFailure> {
        Ok(ProbeOp { seen: self.0, subtask: cx.subtask as usize })
    }
}

impl<T: 'static> Operator<T> for ProbeOp {
    type Out = T;
    fn item(&mut self, at: Time, item: T, out: &mut impl Push<T>) {
        out.push(at, item);
    }
    fn passes(&mut self, mark: Mark) -> Option<Mark> {
        if let Mark::At(at) = mark {
            self.seen.0[self.subtask].fetch_max(at, Ordering::Release);
        }
        Some(mark)
    }
}

/// A reader for each split.
#[derive(Clone)]
struct Phased {
    splits: Drawn,
    seen: Seen,
}

struct Dealer(Vec<u32>);

impl Enumerator for Dealer {
    type Split = u32;
    fn next(&mut self, reader: u32) -> Result<Assignment<u32>, TaskFailure> {
        let mine = self.0.iter().position(|split| *split == reader);
        Ok(mine.map_or(Assignment::NoMore, |i| Assignment::Split(self.0.swap_remove(i))))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Err("no checkpoint is taken here".to_owned())
    }
}

struct PhasedReader {
    source: Phased,
    split: Option<u32>,
    phase: usize,
    at: usize,
}

impl Source for Phased {
    type Item = Record;
    type Split = u32;
    type Enumerator = Dealer;
    type Reader = PhasedReader;
    fn kind(&self) -> &'static str {
        "phased-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, _: &OpCx) -> Result<Dealer, TaskFailure> {
        Ok(Dealer((0..self.splits.splits.len() as u32).collect()))
    }
    fn reader(&self, _: &OpCx) -> Result<PhasedReader, TaskFailure> {
        Ok(PhasedReader { source: self.clone(), split: None, phase: 0, at: 0 })
    }
}

impl Reader for PhasedReader {
    type Item = Record;
    type Split = u32;
    fn add(&mut self, split: u32) {
        self.split = Some(split);
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<Record>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let Drawn { splits, waits, .. } = &self.source.splits;
        let Some(phases) = self.split.map(|split| &splits[split as usize]) else { return Ok(Polled::Done) };
        let Some(phase) = phases.get(self.phase) else { return Ok(Polled::Done) };
        if !self.source.seen.everywhere(waits[self.phase]) {
            cx.wake_at(cx.now() + Duration::from_millis(1));
            return Ok(Polled::Idle);
        }
        for record in phase.iter().skip(self.at).take(budget) {
            out.emit(*record);
            self.at += 1;
        }
        if self.at == phase.len() {
            (self.phase, self.at) = (self.phase + 1, 0);
        }
        Ok(Polled::Progress)
    }
    fn unfinished(&self) -> Vec<u32> {
        self.split.into_iter().collect()
    }
}
