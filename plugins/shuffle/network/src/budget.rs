//! How much the readers of one process may grant: one sum for all, a share for each.
//!
//! A channel begins small and grows with use up to its share, so that a thousand idle channels hold little. When more
//! channels come, shares shrink, and what was granted beyond is not granted again.

use crate::sync::{AtomicUsize, Ordering};

/// What every channel has, however many there are: one full batch and some control.
pub(crate) const MIN_WINDOW: usize = 36 * 1024;
/// What a channel begins with.
const FIRST_WINDOW: usize = 64 * 1024;

/// The sum of all grants of one process.
pub(crate) struct Budget {
    total: usize,
    max_window: usize,
    granted: AtomicUsize,
    readers: AtomicUsize,
    /// Bytes in the readers' queues.
    held: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(total: usize, max_window: usize) -> Self {
        Self {
            total,
            max_window,
            granted: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        }
    }

    /// A reader more.
    pub(crate) fn join(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// A reader less, with what it still held.
    pub(crate) fn leave(&self, held: usize) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
        self.give_back(held);
    }

    /// A parcel of this cost is held by a reader.
    pub(crate) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Parcels of this cost are not held any more.
    pub(crate) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in the readers' queues.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// One channel's share at this moment.
    pub(crate) fn share(&self) -> usize {
        let readers = self.readers.load(Ordering::Relaxed).max(1);
        (self.total / readers).min(self.max_window).max(MIN_WINDOW)
    }

    /// What a new channel's window is.
    pub(crate) fn first_window(&self) -> usize {
        self.share().min(FIRST_WINDOW)
    }

    /// Takes up to `wanted` bytes: what is free, and at least `at_least`.
    pub(crate) fn take(&self, wanted: usize, at_least: usize) -> usize {
        let mut taken = 0;
        let _ = self.granted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |granted| {
            let free = self.total.saturating_sub(granted);
            taken = wanted.min(free.max(at_least));
            Some(granted + taken)
        });
        taken
    }

    /// Bytes granted, and readers.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> (usize, usize) {
        (self.granted.load(Ordering::Relaxed), self.readers.load(Ordering::Relaxed))
    }

    /// Bytes that were granted and are used up.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.granted.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One reader's account. `outstanding` is granted and has not arrived, `buffered` has arrived and was not taken.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) outstanding: usize,
    pub(crate) buffered: usize,
    window: usize,
    used: usize,
    /// The writer said that its next parcel costs so much.
    needed: usize,
}

impl Account {
    /// The first grant.
    pub(crate) fn open(&mut self, budget: &Budget) -> usize {
        budget.join();
        self.window = budget.first_window();
        self.grant(budget, self.window, MIN_WINDOW)
    }

    fn grant(&mut self, budget: &Budget, wanted: usize, at_least: usize) -> usize {
        let bytes = budget.take(wanted, at_least);
        self.outstanding += bytes;
        bytes
    }

    /// A parcel arrived; `false` when it was not granted.
    #[must_use]
    pub(crate) fn arrived(&mut self, cost: usize) -> bool {
        let Some(rest) = self.outstanding.checked_sub(cost) else { return false };
        self.outstanding = rest;
        self.buffered += cost;
        // Parcels keep their order, so this is the one that was waited for.
        self.needed = 0;
        true
    }

    /// A parcel was taken. Answers what to grant now; 0 for nothing.
    pub(crate) fn taken(&mut self, budget: &Budget, cost: usize) -> usize {
        self.buffered -= cost;
        budget.give_back(cost);
        self.used += cost;
        let share = budget.share();
        if self.used >= self.window {
            self.window = (self.window * 2).min(share);
            self.used = 0;
        }
        self.window = self.window.min(share);
        self.due(budget)
    }

    /// The writer waits for `cost` bytes. Answers what to grant now.
    pub(crate) fn need(&mut self, budget: &Budget, cost: usize) -> usize {
        self.needed = cost;
        self.due(budget)
    }

    fn due(&mut self, budget: &Budget) -> usize {
        if self.needed > 0 && self.buffered == 0 {
            // The writer waits and nothing is on the way, so `outstanding` is all that it has. One parcel may be more
            // than the budget: without it nothing would ever move.
            let missing = std::mem::take(&mut self.needed).saturating_sub(self.outstanding);
            if missing > 0 {
                return self.grant(budget, missing.max(self.window.saturating_sub(self.outstanding)), missing);
            }
        }
        let held = self.outstanding + self.buffered;
        let room = self.window.saturating_sub(held);
        // In quarters of a window, so that not every parcel is answered by a frame.
        if room == 0 || room < self.window / 4 {
            return 0;
        }
        self.grant(budget, room, MIN_WINDOW.saturating_sub(held))
    }

    /// The reader ends.
    pub(crate) fn close(&mut self, budget: &Budget) {
        budget.leave(std::mem::take(&mut self.outstanding) + std::mem::take(&mut self.buffered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One writer's view beside the reader's account.
    #[derive(Default)]
    struct Channel {
        account: Account,
        credit: usize,
        queue: std::collections::VecDeque<usize>,
    }

    impl Channel {
        fn open(budget: &Budget) -> Self {
            let mut channel = Self::default();
            channel.credit = channel.account.open(budget);
            channel
        }

        fn send(&mut self, budget: &Budget, cost: usize) -> bool {
            if cost > self.credit {
                self.credit += self.account.need(budget, cost);
            }
            if cost > self.credit {
                return false;
            }
            self.credit -= cost;
            assert!(self.account.arrived(cost));
            self.queue.push_back(cost);
            true
        }

        fn take(&mut self, budget: &Budget) -> bool {
            let Some(cost) = self.queue.pop_front() else { return false };
            self.credit += self.account.taken(budget, cost);
            true
        }
    }

    #[test]
    fn a_window_grows_with_use_and_shrinks_when_others_come() {
        let budget = Budget::new(1 << 20, 1 << 20);
        let mut a = Channel::open(&budget);
        assert_eq!(a.credit, FIRST_WINDOW);
        for _ in 0..200 {
            assert!(a.send(&budget, 32 * 1024) && a.take(&budget));
        }
        assert!(a.credit > 700 * 1024, "{}", a.credit);
        let others: Vec<_> = (0..15).map(|_| Channel::open(&budget)).collect();
        for _ in 0..200 {
            assert!(a.send(&budget, 32 * 1024) && a.take(&budget));
        }
        assert!(a.credit <= budget.share() + 32 * 1024, "{} of {}", a.credit, budget.share());
        assert!(others.iter().all(|c| c.credit >= MIN_WINDOW));
    }

    proptest! {
        #[test]
        fn it_never_stalls_and_grants_stay_within_the_budget(
            total in 1usize..400_000,
            steps in proptest::collection::vec((0usize..4, 16usize..200_000, any::<bool>()), 1..300),
        ) {
            let budget = Budget::new(total, 1 << 20);
            let mut channels: Vec<_> = (0..4).map(|_| Channel::open(&budget)).collect();
            for (which, cost, send) in steps {
                let channel = &mut channels[which];
                if send {
                    // Whatever the size: once the reader has taken all, the writer may send.
                    if !channel.send(&budget, cost) {
                        while channel.take(&budget) {}
                        prop_assert!(channel.send(&budget, cost), "{cost} does not fit into {}", channel.credit);
                    }
                } else {
                    channel.take(&budget);
                }
                prop_assert_eq!(channel.credit, channel.account.outstanding);
                let held: usize = channels.iter().map(|c| c.account.outstanding + c.account.buffered).sum();
                prop_assert_eq!(held, budget.granted.load(Ordering::Relaxed));
                // The budget, and for each channel its minimum or one large parcel.
                prop_assert!(held <= total + 4 * 200_000, "{held}");
            }
            for channel in &mut channels {
                channel.account.close(&budget);
            }
            prop_assert_eq!(budget.granted.load(Ordering::Relaxed), 0);
        }
    }
}
