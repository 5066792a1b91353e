//! Joins and co-groups against naive models, over random streams with disorder and late records, parallelism and order of
//! steps, in both modes. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod drawn;

use drawn::{Drawn, Probe, Record, Seen, Sent, draw, each, ms};
use rand::{Rng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_api::{TimeWindows, prelude::*};

fn mode(random: &mut SmallRng) -> ExecutionMode {
    if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming }
}

fn bound(random: &mut SmallRng) -> i64 {
    if random.random() { 0 } else { random.random_range(1..60) }
}

/// Windows of one length, said once more without panes.
#[derive(Clone, Copy, Debug)]
struct Naive {
    size: i64,
    slide: i64,
    offset: i64,
    lateness: i64,
}

impl Naive {
    fn draw(random: &mut SmallRng) -> Self {
        let size = random.random_range(1..100);
        let slide = if random.random() { size } else { random.random_range(1..100) };
        let offset = if random.random() { 0 } else { random.random_range(0..slide) };
        let lateness = if random.random() { 0 } else { random.random_range(1..150) };
        Self { size, slide, offset, lateness }
    }

    fn windows(&self) -> TimeWindows {
        if self.slide == self.size {
            return TumblingEventTimeWindows::of(ms(self.size)).offset(ms(self.offset));
        }
        SlidingEventTimeWindows::of(ms(self.size), ms(self.slide)).offset(ms(self.offset))
    }

    /// Where the windows of a time begin.
    fn starts(&self, at: i64) -> impl Iterator<Item = i64> + use<> {
        let Self { size, slide, offset, .. } = *self;
        (at - size + 1..=at).filter(move |start| (start - offset).rem_euclid(slide) == 0)
    }

    /// Does the window still take the record? Nothing, where that is not certain.
    fn takes(&self, sent: &Sent, start: i64) -> Option<bool> {
        sent.before(start + self.size - 1 + self.lateness)
    }

    fn certain(&self, sent: &Sent) -> bool {
        self.starts(sent.record.1).all(|start| self.takes(sent, start).is_some())
    }

    /// Numbers of the records by key and start of window, of both sides.
    fn groups(&self, a: &Drawn, b: &Drawn) -> BTreeMap<(u64, i64), [Vec<u64>; 2]> {
        let mut groups = BTreeMap::<_, [Vec<u64>; 2]>::new();
        for (side, drawn) in [a, b].into_iter().enumerate() {
            for sent in &drawn.sent {
                for start in self.starts(sent.record.1).filter(|start| self.takes(sent, *start).unwrap()) {
                    groups.entry((sent.record.0, start)).or_default()[side].push(sent.record.2);
                }
            }
        }
        groups.values_mut().flatten().for_each(|group| group.sort_unstable());
        groups
    }
}

#[test]
fn a_window_join_gives_each_pair_of_one_key_and_window_once() {
    each(390, |env, random| {
        let (naive, mode, bound) = (Naive::draw(random), mode(random), bound(random));
        env.mode(mode);
        let [a, b] = draw(random, bound, mode == ExecutionMode::Batch, false, |sent| naive.certain(sent));
        let parallelism = random.random_range(1..4);
        let seen = Seen::by(parallelism);
        let pairs = a
            .stream(env, &seen)
            .key_by(|r| r.0)
            .join(b.stream(env, &seen).key_by(|r| r.0))
            .window(naive.windows())
            .allowed_lateness(ms(naive.lateness))
            .apply(|x, y| (x.2, y.2))
            .parallelism(parallelism)
            .apply("probe", Probe(seen))
            .collect();
        let mut got: Vec<(u64, u64)> = env.execute("joins").unwrap().collected(&pairs).unwrap();
        let mut expected = Vec::new();
        for [left, right] in naive.groups(&a, &b).values() {
            left.iter().for_each(|x| expected.extend(right.iter().map(|y| (*x, *y))));
        }
        if naive.lateness > 0 && mode == ExecutionMode::Streaming {
            // With each record that is late all pairs of its window come again.
            assert!(got.len() >= expected.len(), "{} of {} pairs", got.len(), expected.len());
            let set = |pairs: &[_]| pairs.iter().copied().collect::<BTreeSet<_>>();
            assert_eq!(set(&got), set(&expected), "{naive:?}, bound {bound}");
        } else {
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected, "{naive:?}, bound {bound}");
        }
    });
}

#[test]
fn a_co_group_sees_also_what_has_no_partner() {
    each(390, |env, random| {
        let (naive, mode, bound) = (Naive::draw(random), mode(random), bound(random));
        env.mode(mode);
        let [a, b] = draw(random, bound, mode == ExecutionMode::Batch, false, |sent| naive.certain(sent));
        let parallelism = random.random_range(1..4);
        let seen = Seen::by(parallelism);
        let groups = a
            .stream(env, &seen)
            .key_by(|r| r.0)
            .join(b.stream(env, &seen).key_by(|r| r.0))
            .window(naive.windows())
            .allowed_lateness(ms(naive.lateness))
            .co_group(|key, window, left: Vec<Record>, right: Vec<Record>| {
                let numbers = [left, right].map(|side| side.iter().map(|r| r.2).collect::<Vec<_>>());
                Some((key, window, numbers))
            })
            .parallelism(parallelism)
            .apply("probe", Probe(seen))
            .collect();
        let result = env.execute("groups").unwrap();
        let mut got = BTreeMap::new();
        for (key, window, mut numbers) in result.collected(&groups).unwrap() {
            assert_eq!(window.end - window.start, naive.size);
            numbers.iter_mut().for_each(|side| side.sort_unstable());
            // The last result of a window is the one that stands.
            let before = got.insert((key, window.start), numbers);
            assert!(before.is_none() || naive.lateness > 0 && mode == ExecutionMode::Streaming, "fired twice");
        }
        assert_eq!(got, naive.groups(&a, &b), "{naive:?}, bound {bound}");
    });
}

#[test]
fn an_interval_join_gives_each_pair_once_and_none_of_what_is_late() {
    each(390, |env, random| {
        let (mode, bound) = (mode(random), bound(random));
        env.mode(mode);
        let crowd = random.random_ratio(1, 20);
        let (lower, width) = (
            random.random_range(-60i64..60),
            if crowd { random.random_range(200..600) } else { random.random_range(0..80) },
        );
        // In a crowd a record has more partners than fit into one step, and meets them in several.
        let certain = |sent: &Sent| sent.before(sent.record.1).is_some();
        let [a, b] = draw(random, bound, mode == ExecutionMode::Batch, crowd, certain);
        let parallelism = random.random_range(1..4);
        let seen = Seen::by(parallelism);
        let pairs = a
            .stream(env, &seen)
            .key_by(|r| r.0)
            .interval_join(b.stream(env, &seen).key_by(|r| r.0))
            .between(lower, lower + width)
            .apply(|x, y| (x.2, y.2))
            .parallelism(parallelism)
            .apply("probe", Probe(seen))
            .collect();
        let mut got: Vec<(u64, u64)> = env.execute("joins").unwrap().collected(&pairs).unwrap();
        got.sort_unstable();
        let in_time = |drawn: &Drawn| -> Vec<Record> {
            drawn.sent.iter().filter(|sent| sent.before(sent.record.1).unwrap()).map(|sent| sent.record).collect()
        };
        let (left, right) = (in_time(&a), in_time(&b));
        let mut expected = Vec::new();
        for x in &left {
            let near = |y: &&Record| x.0 == y.0 && y.1 >= x.1 + lower && y.1 <= x.1 + lower + width;
            expected.extend(right.iter().filter(near).map(|y| (x.2, y.2)));
        }
        expected.sort_unstable();
        assert_eq!(got, expected, "between {lower} and {}, bound {bound}", lower + width);
    });
}
