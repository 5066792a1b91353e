//! The splits that one reader of files has, any of which may be half-read: which comes next, and how many have their
//! files open. What a split's bytes mean is its reader's business.
//!
//! A reader is dealt one split at a time, so it has several only after a restore with fewer readers. They are read one
//! after the other, the last first, unless alignment turns to another one.

use super::{Polled, blocks::BlockReader, files::FileSplit};

/// So many splits of one reader have a file open, and a block in memory. Where another one's turn comes a plain file is
/// closed, and opened again at its place. Compressed ones stay open: their place is found by unpacking all before it.
pub(super) const OPEN: usize = 16;

/// A split of which something may have been read.
pub(super) trait HalfRead {
    /// Its file.
    fn file(&self) -> &BlockReader;
    /// What is left of it.
    fn left(&self) -> FileSplit;
    /// Closes its file. It goes on where it is; only for one that is not compressed.
    fn close(&mut self);

    /// Can it be closed?
    fn closes(&self) -> bool {
        self.file().is_open() && self.file().split.packed.is_none()
    }
}

impl HalfRead for BlockReader {
    fn file(&self) -> &BlockReader {
        self
    }
    fn left(&self) -> FileSplit {
        self.split.clone()
    }
    fn close(&mut self) {
        self.close_file();
    }
}

/// Those of one reader, in the order in which they were added.
pub(super) struct HalfReads<H> {
    all: Vec<H>,
    reading: usize,
}

impl<H: HalfRead> HalfReads<H> {
    pub(super) fn new() -> Self {
        Self { all: Vec::new(), reading: 0 }
    }

    /// One more, which is read next.
    pub(super) fn add(&mut self, one: H) {
        self.reading = self.all.len();
        self.all.push(one);
    }

    /// The one that is read.
    pub(super) fn current(&mut self) -> Option<&mut H> {
        self.all.get_mut(self.reading)
    }

    /// Its place.
    pub(super) fn reading(&self) -> Option<usize> {
        (!self.all.is_empty()).then_some(self.reading)
    }

    /// What a call did that may have ended the one that is read.
    pub(super) fn polled(&mut self, ended: bool) -> Polled {
        if ended && self.reading < self.all.len() {
            self.all.remove(self.reading);
            self.reading = self.all.len().saturating_sub(1);
        }
        match (self.all.is_empty(), ended) {
            (true, _) => Polled::Done,
            (false, true) => Polled::Ended,
            (false, false) => Polled::Progress,
        }
    }

    /// The one at this place is read next. Not when too many are open, and none of those can be closed.
    pub(super) fn turn_to(&mut self, place: usize) -> bool {
        let Some(next) = self.all.get(place) else { return false };
        if !next.file().is_open() && self.open() >= OPEN {
            // The one before has run ahead of the others: its turn comes last.
            let before = [self.reading].into_iter().chain(0..self.all.len()).find(|i| self.all[*i].closes());
            let Some(before) = before else { return false };
            self.all[before].close();
        }
        self.reading = place;
        true
    }

    /// So many have their files open.
    pub(super) fn open(&self) -> usize {
        self.all.iter().filter(|one| one.file().is_open()).count()
    }

    pub(super) fn left(&self) -> Vec<FileSplit> {
        self.all.iter().map(HalfRead::left).collect()
    }
}
