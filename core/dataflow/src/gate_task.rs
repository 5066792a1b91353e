//! The task whose head is a gate: everything that is not a source, a coordinator or a committer.

use crate::{
    batch::Batch,
    build::BuildCx,
    exchange::{
        align::Align,
        gate::{Gate, Next},
    },
    key::Data,
    pipe::{Inlet, Recipe},
    plan::{OpId, PlanBuilder},
    push::{Control, Push, Ready, STRIDE},
    task::{Head, SlotCx, Step, Task, TaskCell, add},
};
use std::rc::Rc;
use thalweg_model::TaskFailure;

struct GateTask<T> {
    gate: Gate<T>,
    align: Align,
    chain: Box<dyn Push<T>>,
    head: Head,
    // A batch that is being consumed, and its channel.
    current: Option<(usize, Batch<T>)>,
    cell: Rc<TaskCell>,
}

/// Makes a vertex whose tasks read these edges into the inlet that is answered. `after` is told when nobody takes it.
pub fn add_gate<T: Data>(plan: &PlanBuilder, vertex: usize, edges: Vec<u32>, after: OpId) -> Inlet<T> {
    let inlet = Inlet::<T>::default();
    let (feed, watch) = (inlet.clone(), inlet.clone());
    let make = move || -> Recipe<Box<dyn Task>> {
        let (edges, feed) = (edges.clone(), feed.clone());
        Box::new(move |cx| make(cx, &edges, &feed))
    };
    plan.install(vertex, Box::new(make));
    plan.open_end(after, move || watch.is_taken());
    inlet
}

/// Makes tasks that read these edges into this inlet.
fn make<T: Data>(cx: &BuildCx, edges: &[u32], inlet: &Inlet<T>) -> Result<Box<dyn Task>, TaskFailure> {
    let mut channels = Vec::new();
    for edge in edges {
        channels.extend(cx.receivers::<T>(*edge)?);
    }
    let gate = Gate::new(channels, 0);
    let head = Head::new(cx.cell.clone(), cx.attempt.buffer_timeout);
    let (align, chain) = (Align::new(gate.len()), inlet.open(cx)?);
    Ok(Box::new(GateTask { gate, align, chain, head, current: None, cell: cx.cell.clone() }))
}

impl<T: Data> Task for GateTask<T> {
    fn step(&mut self, budget: usize, slot: &mut SlotCx) -> Step {
        let mut budget = budget.max(1);
        let mut worked = false;
        loop {
            if let Some((channel, mut batch)) = self.current.take() {
                // The chain must have room: records do not ask, so the head does.
                match self.chain.ready() {
                    Ready::Yes => {}
                    not => {
                        self.current = Some((channel, batch));
                        if not == Ready::Blocked {
                            self.cell.hold();
                        }
                        let step = if worked || not == Ready::Busy { Step::Progress } else { Step::Blocked };
                        if step == Step::Progress {
                            self.head.gathers();
                        }
                        return self.head.waits(&mut *self.chain, slot, step);
                    }
                }
                let before = batch.len();
                self.chain.push_batch(&mut batch, STRIDE.min(budget));
                let taken = before - batch.len();
                add(&self.cell.metrics().records_in, taken as u64);
                budget = budget.saturating_sub(taken);
                worked = true;
                self.cell.looked();
                self.head.gathers();
                if batch.is_empty() {
                    self.gate.recycle(channel, batch);
                } else {
                    self.current = Some((channel, batch));
                }
            } else {
                if let Some(step) = self.head.advance(&mut *self.chain, &mut budget, slot) {
                    return if worked && step == Step::Blocked { Step::Progress } else { step };
                }
                match self.gate.next(&mut self.align) {
                    Ok(Next::Batch(channel, batch)) => self.current = Some((channel, batch)),
                    Ok(Next::Say(saying)) => {
                        self.head.say(saying);
                        worked = true;
                    }
                    // The chain is ready: it holds nothing back of what came before but what is meant to wait there.
                    Ok(Next::Latency(marker)) => {
                        self.cell.metrics().latency.got(marker, slot);
                        self.chain.latency(marker);
                        worked = true;
                    }
                    Ok(Next::Nothing) if worked => return self.head.worked(&mut *self.chain, slot),
                    Ok(Next::Nothing) => return self.head.pause(&mut *self.chain, slot),
                    Err(failure) => {
                        self.cell.fail(failure);
                        return Step::Progress;
                    }
                }
            }
            if budget == 0 || self.cell.has_failed() || slot.is_long() {
                return self.head.worked(&mut *self.chain, slot);
            }
        }
    }
}
