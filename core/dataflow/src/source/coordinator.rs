//! The coordinator's task: hears requests, answers with splits, begins barriers, and ends when all readers were told.

use super::{
    Assign, Assignment, Enumerator, Request, Source, What,
    drift::{Lowest, Reach},
    group::{Link, Member},
};
use crate::{
    batch::Time,
    build::BuildCx,
    exchange::{channel::Msg, gate::Gate, out::ExchangeOut, route::DirectRouter},
    panics::Guard,
    push::{Control, Push},
    routes::direct,
    task::{Head, Saying, SlotCx, Step, Task, TaskCell, add},
};
use std::{
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use thalweg_model::{FailureKind, TaskFailure};

#[derive(Clone, Copy)]
struct Waiting {
    reader: u32,
    /// It has nothing to read meanwhile.
    idle: bool,
    /// It knows that it gets none now, or waits for nothing else anyway.
    knows: bool,
}

struct CoordinatorTask<E: Enumerator> {
    enumerator: E,
    uid: Arc<str>,
    requests: Gate<Request>,
    out: ExchangeOut<Assign<E::Split>, DirectRouter>,
    head: Head,
    cell: Rc<TaskCell>,
    /// Readers that have asked for a split.
    waiting: VecDeque<Waiting>,
    /// Readers that know that there is nothing more.
    told: Vec<bool>,
    lowest: Lowest,
    /// Other sources are in the group of its readers.
    member: Option<Member>,
    checkpoints_seen: u64,
    ending: bool,
}

pub(super) fn make<S: Source>(
    cx: &BuildCx,
    source: &S,
    assignments: u32,
    requests: u32,
    link: Option<&Link>,
) -> Result<Box<dyn Task>, TaskFailure> {
    let op = cx.op(0)?;
    let guard = Guard::new(&op.uid);
    let enumerator = source.enumerator(&op)?;
    guard.leave();
    let total = enumerator.total_bytes();
    cx.cell.metrics().source_bytes_total.store(total, Ordering::Relaxed);
    let requests = Gate::new(cx.receivers(requests)?, 0);
    let out = direct(cx, assignments)?;
    Ok(Box::new(CoordinatorTask {
        enumerator,
        uid: op.uid,
        told: vec![false; requests.len()],
        lowest: Lowest::new(requests.len()),
        member: link.map(|link| Member::open(cx, link)).transpose()?,
        requests,
        out,
        head: Head::new(cx.cell.clone(), cx.attempt.buffer_timeout),
        cell: cx.cell.clone(),
        waiting: VecDeque::new(),
        checkpoints_seen: 0,
        ending: false,
    }))
}

impl<E: Enumerator<Split: crate::key::Data>> CoordinatorTask<E> {
    fn hear(&mut self) -> Result<bool, TaskFailure> {
        let mut heard = false;
        for reader in 0..self.requests.len() {
            loop {
                match self.requests.recv(reader) {
                    Ok(Some(Msg::Data(mut batch))) => {
                        heard = true;
                        add(&self.cell.metrics().records_in, batch.len() as u64);
                        batch.each(usize::MAX, |_, _, request| match request {
                            Request::Split { idle } => {
                                self.waiting.push_back(Waiting { reader: reader as u32, idle, knows: idle });
                            }
                            // Whoever was answered meanwhile has something to read again.
                            Request::Idle => {
                                let mut waiting = self.waiting.iter_mut();
                                if let Some(one) = waiting.find(|w| w.reader == reader as u32) {
                                    one.idle = true;
                                }
                            }
                            Request::At(at, every) => {
                                let reach = at.map_or(Reach::Free, Reach::At);
                                self.lowest.hear(reader, reach, Duration::from_millis(every));
                            }
                        });
                        self.requests.recycle(reader, batch);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // A reader that knows that there is nothing more may go at any time.
                    Err(_) if self.told[reader] => break,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(heard)
    }

    fn answer(&mut self) -> Result<bool, TaskFailure> {
        let mut answered = false;
        for _ in 0..self.waiting.len() {
            let Some(Waiting { reader, idle, knows }) = self.waiting.pop_front() else { break };
            let guard = Guard::new(&self.uid);
            let assignment = self.enumerator.next(reader);
            guard.leave();
            match assignment? {
                Assignment::Split(split) => self.out.emit(Assign { to: reader, what: What::Split(split) }),
                Assignment::NoMore if idle => {
                    self.told[reader as usize] = true;
                    // It may end before the end that follows has reached it.
                    self.out.may_go(reader as usize);
                    self.out.emit(Assign { to: reader, what: What::NoMore });
                }
                // It is told when it has nothing left: until then it counts, and barriers begin here.
                Assignment::NoMore | Assignment::Wait => {
                    self.waiting.push_back(Waiting { reader, idle, knows: true });
                    if knows {
                        continue;
                    }
                    self.out.emit(Assign { to: reader, what: What::Later });
                }
            }
            answered = true;
        }
        if answered {
            self.out.flush();
        }
        Ok(answered)
    }

    /// Tells readers the lowest watermark, where they are aligned, and other sources that of the readers.
    fn align(&mut self, slot: &mut SlotCx) -> Result<bool, TaskFailure> {
        let mut told = false;
        let (out, waiting, gone) = (&mut self.out, &self.waiting, &self.told);
        // Who waits for a split has nothing to read.
        let idle = |reader: usize| waiting.iter().any(|w| w.idle && w.reader as usize == reader);
        let counts = |reader: usize| !gone[reader] && !idle(reader);
        let others = match &mut self.member {
            None => Some(Time::MAX),
            Some(member) => {
                told |= member.hear()?;
                told |= member.tell(self.lowest.reach(counts));
                member.others()
            }
        };
        // Before the group's first word nobody knows how far the others are.
        if let Some(others) = others {
            let next = self.lowest.tell(slot.now, others, counts, |to, lowest| {
                told = true;
                out.emit(Assign { to, what: What::Lowest(lowest) });
            });
            next.into_iter().for_each(|at| slot.wake_at(at));
        }
        if told {
            self.out.flush();
        }
        Ok(told)
    }

    fn work(&mut self, budget: usize, slot: &mut SlotCx) -> Result<Step, TaskFailure> {
        let mut budget = budget.max(1);
        // One that is on its way is told before the next is begun.
        if self.head.is_free()
            && let Some(id) = self.cell.checkpoints.news(&mut self.checkpoints_seen)
            && !self.ending
        {
            let state = self.enumerator.snapshot().map_err(|e| TaskFailure {
                uid: Some(self.uid.to_string()),
                ..TaskFailure::new(FailureKind::User, format!("the state cannot be encoded: {e}"))
            })?;
            self.head.own.push((self.uid.clone(), state));
            self.head.say(Saying::Barrier(id));
        }
        if let Some(step) = self.head.advance(&mut self.out, &mut budget, slot) {
            return Ok(step);
        }
        let worked = self.hear()? | self.answer()?;
        if !self.ending && self.told.iter().all(|t| *t) {
            // Readers know already that there is nothing more; the group must hear that nobody waits for them.
            if let Some(member) = &mut self.member
                && !member.leave()
            {
                return Ok(if worked { Step::Progress } else { Step::Blocked });
            }
            self.ending = true;
            self.head.say(Saying::End);
            return Ok(Step::Progress);
        }
        let aligned = self.align(slot)?;
        Ok(if worked || aligned { Step::Progress } else { Step::Blocked })
    }
}

impl<E: Enumerator<Split: crate::key::Data>> Task for CoordinatorTask<E> {
    fn step(&mut self, budget: usize, slot: &mut SlotCx) -> Step {
        self.work(budget, slot).unwrap_or_else(|failure| {
            self.cell.fail(failure);
            Step::Progress
        })
    }
}
