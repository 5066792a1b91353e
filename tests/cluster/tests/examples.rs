//! Each example gives the same answer embedded, on a session cluster and on a cluster of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use thalweg_cluster_tests::*;

fn answer(what: &str, done: &Done) -> String {
    assert_eq!(done.code, 0, "{what}: {done:?}");
    assert!(!done.out.is_empty(), "{what}: {done:?}");
    done.out.clone()
}

fn per_job(place: &Place, name: &str) -> Command {
    let mut command = Command::new(thalweg());
    command.arg("--dir").arg(place.path().join(format!("per-job-{name}")));
    command.args(["run", "-p", "3", "--deployment", "per-job", "--resource-provider", "process"]);
    command.arg("-Dtask-manager.slots=3");
    command
}

#[test]
fn every_example_gives_one_answer_in_every_mode() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 2, 2, &[]);
    let queries = ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8"];
    let mut jobs: Vec<(String, Vec<&str>)> = vec![
        ("top_by_window".into(), vec!["--events", "400000"]),
        ("sessions".into(), vec![]),
        ("enrichment".into(), vec![]),
        ("look_ups".into(), vec![]),
    ];
    jobs.extend(queries.map(|q| ("nexmark".to_owned(), vec![q, "--events", "200000"])));
    for (n, (name, args)) in jobs.iter().enumerate() {
        let what = format!("{name} {args:?}");
        let embedded = answer(&what, &run(Command::new(example(name)).args(args).args(["-p", "1"])));
        let session = run(cluster.command(&["run", "-p", "4"]).arg(example(name)).arg("--").args(args));
        assert_eq!(answer(&what, &session), embedded, "{what}: session and embedded");
        let own = run(per_job(&place, &n.to_string()).arg(example(name)).arg("--").args(args));
        assert_eq!(answer(&what, &own), embedded, "{what}: per job and embedded");
    }
    cluster.stop();
}

/// Serves these lines to one client, and closes.
fn serve(lines: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::Builder::new()
        .spawn(move || listener.accept().unwrap().0.write_all(lines.as_bytes()).unwrap())
        .unwrap();
    address
}

fn sums(out: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (word, n) in out.lines().filter_map(|line| line.rsplit_once(' ')) {
        *sums.entry(word.to_owned()).or_default() += n.parse::<u64>().unwrap();
    }
    sums
}

#[test]
fn words_of_a_socket_are_counted_by_windows_and_the_last_one_is_told_too() {
    let place = Place::new();
    let lines = "to be or not to be\nthat is\n";
    let expected = [("be", 2), ("is", 1), ("not", 1), ("or", 1), ("that", 1), ("to", 2)];
    let expected: BTreeMap<String, u64> = expected.map(|(w, n)| (w.to_owned(), n)).into();
    let embedded = run(Command::new(example("window_wordcount")).args([&*serve(lines), "--seconds", "1", "-p", "2"]));
    assert_eq!(sums(&answer("embedded", &embedded)), expected);
    let cluster = Cluster::start(&place, 1, 4, &[]);
    let session = run(cluster.command(&["run", "-p", "2"]).arg(example("window_wordcount")).args([
        "--",
        &serve(lines),
        "--seconds",
        "1",
    ]));
    assert_eq!(sums(&answer("session", &session)), expected);
    let own =
        run(per_job(&place, "socket").arg(example("window_wordcount")).args(["--", &serve(lines), "--seconds", "1"]));
    assert_eq!(sums(&answer("per job", &own)), expected);
    cluster.stop();
}

#[test]
fn words_of_a_socket_are_counted_and_every_update_is_told() {
    let place = Place::new();
    let lines = "to be or not to be\nthat is\n\nto be";
    let expected = ["be 1", "be 2", "be 3", "is 1", "not 1", "or 1", "that 1", "to 1", "to 2", "to 3"];
    let sorted = |what: &str, done: &Done| {
        let mut lines: Vec<String> = answer(what, done).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let words = || example("socket_wordcount");
    let embedded = run(Command::new(words()).arg(serve(lines)));
    assert_eq!(sorted("embedded", &embedded), expected);
    let cluster = Cluster::start(&place, 1, 4, &[]);
    let session = run(cluster.command(&["run", "-p", "2"]).arg(words()).args(["--", &serve(lines)]));
    assert_eq!(sorted("session", &session), expected);
    let own = run(per_job(&place, "updates").arg(words()).args(["--", &serve(lines)]));
    assert_eq!(sorted("per job", &own), expected);
    cluster.stop();
}

/// The numbers that `unbounded` has written so far, in order.
fn numbers(folder: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        // What is being written is left out.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        numbers.extend(whole.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()));
    }
    numbers.sort_unstable();
    numbers
}

#[test]
fn an_example_without_an_end_runs_embedded_too_until_it_is_ended() {
    let place = Place::new();
    let folder = place.path().join("numbers");
    let mut embedded = Command::new(example("unbounded"));
    embedded.args(["-p", "3", "--rate", "2000", "--output"]).arg(&folder);
    embedded.env("TMPDIR", place.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut embedded = embedded.spawn().unwrap();
    let expected: Vec<u64> = (0..1000).collect();
    eventually("a thousand numbers", Duration::from_secs(30), || {
        assert_eq!(embedded.try_wait().unwrap(), None, "it has ended by itself");
        numbers(&folder).starts_with(&expected)
    });
    embedded.kill().unwrap();
    embedded.wait().unwrap();
    let numbers = numbers(&folder);
    assert!(numbers.is_sorted_by(|a, b| a < b), "a number came twice");
}
