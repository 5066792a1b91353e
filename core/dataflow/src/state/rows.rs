//! Keyed state: one plain value a key, in one table a subtask.
//!
//! A snapshot is encoded whole within the barrier.

use super::table::{IntoEntries, Place, Table};
use crate::{
    build::OpCx,
    codec,
    key::{Data, OwnedKey},
};

/// Rows of one operator in one subtask.
pub(crate) struct Rows<K, V> {
    table: Table<(K, V)>,
}

/// What comes of a look at a row.
pub(crate) enum Look {
    /// There is more to look at.
    Again,
    /// It stays.
    Keep,
    /// It is dropped.
    Drop,
}

/// Keys whose rows are brought near together.
pub(crate) const TILE: usize = 32;

/// A table of rows by key, in segments or flat.
pub(crate) trait RowTable<K: 'static, V: 'static>: Sized {
    /// An empty one.
    fn new() -> Self;
    /// An empty one that takes about as many rows as this one has without growing.
    fn like(&self) -> Self;
    /// Merges the item into its key's row, or makes the row of it. See [`Table::upsert`].
    fn upsert<T, C>(
        &mut self,
        hash: u64,
        item: T,
        with: &mut C,
        same: impl Fn(&T, &K) -> bool,
        merge: impl FnOnce(&mut C, &mut V, T),
        make: impl FnOnce(&mut C, T) -> (K, V),
    ) -> &mut (K, V);
    /// Number of rows.
    fn len(&self) -> usize;
    /// All rows.
    fn iter(&self) -> impl Iterator<Item = &(K, V)>;
}

impl<K: OwnedKey, V: Data> RowTable<K, V> for Rows<K, V> {
    fn new() -> Self {
        Self { table: Table::new() }
    }
    fn like(&self) -> Self {
        Self { table: Table::with_capacity(self.len()) }
    }
    #[inline(always)]
    fn upsert<T, C>(
        &mut self,
        hash: u64,
        item: T,
        with: &mut C,
        same: impl Fn(&T, &K) -> bool,
        merge: impl FnOnce(&mut C, &mut V, T),
        make: impl FnOnce(&mut C, T) -> (K, V),
    ) -> &mut (K, V) {
        let same = |item: &T, row: &(K, V)| same(item, &row.0);
        let merge = |with: &mut C, row: &mut (K, V), item| merge(with, &mut row.1, item);
        self.table.upsert(hash, item, with, same, merge, make, |row| row.0.stable_hash())
    }
    fn len(&self) -> usize {
        self.table.len()
    }
    fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.table.iter()
    }
}

impl<K: OwnedKey, V: Data> Rows<K, V> {
    /// Brings the rows of some keys near, which are about to be used, where that is worth the while.
    #[inline(always)]
    pub(crate) fn near(&self, hashes: &[u64]) {
        if self.table.is_large() {
            self.table.near(hashes);
        }
    }

    /// Takes those rows of a snapshot that are this subtask's.
    pub(crate) fn restore(&mut self, cx: &OpCx, part: Vec<(K, V)>) {
        for (key, value) in part {
            let hash = key.stable_hash();
            if cx.owns(hash) {
                self.upsert(hash, (key, value), &mut (), |r, k| r.0 == *k, |(), v, r| *v = r.1, |(), r| r);
            }
        }
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, hash: u64, key: &K) {
        self.table.remove(hash, |row| row.0 == *key);
    }

    /// The row of a key, made when there is none.
    #[inline(always)]
    pub(crate) fn row(&mut self, hash: u64, same: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, V)) -> &mut (K, V) {
        let same = |(): &(), row: &(K, V)| same(&row.0);
        self.table.upsert(hash, (), &mut (), same, |(), _, ()| (), |(), ()| make(), |row| row.0.stable_hash())
    }

    /// The value of a key, if it has a row.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        self.table.get(hash, |row| row.0 == *key).map(|row| &row.1)
    }

    /// The row of a key, to be changed, if there is one.
    pub(crate) fn row_mut(&mut self, hash: u64, key: &K) -> Option<&mut (K, V)> {
        self.table.get_mut(hash, |row| row.0 == *key)
    }

    /// The same of a key that is not at hand as one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, same: impl Fn(&K) -> bool) -> Option<&V> {
        self.table.get(hash, |row| same(&row.0)).map(|row| &row.1)
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        self.table.get_mut(hash, |row| row.0 == *key).map(|row| &mut row.1)
    }

    /// The row at a place of the table, or the nearest one behind it, and the place after it: a walk that may be left and
    /// gone on with, as long as no row is added.
    pub(crate) fn at_or_after(&self, place: Place) -> Option<(&(K, V), Place)> {
        self.table.at_or_after(place)
    }

    /// Looks at rows from this place on, at most `n` times, and passes a few places without one; answers the place to go
    /// on at.
    pub(crate) fn prune(&mut self, from: Place, n: usize, mut look: impl FnMut(&mut V) -> Look) -> Place {
        let mut place = from;
        for _ in 0..n {
            let (row, next) = self.table.near_mut(place);
            match row.map(|row| (look(&mut row.1), row)) {
                Some((Look::Again, _)) => continue,
                Some((Look::Drop, row)) => {
                    let (hash, key) = (row.0.stable_hash(), row.0.clone());
                    self.table.remove(hash, |row| row.0 == key);
                }
                Some((Look::Keep, _)) | None => {}
            }
            place = next;
        }
        place
    }

    /// All rows, leaving none.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// Each row.
    pub(crate) fn into_iter(self) -> IntoEntries<(K, V)> {
        self.table.into_iter()
    }

    /// All rows as bytes. An error is one of the value's own `Serialize`.
    pub(crate) fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(&self.table.iter().collect::<Vec<_>>())
    }
}
