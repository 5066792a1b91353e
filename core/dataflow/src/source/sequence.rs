//! Numbers in a row, as fast as they go or at a rate.

use super::{Polled, Reader, ReaderCx, Source, splits::Known};
use crate::{build::OpCx, push::Push};
use serde::{Deserialize, Serialize};
use std::{ops::Range, time::Duration};
use thalweg_model::{Moment, TaskFailure};

/// A source of the numbers of a range.
#[derive(Clone)]
pub struct Sequence {
    range: Range<u64>,
    rate: Option<f64>,
    interleaved: bool,
}

/// Every `step`-th number from `next` up to `end`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Numbers {
    next: u64,
    end: u64,
    step: u64,
}

impl Sequence {
    /// The numbers of the range. One up to `u64::MAX` counts as unbounded.
    pub fn new(range: Range<u64>) -> Self {
        Self { range, rate: None, interleaved: false }
    }

    /// So many a second, all readers together. They come in order of size within each reader, and about so overall.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Each reader has every so-manieth number, so that all readers together go up: for numbers that stand for times. Else
    /// each has a part of the range, but where there is a rate or no end.
    pub fn interleaved(mut self) -> Self {
        self.interleaved = true;
        self
    }
}

/// A range in about four parts for each reader, so that a fast one helps a slow one out.
pub(super) fn parts(range: Range<u64>, readers: u32) -> Vec<Range<u64>> {
    let (n, parts) = (range.end.saturating_sub(range.start), u64::from(readers.max(1)) * 4);
    let at = |i: u64| range.start + (u128::from(n) * u128::from(i) / u128::from(parts)) as u64;
    (0..parts).map(|i| at(i)..at(i + 1)).filter(|r| !r.is_empty()).collect()
}

impl Source for Sequence {
    type Item = u64;
    type Split = Numbers;
    type Enumerator = Known<Numbers>;
    type Reader = SequenceReader;
    fn kind(&self) -> &'static str {
        "sequence-source"
    }
    fn is_bounded(&self) -> bool {
        self.range.end != u64::MAX
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
        let readers = cx.readers();
        let Range { start, end } = self.range;
        let make = || {
            Ok(if self.interleaved || self.rate.is_some() || !self.is_bounded() {
                // Each reader has every readers-th number, so that together they go up.
                let step = u64::from(readers);
                (0..step).map(|i| Numbers { next: start.saturating_add(i), end, step }).collect()
            } else {
                parts(self.range.clone(), readers)
                    .into_iter()
                    .map(|r| Numbers { next: r.start, end: r.end, step: 1 })
                    .collect()
            })
        };
        Known::open(cx, make, |_| 0)
    }
    fn reader(&self, cx: &OpCx) -> Result<Self::Reader, TaskFailure> {
        let each = self.rate.map(|r| (r / f64::from(cx.parallelism)).max(1e-6));
        Ok(SequenceReader { splits: Vec::new(), rate: each, began: None, given: 0 })
    }
}

/// Reads parts of a sequence.
pub struct SequenceReader {
    splits: Vec<Numbers>,
    rate: Option<f64>,
    began: Option<Moment>,
    given: u64,
}

impl SequenceReader {
    /// How many of `budget` are due, and when the next one is.
    fn due(&mut self, budget: usize, now: Moment) -> (usize, Option<Moment>) {
        let Some(rate) = self.rate else { return (budget, None) };
        let began = *self.began.get_or_insert(now);
        let due = (now.since(began).as_secs_f64() * rate) as u64 + 1;
        let n = due.saturating_sub(self.given).min(budget as u64) as usize;
        let next = Duration::try_from_secs_f64((self.given + n as u64) as f64 / rate).unwrap_or(Duration::MAX);
        (n, Some(began + next))
    }
}

impl Reader for SequenceReader {
    type Item = u64;
    type Split = Numbers;
    fn add(&mut self, split: Numbers) {
        self.splits.push(split);
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<u64>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let now = cx.now();
        let (due, next) = self.due(budget, now);
        let Some(split) = self.splits.last_mut() else { return Ok(Polled::Done) };
        let (mut i, end, step) = (split.next, split.end, split.step);
        let left = end.saturating_sub(i).div_ceil(step.max(1));
        let n = left.min(due as u64);
        // `n` of them are there, so that only the step behind the last one can go too far.
        for _ in 1..n {
            out.emit(i);
            i = i.wrapping_add(step);
        }
        if n > 0 {
            out.emit(i);
            i = i.saturating_add(step);
        }
        split.next = i;
        self.given += n;
        if i >= end {
            self.splits.pop();
        }
        if self.splits.is_empty() {
            return Ok(Polled::Done);
        }
        match next {
            Some(at) if due < budget => {
                cx.wake_at(at.max(now + Duration::from_micros(200)));
                Ok(Polled::Idle)
            }
            _ => Ok(Polled::Progress),
        }
    }
    fn unfinished(&self) -> Vec<Numbers> {
        self.splits.clone()
    }
}
