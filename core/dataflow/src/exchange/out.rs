//! The sending side of an edge: gathers batches and hands them to channels. It ends a chain.

use super::{
    ExchangeSizes,
    channel::{Msg, Sender},
    route::{GlobalRouter, Router},
};
use crate::{
    batch::{Batch, Time},
    codec,
    key::Data,
    push::{Barrier, Control, Flow, Mark, Push, Ready, forward_control},
    task::{TaskCell, add},
};
use std::{mem::needs_drop, rc::Rc};

/// Records between two looks at how much room one takes.
const LOOK: u32 = 64;
/// Marks that arrive between two batches before they are sent without one.
const MARKS: u32 = 256;

struct Lane<T> {
    filling: Batch<T>,
    // The newest watermark: it may come later but never earlier, so it travels after the next batch and cuts none short.
    mark: Option<Mark>,
    // A latency marker, likewise: the older one when a second comes.
    marker: Option<Time>,
    to: Sender<T>,
}

impl<T: Data> Lane<T> {
    /// What waits for the next batch, when that has left or there is none. Answers whether there was something.
    fn send_marks(&mut self) -> bool {
        let (mark, marker) = (self.mark.take(), self.marker.take());
        let any = mark.is_some() || marker.is_some();
        if let Some(mark) = mark {
            self.to.send(Msg::Mark(mark));
        }
        if let Some(marker) = marker {
            self.to.send(Msg::Latency(marker));
        }
        any
    }
}

/// The end of a chain whose records go to another task.
pub struct ExchangeOut<T, R> {
    lanes: Vec<Lane<T>>,
    router: R,
    // Records of a batch: at first, and at most, by the size of the items alone.
    capacity: usize,
    most: usize,
    // Bytes of a batch, and of a record that owns more than the item itself: of a heavy one, where there were any lately.
    bytes: usize,
    weight: usize,
    // Records until the next look.
    look: u32,
    timed: bool,
    // Some lane may have overdraft. Asked once a stride, set once a batch.
    over: bool,
    unsent_marks: u32,
    // The lane that gets the next latency marker.
    turn: usize,
    cell: Rc<TaskCell>,
}

impl<T: Data, R: Router<T>> ExchangeOut<T, R> {
    /// Batches have so many bytes.
    pub(crate) fn new(
        senders: Vec<Sender<T>>,
        router: R,
        sizes: ExchangeSizes,
        timed: bool,
        cell: Rc<TaskCell>,
    ) -> Self {
        Self::of(senders, router, sizes.records::<T>(), sizes.batch, timed, cell)
    }

    /// Each record is a batch.
    pub(crate) fn one_by_one(senders: Vec<Sender<T>>, router: R, cell: Rc<TaskCell>) -> Self {
        Self::of(senders, router, 1, 1, false, cell)
    }

    fn of(senders: Vec<Sender<T>>, router: R, most: usize, bytes: usize, timed: bool, cell: Rc<TaskCell>) -> Self {
        // Batches are allocated on first use: a channel that never gets a record costs nothing.
        let lanes =
            senders.into_iter().map(|to| Lane { filling: Batch::default(), mark: None, marker: None, to }).collect();
        // The subtasks' markers go to different consumers.
        let turn = cell.shared.subtask.index as usize;
        let (capacity, weight, look) = (most, 0, 1);
        Self { lanes, router, capacity, most, bytes, weight, look, timed, over: false, unsent_marks: 0, turn, cell }
    }

    /// How many records a batch may have depends on how much one of them takes, and what an item owns is not in its size.
    /// Weighing each would cost too much; and where they differ the heavy ones count, for a while.
    #[cold]
    #[inline(never)]
    fn weigh(&mut self, item: &T) {
        self.look = LOOK;
        let Some(weight) = codec::weigh(item, self.bytes) else { return };
        self.weight = weight.max(size_of::<T>()).max(self.weight - self.weight / 8);
        let capacity = (self.bytes / self.weight.max(1)).clamp(1, self.most);
        let fewer = capacity < self.capacity;
        self.capacity = capacity;
        for i in 0..self.lanes.len() {
            if fewer && self.lanes[i].filling.len() >= capacity {
                self.ship(i);
            }
        }
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
            lane.send_marks();
            self.over = true;
        }
        if lane.filling.is_empty() {
            if std::mem::size_of::<T>() > 0 && lane.filling.is_full() {
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
        // The watermark before it counts too: idle is no time.
        if mark == Mark::Idle && self.unsent_marks > 0 {
            self.flush();
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

    fn latency(&mut self, marker: Time) {
        let lanes = self.lanes.len();
        if let Some(lane) = self.lanes.get_mut(self.turn % lanes.max(1)) {
            lane.marker.get_or_insert(marker);
            self.turn = (self.turn + 1) % lanes;
        }
    }

    fn flush(&mut self) {
        self.unsent_marks = 0;
        for i in 0..self.lanes.len() {
            if !self.lanes[i].filling.is_empty() {
                self.ship(i);
            } else {
                self.over |= self.lanes[i].send_marks();
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
        let owns = needs_drop::<T>() && self.most > 1;
        if owns {
            self.look -= 1;
            if self.look == 0 {
                self.weigh(&item);
            }
        }
        let filling = &self.lanes[i].filling;
        if filling.is_full() || owns && filling.len() >= self.capacity {
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
    pub(crate) fn new(senders: Vec<Sender<T>>, sizes: ExchangeSizes, timed: bool, cell: Rc<TaskCell>) -> Self {
        Self { out: ExchangeOut::new(senders, GlobalRouter, sizes, timed, cell) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exchange::channel::{Queue, Receiver},
        task::TaskShared,
    };
    use std::sync::Arc;
    use thalweg_model::{Attempt, Epoch, SubtaskId};

    /// To the lane that the record names.
    struct Named;

    impl Router<usize> for Named {
        const SHIP: bool = false;
        fn route(&mut self, item: &usize) -> (usize, u64) {
            (*item % 10, 0)
        }
    }

    /// Two lanes, and what has arrived in each.
    fn two_lanes() -> (ExchangeOut<usize, Named>, [Receiver<usize>; 2]) {
        let attempt = Attempt { epoch: Epoch(1), n: 0 };
        let shared = Arc::new(TaskShared::new(SubtaskId { vertex: 0, index: 0 }, attempt));
        let cell = TaskCell::new(shared, Arc::default());
        let sizes = ExchangeSizes { batch: 64, depth: 100, max_record: 100 };
        let queues = [Queue::new(100), Queue::new(100)];
        let sender = |q: &Rc<_>| Sender::queue(Rc::clone(q), sizes, cell.clone(), "out".into());
        let out = ExchangeOut::of(queues.iter().map(sender).collect(), Named, 4, 64, false, cell.clone());
        (out, queues.map(Receiver::queue))
    }

    fn arrived(lane: &mut Receiver<usize>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(message) = lane.recv().unwrap() {
            all.push(match message {
                Msg::Data(batch) => format!("{:?}", batch.items()),
                Msg::Mark(mark) => format!("{mark:?}"),
                Msg::Latency(marker) => format!("marker {marker}"),
                Msg::Barrier(_) => "barrier".into(),
                Msg::End => "end".into(),
            });
        }
        all
    }

    #[test]
    fn idleness_does_not_overtake_the_watermark_before_it() {
        let (mut out, [mut a, mut b]) = two_lanes();
        out.emit(0);
        let _ = (out.mark(Mark::At(4), &mut 100), out.mark(Mark::At(5), &mut 100), out.mark(Mark::Idle, &mut 100));
        assert_eq!(arrived(&mut a), ["[0]", "At(5)", "Idle"]);
        assert_eq!(arrived(&mut b), ["At(5)", "Idle"]);
    }

    #[test]
    fn a_latency_marker_keeps_behind_records_and_hastens_none() {
        let (mut out, [mut a, mut b]) = two_lanes();
        out.emit(0);
        out.latency(7);
        out.emit(10);
        assert_eq!((arrived(&mut a), arrived(&mut b)), (vec![], vec![]), "the batch is not full");
        out.flush();
        assert_eq!(arrived(&mut a), ["[0, 10]", "marker 7"]);
        assert_eq!(arrived(&mut b), Vec::<String>::new(), "one lane gets it");
        out.latency(8);
        out.flush();
        assert_eq!((arrived(&mut a), arrived(&mut b)), (vec![], vec!["marker 8".to_owned()]), "and then the next");
        out.latency(9);
        out.latency(10);
        out.latency(11);
        let _ = out.end(&mut 100);
        assert_eq!(arrived(&mut a), ["marker 9", "end"], "the older one, which waited for longer, and before the end");
        assert_eq!(arrived(&mut b), ["marker 10", "end"]);
    }

    #[test]
    fn a_full_batch_takes_its_watermark_and_its_marker_along() {
        let (mut out, [mut a, _]) = two_lanes();
        out.emit(0);
        out.latency(7);
        let _ = out.mark(Mark::At(5), &mut 100);
        (0..4).for_each(|_| out.emit(0));
        assert_eq!(arrived(&mut a), ["[0, 0, 0, 0]", "At(5)", "marker 7"]);
    }

    struct First;

    impl Router<String> for First {
        const SHIP: bool = false;
        fn route(&mut self, _: &String) -> (usize, u64) {
            (0, 0)
        }
    }

    #[test]
    fn batches_of_records_that_own_much_have_few_of_them() {
        let attempt = Attempt { epoch: Epoch(1), n: 0 };
        let shared = Arc::new(TaskShared::new(SubtaskId { vertex: 0, index: 0 }, attempt));
        let cell = TaskCell::new(shared, Arc::default());
        let sizes = ExchangeSizes { batch: 4800, depth: 10_000, max_record: 1 << 20 };
        let queue = Queue::new(sizes.depth);
        let sender = Sender::queue(Rc::clone(&queue), sizes, cell.clone(), "out".into());
        let mut out = ExchangeOut::new(vec![sender], First, sizes, false, cell);
        let mut lane = Receiver::queue(queue);
        // Records and bytes of each batch, the last of which is not full.
        let mut batches = |length: usize, n: usize| {
            (0..n).for_each(|_| out.emit("x".repeat(length)));
            out.flush();
            let mut all: Vec<(usize, usize)> = Vec::new();
            while let Some(Msg::Data(batch)) = lane.recv().unwrap() {
                all.push((batch.len(), batch.items().iter().map(String::len).sum()));
                lane.recycle(batch);
            }
            all.pop();
            all
        };
        let small = batches(3, 2000);
        assert!(small.iter().all(|b| b.0 == 200), "as many as there are items of that size: {small:?}");
        let large = batches(1000, 2000);
        assert!(large[0].0 <= 64, "until the next look: {large:?}");
        assert!(large[2..].iter().all(|b| b.0 == 4), "{large:?}");
        let longer = batches(1 << 20, 100);
        assert!(longer[0].0 <= 4 && longer[20..].iter().all(|b| b.0 == 1), "{longer:?}");
        let small = batches(3, 20_000);
        assert!(small[0].0 == 1 && small.last().unwrap().0 == 200, "they grow again: {small:?}");
    }
}
