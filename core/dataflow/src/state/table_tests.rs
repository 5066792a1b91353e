//! The table against the standard library's map: random changes and walks, keys that share their hash, panics half-way.

use super::table::{Place, Table, allocated};
use crate::key::hash_word;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

type Entry = (u64, Rc<u64>);

fn add(table: &mut Table<Entry>, hash: impl Fn(u64) -> u64, key: u64, value: &Rc<u64>) {
    let item = (key, Rc::clone(value));
    let row = table.upsert(hash(key), item, &mut (), |i, e| i.0 == e.0, |(), e, i| *e = i, |(), i| i, |e| hash(e.0));
    assert_eq!((row.0, &row.1), (key, value));
}

/// An interpreter (`cargo +nightly miri test -p thalweg-dataflow --lib state::table`) takes some hundred times as long.
const PART: u64 = if cfg!(miri) { 50 } else { 1 };

fn agrees(hash: impl Fn(u64) -> u64 + Copy, keys: u64, steps: u64, seed: u64) {
    let steps = steps / PART;
    for capacity in [0, 1, 100, 5_000] {
        agrees_from(Table::with_capacity(capacity), hash, keys, steps, seed + 100 * capacity as u64);
    }
}

fn agrees_from(mut table: Table<Entry>, hash: impl Fn(u64) -> u64 + Copy, keys: u64, steps: u64, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut model = BTreeMap::new();
    let token = Rc::new(7);
    for step in 0..steps {
        let key = random.random_range(0..keys);
        let value = Rc::new(step);
        match random.random_range(0..10) {
            0..=5 => {
                add(&mut table, hash, key, &value);
                model.insert(key, value);
            }
            6 => {
                let got = table.remove(hash(key), |e| e.0 == key);
                assert_eq!(got.map(|e| e.1), model.remove(&key), "seed {seed}");
            }
            7 => {
                if let Some(e) = table.get_mut(hash(key), |e| e.0 == key) {
                    e.1 = Rc::clone(&token);
                    model.insert(key, Rc::clone(&token));
                }
            }
            8 => table.near(&[hash(key), hash(key / 2)]),
            _ => assert_eq!(table.get(hash(key), |e| e.0 == key).map(|e| &e.1), model.get(&key), "seed {seed}"),
        }
        assert_eq!(table.len(), model.len());
        if step % 997 == 0 {
            let walked: BTreeMap<_, _> = table.iter().map(|e| (e.0, Rc::clone(&e.1))).collect();
            assert_eq!(walked, model, "seed {seed}");
        }
    }
    let mut places = Vec::new();
    let mut place = Place::default();
    while let Some((e, next)) = table.at_or_after(place) {
        assert!(next > place);
        places.push(e.0);
        place = next;
    }
    assert_eq!(places.len(), model.len(), "each entry once");
    let half = model.len() / 2;
    let mut all = table.into_iter();
    assert_eq!(all.len(), model.len());
    let taken: Vec<Entry> = all.by_ref().take(half).collect();
    assert!(taken.iter().all(|e| model.get(&e.0) == Some(&e.1)));
    drop((taken, all, model));
    assert_eq!(Rc::strong_count(&token), 1, "all were dropped once");
}

#[test]
fn a_table_is_what_a_map_is() {
    for (keys, steps, seed) in [(10, 3_000, 1), (1_000, 10_000, 2), (20_000, 40_000, 3)] {
        agrees(hash_word, keys, steps, seed);
    }
}

#[test]
fn a_walk_over_what_was_a_large_table_goes_by_short_ways() {
    let (mut table, token, keys) = (Table::<Entry>::new(), Rc::new(0), 100_000 / PART);
    (0..keys).for_each(|key| add(&mut table, hash_word, key, &token));
    (0..keys - 3).for_each(|key| drop(table.remove(hash_word(key), |e| e.0 == key)));
    let (mut found, mut ways, mut place) = (Vec::new(), 0, Place::default());
    loop {
        let (entry, next) = table.near_mut(place);
        found.extend(entry.map(|e| e.0));
        ways += 1;
        if next == Place::default() {
            break;
        }
        assert!(next > place);
        place = next;
    }
    found.sort_unstable();
    assert_eq!(found, [keys - 3, keys - 2, keys - 1]);
    // Of 14 entries a chunk, 9 chunks a way.
    assert!(ways > keys / 14 / 9, "{ways} ways");
}

#[test]
fn keys_whose_hashes_are_alike_are_slow_and_right() {
    agrees(|_| 0x1234_5678_9abc_def0, 600, 3_000, 4);
    agrees(|key| key << 57, 300, 3_000, 5);
    agrees(|key| hash_word(key) & !0xffff_ffff_ff00_0000 | 77 << 40, 1_000, 5_000, 6);
}

#[test]
fn entries_of_any_size_and_alignment_fit() {
    #[repr(align(128))]
    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Wide(u64);
    let mut table = Table::new();
    for i in 0..5_000 {
        table.insert(hash_word(i), Wide(i), |w| hash_word(w.0));
    }
    assert!((0..5_000).all(|i| table.get(hash_word(i), |w| w.0 == i) == Some(&Wide(i))));
    let mut units = Table::<()>::new();
    units.insert(3, (), |()| 3);
    assert_eq!((units.len(), units.get(3, |()| true).is_some(), units.remove(3, |()| true)), (1, true, Some(())));
    let mut large = Table::<[u8; 40_000]>::new();
    for i in 0..40 {
        large.insert(hash_word(i), [i as u8; 40_000], |e| hash_word(u64::from(e[0])));
    }
    assert!((0..40).all(|i| large.get(hash_word(i), |e| u64::from(e[0]) == i).is_some()));
}

#[test]
fn a_hash_that_panics_while_the_table_grows_loses_nothing() {
    let mut table = Table::<Entry>::new();
    let token = Rc::new(1);
    let mut failed = 0;
    for i in 0..4_000_u64 {
        let calls = std::cell::Cell::new(0);
        let hash_of = |e: &Entry| {
            calls.set(calls.get() + 1);
            assert!(calls.get() != 9 || i % 2 == 0, "on purpose");
            hash_word(e.0)
        };
        let insert = AssertUnwindSafe(|| table.insert(hash_word(i), (i, Rc::clone(&token)), hash_of).0);
        failed += u64::from(catch_unwind(insert).is_err());
    }
    assert!(failed > 0);
    assert_eq!(table.len() as u64, 4_000 - failed);
    assert_eq!(table.iter().count(), table.len());
    drop(table);
    assert_eq!(Rc::strong_count(&token), 1);
}

#[test]
fn what_tables_take_is_counted_and_given_back() {
    // Other tests have tables too, at the same time: what this one takes is far more than they do.
    let before = allocated();
    let mut table = Table::new();
    let rows = 1_000_000 / PART;
    for i in 0..rows {
        let hash = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        table.upsert(
            hash,
            i,
            &mut (),
            |i, e: &(u64, u64)| e.0 == *i,
            |(), _, _| (),
            |(), i| (i, i),
            |e| e.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
    }
    let full = allocated();
    let bytes = 16 * rows as usize;
    assert!((bytes / 2..6 * bytes).contains(&full.saturating_sub(before)), "{before} {full}");
    drop(table);
    let after = allocated();
    assert!(after < before + bytes / 2, "{before} {full} {after}");
}
