//! What a function sees of its named states: those of the key at hand.

use super::{
    RowTable,
    named::{Aged, Cell, StateTable},
};
use crate::{
    batch::Time,
    fold::AggregateFunction,
    key::{Data, OwnedKey},
};
use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;

/// Places that are looked at for what is too old, with each write.
const SWEPT: usize = 4;

/// A place in a state's table.
pub struct StateAt<'a, K, C> {
    pub(super) table: &'a mut StateTable<K, C>,
    pub(super) hash: u64,
    pub(super) key: &'a K,
    /// ms since 1970 UTC, where the state ages.
    pub(super) now: Time,
}

impl<K: OwnedKey, C: Cell> StateAt<'_, K, C> {
    /// What is there and not too old.
    fn get(&mut self) -> Option<&mut C> {
        if let Some(ttl) = self.table.ttl {
            let now = self.now;
            let cell = self.table.rows.get_mut(self.hash, self.key)?;
            if !cell.prune(&|at| ttl.is_over(at, now)) {
                self.table.rows.remove(self.hash, self.key);
                return None;
            }
        }
        self.table.rows.get_mut(self.hash, self.key)
    }

    /// Merges the item into what is there and not too old, or makes something of it.
    fn put<T>(&mut self, item: T, merge: impl FnOnce(&mut C, T), make: impl FnOnce(T) -> C) -> &mut C {
        if let Some(ttl) = self.table.ttl {
            let (now, place) = (self.now, self.table.place);
            self.table.place = self.table.rows.prune(place, SWEPT, |cell| cell.prune(&|at| ttl.is_over(at, now)));
            self.get();
        }
        let key = self.key;
        let same = |_: &T, k: &K| k == key;
        let make = |(): &mut (), item| (key.clone(), make(item));
        &mut self.table.rows.upsert(self.hash, item, &mut (), same, |(), cell, item| merge(cell, item), make).1
    }

    fn clear(&mut self) {
        self.table.rows.remove(self.hash, self.key);
    }

    /// Does reading count as using?
    fn reads(&self) -> bool {
        self.table.ttl.is_some_and(|ttl| ttl.on_read)
    }
}

/// The value of the key.
pub struct ValueView<'a, K, V> {
    pub(super) at: StateAt<'a, K, Aged<V>>,
}

impl<K: OwnedKey, V: Data> ValueView<'_, K, V> {
    /// The value, if there is one.
    pub fn get(&mut self) -> Option<&V> {
        self.at.value()
    }

    /// The value, if there is one, to be changed; that counts as writing it.
    pub fn get_mut(&mut self) -> Option<&mut V> {
        let now = self.at.now;
        let cell = self.at.get()?;
        cell.at = now;
        Some(&mut cell.value)
    }

    /// The value, made when there is none, to be changed.
    pub fn or_insert_with(&mut self, make: impl FnOnce() -> V) -> &mut V {
        let at = self.at.now;
        &mut self.at.put((), |cell, ()| cell.at = at, |()| Aged { value: make(), at }).value
    }

    /// The value, which begins as its default, to be changed.
    pub fn or_default(&mut self) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }

    /// Sets the value.
    pub fn set(&mut self, value: V) {
        let at = self.at.now;
        self.at.put(value, |cell, value| *cell = Aged { value, at }, |value| Aged { value, at });
    }

    /// There is no value any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}

impl<K: OwnedKey, V: Data> StateAt<'_, K, Aged<V>> {
    fn value(&mut self) -> Option<&V> {
        let read = self.reads().then_some(self.now);
        let cell = self.get()?;
        cell.at = read.unwrap_or(cell.at);
        Some(&cell.value)
    }
}

/// The list of the key.
pub struct ListView<'a, K, V> {
    pub(super) at: StateAt<'a, K, Vec<Aged<V>>>,
}

impl<K: OwnedKey, V: Data> ListView<'_, K, V> {
    /// All elements, in the order in which they were added.
    pub fn iter(&mut self) -> impl Iterator<Item = &V> {
        let read = self.at.reads().then_some(self.at.now);
        let all = self.at.get().map_or(&mut [][..], |all| &mut all[..]);
        if let Some(now) = read {
            all.iter_mut().for_each(|v| v.at = now);
        }
        all.iter().map(|v| &v.value)
    }

    /// Number of elements.
    pub fn len(&mut self) -> usize {
        self.at.get().map_or(0, |all| all.len())
    }

    /// Is there none?
    pub fn is_empty(&mut self) -> bool {
        self.at.get().is_none()
    }

    /// Adds one.
    pub fn add(&mut self, value: V) {
        let at = self.at.now;
        let value = Aged { value, at };
        self.at.put(value, Vec::push, |value| vec![value]);
    }

    /// Puts these in the place of all.
    pub fn set(&mut self, values: impl IntoIterator<Item = V>) {
        let at = self.at.now;
        let values: Vec<_> = values.into_iter().map(|value| Aged { value, at }).collect();
        if values.is_empty() {
            return self.clear();
        }
        self.at.put(values, |all, values| *all = values, |values| values);
    }

    /// Keeps those for which the function says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        let Some(all) = self.at.get() else { return };
        all.retain(|v| keep(&v.value));
        if all.is_empty() {
            self.clear();
        }
    }

    /// There is no element any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}

/// A map's entries.
pub struct Entries<M, V>(HashTable<(M, Aged<V>)>);

impl<M: OwnedKey, V> Entries<M, V> {
    fn insert(&mut self, key: M, value: Aged<V>) -> Option<V> {
        use hashbrown::hash_table::Entry;
        match self.0.entry(key.stable_hash(), |e| e.0 == key, |e| e.0.stable_hash()) {
            Entry::Occupied(entry) => Some(std::mem::replace(&mut entry.into_mut().1, value).value),
            Entry::Vacant(free) => {
                free.insert((key, value));
                None
            }
        }
    }
}

impl<M: Serialize, V: Serialize> Serialize for Entries<M, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.0)
    }
}

impl<'de, M: OwnedKey, V: Deserialize<'de>> Deserialize<'de> for Entries<M, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut entries = Self(HashTable::new());
        for (key, value) in Vec::<(M, Aged<V>)>::deserialize(from)? {
            entries.insert(key, value);
        }
        Ok(entries)
    }
}

impl<M: OwnedKey, V: Data> Cell for Entries<M, V> {
    fn prune(&mut self, over: &dyn Fn(Time) -> bool) -> bool {
        self.0.retain(|e| !over(e.1.at));
        !self.0.is_empty()
    }
}

/// The map of the key.
pub struct MapView<'a, K, M, V> {
    pub(super) at: StateAt<'a, K, Entries<M, V>>,
}

impl<K: OwnedKey, M: OwnedKey, V: Data> MapView<'_, K, M, V> {
    /// The value of an entry.
    pub fn get(&mut self, key: &M) -> Option<&V> {
        let read = self.at.reads().then_some(self.at.now);
        let entry = self.at.get()?.0.find_mut(key.stable_hash(), |e| e.0 == *key)?;
        entry.1.at = read.unwrap_or(entry.1.at);
        Some(&entry.1.value)
    }

    /// The value of an entry, to be changed; that counts as writing it.
    pub fn get_mut(&mut self, key: &M) -> Option<&mut V> {
        let now = self.at.now;
        let entry = self.at.get()?.0.find_mut(key.stable_hash(), |e| e.0 == *key)?;
        entry.1.at = now;
        Some(&mut entry.1.value)
    }

    /// The value of an entry, made when there is none, to be changed.
    pub fn or_insert_with(&mut self, key: M, make: impl FnOnce() -> V) -> &mut V {
        let at = self.at.now;
        let hash = key.stable_hash();
        let all = self.at.put((), |_, ()| (), |()| Entries(HashTable::new()));
        let entry = all.0.entry(hash, |e| e.0 == key, |e| e.0.stable_hash());
        let entry = entry.or_insert_with(|| (key.clone(), Aged { value: make(), at })).into_mut();
        entry.1.at = at;
        &mut entry.1.value
    }

    /// Sets an entry's value; answers the one before.
    pub fn insert(&mut self, key: M, value: V) -> Option<V> {
        let at = self.at.now;
        self.at.put((), |_, ()| (), |()| Entries(HashTable::new())).insert(key, Aged { value, at })
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &M) -> Option<V> {
        let all = self.at.get()?;
        let (entry, _) = all.0.find_entry(key.stable_hash(), |e| e.0 == *key).ok()?.remove();
        if all.0.is_empty() {
            self.clear();
        }
        Some(entry.1.value)
    }

    /// Is there such an entry?
    pub fn contains_key(&mut self, key: &M) -> bool {
        self.get(key).is_some()
    }

    /// All entries, in no order.
    pub fn iter(&mut self) -> impl Iterator<Item = (&M, &V)> {
        let read = self.at.reads().then_some(self.at.now);
        let mut all = self.at.get();
        if let (Some(all), Some(now)) = (&mut all, read) {
            all.0.iter_mut().for_each(|e| e.1.at = now);
        }
        all.into_iter().flat_map(|all| all.0.iter()).map(|e| (&e.0, &e.1.value))
    }

    /// Number of entries.
    pub fn len(&mut self) -> usize {
        self.at.get().map_or(0, |all| all.0.len())
    }

    /// Is there none?
    pub fn is_empty(&mut self) -> bool {
        self.at.get().is_none()
    }

    /// There is no entry any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}

/// The value of the key, and the function that merges others into it.
pub struct ReducingView<'a, K, V> {
    pub(super) at: StateAt<'a, K, Aged<V>>,
    pub(super) merge: &'a fn(&mut V, V),
}

impl<K: OwnedKey, V: Data> ReducingView<'_, K, V> {
    /// The value, if there is one.
    pub fn get(&mut self) -> Option<&V> {
        self.at.value()
    }

    /// Merges another value into it.
    pub fn add(&mut self, value: V) {
        let (at, merge) = (self.at.now, self.merge);
        let into = |cell: &mut Aged<V>, value| {
            merge(&mut cell.value, value);
            cell.at = at;
        };
        self.at.put(value, into, |value| Aged { value, at });
    }

    /// There is no value any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}

/// What the key's function has gathered.
pub struct AggregatingView<'a, K, A: AggregateFunction<T>, T> {
    pub(super) at: StateAt<'a, K, Aged<A::Acc>>,
    pub(super) function: &'a RefCell<A>,
}

impl<K: OwnedKey, T: 'static, A: AggregateFunction<T>> AggregatingView<'_, K, A, T> {
    /// The result so far, if anything was added.
    pub fn get(&mut self) -> Option<A::Out> {
        let acc = self.at.value()?.clone();
        Some(self.function.borrow_mut().result(acc))
    }

    /// Adds a record.
    pub fn add(&mut self, item: T) {
        let at = self.at.now;
        let function = self.function;
        let add = |acc: &mut A::Acc, item| function.borrow_mut().add(acc, item);
        let into = |cell: &mut Aged<A::Acc>, item| {
            add(&mut cell.value, item);
            cell.at = at;
        };
        self.at.put(item, into, |item| {
            let mut value = function.borrow().create();
            add(&mut value, item);
            Aged { value, at }
        });
    }

    /// There is nothing any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}
