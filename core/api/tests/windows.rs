//! Windows against a naive model, over random streams, disorder, parallelism and order of steps; and what a program is
//! told that uses them wrongly. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};
use thalweg_api::{
    ContinuousEventTimeTrigger, CountEvictor, CountTrigger, GlobalWindows, ProcessingTimeSessionWindows,
    PurgingTrigger, TumblingProcessingTimeWindows, prelude::*, testing,
};

/// Some records (key, time, value), a little out of order.
fn records(random: &mut SmallRng, disorder: i64) -> Vec<(u64, i64, u64)> {
    let n = random.random_range(0..400);
    let (keys, step) = (random.random_range(1..12), random.random_range(0..9));
    let mut at = random.random_range(-500..500);
    let mut all = Vec::new();
    for _ in 0..n {
        at += random.random_range(0..=step);
        if random.random_range(0..60) == 0 {
            at += 1000;
        }
        let back = if disorder == 0 { 0 } else { random.random_range(0..disorder) };
        all.push((random.random_range(0..keys), at - back, random.random_range(0..100)));
    }
    all
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

fn cases(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (0..n).collect()
}

fn each(default: u64, case: impl Fn(u64, &mut SmallRng)) {
    for seed in cases(default) {
        let run = std::panic::AssertUnwindSafe(|| case(seed, &mut SmallRng::seed_from_u64(seed)));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

/// One of eight on real threads, the others in steps.
fn environment(seed: u64, parallelism: u32) -> Environment {
    let dir = std::env::temp_dir();
    if seed % 8 == 7 { testing::environment(parallelism, dir) } else { testing::stepped(parallelism, dir, seed) }
        .unwrap()
}

type Sums = BTreeMap<(u64, i64, i64), u64>;

/// What windows are, said once more without panes.
fn naive(all: &[(u64, i64, u64)], size: i64, slide: i64) -> Sums {
    let mut sums = Sums::new();
    for (key, at, value) in all {
        for start in (at - size + 1..=*at).filter(|s| s.rem_euclid(slide) == 0) {
            *sums.entry((*key, start, start + size)).or_default() += value;
        }
    }
    sums
}

#[test]
fn windows_give_what_a_naive_model_gives() {
    each(300, |seed, random| {
        let disorder = if random.random() { 0 } else { random.random_range(1..60) };
        let all = records(random, disorder);
        let (size, slide) = (random.random_range(1..200), random.random_range(1..120));
        let (size, slide) = if random.random() { (size, size) } else { (size, slide) };
        let parallelism = random.random_range(1..4);
        let env = environment(seed, parallelism);
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        // One subtask reads all, so that the disorder is the one that was drawn.
        let source = env.from_collection(all.clone()).parallelism(1);
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(disorder));
        let timed = source.assign_timestamps_and_watermarks(|r| r.1, strategy);
        let windows = SlidingEventTimeWindows::of(ms(size), ms(slide));
        let windowed = timed.key_by(|r| r.0).window(windows);
        let late = OutputTag::new("late");
        let sums = match random.random_range(0..3) {
            0 => windowed.sum(|r| r.2).boxed(),
            1 => windowed.side_output_late_data(&late).sum(|r| r.2).boxed(),
            _ => windowed
                .apply(|key, window, items: Vec<(u64, i64, u64)>| {
                    Some(Windowed { key, window, value: items.iter().map(|r| r.2).sum() })
                })
                .boxed(),
        };
        let sums = sums.collect();
        let result = env.execute("windows").unwrap();
        let mut got = Sums::new();
        for w in result.collected(&sums).unwrap() {
            let twice = got.insert((w.key, w.window.start, w.window.end), w.value);
            assert_eq!(twice, None, "a window fires once");
        }
        assert_eq!(got, naive(&all, size, slide), "size {size}, slide {slide}, disorder {disorder}");
    });
}

#[test]
fn late_records_change_results_or_come_out_by_the_side_and_none_is_lost() {
    each(300, |seed, random| {
        let all = records(random, 300);
        let size = random.random_range(1..100);
        let lateness = if random.random() { 0 } else { random.random_range(0..200) };
        let env = environment(seed, random.random_range(1..4));
        env.mode(ExecutionMode::Streaming);
        let source = env.from_collection(all.clone()).parallelism(1);
        let timed =
            source.assign_timestamps_and_watermarks(|r| r.1, WatermarkStrategy::for_bounded_out_of_orderness(ms(20)));
        let tag = OutputTag::new("late");
        let sums = timed
            .key_by(|r| r.0)
            .window(TumblingEventTimeWindows::of(ms(size)))
            .allowed_lateness(ms(lateness))
            .side_output_late_data(&tag)
            .sum(|r| r.2);
        let late = sums.side_output(&tag).collect();
        let sums = sums.collect();
        let result = env.execute("late").unwrap();
        // The last result of a window is the one that stands.
        let mut got = Sums::new();
        for w in result.collected(&sums).unwrap() {
            let before = got.insert((w.key, w.window.start, w.window.end), w.value);
            assert!(before.is_none() || lateness > 0, "fired again without lateness");
        }
        let late = result.collected(&late).unwrap();
        let mut rest = all.clone();
        for record in &late {
            let i = rest.iter().position(|r| r == record).expect("what is late came in");
            rest.swap_remove(i);
            let highest = all.iter().map(|r| r.1).max().unwrap();
            assert!(record.1 + lateness <= highest, "not late at all");
        }
        let expected = naive(&rest, size, size);
        for (window, sum) in &expected {
            assert_eq!(got.get(window), Some(sum), "{window:?}");
        }
        assert_eq!(got.len(), expected.len());
    });
}

#[test]
fn what_is_wrong_with_windows_is_said_before_anything_runs() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    env.sequence(0..10).key_by(|i| *i).window(TumblingEventTimeWindows::of(ms(5))).count().discard();
    let timed = |env: &Environment| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        env.sequence(0..10).assign_timestamps_and_watermarks(|i| *i as i64, strategy)
    };
    timed(&env).key_by(|i| *i).window(SlidingEventTimeWindows::of(ms(5), ms(0))).count().discard();
    let tag = OutputTag::<u64>::new("nowhere");
    timed(&env).side_output(&tag).discard();
    let error = env.execute("wrong").unwrap_err().to_string();
    for part in ["a window needs event time", "at least 1 ms", "no side outputs", "tests/windows.rs:"] {
        assert!(error.contains(part), "{part} not in {error}");
    }
    // A union of a stream with times and one without has none.
    timed(&env).union(env.sequence(0..3)).key_by(|i| *i).window(TumblingEventTimeWindows::of(ms(5))).count().discard();
    assert!(env.execute("union").unwrap_err().to_string().contains("a window needs event time"));
}

#[test]
fn what_windows_without_event_time_give_out_has_none() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let timed = || {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        env.sequence(0..10).assign_timestamps_and_watermarks(|i| *i as i64, strategy)
    };
    macro_rules! refused {
        ($stream:expr) => {{
            $stream.boxed().key_by(|w| w.key).window(TumblingEventTimeWindows::of(ms(5))).count().discard();
            let error = env.execute("none").unwrap_err().to_string();
            let told =
                error.contains("a window needs event time, and what windows of the machine's clock, of counts or");
            assert!(told && error.contains("call assign_timestamps_and_watermarks"), "{error}");
        }};
    }
    refused!(timed().key_by(|i| *i % 3).count_window(2).count());
    refused!(timed().key_by(|i| *i % 3).window(GlobalWindows).trigger(CountTrigger::of(2)).sum(|i| i));
    refused!(timed().key_by(|i| *i % 3).window(TumblingProcessingTimeWindows::of(ms(5))).count());
    refused!(timed().key_by(|i| *i % 3).window(ProcessingTimeSessionWindows::with_gap(ms(5))).count().filter(|_| true));
    // With times of its own it goes on, as does what windows of event time give out.
    let counts = timed().key_by(|i| *i % 3).count_window(2).count();
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let again = counts.assign_timestamps_and_watermarks(|w| w.key as i64, strategy);
    let again = again.key_by(|w| w.key).window(TumblingEventTimeWindows::of(ms(5))).count().collect();
    let sessions = timed().key_by(|i| *i % 3).window(EventTimeSessionWindows::with_gap(ms(5))).count();
    let sessions = sessions.key_by(|w| w.key).window(TumblingEventTimeWindows::of(ms(5))).count().collect();
    let result = env.execute("again").unwrap();
    assert_eq!(result.collected(&again).unwrap().len(), 3);
    assert_eq!(result.collected(&sessions).unwrap().len(), 3);
}

#[test]
fn a_record_without_a_time_fails_the_job_and_says_what_to_do() {
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    env.sequence(0..10)
        .assign_timestamps_and_watermarks(|_| i64::MIN, strategy)
        .key_by(|i| *i)
        .window(TumblingEventTimeWindows::of(ms(5)))
        .count()
        .discard();
    let error = env.execute("no time").unwrap_err().to_string();
    assert!(error.contains("146 million years"), "{error}");
}

#[test]
fn sessions_are_those_of_a_naive_model() {
    each(300, |seed, random| {
        let disorder = if random.random() { 0 } else { random.random_range(1..60) };
        let all = records(random, disorder);
        let gap = random.random_range(1..40);
        let env = environment(seed, random.random_range(1..4));
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let source = env.from_collection(all.clone()).parallelism(1);
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(disorder));
        let timed = source.assign_timestamps_and_watermarks(|r| r.1, strategy);
        let sums = timed.key_by(|r| r.0).window(EventTimeSessionWindows::with_gap(ms(gap))).sum(|r| r.2).collect();
        let result = env.execute("sessions").unwrap();
        let mut got = Sums::new();
        for w in result.collected(&sums).unwrap() {
            assert_eq!(got.insert((w.key, w.window.start, w.window.end), w.value), None, "a session fires once");
        }
        assert_eq!(got, naive_sessions(&all, |_| gap));
    });
}

/// The sessions of records with a gap each: each record is a window, and those that overlap are one.
fn naive_sessions(all: &[(u64, i64, u64)], gap: impl Fn(&(u64, i64, u64)) -> i64) -> Sums {
    let mut sorted = all.to_vec();
    sorted.sort_unstable_by_key(|r| (r.0, r.1));
    let mut sessions: Vec<((u64, i64, i64), u64)> = Vec::new();
    for r in sorted {
        match sessions.last_mut() {
            Some(((key, _, end), sum)) if *key == r.0 && r.1 < *end => {
                // A long gap of an earlier record is not cut short by a later one.
                *end = (*end).max(r.1 + gap(&r));
                *sum += r.2;
            }
            _ => sessions.push(((r.0, r.1, r.1 + gap(&r)), r.2)),
        }
    }
    sessions.into_iter().collect()
}

#[test]
fn sessions_whose_gap_the_record_says_are_those_of_a_naive_model() {
    each(300, |seed, random| {
        let disorder = if random.random() { 0 } else { random.random_range(1..60) };
        let all = records(random, disorder);
        let (least, spread) = (random.random_range(1..20), random.random_range(1..60));
        let gap = move |r: &(u64, i64, u64)| least + (r.2 as i64 * 7 + r.0 as i64) % spread;
        let env = environment(seed, random.random_range(1..4));
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let source = env.from_collection(all.clone()).parallelism(1);
        // Nothing is late: a session may end much later than its last record, and takes up what comes until then.
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(disorder));
        let timed = source.assign_timestamps_and_watermarks(|r| r.1, strategy);
        let windows = EventTimeSessionWindows::with_dynamic_gap(move |r: &(u64, i64, u64)| ms(gap(r)));
        let windowed = timed.key_by(|r| r.0).window(windows);
        let sums = if random.random() {
            windowed.sum(|r| r.2).boxed()
        } else {
            let sum = |key, window, items: Vec<(i64, (u64, i64, u64))>| {
                Some(Windowed { key, window, value: items.iter().map(|(_, r)| r.2).sum() })
            };
            windowed.evictor(CountEvictor::of(usize::MAX)).apply(sum).boxed()
        };
        let sums = sums.collect();
        let result = env.execute("sessions").unwrap();
        let mut got = Sums::new();
        for w in result.collected(&sums).unwrap() {
            assert_eq!(got.insert((w.key, w.window.start, w.window.end), w.value), None, "a session fires once");
        }
        assert_eq!(got, naive_sessions(&all, gap));
    });
}

#[test]
fn a_gap_of_nothing_fails_the_job_and_says_what_to_do() {
    let env = testing::stepped(1, std::env::temp_dir(), 1).unwrap();
    let times = env.from_collection([5, 700]);
    let windows = || EventTimeSessionWindows::with_dynamic_gap(|t: &i64| Duration::from_micros(*t as u64 * 2));
    let timed = times.assign_timestamps_and_watermarks(|t| *t, WatermarkStrategy::for_monotonous_timestamps());
    timed.key_by(|_| 0u8).window(windows()).count().uid("gaps").discard();
    let error = env.execute("gaps").unwrap_err().to_string();
    assert!(error.contains("gaps") && error.contains("session gap is 10µs") && error.contains("1 ms"), "{error}");
    env.from_collection([1i64]).key_by(|_| 0u8).window(windows()).count().discard();
    let error = env.execute("no time").unwrap_err().to_string();
    assert!(error.contains("a window needs event time"), "{error}");
}

#[test]
fn triggers_fire_early_often_and_purge() {
    let env = testing::stepped(2, std::env::temp_dir(), 1).unwrap();
    env.mode(ExecutionMode::Streaming);
    let timed = |env: &Environment| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        env.sequence(0..100).parallelism(1).assign_timestamps_and_watermarks(|i| *i as i64 * 10, strategy)
    };
    let tumbling = TumblingEventTimeWindows::of(ms(500));
    // Two windows of 50 records, each fired by each 20th.
    let counts = timed(&env).key_by(|_| 0u8).window(tumbling).trigger(CountTrigger::of(20)).count().collect();
    let purged = timed(&env)
        .key_by(|_| 0u8)
        .window(tumbling)
        .trigger(PurgingTrigger::of(CountTrigger::of(20)))
        .count()
        .collect();
    let all = timed(&env).key_by(|_| 0u8).window(GlobalWindows).trigger(CountTrigger::of(30)).count().collect();
    let tens = timed(&env).key_by(|_| 0u8).count_window(40).sum(|i| i).collect();
    let last = timed(&env)
        .key_by(|_| 0u8)
        .window(GlobalWindows)
        .trigger(CountTrigger::of(25))
        .evictor(CountEvictor::of(10))
        .apply(|_, _, items: Vec<(i64, u64)>| Some(items.into_iter().map(|(_, i)| i).collect::<Vec<_>>()))
        .collect();
    let often =
        timed(&env).key_by(|_| 0u8).window(tumbling).trigger(ContinuousEventTimeTrigger::of(ms(100))).count().collect();
    let result = env.execute("triggers").unwrap();
    let values = |c| result.collected(c).unwrap().into_iter().map(|w: Windowed<u8, u64>| w.value).collect::<Vec<_>>();
    assert_eq!(values(&counts), [20, 40, 20, 40]);
    assert_eq!(values(&purged), [20, 20, 20, 20]);
    assert_eq!(values(&all), [30, 60, 90]);
    assert_eq!(values(&tens), [(0..40).sum::<u64>(), (40..80).sum()]);
    let last = result.collected(&last).unwrap();
    assert_eq!(last, [15..25, 40..50, 65..75, 90..100].map(|r| r.collect::<Vec<u64>>()));
    // How much is there when it fires early depends on how far the watermark jumps; at last all of each window is.
    let often = values(&often);
    let (first, second) = often.split_at(often.iter().rposition(|n| *n == 50).unwrap().min(often.len() / 2));
    assert!(often.len() >= 4 && first.is_sorted() && second.is_sorted() && often.ends_with(&[50]), "{often:?}");
}

#[test]
fn windows_by_the_machines_clock_lose_nothing_at_the_end() {
    each(40, |seed, random| {
        let env = environment(seed, random.random_range(1..4));
        env.mode(ExecutionMode::Streaming);
        let sums = env
            .from_collection(0..100u64)
            .key_by(|i| i % 7)
            .window(TumblingProcessingTimeWindows::of(ms(random.random_range(1..20))))
            .sum(|i| i)
            .collect();
        let sessions = env
            .from_collection(0..100u64)
            .key_by(|i| i % 7)
            .window(ProcessingTimeSessionWindows::with_gap(ms(random.random_range(1..20))))
            .sum(|i| i)
            .collect();
        let result = env.execute("clock").unwrap();
        for sums in [sums, sessions] {
            let total: u64 = result.collected(&sums).unwrap().iter().map(|w| w.value).sum();
            assert_eq!(total, 4950);
        }
    });
}
