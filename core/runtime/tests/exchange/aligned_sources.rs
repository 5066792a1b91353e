//! Sources of one alignment group whose coordinators are on different hosts: the fast one stays near the slow one, and
//! all end. The exchange has the least memory that there may be. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n`
//! replays one.

use crate::{
    full_buffers::cases,
    hosts::{on_hosts, plan_of, run, scattered},
};
use rand::Rng;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_api::prelude::{Sequence, TumblingEventTimeWindows, WatermarkStrategy};
use thalweg_dataflow::{Plan, testing::TestRuntime};
use thalweg_shuffle_network::Compression;
use thalweg_testkit::Place;

/// Numbers of a fast source and of a slow one, which are their times too.
const FAST: u64 = 40_000;
const SLOW: u64 = 1_000;
const DRIFT: u64 = 100;

/// How far the slow one has come, and how far ahead of it the fast one was.
#[derive(Default)]
struct Lead {
    slow: AtomicU64,
    /// The furthest that the fast one was ahead while the slow one went on. Where they wait for each other, from the
    /// middle on: the slow one's first word takes its time, and until then nobody waits.
    furthest: AtomicU64,
    counted: AtomicU64,
}

/// Windows of two sources, one of which is much faster; perhaps they wait for each other.
fn apart(parallelism: u32, aligned: bool) -> (Arc<Plan>, Arc<Lead>) {
    let lead = Arc::new(Lead::default());
    let strategy = || {
        let plain = WatermarkStrategy::for_monotonous_timestamps();
        let (drift, every) = (Duration::from_millis(DRIFT), Duration::from_millis(2));
        if aligned { plain.with_alignment("both", drift, every) } else { plain }
    };
    let (fast, slow, seen) = (lead.clone(), lead.clone(), lead.clone());
    let plan = plan_of(parallelism, |env| {
        let numbers = env.source(Sequence::new(0..FAST).interleaved());
        let left = numbers.assign_timestamps_and_watermarks(|n| *n as i64, strategy()).inspect(move |n| {
            let slow = fast.slow.load(Ordering::Relaxed);
            if slow < SLOW - 1 && (slow > SLOW / 2 || !aligned) {
                fast.furthest.fetch_max(n.saturating_sub(slow), Ordering::Relaxed);
            }
        });
        let numbers = env.source(Sequence::new(0..SLOW).rate(2000.0));
        let right = numbers.assign_timestamps_and_watermarks(|n| *n as i64, strategy()).inspect(move |n| {
            slow.slow.fetch_max(*n, Ordering::Relaxed);
        });
        let windows = TumblingEventTimeWindows::of(Duration::from_millis(50));
        left.rebalance().union(right).key_by(|n| n % 7).window(windows).count().for_each(move |w| {
            seen.counted.fetch_add(w.value, Ordering::Relaxed);
        });
    });
    (plan, lead)
}

#[test]
fn between_hosts_sources_of_one_group_wait_for_each_other_and_end() {
    let runtime = TestRuntime::new().unwrap();
    let place = Place::new();
    cases(4, |_, random| {
        let (parallelism, hosts) = (random.random_range(1..4), random.random_range(2..4));
        for aligned in [true, false] {
            let (plan, lead) = apart(parallelism, aligned);
            let shuffles = on_hosts(hosts, Compression::None, &place, &runtime);
            assert_eq!(run(&plan, scattered, shuffles, &runtime), Ok(()));
            assert_eq!(lead.counted.load(Ordering::Relaxed), FAST + SLOW, "something was late, or lost");
            let ahead = lead.furthest.load(Ordering::Relaxed);
            // Readers look at intervals, and after a few hundred records of each.
            assert_eq!(ahead < FAST / 8, aligned, "{ahead} ms ahead");
        }
    });
}
