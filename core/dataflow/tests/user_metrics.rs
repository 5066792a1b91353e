//! What user functions count by themselves: every kind of function can, and a task tells all of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};
use thalweg_dataflow::{
    Either, Freeze, PlanBuilder, Time,
    broadcast::{BroadcastProcessFunction, BroadcastSpec},
    either::{CoOf, KeyedCoProcess},
    fold::ToList,
    gate_task::add_gate,
    key::ByValue,
    keyed::{self, KeyedContext, KeyedProcess},
    keyed_broadcast::{KeyedBroadcastProcessFunction, KeyedBroadcastSpec},
    metrics::{Counter, Gauge, Histogram, Meter, Metrics},
    pipe::{Then, Transform, close},
    process::{self, ProcessContext, ProcessFunction},
    routes::KeyRoute,
    side::Sides,
    sink::{Discard, add_sink},
    source::{Sequence, add_source},
    testing::{LocalRun, OperatorTester, TestRuntime},
    window::{
        CountTrigger, GlobalWindows, NoEvictor, TriggeredSpec, TumblingEventTimeWindows, Untimed, WindowContext,
        WindowFunction, WindowSpec,
    },
};
use thalweg_model::{Partitioner, TaskFailure, UserMetric, VertexRole};
use thalweg_wire::ExecutionMode;

/// One of each kind, in every kind of function.
#[derive(Clone)]
struct Counts {
    seen: Counter,
    last: Gauge,
    values: Histogram,
    often: Meter,
}

impl Counts {
    fn new() -> Self {
        Self {
            seen: Counter::new("seen"),
            last: Gauge::new("last"),
            values: Histogram::new("values"),
            often: Meter::new("often"),
        }
    }

    fn add_to(&mut self, metrics: &mut Metrics<'_>) {
        metrics.add(&mut self.seen);
        metrics.add(&mut self.last);
        metrics.add(&mut self.values);
        metrics.add(&mut self.often);
    }

    fn see(&self, i: u64) {
        self.seen.inc();
        self.last.set(-(i as i64));
        self.values.record(i);
        self.often.mark();
    }
}

macro_rules! adds {
    () => {
        fn metrics(&mut self, metrics: &mut Metrics<'_>) {
            self.add_to(metrics);
        }
    };
}

impl ProcessFunction<u64> for Counts {
    type Out = u64;
    adds!();
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<u64>) {
        self.see(item);
        ctx.emit(item);
    }
}

impl KeyedProcess<u64> for Counts {
    type Key = u64;
    type State = ();
    type Out = u64;
    adds!();
    fn process(&mut self, item: u64, _: &mut (), ctx: &mut impl KeyedContext<u64, u64>) {
        self.see(item);
        ctx.emit(item);
    }
}

impl KeyedCoProcess<u64, u64> for Counts {
    type Key = u64;
    type State = ();
    type Out = u64;
    adds!();
    fn left(&mut self, item: u64, _: &mut (), _: &mut impl KeyedContext<u64, u64>) {
        self.see(item);
    }
    fn right(&mut self, _: u64, _: &mut (), _: &mut impl KeyedContext<u64, u64>) {}
}

impl BroadcastProcessFunction<u64, u64> for Counts {
    type State = ();
    type Out = u64;
    adds!();
    fn process(&mut self, item: u64, _: &(), _: &mut impl ProcessContext<u64>) {
        self.see(item);
    }
    fn process_broadcast(&mut self, _: u64, _: &mut (), _: &mut impl ProcessContext<u64>) {}
}

impl KeyedBroadcastProcessFunction<u64, u64> for Counts {
    type Key = u64;
    type State = ();
    type Broadcast = ();
    type Out = u64;
    adds!();
    fn process(&mut self, item: u64, _: &mut (), _: &(), _: &mut impl KeyedContext<u64, u64>) {
        self.see(item);
    }
    fn process_broadcast(&mut self, _: u64, _: &mut (), _: &mut impl ProcessContext<u64>) {}
}

impl WindowFunction<u64, Vec<u64>> for Counts {
    type Out = u64;
    type Results = std::vec::IntoIter<u64>;
    adds!();
    fn apply(&mut self, gathered: Vec<u64>, _: WindowContext<'_, u64>) -> Self::Results {
        gathered.iter().for_each(|i| self.see(*i));
        gathered.into_iter()
    }
}

/// Feeds 1 to 4, and looks a second later.
fn tells<T: 'static, X: Transform<T>>(runtime: &TestRuntime, spec: X, make: impl Fn(u64) -> T) {
    let mut tester = OperatorTester::new(&runtime.env, spec).unwrap();
    assert_eq!((tester.metric("seen"), tester.metric("often")), (Some(0.0), None));
    for i in 1..=4 {
        tester.push(i as Time, make(i)).unwrap();
    }
    tester.watermark(100).unwrap();
    tester.advance(Duration::from_secs(2)).unwrap();
    let all = ["seen", "last", "values_count", "values_max", "values_median", "often", "often_count", "other"];
    let all = all.map(|name| tester.metric(name));
    let wanted = [4.0, -4.0, 4.0, 4.0, 2.0, 2.0, 4.0].map(Some);
    assert_eq!((&all[..7], all[7]), (&wanted[..], None), "{}", std::any::type_name::<X>());
}

#[test]
fn every_kind_of_function_has_metrics() {
    let runtime = TestRuntime::new().unwrap();
    let one = ByValue(|_: &u64| 0u64);
    let sides = Sides::default;
    tells(&runtime, process::ProcessSpec { f: Counts::new(), sides: sides() }, |i| i);
    tells(&runtime, keyed::ProcessSpec { f: Counts::new(), key: one.clone(), sides: sides() }, |i| i);
    let either = ByValue(|_: &Either<u64, u64>| 0u64);
    let spec = keyed::ProcessSpec { f: CoOf::<_, u64, u64>::new(Counts::new()), key: either, sides: sides() };
    tells(&runtime, spec, Either::Left);
    tells(&runtime, BroadcastSpec::<_, u64, u64>::new(Counts::new(), sides()), Either::Left);
    let spec = KeyedBroadcastSpec::<_, _, u64, u64>::new(Counts::new(), one.clone(), sides());
    tells(&runtime, spec, Either::Left);
    let windows = TumblingEventTimeWindows::of(Duration::from_millis(10));
    let (result, key) = (Counts::new(), one.clone());
    let spec = WindowSpec { windows, lateness: 0, fold: ToList, key, result, late: None, sides: sides() };
    tells(&runtime, spec, |i| i);
    let spec = TriggeredSpec {
        assigner: GlobalWindows,
        trigger: CountTrigger::of(4),
        evictor: NoEvictor,
        lateness: 0,
        fold: Untimed(ToList),
        key: one,
        result: Counts::new(),
        late: None,
        sides: sides(),
    };
    tells(&runtime, spec, |i| i);
}

/// A function that adds these, each once or as often as it is named.
#[derive(Clone)]
struct Adds(Vec<String>);

impl ProcessFunction<u64> for Adds {
    type Out = u64;
    fn metrics(&mut self, metrics: &mut Metrics<'_>) {
        self.0.iter().for_each(|name| metrics.add(&mut Counter::new(name.clone())));
    }
    fn process(&mut self, _: u64, _: &mut impl ProcessContext<u64>) {}
}

#[test]
fn a_mistake_fails_the_task_when_it_starts_and_says_what_to_do() {
    let runtime = TestRuntime::new().unwrap();
    let starts = |names: Vec<String>| -> Result<(), TaskFailure> {
        let spec = process::ProcessSpec { f: Adds(names), sides: Sides::default() };
        OperatorTester::new(&runtime.env, spec).map(|_| ())
    };
    starts((0..100).map(|i| format!("m{i}")).collect()).unwrap();
    let failure = starts((0..101).map(|i| format!("m{i}")).collect()).unwrap_err();
    assert_eq!(failure.uid.as_deref(), Some("tested"));
    assert!(failure.message.contains("\"m100\"") && failure.message.contains("add fewer"), "{failure}");
    let failure = starts(vec!["a".into(), "a".into()]).unwrap_err();
    assert!(failure.message.contains("two metrics are named \"a\""), "{failure}");
}

#[test]
fn a_task_tells_what_all_its_functions_count() {
    let runtime = TestRuntime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(1..1001));
    let first = b.operator(op.vertex, "process", &[]);
    let second = b.operator(op.vertex, "process", &[]);
    let spec = || process::ProcessSpec { f: Counts::new(), sides: Sides::default() };
    let pipe = Then::new(Then::new(head, spec(), first.op), spec(), second.op);
    let to = b.vertex(VertexRole::Task, None);
    let count = b.operator(to, "process", &[]);
    let edge = b.edge::<u64>(op.vertex, to, Partitioner::Hash, false);
    let key = ByValue(|i: &u64| i % 10);
    close(&b, op.vertex, pipe, KeyRoute { edge, timed: false, key: key.clone() });
    let inlet = add_gate::<u64>(&b, to, vec![edge], count);
    let keyed = keyed::ProcessSpec { f: Counts::new(), key, sides: Sides::default() };
    add_sink(&b, to, Then::new(inlet, keyed, count.op), Discard);
    let plan = b.freeze(&Freeze { parallelism: 2, max_parallelism: None, mode: ExecutionMode::Streaming }).unwrap();
    let result = LocalRun::start(Arc::new(plan), runtime.env.clone(), dir.path().to_owned()).finish();
    assert!(result.failure.is_none(), "{result:?}");
    let seen = |vertex: usize, operator: u32| {
        let of = |m: &UserMetric| m.operator == operator && m.name == "seen";
        let tasks = result.metrics.iter().filter(|(s, _)| s.vertex as usize == vertex);
        tasks.map(|(_, m)| m.user.iter().find(|m| of(m)).unwrap().value).collect::<Vec<_>>()
    };
    for (vertex, operator) in [(op.vertex, 1), (op.vertex, 2), (to, 0)] {
        let seen = seen(vertex, operator);
        assert_eq!((seen.len(), seen.iter().sum::<i64>()), (2, 1000), "{seen:?}");
    }
    // One reader may have been quick enough to read all of it; keys go to both.
    let seen = seen(to, 0);
    assert!(seen.iter().all(|n| (1..1000).contains(n)), "each subtask has its own: {seen:?}");
}
