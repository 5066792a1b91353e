//! One host, high availability `local`: the only JobManager is killed and started again, and no task notices.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;
use thalweg_cluster_tests::*;
use thalweg_recovery_tests::*;

const LOCAL: &str = "high-availability.type=local";

/// Beyond what a busy machine does to a run without kills; what is promised is measured by `tests/perf`.
const PAUSE: u64 = 1000;

#[test]
fn a_job_is_adopted_when_the_only_job_manager_is_killed_and_started_again() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2, 2, &[LOCAL]);
    let (job, output) = start_unbounded(&cluster, &place, 4, 2000);
    let unharmed = Numbers::read(&output);
    let mut managers = Vec::new();
    for kill in seeds(4) {
        kill_leader(&cluster);
        // From at once to longer than a TaskManager needs to notice.
        std::thread::sleep(Duration::from_millis(kill * 150));
        let again = start_job_manager(&cluster, &kill.to_string(), &[]);
        leads(&cluster, again.pid());
        cluster.wait_for(&job, "RUNNING", Duration::from_secs(10));
        assert_eq!(attempt(&cluster, &job), 0, "nothing started again");
        managers.push(again);
        let before = Numbers::read(&output).count;
        eventually("numbers go on", Duration::from_secs(20), || Numbers::read(&output).count > before);
    }
    let done = run(cluster.command(&["cancel"]).arg(&job));
    assert_eq!(done.code, 0, "{done:?}");
    cluster.wait_for(&job, "CANCELED", Duration::from_secs(20));
    let numbers = Numbers::read(&output);
    numbers.assert_whole();
    println!(
        "output gaps: p99.9 {} ms, worst {} ms; before the first kill {} and {} ms",
        numbers.gap(999),
        numbers.worst(),
        unharmed.gap(999),
        unharmed.worst()
    );
    assert!(numbers.worst() < PAUSE, "the data plane paused for {} ms", numbers.worst());
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}

#[test]
fn a_bounded_job_gives_the_exact_answer_whenever_its_job_manager_dies() {
    let place = Place::new();
    let input = place.path().join("words.txt");
    // It takes longer than the latest kill waits.
    words_file(&input, 150 << 20, 5);
    let expected = counts_by_shell(&input);
    let cluster = Cluster::start(&place, 2, 2, &[LOCAL]);
    let mut managers = Vec::new();
    for seed in seeds(4) {
        let output = place.path().join(format!("out-{seed}"));
        let args = ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
        let job = cluster.submit(&["-p", "4"], &example("wordcount"), &args);
        // The first dies while its TaskManagers still fetch the executable: nothing is there to be adopted.
        let deployed = seed > 0;
        if deployed {
            cluster.wait_for(&job, "RUNNING", Duration::from_secs(20));
            eventually("it reads", Duration::from_secs(20), || cluster.progress(&job).0 > 0);
            std::thread::sleep(Duration::from_millis(seed * 377 % 1000));
        }
        kill_leader(&cluster);
        let again = start_job_manager(&cluster, &seed.to_string(), &[]);
        leads(&cluster, again.pid());
        managers.push(again);
        cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
        assert!(counts_in(&output) == expected, "the answer is not exact, seed {seed}");
        assert!(!deployed || attempt(&cluster, &job) == 0, "nothing started again, seed {seed}");
    }
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}

#[test]
fn a_task_manager_that_is_lost_together_with_the_job_manager_costs_an_attempt_and_no_record() {
    let place = Place::new();
    let input = place.path().join("words.txt");
    words_file(&input, 120 << 20, 6);
    let expected = counts_by_shell(&input);
    // One TaskManager to spare.
    let cluster = Cluster::start(&place, 3, 2, &[LOCAL]);
    let output = place.path().join("out");
    let args = ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    let job = cluster.submit(&["-p", "4"], &example("wordcount"), &args);
    eventually("it reads", Duration::from_secs(20), || cluster.progress(&job).0 > 0);
    let victim = cluster.task_managers().into_iter().find(|tm| !hosts_of(*tm).is_empty()).unwrap();
    kill_leader(&cluster);
    kill(victim, 9);
    let again = start_job_manager(&cluster, "both", &[]);
    leads(&cluster, again.pid());
    // Sooner than the reconcile time-out.
    cluster.wait_for(&job, "FINISHED", Duration::from_secs(14));
    assert!(attempt(&cluster, &job) >= 1, "what was lost started again");
    let log = std::fs::read_to_string(cluster.dir().join("log/again-both.log")).unwrap();
    assert!(log.contains("lost with the JobManager"), "the loss is known before the reconcile time-out: {log}");
    assert!(counts_in(&output) == expected, "the answer is not exact");
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}

#[test]
fn a_cancel_that_was_acknowledged_is_not_forgotten_and_an_end_is_not_undone() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &[LOCAL]);
    let (job, _) = start_unbounded(&cluster, &place, 1, 100);
    let done = run(cluster.command(&["run"]).arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    let ended = cluster.get("/api/overview")["jobs"].clone();
    // The answer is here, and the tasks perhaps are not: it dies at once.
    let leader = cluster.job_manager();
    let secret = std::fs::read_to_string(cluster.dir().join("secret")).unwrap();
    let bearer = format!("Bearer {}", secret.trim());
    let route = format!("/jobs/{job}?mode=cancel");
    let (status, body) = http(&cluster.rest(), "PATCH", &route, &[("authorization", &bearer)], b"");
    kill(leader, 9);
    assert_eq!(status, 202, "{body}");
    eventually("the JobManager is gone", Duration::from_secs(20), || !is_alive(leader));
    let again = start_job_manager(&cluster, "cancel", &[]);
    leads(&cluster, again.pid());
    cluster.wait_for(&job, "CANCELED", Duration::from_secs(20));
    for before in ended.as_array().unwrap().iter().filter(|j| j["id"] != job.as_str()) {
        assert_eq!(cluster.state(before["id"].as_str().unwrap()), "FINISHED", "what has finished stays so");
    }
    for task_manager in cluster.task_managers() {
        eventually("no host is left", Duration::from_secs(20), || hosts_of(task_manager).is_empty());
    }
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}

#[test]
fn without_durable_high_availability_nothing_outlives_the_job_manager() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &[]);
    let (_, _) = start_unbounded(&cluster, &place, 2, 100);
    let task_manager = cluster.task_managers()[0];
    let hosts = hosts_of(task_manager);
    assert_eq!(hosts.len(), 1);
    kill_leader(&cluster);
    eventually("its tasks end with it", Duration::from_secs(20), || !is_alive(hosts[0]));
    assert!(is_alive(task_manager), "the TaskManager waits for the next JobManager");
    let again = start_job_manager(&cluster, "standalone", &[]);
    leads(&cluster, again.pid());
    assert_eq!(cluster.get("/api/overview")["jobs"].as_array().unwrap().len(), 0);
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}
