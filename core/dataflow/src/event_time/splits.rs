//! The watermark of a reader of several splits: each split has a generator of its own, and the lowest one counts.
//!
//! A split that has ended leaves, and so does an idle one. A new one holds the watermark where it is until it has caught
//! up. When no split is open the watermark stays too: what is dealt out next may go on where the last one ended. That holds
//! only where the strategy's promise reaches from one split to the next; nobody can know the times in a split that was not
//! dealt out yet.

use super::WatermarkGenerator;
use crate::{
    batch::{NO_TIME, Time},
    source::{Origin, Told},
};
use std::{collections::BTreeMap, marker::PhantomData, time::Duration};
use thalweg_model::Moment;

struct Open<G> {
    number: u64,
    /// Of the one that is being read it lies with whoever feeds it.
    generator: G,
    /// Its watermark never falls below: what it was when another one's turn came, or at the snapshot.
    floor: Time,
    /// Its last record, where idleness counts.
    since: Moment,
    idle: bool,
}

/// Generators of the splits that are open.
pub(super) struct Splits<T, G> {
    fresh: G,
    open: Vec<Open<G>>,
    /// Place of the one that is being read.
    reading: Option<usize>,
    /// The lowest of the others that are not idle; `Time::MAX` where there is none.
    others: Time,
    at_once: bool,
    /// Watermarks of the splits of a snapshot, of each reader that wrote some.
    saved: BTreeMap<u32, Vec<Time>>,
    _t: PhantomData<fn(T)>,
}

impl<T, G: WatermarkGenerator<T>> Splits<T, G> {
    pub(super) fn new(fresh: G, saved: BTreeMap<u32, Vec<Time>>) -> Self {
        Self { fresh, open: Vec::new(), reading: None, others: Time::MAX, at_once: false, saved, _t: PhantomData }
    }

    /// Splits have come or gone, or another one's turn has come. `live` is the generator that is being fed; `since` is its
    /// last record. Answers whether some have come or gone.
    pub(super) fn follow(&mut self, told: &Told, live: &mut G, since: Moment, now: Moment) -> bool {
        if let Some(place) = self.reading.take() {
            let split = &mut self.open[place];
            std::mem::swap(live, &mut split.generator);
            split.floor = split.floor.max(split.generator.watermark());
            split.since = since;
        }
        let before = self.open.len();
        self.open.retain(|split| told.open.contains(&split.number));
        let stayed = self.open.len();
        for number in &told.open {
            if !self.open.iter().any(|split| split.number == *number) {
                let origin = told.restored.get(*number as usize);
                let floor = origin.and_then(|origin| self.saved(origin)).unwrap_or(NO_TIME);
                let generator = self.fresh.clone();
                self.open.push(Open { number: *number, generator, floor, since: now, idle: false });
            }
        }
        self.at_once = told.at_once;
        self.reading = told.reading.and_then(|number| self.open.iter().position(|split| split.number == number));
        if let Some(place) = self.reading {
            let split = &mut self.open[place];
            std::mem::swap(live, &mut split.generator);
            split.idle = false;
        }
        self.look();
        before != stayed || stayed != self.open.len()
    }

    /// What a split had at the snapshot. A list of another length is not of these splits.
    fn saved(&self, origin: &Origin) -> Option<Time> {
        self.saved.get(&origin.writer).filter(|all| all.len() == origin.of)?.get(origin.place).copied()
    }

    fn look(&mut self) {
        let others = self.open.iter().enumerate().filter(|(i, split)| Some(*i) != self.reading && !split.idle);
        self.others = others.map(|(_, split)| split.floor).min().unwrap_or(Time::MAX);
    }

    /// The watermark of all, where `live` is the one of the split that is being read; `None` when none is open.
    pub(super) fn watermark(&self, live: Time) -> Option<Time> {
        match self.reading {
            Some(place) => Some(self.others.min(self.open[place].floor.max(live))),
            None => Some(self.others).filter(|at| *at != Time::MAX),
        }
    }

    /// The lowest of the splits that are not being read, and the number of that one.
    pub(super) fn lowest(&self) -> Option<(Time, u64)> {
        let others = self.open.iter().enumerate().filter(|(i, split)| Some(*i) != self.reading && !split.idle);
        others.map(|(_, split)| (split.floor, split.number)).min()
    }

    /// The watermark of the split that is being read, where `live` is its generator's.
    pub(super) fn reading(&self, live: Time) -> Time {
        self.reading.map_or(NO_TIME, |place| self.open[place].floor.max(live))
    }

    /// No split may be read: none is idle for that.
    pub(super) fn wait(&mut self, now: Moment) {
        self.open.iter_mut().for_each(|split| split.since = split.since.max(now));
    }

    /// None was read for so long.
    pub(super) fn held(&mut self, time: Duration) {
        self.open.iter_mut().for_each(|split| split.since = split.since + time);
    }

    /// Splits without records for so long do not count, where all are read at once. Answers whether one has become idle,
    /// and when the next one may.
    pub(super) fn age(&mut self, now: Moment, after: Duration) -> (bool, Option<Moment>) {
        if !self.at_once || self.open.len() < 2 {
            return (false, None);
        }
        let (mut aged, mut next) = (false, None);
        for (i, split) in self.open.iter_mut().enumerate() {
            if Some(i) == self.reading || split.idle {
                continue;
            }
            let due = split.since + after;
            if now >= due {
                (split.idle, aged) = (true, true);
            } else {
                next = Some(next.map_or(due, |other: Moment| other.min(due)));
            }
        }
        if aged {
            self.look();
        }
        (aged, next)
    }

    /// The watermark of each, in the order of the reader's splits.
    pub(super) fn snapshot(&self, live: Time) -> Vec<Time> {
        let of = |(i, split): (usize, &Open<G>)| split.floor.max(if Some(i) == self.reading { live } else { NO_TIME });
        self.open.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_time::{MonotonousTimestamps, WatermarkStrategy};

    const AFTER: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Moment {
        Moment::from_start(Duration::from_secs(seconds))
    }

    struct Fed {
        splits: Splits<(), MonotonousTimestamps>,
        live: MonotonousTimestamps,
        told: Told,
        last: Moment,
    }

    impl Fed {
        fn new(at_once: bool, saved: Vec<Time>) -> Self {
            let live = WatermarkStrategy::for_monotonous_timestamps().generator;
            let restored = (0..saved.len()).map(|place| Origin { writer: 3, place, of: saved.len() }).collect();
            let told = Told { at_once, restored, ..Told::default() };
            let saved = BTreeMap::from([(2, vec![1000]), (3, saved)]);
            Self { splits: Splits::new(live.clone(), saved), live, told, last: at(0) }
        }

        fn follow(&mut self, now: u64) {
            self.splits.follow(&self.told, &mut self.live, self.last, at(now));
        }

        fn add(&mut self, number: u64, now: u64) {
            self.told.open.push(number);
            self.follow(now);
        }

        fn record(&mut self, number: u64, time: Time, now: u64) {
            self.told.reading = Some(number);
            self.follow(now);
            self.live.on_event(time, &());
            self.last = at(now);
        }

        fn end(&mut self, number: u64, now: u64) {
            self.told.open.retain(|n| *n != number);
            self.told.reading = None;
            self.follow(now);
        }

        fn watermark(&mut self) -> Option<Time> {
            self.splits.watermark(WatermarkGenerator::<()>::watermark(&mut self.live))
        }
    }

    #[test]
    fn the_lowest_split_counts_until_it_ends() {
        let mut fed = Fed::new(false, vec![]);
        assert_eq!(fed.watermark(), None, "no split, and nothing to say");
        fed.add(0, 0);
        fed.add(1, 0);
        fed.record(1, 101, 1);
        assert_eq!(fed.watermark(), Some(NO_TIME), "the other one may begin anywhere");
        fed.record(0, 51, 2);
        assert_eq!(fed.watermark(), Some(50));
        fed.end(0, 3);
        assert_eq!(fed.watermark(), Some(100));
        fed.end(1, 3);
        assert_eq!(fed.watermark(), None, "what is dealt out next may go on here");
    }

    #[test]
    fn a_split_without_records_does_not_count_but_one_whose_turn_has_not_come_does() {
        for at_once in [true, false] {
            let mut fed = Fed::new(at_once, vec![]);
            fed.add(0, 0);
            fed.add(1, 0);
            fed.record(0, 51, 1);
            fed.record(1, 101, 2);
            assert_eq!(fed.splits.age(at(10), AFTER), (false, at_once.then_some(at(11))));
            assert_eq!(fed.splits.age(at(11), AFTER), (at_once, None));
            assert_eq!(fed.watermark(), Some(if at_once { 100 } else { 50 }));
            fed.record(0, 61, 12);
            assert_eq!(fed.watermark(), Some(60), "awake again");
        }
    }

    #[test]
    fn a_snapshot_has_the_watermark_of_each_split_and_is_of_no_use_for_others() {
        let mut fed = Fed::new(false, vec![]);
        (0..3).for_each(|n| fed.add(n, 0));
        fed.record(0, 51, 1);
        fed.record(2, 101, 1);
        assert_eq!(fed.splits.snapshot(100), [50, NO_TIME, 100]);
        let mut again = Fed::new(false, vec![50, 70]);
        again.add(0, 0);
        again.add(1, 0);
        assert_eq!(again.watermark(), Some(50));
        again.record(0, 11, 0);
        assert_eq!(again.watermark(), Some(50), "it does not go back");
        let mut other = Fed::new(false, vec![50, 70]);
        other.told.restored.clear();
        other.add(0, 0);
        assert_eq!(other.watermark(), Some(NO_TIME), "a source that began anew");
        let mut one = Fed::new(false, vec![50, 70]);
        one.told.restored = vec![Origin { writer: 3, place: 1, of: 2 }];
        one.add(0, 0);
        assert_eq!(one.watermark(), Some(70), "the other one went to another reader");
        let mut others = Fed::new(false, vec![50, 70]);
        others.told.restored = vec![Origin { writer: 3, place: 1, of: 3 }];
        others.add(0, 0);
        assert_eq!(others.watermark(), Some(NO_TIME), "the list is of other splits");
    }
}
