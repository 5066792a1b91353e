//! Timers of keys, or of something else that has a key: each has at most one for a time, and they fire in the order of time.

use crate::{batch::Time, build::OpCx, key::OwnedKey};
use std::collections::{BTreeMap, btree_map::Entry};

/// A key whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Due<K> {
    /// The time that was asked for.
    pub at: Time,
    /// The key's hash.
    pub hash: u64,
    /// The key.
    pub key: K,
}

/// Timers of one operator in one subtask.
#[derive(Debug)]
pub struct Timers<K> {
    /// Sets by time; a key is in a set once.
    by_time: BTreeMap<Time, hashbrown::HashTable<(u64, K)>>,
    /// What is left of the set that fires, and its time: taking one after the other out of a table would look at its
    /// empty places again and again.
    firing: (Time, Vec<(u64, K)>),
    /// Which of those still count, once somebody has asked.
    counts: Option<hashbrown::HashTable<(u64, K)>>,
    len: usize,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeMap::new(), firing: (0, Vec::new()), counts: None, len: 0 }
    }
}

impl<K: Clone + Eq> Timers<K> {
    /// Asks for a time. Once is enough: the same again changes nothing.
    pub fn add(&mut self, at: Time, hash: u64, key: &K) {
        if self.still_firing(at).is_some_and(|all| all.find(hash, |(_, k)| k == key).is_some()) {
            return;
        }
        let set = self.by_time.entry(at).or_default();
        let entry = set.entry(hash, |(_, k)| k == key, |(hash, _)| *hash);
        if let hashbrown::hash_table::Entry::Vacant(free) = entry {
            free.insert((hash, key.clone()));
            self.len += 1;
        }
    }

    /// Takes a wish back, if there is one.
    pub fn remove(&mut self, at: Time, hash: u64, key: &K) {
        if let Some(entry) = self.still_firing(at).and_then(|all| all.find_entry(hash, |(_, k)| k == key).ok()) {
            entry.remove();
            self.len -= 1;
            return;
        }
        let Entry::Occupied(mut set) = self.by_time.entry(at) else { return };
        if let Ok(entry) = set.get_mut().find_entry(hash, |(_, k)| k == key) {
            entry.remove();
            self.len -= 1;
        }
        if set.get().is_empty() {
            set.remove();
        }
    }

    /// Somebody may ask for a time, or take it back, while the first keys of that time have fired and others have yet to.
    fn still_firing(&mut self, at: Time) -> Option<&mut hashbrown::HashTable<(u64, K)>> {
        if at != self.firing.0 || self.firing.1.is_empty() {
            return None;
        }
        let firing = &self.firing.1;
        Some(self.counts.get_or_insert_with(|| {
            let mut all = hashbrown::HashTable::with_capacity(firing.len());
            for (hash, key) in firing {
                all.insert_unique(*hash, (*hash, key.clone()), |(hash, _)| *hash);
            }
            all
        }))
    }

    /// The earliest time that is asked for.
    pub fn next(&self) -> Option<Time> {
        if self.firing.1.is_empty() { self.by_time.first_key_value().map(|(at, _)| *at) } else { Some(self.firing.0) }
    }

    /// Takes one key of the earliest time, if that is not after `now`.
    #[inline]
    pub fn pop(&mut self, now: Time) -> Option<Due<K>> {
        loop {
            if self.firing.1.is_empty() {
                self.counts = None;
                let first = self.by_time.first_entry().filter(|first| *first.key() <= now)?;
                let (at, set) = first.remove_entry();
                self.firing = (at, set.into_iter().collect());
            }
            let (hash, key) = self.firing.1.pop()?;
            if let Some(counts) = &mut self.counts {
                match counts.find_entry(hash, |(_, k)| *k == key) {
                    Ok(entry) => drop(entry.remove()),
                    // Taken back.
                    Err(_) => continue,
                }
            }
            self.len -= 1;
            return Some(Due { at: self.firing.0, hash, key });
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, for a snapshot.
    pub fn iter(&self) -> impl Iterator<Item = (Time, &K)> {
        let firing = self.firing.1.iter().map(|(_, key)| (self.firing.0, key));
        firing.chain(self.by_time.iter().flat_map(|(at, set)| set.iter().map(|(_, key)| (*at, key))))
    }
}

impl<K: OwnedKey> Timers<K> {
    /// Those of a snapshot that belong to this subtask.
    pub fn restore(&mut self, cx: &OpCx, timers: Vec<(Time, K)>) {
        for (at, key) in timers {
            let hash = key.stable_hash();
            if cx.owns(hash) {
                self.add(at, hash, &key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn they_fire_in_order_once_each_and_never_early(ops: Vec<(bool, i8, u8)>, now: i8) {
            let (mut timers, mut model) = (Timers::default(), BTreeSet::new());
            for (add, at, key) in ops {
                let (at, key) = (Time::from(at), u64::from(key));
                if add {
                    timers.add(at, key.stable_hash(), &key);
                    model.insert((at, key));
                } else {
                    timers.remove(at, key.stable_hash(), &key);
                    model.remove(&(at, key));
                }
                prop_assert_eq!(timers.len(), model.len());
            }
            let mut fired = Vec::new();
            while let Some(due) = timers.pop(now.into()) {
                prop_assert_eq!(due.hash, due.key.stable_hash());
                fired.push((due.at, due.key));
            }
            prop_assert!(fired.is_sorted_by_key(|f| f.0));
            fired.sort_unstable();
            let expected: Vec<_> = model.range(..(Time::from(now) + 1, 0)).copied().collect();
            prop_assert_eq!(fired, expected);
            prop_assert_eq!(timers.next(), model.range((Time::from(now) + 1, 0)..).next().map(|m| m.0));
        }
    }

    #[test]
    fn what_has_yet_to_fire_of_a_time_can_be_taken_back_and_asked_for_again() {
        let mut timers = Timers::default();
        (0..9_u64).for_each(|key| timers.add(5, key.stable_hash(), &key));
        let first = timers.pop(5).unwrap().key;
        let rest = || (0..9_u64).filter(|key| *key != first);
        rest().for_each(|key| timers.add(5, key.stable_hash(), &key));
        assert_eq!(timers.len(), 8, "asked for already");
        let gone: Vec<u64> = rest().take(3).collect();
        gone.iter().for_each(|key| timers.remove(5, key.stable_hash(), key));
        timers.add(5, first.stable_hash(), &first);
        let mut fired: Vec<u64> = std::iter::from_fn(|| timers.pop(5)).map(|due| due.key).collect();
        fired.sort_unstable();
        assert_eq!(fired, (0..9).filter(|key| !gone.contains(key)).collect::<Vec<_>>());
        assert_eq!((timers.len(), timers.next()), (0, None));
    }
}
