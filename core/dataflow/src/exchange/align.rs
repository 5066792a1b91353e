//! Alignment of all channels of all gates of one task. It knows nothing of items.

use crate::{
    batch::{NO_TIME, Time},
    push::{CheckpointId, Mark},
    task::Saying,
};

/// One channel's event time.
#[derive(Clone, Copy)]
struct Clock {
    at: Time,
    idle: bool,
}

/// Which channels are held back by a barrier, which have ended, and how far each one's watermark is.
pub(crate) struct Align {
    held: Vec<bool>,
    ended: Vec<bool>,
    clocks: Vec<Clock>,
    pending: Option<CheckpointId>,
    // What was told: a time that never goes back, and whether the task was told that all are idle.
    told: Clock,
    // Told next: the idleness that follows a last watermark.
    idle_next: bool,
    // Looked at next: a barrier came first.
    look_next: bool,
}

impl Align {
    pub(crate) fn new(channels: usize) -> Self {
        let begin = Clock { at: NO_TIME, idle: false };
        Self {
            held: vec![false; channels],
            ended: vec![false; channels],
            clocks: vec![begin; channels],
            pending: None,
            told: begin,
            idle_next: false,
            look_next: false,
        }
    }

    /// What is to be said before anything else is taken.
    #[inline]
    pub(crate) fn due(&mut self) -> Option<Saying> {
        if !(self.idle_next | self.look_next) {
            return None;
        }
        if std::mem::take(&mut self.look_next) {
            return self.lowest();
        }
        self.idle_next = false;
        self.told.idle = true;
        Some(Saying::Mark(Mark::Idle))
    }

    /// Nothing may be taken from this channel now.
    #[inline]
    pub(crate) fn closed(&self, channel: usize) -> bool {
        self.held[channel] || self.ended[channel]
    }

    pub(crate) fn mark(&mut self, channel: usize, mark: Mark) -> Option<Saying> {
        let clock = &mut self.clocks[channel];
        match mark {
            Mark::At(at) => *clock = Clock { at: at.max(clock.at), idle: false },
            Mark::Idle => clock.idle = true,
        }
        self.lowest()
    }

    /// A barrier holds its channel until all others have it or have ended. A newer one makes an older one void: its
    /// checkpoint was given up, and who waits for it would wait for ever.
    pub(crate) fn barrier(&mut self, channel: usize, id: CheckpointId) -> Option<Saying> {
        match self.pending {
            Some(pending) if id < pending => return None,
            Some(pending) if id > pending => self.held.fill(false),
            _ => {}
        }
        self.held[channel] = true;
        self.pending = Some(id);
        self.aligned()
    }

    pub(crate) fn end(&mut self, channel: usize) -> Option<Saying> {
        self.ended[channel] = true;
        if self.all_ended() {
            return Some(Saying::End);
        }
        let barrier = self.aligned();
        self.look_next = barrier.is_some();
        barrier.or_else(|| self.lowest())
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.ended.iter().all(|e| *e)
    }

    fn lowest(&mut self) -> Option<Saying> {
        let open = || self.clocks.iter().zip(&self.ended).filter(|(_, ended)| !**ended).map(|(clock, _)| clock);
        let told = self.told.at;
        if open().any(|c| !c.idle) {
            self.idle_next = false;
            // A channel that was idle counts again once it has caught up: what it brings before that is late.
            let Some(at) = open().filter(|c| !c.idle && c.at >= told).map(|c| c.at).min() else {
                // It has not, and the task holds nobody back by more than it told. But it is idle no longer: records come.
                return std::mem::take(&mut self.told.idle).then_some(Saying::Mark(Mark::At(told)));
            };
            if at == told && !self.told.idle {
                return None;
            }
            self.told = Clock { at, idle: false };
            return Some(Saying::Mark(Mark::At(at)));
        }
        if self.told.idle {
            return None;
        }
        // All are idle: nobody holds back the one that is furthest.
        match open().map(|c| c.at).max() {
            Some(at) if at > told => {
                self.told.at = at;
                self.idle_next = true;
                Some(Saying::Mark(Mark::At(at)))
            }
            _ => {
                self.told.idle = true;
                Some(Saying::Mark(Mark::Idle))
            }
        }
    }

    fn aligned(&mut self) -> Option<Saying> {
        let id = self.pending?;
        if (0..self.held.len()).any(|c| !self.closed(c)) {
            return None;
        }
        self.pending = None;
        self.held.fill(false);
        Some(Saying::Barrier(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_model::Epoch;

    fn id(n: u64) -> CheckpointId {
        CheckpointId { n, epoch: Epoch(1) }
    }

    #[test]
    fn a_barrier_waits_for_all_channels_that_have_not_ended() {
        let mut a = Align::new(3);
        assert_eq!(a.barrier(0, id(1)), None);
        assert!(a.closed(0) && !a.closed(1));
        assert_eq!(a.barrier(1, id(1)), None);
        assert_eq!(a.end(2), Some(Saying::Barrier(id(1))));
        assert!(!a.closed(0) && a.closed(2));
        assert_eq!((a.end(0), a.end(1)), (None, Some(Saying::End)));
    }

    #[test]
    fn a_newer_barrier_frees_who_waits_for_an_older_one() {
        let mut a = Align::new(2);
        assert_eq!(a.barrier(0, id(1)), None);
        assert_eq!(a.barrier(1, id(2)), None);
        assert!(!a.closed(0) && a.closed(1));
        assert_eq!(a.barrier(0, id(2)), Some(Saying::Barrier(id(2))));
    }

    #[test]
    fn the_lowest_watermark_counts_and_idle_channels_do_not() {
        let mut a = Align::new(2);
        assert_eq!(a.mark(0, Mark::At(5)), None);
        assert_eq!(a.mark(1, Mark::At(3)), Some(Saying::Mark(Mark::At(3))));
        assert_eq!(a.mark(1, Mark::Idle), Some(Saying::Mark(Mark::At(5))));
        assert_eq!(a.mark(1, Mark::At(4)), None, "time does not go back");
        assert_eq!(a.mark(0, Mark::At(9)), Some(Saying::Mark(Mark::At(9))), "and who is behind holds nobody back");
        assert_eq!(a.mark(1, Mark::At(11)), None);
        assert_eq!(a.mark(0, Mark::At(10)), Some(Saying::Mark(Mark::At(10))));
        assert_eq!(a.mark(0, Mark::Idle), Some(Saying::Mark(Mark::At(11))));
        assert_eq!(a.mark(0, Mark::At(12)), None);
        assert_eq!(a.end(1), Some(Saying::Mark(Mark::At(12))));
        assert_eq!(a.mark(0, Mark::Idle), Some(Saying::Mark(Mark::Idle)));
        assert_eq!(a.mark(0, Mark::Idle), None, "told once");
        assert_eq!(a.mark(0, Mark::At(12)), Some(Saying::Mark(Mark::At(12))), "awake again");
    }

    #[test]
    fn who_was_idle_is_not_once_one_of_its_channels_is_awake_also_behind() {
        let mut a = Align::new(2);
        assert_eq!(a.mark(0, Mark::At(100)), None);
        assert_eq!(a.mark(1, Mark::At(60)), Some(Saying::Mark(Mark::At(60))));
        assert_eq!(
            (a.mark(1, Mark::Idle), a.mark(0, Mark::Idle)),
            (Some(Saying::Mark(Mark::At(100))), Some(Saying::Mark(Mark::Idle)))
        );
        assert_eq!(a.mark(1, Mark::At(70)), Some(Saying::Mark(Mark::At(100))), "it holds others back by what it told");
        assert_eq!(a.mark(1, Mark::At(80)), None, "told once");
        assert_eq!(a.mark(1, Mark::At(101)), Some(Saying::Mark(Mark::At(101))));
    }

    #[test]
    fn an_end_that_completes_a_barrier_lets_the_watermark_go_on_behind_it() {
        let mut a = Align::new(2);
        assert_eq!(a.mark(0, Mark::At(9)), None);
        assert_eq!(a.mark(1, Mark::At(3)), Some(Saying::Mark(Mark::At(3))));
        assert_eq!(a.barrier(0, id(1)), None);
        assert_eq!(a.end(1), Some(Saying::Barrier(id(1))));
        assert_eq!((a.due(), a.due()), (Some(Saying::Mark(Mark::At(9))), None));
    }

    #[test]
    fn when_all_become_idle_the_furthest_one_counts_first() {
        let mut a = Align::new(2);
        assert_eq!(a.mark(0, Mark::At(5)), None);
        assert_eq!(a.mark(1, Mark::At(3)), Some(Saying::Mark(Mark::At(3))));
        assert_eq!(a.mark(0, Mark::Idle), None);
        assert_eq!(a.mark(1, Mark::Idle), Some(Saying::Mark(Mark::At(5))));
        assert_eq!((a.due(), a.due()), (Some(Saying::Mark(Mark::Idle)), None));
    }
}
