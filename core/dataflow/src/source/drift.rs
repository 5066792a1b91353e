//! Readers that do not run away from each other: each tells how far its watermark is, the coordinator tells it the
//! lowest of the others', and whoever is too far ahead of that waits. Sources of one group do the same among their
//! coordinators ([`super::group`]), by the same rule.
//!
//! Whoever is told is told at most one minimum that it has not answered, so the channel to one that has no room fills
//! no further. Nothing here is in a snapshot: after a restore all tell again.

use super::board::SplitBoard;
use crate::{
    batch::{NO_TIME, Time},
    event_time::Alignment,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thalweg_model::Moment;

/// How far somebody is: a reader, or all readers of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Reach {
    /// It has something to read and no watermark yet: that may be anything.
    #[default]
    Unknown,
    /// It is idle, or has nothing to read.
    Free,
    /// Its watermark.
    At(Time),
}

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

/// One who is told, as it is known to who tells.
#[derive(Clone, Default)]
struct Known {
    reach: Reach,
    every: Duration,
    told: Option<(Time, Moment)>,
    /// It has told something since.
    answered: bool,
}

/// The side of who tells: the coordinator of readers, or the group of sources.
pub(super) struct Lowest(Vec<Known>);

impl Lowest {
    pub(super) fn new(members: usize) -> Self {
        Self(vec![Known::default(); members])
    }

    /// A member is this far, and wants to be told no more often than `every`.
    pub(super) fn hear(&mut self, member: usize, reach: Reach, every: Duration) {
        if let Some(known) = self.0.get_mut(member) {
            (known.reach, known.every, known.answered) = (reach, every, true);
        }
    }

    /// How far they are together, without those that `counts` says no to.
    pub(super) fn reach(&self, counts: impl Fn(usize) -> bool) -> Reach {
        let counted = self.0.iter().enumerate().filter(|(i, _)| counts(*i)).map(|(_, known)| known.reach);
        counted.fold(Reach::Free, |all, one| match (all, one) {
            (Reach::At(a), Reach::At(b)) => Reach::At(a.min(b)),
            (Reach::At(at), _) | (_, Reach::At(at)) => Reach::At(at),
            (Reach::Unknown, _) | (_, Reach::Unknown) => Reach::Unknown,
            (Reach::Free, Reach::Free) => Reach::Free,
        })
    }

    /// Tells each member that has answered what is new to it; answers when to ask again. `others` is the lowest of
    /// those that are no members, `Time::MAX` where there are none. Members that `counts` says no to have nothing to
    /// read: they hold nobody back.
    pub(super) fn tell(
        &mut self,
        now: Moment,
        others: Time,
        counts: impl Fn(usize) -> bool,
        mut tell: impl FnMut(u32, Time),
    ) -> Option<Moment> {
        let at = |(i, known): (usize, &Known)| match known.reach {
            Reach::At(at) if counts(i) => Some((at, i)),
            _ => None,
        };
        let all = || self.0.iter().enumerate().filter_map(at);
        let first = all().min()?;
        let second = all().filter(|(_, i)| *i != first.1).min();
        // Who has told nothing yet may have anything; who is idle has told so.
        let unknown = self.0.iter().enumerate().any(|(i, known)| known.reach == Reach::Unknown && counts(i));
        let alone = if unknown { first.0 } else { Time::MAX };
        let mut next: Option<Moment> = None;
        for (i, known) in self.0.iter_mut().enumerate() {
            let lowest = if i == first.1 { second.map_or(alone, |(at, _)| at) } else { first.0 };
            let lowest = lowest.min(others);
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
