//! A source whose splits come at a pace of their own, for the tests of alignment, and how their cases are drawn. It is
//! no test itself.
#![allow(dead_code, reason = "each test needs a part of it")]

use parking_lot::Mutex;
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
use thalweg_api::{Assignment, Enumerator, Polled, Reader, ReaderCx, Source, TaskFailure};
use thalweg_dataflow::{OpCx, Push, Time, task::TaskCell};
use thalweg_env::Env;
use thalweg_model::Moment;

pub const FAST: usize = 0;
pub const SLOW: usize = 1;
/// Records that a fast split gives in one call, and the time between two of them.
pub const RUN: u64 = 40;
pub const STEP: Time = 10;
pub const DRIFT: Time = 300;

/// How a split comes.
#[derive(Clone, Copy)]
pub struct Kind {
    pub records: u64,
    /// Between two records; 0: as fast as it goes.
    pub pause: Duration,
    /// From this record on it says nothing for so long.
    pub stall: Option<(u64, Duration)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    split: usize,
    from: u64,
}

/// Splits whose records were given, and up to what time; in order.
pub type Log = Arc<Mutex<Vec<(usize, Time)>>>;

#[derive(Clone)]
pub struct Paced {
    pub kinds: Vec<Kind>,
    /// Number of the first split in the log: sources may share one.
    pub first: usize,
    pub log: Log,
    /// Whoever asks for more waits until the fast split has ended, which may be that of another source.
    pub holds: bool,
    pub fast_ended: Arc<AtomicBool>,
    /// Does it say that it ends?
    pub bounded: bool,
}

pub struct Dealer {
    left: Vec<Part>,
    source: Paced,
    asked: u32,
    env: Env,
    cell: Rc<TaskCell>,
}

impl Enumerator for Dealer {
    type Split = Part;
    fn next(&mut self, _: u32) -> Result<Assignment<Part>, TaskFailure> {
        if self.left.is_empty() && self.source.holds && !self.source.fast_ended.load(Ordering::Relaxed) {
            self.asked += 1;
            assert!(self.asked < 100_000, "the fast split never ends");
            self.cell.wake_at(self.env.clock.now() + Duration::from_millis(10));
            return Ok(Assignment::Wait);
        }
        Ok(self.left.pop().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.left).map_err(|e| e.to_string())
    }
}

pub struct PacedReader {
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
        self.bounded
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Dealer, TaskFailure> {
        let mut left: Vec<_> = (0..self.kinds.len()).map(|split| Part { split, from: 0 }).collect();
        for (_, state) in cx.restored() {
            left = serde_json::from_slice(state).unwrap();
        }
        Ok(Dealer { left, source: self.clone(), asked: 0, env: cx.env().clone(), cell: cx.cell() })
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
            self.source.log.lock().push((self.source.first + part.split, at));
            out.emit(at);
            part.from += 1;
        }
        let rest = kind.stall.filter(|(record, _)| *record == part.from).map_or(kind.pause, |(_, long)| long);
        self.due.insert(part.split, now + rest);
        if part.from < kind.records {
            return Ok(Polled::Progress);
        }
        if self.source.first + part.split == FAST {
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

pub type Snapshot = BTreeMap<(String, u32), Vec<u8>>;

pub fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

pub fn each(default: u64, case: impl Fn(u64)) {
    for seed in seeds(default) {
        let run = std::panic::AssertUnwindSafe(|| case(seed));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

pub const MS: Duration = Duration::from_millis(1);

pub fn fast(records: u64) -> Kind {
    Kind { records, pause: Duration::ZERO, stall: None }
}
