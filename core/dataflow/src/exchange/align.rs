//! Alignment of all channels of all gates of one task. It knows nothing of items.

use crate::{
    batch::NO_TIME,
    push::{CheckpointId, Mark},
    task::Saying,
};

/// Which channels are held back by a barrier, which have ended, and how far each one's watermark is.
pub(crate) struct Align {
    held: Vec<bool>,
    ended: Vec<bool>,
    marks: Vec<Mark>,
    pending: Option<CheckpointId>,
    told: Mark,
}

impl Align {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            held: vec![false; channels],
            ended: vec![false; channels],
            marks: vec![Mark::At(NO_TIME); channels],
            pending: None,
            told: Mark::At(NO_TIME),
        }
    }

    /// Nothing may be taken from this channel now.
    #[inline]
    pub(crate) fn closed(&self, channel: usize) -> bool {
        self.held[channel] || self.ended[channel]
    }

    pub(crate) fn mark(&mut self, channel: usize, mark: Mark) -> Option<Saying> {
        self.marks[channel] = mark;
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
        self.aligned().or_else(|| self.lowest())
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.ended.iter().all(|e| *e)
    }

    fn lowest(&mut self) -> Option<Saying> {
        let open = self.marks.iter().zip(&self.ended).filter(|(_, ended)| !**ended);
        let times = open.filter_map(|(mark, _)| if let Mark::At(t) = mark { Some(*t) } else { None });
        let mark = times.min().map_or(Mark::Idle, Mark::At);
        // Time does not go back when an idle channel with an old watermark wakes up.
        if mark == self.told || matches!((mark, self.told), (Mark::At(a), Mark::At(b)) if a <= b) {
            return None;
        }
        self.told = mark;
        Some(Saying::Mark(mark))
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
        assert_eq!(a.end(1), None);
        assert_eq!(a.mark(0, Mark::At(9)), Some(Saying::Mark(Mark::At(9))));
        assert_eq!(a.mark(0, Mark::Idle), Some(Saying::Mark(Mark::Idle)));
    }
}
