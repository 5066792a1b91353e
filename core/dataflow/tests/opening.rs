//! How tasks begin and end in a host where that takes long, or goes wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

#[allow(dead_code, reason = "what other tests need of it")]
mod support;

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use support::{Cluster, MemoryShuffle, attempt};
use thalweg_dataflow::{
    Freeze, OpCx, Plan, PlanBuilder, TaskFailure, Time,
    gate_task::add_gate,
    ops::Map,
    pipe::{Then, Transform, close},
    push::{Operator, Push, Ready},
    routes::TurnRoute,
    sink::{Discard, Sink, SinkWriter, add_sink},
    source::{Sequence, add_source},
};
use thalweg_env::{Env, Spawner, Task};
use thalweg_model::{ExecutionState, FailureKind, Partitioner, RegionAttempt, Regions, VertexRole};
use thalweg_wire::ExecutionMode;

/// Nothing of the kind takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn tmp() -> PathBuf {
    std::env::temp_dir()
}

fn freeze(b: &PlanBuilder, parallelism: u32) -> Plan {
    b.freeze(&Freeze { parallelism, max_parallelism: None, mode: ExecutionMode::Streaming }).unwrap()
}

/// Lets everything pass, once its `open` has returned.
#[derive(Clone)]
struct Opens<F>(F);

struct Passes;

impl<F: Fn() -> bool + Clone + Send + 'static> Transform<u64> for Opens<F> {
    type Out = u64;
    type Op = Passes;
    fn open(self, cx: &OpCx) -> Result<Passes, TaskFailure> {
        let clock = cx.env().clock.clone();
        let began = clock.now();
        while !(self.0)() {
            if clock.now().since(began) > PATIENCE {
                return Err(cx.failure(FailureKind::User, "what it waits for does not come"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Passes)
    }
}

impl Operator<u64> for Passes {
    type Out = u64;
    fn item(&mut self, at: Time, item: u64, out: &mut impl Push<u64>) {
        out.push(at, item);
    }
}

/// Numbers to an operator that opens so, and on to others twice; and the edge behind the second ones.
fn chain(opens: impl Fn() -> bool + Clone + Send + 'static) -> (Plan, u32) {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..1000));
    let first = b.operator(op.vertex, "first", &[]);
    let (second, third) = (b.vertex(VertexRole::Task, None), b.vertex(VertexRole::Task, None));
    let (gate, last) = (b.operator(second, "second", &[]), b.operator(third, "third", &[]));
    let edge = b.edge::<u64>(op.vertex, second, Partitioner::Rebalance, false);
    let next = b.edge::<u64>(second, third, Partitioner::Rebalance, false);
    close(&b, op.vertex, Then::new(head, Opens(opens), first.op), TurnRoute { edge, timed: false });
    close(&b, second, add_gate::<u64>(&b, second, vec![edge], gate), TurnRoute { edge: next, timed: false });
    add_sink(&b, third, add_gate::<u64>(&b, third, vec![next], last), Discard);
    (freeze(&b, 4), next)
}

#[test]
fn what_a_host_has_for_others_is_offered_before_anything_is_opened() {
    // Both vertices are in the same slots, and the one that waits is built first.
    let shuffle = MemoryShuffle::new(1 << 16);
    let (offers, edge) = (shuffle.clone(), Arc::new(Mutex::new(0)));
    let behind = edge.clone();
    let (plan, next) = chain(move || offers.offered(*behind.lock()) == 4 * 2);
    *edge.lock() = next;
    let c = Cluster::changed(plan, 2, tmp(), shuffle, |_| ());
    c.deploy(attempt(0));
    c.wait_finished(attempt(0), c.plan.graph().subtasks() as usize);
    c.stop();
}

#[test]
fn subtasks_of_one_operator_open_at_the_same_time() {
    let met = Arc::new((Mutex::new(0), Condvar::new()));
    let here = met.clone();
    let (plan, _) = chain(move || {
        let (count, all) = &*here;
        let mut count = count.lock();
        *count += 1;
        all.notify_all();
        !all.wait_while_for(&mut count, |n| *n < 4, PATIENCE).timed_out()
    });
    let c = Cluster::new(plan, 2, tmp());
    c.deploy(attempt(0));
    c.wait_finished(attempt(0), c.plan.graph().subtasks() as usize);
    assert_eq!(*met.0.lock(), 4);
    c.stop();
}

/// Starts no thread for a slot once.
struct Refuses {
    of: Arc<dyn Spawner>,
    next: Arc<AtomicBool>,
}

impl Spawner for Refuses {
    fn spawn_boxed(&self, name: &'static str, future: futures::future::BoxFuture<'static, ()>) -> Task {
        self.of.spawn_boxed(name, future)
    }
    fn thread(&self, name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        if self.next.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("no thread left"));
        }
        self.of.thread(name, run)
    }
}

#[test]
fn an_attempt_runs_also_where_the_one_before_it_had_no_thread() {
    let next = Arc::new(AtomicBool::new(true));
    let (plan, _) = chain(|| true);
    let c = Cluster::changed(plan, 1, tmp(), MemoryShuffle::new(1 << 16), |setup| {
        let of = setup.env.spawner.clone();
        setup.env = Env { spawner: Arc::new(Refuses { of, next: next.clone() }), ..setup.env.clone() };
    });
    c.deploy(attempt(0));
    assert!(c.reports.wait(|all| all.iter().any(|r| r.failure.is_some())));
    let failure = c.reports.all().into_iter().find_map(|r| r.failure).unwrap();
    assert!(failure.kind == FailureKind::Lost && failure.message.contains("no thread left"), "{failure}");
    c.deploy(attempt(1));
    c.wait_finished(attempt(1), c.plan.graph().subtasks() as usize);
    c.stop();
}

static ARMED: AtomicBool = AtomicBool::new(false);

#[derive(Serialize, Deserialize)]
struct Fragile(u64);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(self.0 != 7 || !ARMED.load(Ordering::SeqCst), "seven is dropped");
    }
}

/// Takes nothing.
#[derive(Clone)]
struct Full;

impl<T: 'static> Sink<T> for Full {
    type Writer = Full;
    fn kind(&self) -> &'static str {
        "full-sink"
    }
    fn writer(&self, _: &OpCx) -> Result<Full, TaskFailure> {
        Ok(Full)
    }
}

impl<T: 'static> SinkWriter<T> for Full {
    fn write(&mut self, _: Time, _: T) -> Result<(), TaskFailure> {
        Ok(())
    }
    fn ready(&mut self) -> Result<Ready, TaskFailure> {
        Ok(Ready::Blocked)
    }
}

#[test]
fn a_record_whose_drop_panics_on_its_way_ends_no_other_region_of_the_slot() {
    fn region<T: thalweg_dataflow::Data>(b: &PlanBuilder, make: fn(u64) -> T) {
        let (op, head) = add_source(b, Sequence::new(0..1_000_000));
        let map = b.operator(op.vertex, "map", &[]);
        let to = b.vertex(VertexRole::Task, None);
        let gate = b.operator(to, "gate", &[]);
        let edge = b.edge::<T>(op.vertex, to, Partitioner::Rebalance, false);
        close(b, op.vertex, Then::new(head, Map(make), map.op), TurnRoute { edge, timed: false });
        add_sink(b, to, add_gate::<T>(b, to, vec![edge], gate), Full);
    }
    let b = PlanBuilder::default();
    region(&b, Fragile);
    region(&b, |n| n);
    let c = Cluster::new(freeze(&b, 1), 1, tmp());
    let regions = Regions::of(c.plan.graph());
    c.deploy(attempt(0));
    assert!(c.reports.wait(|all| all.iter().filter(|r| r.state == ExecutionState::Running).count() == 6));
    // The queues are full.
    std::thread::sleep(Duration::from_millis(50));
    ARMED.store(true, Ordering::SeqCst);
    let cancel = |region| c.engines[0].cancel(&[RegionAttempt { region, attempt: attempt(0) }]);
    let ended = |n| c.reports.wait(|all| all.iter().filter(|r| r.state == ExecutionState::Canceled).count() == n);
    cancel(regions.region(thalweg_model::SubtaskId { vertex: 0, index: 0 }));
    assert!(ended(3), "those of the region with fragile records");
    ARMED.store(false, Ordering::SeqCst);
    (0..regions.count()).for_each(cancel);
    assert!(ended(6), "and the others");
    c.stop();
}
