//! Readers that would read more splits than one, on other hosts than their coordinator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "what other tests need of it")]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use support::{Cluster, MemoryShuffle, attempt};
use thalweg_dataflow::{
    Freeze, OpCx, PlanBuilder, Push, TaskFailure,
    sink::{ForEach, add_sink},
    source::{Assignment, Enumerator, Polled, Reader, ReaderCx, Source, add_source},
};
use thalweg_wire::ExecutionMode;

/// So many parts of a hundred numbers each.
#[derive(Clone)]
struct Parts(u64);

struct Left(u64);

impl Enumerator for Left {
    type Split = u64;
    fn next(&mut self, reader: u32) -> Result<Assignment<u64>, TaskFailure> {
        let Some(next) = self.0.checked_sub(1) else { return Ok(Assignment::NoMore) };
        // They are for those of the other host.
        if reader.is_multiple_of(2) {
            return Ok(Assignment::Wait);
        }
        self.0 = next;
        Ok(Assignment::Split(next))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}

#[derive(Default)]
struct InTurn(Vec<(u64, u64)>);

impl Source for Parts {
    type Item = u64;
    type Split = u64;
    type Enumerator = Left;
    type Reader = InTurn;
    fn kind(&self) -> &'static str {
        "parts"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, _: &OpCx) -> Result<Left, TaskFailure> {
        Ok(Left(self.0))
    }
    fn reader(&self, _: &OpCx) -> Result<InTurn, TaskFailure> {
        Ok(InTurn::default())
    }
}

impl Reader for InTurn {
    type Item = u64;
    type Split = u64;
    fn add(&mut self, part: u64) {
        self.0.push((part, 0));
    }
    /// One number of each part.
    fn poll(&mut self, _: usize, out: &mut impl Push<u64>, _: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        for (part, n) in &mut self.0 {
            out.emit(*part * 100 + *n);
            *n += 1;
        }
        self.0.retain(|(_, n)| *n < 100);
        Ok(if self.0.is_empty() { Polled::Done } else { Polled::Progress })
    }
    fn unfinished(&self) -> Vec<u64> {
        self.0.iter().map(|(part, _)| *part).collect()
    }
    fn wants_more(&self) -> bool {
        true
    }
}

#[test]
fn a_request_that_had_to_wait_for_room_is_sent_while_its_reader_waits_for_the_answer() {
    let sum = Arc::new(AtomicU64::new(0));
    let all = sum.clone();
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Parts(30));
    let adds = move |n: u64| {
        all.fetch_add(n, Ordering::Relaxed);
    };
    add_sink(&b, op.vertex, head, ForEach(adds));
    let plan = b.freeze(&Freeze { parallelism: 4, max_parallelism: None, mode: ExecutionMode::Streaming }).unwrap();
    let c = Cluster::changed(plan, 2, std::env::temp_dir(), MemoryShuffle::hesitant(1 << 16), |_| ());
    c.deploy(attempt(0));
    c.wait_finished(attempt(0), c.plan.graph().subtasks() as usize);
    c.stop();
    assert_eq!(sum.load(Ordering::Relaxed), (0..3000).sum::<u64>());
}
