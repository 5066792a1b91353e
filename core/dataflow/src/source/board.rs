//! What a source's task tells the operators of its own chain: which splits are open, and whose records come next.
//!
//! It is told between records, while nothing of an earlier split is on its way through the chain, and only where somebody
//! listens. It goes nowhere else: what other tasks know of splits is the coordinator's business.

use super::Origin;
use crate::{
    batch::{NO_TIME, Time},
    event_time::Alignment,
};
use std::cell::{Cell, RefCell};

/// What is told, in the task's cell.
pub(crate) struct SplitBoard {
    watched: Cell<bool>,
    // Rises with each change; 0: the reader has told nothing yet, or does not tell its splits apart.
    version: Cell<u64>,
    told: RefCell<Told>,
    alignment: RefCell<Option<Alignment>>,
    /// Where readers are aligned: the watermark that the chain has told, and whether it is idle.
    pub(crate) reached: Cell<Time>,
    pub(crate) idle: Cell<bool>,
    /// The watermark of the split that is being read, and the lowest of the others with its number.
    pub(crate) live: Cell<Time>,
    pub(crate) lowest: Cell<Option<(Time, u64)>>,
    /// The reader waits for others: it is not idle.
    pub(crate) waits: Cell<bool>,
}

impl Default for SplitBoard {
    fn default() -> Self {
        Self {
            watched: Cell::default(),
            version: Cell::default(),
            told: RefCell::default(),
            alignment: RefCell::default(),
            reached: Cell::new(NO_TIME),
            idle: Cell::default(),
            live: Cell::new(NO_TIME),
            lowest: Cell::default(),
            waits: Cell::default(),
        }
    }
}

/// The splits of one reader.
#[derive(Clone, Default)]
pub(crate) struct Told {
    /// Numbers of those that are open, in the order of `Reader::unfinished`. The first that a reader gets is 0.
    pub(crate) open: Vec<u64>,
    /// The one whose records come next.
    pub(crate) reading: Option<u64>,
    /// Where those stood that were in a snapshot; they have the numbers from 0 on.
    pub(crate) restored: Vec<Origin>,
    /// Are all of them read at once?
    pub(crate) at_once: bool,
}

impl SplitBoard {
    /// Somebody listens from now on.
    pub(crate) fn watch(&self) {
        self.watched.set(true);
    }

    /// Does somebody?
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.get()
    }

    /// The reader waits for others where this says so. Answers whether it is the first to ask; the others' watermarks do
    /// not count.
    pub(crate) fn align(&self, alignment: Alignment) -> bool {
        let mut mine = self.alignment.borrow_mut();
        let first = mine.is_none();
        mine.get_or_insert(alignment);
        first
    }

    /// How readers are aligned, if they are.
    pub(super) fn alignment(&self) -> Option<Alignment> {
        self.alignment.borrow().clone()
    }

    /// Whoever has seen this version knows all.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// What is told.
    pub(crate) fn told(&self) -> std::cell::Ref<'_, Told> {
        self.told.borrow()
    }
}

/// Follows the splits of a reader, in its task.
#[derive(Default)]
pub(super) struct Following {
    now: Told,
    next: u64,
    // The reader tells its splits apart.
    tells: bool,
    news: bool,
}

impl Following {
    /// A split was added; one of a snapshot stood there. Those come first.
    pub(super) fn add(&mut self, restored: Option<Origin>) {
        self.now.open.push(self.next);
        self.next += 1;
        self.now.restored.extend(restored);
        self.news = true;
    }

    /// The next records are of the split at this place.
    pub(super) fn reads(&mut self, place: usize, at_once: bool) {
        let reading = self.now.open.get(place).copied();
        if !self.tells || (reading, at_once) != (self.now.reading, self.now.at_once) {
            (self.now.reading, self.now.at_once) = (reading, at_once);
            (self.tells, self.news) = (true, true);
        }
    }

    /// The place of this split.
    pub(super) fn place(&self, number: u64) -> Option<usize> {
        self.now.open.iter().position(|n| *n == number)
    }

    /// The split that was read has ended.
    pub(super) fn ended(&mut self) {
        if let Some(reading) = self.now.reading.take() {
            self.now.open.retain(|n| *n != reading);
            self.news = true;
        }
    }

    /// All have ended.
    pub(super) fn all_ended(&mut self) {
        self.now.reading = None;
        self.now.open.clear();
        self.news = true;
    }

    /// Tells what is new; answers whether something was.
    #[inline]
    pub(super) fn tell(&mut self, board: &SplitBoard) -> bool {
        if !(self.tells && self.news) {
            return false;
        }
        self.news = false;
        board.told.borrow_mut().clone_from(&self.now);
        board.version.set(board.version.get() + 1);
        true
    }
}
