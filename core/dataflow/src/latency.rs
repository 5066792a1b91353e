//! Latency markers: how long what a source gives needs to each task. Sources send the machine's time among their records,
//! and each task that gets it notes how old it is.
//!
//! A marker keeps its place behind the records before it, in channels and in what is gathered for them, and goes on with
//! the batch that leaves next: it hastens none. It goes into one channel of an exchange, each time another. Nothing is
//! aligned by it, and operators that hold records back (windows, calls to the outside) are passed by: that is their own
//! doing, and no delay. Tasks on several machines compare their machines' clocks.

use crate::{batch::Time, metrics::Values, task::SlotCx};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use thalweg_model::{LatencyMillis, Moment};

/// When a source sends markers.
pub(crate) struct Markers {
    every: Option<Duration>,
    next: Moment,
}

impl Markers {
    /// So often; never when there is no interval, and with each moment of the clock when it is zero.
    pub(crate) fn new(every: Option<Duration>) -> Self {
        Self { every, next: Moment::default() }
    }

    /// The marker that is to be sent now. The slot is woken for the next one, also where nothing else happens.
    #[inline]
    pub(crate) fn due(&mut self, slot: &mut SlotCx) -> Option<Time> {
        let every = self.every?;
        let due = slot.now >= self.next;
        if due {
            self.next = slot.now + every.max(Duration::from_nanos(1));
        }
        // Nobody is woken for each moment: a clock of a test's would never come to the next.
        if !every.is_zero() {
            slot.wake_at(self.next);
        }
        due.then(|| wall(slot))
    }
}

fn wall(slot: &SlotCx) -> Time {
    Time::try_from(slot.clock().wall().0).unwrap_or(Time::MAX)
}

/// How old the markers were that a task got lately. Nothing is kept where none come.
#[derive(Default)]
pub(crate) struct Latency(OnceLock<Arc<Values>>);

impl Latency {
    /// One has come.
    pub(crate) fn got(&self, marker: Time, slot: &SlotCx) {
        // The clock of the machine that sent it may be ahead.
        let age = u64::try_from(wall(slot).saturating_sub(marker)).unwrap_or(0);
        self.0.get_or_init(Values::new).record(age);
    }

    pub(crate) fn read(&self) -> Option<LatencyMillis> {
        let told = self.0.get()?.told()?;
        Some(LatencyMillis { p50: told.median, p95: told.p95, p99: told.p99, max: told.max })
    }
}
