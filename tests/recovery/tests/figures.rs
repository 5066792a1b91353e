//! What high availability costs and how long it takes; no tests, and ignored as such. `tests/perf/ha` runs them, one at a
//! time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use thalweg_cluster_tests::*;
use thalweg_recovery_tests::*;

const PLAN: Plan = Plan { members: 3, lease: SHORT, job_managers: 2, task_managers: 2, slots: 15, etcd_flags: "" };

/// Jobs as the leader knows them.
fn jobs(cluster: &Cluster) -> Vec<Value> {
    cluster.try_get("/api/overview").and_then(|told| told["jobs"].as_array().cloned()).unwrap_or_default()
}

#[test]
#[ignore = "measures"]
fn thirty_real_jobs_are_adopted() {
    let Some(mut site) = Site::start(PLAN) else { return };
    let all = PLAN.task_managers * PLAN.slots;
    for _ in 0..all {
        site.cluster.submit(&["-p", "1"], &example("unbounded"), &["--rate", "10"]);
    }
    let run = |cluster: &Cluster| jobs(cluster).iter().filter(|j| j["status"] == "RUNNING").count() == all as usize;
    eventually("all jobs run", Duration::from_secs(60), || run(&site.cluster));
    let mut takeovers = Vec::new();
    for n in 0..times("THALWEG_KILLS", 5) {
        takeovers.push(site.takeover(all as usize));
        assert!(jobs(&site.cluster).iter().all(|j| j["attempt"] == 0), "nothing started again");
        site.replace(&format!("kill-{n}"));
    }
    println!("{all} jobs of one slot, lease {} s", PLAN.lease.as_secs());
    told_in_parts(&takeovers);
    site.cluster.stop();
}

/// A file that is counted in no time.
fn few_words(place: &Place) -> PathBuf {
    let file = place.path().join("few-words.txt");
    words_file(&file, 1000, 11);
    file
}

/// Submits a trivial job and leaves it; answers how long the command took, and the job.
fn submits(cluster: &Cluster, words: &Path) -> (Duration, String) {
    let done = run(cluster.command(&["run", "-d"]).arg(example("wordcount")).arg("--").arg("--input").arg(words));
    assert_eq!(done.code, 0, "{done:?}");
    (done.took, done.out.trim().to_owned())
}

#[test]
#[ignore = "measures"]
fn what_high_availability_adds_to_a_submission() {
    let places = [Place::new(), Place::new()];
    let Some(site) = Site::start(Plan { task_managers: 1, slots: 1, ..PLAN }) else { return };
    let words = few_words(&site.place);
    let clusters = [
        ("standalone", &Cluster::start(&places[0], 1, 1, &[])),
        ("local", &Cluster::start(&places[1], 1, 1, &["high-availability.type=local"])),
        ("etcd", &site.cluster),
    ];
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    // The first one sends the executable, and is not counted. In turn, so that whatever slows one down slows all.
    for round in 0..=times("THALWEG_ROUNDS", 11) {
        for (n, (_, cluster)) in clusters.iter().enumerate() {
            let (time, job) = submits(cluster, &words);
            cluster.wait_for(&job, "FINISHED", Duration::from_secs(20));
            if round > 0 {
                took[n].push(time);
            }
        }
    }
    println!("thalweg run -d of a trivial job on a warm session; etcd's three members do not sync to disk");
    took.iter_mut().for_each(|times| times.sort());
    let median = |n: usize| took[n][took[n].len() / 2].as_secs_f64() * 1e3;
    for (n, (name, _)) in clusters.iter().enumerate() {
        println!("{name}: median {:.1} ms of {}, {:.2} × standalone", median(n), took[n].len(), median(n) / median(0));
    }
    for (_, cluster) in clusters {
        assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
    }
}

/// What was asked of etcd between two looks, a line for each method.
fn told_requests(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, idle: impl Fn(&str) -> f64, per: f64) {
    let mut all = (0.0, 0.0);
    for (method, count) in after {
        let more = (count - before.get(method).copied().unwrap_or(0)) as f64 - idle(method);
        if (more / per).abs() >= 0.005 {
            println!("  {method}: {:.2}", more / per);
        }
        all.0 += more / per;
        all.1 += if method == "LeaseKeepAlive" { 0.0 } else { more / per };
    }
    println!("  in all {:.2}, without keeping leases alive {:.2}", all.0, all.1);
}

#[test]
#[ignore = "measures"]
fn what_etcd_is_asked() {
    // One member, so that it sees everything once.
    let plan = Plan { members: 1, lease: SHIPPED, slots: 2, ..PLAN };
    let Some(site) = Site::start(plan) else { return };
    let words = few_words(&site.place);
    let (_, first) = submits(&site.cluster, &words);
    site.cluster.wait_for(&first, "FINISHED", Duration::from_secs(20));
    std::thread::sleep(Duration::from_secs(5));
    let idle = Duration::from_secs(times("THALWEG_IDLE", 30));
    let start = site.etcd.requests();
    std::thread::sleep(idle);
    let (quiet, began) = (site.etcd.requests(), Instant::now());
    println!(
        "etcd's requests a second of an idle cluster: 2 JobManagers, 2 TaskManagers, lease {} s",
        SHIPPED.as_secs()
    );
    told_requests(&start, &quiet, |_| 0.0, idle.as_secs_f64());
    let rounds = times("THALWEG_ROUNDS", 20);
    for _ in 0..rounds {
        let (_, job) = submits(&site.cluster, &words);
        site.cluster.wait_for(&job, "FINISHED", Duration::from_secs(20));
    }
    // The last one's clean-up.
    std::thread::sleep(Duration::from_secs(1));
    let after = site.etcd.requests();
    let same_time = began.elapsed().as_secs_f64() / idle.as_secs_f64();
    let of = |all: &BTreeMap<String, u64>, method: &str| all.get(method).copied().unwrap_or(0) as f64;
    println!(
        "etcd's requests of one job, from its submission to its end, of {rounds}; what an idle one asks is taken off"
    );
    let at_rest = |method: &str| (of(&quiet, method) - of(&start, method)) * same_time;
    told_requests(&quiet, &after, at_rest, rounds as f64);
    site.cluster.stop();
}
