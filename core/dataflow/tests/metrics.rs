//! What tasks tell of their time and of the stream's, on real threads. What the counters add up to is tried beside them,
//! with a clock of the test's own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
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
use thalweg_model::{Partitioner, SubtaskMetrics, VertexRole};
use thalweg_wire::ExecutionMode;

fn freeze(b: &PlanBuilder) -> Arc<Plan> {
    Arc::new(b.freeze(&Freeze { parallelism: 1, max_parallelism: None, mode: ExecutionMode::Streaming }).unwrap())
}

/// Takes far longer for a record than a source does.
fn slow(_: u64) {
    std::thread::sleep(Duration::from_micros(20));
}

/// A source and a slow task, and beside them a source that hardly gives anything and a task behind it. Answers the vertices
/// of the two tasks.
fn slow_and_idle(own_thread: bool) -> (Arc<Plan>, [usize; 4]) {
    let b = PlanBuilder::default();
    let mut vertices = Vec::new();
    for idle in [false, true] {
        let source = Sequence::new(0..u64::MAX);
        let (op, head) = add_source(&b, if idle { source.rate(0.001) } else { source });
        if own_thread {
            b.set_own_thread(op.vertex);
        }
        let to = b.vertex(VertexRole::Task, None);
        let re = b.operator(to, "rebalance", &[]);
        let edge = b.edge::<u64>(op.vertex, to, Partitioner::Rebalance, false);
        close(&b, op.vertex, head, TurnRoute { edge, timed: false });
        let inlet = add_gate::<u64>(&b, to, vec![edge], re);
        if idle {
            add_sink(&b, to, inlet, Discard);
        } else {
            add_sink(&b, to, inlet, ForEach(slow));
        }
        vertices.extend([op.vertex, to]);
    }
    (freeze(&b), vertices.try_into().unwrap())
}

fn by_vertex(run: &LocalRun) -> BTreeMap<usize, SubtaskMetrics> {
    // When they were read is another moment each time.
    let all = run.engine.metrics().into_iter();
    all.map(|(s, _, m)| (s.vertex as usize, SubtaskMetrics { read_at: None, ..m })).collect()
}

/// The name of the largest of the three.
fn mostly(m: &SubtaskMetrics) -> &'static str {
    let times = [(m.busy_ms, "busy"), (m.idle_ms, "idle"), (m.back_pressured_ms, "held")];
    times.into_iter().max().unwrap().1
}

#[test]
fn a_task_knows_whether_it_works_waits_for_input_or_waits_for_room() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for own_thread in [true, false] {
        let (plan, [source, slow, rare, idle]) = slow_and_idle(own_thread);
        let run = LocalRun::start_with(plan, runtime.env.clone(), dir.path().to_owned(), 1 << 16);
        let all = |m: &SubtaskMetrics| m.busy_ms + m.idle_ms + m.back_pressured_ms;
        let words = ["held", "busy", "idle", "idle"];
        let mut told = by_vertex(&run);
        // Threads may start late, and what happened before they did fades from the picture.
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(100));
            told = by_vertex(&run);
            let long = [source, slow, rare, idle].iter().all(|v| all(&told[v]) >= 500);
            let full = told[&slow].input_queue >= 1 && told[&source].output_queue >= 1;
            if long && full && [source, slow, rare, idle].map(|v| mostly(&told[&v])) == words {
                break;
            }
        }
        run.engine.stop();
        let mostly: Vec<_> = [source, slow, rare, idle].map(|v| mostly(&told[&v])).into();
        assert_eq!(mostly, ["held", "busy", "idle", "idle"], "own threads: {own_thread}, {told:?}");
        // A queue or a ring holds four batches or more; some were taken in the step that goes on.
        let queues = |v: usize| (told[&v].input_queue, told[&v].output_queue);
        assert!(queues(slow).0 >= 1 && queues(source).1 >= 1, "own threads: {own_thread}, {told:?}");
        assert_eq!([queues(rare), queues(idle), (0, queues(slow).1)], [(0, 0); 3], "{told:?}");
        // On real threads the rest is the time in which nothing was deployed yet, and that is short.
        for v in [source, slow, rare, idle] {
            let all = all(&told[&v]);
            assert!((100..60_000).contains(&all), "{all} ms of vertex {v}: {told:?}");
        }
        let after = by_vertex(&run);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(by_vertex(&run), after, "nothing goes on after the end");
        for (v, m) in &told {
            let n = &after[v];
            let grown = [(m.busy_ms, n.busy_ms), (m.idle_ms, n.idle_ms), (m.back_pressured_ms, n.back_pressured_ms)];
            assert!(grown.iter().all(|(before, after)| before <= after), "{m:?} {n:?}");
        }
    }
}

#[test]
fn a_parked_task_goes_on_idling() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..u64::MAX).rate(0.001));
    add_sink(&b, op.vertex, head, Discard);
    let run = LocalRun::start(freeze(&b), runtime.env.clone(), dir.path().to_owned());
    let look = || (by_vertex(&run)[&op.vertex].clone(), run.engine.parks());
    // Until it is parked and stays so.
    let (mut before, mut parks) = look();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(100));
        let (now, again) = look();
        let rests = again > 0 && again == parks && now.busy_ms == before.busy_ms;
        (before, parks) = (now, again);
        if rests {
            break;
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let (after, parks_after) = look();
    run.engine.stop();
    // Once or twice a thread may be woken for nothing.
    assert!(parks_after - parks < 3, "the slot was not parked all the time: {parks} {parks_after}");
    assert!(after.idle_ms - before.idle_ms >= 290, "{before:?} {after:?}");
    assert_eq!((before.busy_ms, before.back_pressured_ms), (after.busy_ms, after.back_pressured_ms));
}

#[test]
fn the_watermark_of_a_task_is_that_of_its_inputs_and_the_end_is_none() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..1000));
    let stamp = b.operator(op.vertex, "timestamps", &[]);
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let pipe = Then::new(head, Stamp::new(|i: &u64| *i as i64 - 5000, strategy), stamp.op);
    let to = b.vertex(VertexRole::Task, None);
    let re = b.operator(to, "rebalance", &[]);
    let edge = b.edge::<u64>(op.vertex, to, Partitioner::Rebalance, false);
    close(&b, op.vertex, pipe, TurnRoute { edge, timed: true });
    add_sink(&b, to, add_gate::<u64>(&b, to, vec![edge], re), Discard);
    let result = LocalRun::start(freeze(&b), runtime.env.clone(), dir.path().to_owned()).finish();
    assert!(result.failure.is_none(), "{result:?}");
    let watermark = |v: usize| result.metrics.iter().find(|(s, _)| s.vertex as usize == v).unwrap().1.watermark;
    // The last record has the time -4001, and another one of that time might follow.
    assert_eq!(watermark(to), Some(-4002));
    assert_eq!(watermark(op.vertex), None, "a source has no input that could tell one");
}

#[test]
fn a_late_record_is_in_a_window_or_counted() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let b = PlanBuilder::default();
    let n = 10_000;
    let (op, head) = add_source(&b, Sequence::new(0..n));
    let stamp = b.operator(op.vertex, "timestamps", &[]);
    // Each hundredth is of the first window, which is over soon.
    let time = |i: &u64| if i.is_multiple_of(100) { 0 } else { *i as i64 * 10 };
    let pipe = Then::new(head, Stamp::new(time, WatermarkStrategy::for_monotonous_timestamps()), stamp.op);
    let to = b.vertex(VertexRole::Task, None);
    let count = b.operator(to, "window-count", &["windows"]);
    let edge = b.edge::<u64>(op.vertex, to, Partitioner::Hash, false);
    let key = ByValue(|i: &u64| i % 3);
    close(&b, op.vertex, pipe, KeyRoute { edge, timed: true, key: key.clone() });
    let inlet = add_gate::<u64>(&b, to, vec![edge], count);
    let windows = TumblingEventTimeWindows::of(Duration::from_millis(100));
    let sides = Sides::default();
    let spec = WindowSpec { windows, lateness: 0, fold: Count, key, result: WithWindow, late: None, sides };
    let counted = Arc::new(AtomicU64::new(0));
    let sum = counted.clone();
    let add = move |w: Windowed<u64, u64>| {
        sum.fetch_add(w.value, Ordering::Relaxed);
    };
    add_sink(&b, to, Then::new(inlet, spec, count.op), ForEach(add));
    let result = LocalRun::start(freeze(&b), runtime.env.clone(), dir.path().to_owned()).finish();
    assert!(result.failure.is_none(), "{result:?}");
    let dropped: u64 = result.metrics.iter().map(|(_, m)| m.late_dropped).sum();
    // Watermarks are told every few hundred records, so that those of the first few are not late.
    assert!((50..100).contains(&dropped), "{dropped}");
    assert_eq!(counted.load(Ordering::Relaxed) + dropped, n);
}
