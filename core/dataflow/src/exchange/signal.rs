//! How a parked slot is woken: by a ring, a timer, tokio or another thread.

use crate::sync::{AtomicBool, Ordering, Thread, current, fence, park, park_timeout};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering as StdOrdering},
    },
    task::Wake,
    time::Duration,
};

/// One for each slot thread. The slot arms it, looks at all its tasks once more, and parks; whoever gives it work makes
/// the work visible and then calls [`Signal::wake`]. Either the slot sees the work or the waker sees the arm.
#[derive(Default)]
pub struct Signal {
    armed: AtomicBool,
    thread: OnceLock<Thread>,
    parks: AtomicU64,
}

impl Signal {
    /// Wakes the slot if it is parked or about to. Cheap when it runs: one fence and one load.
    #[inline]
    pub fn wake(&self) {
        // Orders the work that was made visible before against the look at `armed`.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::AcqRel) {
            // An armed signal has a thread: `adopt` comes before `arm`.
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    /// The calling thread is the one that parks.
    pub(crate) fn adopt(&self) {
        let _ = self.thread.set(current());
    }

    pub(crate) fn arm(&self) {
        // A swap, not a store: it comes after a waker's swap that it overwrites, also in loom's view, which does not order
        // plain stores against read-modify-writes of other threads.
        self.armed.swap(true, Ordering::AcqRel);
        // Orders the arm against the look at the work that follows.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn disarm(&self) {
        self.armed.swap(false, Ordering::AcqRel);
    }

    /// Parks until woken, or at most for `limit`. Armed before; disarmed after.
    pub(crate) fn park(&self, limit: Option<Duration>) {
        self.parks.fetch_add(1, StdOrdering::Relaxed);
        match limit {
            // A wake-up without a cause, or one that was meant for user code on this thread, leaves it armed.
            None => {
                // The look is a read-modify-write, which sees the newest value: a stale one would park it for ever.
                while self.armed.fetch_or(false, Ordering::AcqRel) {
                    park();
                }
            }
            // The caller looks at its clock again, so that too early a return only costs a round.
            Some(limit) if self.armed.fetch_or(false, Ordering::AcqRel) => park_timeout(limit),
            Some(_) => {}
        }
        self.disarm();
    }

    /// How often the slot has parked.
    pub fn parks(&self) -> u64 {
        self.parks.load(StdOrdering::Relaxed)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        Signal::wake(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Signal::wake(self);
    }
}
