//! The committer's task: gathers, prepares, waits for the JobMaster's record, publishes.

use super::{Committable, Committer, Sink};
use crate::{
    build::BuildCx,
    exchange::{
        align::Align,
        gate::{Gate, Next},
    },
    panics::Guard,
    push::{Control, no_control},
    task::{Head, Prepared, Saying, SlotCx, Step, Task, TaskCell, add},
};
use bytes::Bytes;
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};
use thalweg_model::TaskFailure;

enum Phase {
    Gathering,
    /// Until the JobMaster has recorded this.
    Prepared(Bytes),
    /// It was recorded.
    Publishing(Bytes),
}

struct CommitterTask {
    committer: Box<dyn Committer>,
    uid: Arc<str>,
    gate: Gate<Committable>,
    align: Align,
    head: Head,
    phase: Phase,
    cell: Rc<TaskCell>,
}

pub(super) fn make<T, K: Sink<T>>(cx: &BuildCx, sink: &K, edge: u32) -> Result<Box<dyn Task>, TaskFailure> {
    let op = cx.op(0)?;
    let guard = Guard::new(&op.uid);
    let committer = sink.committer(&op)?;
    guard.leave();
    let (phase, channels) = match &cx.publish {
        // Recorded by an earlier attempt: there is no input any more.
        Some(manifest) => (Phase::Publishing(manifest.clone()), Vec::new()),
        None => (Phase::Gathering, cx.receivers(edge)?),
    };
    let gate = Gate::new(channels, 0);
    Ok(Box::new(CommitterTask {
        committer,
        uid: op.uid,
        align: Align::new(gate.len()),
        gate,
        head: Head::new(cx.cell.clone(), cx.attempt.buffer_timeout),
        phase,
        cell: cx.cell.clone(),
    }))
}

/// A committer has nothing behind it.
struct Nowhere;

impl Control for Nowhere {
    no_control!();
}

impl CommitterTask {
    fn work(&mut self) -> Result<Step, TaskFailure> {
        match &self.phase {
            Phase::Gathering => self.gather(),
            Phase::Prepared(manifest) => {
                if !self.cell.shared.committed.load(Ordering::Acquire) {
                    return Ok(Step::Blocked);
                }
                self.phase = Phase::Publishing(manifest.clone());
                Ok(Step::Progress)
            }
            Phase::Publishing(manifest) => {
                let guard = Guard::new(&self.uid);
                self.committer.publish(manifest)?;
                guard.leave();
                Ok(Step::Finished)
            }
        }
    }

    fn gather(&mut self) -> Result<Step, TaskFailure> {
        let _ = self.head.go_on(&mut Nowhere, &mut 1);
        match self.gate.next(&mut self.align)? {
            Next::Batch(channel, mut batch) => {
                add(&self.cell.metrics().records_in, batch.len() as u64);
                let mut result = Ok(());
                let guard = Guard::new(&self.uid);
                batch.each(usize::MAX, |_, _, part| {
                    if result.is_ok() {
                        result = self.committer.add(part);
                    }
                });
                guard.leave();
                self.gate.recycle(channel, batch);
                result?;
            }
            Next::Say(Saying::End) => {
                let guard = Guard::new(&self.uid);
                let manifest = self.committer.prepare()?;
                guard.leave();
                // The value belongs to the sink, as the program named it.
                let sink = self.uid.strip_suffix("/committer").unwrap_or(&self.uid).to_owned();
                let collected = manifest.collected.into_iter().map(|c| (sink.clone(), c)).collect();
                *self.cell.prepared.borrow_mut() = Some(Prepared { manifest: manifest.bytes.clone(), collected });
                self.phase = Phase::Prepared(manifest.bytes);
            }
            Next::Say(saying) => self.head.say(saying),
            // What becomes of a record in the end is no matter of milliseconds.
            Next::Latency(_) => {}
            Next::Nothing => return Ok(Step::Blocked),
        }
        Ok(Step::Progress)
    }
}

impl Task for CommitterTask {
    fn step(&mut self, _: usize, _: &mut SlotCx) -> Step {
        self.work().unwrap_or_else(|failure| {
            self.cell.fail(TaskFailure { uid: failure.uid.or_else(|| Some(self.uid.to_string())), ..failure });
            Step::Progress
        })
    }
}
