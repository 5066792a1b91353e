//! Rows by key that an aggregation keeps until it gives them out, each with the latest time of its records.
//!
//! Times lie in a table of their own, which stays empty where records have none: there a row costs nothing more.

use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    codec,
    key::{Data, OwnedKey},
    push::{Flow, Push},
    state::{IntoEntries, RowTable, Rows},
};
use thalweg_model::{FailureKind, TaskFailure};

/// The rows, and those that are on their way out.
pub(super) struct Kept<K, A> {
    rows: Rows<K, A>,
    times: Rows<K, Time>,
    leaving: Option<(IntoEntries<(K, A)>, Rows<K, Time>)>,
}

/// Rows and times of one writer's snapshot.
type Part<K, A> = (Vec<(K, A)>, Vec<(K, Time)>);

#[inline(always)]
fn note<K: OwnedKey>(times: &mut Rows<K, Time>, hash: u64, at: Time, key: &K) {
    if at != NO_TIME {
        let (_, latest) = times.row(hash, |k| k == key, || (key.clone(), at));
        *latest = at.max(*latest);
    }
}

impl<K: OwnedKey, A: Data> Kept<K, A> {
    /// Out of those parts of the operator's last snapshot whose writer is this subtask's, rows whose hash is; rows of one
    /// key in several parts are merged.
    pub(super) fn open(
        cx: &OpCx,
        writers: impl Fn(u32) -> bool,
        owns: impl Fn(u64) -> bool,
        mut merge: impl FnMut(&mut A, A),
    ) -> Result<Self, TaskFailure> {
        let mut kept = Self { rows: Rows::new(), times: Rows::new(), leaving: None };
        for (writer, part) in cx.restored().filter(|(writer, _)| writers(*writer)) {
            let (rows, times): Part<K, A> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the state that subtask {writer} wrote cannot be read: {e}"))
            })?;
            let rows = rows.into_iter().map(|row| (row.0.stable_hash(), row)).filter(|(hash, _)| owns(*hash));
            for (hash, row) in rows {
                kept.rows.upsert(hash, row, &mut merge, |i, k| i.0 == *k, |m, a, i| m(a, i.1), |_, i| i);
            }
            let times =
                times.into_iter().map(|(key, at)| (key.stable_hash(), key, at)).filter(|(hash, ..)| owns(*hash));
            for (hash, key, at) in times {
                note(&mut kept.times, hash, at, &key);
            }
        }
        Ok(kept)
    }

    /// Brings the rows of some keys near. See [`Rows::near`].
    #[inline(always)]
    pub(super) fn near(&self, hashes: &[u64]) {
        self.rows.near(hashes);
    }

    /// Merges the item into its key's row, or makes the row of it. `at` is [`NO_TIME`] also where the row is given out at
    /// once, and its time with it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "those of `RowTable::upsert` and the time")]
    pub(super) fn upsert<T, C>(
        &mut self,
        hash: u64,
        at: Time,
        item: T,
        with: &mut C,
        same: impl Fn(&T, &K) -> bool,
        merge: impl FnOnce(&mut C, &mut A, T),
        make: impl FnOnce(&mut C, T) -> (K, A),
    ) -> &mut (K, A) {
        let row = self.rows.upsert(hash, item, with, same, merge, make);
        note(&mut self.times, hash, at, &row.0);
        row
    }

    /// The row of a key, made when there is none. Of `at` the same holds.
    #[inline(always)]
    pub(super) fn row(
        &mut self,
        hash: u64,
        at: Time,
        same: impl Fn(&K) -> bool,
        make: impl FnOnce() -> (K, A),
    ) -> &mut (K, A) {
        let row = self.rows.row(hash, same, make);
        note(&mut self.times, hash, at, &row.0);
        row
    }

    /// Number of rows that are not on their way out.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Are some on their way out?
    #[inline(always)]
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// All rows are on their way out, unless earlier ones still are.
    pub(super) fn begin_leaving(&mut self) {
        if self.leaving.is_none() && self.rows.len() > 0 {
            self.leaving = Some((self.rows.take().into_iter(), self.times.take()));
        }
    }

    /// Emits what is on its way out until `budget` is used up.
    pub(super) fn leave<O>(
        &mut self,
        budget: &mut usize,
        mut emit: impl FnMut(K, A) -> O,
        out: &mut impl Push<O>,
    ) -> Flow {
        while let Some((rows, times)) = &mut self.leaving {
            if *budget == 0 {
                return Flow::More;
            }
            let Some((key, acc)) = rows.next() else {
                self.leaving = None;
                break;
            };
            *budget -= 1;
            let timed = times.len() > 0;
            let at = timed.then(|| times.get(key.stable_hash(), &key)).flatten().copied();
            out.push(at.unwrap_or(NO_TIME), emit(key, acc));
        }
        Flow::Done
    }

    /// All rows as bytes, with their times. An error is one of the value's own `Serialize`.
    pub(super) fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(&(self.rows.iter().collect::<Vec<_>>(), self.times.iter().collect::<Vec<_>>()))
    }
}
