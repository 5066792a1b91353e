//! Readers of one source that do not run away from each other: each tells how far its watermark is, the coordinator tells it
//! the lowest of the others', and whoever is too far ahead of that waits.
//!
//! A reader is told at most one minimum that it has not answered, so the channel to one that has no room fills no further.
//! Nothing here is in a snapshot: after a restore readers tell again.

use super::board::SplitBoard;
use crate::{
    batch::{NO_TIME, Time},
    event_time::Alignment,
};
use std::time::Duration;
use thalweg_model::Moment;

/// What a reader tells of its watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Report {
    /// `None`: it is idle, or has none yet.
    pub(super) at: Option<Time>,
    /// So long at least between two answers.
    pub(super) every: Duration,
}

/// The reader's side.
pub(super) struct Ahead {
    alignment: Alignment,
    /// The lowest of the others; before the first answer nothing may be read behind the first watermark.
    others: Time,
    reported: Option<Option<Time>>,
    at: Moment,
}

/// What a reader does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It reads on.
    On,
    /// It reads this split instead, if it can; else on.
    To(u64),
    /// It waits until the lowest watermark has risen.
    Wait,
}

impl Ahead {
    pub(super) fn new(alignment: Alignment) -> Self {
        Self { alignment, others: NO_TIME, reported: None, at: Moment::default() }
    }

    /// The lowest watermark of the other readers is this.
    pub(super) fn hear(&mut self, lowest: Time) {
        self.others = lowest;
        // An answer is due: without it nothing more is told.
        self.reported = None;
    }

    pub(super) fn turn(&self, board: &SplitBoard) -> Turn {
        let (live, lowest) = (board.live.get(), board.lowest.get());
        // Of its own splits none runs away from the others either.
        let behind = lowest.map_or(self.others, |(at, _)| at.min(self.others));
        if live <= behind.saturating_add(self.alignment.drift) {
            return Turn::On;
        }
        match lowest {
            Some((at, number)) if at <= self.others.saturating_add(self.alignment.drift) => Turn::To(number),
            _ => Turn::Wait,
        }
    }

    /// What is to be told now, if something is; else perhaps when.
    pub(super) fn report(&mut self, board: &SplitBoard, waits: bool, now: Moment) -> Result<Report, Option<Moment>> {
        let at = if board.idle.get() { None } else { Some(board.reached.get()).filter(|at| *at != NO_TIME) };
        let due = match self.reported {
            // Before the first watermark there is nothing that others could wait for.
            None if at.is_none() && self.others == NO_TIME => return Err(None),
            None => now,
            Some(reported) if reported == at => return Err(None),
            Some(_) if waits => now,
            Some(_) => self.at + self.alignment.interval,
        };
        if now < due {
            return Err(Some(due));
        }
        (self.reported, self.at) = (Some(at), now);
        Ok(Report { at, every: self.alignment.interval })
    }
}

/// One reader, as the coordinator knows it.
#[derive(Clone, Default)]
struct Known {
    at: Option<Time>,
    every: Duration,
    told: Option<(Time, Moment)>,
    /// It has told something since.
    answered: bool,
}

/// The coordinator's side.
pub(super) struct Lowest {
    readers: Vec<Known>,
}

impl Lowest {
    pub(super) fn new(readers: usize) -> Self {
        Self { readers: vec![Known::default(); readers] }
    }

    pub(super) fn hear(&mut self, reader: usize, report: Report) {
        if let Some(known) = self.readers.get_mut(reader) {
            (known.at, known.every, known.answered) = (report.at, report.every, true);
        }
    }

    /// Tells each reader that has answered what is new to it; answers when to ask again. Readers that `counts` says no to
    /// have nothing to read: they hold nobody back.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        counts: impl Fn(usize) -> bool,
        mut tell: impl FnMut(u32, Time),
    ) -> Option<Moment> {
        let counted = |i: usize, known: &Known| known.at.filter(|_| counts(i));
        let all = || self.readers.iter().enumerate().filter_map(|(i, known)| Some((counted(i, known)?, i)));
        let first = all().min()?;
        let second = all().filter(|(_, i)| *i != first.1).min();
        // Who has told nothing yet may have anything; who is idle has told so.
        let silent = self.readers.iter().enumerate().any(|(i, known)| counts(i) && known.every.is_zero());
        let alone = if silent { first.0 } else { Time::MAX };
        let mut next: Option<Moment> = None;
        for (i, known) in self.readers.iter_mut().enumerate() {
            let lowest = if i == first.1 { second.map_or(alone, |(at, _)| at) } else { first.0 };
            if !known.answered || !counts(i) || known.told.is_some_and(|(at, _)| at == lowest) {
                continue;
            }
            match known.told.map(|(_, since)| since + known.every) {
                Some(due) if now < due => next = Some(next.map_or(due, |other| other.min(due))),
                _ => {
                    (known.told, known.answered) = (Some((lowest, now)), false);
                    tell(i as u32, lowest);
                }
            }
        }
        next
    }
}
