//! How many batches wait before a task and behind it. Who moves a batch counts it; who wants to know adds up, on whatever
//! thread, at any time. Marks and barriers between batches count as well.

use crate::task::add;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use thalweg_spi::Waiting;

/// On a line of its own: the two ends of a ring must not invalidate each other's.
#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// Of a ring: one thread counts what goes in, one what comes out.
#[derive(Default)]
pub(crate) struct Passed {
    sent: Padded,
    taken: Padded,
}

impl Passed {
    /// Called by the writer alone.
    #[inline]
    pub(crate) fn sent(&self, messages: u64) {
        add(&self.sent.0, messages);
    }

    /// Called by the reader alone.
    #[inline]
    pub(crate) fn took(&self) {
        add(&self.taken.0, 1);
    }

    fn waiting(&self) -> u64 {
        // What went out first: the difference is never less than what there was at some moment since.
        let taken = self.taken.0.load(Relaxed);
        self.sent.0.load(Relaxed).saturating_sub(taken)
    }
}

enum Place {
    Ring(Arc<Passed>),
    Other(Waiting),
}

/// All channels on one side of a task.
#[derive(Default)]
pub(crate) struct Queues(Mutex<Vec<Place>>);

impl Queues {
    pub(crate) fn ring(&self, ring: Arc<Passed>) {
        self.0.lock().push(Place::Ring(ring));
    }

    pub(crate) fn other(&self, waiting: Waiting) {
        self.0.lock().push(Place::Other(waiting));
    }

    pub(crate) fn waiting(&self) -> u64 {
        let of = |place: &Place| match place {
            Place::Ring(passed) => passed.waiting(),
            Place::Other(waiting) => waiting.get(),
        };
        self.0.lock().iter().map(of).sum()
    }
}
