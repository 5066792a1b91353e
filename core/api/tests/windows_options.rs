//! Lateness, late records by the side, triggers and evictors of windows: all of them together, in any order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;
use thalweg_api::{CountEvictor, CountTrigger, EventTimeTrigger, prelude::*, testing};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Times that a watermark follows at once, with one record at 5 ms far behind.
fn times(env: &Environment) -> DataStream<i64, impl thalweg_dataflow::pipe::Pipe<Item = i64>> {
    let times = env.from_collection((0..1_000).map(|i| i * 10).chain([5])).parallelism(1);
    times.assign_timestamps_and_watermarks(|t| *t, WatermarkStrategy::for_monotonous_timestamps())
}

fn count(_: u8, window: TimeWindow, items: Vec<(i64, i64)>) -> Option<(TimeWindow, usize)> {
    Some((window, items.len()))
}

#[test]
fn what_is_late_for_windows_with_an_evictor_comes_out_by_the_side() {
    for seed in 0..8 {
        let env = testing::stepped(2, std::env::temp_dir(), seed).unwrap();
        env.mode(ExecutionMode::Streaming);
        let tags = [0, 1, 2, 3].map(|n| OutputTag::new(format!("late {n}")));
        let tumbling = || TumblingEventTimeWindows::of(ms(100));
        let keyed = || times(&env).key_by(|_| 0u8);
        let keep = || CountEvictor::of(3);
        let a = keyed().window(tumbling()).trigger(EventTimeTrigger).side_output_late_data(&tags[0]).evictor(keep());
        let a = a.apply(count);
        let sessions = keyed().window(EventTimeSessionWindows::with_gap(ms(4))).side_output_late_data(&tags[1]);
        let b = sessions.evictor(keep()).apply(count);
        let late = [a.side_output(&tags[0]).collect(), b.side_output(&tags[1]).collect()];
        let counts = a.collect();
        b.discard();
        let result = env.execute("late").unwrap();
        for late in &late {
            assert_eq!(result.collected(late).unwrap(), [5], "seed {seed}");
        }
        let counts = result.collected(&counts).unwrap();
        assert_eq!(counts.len(), 100);
        assert!(counts.iter().all(|(_, n)| *n == 3), "{counts:?}");
    }
}

/// What a program with these windows tells, and what is late.
type Answer = (Vec<(TimeWindow, usize)>, Vec<i64>);

#[test]
fn options_of_windows_may_stand_in_any_order() {
    for seed in 0..8 {
        let tag = OutputTag::new("late");
        let (e, t) = (|| CountEvictor::of(3), || CountTrigger::of(4));
        let run = |order: usize| -> Answer {
            let env = testing::stepped(2, std::env::temp_dir(), seed).unwrap();
            env.mode(ExecutionMode::Streaming);
            let times = env.from_collection((0..2_000).map(|i| i * 10 - i % 7 * 400)).parallelism(1);
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            let keyed = times.assign_timestamps_and_watermarks(|t| *t, strategy).key_by(|_| 0u8);
            let w = keyed.window(TumblingEventTimeWindows::of(ms(100)));
            let d = ms(250);
            let counts = match order {
                0 => w.allowed_lateness(d).side_output_late_data(&tag).trigger(t()).evictor(e()).apply(count),
                1 => w.side_output_late_data(&tag).allowed_lateness(d).trigger(t()).evictor(e()).apply(count),
                2 => w.side_output_late_data(&tag).trigger(t()).evictor(e()).allowed_lateness(d).apply(count),
                3 => w.side_output_late_data(&tag).evictor(e()).trigger(t()).allowed_lateness(d).apply(count),
                4 => w.evictor(e()).allowed_lateness(d).side_output_late_data(&tag).trigger(t()).apply(count),
                5 => w.evictor(e()).trigger(t()).side_output_late_data(&tag).allowed_lateness(d).apply(count),
                6 => w.trigger(t()).evictor(e()).side_output_late_data(&tag).allowed_lateness(d).apply(count),
                _ => w.trigger(t()).allowed_lateness(d).side_output_late_data(&tag).evictor(e()).apply(count),
            };
            let late = counts.side_output(&tag).collect();
            let counts = counts.collect();
            let result = env.execute("late").unwrap();
            (result.collected(&counts).unwrap(), result.collected(&late).unwrap())
        };
        let first = run(0);
        assert!(first.0.len() > 100 && first.0.iter().all(|(_, n)| *n == 3), "{first:?}");
        assert!(!first.1.is_empty() && first.1.len() < 2_000);
        for order in 1..8 {
            assert_eq!(run(order), first, "order {order}, seed {seed}");
        }
    }
}
