//! No cycle of full buffers stops a job: exchanges with the least memory that there may be, between slots of one
//! process and between hosts by way of the network; bursts, records of 1 MiB, a stream that parts and comes together
//! again, all to all twice, and a slow end. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.

use crate::hosts::{in_turn, on_hosts, on_one, plan_of, run};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_dataflow::{Plan, testing::TestRuntime};
use thalweg_shuffle_network::Compression;
use thalweg_testkit::Place;

type Record = (u64, String);

/// What one number of the source becomes: mostly little, at times very many, or one that is 1 MiB long.
fn burst(seed: u64, i: u64) -> Vec<Record> {
    let mut random = SmallRng::seed_from_u64(seed ^ (i << 20));
    let many = match random.random_range(0..60) {
        0 => return vec![(i, "m".repeat(1 << 20))],
        1..4 => 2000,
        _ => random.random_range(0..4),
    };
    (0..many).map(|_| (random.random_range(0..1000), "s".repeat(random.random_range(0..60)))).collect()
}

/// A second burst, behind the first exchange.
fn again(record: Record) -> Vec<Record> {
    let more = if record.0.is_multiple_of(97) && record.1.len() < 60 { 300 } else { 0 };
    let copies = (0..more).map(|n| (record.0 + n, record.1.clone())).collect::<Vec<_>>();
    std::iter::once(record).chain(copies).collect()
}

fn weight(record: &Record) -> u64 {
    record.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(record.1.len() as u64)
}

/// Count and sum of what arrives.
#[derive(Default)]
struct Seen(AtomicU64, AtomicU64);

/// The job, and what must arrive.
fn job(seed: u64, parallelism: u32, numbers: u64) -> (Arc<Plan>, Arc<Seen>, (u64, u64)) {
    let seen = Arc::new(Seen::default());
    let sink = seen.clone();
    let plan = plan_of(parallelism, |env| {
        let [left, right] = env
            .sequence(0..numbers)
            .flat_map(move |i| burst(seed, i))
            .key_by(|r: &Record| r.0)
            .stateful_map(|n: &mut u64, r: Record| {
                *n += 1;
                r
            })
            .flat_map(again)
            .split();
        let (left, right) =
            (left.rebalance(), right.key_by(|r: &Record| r.0 % 5).stateful_map(|_: &mut u64, r: Record| r));
        left.union(right).key_by(|r: &Record| r.0 % 7).stateful_map(|_: &mut u64, r: Record| r).for_each(move |r| {
            sink.1.fetch_add(weight(&r), Ordering::Relaxed);
            if sink.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(2003) {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    });
    let (mut count, mut sum) = (0, 0u64);
    for record in (0..numbers).flat_map(|i| burst(seed, i)).flat_map(again) {
        count += 2;
        sum = sum.wrapping_add(weight(&record).wrapping_mul(2));
    }
    (plan, seen, (count, sum))
}

/// Runs the cases that are asked for, each with its seed.
pub(crate) fn cases(default: u64, case: impl Fn(u64, &mut SmallRng)) {
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().map_or(default, |n| n.parse().unwrap());
    for seed in seed.map_or(0..n, |seed| seed..seed + 1) {
        let run = || case(seed, &mut SmallRng::seed_from_u64(seed));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok(), "THALWEG_SEED={seed}");
    }
}

#[test]
fn between_the_slots_of_a_process_no_cycle_of_full_rings_stops_a_job() {
    let runtime = TestRuntime::new().unwrap();
    cases(6, |seed, random| {
        let (plan, seen, expected) = job(seed, random.random_range(1..6), 200);
        assert_eq!(run(&plan, in_turn, on_one(), &runtime), Ok(()));
        assert_eq!((seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed)), expected);
    });
}

#[test]
fn between_hosts_no_cycle_of_spent_credit_stops_a_job() {
    let runtime = TestRuntime::new().unwrap();
    let place = Place::new();
    cases(6, |seed, random| {
        let (parallelism, hosts) = (random.random_range(2..6), random.random_range(2..4));
        let (plan, seen, expected) = job(seed, parallelism, 120);
        let compression = if random.random() { Compression::Lz4 } else { Compression::None };
        assert_eq!(run(&plan, in_turn, on_hosts(hosts, compression, &place, &runtime), &runtime), Ok(()));
        assert_eq!((seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed)), expected);
    });
}
