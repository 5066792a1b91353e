//! A flat table of rows, for what is gathered before an exchange: bounded, short-lived, and in the cache. What stays for
//! long is in [`Rows`](super::Rows), which grow without a pause and are in the order of key groups; a small table costs
//! less here.

use super::RowTable;
use crate::key::OwnedKey;
use hashbrown::{HashTable, hash_table::Entry};

/// A flat one.
pub(crate) struct Flat<K, V>(HashTable<(K, V)>);

impl<K, V> Flat<K, V> {
    /// Each row.
    pub(crate) fn into_iter(self) -> FlatIter<K, V> {
        self.0.into_iter()
    }
}

/// The rows of a flat table.
pub(crate) type FlatIter<K, V> = hashbrown::hash_table::IntoIter<(K, V)>;

impl<K: OwnedKey, V: 'static> RowTable<K, V> for Flat<K, V> {
    fn new() -> Self {
        Self(HashTable::new())
    }
    fn like(&self) -> Self {
        Self(HashTable::with_capacity(self.0.len()))
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
        match self.0.entry(hash, |row| same(&item, &row.0), |row| row.0.stable_hash()) {
            Entry::Occupied(row) => {
                let row = row.into_mut();
                merge(with, &mut row.1, item);
                row
            }
            Entry::Vacant(free) => free.insert(make(with, item)).into_mut(),
        }
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }
}
