//! Times at the ends of time: what a damaged or mistaken clock makes of records. Nothing may panic, hang or be lost in silence:
//! each record is in a window, comes out by the side, or is an error.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;
use thalweg_api::{TimeDomain, prelude::*, testing};

/// Times are from here up to and without its opposite.
const FIRST: i64 = -(1 << 62);
const TIMES: [i64; 9] = [0, -FIRST - 1, 5, -FIRST - 2, FIRST + 1, 1 << 55, -(1 << 55), FIRST, 7];

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn environment(seed: u64) -> Environment {
    let env = testing::stepped(2, std::env::temp_dir(), seed).unwrap();
    env.mode(if seed.is_multiple_of(2) { ExecutionMode::Batch } else { ExecutionMode::Streaming });
    env
}

/// Runs a program over [`TIMES`]; `$body` makes of the timed and keyed stream one whose numbers add up to the count of records, with
/// what is late.
macro_rules! all_are_there {
    ($timed:ident, $late:ident, $body:expr) => {
        for (seed, disorder) in (0..8u64).zip([0, 3, 1 << 40, 0, i64::MAX as u64, 3, 0, 1 << 62]) {
            let env = environment(seed);
            let source = env.from_collection(TIMES.to_vec()).parallelism(1);
            let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(disorder));
            let $timed = source.assign_timestamps_and_watermarks(|at| *at, strategy).key_by(|at| *at as u64 % 2);
            let $late = OutputTag::new("late");
            let counts = $body;
            let (late, counts) = (counts.side_output(&$late).collect(), counts.map(|w| w.value).collect());
            let result = env.execute("times").unwrap();
            let counted: u64 = result.collected(&counts).unwrap().iter().sum();
            let late = result.collected(&late).unwrap().len() as u64;
            assert_eq!(counted + late, TIMES.len() as u64, "seed {seed}, disorder {disorder}, late {late}");
        }
    };
}

#[test]
fn tumbling_windows() {
    all_are_there!(
        timed,
        late,
        timed.window(TumblingEventTimeWindows::of(ms(1000))).side_output_late_data(&late).count()
    );
    all_are_there!(
        timed,
        late,
        timed.window(TumblingEventTimeWindows::of(ms(1000)).offset(ms(300))).side_output_late_data(&late).count()
    );
}

#[test]
fn sessions() {
    all_are_there!(
        timed,
        late,
        timed.window(EventTimeSessionWindows::with_gap(ms(1000))).side_output_late_data(&late).count()
    );
}

#[test]
fn sliding_windows_count_each_record_as_often_as_it_is_in_one() {
    for (seed, disorder) in [(0, 0), (1, 0), (3, 1 << 40), (5, i64::MAX as u64), (7, 100)] {
        let env = environment(seed);
        let source = env.from_collection(TIMES.to_vec()).parallelism(1);
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(disorder));
        let keyed = source.assign_timestamps_and_watermarks(|at| *at, strategy).key_by(|at| *at as u64 % 2);
        let late = OutputTag::new("late");
        let windowed = keyed.window(SlidingEventTimeWindows::of(ms(3000), ms(1000))).side_output_late_data(&late);
        let counts = windowed.count();
        let (late, counts) = (counts.side_output(&late).collect(), counts.map(|w| w.value).collect());
        let result = env.execute("times").unwrap();
        let counted: u64 = result.collected(&counts).unwrap().iter().sum();
        let late = result.collected(&late).unwrap().len() as u64;
        let on_time = TIMES.len() as u64 - late;
        // At the very ends there are fewer windows.
        assert!(counted >= on_time && counted <= 3 * on_time, "seed {seed}: {counted} of {on_time} and {late} late");
    }
}

/// Sets a timer at the time of each record and one behind it.
#[derive(Clone)]
struct AtAndBehind;

impl KeyedProcess<i64> for AtAndBehind {
    type Key = u64;
    type State = u64;
    type Out = i64;
    fn process(&mut self, item: i64, _: &mut u64, ctx: &mut impl KeyedContext<u64, i64>) {
        ctx.register_event_time_timer(item);
        ctx.register_event_time_timer(item.saturating_add(10));
    }
    fn on_timer(&mut self, _: TimeDomain, _: &mut u64, ctx: &mut impl KeyedContext<u64, i64>) {
        ctx.emit(ctx.time());
    }
}

#[test]
fn every_timer_comes() {
    for seed in 0..8 {
        let env = environment(seed);
        let source = env.from_collection(TIMES.to_vec()).parallelism(1);
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        let keyed = source.assign_timestamps_and_watermarks(|at| *at, strategy).key_by(|_| 0u64);
        let timers = keyed.process(AtAndBehind).collect();
        let result = env.execute("timers").unwrap();
        let mut got: Vec<i64> = result.collected(&timers).unwrap();
        let mut expected: Vec<i64> = TIMES.iter().flat_map(|at| [*at, at.saturating_add(10)]).collect();
        // A timer whose time has passed comes at once, under its own time; two of one time are one while they wait.
        for list in [&mut got, &mut expected] {
            list.sort_unstable();
            list.dedup();
        }
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[test]
fn an_interval_join_finds_pairs_at_the_ends_of_time() {
    for (seed, (lower, upper)) in [(0, (0, 0)), (1, (-3, 3)), (3, (i64::MIN, i64::MAX)), (5, (0, 10))] {
        let env = environment(seed);
        let strategy = WatermarkStrategy::no_watermarks;
        let source = || env.from_collection(TIMES.to_vec()).parallelism(1);
        let left = source().assign_timestamps_and_watermarks(|at| *at, strategy()).key_by(|_| 0u64);
        let right = source().assign_timestamps_and_watermarks(|at| *at, strategy()).key_by(|_| 0u64);
        let pairs = left.interval_join(right).between(lower, upper).apply(|a, b| (*a, *b)).collect();
        let result = env.execute("pairs").unwrap();
        let mut got: Vec<(i64, i64)> = result.collected(&pairs).unwrap();
        got.sort_unstable();
        let near = |a: i64, b: i64| {
            let distance = i128::from(b) - i128::from(a);
            distance >= i128::from(lower) && distance <= i128::from(upper)
        };
        let all = TIMES.iter().flat_map(|a| TIMES.iter().map(move |b| (*a, *b)));
        let mut expected: Vec<_> = all.filter(|(a, b)| near(*a, *b)).collect();
        expected.sort_unstable();
        assert_eq!(got, expected, "seed {seed}");
    }
}

#[test]
fn a_time_that_is_out_of_range_is_an_error_that_names_the_operator() {
    for at in [i64::MIN, i64::MIN + 1, FIRST - 1, -FIRST, i64::MAX] {
        let env = environment(0);
        let source = env.from_collection(vec![1, at]).parallelism(1);
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        let timed = source.assign_timestamps_and_watermarks(|at| *at, strategy).uid("timed").key_by(|_| 0u64);
        timed.window(TumblingEventTimeWindows::of(ms(10))).count().discard();
        let failed = env.execute("out of range").unwrap_err().to_string();
        assert!(failed.contains("timed") && failed.contains(&format!("a record's time is {at} ms")), "{failed}");
    }
}

#[test]
fn a_window_that_is_longer_than_time_is_refused_before_anything_runs() {
    let env = environment(0);
    let source = env.from_collection(vec![1i64]);
    let timed = source.assign_timestamps_and_watermarks(|at| *at, WatermarkStrategy::for_monotonous_timestamps());
    timed.key_by(|_| 0u64).window(TumblingEventTimeWindows::of(Duration::MAX)).count().discard();
    let refused = env.execute("too long").unwrap_err().to_string();
    assert!(refused.contains("GlobalWindows"), "{refused}");
}
