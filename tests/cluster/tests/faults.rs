//! Processes that are killed or stopped while a bounded job runs: one whole answer, whatever dies when.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, path::Path, sync::OnceLock, time::Duration};
use thalweg::model::VertexId;
use thalweg_cluster_tests::*;

/// Large enough that a kill meets the job while it reads.
const BYTES: usize = 120 << 20;

struct Input {
    /// Of this test alone.
    place: Place,
    file: String,
    counts: &'static BTreeMap<Vec<u8>, u64>,
}

/// The file and its counts are made once: the shell's sort takes longer than the jobs.
fn input() -> Input {
    static MADE: OnceLock<(tempfile::TempDir, BTreeMap<Vec<u8>, u64>)> = OnceLock::new();
    let (dir, counts) = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("words.txt");
        words_file(&file, BYTES, 3);
        let counts = counts_by_shell(&file);
        (dir, counts)
    });
    Input { file: dir.path().join("words.txt").to_str().unwrap().to_owned(), place: Place::new(), counts }
}

fn start_job(cluster: &Cluster, input: &Input, output: &Path) -> String {
    let args = ["--input", &input.file, "--output", output.to_str().unwrap()];
    cluster.submit(&["-p", "4"], &example("wordcount"), &args)
}

/// Waits until about this share of the input was read; false when the job was faster.
fn read_share(cluster: &Cluster, job: &str, percent: u64) -> bool {
    loop {
        let (read, all) = cluster.progress(job);
        if all > 0 && read * 100 >= all * percent {
            return read < all;
        }
        if cluster.state(job) == "FINISHED" {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn no_part_yet(output: &Path) {
    for entry in std::fs::read_dir(output).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.'), "{name} is visible before the job has finished");
    }
}

fn check(cluster: &Cluster, job: &str, input: &Input, output: &Path) {
    let details = cluster.get(&format!("/api/jobs/{job}/progress"));
    assert!(details["attempt"].as_u64().unwrap() >= 1, "the attempt rose: {details}");
    assert!(counts_in(output) == *input.counts, "the answer is not exact");
    let exceptions = cluster.get(&format!("/jobs/{job}/exceptions")).to_string();
    assert!(exceptions.contains("lost") || exceptions.contains("gone"), "the loss is named: {exceptions}");
}

/// When the JobManager's log told of the loss first, after this line count.
fn log_len(cluster: &Cluster) -> usize {
    std::fs::read_to_string(cluster.dir().join("log/jobmanager-1.log")).unwrap().len()
}

fn unix_millis() -> i64 {
    std::process::Command::new("date")
        .arg("+%s%3N")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().parse().unwrap())
        .unwrap()
}

/// Milliseconds from `since` to the first warning of the JobManager's log behind `from`.
fn noticed_after(cluster: &Cluster, from: usize, since: i64) -> i64 {
    let log = std::fs::read_to_string(cluster.dir().join("log/jobmanager-1.log")).unwrap();
    let line = log[from..].lines().find(|l| l.contains(" WARN ")).unwrap_or_else(|| panic!("no warning: {log}"));
    let stamp = line.split_whitespace().next().unwrap().to_owned();
    let parsed = std::process::Command::new("date").args(["+%s%3N", "-d", &stamp]).output().unwrap();
    String::from_utf8_lossy(&parsed.stdout).trim().parse::<i64>().unwrap() - since
}

#[test]
fn a_killed_task_manager_or_host_costs_an_attempt_and_no_record() {
    let input = input();
    // One TaskManager to spare.
    let mut cluster = Cluster::start(&input.place, 3, 2, &[]);
    let mut met = 0;
    for seed in seeds(4) {
        let output = input.place.path().join(format!("out-{seed}"));
        let job = start_job(&cluster, &input, &output);
        let percent = 10 + seed * 17 % 70;
        if !read_share(&cluster, &job, percent) {
            cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
            continue;
        }
        met += 1;
        no_part_yet(&output);
        let with_hosts: Vec<u32> = cluster.task_managers().into_iter().filter(|tm| !hosts_of(*tm).is_empty()).collect();
        let task_manager = with_hosts[seed as usize % with_hosts.len()];
        let hosts = hosts_of(task_manager);
        let (from, began) = (log_len(&cluster), unix_millis());
        if seed % 2 == 0 {
            kill(hosts[0], 9);
        } else {
            kill(task_manager, 9);
        }
        cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
        let noticed = noticed_after(&cluster, from, began);
        assert!(noticed < 200, "seed {seed}: noticed after {noticed} ms");
        check(&cluster, &job, &input, &output);
        for host in hosts {
            assert!(!is_alive(host), "seed {seed}: the host {host} outlived its TaskManager");
        }
        if seed % 2 == 1 {
            // Whoever was killed comes back as a fresh cluster; the next seed wants its spare again.
            cluster.stop();
            std::fs::remove_dir_all(input.place.path().join("cluster")).unwrap();
            cluster = Cluster::start(&input.place, 3, 2, &[]);
        }
    }
    assert!(met > 0, "no kill met a running job: the input is too small for this machine");
    cluster.stop();
}

#[test]
fn a_stopped_task_manager_or_host_is_given_up_and_its_old_host_ends_when_it_wakes() {
    let input = input();
    let cluster = Cluster::start(&input.place, 3, 2, &["heartbeat.interval=200ms", "heartbeat.timeout=1s"]);
    for (n, (stop_task_manager, stop_host)) in [(true, false), (false, true), (true, true)].into_iter().enumerate() {
        let output = input.place.path().join(format!("out-stop-{n}"));
        let job = start_job(&cluster, &input, &output);
        if !read_share(&cluster, &job, 10) {
            cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
            continue;
        }
        let task_managers = cluster.task_managers();
        let task_manager = *task_managers.iter().find(|tm| !hosts_of(**tm).is_empty()).unwrap();
        let host = hosts_of(task_manager)[0];
        if stop_task_manager {
            kill(task_manager, 19);
        }
        if stop_host {
            kill(host, 19);
        }
        cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
        kill(task_manager, 18);
        kill(host, 18);
        eventually("the old host is gone", Duration::from_secs(10), || !is_alive(host));
        check(&cluster, &job, &input, &output);
        eventually("every slot is free again", Duration::from_secs(20), || {
            let overview = cluster.get("/api/overview");
            let workers = overview["taskmanagers"].as_array().unwrap();
            workers.len() == 3 && workers.iter().all(|w| w["free"] == w["slots"])
        });
    }
    cluster.stop();
}

#[test]
fn a_task_manager_whose_job_manager_is_away_registers_again_when_it_returns() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &["rest.port=0"]);
    let before = cluster.task_managers();
    let job_manager = cluster.job_manager();
    kill(job_manager, 9);
    eventually("the JobManager is gone", Duration::from_secs(20), || !is_alive(job_manager));
    let config = cluster.dir().join("thalweg.toml");
    let mut command = std::process::Command::new(thalweg());
    command.arg("jobmanager").arg("--dir").arg(cluster.dir()).arg("-c").arg(config);
    let mut reborn = attach(&mut command);
    eventually("the TaskManager is registered again", Duration::from_secs(10), || {
        let file = std::fs::read_to_string(cluster.dir().join("cluster.json")).unwrap_or_default();
        file.contains(&format!("\"pid\": {}", reborn.id())) && !cluster.task_managers().is_empty()
    });
    assert_eq!(cluster.task_managers(), before, "the same process");
    let done = run(cluster.command(&["run"]).arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    kill(reborn.id(), 15);
    reborn.wait().unwrap();
    cluster.stop();
}

#[test]
fn output_is_published_once_when_its_committer_dies_while_it_renames() {
    let input = input();
    let cluster = Cluster::start(&input.place, 2, 2, &[]);
    let output = input.place.path().join("out-commit");
    let job = start_job(&cluster, &input, &output);
    // What stands in the way of one name holds the commit open: it is written down, and tried again and again.
    eventually("the output folder is there", Duration::from_secs(10), || output.exists());
    let obstacle = output.join("part-2");
    std::fs::create_dir(&obstacle).unwrap();
    std::fs::write(obstacle.join("stone"), "").unwrap();
    let attempt = || cluster.get(&format!("/api/jobs/{job}/progress"))["attempt"].as_u64().unwrap_or_default();
    eventually("the first try has failed", Duration::from_secs(60), || attempt() >= 1);
    // What one leaves that dies within its renames.
    let hidden =
        std::fs::read_dir(&output).unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with(".part-0-"));
    std::fs::rename(hidden.unwrap().path(), output.join("part-0")).unwrap();
    // Between two tries to publish and within one.
    for _ in 0..4 {
        for task_manager in cluster.task_managers() {
            for host in hosts_of(task_manager) {
                kill(host, 9);
            }
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    assert_ne!(cluster.state(&job), "FINISHED");
    std::fs::remove_dir_all(&obstacle).unwrap();
    cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
    assert!(counts_in(&output) == *input.counts, "the answer is not exact");
    cluster.stop();
}

/// Attempts of a source's subtasks, and the records that they have read.
fn attempts_and_records(cluster: &Cluster, job: &str, uid: &str) -> (Vec<u64>, u64) {
    let vertex = cluster.get(&format!("/jobs/{job}/vertices/{}", VertexId::from_uid(uid)));
    let subtasks = vertex["subtasks"].as_array().unwrap();
    let records = subtasks.iter().map(|s| s["metrics"]["read-records"].as_u64().unwrap()).sum();
    (subtasks.iter().map(|s| s["attempt"].as_u64().unwrap()).collect(), records)
}

#[test]
fn a_region_that_fails_starts_again_in_its_hosts_and_the_other_goes_on() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2, 1, &[]);
    let job = cluster.submit(&[], &two_pipelines(), &[place.path().to_str().unwrap()]);
    cluster.wait_for(&job, "RUNNING", Duration::from_secs(10));
    let steady = || attempts_and_records(&cluster, &job, "steady-numbers");
    eventually("records come", Duration::from_secs(10), || steady().1 > 100);
    let hosts: Vec<u32> = cluster.task_managers().into_iter().flat_map(hosts_of).collect();
    assert_eq!(hosts.len(), 2);
    for n in 1..=2 {
        let before = steady().1;
        std::fs::write(place.path().join("fail"), "").unwrap();
        eventually("the region that failed has started again", Duration::from_secs(10), || {
            let (attempts, records) = attempts_and_records(&cluster, &job, "fragile-numbers");
            attempts == [n, n] && records > 0 && cluster.state(&job) == "RUNNING"
        });
        let (attempts, after) = steady();
        assert_eq!(attempts, [0, 0], "the other was left alone");
        assert!(after > before, "and went on: {after} after {before}");
    }
    assert!(hosts.iter().all(|host| is_alive(*host)), "no host was started again");
    let exceptions = cluster.get(&format!("/jobs/{job}/exceptions")).to_string();
    assert!(exceptions.contains("it was told to fail"), "{exceptions}");
    // What is lost with a host is of both, and what is left of them cannot go on without it.
    kill(hosts[0], 9);
    eventually("both have started again", Duration::from_secs(20), || {
        let at_least = |name: &str| attempts_and_records(&cluster, &job, name).0.iter().all(|n| *n >= 3);
        at_least("steady-numbers") && at_least("fragile-numbers") && cluster.state(&job) == "RUNNING"
    });
    assert_eq!(run(cluster.command(&["cancel", &job])).code, 0);
    cluster.stop();
}
