//! What a head does while its chain takes nothing.

use super::*;
use crate::push::{Flow, Mark, Ready};
use thalweg_env::SystemClock;
use thalweg_model::Attempt;

/// Says of itself what it is told to, and counts how often it was flushed.
struct Chain {
    says: Ready,
    flushed: usize,
}

impl Control for Chain {
    fn ready(&mut self) -> Ready {
        self.says
    }
    fn mark(&mut self, _: Mark, _: &mut usize) -> Flow {
        Flow::Done
    }
    fn barrier(&mut self, _: &mut Barrier) {}
    fn latency(&mut self, _: Time) {}
    fn flush(&mut self) {
        self.flushed += 1;
    }
    fn end(&mut self, _: &mut usize) -> Flow {
        Flow::Done
    }
    fn drained(&mut self) -> bool {
        true
    }
}

#[test]
fn what_was_gathered_goes_out_in_time_also_when_the_chain_takes_nothing() {
    let attempt = Attempt { epoch: thalweg_model::Epoch(1), n: 0 };
    let cell = TaskCell::new(Arc::new(TaskShared::new(SubtaskId { vertex: 0, index: 0 }, attempt)), Arc::default());
    let mut slot = SlotCx::new(Arc::new(SystemClock::new()));
    let timeout = Duration::from_millis(100);
    let start = slot.now;
    for says in [Ready::Blocked, Ready::Busy] {
        let (mut head, mut chain) = (Head::new(cell.clone(), timeout), Chain { says: Ready::Yes, flushed: 0 });
        slot.now = start;
        let _ = head.pause(&mut chain, &slot);
        assert_eq!(head.advance(&mut chain, &mut 10, &slot), None);
        // Records are pushed.
        head.gathers();
        chain.says = says;
        slot.now = start + timeout / 2;
        assert!(head.advance(&mut chain, &mut 10, &slot).is_some());
        assert_eq!((chain.flushed, cell.take_wish()), (1, Some(start + timeout)));
        slot.now = start + timeout;
        assert!(head.advance(&mut chain, &mut 10, &slot).is_some());
        assert_eq!((chain.flushed, cell.take_wish()), (2, None));
        slot.now = start + timeout * 9;
        assert!(head.advance(&mut chain, &mut 10, &slot).is_some());
        // One that is busy may give out more.
        let flushed = if says == Ready::Busy { 3 } else { 2 };
        assert_eq!((chain.flushed, cell.take_wish()), (flushed, None));
    }
}

#[test]
fn what_a_flush_has_sent_keeps_the_slot_going_once() {
    let attempt = Attempt { epoch: thalweg_model::Epoch(1), n: 0 };
    let cell = TaskCell::new(Arc::new(TaskShared::new(SubtaskId { vertex: 0, index: 0 }, attempt)), Arc::default());
    let slot = SlotCx::new(Arc::new(SystemClock::new()));
    let (mut head, mut chain) = (Head::new(cell, Duration::from_secs(9)), Chain { says: Ready::Yes, flushed: 0 });
    head.gathers();
    assert_eq!(head.pause(&mut chain, &slot), Step::Progress, "it may be for a task that was asked before");
    assert_eq!(head.pause(&mut chain, &slot), Step::Blocked);
}
