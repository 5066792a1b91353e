//! What a table of a named state has for one key, and how it forgets what is too old: a value, the elements of a list, the
//! entries of a map.
//!
//! Who asks for an entry looks at that entry's age alone. What else is too old goes when somebody wants all there is, and a
//! few places at a time with each write to the table: no record costs as much as its key has.

use crate::{
    batch::Time,
    key::{Data, OwnedKey},
};
use hashbrown::{HashTable, hash_table::Entry};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::VecDeque;

/// Places of a list or a map that are looked at in one go for what is too old.
const WITHIN: usize = 4;
/// Room that is kept, however little of it is used.
const ROOM: usize = 64;

/// What was used last at this time or earlier is too old; `None` where nothing ages.
#[derive(Clone, Copy)]
pub struct Old(pub(super) Option<Time>);

impl Old {
    pub(super) fn has(self, at: Time) -> bool {
        #[cfg(test)]
        super::cells_tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.0.is_some_and(|last| at <= last)
    }
}

/// What a table has for one key.
pub trait Cell: Data {
    /// Drops all that is too old. Answers whether something is left.
    fn prune(&mut self, old: Old) -> bool;
    /// Drops what is too old in a few places from this one on, which is 0 again behind the last. Answers whether something
    /// is left.
    fn sweep(&mut self, from: &mut usize, old: Old) -> bool;
    /// Is something there that is not too old?
    fn is_live(&self, old: Old) -> bool;
    /// Writes that and nothing else.
    fn write_live<S: Serializer>(&self, old: Old, to: S) -> Result<S::Ok, S::Error>;
}

/// A cell of a snapshot, without what is too old.
pub(super) struct Live<'a, C>(pub(super) &'a C, pub(super) Old);

impl<C: Cell> Serialize for Live<'_, C> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.write_live(self.1, to)
    }
}

/// A value, and when it was used last, where that matters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Aged<V> {
    pub(super) value: V,
    pub(super) at: Time,
}

impl<V: Data> Cell for Aged<V> {
    fn prune(&mut self, old: Old) -> bool {
        self.is_live(old)
    }
    fn sweep(&mut self, _: &mut usize, old: Old) -> bool {
        self.is_live(old)
    }
    fn is_live(&self, old: Old) -> bool {
        !old.has(self.at)
    }
    fn write_live<S: Serializer>(&self, _: Old, to: S) -> Result<S::Ok, S::Error> {
        self.serialize(to)
    }
}

/// A list's elements.
pub struct Elements<V> {
    all: VecDeque<Aged<V>>,
    /// Some are older than one before them: the clock was set back. Else what is too old is in front.
    mixed: bool,
    /// How many there are when mixed ones are looked through the next time.
    many: usize,
}

impl<V> Elements<V> {
    pub(super) fn of(all: VecDeque<Aged<V>>) -> Self {
        let mut elements = Self { all, mixed: false, many: 0 };
        elements.look_at_order();
        elements
    }

    fn look_at_order(&mut self) {
        self.mixed = !self.all.iter().is_sorted_by_key(|v| v.at);
        self.many = (2 * self.all.len()).max(ROOM);
    }

    pub(super) fn push(&mut self, value: Aged<V>, old: Old) {
        self.mixed |= self.all.back().is_some_and(|last| last.at > value.at);
        self.all.push_back(value);
        self.trim(WITHIN, old);
        if self.mixed && self.all.len() >= self.many {
            self.prune_mixed(old);
        }
    }

    /// Takes what is too old off the front, at most `n`. Answers whether there may be more.
    fn trim(&mut self, n: usize, old: Old) -> bool {
        for _ in 0..n {
            if !self.all.front().is_some_and(|v| old.has(v.at)) {
                return false;
            }
            self.all.pop_front();
        }
        true
    }

    fn prune_mixed(&mut self, old: Old) {
        self.all.retain(|v| !old.has(v.at));
        self.look_at_order();
    }

    fn shrink(&mut self) {
        if self.all.capacity() > ROOM.max(8 * self.all.len()) {
            self.all.shrink_to(2 * self.all.len());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn first(&self) -> Option<&Aged<V>> {
        self.all.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &V> {
        self.all.iter().map(|v| &v.value)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.all.retain(|v| keep(&v.value));
    }

    /// All are used now.
    pub(super) fn touch(&mut self, now: Time) {
        self.all.iter_mut().for_each(|v| v.at = now);
        self.mixed = false;
    }
}

impl<V: Serialize> Serialize for Elements<V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.all)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Elements<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self::of(VecDeque::deserialize(from)?))
    }
}

impl<V: Data> Cell for Elements<V> {
    fn prune(&mut self, old: Old) -> bool {
        if self.mixed {
            self.prune_mixed(old);
        } else {
            self.trim(usize::MAX, old);
        }
        self.shrink();
        !self.all.is_empty()
    }
    // Of mixed ones too the front alone: others go when all are looked through.
    fn sweep(&mut self, from: &mut usize, old: Old) -> bool {
        *from = usize::from(self.trim(WITHIN, old));
        if *from == 0 {
            self.shrink();
        }
        !self.all.is_empty()
    }
    fn is_live(&self, old: Old) -> bool {
        self.all.iter().any(|v| !old.has(v.at))
    }
    fn write_live<S: Serializer>(&self, old: Old, to: S) -> Result<S::Ok, S::Error> {
        let live: Vec<_> = self.all.iter().filter(|v| !old.has(v.at)).collect();
        live.serialize(to)
    }
}

/// A map's entries.
pub struct Entries<M, V> {
    all: HashTable<(M, Aged<V>)>,
    /// None was used last before.
    oldest: Time,
}

impl<M: OwnedKey, V> Entries<M, V> {
    pub(super) fn new() -> Self {
        Self { all: HashTable::new(), oldest: Time::MAX }
    }

    /// Sets an entry's value; answers the one before, unless it was too old.
    pub(super) fn insert(&mut self, key: M, value: Aged<V>, old: Old) -> Option<V> {
        self.oldest = self.oldest.min(value.at);
        match self.all.entry(key.stable_hash(), |e| e.0 == key, |e| e.0.stable_hash()) {
            Entry::Occupied(entry) => {
                let before = std::mem::replace(&mut entry.into_mut().1, value);
                (!old.has(before.at)).then_some(before.value)
            }
            Entry::Vacant(free) => {
                free.insert((key, value));
                None
            }
        }
    }

    /// The value of an entry, used now, made when there is none or it is too old.
    pub(super) fn or_insert_with(&mut self, key: M, now: Time, old: Old, make: impl FnOnce() -> V) -> &mut V {
        self.oldest = self.oldest.min(now);
        match self.all.entry(key.stable_hash(), |e| e.0 == key, |e| e.0.stable_hash()) {
            Entry::Occupied(entry) => {
                let found = &mut entry.into_mut().1;
                if old.has(found.at) {
                    found.value = make();
                }
                found.at = now;
                &mut found.value
            }
            Entry::Vacant(free) => &mut free.insert((key, Aged { value: make(), at: now })).into_mut().1.value,
        }
    }

    /// The value of an entry, used `now` where that is given. It is not looked at whether it is too old.
    pub(super) fn get(&mut self, key: &M, now: Option<Time>) -> Option<&mut V> {
        let found = &mut self.all.find_mut(key.stable_hash(), |e| e.0 == *key)?.1;
        if let Some(now) = now {
            // The clock may have been set back.
            self.oldest = self.oldest.min(now);
            found.at = now;
        }
        Some(&mut found.value)
    }

    /// Takes an entry out for which the function says so.
    pub(super) fn remove_if(&mut self, key: &M, gone: impl FnOnce(&Aged<V>) -> bool) -> Option<Aged<V>> {
        let found = self.all.find_entry(key.stable_hash(), |e| e.0 == *key).ok()?;
        gone(&found.get().1).then(|| found.remove().0.1)
    }

    /// Is one of the first few not too old?
    pub(super) fn is_one_live(&self, old: Old) -> bool {
        self.all.iter().take(4 * WITHIN).any(|e| !old.has(e.1.at))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&M, &V)> {
        self.all.iter().map(|e| (&e.0, &e.1.value))
    }

    /// All are used now.
    pub(super) fn touch(&mut self, now: Time) {
        self.all.iter_mut().for_each(|e| e.1.at = now);
        self.oldest = now;
    }

    fn shrink(&mut self) {
        if self.all.capacity() > ROOM.max(8 * self.all.len()) {
            self.all.shrink_to(2 * self.all.len(), |e| e.0.stable_hash());
        }
    }
}

impl<M: Serialize, V: Serialize> Serialize for Entries<M, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.all)
    }
}

impl<'de, M: OwnedKey, V: Deserialize<'de>> Deserialize<'de> for Entries<M, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut entries = Self::new();
        for (key, value) in Vec::<(M, Aged<V>)>::deserialize(from)? {
            entries.insert(key, value, Old(None));
        }
        Ok(entries)
    }
}

impl<M: OwnedKey, V: Data> Cell for Entries<M, V> {
    fn prune(&mut self, old: Old) -> bool {
        if old.has(self.oldest) {
            let mut oldest = Time::MAX;
            self.all.retain(|e| {
                let keep = !old.has(e.1.at);
                oldest = if keep { oldest.min(e.1.at) } else { oldest };
                keep
            });
            self.oldest = oldest;
            self.shrink();
        }
        !self.all.is_empty()
    }
    // Places are those of the table. When it grows meanwhile they may be others, which the next time round mends.
    fn sweep(&mut self, from: &mut usize, old: Old) -> bool {
        if *from == 0 && !old.has(self.oldest) {
            return !self.all.is_empty();
        }
        let to = *from + WITHIN;
        for place in *from..to {
            if let Ok(found) = self.all.get_bucket_entry(place)
                && old.has(found.get().1.at)
            {
                found.remove();
            }
        }
        *from = if to < self.all.num_buckets() { to } else { 0 };
        if *from == 0 {
            self.shrink();
        }
        !self.all.is_empty()
    }
    fn is_live(&self, old: Old) -> bool {
        self.all.iter().any(|e| !old.has(e.1.at))
    }
    fn write_live<S: Serializer>(&self, old: Old, to: S) -> Result<S::Ok, S::Error> {
        let live: Vec<_> = self.all.iter().filter(|e| !old.has(e.1.at)).collect();
        live.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_needed_once_is_given_back() {
        let aged = |value: u64| Aged { value, at: if value < 10 { 9 } else { 1 } };
        let old = Old(Some(5));
        fn sweep(cell: &mut impl Cell, old: Old) {
            let mut from = 0;
            while cell.sweep(&mut from, old) && from > 0 {}
        }
        for sweeps in [false, true] {
            // A list drops from its front what is too old.
            let mut list = Elements::of((0..20_000).rev().map(aged).collect());
            let mut map = Entries::new();
            assert!((0..20_000).all(|key| map.insert(key, aged(key), Old(None)).is_none()));
            if sweeps {
                sweep(&mut list, old);
                sweep(&mut map, old);
            } else {
                assert!(list.prune(old) && map.prune(old));
            }
            assert_eq!((list.len(), map.len()), (10, 10));
            assert!(list.all.capacity() <= ROOM.max(80), "{}", list.all.capacity());
            assert!(map.all.capacity() <= ROOM.max(80), "{}", map.all.capacity());
            assert!((0..10).all(|key| map.get(&key, None) == Some(&mut key.clone())));
        }
    }
}
