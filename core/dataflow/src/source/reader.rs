//! The task whose head is a reader of splits.

use super::{
    Assign, Polled, Reader, ReaderCx, Request, Source, What,
    board::Following,
    drift::{Ahead, Turn},
    share::share,
};
use crate::{
    batch::{Batch, Time},
    build::BuildCx,
    codec,
    exchange::{
        align::Align,
        channel::{Msg, Sender},
        gate::{Gate, Next},
    },
    latency::Markers,
    panics::Guard,
    pipe::{Make, Pipe},
    plan::PlanBuilder,
    push::{Control, Push, STRIDE, forward_control},
    task::{Head, Saying, SlotCx, Step, Task, TaskCell, add},
};
use std::{collections::BTreeMap, rc::Rc, sync::Arc};
use thalweg_model::{FailureKind, TaskFailure};

/// The head of a chain that begins with a source.
#[derive(Clone)]
pub struct SourceHead<S> {
    source: S,
    assignments: u32,
    requests: u32,
}

impl<S> SourceHead<S> {
    pub(super) fn new(source: S, assignments: u32, requests: u32) -> Self {
        Self { source, assignments, requests }
    }
}

impl<S: Source> Pipe for SourceHead<S> {
    type Item = S::Item;
    type Built = Box<dyn Task>;

    fn build<N: Push<S::Item> + 'static>(self, cx: &BuildCx, next: N) -> Result<Box<dyn Task>, TaskFailure> {
        let op = cx.op(0)?;
        let guard = Guard::new(&op.uid);
        let mut reader = self.source.reader(&op)?;
        guard.leave();
        let (mut active, mut splits) = (false, Following::default());
        let mut left = BTreeMap::new();
        for (writer, part) in op.restored() {
            let unfinished: Vec<S::Split> = codec::decode(part).map_err(|e| {
                op.failure(FailureKind::Storage, format!("the splits that subtask {writer} had cannot be read: {e}"))
            })?;
            left.insert(writer, unfinished.into_iter().map(Some).collect::<Vec<_>>());
        }
        let written: Vec<(u32, usize)> = left.iter().map(|(writer, splits)| (*writer, splits.len())).collect();
        for origin in share(&written, op.parallelism, op.subtask) {
            let place = left.get_mut(&origin.writer).and_then(|splits| splits.get_mut(origin.place));
            if let Some(split) = place.and_then(Option::take) {
                reader.add(split);
                splits.add(Some(origin));
                active = true;
            }
        }
        let gate = Gate::new(cx.receivers(self.assignments)?, 0);
        let asks = cx.senders(self.requests)?.into_iter().next();
        Ok(Box::new(SourceTask {
            reader,
            uid: op.uid,
            align: Align::new(gate.len()),
            gate,
            asks,
            next,
            head: Head::new(cx.cell.clone(), cx.attempt.buffer_timeout),
            markers: Markers::new(cx.attempt.latency_interval),
            cell: cx.cell.clone(),
            splits,
            // The chain was opened before its head.
            apart: cx.cell.splits.is_watched(),
            ahead: cx.cell.splits.alignment().map(Ahead::new),
            active,
            asked: Asked::Nothing,
            no_more: false,
            ending: false,
        }))
    }

    fn install(&self, plan: &PlanBuilder, vertex: usize, make: Make<Box<dyn Task>>) {
        plan.install(vertex, make);
    }

    fn in_step(&self) -> bool {
        true
    }
}

/// What the coordinator has not answered yet: one request at most.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// One more, beside what is read, which waits for the answer.
    More,
    /// The same, and the answer is that there is none now.
    MoreLater,
    /// Something to read.
    Split,
}

struct SourceTask<R: Reader, N> {
    reader: R,
    uid: Arc<str>,
    gate: Gate<Assign<R::Split>>,
    align: Align,
    asks: Option<Sender<Request>>,
    next: N,
    head: Head,
    markers: Markers,
    cell: Rc<TaskCell>,
    splits: Following,
    /// Somebody in the chain tells splits apart.
    apart: bool,
    /// Readers wait for each other.
    ahead: Option<Ahead>,
    /// The reader has something to read.
    active: bool,
    asked: Asked,
    no_more: bool,
    ending: bool,
}

/// Counts what a reader gives out.
struct Counted<'a, N> {
    next: &'a mut N,
    records: u64,
}

impl<N: Control> Control for Counted<'_, N> {
    forward_control!(next);
}

impl<T, N: Push<T>> Push<T> for Counted<'_, N> {
    #[inline(always)]
    fn push(&mut self, at: Time, item: T) {
        self.records += 1;
        self.next.push(at, item);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        let before = batch.len();
        self.next.push_batch(batch, limit);
        self.records += (before - batch.len()) as u64;
    }
}

impl<R: Reader<Split: crate::key::Data>, N: Push<R::Item>> SourceTask<R, N> {
    /// Splits, barriers and the end of the coordinator. Answers whether there was something.
    fn hear(&mut self) -> Result<bool, TaskFailure> {
        match self.gate.next(&mut self.align)? {
            Next::Batch(channel, mut batch) => {
                batch.each(usize::MAX, |_, _, assign: Assign<R::Split>| match assign.what {
                    What::Split(split) => {
                        self.reader.add(split);
                        self.splits.add(None);
                        self.active = true;
                        self.asked = Asked::Nothing;
                    }
                    What::NoMore => self.no_more = true,
                    What::Later if self.asked == Asked::More => self.asked = Asked::MoreLater,
                    What::Later => {}
                    What::Lowest(at) => self.ahead.iter_mut().for_each(|ahead| ahead.hear(at)),
                });
                self.gate.recycle(channel, batch);
            }
            Next::Say(Saying::Barrier(id)) => {
                let state = codec::encode(&self.reader.unfinished()).map_err(|e| TaskFailure {
                    uid: Some(self.uid.to_string()),
                    ..TaskFailure::new(FailureKind::User, format!("the state cannot be encoded: {e}"))
                })?;
                self.head.own.push((self.uid.clone(), state));
                self.head.say(Saying::Barrier(id));
            }
            Next::Say(Saying::End) => self.no_more = true,
            Next::Say(Saying::Mark(_)) | Next::Latency(_) => {}
            Next::Nothing => return Ok(false),
        }
        Ok(true)
    }

    /// Tells which splits there are and which is read next; answers whether that is new.
    fn news(&mut self) -> bool {
        if self.active
            && let Some(place) = self.reader.reading()
        {
            self.splits.reads(place, self.reader.at_once());
        }
        self.splits.tell(&self.cell.splits)
    }

    /// Tells how far it is, and says whether it reads on, perhaps another split.
    fn align(&mut self, slot: &mut SlotCx) -> Turn {
        let (Some(ahead), board) = (&mut self.ahead, &self.cell.splits) else { return Turn::On };
        let turn = if self.active { ahead.turn(board) } else { Turn::On };
        board.waits.set(turn == Turn::Wait);
        // What does not fit waits: the newest is told when there is room.
        if let Some(asks) = &mut self.asks
            && !self.no_more
            // It has nothing to read then, and the answer may be the coordinator's last.
            && self.asked != Asked::Split
            && asks.pump()
        {
            match ahead.report(board, turn == Turn::Wait, slot.now) {
                Ok(report) => {
                    let every = u64::try_from(report.every.as_millis()).unwrap_or(u64::MAX).max(1);
                    asks.send(Msg::Data(Batch::of(vec![Request::At(report.at, every)])));
                    asks.pump();
                }
                Err(next) => next.into_iter().for_each(|at| slot.wake_at(at)),
            }
        }
        turn
    }

    fn ask(&mut self) {
        if let Some(asks) = &mut self.asks {
            if self.no_more {
                asks.lenient = true;
                asks.send(Msg::End);
            } else {
                let request = match self.asked {
                    Asked::Nothing => Some(Request::Split { idle: true }),
                    Asked::More | Asked::MoreLater => Some(Request::Idle),
                    Asked::Split => None,
                };
                if let Some(request) = request {
                    asks.send(Msg::Data(Batch::of(vec![request])));
                }
                self.asked = Asked::Split;
            }
            asks.pump();
        }
    }

    /// Asks for one more while it reads, if the reader would read one.
    fn ask_for_more(&mut self) {
        if let Some(asks) = &mut self.asks
            && self.asked == Asked::Nothing
            && !self.no_more
            && self.reader.wants_more()
            // What does not fit waits for a later step.
            && asks.pump()
        {
            self.asked = Asked::More;
            asks.send(Msg::Data(Batch::of(vec![Request::Split { idle: false }])));
            asks.pump();
        }
    }

    fn work(&mut self, budget: usize, slot: &mut SlotCx) -> Result<Step, TaskFailure> {
        let mut budget = budget.max(1);
        let (mut worked, mut heard, mut turned) = (false, false, false);
        loop {
            if let Some(step) = self.head.advance(&mut self.next, &mut budget, slot) {
                return Ok(if worked && step == Step::Blocked { Step::Progress } else { step });
            }
            if let Some(marker) = self.markers.due(slot) {
                self.next.latency(marker);
            }
            // Whoever tells splits apart hears of them while nothing is on its way, and before anything else.
            if self.apart && self.news() {
                continue;
            }
            // Splits and barriers may wait for the next step, while there is something to read.
            if !(self.ending || heard && self.active) {
                if self.hear()? {
                    worked = true;
                    continue;
                }
                heard = true;
            }
            if self.ahead.is_some() {
                match self.align(slot) {
                    Turn::On => {}
                    Turn::To(number) => {
                        let place = self.splits.place(number);
                        // Once between two calls: a reader that says it turns, and does not, reads on.
                        if !turned && place.is_some_and(|place| self.reader.turn_to(place)) {
                            turned = true;
                            continue;
                        }
                    }
                    // An answer, a split or a barrier wakes it.
                    Turn::Wait if worked => return Ok(self.head.worked(&mut self.next, slot)),
                    Turn::Wait => return Ok(self.head.pause(&mut self.next, slot)),
                }
            }
            if self.active {
                self.ask_for_more();
                if self.asked == Asked::More && !self.no_more {
                    // Room for the request wakes it, and the answer. It is not idle meanwhile: it has something to read.
                    self.asks.iter_mut().for_each(|asks| {
                        asks.pump();
                    });
                    let step = if worked { Step::Progress } else { Step::Blocked };
                    return Ok(self.head.waits(&mut self.next, slot, step));
                }
                let mut out = Counted { next: &mut self.next, records: 0 };
                let mut cx = ReaderCx {
                    slot,
                    metrics: &self.cell.shared.metrics,
                    place: &self.cell.place,
                    one_split: self.apart,
                };
                let guard = Guard::new(&self.uid);
                let polled = self.reader.poll(STRIDE.min(budget), &mut out, &mut cx);
                guard.leave();
                self.cell.place.forget();
                self.cell.looked();
                let records = out.records;
                if records > 0 {
                    self.head.gathers();
                }
                turned = false;
                add(&self.cell.metrics().records_in, records);
                budget = budget.saturating_sub((records as usize).max(1));
                match polled.map_err(|f| TaskFailure { uid: f.uid.or_else(|| Some(self.uid.to_string())), ..f })? {
                    Polled::Progress => worked = true,
                    Polled::Ended => {
                        worked = true;
                        self.splits.ended();
                    }
                    Polled::Idle if worked || records > 0 => return Ok(self.head.worked(&mut self.next, slot)),
                    Polled::Idle => return Ok(self.head.pause(&mut self.next, slot)),
                    Polled::Done => {
                        worked = true;
                        self.active = false;
                        self.splits.all_ended();
                    }
                }
            } else if self.ending {
                return Ok(Step::Progress);
            } else {
                self.ask();
                if self.no_more {
                    self.ending = true;
                    self.head.say(Saying::End);
                    continue;
                }
                return Ok(if worked {
                    self.head.worked(&mut self.next, slot)
                } else {
                    self.head.pause(&mut self.next, slot)
                });
            }
            if budget == 0 || self.cell.has_failed() || slot.is_long() {
                return Ok(self.head.worked(&mut self.next, slot));
            }
        }
    }
}

impl<R: Reader<Split: crate::key::Data>, N: Push<R::Item> + 'static> Task for SourceTask<R, N> {
    fn step(&mut self, budget: usize, slot: &mut SlotCx) -> Step {
        self.work(budget, slot).unwrap_or_else(|failure| {
            self.cell.fail(failure);
            Step::Progress
        })
    }
}
