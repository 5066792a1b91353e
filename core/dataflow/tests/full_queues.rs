//! What waits between tasks of one host for a reader that takes nothing: about `exchange.memory`, whatever records own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

#[allow(dead_code, reason = "what other tests need of it")]
mod support;

use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use support::{Cluster, attempt};
use thalweg_dataflow::{
    Freeze, OpCx, PlanBuilder, TaskFailure, Time,
    gate_task::add_gate,
    ops::Map,
    pipe::{Then, close},
    push::Ready,
    routes::TurnRoute,
    sink::{Sink, SinkWriter, add_sink},
    source::{Sequence, add_source},
};
use thalweg_model::{ExecutionState, Partitioner, VertexRole};
use thalweg_wire::ExecutionMode;

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Counts what all of them own.
#[derive(Serialize, Deserialize)]
struct Counted(String);

impl Counted {
    fn new(bytes: usize) -> Self {
        BYTES.fetch_add(bytes, Ordering::Relaxed);
        Self("x".repeat(bytes))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

/// Takes nothing.
#[derive(Clone)]
struct Full;

impl Sink<Counted> for Full {
    type Writer = Full;
    fn kind(&self) -> &'static str {
        "full-sink"
    }
    fn writer(&self, _: &OpCx) -> Result<Full, TaskFailure> {
        Ok(Full)
    }
}

impl SinkWriter<Counted> for Full {
    fn write(&mut self, _: Time, _: Counted) -> Result<(), TaskFailure> {
        Ok(())
    }
    fn ready(&mut self) -> Result<Ready, TaskFailure> {
        Ok(Ready::Blocked)
    }
}

#[test]
fn queues_of_records_that_own_much_are_bounded_by_their_bytes() {
    let memory = 4 << 20;
    // Some are as long as all that a batch may have.
    for (usual, seldom) in [(3, 3), (10_000, 10_000), (100, 20_000), (300_000, 300_000)] {
        let b = PlanBuilder::default();
        let (op, head) = add_source(&b, Sequence::new(0..u64::MAX));
        let map = b.operator(op.vertex, "map", &[]);
        let to = b.vertex(VertexRole::Task, None);
        let gate = b.operator(to, "gate", &[]);
        let edge = b.edge::<Counted>(op.vertex, to, Partitioner::Rebalance, false);
        let make = move |n: u64| Counted::new(if n.is_multiple_of(50) { seldom } else { usual });
        close(&b, op.vertex, Then::new(head, Map(make), map.op), TurnRoute { edge, timed: false });
        add_sink(&b, to, add_gate::<Counted>(&b, to, vec![edge], gate), Full);
        let with = Freeze { parallelism: 4, max_parallelism: None, mode: ExecutionMode::Streaming };
        let c = Cluster::with(b.freeze(&with).unwrap(), 1, std::env::temp_dir(), 1 << 20, memory, 1 << 20);
        c.deploy(attempt(0));
        let subtasks = c.plan.graph().subtasks() as usize;
        assert!(c.reports.wait(|all| all.iter().filter(|r| r.state == ExecutionState::Running).count() == subtasks));
        // It is full when it stays as it is.
        let (mut before, mut still) = (0, 0);
        while still < 10 {
            std::thread::sleep(Duration::from_millis(10));
            let now = BYTES.load(Ordering::Relaxed);
            still = if now == before && now > 0 { still + 1 } else { 0 };
            before = now;
        }
        // Each of the 16 channels has four batches at least, of a record at least, and each sender has begun another,
        // and goes on for a stride or until the next look.
        let bound = memory + 16 * 6 * seldom + 4 * (256 * usual + 64 * seldom);
        assert!(before <= bound, "records of {usual} and {seldom} bytes: {before} of {bound} bytes are on their way");
        c.stop();
        assert_eq!(BYTES.load(Ordering::Relaxed), 0);
    }
}
