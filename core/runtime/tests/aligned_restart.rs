//! Sources of one alignment group on a cluster that fails: after a restart too they wait for each other, and the answer
//! is whole.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_api::{JobError, prelude::*};
use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_runtime::testing::InProcessCluster;
use thalweg_shuffle_local as _;
use thalweg_shuffle_network as _;

/// Numbers of a fast source and of a slow one, which are their times in ms too. By itself the fast one would have given its
/// own in half a second, and the slow one in a whole.
const FAST: u64 = 40_000;
const SLOW: u64 = 1_500;

/// Of the attempt that runs now.
#[derive(Default)]
struct Lead {
    slow: AtomicU64,
    /// How far ahead the fast one was while it read and the slow one was in the second half of its way: before, it may not
    /// have been heard of yet, and if the fast one was far ahead by then it does not read until the slow one has ended.
    furthest: AtomicU64,
    /// How far the slow one was when the fast one had given its last.
    at_the_end: AtomicU64,
    attempts: AtomicU64,
}

/// Windows of both, once the slow one's `fails` went by as often as it says; and how often the job started again.
fn windows(cluster: &InProcessCluster, lead: &Arc<Lead>, failures: u64) -> Result<(u64, u32), JobError> {
    let env = cluster.environment();
    let strategy = || {
        let (drift, every) = (Duration::from_millis(100), Duration::from_millis(2));
        WatermarkStrategy::for_monotonous_timestamps().with_alignment("both", drift, every)
    };
    let (fast, slow, left) = (lead.clone(), lead.clone(), AtomicU64::new(failures));
    let left = Arc::new(left);
    let numbers = env.source(Sequence::new(0..FAST).interleaved().rate(80_000.0)).uid("fast");
    let fast = numbers.assign_timestamps_and_watermarks(|n| *n as i64, strategy()).inspect(move |n| {
        if *n == 0 {
            // The tasks of the attempt before are over by now.
            fast.attempts.fetch_add(1, Relaxed);
            fast.slow.store(0, Relaxed);
            fast.furthest.store(0, Relaxed);
        }
        let slow = fast.slow.load(Relaxed);
        if (SLOW / 2..SLOW - 1).contains(&slow) {
            fast.furthest.fetch_max(n.saturating_sub(slow), Relaxed);
        }
        if *n == FAST - 1 {
            fast.at_the_end.store(slow, Relaxed);
        }
    });
    let numbers = env.source(Sequence::new(0..SLOW).rate(1500.0)).uid("slow").parallelism(1);
    let slow = numbers.assign_timestamps_and_watermarks(|n| *n as i64, strategy()).try_map(move |n| {
        slow.slow.fetch_max(n, Relaxed);
        let fails = n == SLOW / 3 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { Err("not yet") } else { Ok(n) }
    });
    let windows = TumblingEventTimeWindows::of(Duration::from_millis(50));
    let counted = fast.union(slow).key_by(|n| n % 7).window(windows).count().uid("windows");
    let counted = counted.map(|w| (0u8, w.value)).key_by(|c| c.0).sum(|c| c.1).uid("all").collect();
    env.mode(ExecutionMode::Streaming);
    let result = env.execute("aligned")?;
    let all = result.collected(&counted)?.iter().map(|(_, n)| *n).max().unwrap_or_default();
    Ok((all, result.restarts()))
}

fn cluster() -> InProcessCluster {
    let builder = InProcessCluster::builder().task_managers(2).slots(2);
    let builder = builder.option("restart.type", "fixed-delay").option("restart.fixed-delay.attempts", "3");
    builder.option("restart.fixed-delay.delay", "10ms").start().unwrap()
}

fn near(lead: &Lead) {
    let ahead = lead.furthest.load(Relaxed);
    assert!(ahead < FAST / 8, "{ahead} ms ahead after the restart");
    assert_eq!(lead.at_the_end.load(Relaxed), SLOW - 1, "the fast one has not waited");
}

#[test]
fn after_a_failed_function_the_sources_of_a_group_wait_for_each_other_again() {
    let (cluster, lead) = (cluster(), Arc::new(Lead::default()));
    assert_eq!(windows(&cluster, &lead, 2).unwrap(), (FAST + SLOW, 2));
    assert_eq!(lead.attempts.load(Relaxed), 3);
    near(&lead);
}

#[test]
fn after_a_lost_task_manager_too() {
    let (cluster, lead) = (cluster(), Arc::new(Lead::default()));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| windows(&cluster, &lead, 0));
        while lead.slow.load(Relaxed) < SLOW / 4 {
            assert!(!job.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        cluster.kill_task_manager(1).unwrap();
        cluster.start_task_manager().unwrap();
        assert_eq!(job.join().unwrap().unwrap(), (FAST + SLOW, 1));
    });
    assert_eq!(lead.attempts.load(Relaxed), 2);
    near(&lead);
}
