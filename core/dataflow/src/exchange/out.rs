//! The sending side of an edge: gathers batches and hands them to channels. It ends a chain.

use super::{
    channel::{Msg, Sender},
    route::{GlobalRouter, Router},
};
use crate::{
    batch::{Batch, Time},
    key::Data,
    push::{Barrier, Control, Flow, Mark, Push, Ready, forward_control},
    task::{TaskCell, add},
};
use std::rc::Rc;

/// Marks that arrive between two batches before they are sent without one.
const MARKS: u32 = 256;

struct Lane<T> {
    filling: Batch<T>,
    // The newest watermark: it may come later but never earlier, so it travels after the next batch and cuts none short.
    mark: Option<Mark>,
    to: Sender<T>,
}

/// The end of a chain whose records go to another task.
pub struct ExchangeOut<T, R> {
    lanes: Vec<Lane<T>>,
    router: R,
    capacity: usize,
    timed: bool,
    // Some lane may have overdraft. Asked once a stride, set once a batch.
    over: bool,
    unsent_marks: u32,
    cell: Rc<TaskCell>,
}

impl<T: Data, R: Router<T>> ExchangeOut<T, R> {
    pub(crate) fn new(senders: Vec<Sender<T>>, router: R, capacity: usize, timed: bool, cell: Rc<TaskCell>) -> Self {
        // Batches are allocated on first use: a channel that never gets a record costs nothing.
        let lanes = senders.into_iter().map(|to| Lane { filling: Batch::default(), mark: None, to }).collect();
        Self { lanes, router, capacity, timed, over: false, unsent_marks: 0, cell }
    }

    /// From now on the reader of this channel may go without being missed.
    pub(crate) fn may_go(&mut self, channel: usize) {
        if let Some(lane) = self.lanes.get_mut(channel) {
            lane.to.lenient = true;
        }
    }

    #[cold]
    #[inline(never)]
    fn ship(&mut self, i: usize) {
        let Some(lane) = self.lanes.get_mut(i) else { return };
        if !lane.filling.is_empty() {
            add(&self.cell.metrics().records_out, lane.filling.len() as u64);
            let full = std::mem::take(&mut lane.filling);
            if let Some(back) = lane.to.send(Msg::Data(full)) {
                lane.filling = back;
            }
            if let Some(mark) = lane.mark.take() {
                lane.to.send(Msg::Mark(mark));
            }
            self.over = true;
            self.router.shipped();
        }
        if lane.filling.is_full() {
            if std::mem::size_of::<T>() > 0 && lane.filling.is_empty() {
                let spare = lane.to.fresh();
                if !spare.is_full() {
                    lane.filling = spare;
                }
            }
            lane.filling.reserve_total(self.capacity);
        }
    }

    fn all(&mut self, mut message: impl FnMut() -> Msg<T>) {
        self.flush();
        for lane in &mut self.lanes {
            lane.to.send(message());
        }
        self.over = true;
    }
}

impl<T: Data, R: Router<T>> Control for ExchangeOut<T, R> {
    fn ready(&mut self) -> Ready {
        if self.over {
            let mut clear = true;
            for lane in &mut self.lanes {
                clear &= lane.to.pump();
            }
            self.over = !clear;
        }
        if self.over { Ready::Blocked } else { Ready::Yes }
    }

    fn mark(&mut self, mark: Mark, _: &mut usize) -> Flow {
        // The end follows, and says it to whoever receives that.
        if mark == Mark::At(Time::MAX) {
            return Flow::Done;
        }
        self.lanes.iter_mut().for_each(|l| l.mark = Some(mark));
        self.unsent_marks += 1;
        if self.unsent_marks == MARKS || mark == Mark::Idle {
            self.flush();
        }
        Flow::Done
    }

    fn barrier(&mut self, barrier: &mut Barrier) {
        let id = barrier.id;
        self.all(|| Msg::Barrier(id));
    }

    fn flush(&mut self) {
        self.unsent_marks = 0;
        for i in 0..self.lanes.len() {
            if !self.lanes[i].filling.is_empty() {
                self.ship(i);
            } else if let Some(mark) = self.lanes[i].mark.take() {
                self.lanes[i].to.send(Msg::Mark(mark));
                self.over = true;
            }
        }
    }

    fn end(&mut self, _: &mut usize) -> Flow {
        self.all(|| Msg::End);
        Flow::Done
    }

    fn drained(&mut self) -> bool {
        self.lanes.iter_mut().all(|l| l.to.drained())
    }
}

impl<T: Data, R: Router<T>> ExchangeOut<T, R> {
    #[inline(always)]
    fn push_to(&mut self, i: usize, hash: u64, at: Time, item: T) {
        if self.lanes[i].filling.is_full() {
            self.ship(i);
        }
        let batch = &mut self.lanes[i].filling;
        if R::SHIP {
            batch.push_hash(hash);
        }
        if self.timed {
            batch.push_time(at);
        }
        batch.push(item);
    }
}

impl<T: Data, R: Router<T>> Push<T> for ExchangeOut<T, R> {
    #[inline(always)]
    fn push(&mut self, at: Time, item: T) {
        let (i, hash) = self.router.route(&item);
        self.push_to(i, hash, at, item);
    }

    #[inline]
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}

/// The end of a chain each of whose records goes to all tasks.
pub struct BroadcastOut<T> {
    out: ExchangeOut<T, GlobalRouter>,
}

impl<T: Data + Clone> BroadcastOut<T> {
    pub(crate) fn new(senders: Vec<Sender<T>>, capacity: usize, timed: bool, cell: Rc<TaskCell>) -> Self {
        Self { out: ExchangeOut::new(senders, GlobalRouter, capacity, timed, cell) }
    }
}

impl<T: Data + Clone> Control for BroadcastOut<T> {
    forward_control!(out);
}

impl<T: Data + Clone> Push<T> for BroadcastOut<T> {
    #[inline]
    fn push(&mut self, at: Time, item: T) {
        let last = self.out.lanes.len().saturating_sub(1);
        for i in 0..last {
            self.out.push_to(i, 0, at, item.clone());
        }
        if !self.out.lanes.is_empty() {
            self.out.push_to(last, 0, at, item);
        }
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, limit: usize) {
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}
