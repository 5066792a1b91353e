//! Numbers in a row, as fast as they go or at a rate.

use super::{Polled, Reader, ReaderCx, Source, splits::Known};
use crate::{build::OpCx, push::Push};
use serde::{Deserialize, Serialize};
use std::{ops::Range, path::Path, time::Duration};
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

    /// All numbers, without an end.
    pub fn endless() -> Self {
        Self::new(0..u64::MAX)
    }

    /// So many a second, all readers together; more than 0. They come in order of size within each reader, and about so
    /// overall. What was held back, since somebody behind was slow, is made up for.
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

impl Sequence {
    /// Has each reader every so-manieth number?
    fn goes_up(&self) -> bool {
        self.interleaved || self.rate.is_some() || !self.is_bounded()
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
    fn check(&self, _: &Path) -> Result<(), String> {
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate.is_finite()) => Err(format!(
                "a rate of {rate} records a second: name a number above 0, or no rate for as fast as it goes"
            )),
            _ => Ok(()),
        }
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
        let readers = cx.readers();
        let Range { start, end } = self.range;
        let make = || {
            Ok(if self.goes_up() {
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
    fn reader(&self, _: &OpCx) -> Result<Self::Reader, TaskFailure> {
        Ok(SequenceReader {
            splits: Vec::new(),
            goes_up: self.goes_up(),
            rate: self.rate,
            began: None,
            given: 0,
            rests_until: None,
        })
    }
}

/// Reads parts of a sequence.
pub struct SequenceReader {
    splits: Vec<Numbers>,
    goes_up: bool,
    /// Of all readers.
    rate: Option<f64>,
    began: Option<Moment>,
    given: u64,
    /// Nothing is given before, though it may be due: else a source that is not at its limit would give one number after the
    /// other, never pause, and keep what it has gathered until `exchange.buffer-timeout`.
    rests_until: Option<Moment>,
}

/// A source with a rate rests at least so long whenever it has given all that is due.
const REST: Duration = Duration::from_micros(200);

impl SequenceReader {
    /// How many of `budget` are due, and when the next one is.
    fn due(&mut self, budget: usize, now: Moment) -> (usize, Option<Moment>) {
        let Some(rate) = self.rate else { return (budget, None) };
        // Each split has its share of the whole, whoever reads it: after a restore one reader may have several or none.
        let rate = rate * self.splits.iter().map(|s| 1.0 / s.step.max(1) as f64).sum::<f64>();
        let began = *self.began.get_or_insert(now);
        // At a rate beyond all numbers as many as there are numbers are due.
        let due = ((now.since(began).as_secs_f64() * rate) as u64).saturating_add(1);
        let n = due.saturating_sub(self.given).min(budget as u64) as usize;
        let next = Duration::try_from_secs_f64((self.given + n as u64) as f64 / rate).unwrap_or(Duration::MAX);
        (n, Some(began + next))
    }

    /// Another share of the rate begins to count.
    fn begin(&mut self) {
        (self.began, self.given, self.rests_until) = (None, 0, None);
    }

    /// The split with the least number.
    fn least(&self) -> Option<usize> {
        (0..self.splits.len()).min_by_key(|i| self.splits[*i].next)
    }

    /// One number after the other, the least of all splits first.
    fn merge(&mut self, due: usize, out: &mut impl Push<u64>) {
        for _ in 0..due {
            let Some(i) = self.least() else { return };
            let split = &mut self.splits[i];
            // More readers than numbers: some splits have none.
            if split.next < split.end {
                out.emit(split.next);
                self.given += 1;
                split.next = split.next.saturating_add(split.step);
            }
            if split.next >= split.end {
                self.splits.remove(i);
                return self.begin();
            }
        }
    }

    /// Goes on with the last split.
    fn run(&mut self, due: usize, out: &mut impl Push<u64>) {
        let Some(split) = self.splits.last_mut() else { return };
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
            self.begin();
        }
    }
}

impl Reader for SequenceReader {
    type Item = u64;
    type Split = Numbers;
    fn add(&mut self, split: Numbers) {
        self.splits.push(split);
        self.begin();
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<u64>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let now = cx.now();
        if let Some(until) = self.rests_until.filter(|until| now < *until && !self.splits.is_empty()) {
            cx.wake_at(until);
            return Ok(Polled::Idle);
        }
        let (due, next) = self.due(budget, now);
        let open = self.splits.len();
        // Where splits are told apart the one that has the least number gives just that: the next is another one's.
        let now_due = if cx.one_split() && self.goes_up && open > 1 { due.min(1) } else { due };
        if self.goes_up && open > 1 {
            self.merge(now_due, out);
        } else {
            self.run(now_due, out);
        }
        if self.splits.is_empty() {
            return Ok(Polled::Done);
        }
        if self.splits.len() < open {
            return Ok(Polled::Ended);
        }
        match next {
            Some(at) if due < budget && now_due == due => {
                let until = at.max(now + REST);
                self.rests_until = Some(until);
                cx.wake_at(until);
                Ok(Polled::Idle)
            }
            _ => Ok(Polled::Progress),
        }
    }
    fn unfinished(&self) -> Vec<Numbers> {
        self.splits.clone()
    }
    fn reading(&self) -> Option<usize> {
        if self.goes_up { self.least() } else { self.splits.len().checked_sub(1) }
    }
    fn at_once(&self) -> bool {
        self.goes_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{Batch, Time},
        push::{Control, no_control},
        source::Place,
        task::{SlotCx, TaskMetrics},
    };
    use std::sync::Arc;
    use thalweg_env::SystemClock;

    /// How many have come.
    struct Came(usize);

    impl Control for Came {
        no_control!();
    }

    impl Push<u64> for Came {
        fn push(&mut self, _: Time, _: u64) {
            self.0 += 1;
        }
        fn push_batch(&mut self, batch: &mut Batch<u64>, limit: usize) {
            batch.each(limit, |_, at, item| self.push(at, item));
        }
    }

    #[test]
    fn a_source_with_a_rate_rests_when_it_has_given_what_is_due() {
        let (metrics, mut slot, mut came) =
            (TaskMetrics::default(), SlotCx::new(Arc::new(SystemClock::new())), Came(0));
        let mut reader = SequenceReader {
            splits: vec![],
            goes_up: true,
            rate: Some(1_000_000.0),
            began: None,
            given: 0,
            rests_until: None,
        };
        reader.add(Numbers { next: 0, end: u64::MAX, step: 1 });
        let begin = slot.now;
        let mut seen = Vec::new();
        for micros in (0..1000).step_by(10) {
            slot.now = begin + Duration::from_micros(micros);
            let before = came.0;
            let mut cx = ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false };
            while reader.poll(64, &mut came, &mut cx).unwrap() == Polled::Progress {}
            if came.0 > before {
                seen.push((micros, came.0));
            }
        }
        assert_eq!(seen, [(0, 1), (200, 201), (400, 401), (600, 601), (800, 801)]);
    }

    #[test]
    fn a_rate_beyond_all_numbers_is_as_fast_as_it_goes() {
        for rate in [1e19, 1e30, f64::MAX] {
            let (goes_up, rate, began, given, rests_until) = (true, Some(rate), None, 0, None);
            let mut reader = SequenceReader { splits: vec![], goes_up, rate, began, given, rests_until };
            // Shares that are more than the whole: the rate of the reader is infinite then.
            (0..2).for_each(|next| reader.add(Numbers { next, end: u64::MAX, step: 1 }));
            let (metrics, mut slot) = (TaskMetrics::default(), SlotCx::new(Arc::new(SystemClock::new())));
            let (begin, mut came) = (slot.now, Came(0));
            for seconds in 0..10 {
                slot.now = begin + Duration::from_secs(seconds);
                let mut cx =
                    ReaderCx { slot: &mut slot, metrics: &metrics, place: &Place::default(), one_split: false };
                assert_ne!(reader.poll(64, &mut came, &mut cx).unwrap(), Polled::Done);
            }
            assert_eq!(came.0, 1 + 9 * 64, "{rate:?}");
        }
    }

    #[test]
    fn a_split_without_a_number_gives_none_whoever_reads_it() {
        let mut splits: Vec<Numbers> = (0..4).map(|first| Numbers { next: first, end: 2, step: 4 }).collect();
        splits.rotate_left(2);
        let (goes_up, rate, began, given, rests_until) = (true, None, None, 0, None);
        let mut reader = SequenceReader { splits: vec![], goes_up, rate, began, given, rests_until };
        splits.into_iter().for_each(|split| reader.add(split));
        let mut out = Came(0);
        while !reader.splits.is_empty() {
            reader.merge(100, &mut out);
        }
        assert_eq!(out.0, 2);
    }

    #[test]
    fn the_rate_goes_with_the_splits_whoever_reads_them() {
        let due = |splits: &[u64]| {
            let mut reader = SequenceReader {
                splits: vec![],
                goes_up: true,
                rate: Some(30.0),
                began: None,
                given: 0,
                rests_until: None,
            };
            splits.iter().for_each(|step| reader.add(Numbers { next: 0, end: u64::MAX, step: *step }));
            let start = Moment::from_start(Duration::from_secs(7));
            assert_eq!(reader.due(1000, start).0, 1, "the first one at once");
            reader.due(1000, start + Duration::from_secs(10)).0
        };
        assert_eq!(due(&[1]), 301);
        assert_eq!(due(&[3]), 101);
        assert_eq!(due(&[3, 3, 3]), 301);
        assert_eq!(due(&[4, 4]), 151);
    }
}
