//! Records as long as `exchange.max-record` allows, and longer ones: between hosts a clear error, within a process,
//! where nothing is encoded, no matter.

use crate::hosts::{MAX_RECORD, Shuffles, in_turn, on_hosts, on_one, plan_of, run};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use thalweg_dataflow::testing::TestRuntime;
use thalweg_shuffle_network::Compression;
use thalweg_testkit::Place;

/// What small records and one of this length do that all go to both subtasks: bytes that arrived, or the failure.
fn sent(length: usize, shuffles: Shuffles, runtime: &TestRuntime) -> Result<usize, String> {
    let arrived = Arc::new(AtomicUsize::new(0));
    let sink = arrived.clone();
    let plan = plan_of(2, |env| {
        env.sequence(0..1000)
            .map(move |i| (i, "x".repeat(if i == 500 { length } else { 10 })))
            .uid("made")
            .broadcast()
            .for_each(move |r| {
                sink.fetch_add(r.1.len(), Ordering::Relaxed);
            });
    });
    run(&plan, in_turn, shuffles, runtime)?;
    Ok(arrived.load(Ordering::Relaxed))
}

#[test]
fn a_record_that_is_too_long_for_the_way_between_hosts_is_refused_by_name() {
    let (runtime, place) = (TestRuntime::new().unwrap(), Place::new());
    let hosts = |compression| on_hosts(2, compression, &place, &runtime);
    for compression in [Compression::None, Compression::Lz4] {
        // Its number (8 bytes) and its length (9) belong to it.
        let longest = MAX_RECORD - 17;
        assert_eq!(sent(longest, hosts(compression), &runtime), Ok(2 * (999 * 10 + longest)));
        let refused = sent(longest + 1, hosts(compression), &runtime).unwrap_err();
        for part in ["one record ((u64, alloc::string::String))", "exchange.max-record is 2097152", "made"] {
            assert!(refused.contains(part), "{part} is not in: {refused}");
        }
    }
    assert_eq!(sent(2 * MAX_RECORD, on_one(), &runtime), Ok(2 * (999 * 10 + 2 * MAX_RECORD)));
}
