//! A session cluster's life: start, several jobs at once, cancel, stop, and what an operator mistypes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};
use thalweg_cluster_tests::*;

#[test]
fn jobs_run_side_by_side_a_cancel_is_quick_and_a_stop_leaves_nothing() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2, 1, &[]);
    assert_eq!(cluster.task_managers().len(), 2, "start returns when both are registered");
    let files = place.path().join("numbers");
    let first = cluster.submit(&[], &example("unbounded"), &["--rate", "500", "--output", files.to_str().unwrap()]);
    let second = cluster.submit(&[], &example("unbounded"), &["--rate", "500"]);
    cluster.wait_for(&first, "RUNNING", Duration::from_secs(10));
    cluster.wait_for(&second, "RUNNING", Duration::from_secs(10));
    eventually("lines appear while the job runs", Duration::from_secs(20), || {
        std::fs::read_to_string(files.join("subtask-0")).is_ok_and(|text| text.lines().count() > 10)
    });
    for line in std::fs::read_to_string(files.join("subtask-0")).unwrap().lines().take(10).map(str::to_owned) {
        assert_eq!(line.split(' ').count(), 3, "{line}");
    }
    let done = run(cluster.command(&["cancel", &first]));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.took < Duration::from_secs(10), "{done:?}");
    assert_eq!((cluster.state(&first).as_str(), cluster.state(&second).as_str()), ("CANCELED", "RUNNING"));
    let done = run(cluster.command(&["result", &first]));
    assert_eq!(done.code, 2, "a cancelled job's client answers 2: {done:?}");
    let again = run(cluster.command(&["cancel", &first]));
    assert!(again.out.contains("CANCELED"), "what is cancelled stays so: {again:?}");
    cluster.stop();
}

#[test]
fn a_job_that_does_not_fit_waits_says_why_and_fails_in_the_end() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &["slot.request-timeout=10s"]);
    let job = cluster.submit(&["-p", "4"], &example("unbounded"), &[]);
    let mut list = String::new();
    eventually("list says why the job waits", Duration::from_secs(9), || {
        list = run(cluster.command(&["list"])).out;
        list.contains("needs 4 more slots, 2 free")
    });
    cluster.wait_for(&job, "FAILED", Duration::from_secs(30));
    let result = run(cluster.command(&["result", &job]));
    assert_eq!(result.code, 1, "{result:?}");
    assert!(result.out.contains("start more TaskManagers, or lower the parallelism"), "{result:?}");
    cluster.stop();
}

#[test]
fn user_code_that_goes_wrong_fails_its_job_by_name_and_nothing_else() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &["host.start-timeout=8s"]);
    let other = cluster.submit(&[], &example("unbounded"), &[]);
    let cases = [
        ("panic", "no answer is wanted"),
        ("error", "not this one"),
        ("abort", "signal 6"),
        ("other-graph", "main() built another graph"),
        ("slow-main", "host.start-timeout"),
    ];
    for (how, said) in cases {
        let done = run(cluster.command(&["run"]).arg(misbehaves()).arg("--").arg(how));
        assert_eq!(done.code, 1, "{how}: {done:?}");
        assert!(done.err.contains(said), "{how}: {done:?}");
        if how == "panic" {
            assert!(done.err.contains("picky") && done.err.contains("subtask 0"), "operator and subtask: {done:?}");
        }
    }
    assert_eq!(cluster.state(&other), "RUNNING", "a neighbour does not notice");
    cluster.stop();
}

#[test]
fn what_is_no_job_is_refused_before_anything_starts() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &[]);
    let script = place.path().join("script.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let plain = place.path().join("plain.txt");
    std::fs::write(&plain, "hello").unwrap();
    let foreign = place.path().join("foreign");
    let mut bytes = std::fs::read(example("wordcount")).unwrap();
    bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
    std::fs::write(&foreign, &bytes).unwrap();
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cases: [(std::path::PathBuf, &str, &str); 6] = [
        ("/no/such/job".into(), "", "cannot be read"),
        (plain, "", "chmod +x"),
        (script, "", "not an ELF executable"),
        (foreign, "", "another architecture"),
        ("/bin/true".into(), "", "without an execute()"),
        (misbehaves(), "no-execute", "without an execute()"),
    ];
    for (job, args, said) in cases {
        let done = run(cluster.command(&["run"]).arg(&job).args(["--", args]));
        assert_eq!(done.code, 64, "{job:?}: {done:?}");
        assert!(done.err.contains(said), "{job:?}: {done:?}");
    }
    let missing = run(cluster.command(&["run"]).arg(example("wordcount")).args(["--", "--input", "/no/such/input"]));
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.err.contains("/no/such/input"), "{missing:?}");
    let full = place.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("precious"), "data").unwrap();
    let args = ["--", "--input", "/usr/share/common-licenses", "--output", full.to_str().unwrap()];
    let refused = run(cluster.command(&["run"]).arg(example("wordcount")).args(args));
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("not empty"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(full.join("precious")).unwrap(), "data");
    cluster.stop();
}

#[test]
fn mistyped_options_are_refused_with_the_right_one() {
    let place = Place::new();
    let thalweg = |args: &[&str]| run(Command::new(thalweg()).arg("--dir").arg(place.path().join("c")).args(args));
    let cases = [
        ("-Dtask-manager.slot=2", "task-manager.slots"),
        ("-Dhigh-availability.type=etdc", "this build has:"),
        ("-Dtask-manager.slots=0", "1"),
        ("-Dheartbeat.timeout=1s", "heartbeat"),
        ("-Drpc.timeout=10", "\"10s\""),
        ("-Dtaskmanager.numberOfTaskSlots=2", "task-manager.slots"),
        ("-Drest.bind=0.0.0.0", "security.insecure"),
    ];
    for (option, said) in cases {
        let done = thalweg(&[option, "cluster", "start"]);
        assert_eq!(done.code, 64, "{option}: {done:?}");
        assert!(done.err.contains(said), "{option}: {done:?}");
    }
    assert_eq!(thalweg(&["run"]).code, 64, "a missing argument");
    assert_eq!(thalweg(&["config", "check"]).code, 0);
}

#[test]
fn a_second_cluster_on_one_folder_or_port_is_refused_by_name() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &[]);
    let again = run(cluster.command(&["cluster", "start"]));
    assert_ne!(again.code, 0);
    assert!(again.err.contains("a cluster runs in") && again.err.contains("cluster stop"), "{again:?}");
    let port = cluster.rest().rsplit_once(':').unwrap().1.to_owned();
    let mut other = Command::new(thalweg());
    other.arg("--dir").arg(place.path().join("other")).arg(format!("-Drest.port={port}"));
    let refused = run(other.args(["-Djob-manager.rpc-port=0", "cluster", "start"]));
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("is in use by another process"), "{refused:?}");
    assert_eq!(processes_with(&place.path().join("other").to_string_lossy()), Vec::<u32>::new());
    cluster.stop();
}

#[test]
fn rest_refuses_strangers_and_damage_in_words() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &["rest.max-body=64KiB"]);
    let at = cluster.rest();
    let secret = std::fs::read_to_string(cluster.dir().join("secret")).unwrap();
    let bearer = format!("Bearer {}", secret.trim());
    let key = "00".repeat(32);
    let (status, body) = http(&at, "PUT", &format!("/api/blobs/{key}"), &[], b"x");
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("errors") && body.contains("secret"), "{body}");
    let wrong = format!("Bearer {}", "ab".repeat(32));
    assert_eq!(http(&at, "POST", "/api/jobs", &[("Authorization", &wrong)], b"x").0, 403);
    let (status, body) = http(&at, "PUT", &format!("/api/blobs/{key}"), &[("Authorization", &bearer)], b"x");
    assert_eq!(status, 400, "content that is not its name's: {body}");
    let (status, body) = http(&at, "POST", "/api/jobs", &[("Authorization", &bearer)], b"garbage");
    assert_eq!((status, body.contains("not a submission")), (400, true), "{body}");
    assert_eq!(http(&at, "GET", "/api/jobs/xyz/result", &[], b"").0, 400);
    assert_eq!(http(&at, "GET", &format!("/api/jobs/{}/result", "0".repeat(32)), &[], b"").0, 404);
    assert_eq!(http(&at, "PATCH", &format!("/jobs/{}?mode=cancel", "0".repeat(32)), &[], b"").0, 401);
    // Whoever sends garbage to RPC is hung up on, and everybody else goes on.
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(cluster.dir().join("cluster.json")).unwrap()).unwrap();
    let rpc = file["rpc"].as_str().unwrap().trim_start_matches("tcp://").to_owned();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0x7f, 0xff, 0xff, 0xff]] {
        let mut stream = std::net::TcpStream::connect(&rpc).unwrap();
        std::io::Write::write_all(&mut stream, garbage).unwrap();
        let _ = std::io::Read::read(&mut stream, &mut [0; 16]);
    }
    let done = run(cluster.command(&["run"]).arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    let command_lines = processes_with(secret.trim());
    assert_eq!(command_lines, Vec::<u32>::new(), "the secret stands in no argument list");
    cluster.stop();
}

#[test]
fn info_prints_a_plan_and_a_new_project_knows_its_checkout() {
    let done = run(Command::new(thalweg()).args(["info", "-p", "3"]).arg(example("wordcount")).args(["--input", "/"]));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("3 slots") && done.out.contains("count"), "{done:?}");
    let plugins = run(Command::new(thalweg()).args(["plugins", "--json"]));
    let plugins: serde_json::Value = serde_json::from_str(&plugins.out).unwrap();
    let names: Vec<String> = plugins
        .as_array()
        .unwrap()
        .iter()
        .map(|p| format!("{}/{}", p["kind"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    for plugin in [
        "blob/local",
        "deployment/per-job",
        "deployment/session",
        "high-availability/standalone",
        "resource-provider/process",
        "resource-provider/standalone",
        "shuffle/local",
        "shuffle/network",
    ] {
        assert!(names.iter().any(|n| n == plugin), "{plugin} is not in the release binary: {names:?}");
    }
}
