//! Jobs that take more than their due: memory beyond their share, and a step that never returns.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;
use thalweg_cluster_tests::*;

#[test]
fn a_job_that_takes_more_memory_than_its_share_fails_and_says_so_and_no_neighbour_notices() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &["task-manager.memory=256MiB", "restart.type=none"]);
    let neighbour = cluster.submit(&[], &example("unbounded"), &["--rate", "100"]);
    cluster.wait_for(&neighbour, "RUNNING", Duration::from_secs(10));
    let done = run(cluster.command(&["run", "-p", "1"]).arg(misbehaves()).args(["--", "hoard"]));
    assert_eq!(done.code, 1, "{done:?}");
    for said in ["out of memory", "its share is 128 MiB", "1 of 2 slots", "task-manager.memory (256 MiB)", "and other "]
    {
        assert!(done.err.contains(said), "{said}: {done:?}");
    }
    // All at once: it is ended within the same words, whether a control group or the TaskManager is first to see it.
    let done = run(cluster.command(&["run", "-p", "1"]).arg(misbehaves()).args(["--", "gulp"]));
    assert_eq!(done.code, 1, "{done:?}");
    for said in ["out of memory", "its share is 128 MiB", "and other"] {
        assert!(done.err.contains(said), "{said}: {done:?}");
    }
    assert_eq!(cluster.state(&neighbour), "RUNNING");
    assert_eq!(cluster.get(&format!("/api/jobs/{neighbour}/progress"))["attempt"], 0);
    cluster.stop();
}

#[test]
fn a_step_that_never_returns_is_ended_with_its_job_and_its_slot_is_used_again() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &["host.stop-timeout=1s"]);
    let job = cluster.submit(&["-p", "1"], &misbehaves(), &["stuck"]);
    cluster.wait_for(&job, "RUNNING", Duration::from_secs(10));
    eventually("the job's log names it", Duration::from_secs(20), || {
        let logs = run(cluster.command(&["logs", &job]));
        (logs.out + &logs.err).contains("one step of numbers -> stuck")
    });
    let done = run(cluster.command(&["cancel", &job]));
    assert_eq!(done.code, 0, "{done:?}");
    cluster.wait_for(&job, "CANCELED", Duration::from_secs(15));
    let next = run(cluster.command(&["run", "-p", "1"]).arg(example("two_jobs")).args(["--", "10"]));
    assert!(next.code == 0 && next.out.contains("1 to 10 is 55"), "{next:?}");
    cluster.stop();
}

#[test]
fn what_is_collected_and_too_large_for_a_message_or_a_record_fails_its_job_once() {
    let told = |cluster: &Cluster, said: &[&str]| {
        let done = run(cluster.command(&["run", "-p", "1"]).arg(misbehaves()).args(["--", "collects"]));
        assert_eq!(done.code, 1, "{done:?}");
        for said in [&["user error", "answer", "collect less", "write_text()"], said].concat() {
            assert!(done.err.contains(said), "{said}: {done:?}");
        }
        assert!(!done.err.contains("restart"), "{done:?}");
        let done = run(cluster.command(&["run", "-p", "1"]).arg(example("two_jobs")).args(["--", "10"]));
        assert!(done.code == 0 && done.out.contains("1 to 10 is 55"), "{done:?}");
    };
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &["rpc.max-frame=2MiB"]);
    told(&cluster, &["one between processes may have 2097152", "rpc.max-frame"]);
    cluster.stop();
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &[]);
    let done = run(cluster.command(&["run", "-p", "1"]).arg(misbehaves()).args(["--", "collects"]));
    assert_eq!(done.code, 0, "there is room by default: {done:?}");
    cluster.stop();
    let place = Place::new();
    let Some(etcd) = Etcd::start(&place, 1) else { return };
    let options = [&*etcd.option(), "high-availability.type=etcd", "cluster.single-host=true"];
    let cluster = Cluster::start(&place, 1, 1, &options);
    told(&cluster, &["more than the cluster's metadata store takes", "1.5 MiB"]);
    cluster.stop();
}
