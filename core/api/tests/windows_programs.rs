//! Whole programs with triggers, evictors, lateness and watermarks of one's own, against naive models, over random
//! streams, disorder, parallelism, modes and order of steps. One operator by itself is in `windows_by_model.rs`.
//! `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod seeded;

use rand::{Rng, rngs::SmallRng};
use seeded::{Record, each, environment, ms};
use std::collections::BTreeMap;
use thalweg_api::{
    ContinuousEventTimeTrigger, CountEvictor, CountTrigger, DeltaEvictor, EventTimeTrigger, Evictor, GlobalWindows,
    PurgingTrigger, SlidingProcessingTimeWindows, TimeEvictor, Trigger, TriggerContext, TriggerResult,
    TumblingProcessingTimeWindows, WatermarkGenerator, prelude::*,
};

/// Of a key in a window, the numbers.
type Told = (u64, i64, i64, Vec<u64>);

fn either_mode(random: &mut SmallRng) -> ExecutionMode {
    if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming }
}

fn records(random: &mut SmallRng, disorder: i64) -> Vec<Record> {
    let mut at = random.random_range(-300..300);
    let (n, step, keys) = (random.random_range(0..400), random.random_range(1..15), random.random_range(1..8));
    (0..n)
        .map(|i| {
            at += random.random_range(0..=step);
            (random.random_range(0..keys), at - random.random_range(0..=disorder), i)
        })
        .collect()
}

/// A generator of one's own: what records may at most be behind the highest time.
#[derive(Clone)]
struct Behind {
    by: i64,
    highest: Option<i64>,
}

impl WatermarkGenerator<Record> for Behind {
    fn on_event(&mut self, at: i64, item: &Record) {
        assert_eq!(at, item.1);
        self.highest = self.highest.max(Some(at));
    }
    fn watermark(&mut self) -> i64 {
        self.highest.map_or(i64::MIN, |highest| highest - self.by - 1)
    }
}

fn timed(env: &Environment, all: &[Record], bound: i64, own: bool) -> DataStream<Record> {
    let source = env.from_collection(all.to_vec()).parallelism(1);
    if own {
        let strategy = WatermarkStrategy::for_generator(Behind { by: bound, highest: None });
        return source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).boxed();
    }
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(bound));
    source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).boxed()
}

fn tell(key: u64, window: TimeWindow, all: Vec<(i64, Record)>) -> Option<Told> {
    assert!(all.iter().all(|(at, r)| *at == r.1));
    Some((key, window.start, window.end, all.iter().map(|(_, r)| r.2).collect()))
}

/// Fires with each number that ends in 7.
#[derive(Clone)]
struct Sevens;

impl Trigger<Record> for Sevens {
    type State = ();
    fn on_element(
        &mut self,
        item: &Record,
        at: i64,
        window: &TimeWindow,
        (): &mut (),
        _: &mut TriggerContext,
    ) -> TriggerResult {
        assert!(item.1 == at && window.start <= at && at < window.end);
        if item.2 % 10 == 7 { TriggerResult::Fire } else { TriggerResult::Continue }
    }
    fn on_merge(&mut self, _: &TimeWindow, (): &mut (), (): (), _: &mut TriggerContext) {}
}

/// Drops numbers that can be divided by three.
#[derive(Clone)]
struct NoThirds;

impl Evictor<Vec<(i64, Record)>> for NoThirds {
    fn evict(&mut self, contents: &mut Vec<(i64, Record)>, _: &TimeWindow) {
        contents.retain(|(_, r)| r.2 % 3 != 0);
    }
}

#[derive(Clone, Copy, Debug)]
enum Fires {
    AtTheEnd,
    Count(u64),
    PurgingCount(u64),
    Sevens,
}

#[derive(Clone, Copy, Debug)]
enum Keeps {
    Last(usize),
    Young(i64),
    Near(f64),
    NoThirds,
}

fn left(keeps: Keeps, all: &[Record]) -> Vec<Record> {
    let n = all.len();
    let newest = all.iter().map(|r| r.1).max().unwrap_or(0);
    let stays = |(i, r): &(usize, &Record)| match keeps {
        Keeps::Last(last) => i + last >= n,
        Keeps::Young(span) => newest - r.1 < span,
        Keeps::Near(d) => i + 1 == n || (r.2.abs_diff(all[n - 1].2) as f64) < d,
        Keeps::NoThirds => r.2 % 3 != 0,
    };
    all.iter().enumerate().filter(stays).map(|(_, r)| *r).collect()
}

/// What comes out where nothing is late: each window of each key sees its records in their order.
fn model(all: &[Record], windows: impl Fn(i64) -> Vec<(i64, i64)>, fires: Fires, keeps: Keeps) -> Vec<Told> {
    let mut of = BTreeMap::<(u64, i64, i64), Vec<Record>>::new();
    for r in all {
        for (start, end) in windows(r.1) {
            of.entry((r.0, start, end)).or_default().push(*r);
        }
    }
    let mut told = Vec::new();
    for ((key, start, end), records) in of {
        let (mut has, mut count) = (Vec::new(), 0);
        for (i, r) in records.iter().enumerate() {
            has.push(*r);
            count += 1;
            let fire = match fires {
                Fires::AtTheEnd => i + 1 == records.len(),
                Fires::Count(n) | Fires::PurgingCount(n) => count % n == 0,
                Fires::Sevens => r.2 % 10 == 7,
            };
            if fire {
                has = left(keeps, &has);
                told.push((key, start, end, has.iter().map(|r| r.2).collect()));
                if matches!(fires, Fires::PurgingCount(_)) {
                    has.clear();
                }
            }
        }
    }
    told.sort_unstable();
    told
}

#[test]
fn triggers_and_evictors_give_what_a_naive_model_gives() {
    each(200, |seed, random| {
        let disorder = random.random_range(0..60);
        let all = records(random, disorder);
        let mode = either_mode(random);
        let env = environment(seed, random, mode);
        let global = random.random_range(0..3) == 0;
        let (size, slide) = (random.random_range(1..150), random.random_range(1..80));
        let (size, slide) = if random.random() { (size, size) } else { (size, slide) };
        let fires = match random.random_range(0..4) {
            0 if !global => Fires::AtTheEnd,
            0 | 1 => Fires::Count(random.random_range(1..12)),
            2 => Fires::PurgingCount(random.random_range(1..12)),
            _ => Fires::Sevens,
        };
        let keeps = match random.random_range(0..4) {
            0 => Keeps::Last(random.random_range(0..9)),
            1 => Keeps::Young(random.random_range(1..60)),
            2 => Keeps::Near(random.random_range(1.0..50.0)),
            _ => Keeps::NoThirds,
        };
        let keyed = timed(&env, &all, disorder, random.random()).key_by(|r| r.0);
        macro_rules! evicted {
            ($windows:expr) => {
                match keeps {
                    Keeps::Last(n) => $windows.evictor(CountEvictor::of(n)).apply(tell).boxed(),
                    Keeps::Young(span) => $windows.evictor(TimeEvictor::of(ms(span))).apply(tell).boxed(),
                    Keeps::Near(d) => {
                        let difference = |old: &Record, newest: &Record| old.2.abs_diff(newest.2) as f64;
                        $windows.evictor(DeltaEvictor::of(d, difference)).apply(tell).boxed()
                    }
                    Keeps::NoThirds => $windows.evictor(NoThirds).apply(tell).boxed(),
                }
            };
        }
        macro_rules! fired {
            ($windows:expr) => {
                match fires {
                    Fires::AtTheEnd => evicted!($windows.trigger(EventTimeTrigger)),
                    Fires::Count(n) => evicted!($windows.trigger(CountTrigger::of(n))),
                    Fires::PurgingCount(n) => evicted!($windows.trigger(PurgingTrigger::of(CountTrigger::of(n)))),
                    Fires::Sevens => evicted!($windows.trigger(Sevens)),
                }
            };
        }
        let told = if global {
            fired!(keyed.window(GlobalWindows))
        } else {
            fired!(keyed.window(SlidingEventTimeWindows::of(ms(size), ms(slide))))
        };
        let told = told.collect();
        let result = env.execute("told").unwrap();
        let mut told = result.collected(&told).unwrap();
        told.sort_unstable();
        let windows = |at: i64| match global {
            true => vec![(i64::MIN, i64::MAX)],
            false => {
                let starts = (at - size + 1..=at).filter(|s| s.rem_euclid(slide) == 0);
                starts.map(|s| (s, s + size)).collect::<Vec<_>>()
            }
        };
        let wanted = model(&all, windows, fires, keeps);
        assert_eq!(told, wanted, "{fires:?} {keeps:?} {mode:?} global {global} size {size} slide {slide}");
    });
}

#[test]
fn what_is_left_is_aggregated() {
    each(100, |seed, random| {
        let disorder = random.random_range(0..60);
        let all = records(random, disorder);
        let mode = either_mode(random);
        let env = environment(seed, random, mode);
        let (size, n) = (random.random_range(1..150), random.random_range(0..5));
        let windows = || {
            let keyed = timed(&env, &all, disorder, false).key_by(|r| r.0);
            keyed.window(TumblingEventTimeWindows::of(ms(size))).evictor(CountEvictor::of(n))
        };
        let counts = windows().count().collect();
        let sums = windows().sum(|r| r.2).collect();
        let greatest = windows().reduce(|a, b| a.2 = a.2.max(b.2)).collect();
        let result = env.execute("left").unwrap();
        let wanted = |of: &dyn Fn(&[u64]) -> u64| {
            let windows = |at: i64| vec![(at.div_euclid(size) * size, at.div_euclid(size) * size + size)];
            let told = model(&all, windows, Fires::AtTheEnd, Keeps::Last(n));
            let some = told.iter().filter(|t| !t.3.is_empty());
            some.map(|t| (t.0, t.1, of(&t.3))).collect::<Vec<_>>()
        };
        let sorted = |mut got: Vec<(u64, i64, u64)>| {
            got.sort_unstable();
            got
        };
        let values =
            |c| result.collected(c).unwrap().into_iter().map(|w: Windowed<u64, u64>| (w.key, w.window.start, w.value));
        assert_eq!(sorted(values(&counts).collect()), wanted(&|all| all.len() as u64));
        assert_eq!(sorted(values(&sums).collect()), wanted(&|all| all.iter().sum()));
        let greatest = result.collected(&greatest).unwrap();
        let greatest = greatest.into_iter().map(|w| (w.key, w.window.start, w.value.2)).collect();
        assert_eq!(sorted(greatest), wanted(&|all| *all.iter().max().unwrap()));
    });
}

#[test]
fn what_is_late_but_allowed_gives_windows_again_and_the_last_has_all() {
    each(100, |seed, random| {
        let disorder = random.random_range(1..200);
        let all = records(random, disorder);
        let env = environment(seed, random, ExecutionMode::Streaming);
        let (size, slide) = (random.random_range(1..100), random.random_range(1..60));
        // The watermark runs ahead of what is still to come, and the lateness makes up for it.
        let keyed = || timed(&env, &all, 0, false).key_by(|r| r.0);
        let lateness = ms(disorder + 1);
        let windows = || keyed().window(SlidingEventTimeWindows::of(ms(size), ms(slide))).allowed_lateness(lateness);
        let combined = windows().sum(|r| r.2).collect();
        let late = OutputTag::new("late");
        let whole = windows().side_output_late_data(&late).sum(|r| r.2).collect();
        let lists = windows().trigger(EventTimeTrigger).sum(|r| r.2).collect();
        let continuous = windows().trigger(ContinuousEventTimeTrigger::of(ms(7))).sum(|r| r.2).collect();
        let evicted = windows().evictor(CountEvictor::of(usize::MAX)).sum(|r| r.2).collect();
        let result = env.execute("late").unwrap();
        let mut wanted = BTreeMap::new();
        for (key, at, value) in &all {
            for start in (at - size + 1..=*at).filter(|s| s.rem_euclid(slide) == 0) {
                *wanted.entry((*key, start)).or_default() += value;
            }
        }
        for (sums, of) in [
            (&combined, "combined"),
            (&whole, "whole"),
            (&lists, "lists"),
            (&continuous, "continuous"),
            (&evicted, "evicted"),
        ] {
            let mut got = BTreeMap::<(u64, i64), u64>::new();
            for w in result.collected(sums).unwrap() {
                let before = got.insert((w.key, w.window.start), w.value);
                assert!(before.unwrap_or(0) <= w.value, "{of}: a window loses nothing");
            }
            assert_eq!(got, wanted, "{of}: size {size}, slide {slide}, disorder {disorder}");
        }
    });
}

#[test]
fn windows_of_all_records_are_those_of_a_naive_model() {
    each(100, |seed, random| {
        let disorder = random.random_range(0..60);
        let all = records(random, disorder);
        let mode = either_mode(random);
        let env = environment(seed, random, mode);
        let (size, gap) = (random.random_range(1..150), random.random_range(1..30));
        let stream = || timed(&env, &all, disorder, false);
        let sums = stream().window_all(TumblingEventTimeWindows::of(ms(size))).sum(|r| r.2).collect();
        let session = stream().window_all(EventTimeSessionWindows::with_gap(ms(gap))).count().collect();
        let result = env.execute("all").unwrap();
        let mut wanted = BTreeMap::<i64, u64>::new();
        for r in &all {
            *wanted.entry(r.1.div_euclid(size) * size).or_default() += r.2;
        }
        let got = result.collected(&sums).unwrap();
        assert_eq!(got.len(), wanted.len());
        assert_eq!(got.into_iter().map(|w| (w.window.start, w.value)).collect::<BTreeMap<_, _>>(), wanted);
        let mut times: Vec<i64> = all.iter().map(|r| r.1).collect();
        times.sort_unstable();
        let mut wanted: Vec<(i64, i64, u64)> = Vec::new();
        for at in times {
            match wanted.last_mut() {
                Some((_, end, n)) if at < *end => (*end, *n) = (at + gap, *n + 1),
                _ => wanted.push((at, at + gap, 1)),
            }
        }
        let got = result.collected(&session).unwrap().into_iter().map(|w| (w.window.start, w.window.end, w.value));
        let mut got: Vec<_> = got.collect();
        got.sort_unstable();
        assert_eq!(got, wanted);
    });
}

#[test]
fn windows_by_the_machines_clock_begin_where_they_should_and_fire_once() {
    each(40, |seed, random| {
        let n = random.random_range(0..300);
        let env = environment(seed, random, ExecutionMode::Streaming);
        let (size, slide) = (random.random_range(1..30), random.random_range(1..10));
        let numbers = || env.from_collection(0..n).key_by(|i: &u64| i % 5);
        let list = |key: u64, window: TimeWindow, all: Vec<u64>| Some((key, window.start, window.end, all));
        let tumbling = numbers().window(TumblingProcessingTimeWindows::of(ms(size))).apply(list).collect();
        let windows = SlidingProcessingTimeWindows::of(ms(size * slide), ms(slide));
        let sliding = numbers().window(windows).apply(list).collect();
        let result = env.execute("clock").unwrap();
        for (told, slide, size) in [(&tumbling, size, size), (&sliding, slide, size * slide)] {
            let mut seen = BTreeMap::<u64, u64>::new();
            let mut windows = std::collections::BTreeSet::new();
            for (key, start, end, all) in result.collected(told).unwrap() {
                assert!(start.rem_euclid(slide) == 0 && end - start == size, "[{start}, {end})");
                assert!(windows.insert((key, start)), "{key} {start} fires twice");
                assert!(all.iter().all(|i| i % 5 == key));
                all.iter().for_each(|i| *seen.entry(*i).or_default() += 1);
            }
            let times = (size / slide) as u64;
            assert_eq!(seen, (0..n).map(|i| (i, times)).collect::<BTreeMap<_, _>>());
        }
    });
}
