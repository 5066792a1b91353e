//! Clusters of one job: they come and go with it, and tell how it went.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::Path, process::Command, time::Duration};
use thalweg_cluster_tests::*;

fn per_job(dir: &Path, flags: &[&str], job: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(thalweg());
    command.arg("--dir").arg(dir).args(["run", "--deployment", "per-job", "--resource-provider", "process"]);
    command.args(flags).arg(job).arg("--").args(args);
    command
}

#[test]
fn a_panic_ends_the_cluster_with_one_and_shows_the_message() {
    let place = Place::new();
    let dir = place.path().join("c");
    let done = run(&mut per_job(&dir, &[], &misbehaves(), &["panic"]));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("no answer is wanted"), "{done:?}");
    assert_eq!(processes_with(&dir.to_string_lossy()), Vec::<u32>::new());
    let result = std::fs::read_to_string(dir.join("result.json")).unwrap();
    assert!(result.contains("FAILED") && result.contains("no answer is wanted"), "{result}");
    // The same folder again: what is told is of this run.
    let done = run(&mut per_job(&dir, &[], &example("two_jobs"), &["10"]));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("1 to 10 is 55"), "{done:?}");
}

#[test]
fn an_attached_job_is_cancelled_when_its_client_is_gone_and_a_detached_one_runs_on() {
    let place = Place::new();
    let (attached, detached) = (place.path().join("attached"), place.path().join("detached"));
    let mut client =
        attach(&mut per_job(&attached, &["-Dclient.timeout=5s", "-Dper-job.linger=1s"], &example("unbounded"), &[]));
    let done = run(&mut per_job(&detached, &["-d", "-Dclient.timeout=5s"], &example("unbounded"), &[]));
    assert_eq!(done.code, 0, "{done:?}");
    let running = |dir: &Path| {
        let count = processes_with(&dir.to_string_lossy()).len();
        count >= 3
    };
    eventually("both run", Duration::from_secs(20), || running(&attached) && running(&detached));
    std::thread::sleep(Duration::from_secs(7));
    assert!(running(&attached), "a client that is there keeps its job");
    kill(client.id(), 9);
    client.wait().unwrap();
    eventually("the attached cluster ends", Duration::from_secs(30), || {
        processes_with(&attached.to_string_lossy()).is_empty()
    });
    let result = std::fs::read_to_string(attached.join("result.json")).unwrap();
    assert!(result.contains("CANCELED"), "{result}");
    assert!(running(&detached), "the detached one runs on");
    let stopped = run(Command::new(thalweg()).arg("--dir").arg(&detached).args(["cluster", "stop"]));
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert_eq!(processes_with(&detached.to_string_lossy()), Vec::<u32>::new());
}
