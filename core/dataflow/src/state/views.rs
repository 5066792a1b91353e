//! What a function sees of its named states: those of the key at hand.

use super::{
    RowTable,
    cells::{Aged, Cell, Elements, Entries, Old},
    named::StateTable,
};
use crate::{
    batch::Time,
    fold::AggregateFunction,
    key::{Data, OwnedKey},
};
use std::{cell::RefCell, collections::VecDeque};

/// A place in a state's table.
pub struct StateAt<'a, K, C> {
    pub(super) table: &'a mut StateTable<K, C>,
    pub(super) hash: u64,
    pub(super) key: &'a K,
    /// ms since 1970 UTC, where the state ages.
    pub(super) now: Time,
}

impl<K: OwnedKey, C: Cell> StateAt<'_, K, C> {
    fn old(&self) -> Old {
        self.table.old(self.now)
    }

    /// What is there, whatever its age.
    fn row(&mut self) -> Option<&mut C> {
        self.table.rows.get_mut(self.hash, self.key)
    }

    /// What is there and not too old.
    fn get(&mut self) -> Option<&mut C> {
        let old = self.old();
        if old.0.is_some() && !self.row()?.prune(old) {
            self.clear();
            return None;
        }
        self.row()
    }

    /// Merges the item into what is there, whatever its age, or makes something of it.
    fn put<T>(&mut self, item: T, merge: impl FnOnce(&mut C, T), make: impl FnOnce(T) -> C) -> &mut C {
        self.table.sweep(self.now);
        let key = self.key;
        let same = |_: &T, k: &K| k == key;
        let make = |(): &mut (), item| (key.clone(), make(item));
        &mut self.table.rows.upsert(self.hash, item, &mut (), same, |(), cell, item| merge(cell, item), make).1
    }

    fn clear(&mut self) {
        self.table.rows.remove(self.hash, self.key);
    }

    /// Now, if reading counts as using.
    fn read(&self) -> Option<Time> {
        self.table.ttl.is_some_and(|ttl| ttl.on_read).then_some(self.now)
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
        &mut self.at.add((), |cell, ()| cell.at = at, |()| Aged { value: make(), at }).value
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
        let read = self.read();
        let cell = self.get()?;
        cell.at = read.unwrap_or(cell.at);
        Some(&cell.value)
    }

    /// Merges the item into what is there and not too old, or makes something of it.
    fn add<T>(
        &mut self,
        item: T,
        merge: impl FnOnce(&mut Aged<V>, T),
        make: impl FnOnce(T) -> Aged<V>,
    ) -> &mut Aged<V> {
        if self.old().0.is_some() {
            self.get();
        }
        self.put(item, merge, make)
    }
}

/// The list of the key.
pub struct ListView<'a, K, V> {
    pub(super) at: StateAt<'a, K, Elements<V>>,
}

impl<K: OwnedKey, V: Data> ListView<'_, K, V> {
    /// All elements, in the order in which they were added.
    pub fn iter(&mut self) -> impl Iterator<Item = &V> {
        let read = self.at.read();
        let mut all = self.at.get();
        if let (Some(all), Some(now)) = (&mut all, read) {
            all.touch(now);
        }
        all.into_iter().flat_map(|all| all.iter())
    }

    /// Number of elements.
    pub fn len(&mut self) -> usize {
        self.at.get().map_or(0, |all| all.len())
    }

    /// Is there none?
    pub fn is_empty(&mut self) -> bool {
        let old = self.at.old();
        let Some(all) = self.at.row() else { return true };
        all.first().is_none_or(|first| old.has(first.at)) && self.at.get().is_none()
    }

    /// Adds one.
    pub fn add(&mut self, value: V) {
        let (at, old) = (self.at.now, self.at.old());
        let value = Aged { value, at };
        self.at.put(value, |all, value| all.push(value, old), |value| Elements::of([value].into()));
    }

    /// Puts these in the place of all.
    pub fn set(&mut self, values: impl IntoIterator<Item = V>) {
        let at = self.at.now;
        let values: VecDeque<_> = values.into_iter().map(|value| Aged { value, at }).collect();
        if values.is_empty() {
            return self.clear();
        }
        self.at.put(values, |all, values| *all = Elements::of(values), Elements::of);
    }

    /// Keeps those for which the function says yes.
    pub fn retain(&mut self, keep: impl FnMut(&V) -> bool) {
        let Some(all) = self.at.get() else { return };
        all.retain(keep);
        if all.len() == 0 {
            self.clear();
        }
    }

    /// There is no element any more.
    pub fn clear(&mut self) {
        self.at.clear();
    }
}

/// The map of the key.
pub struct MapView<'a, K, M, V> {
    pub(super) at: StateAt<'a, K, Entries<M, V>>,
}

impl<K: OwnedKey, M: OwnedKey, V: Data> MapView<'_, K, M, V> {
    /// The value of an entry that is not too old, used now if it is to be.
    fn entry(&mut self, key: &M, used: Option<Time>) -> Option<&mut V> {
        let old = self.at.old();
        if old.0.is_some() {
            self.take(key, |entry| old.has(entry.at));
        }
        self.at.row()?.get(key, used)
    }

    /// Takes an entry out for which the function says so.
    fn take(&mut self, key: &M, gone: impl FnOnce(&Aged<V>) -> bool) -> Option<Aged<V>> {
        let all = self.at.row()?;
        let entry = all.remove_if(key, gone)?;
        if all.len() == 0 {
            self.clear();
        }
        Some(entry)
    }

    fn all(&mut self) -> &mut Entries<M, V> {
        self.at.put((), |_, ()| (), |()| Entries::new())
    }

    /// The value of an entry.
    pub fn get(&mut self, key: &M) -> Option<&V> {
        let read = self.at.read();
        self.entry(key, read).map(|value| &*value)
    }

    /// The value of an entry, to be changed; that counts as writing it.
    pub fn get_mut(&mut self, key: &M) -> Option<&mut V> {
        self.entry(key, Some(self.at.now))
    }

    /// The value of an entry, made when there is none, to be changed.
    pub fn or_insert_with(&mut self, key: M, make: impl FnOnce() -> V) -> &mut V {
        let (now, old) = (self.at.now, self.at.old());
        self.all().or_insert_with(key, now, old, make)
    }

    /// Sets an entry's value; answers the one before.
    pub fn insert(&mut self, key: M, value: V) -> Option<V> {
        let (at, old) = (self.at.now, self.at.old());
        self.all().insert(key, Aged { value, at }, old)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &M) -> Option<V> {
        let old = self.at.old();
        let entry = self.take(key, |_| true)?;
        (!old.has(entry.at)).then_some(entry.value)
    }

    /// Is there such an entry?
    pub fn contains_key(&mut self, key: &M) -> bool {
        self.get(key).is_some()
    }

    /// All entries, in no order.
    pub fn iter(&mut self) -> impl Iterator<Item = (&M, &V)> {
        let read = self.at.read();
        let mut all = self.at.get();
        if let (Some(all), Some(now)) = (&mut all, read) {
            all.touch(now);
        }
        all.into_iter().flat_map(|all| all.iter())
    }

    /// Number of entries. With a time to live all of them may be looked at.
    pub fn len(&mut self) -> usize {
        self.at.get().map_or(0, |all| all.len())
    }

    /// Is there none?
    pub fn is_empty(&mut self) -> bool {
        let old = self.at.old();
        let Some(all) = self.at.row() else { return true };
        // Where none of the first few lives most are too old, and it is time to drop them.
        !all.is_one_live(old) && self.at.get().is_none()
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
        self.at.add(value, into, |value| Aged { value, at });
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
        self.at.add(item, into, |item| {
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
