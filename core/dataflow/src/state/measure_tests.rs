//! What the segmented table costs beside a flat one: a measurement, run by hand, which asserts nothing about time.
//! `cargo test --release -p thalweg-dataflow --lib state::measure -- --ignored --nocapture`; its figures are in
//! `docs/decisions/0011-segmented-tables.md`.

#![allow(clippy::disallowed_methods, reason = "what is measured is the machine's time")]

use super::{Flat, RowTable, Rows, TILE};
use crate::key::Key;
use std::time::{Duration, Instant};

const BATCH: usize = 4096;
const ROUNDS: usize = 5;

fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn add(table: &mut impl RowTable<u64, u64>, key: u64) {
    let same = |item: &(u64, u64), key: &u64| item.0 == *key;
    table.upsert(key.stable_hash(), (key, 1), &mut (), same, |(), sum, item| *sum += item.1, |(), item| item);
}

/// All records, and the longest batch of them.
struct Took {
    all: Duration,
    longest: Duration,
}

/// Running sums of `records` keys of `keys`, in batches. `near` is told of a tile before its records.
fn run<R: RowTable<u64, u64>>(keys: u64, records: u64, near: impl Fn(&R, &[u64])) -> Took {
    let mut table = R::new();
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for first in (0..records).step_by(BATCH) {
        let batch = Instant::now();
        for tile in (first..(first + BATCH as u64).min(records)).step_by(TILE) {
            let mut all = [0; TILE];
            all.iter_mut().zip(tile..).for_each(|(key, i)| *key = mixed(i) % keys);
            let hashes = all.map(|key| key.stable_hash());
            near(&table, &hashes);
            all.iter().for_each(|key| add(&mut table, *key));
        }
        longest = longest.max(batch.elapsed());
    }
    assert!(table.len() as u64 <= keys && table.iter().map(|row| row.1).sum::<u64>() >= records);
    Took { all: began.elapsed(), longest }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
#[ignore = "a measurement: it takes a minute and means something on an idle machine alone"]
fn rows_beside_a_flat_table() {
    println!("{:>10} {:>22} {:>22} {:>22}", "keys", "flat ns, ms", "segments ns, ms", "with tiles ns, ms");
    for (keys, records) in
        [(1_000, 20_000_000), (100_000, 20_000_000), (1_000_000, 20_000_000), (10_000_000, 40_000_000)]
    {
        let mut took = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            took[0].push(run::<Flat<u64, u64>>(keys, records, |_, _| ()));
            took[1].push(run::<Rows<u64, u64>>(keys, records, |_, _| ()));
            took[2].push(run::<Rows<u64, u64>>(keys, records, |table, hashes| table.near(hashes)));
        }
        let cell = |took: &Vec<Took>| {
            let ns = median(took.iter().map(|t| t.all).collect()).as_nanos() as f64 / records as f64;
            let longest = median(took.iter().map(|t| t.longest).collect()).as_secs_f64() * 1e3;
            format!("{ns:.1}, {longest:.2}")
        };
        println!("{keys:>10} {:>22} {:>22} {:>22}", cell(&took[0]), cell(&took[1]), cell(&took[2]));
    }
}
