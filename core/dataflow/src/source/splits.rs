//! An enumerator over splits that are known from the beginning: each reader that asks gets the next.

use super::{Assignment, Enumerator};
use crate::{build::OpCx, codec, key::Data};
use std::collections::VecDeque;
use thalweg_model::{FailureKind, TaskFailure};

/// Splits that are left.
pub struct Known<S> {
    left: VecDeque<S>,
    total_bytes: u64,
}

impl<S: Data> Known<S> {
    /// What was left at the snapshot, or else what `make` finds: without one, and of a source that it does not know.
    pub(super) fn open(
        cx: &OpCx,
        make: impl FnOnce() -> Result<Vec<S>, TaskFailure>,
        bytes: impl Fn(&S) -> u64,
    ) -> Result<Self, TaskFailure> {
        let mut left = Vec::new();
        if cx.restored().next().is_some() {
            for (_, part) in cx.restored() {
                let part: Vec<S> = codec::decode(part)
                    .map_err(|e| cx.failure(FailureKind::Storage, format!("the state cannot be read: {e}")))?;
                left.extend(part);
            }
        } else {
            left = make()?;
        }
        Ok(Self { total_bytes: left.iter().map(bytes).sum(), left: left.into() })
    }
}

impl<S: Data> Enumerator for Known<S> {
    type Split = S;
    fn next(&mut self, _: u32) -> Result<Assignment<S>, TaskFailure> {
        Ok(self.left.pop_front().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(&self.left)
    }
}
