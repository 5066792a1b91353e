//! Sources that do not run away from each other: the coordinators of all sources of a job that name one alignment
//! group tell how far their readers are, and a task of the group tells each the lowest of the others'. What a
//! coordinator does with that is its own business, and so are drift and interval: each source has those of its own
//! strategy.
//!
//! The task is a vertex of parallelism 1 beside the first source's coordinator. Both its edges to a coordinator are
//! feedback edges: neither carries barriers, for each coordinator begins its own, and neither is waited for at an end.
//! A source that ends says so and holds nobody back; the task ends with the last one. Nothing is in a snapshot.

use super::drift::{Lowest, Reach};
use crate::{
    batch::{Batch, Time},
    build::BuildCx,
    exchange::{
        channel::{Msg, Sender},
        gate::Gate,
    },
    key::Data,
    pipe::Recipe,
    plan::{OpId, PlanBuilder},
    push::{Barrier, Control, Flow, Mark, Ready},
    task::{Head, Saying, SlotCx, Step, Task, TaskCell, add},
};
use std::{
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};
use thalweg_model::{FailureKind, Partitioner, TaskFailure, VertexRole};

/// The two edges between a source's coordinator and its group.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    /// [`Reach`], of the source's readers.
    to_group: u32,
    /// The lowest watermark of the other sources.
    from_group: u32,
}

/// A source of a plan that is being written.
#[derive(Clone)]
pub(crate) struct Draft {
    /// The source.
    pub(crate) source: OpId,
    /// Vertex of its coordinator.
    pub(crate) coordinator: usize,
    /// Set when the plan is frozen, if the source shares its group with others.
    pub(crate) link: Arc<OnceLock<Link>>,
}

/// Writes the task of each group into the plan.
pub(crate) fn connect(plan: &PlanBuilder, groups: Vec<(String, Vec<Draft>)>) {
    for (name, sources) in groups {
        let Some(first) = sources.first() else { continue };
        let vertex = plan.vertex(VertexRole::Coordinator, Some(1));
        let op = plan.companion(vertex, first.source, "/alignment", "watermark-alignment", &[]);
        plan.set_name(op, format!("alignment of {name}"));
        plan.set_beside(vertex, first.coordinator);
        let mut links = Vec::new();
        for source in &sources {
            let to_group = plan.edge::<Reach>(source.coordinator, vertex, Partitioner::Direct, true);
            let from_group = plan.edge::<Time>(vertex, source.coordinator, Partitioner::Direct, true);
            let link = Link { to_group, from_group };
            let _ = source.link.set(link);
            links.push(link);
        }
        let make = move || -> Recipe<Box<dyn Task>> {
            let links = links.clone();
            Box::new(move |cx| make(cx, &links))
        };
        plan.install(vertex, Box::new(make));
    }
}

fn the_only<T>(mut ends: Vec<T>, edge: u32) -> Result<T, TaskFailure> {
    let message = || format!("edge {edge} is not one of two single tasks");
    ends.pop().filter(|_| ends.is_empty()).ok_or_else(|| TaskFailure::new(FailureKind::Incompatible, message()))
}

/// One message is one batch: there is nothing to gather.
fn send<T: Data>(to: &mut Sender<T>, item: T) {
    to.send(Msg::Data(Batch::of(vec![item])));
    to.pump();
}

/// The coordinator's side.
pub(super) struct Member {
    to: Sender<Reach>,
    from: Gate<Time>,
    /// `None`: an answer is due.
    said: Option<Reach>,
    others: Option<Time>,
    leaving: bool,
}

impl Member {
    pub(super) fn open(cx: &BuildCx, link: &Link) -> Result<Self, TaskFailure> {
        Ok(Self {
            to: the_only(cx.senders(link.to_group)?, link.to_group)?,
            from: Gate::new(cx.receivers(link.from_group)?, 0),
            // What the group believes of who has told nothing.
            said: Some(Reach::default()),
            others: None,
            leaving: false,
        })
    }

    /// Takes what the group tells; answers whether there was something.
    pub(super) fn hear(&mut self) -> Result<bool, TaskFailure> {
        let mut heard = false;
        while let Some(message) = self.from.recv(0)? {
            if let Msg::Data(mut batch) = message {
                batch.each(usize::MAX, |_, _, lowest| self.others = Some(lowest));
                self.from.recycle(0, batch);
                (self.said, heard) = (None, true);
            }
        }
        Ok(heard)
    }

    /// Tells how far the readers are if that is new, or was asked; answers whether it was told. What does not fit
    /// waits: the newest is told when there is room.
    pub(super) fn tell(&mut self, reach: Reach) -> bool {
        // Also when there is no news: what was told last may not have left yet.
        let room = self.to.pump();
        let news = room && self.said != Some(reach);
        if news {
            self.said = Some(reach);
            send(&mut self.to, reach);
        }
        news
    }

    /// The lowest watermark of the other sources; `None` before the group's first word.
    pub(super) fn others(&self) -> Option<Time> {
        self.others
    }

    /// Its readers have nothing left. Answers whether the group knows that; nothing must be heard or told any more.
    pub(super) fn leave(&mut self) -> bool {
        if !std::mem::replace(&mut self.leaving, true) {
            self.to.send(Msg::End);
        }
        self.to.drained()
    }
}

/// The group's ways to the coordinators, which is all that is behind its head.
struct Ways(Vec<Sender<Time>>);

impl Control for Ways {
    fn ready(&mut self) -> Ready {
        let mut clear = true;
        for to in &mut self.0 {
            clear &= to.pump();
        }
        if clear { Ready::Yes } else { Ready::Blocked }
    }
    fn mark(&mut self, _: Mark, _: &mut usize) -> Flow {
        Flow::Done
    }
    // Each coordinator begins its own.
    fn barrier(&mut self, _: &mut Barrier) {}
    fn latency(&mut self, _: Time) {}
    fn flush(&mut self) {}
    fn end(&mut self, _: &mut usize) -> Flow {
        for to in &mut self.0 {
            to.send(Msg::End);
        }
        Flow::Done
    }
    fn drained(&mut self) -> bool {
        self.0.iter_mut().all(Sender::drained)
    }
}

struct GroupTask {
    from: Gate<Reach>,
    ways: Ways,
    lowest: Lowest,
    /// Sources that have ended.
    gone: Vec<bool>,
    head: Head,
    cell: Rc<TaskCell>,
    checkpoints_seen: u64,
    ending: bool,
}

fn make(cx: &BuildCx, links: &[Link]) -> Result<Box<dyn Task>, TaskFailure> {
    let (mut from, mut ways) = (Vec::new(), Vec::new());
    for link in links {
        from.push(the_only(cx.receivers(link.to_group)?, link.to_group)?);
        let mut to = the_only(cx.senders(link.from_group)?, link.from_group)?;
        // A coordinator may end at any time. It has at most one word that it has not answered, so there is room for
        // that.
        to.lenient = true;
        ways.push(to);
    }
    Ok(Box::new(GroupTask {
        from: Gate::new(from, 0),
        ways: Ways(ways),
        lowest: Lowest::new(links.len()),
        gone: vec![false; links.len()],
        head: Head::new(cx.cell.clone(), cx.attempt.buffer_timeout),
        cell: cx.cell.clone(),
        checkpoints_seen: 0,
        ending: false,
    }))
}

impl GroupTask {
    fn hear(&mut self) -> Result<bool, TaskFailure> {
        let mut heard = false;
        for source in 0..self.gone.len() {
            // Behind its end the channel may be gone too.
            while !self.gone[source]
                && let Some(message) = self.from.recv(source)?
            {
                heard = true;
                match message {
                    Msg::Data(mut batch) => {
                        add(&self.cell.metrics().records_in, batch.len() as u64);
                        // Readers tell at most once an interval, so what follows from it needs none.
                        batch.each(usize::MAX, |_, _, reach| self.lowest.hear(source, reach, Duration::ZERO));
                        self.from.recycle(source, batch);
                    }
                    Msg::End => self.gone[source] = true,
                    Msg::Mark(_) | Msg::Latency(_) | Msg::Barrier(_) => {}
                }
            }
        }
        Ok(heard)
    }

    fn tell(&mut self, slot: &mut SlotCx) -> bool {
        let mut told = 0;
        let (ways, gone) = (&mut self.ways.0, &self.gone);
        let next = self.lowest.tell(
            slot.now,
            Time::MAX,
            |source| !gone[source],
            |source, lowest| {
                told += 1;
                send(&mut ways[source as usize], lowest);
            },
        );
        next.into_iter().for_each(|at| slot.wake_at(at));
        add(&self.cell.metrics().records_out, told);
        told > 0
    }

    fn work(&mut self, budget: usize, slot: &mut SlotCx) -> Result<Step, TaskFailure> {
        let mut budget = budget.max(1);
        // One that is on its way is told before the next is begun.
        if self.head.is_free()
            && let Some(id) = self.cell.checkpoints.news(&mut self.checkpoints_seen)
            && !self.ending
        {
            // It has no state, and says just that.
            self.head.say(Saying::Barrier(id));
        }
        if let Some(step) = self.head.advance(&mut self.ways, &mut budget, slot) {
            return Ok(step);
        }
        let worked = self.hear()? | self.tell(slot);
        if self.gone.iter().all(|gone| *gone) {
            self.ending = true;
            self.head.say(Saying::End);
            return Ok(Step::Progress);
        }
        Ok(if worked { Step::Progress } else { Step::Blocked })
    }
}

impl Task for GroupTask {
    fn step(&mut self, budget: usize, slot: &mut SlotCx) -> Step {
        self.work(budget, slot).unwrap_or_else(|failure| {
            self.cell.fail(failure);
            Step::Progress
        })
    }
}
