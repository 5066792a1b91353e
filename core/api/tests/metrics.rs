//! Functions with metrics in whole programs, and fed by hand.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;
use thalweg_api::{
    CountTrigger, Counter, GlobalWindows, Metrics, OutputTag, WindowContext, WindowFunction,
    prelude::*,
    testing::{self, OperatorTester, TestRuntime},
};

/// Gives out how many records a window has, and counts the windows of one.
#[derive(Clone)]
struct Sizes {
    lonely: Counter,
}

impl Sizes {
    fn new() -> Self {
        Self { lonely: Counter::new("lonely") }
    }
}

impl WindowFunction<u64, Vec<u64>> for Sizes {
    type Out = (u64, usize);
    type Results = std::option::IntoIter<(u64, usize)>;
    fn metrics(&mut self, metrics: &mut Metrics<'_>) {
        metrics.add(&mut self.lonely);
    }
    fn apply(&mut self, gathered: Vec<u64>, ctx: WindowContext<'_, u64>) -> Self::Results {
        if gathered.len() == 1 {
            self.lonely.inc();
        }
        Some((ctx.into_key(), gathered.len())).into_iter()
    }
}

#[test]
fn windows_take_a_function_with_metrics() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let times = || WatermarkStrategy::for_monotonous_timestamps();
    let numbers = || {
        let numbers = env.from_collection([1_u64, 2, 3, 12]);
        numbers.assign_timestamps_and_watermarks(|i: &u64| *i as i64, times()).key_by(|i| i % 2)
    };
    let of_ten = || TumblingEventTimeWindows::of(Duration::from_millis(10));
    let plain = numbers().window(of_ten()).process(Sizes::new()).uid("plain").collect();
    let late = OutputTag::new("late");
    let aware = numbers().window(of_ten()).side_output_late_data(&late).process(Sizes::new()).uid("aware").collect();
    let global = numbers().window(GlobalWindows).trigger(CountTrigger::of(2));
    let global = global.process(Sizes::new()).uid("global").collect();
    let result = env.execute("sizes").unwrap();
    for windows in [&plain, &aware] {
        let mut sizes = result.collected(windows).unwrap();
        sizes.sort();
        assert_eq!(sizes, [(0, 1), (0, 1), (1, 2)]);
    }
    let mut sizes = result.collected(&global).unwrap();
    sizes.sort();
    assert_eq!(sizes, [(0, 2), (1, 2)]);
}

#[test]
fn a_window_function_is_fed_by_hand() {
    let runtime = TestRuntime::new().unwrap();
    let of_ten = TumblingEventTimeWindows::of(Duration::from_millis(10));
    let spec = testing::windows(of_ten, |i: &u64| i % 2, Sizes::new());
    let mut tester = OperatorTester::new(&runtime.env, spec).unwrap();
    for i in [1, 2, 3] {
        tester.push(i as i64, i).unwrap();
    }
    assert_eq!(tester.metric("lonely"), Some(0.0));
    tester.watermark(10).unwrap();
    assert_eq!((tester.metric("lonely"), tester.take().len()), (Some(1.0), 2));
}
