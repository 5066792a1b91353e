//! Keyed state: one plain value a key, in one table a subtask.
//!
//! It is a flat table: a snapshot is encoded whole within the barrier. The directory of segments that snapshots without
//! a pause takes its place behind the same three calls.

use crate::{
    build::OpCx,
    codec,
    key::{Data, OwnedKey},
};
use hashbrown::HashTable;
use thalweg_model::{FailureKind, TaskFailure};

/// Rows of one operator in one subtask.
pub(crate) struct Rows<K, V> {
    table: HashTable<(K, V)>,
}

impl<K: OwnedKey, V: Data> Rows<K, V> {
    pub(crate) fn new() -> Self {
        Self { table: HashTable::new() }
    }

    /// The rows of this subtask's key groups, out of all parts of the operator's last snapshot.
    pub(crate) fn open(cx: &OpCx) -> Result<Self, TaskFailure> {
        let mut rows = Self::new();
        for (writer, part) in cx.restored() {
            let part: Vec<(K, V)> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the state that subtask {writer} wrote cannot be read: {e}"))
            })?;
            rows.restore(cx, part);
        }
        Ok(rows)
    }

    /// Takes those rows of a snapshot that are this subtask's.
    pub(crate) fn restore(&mut self, cx: &OpCx, part: Vec<(K, V)>) {
        for (key, value) in part {
            let hash = key.stable_hash();
            if cx.owns(hash) {
                self.table.insert_unique(hash, (key, value), |row| row.0.stable_hash());
            }
        }
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, hash: u64, key: &K) {
        if let Ok(row) = self.table.find_entry(hash, |row| row.0 == *key) {
            row.remove();
        }
    }

    /// The row of a key, made when there is none.
    #[inline(always)]
    pub(crate) fn row(&mut self, hash: u64, same: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, V)) -> &mut (K, V) {
        self.table.entry(hash, |row| same(&row.0), |row| row.0.stable_hash()).or_insert_with(make).into_mut()
    }

    /// Merges the item into its key's row, or makes the row of it.
    ///
    /// The item is looked at to find its row and then used up, and both ways need `with`: hence the arguments.
    #[inline(always)]
    pub(crate) fn upsert<T, C>(
        &mut self,
        hash: u64,
        item: T,
        with: &mut C,
        same: impl Fn(&T, &K) -> bool,
        merge: impl FnOnce(&mut C, &mut V, T),
        make: impl FnOnce(&mut C, T) -> (K, V),
    ) -> &mut (K, V) {
        use hashbrown::hash_table::Entry;
        match self.table.entry(hash, |row| same(&item, &row.0), |row| row.0.stable_hash()) {
            Entry::Occupied(row) => {
                let row = row.into_mut();
                merge(with, &mut row.1, item);
                row
            }
            Entry::Vacant(free) => free.insert(make(with, item)).into_mut(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The value of a key, if it has a row.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        self.table.find(hash, |row| row.0 == *key).map(|row| &row.1)
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        self.table.find_mut(hash, |row| row.0 == *key).map(|row| &mut row.1)
    }

    /// The row at a place of the table, or the nearest one behind it, and the place after it: a walk that may be left and
    /// gone on with, as long as no row is added.
    pub(crate) fn at_or_after(&self, mut place: usize) -> Option<(&(K, V), usize)> {
        while place < self.table.num_buckets() {
            if let Some(row) = self.table.get_bucket(place) {
                return Some((row, place + 1));
            }
            place += 1;
        }
        None
    }

    /// Looks at `n` places from this one on and drops the rows whose values are not to be kept; answers the place to go on at.
    pub(crate) fn prune(&mut self, from: usize, n: usize, mut keep: impl FnMut(&mut V) -> bool) -> usize {
        let places = self.table.num_buckets().max(1);
        for place in (from..from + n).map(|p| p % places) {
            let Ok(mut row) = self.table.get_bucket_entry(place) else { continue };
            if !keep(&mut row.get_mut().1) {
                row.remove();
            }
        }
        (from + n) % places
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.table.iter()
    }

    /// All rows, leaving none.
    pub(crate) fn take(&mut self) -> hashbrown::hash_table::IntoIter<(K, V)> {
        std::mem::take(&mut self.table).into_iter()
    }

    /// All rows as bytes. An error is one of the value's own `Serialize`.
    pub(crate) fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(&self.table.iter().collect::<Vec<_>>())
    }
}
