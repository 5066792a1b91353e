//! One job in every mode: the same answer embedded, on a session cluster and on a cluster of its own.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::Path, process::Command, time::Duration};
use thalweg_cluster_tests::*;

const LICENSES: &str = "/usr/share/common-licenses";

fn embedded(input: &Path, output: &Path) -> Done {
    run(Command::new(example("wordcount")).arg("--input").arg(input).arg("--output").arg(output).args(["-p", "4"]))
}

#[test]
fn word_counts_are_equal_embedded_session_and_per_job() {
    let place = Place::new();
    let file = place.path().join("words.txt");
    // Offline with THALWEG_WORDS_MB=200.
    let megabytes: usize = std::env::var("THALWEG_WORDS_MB").map_or(20, |n| n.parse().unwrap());
    words_file(&file, megabytes << 20, 7);
    let cluster = Cluster::start(&place, 2, 2, &[]);
    for (n, input) in [Path::new(LICENSES), &file].into_iter().enumerate() {
        let expected = counts_by_shell(input);
        let out = |mode: &str| place.path().join(format!("{mode}-{n}"));

        let done = embedded(input, &out("embedded"));
        assert_eq!(done.code, 0, "{done:?}");
        assert!(counts_in(&out("embedded")) == expected, "embedded counts of {input:?} differ");

        let (input_text, session) = (input.to_str().unwrap(), out("session"));
        let args = ["--input", input_text, "--output", session.to_str().unwrap()];
        let done = run(cluster.command(&["run", "-p", "4"]).arg(example("wordcount")).arg("--").args(args));
        assert_eq!(done.code, 0, "{done:?}");
        assert!(counts_in(&session) == expected, "session counts of {input:?} differ");

        let per_job = out("per-job");
        let args = ["--input", input_text, "--output", per_job.to_str().unwrap()];
        let mut command = Command::new(thalweg());
        command.arg("--dir").arg(place.path().join(format!("per-job-cluster-{n}")));
        command.args(["run", "-p", "4", "--deployment", "per-job", "--resource-provider", "process"]);
        let done = run(command.arg("-Dtask-manager.slots=2").arg(example("wordcount")).arg("--").args(args));
        assert_eq!(done.code, 0, "{done:?}");
        assert!(counts_in(&per_job) == expected, "per-job counts of {input:?} differ");
    }
    cluster.stop();
}

#[test]
fn all_four_counters_work_and_data_crosses_the_network() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2, 2, &[]);
    let output = place.path().join("out");
    let args = ["--input", LICENSES, "--output", output.to_str().unwrap()];
    let job = cluster.submit(&["-p", "4"], &example("wordcount"), &args);
    cluster.wait_for(&job, "FINISHED", Duration::from_secs(20));
    let details = cluster.get(&format!("/jobs/{job}"));
    let vertices = details["vertices"].as_array().unwrap();
    let counter = vertices.iter().find(|v| v["name"].as_str().unwrap().contains("count")).unwrap();
    let vertex = cluster.get(&format!("/jobs/{job}/vertices/{}", counter["id"].as_str().unwrap()));
    let subtasks = vertex["subtasks"].as_array().unwrap();
    assert_eq!(subtasks.len(), 4);
    for subtask in subtasks {
        assert!(subtask["metrics"]["read-records"].as_u64().unwrap() > 0, "{subtask}");
    }
    let bytes: u64 = vertices.iter().map(|v| v["metrics"]["write-bytes"].as_u64().unwrap()).sum();
    assert!(bytes > 0, "nothing went over the network");
    // What REST says of the sources is what there was to read.
    let files =
        Command::new("sh").arg("-c").arg(format!("find {LICENSES} -type f -print0 | xargs -0 cat | wc -c")).output();
    let there: u64 = String::from_utf8_lossy(&files.unwrap().stdout).trim().parse().unwrap();
    assert_eq!(cluster.progress(&job), (there, there));
    cluster.stop();
}

#[test]
fn two_jobs_in_one_main_work_in_every_mode() {
    let place = Place::new();
    let expected = ["1 to 500 is 125250", "41750 of them are multiples of 3"];
    let check = |mode: &str, done: &Done| {
        assert_eq!(done.code, 0, "{mode}: {done:?}");
        for line in expected {
            assert_eq!(done.out.lines().filter(|l| *l == line).count(), 1, "{mode}: {done:?}");
        }
    };
    check("embedded", &run(Command::new(example("two_jobs")).arg("500")));
    let cluster = Cluster::start(&place, 1, 2, &[]);
    check("session", &run(cluster.command(&["run"]).arg(example("two_jobs")).args(["--", "500"])));
    cluster.stop();
    for provider in ["process", "standalone"] {
        let mut command = Command::new(thalweg());
        command.arg("--dir").arg(place.path().join(provider));
        command.args(["run", "--deployment", "per-job", "--resource-provider", provider]);
        check(provider, &run(command.arg(example("two_jobs")).args(["--", "500"])));
        assert_eq!(processes_with(&place.path().join(provider).to_string_lossy()), Vec::<u32>::new());
    }
}

#[test]
fn streaming_mode_emits_updates_whose_last_ones_are_the_counts() {
    let place = Place::new();
    let file = place.path().join("in.txt");
    std::fs::write(&file, "to be or not to be\nto be\n").unwrap();
    let cluster = Cluster::start(&place, 1, 1, &[]);
    let args = ["--input", file.to_str().unwrap(), "--mode", "streaming"];
    let on_cluster = run(cluster.command(&["run"]).arg(example("wordcount")).arg("--").args(args));
    let embedded = run(Command::new(example("wordcount")).args(args).args(["-p", "1"]));
    for done in [on_cluster, embedded] {
        assert_eq!(done.code, 0, "{done:?}");
        let updates: Vec<_> = done.out.lines().filter(|l| l.starts_with("be ")).collect();
        assert_eq!(updates, ["be 1", "be 2", "be 3"], "{done:?}");
    }
    cluster.stop();
}

/// The configuration files that come with the repository start what they say.
#[test]
fn the_configurations_that_ship_work() {
    let place = Place::new();
    let conf = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf").join(name);
    let free = ["-Drest.port=0", "-Djob-manager.rpc-port=0"];
    let command = |dir: &str, name: &str| {
        let mut command = Command::new(thalweg());
        command.arg("-c").arg(conf(name)).args(free).arg("--dir").arg(place.path().join(dir));
        command
    };
    let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/bin");
    let script = |name: &str| {
        let mut script = Command::new(bin.join(name));
        script.env("THALWEG", thalweg()).arg("-c").arg(conf("standalone.toml")).args(free);
        script.arg("--dir").arg(place.path().join("standalone"));
        script
    };
    let started = run(script("start-cluster.sh").args(["--taskmanagers", "2"]));
    assert_eq!(started.code, 0, "{started:?}");
    let done = run(command("standalone", "standalone.toml").arg("run").arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    let stopped = run(&mut script("stop-cluster.sh"));
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let done = run(command("per-job", "per-job.toml").arg("run").arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_cached_file_travels_with_its_job() {
    let place = Place::new();
    let list = place.path().join("list.txt");
    std::fs::write(&list, "7 77 777 7777").unwrap();
    let lines = |dir: &Path| {
        let mut lines = Vec::new();
        for part in std::fs::read_dir(dir).unwrap().flatten() {
            let text = std::fs::read_to_string(part.path()).unwrap();
            lines.extend(text.lines().map(|l| l.parse::<u64>().unwrap()));
        }
        lines.sort_unstable();
        lines
    };
    let embedded = place.path().join("embedded");
    let done = run(Command::new(cached()).args([&list, &embedded]));
    assert_eq!((done.code, lines(&embedded)), (0, vec![7, 77, 777]), "{done:?}");
    let cluster = Cluster::start(&place, 2, 2, &[]);
    for again in 0..2 {
        let output = place.path().join(format!("session-{again}"));
        let done = run(cluster.command(&["run", "-p", "4"]).arg(cached()).arg("--").args([&list, &output]));
        assert_eq!((done.code, lines(&output)), (0, vec![7, 77, 777]), "{done:?}");
    }
    // The workers' copies are named by hosts' scratch folders alone, which are gone with the hosts.
    for task_manager in cluster.task_managers() {
        assert_eq!(hosts_of(task_manager), Vec::<u32>::new());
    }
    let missing = place.path().join("no-such-list");
    let done = run(cluster.command(&["run"]).arg(cached()).arg("--").args([&missing, &place.path().join("none")]));
    assert!(done.code != 0 && done.err.contains("cached file \"named.txt\""), "{done:?}");
    cluster.stop();
}
