//! Where the record stands in its input that is on its way through a source's chain, for the errors of whoever finds it bad.
//! A reader tells it; it is known in the reader's own task only, and only while the record is being given out.

use std::{
    cell::{Cell, RefCell},
    fmt::{Display, Write},
};

const NOWHERE: u64 = u64::MAX;

/// In the task's cell.
pub(crate) struct Place {
    input: RefCell<String>,
    at: Cell<u64>,
}

impl Default for Place {
    fn default() -> Self {
        Self { input: RefCell::default(), at: Cell::new(NOWHERE) }
    }
}

impl Place {
    pub(super) fn input(&self, input: impl Display) {
        let mut text = self.input.borrow_mut();
        text.clear();
        // A string takes all.
        let _ = write!(text, "{input}");
    }

    #[inline(always)]
    pub(super) fn at(&self, byte: u64) {
        self.at.set(byte);
    }

    /// What comes now may be an earlier record, which somebody has kept.
    pub(crate) fn forget(&self) {
        self.at.set(NOWHERE);
    }

    /// `FILE at byte 12`, where it is known.
    pub(crate) fn told(&self) -> Option<String> {
        let at = Some(self.at.get()).filter(|at| *at != NOWHERE)?;
        Some(format!("{} at byte {at}", self.input.borrow()))
    }
}
