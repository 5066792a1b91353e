//! Latency markers through whole jobs: within a process and between hosts, behind records, past what holds records back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "what other tests need of it")]
mod support;

use std::{sync::Arc, time::Duration};
use support::{Cluster, MemoryShuffle, attempt};
use thalweg_dataflow::{
    Freeze, Plan, PlanBuilder,
    event_time::{Stamp, WatermarkStrategy},
    fold::Count,
    gate_task::add_gate,
    key::ByValue,
    pipe::{Then, close},
    routes::{KeyRoute, TurnRoute},
    side::Sides,
    sink::{Discard, ForEach, add_sink},
    source::{Sequence, add_source},
    testing::{LocalRun, TestRuntime},
    window::{TumblingEventTimeWindows, WindowSpec, Windowed, WithWindow},
};
use thalweg_model::{LatencyMillis, Partitioner, VertexRole};
use thalweg_wire::ExecutionMode;

fn freeze(b: &PlanBuilder, parallelism: u32) -> Plan {
    b.freeze(&Freeze { parallelism, max_parallelism: None, mode: ExecutionMode::Streaming }).unwrap()
}

/// A source, windows of a day that never fire here, and what is behind them. Answers the vertices of the three.
fn held_back() -> (Plan, [usize; 3]) {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..u64::MAX).rate(100.0));
    let stamp = b.operator(op.vertex, "timestamps", &[]);
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let pipe = Then::new(head, Stamp::new(|i: &u64| *i as i64, strategy), stamp.op);
    let windows = b.vertex(VertexRole::Task, None);
    let count = b.operator(windows, "window-count", &["windows"]);
    let edge = b.edge::<u64>(op.vertex, windows, Partitioner::Hash, false);
    let key = ByValue(|i: &u64| i % 10);
    close(&b, op.vertex, pipe, KeyRoute { edge, timed: true, key: key.clone() });
    let of_a_day = TumblingEventTimeWindows::of(Duration::from_secs(24 * 60 * 60));
    let sides = Sides::default();
    let spec = WindowSpec { windows: of_a_day, lateness: 0, fold: Count, key, result: WithWindow, late: None, sides };
    let pipe = Then::new(add_gate::<u64>(&b, windows, vec![edge], count), spec, count.op);
    let to = b.vertex(VertexRole::Task, None);
    let re = b.operator(to, "rebalance", &[]);
    let edge = b.edge::<Windowed<u64, u64>>(windows, to, Partitioner::Rebalance, false);
    close(&b, windows, pipe, TurnRoute { edge, timed: true });
    add_sink(&b, to, add_gate::<Windowed<u64, u64>>(&b, to, vec![edge], re), Discard);
    (freeze(&b, 4), [op.vertex, windows, to])
}

#[test]
fn markers_reach_every_task_behind_a_source_and_nothing_else_is_changed_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let (plan, [source, windows, to]) = held_back();
    let every = Some(Duration::from_millis(10));
    let c = Cluster::changed(plan, 2, dir.path().to_owned(), MemoryShuffle::new(2000), |setup| {
        setup.latency_interval = every;
    });
    c.deploy(attempt(0));
    let all = || c.engines.iter().flat_map(|e| e.metrics()).map(|(s, _, m)| (s.vertex as usize, m)).collect::<Vec<_>>();
    let told = |m: &[(usize, _)]| {
        let of =
            |v| m.iter().filter(move |(vertex, _)| *vertex == v).map(|(_, m): &(_, thalweg_model::SubtaskMetrics)| m);
        of(windows).chain(of(to)).all(|m| m.latency.is_some())
    };
    for _ in 0..1000 {
        if told(&all()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let seen = all();
    assert!(told(&seen), "{seen:?}");
    c.stop();
    for (vertex, m) in &seen {
        match m.latency {
            None => assert!(*vertex != windows && *vertex != to, "{vertex} {m:?}"),
            Some(LatencyMillis { p50, p95, p99, max }) => {
                assert!(*vertex != source, "nothing is on its way to a source");
                assert!(p50 <= p95 && p95 <= p99 && p99 <= max && max < 10_000, "{vertex} {m:?}");
            }
        }
    }
    let records = |v: usize| seen.iter().filter(|(vertex, _)| *vertex == v).map(|(_, m)| m.records_in).sum::<u64>();
    assert!(records(windows) > 0, "{seen:?}");
    assert_eq!(records(to), 0, "no marker is a record, and no window has fired");
}

#[test]
fn a_marker_waits_its_turn_behind_records_and_there_is_none_unless_it_is_asked_for() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let slow = |_: u64| std::thread::sleep(Duration::from_micros(100));
    for every in [Some(Duration::from_millis(20)), None] {
        let b = PlanBuilder::default();
        let (op, head) = add_source(&b, Sequence::new(0..u64::MAX));
        let to = b.vertex(VertexRole::Task, None);
        let re = b.operator(to, "rebalance", &[]);
        let edge = b.edge::<u64>(op.vertex, to, Partitioner::Rebalance, false);
        close(&b, op.vertex, head, TurnRoute { edge, timed: false });
        add_sink(&b, to, add_gate::<u64>(&b, to, vec![edge], re), ForEach(slow));
        let plan = Arc::new(freeze(&b, 1));
        // A hundred records and more are before each marker.
        let run = LocalRun::start_measured(plan, runtime.env.clone(), dir.path().to_owned(), 1 << 12, every);
        std::thread::sleep(Duration::from_millis(700));
        let look = || run.engine.metrics().iter().find(|(s, ..)| s.vertex as usize == to).unwrap().2.latency;
        // Threads may start late.
        for _ in 0..100 {
            if every.is_none() || look().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let latency = look();
        run.engine.stop();
        match every {
            None => assert_eq!(latency, None),
            Some(_) => assert!(latency.is_some_and(|l| l.p50 >= 5), "{latency:?}"),
        }
    }
}
