//! Clusters that tests start within their process: several at once, with records that really pass from host to host,
//! failures, TaskManagers that are killed, and an end that leaves nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod waits;

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_api::{DataStream, FileSink, JobError, Sequence, SinkRef};
use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_model::FailureKind;
use thalweg_runtime::{
    Environment,
    testing::{ClusterError, InProcessCluster},
};
use thalweg_shuffle_local as _;
use thalweg_shuffle_network as _;
use waits::eventually;

fn cluster(task_managers: u32, slots: u32) -> InProcessCluster {
    InProcessCluster::builder().task_managers(task_managers).slots(slots).start().unwrap()
}

fn one_more(seen: &AtomicU64) {
    seen.fetch_add(1, Relaxed);
}

/// How many numbers below `end` have each remainder by 7.
fn counts(env: &Environment, end: u64) -> Result<BTreeMap<u64, u64>, JobError> {
    let counts = env.sequence(0..end).key_by(|n| n % 7).count().uid("counts").collect();
    Ok(env.execute("counts")?.collected(&counts)?.into_iter().collect())
}

fn expected(end: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    (0..end).for_each(|n| *counts.entry(n % 7).or_default() += 1);
    counts
}

#[test]
fn clusters_run_side_by_side_each_with_jobs_one_after_the_other() {
    std::thread::scope(|scope| {
        for which in 0..4 {
            scope.spawn(move || {
                let cluster = cluster(1 + which % 2, 2);
                let env = cluster.environment();
                for round in 1..4 {
                    let end = 1000 * round + u64::from(which);
                    assert_eq!(counts(&env, end).unwrap(), expected(end));
                }
                // Another `main` of the same cluster, on another thread.
                scope.spawn(move || assert_eq!(counts(&cluster.environment(), 99).unwrap(), expected(99)));
            });
        }
    });
}

/// One that serde writes without its name and cannot find again.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Unreadable {
    Number(u64),
}

/// Shows the log where `RUST_LOG` asks for it.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

fn unreadable(env: &Environment) -> Result<u64, JobError> {
    let records = env.sequence(0..1000).map(Unreadable::Number).uid("made").broadcast();
    let numbers = records.map(|Unreadable::Number(n)| n).uid("numbers").key_by(|_| 0u64).count().collect();
    Ok(env.execute("unreadable")?.collected(&numbers)?[0].1)
}

#[test]
fn a_record_that_cannot_be_read_back_fails_where_it_goes_to_another_task_manager() {
    log();
    assert_eq!(unreadable(&cluster(1, 4).environment()).unwrap(), 4 * 1000);
    let refused = unreadable(&cluster(2, 2).environment()).unwrap_err().to_string();
    assert!(refused.contains("Unreadable") && refused.contains("untagged"), "{refused}");
}

/// Writes a string where it reads a number.
#[derive(Clone, Serialize, Deserialize)]
struct Disagrees {
    #[serde(serialize_with = "as_text")]
    n: u64,
}

fn as_text<S: serde::Serializer>(n: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&n.to_string())
}

#[test]
fn a_record_that_reads_something_else_than_it_writes_fails_at_once_and_is_not_tried_again() {
    let cluster = cluster(2, 1);
    let env = cluster.environment();
    // Few records are dealt out as many are.
    env.sequence(0..20).parallelism(1).map(|n| Disagrees { n }).rebalance().map(|d| d.n).discard();
    let refused = env.execute("disagrees").unwrap_err().to_string();
    assert!(refused.contains("Disagrees") && refused.contains("do not agree"), "{refused}");
    assert!(!refused.contains("started again"), "{refused}");
}

fn long_records(env: &Environment, length: usize) -> Result<u64, JobError> {
    let records = env.sequence(0..10).map(move |n| (n, "x".repeat(length))).uid("made").broadcast();
    let lengths = records.map(|(_, text)| text.len() as u64).key_by(|_| 0u64).sum(|n: u64| n).collect();
    Ok(env.execute("long")?.collected(&lengths)?[0].1)
}

#[test]
fn a_record_longer_than_the_limit_fails_where_it_goes_to_another_task_manager() {
    let start = |task_managers, slots| {
        let builder = InProcessCluster::builder().task_managers(task_managers).slots(slots);
        builder.option("exchange.max-record", "64KiB").start().unwrap()
    };
    let (one, two) = (start(1, 4), start(2, 2));
    assert_eq!(long_records(&two.environment(), 60 << 10).unwrap(), 4 * 10 * (60 << 10));
    assert_eq!(long_records(&one.environment(), 80 << 10).unwrap(), 4 * 10 * (80 << 10));
    let refused = long_records(&two.environment(), 80 << 10).unwrap_err().to_string();
    for part in ["one record ((u64, alloc::string::String))", "exchange.max-record is 65536", "made"] {
        assert!(refused.contains(part), "{part} is not in: {refused}");
    }
}

/// The number 500 fails for the first two times.
fn fails_twice(env: &Environment) -> Result<(Vec<(u64, u64)>, u32), JobError> {
    let left = Arc::new(AtomicU64::new(2));
    let fails = move |n: u64| {
        let fail = n == 500 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fail { Err("not yet") } else { Ok(n) }
    };
    let counted = env.sequence(0..1000).try_map(fails).key_by(|n| n % 2).count().collect();
    let result = env.execute("fails twice")?;
    let mut counted = result.collected(&counted)?;
    counted.sort_unstable();
    Ok((counted, result.restarts()))
}

#[test]
fn a_function_that_fails_starts_its_job_again_as_the_options_say() {
    let start = |attempts: &str| {
        let builder = InProcessCluster::builder().option("restart.type", "fixed-delay");
        let builder = builder.option("restart.fixed-delay.delay", "5ms");
        builder.option("restart.fixed-delay.attempts", attempts).start().unwrap()
    };
    log();
    let done = fails_twice(&start("2").environment()).unwrap();
    assert_eq!(done, (vec![(0, 500), (1, 500)], 2));
    let failed = fails_twice(&start("1").environment()).unwrap_err().to_string();
    assert!(failed.contains("not yet"), "{failed}");
}

/// A job of two seconds, which says how far it has come.
fn slow(env: &Environment, seen: &Arc<AtomicU64>) -> Result<(BTreeMap<u64, u64>, u32), JobError> {
    let counted = seen.clone();
    let numbers = env.generate(Sequence::new(0..4000).rate(2000.0), |n| n).uid("numbers");
    let numbers = numbers.inspect(move |_| one_more(&counted));
    let counts = numbers.key_by(|n| n % 7).count().uid("counts").collect();
    let result = env.execute("slow")?;
    Ok((result.collected(&counts)?.into_iter().collect(), result.restarts()))
}

#[test]
fn a_job_goes_on_elsewhere_when_its_task_manager_is_killed() {
    // One restart is enough: that the others lose their connections with it is the same failure.
    let builder = InProcessCluster::builder().option("restart.type", "fixed-delay");
    let builder = builder.option("restart.fixed-delay.attempts", "1").option("restart.fixed-delay.delay", "10ms");
    let cluster = builder.start().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| slow(&cluster.environment(), &seen));
        eventually("records", || seen.load(Relaxed) > 100);
        cluster.kill_task_manager(1).unwrap();
        assert_eq!(cluster.task_managers(), [0]);
        let refused = cluster.kill_task_manager(1).unwrap_err().to_string();
        assert_eq!(refused, "there is no TaskManager 1; these run: 0");
        assert_eq!(cluster.start_task_manager().unwrap(), 2);
        assert_eq!(cluster.task_managers(), [0, 2]);
        let (counts, restarts) = job.join().unwrap().unwrap();
        assert_eq!(counts, expected(4000));
        assert_eq!(restarts, 1);
    });
    assert_eq!(counts(&cluster.environment(), 10).unwrap(), expected(10));
}

#[test]
fn a_killed_task_manager_is_missed_at_once_and_says_nothing() {
    for _ in 0..8 {
        let cluster = InProcessCluster::builder().option("restart.type", "none").start().unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            let job = scope.spawn(|| slow(&cluster.environment(), &seen));
            eventually("records", || seen.load(Relaxed) > 100);
            cluster.kill_task_manager(0).unwrap();
            let failed = job.join().unwrap().unwrap_err().to_string();
            // The JobManager or another host is first to miss it, and neither was told.
            assert!(failed.contains("lost: "), "{failed}");
            for word in ["has closed the connection:", "the attempt was released", "the writer", "the reader"] {
                assert!(!failed.contains(word), "it said a last word: {failed}");
            }
        });
        assert!(seen.load(Relaxed) < 4000, "it went on to its end");
    }
}

#[test]
fn a_kill_answers_when_no_function_of_the_task_manager_runs_any_more() {
    let cluster = InProcessCluster::builder().option("restart.type", "none").start().unwrap();
    let inside = Arc::new(AtomicU64::new(0));
    let (env, counted) = (cluster.environment(), inside.clone());
    let numbers = env.generate(Sequence::endless().rate(1000.0), |n| n).broadcast();
    numbers.for_each(move |_| {
        one_more(&counted);
        std::thread::sleep(Duration::from_millis(30));
        counted.fetch_sub(1, Relaxed);
    });
    drop(env.execute_async("slow functions"));
    eventually("functions run", || inside.load(Relaxed) > 2);
    cluster.kill_task_manager(0).unwrap();
    cluster.kill_task_manager(1).unwrap();
    assert_eq!(inside.load(Relaxed), 0);
}

#[test]
fn of_two_jobs_that_write_into_one_folder_one_has_its_output_whole_and_the_other_is_told() {
    let builder = InProcessCluster::builder().task_managers(1).slots(2).option("restart.type", "none");
    let cluster = builder.start().unwrap();
    let out = std::env::temp_dir().join(format!("thalweg-one-folder-{}", std::process::id()));
    let (half, go) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let write = |name: &'static str, slow: bool| {
        let env = cluster.environment();
        let (half, go) = (half.clone(), go.clone());
        // Much more than a writer gathers before it writes.
        let lines = env.sequence(0..100_000).parallelism(1).map(move |n| {
            if slow && n == 50_000 {
                one_more(&half);
                eventually("the other job", || go.load(Relaxed) > 0);
            }
            format!("{name} {n}")
        });
        lines.write_text(&out);
        env.execute(name)
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| write("slow", true));
        eventually("the slow job", || half.load(Relaxed) > 0);
        write("fast", false).unwrap();
        one_more(&go);
        let told = slow.join().unwrap().unwrap_err().to_string();
        assert!(told.contains("from another job or sink that writes to the same folder"), "{told}");
    });
    let expected: String = (0..100_000).map(|n| format!("fast {n}\n")).collect();
    assert!(std::fs::read_to_string(out.join("part-0")).unwrap() == expected, "the output is damaged");
    std::fs::remove_dir_all(out).unwrap();
}

/// Names and sizes of the files in a folder.
fn sizes(folder: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|e| (e.file_name().into_string().unwrap(), e.metadata().map_or(0, |m| m.len()))).collect()
}

#[test]
fn what_subtasks_had_written_to_their_end_goes_before_it_is_written_again() {
    let sinks: [fn(DataStream<u64>, PathBuf) -> SinkRef; 2] =
        [|numbers, out| numbers.write_text(out), |numbers, out| numbers.write_files(FileSink::new(out))];
    for (i, sink) in sinks.into_iter().enumerate() {
        let out = std::env::temp_dir().join(format!("thalweg-leftovers-{}-{i}", std::process::id()));
        let options = [("restart.type", "fixed-delay"), ("restart.fixed-delay.delay", "1ms")];
        let builder = options.iter().fold(InProcessCluster::builder(), |b, (key, value)| b.option(*key, *value));
        let cluster = builder.start().unwrap();
        let env = cluster.environment();
        env.parallelism(2);
        let (folder, left) = (out.clone(), Arc::new(OnceLock::<String>::new()));
        let numbers = env.sequence(0..1000).parallelism(1).partition_custom(|n, _| *n as usize % 2).map(move |n| {
            if n == 999 {
                // Of 500 even ones below 1,000, five have one digit and 45 have two.
                let whole = |size: u64| size == 5 * 2 + 45 * 3 + 450 * 4;
                let mut first = false;
                let name = left.get_or_init(|| {
                    first = true;
                    eventually("the other subtask has written all", || sizes(&folder).into_values().any(whole));
                    sizes(&folder).into_iter().find(|(_, size)| whole(*size)).unwrap().0
                });
                assert!(!first, "the first attempt fails");
                eventually("what it wrote is gone", || !sizes(&folder).contains_key(name));
            }
            n
        });
        let _ = sink(numbers.boxed(), out.clone());
        let result = env.execute("leftovers").unwrap();
        assert_eq!(result.restarts(), 1);
        let names: Vec<_> = sizes(&out).into_keys().collect();
        assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("part-")), "{names:?}");
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_job_that_needs_more_slots_than_there_are_is_told_so() {
    let cluster = InProcessCluster::builder().option("slot.request-timeout", "100ms").start().unwrap();
    let env = cluster.environment();
    env.parallelism(5);
    let refused = counts(&env, 10).unwrap_err().to_string();
    let told = "no resources: after 0.1s the job has 0 of the 5 slots it needs (needs 5 more slots, 4 free); start more \
                TaskManagers, or lower the parallelism";
    assert!(refused.contains(told), "{refused}");
    assert_eq!(cluster.start_task_manager().unwrap(), 2);
    assert_eq!(counts(&env, 10).unwrap(), expected(10));
}

#[test]
fn what_is_collected_and_does_not_fit_into_a_message_fails_the_job_and_says_what_to_do() {
    let cluster = InProcessCluster::builder().option("rpc.max-frame", "2MiB").start().unwrap();
    let env = cluster.environment();
    let lines = env.sequence(0..3000).map(|n| format!("{n:01000}")).collect().with_uid("lines");
    let JobError::Failed(result) = env.execute("large").unwrap_err() else { panic!() };
    let failure = result.failure().unwrap();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::User, Some("lines")), "{failure}");
    let told = failure.message.contains("collect less") && failure.message.contains("rpc.max-frame");
    assert!(told && result.restarts() == 0, "{failure}");
    drop(lines);
    // The next one has room.
    assert_eq!(counts(&env, 100).unwrap(), expected(100));
}

#[test]
fn an_option_that_is_wrong_or_not_for_such_a_cluster_is_refused() {
    let refused = |options: &[(&str, &str)]| {
        let builder = options.iter().fold(InProcessCluster::builder(), |b, (key, value)| b.option(*key, *value));
        builder.start().err().unwrap().to_string()
    };
    assert_eq!(
        refused(&[("restart.fixed-delay.attemps", "3")]),
        "the configuration cannot be used:\n  restart.fixed-delay.attemps (-Drestart.fixed-delay.attemps=3): unknown \
         option; did you mean restart.fixed-delay.attempts?"
    );
    assert!(refused(&[("exchange.memory", "64MB")]).contains("unknown unit"));
    let two = refused(&[("task-manager.slots", "3"), ("rest.port", "8082"), ("shuffle.type", "local")]);
    assert_eq!(
        two,
        "shuffle.type cannot be set for an in-process cluster\n\
         task-manager.slots cannot be set for an in-process cluster: say it by slots()\n\
         rest.port has no effect in an in-process cluster: it has no REST, no other processes and no client"
    );
    let none = InProcessCluster::builder().slots(0).start().err().unwrap().to_string();
    assert!(none.contains("task-manager.slots"), "{none}");
    // A plugin's own options are its own.
    let lz4 = InProcessCluster::builder().option("shuffle.network.compression", "lz4").start().unwrap();
    assert_eq!(counts(&lz4.environment(), 100).unwrap(), expected(100));
}

#[test]
fn an_environment_whose_cluster_is_gone_says_so() {
    let env = cluster(1, 1).environment();
    let refused = counts(&env, 10).unwrap_err().to_string();
    assert!(refused.contains("its in-process cluster was dropped"), "{refused}");

    // And one that runs a job then is told too.
    let (cluster, seen) = (cluster(2, 1), Arc::new(AtomicU64::new(0)));
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        let counted = seen.clone();
        let job = scope.spawn(move || {
            let env = cluster.environment();
            send.send(cluster).unwrap();
            let numbers = env.generate(Sequence::endless().rate(1000.0), |n| n);
            numbers.rebalance().for_each(move |_| one_more(&counted));
            env.execute("endless").map(drop).unwrap_err().to_string()
        });
        let cluster = receive.recv().unwrap();
        eventually("records", || seen.load(Relaxed) > 100);
        drop(cluster);
        let told = job.join().unwrap();
        assert!(told.contains("the in-process cluster has ended"), "{told}");
    });
}

const ALONE: &str = "THALWEG_TEST_ALONE";

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Is the process that the test below starts, since threads and folders of other tests are not to be counted.
#[test]
fn alone() -> Result<(), ClusterError> {
    if std::env::var(ALONE).is_err() {
        return Ok(());
    }
    let before = threads();
    for round in 0..5 {
        let cluster = InProcessCluster::builder().start()?;
        assert!(folders().len() == 1 && threads() > before);
        counts(&cluster.environment(), 1000).unwrap();
        cluster.kill_task_manager(round % 2)?;
        cluster.start_task_manager()?;
        counts(&cluster.environment(), 1000).unwrap();
        drop(cluster);
        assert!(folders().is_empty(), "a dropped cluster leaves its folder");
        // A job that is running then ends too.
        let seen = Arc::new(AtomicU64::new(0));
        let cluster = InProcessCluster::builder().start()?;
        let (env, counted) = (cluster.environment(), seen.clone());
        let numbers = env.generate(Sequence::endless().rate(1000.0), |n| n);
        numbers.rebalance().for_each(move |_| one_more(&counted));
        drop(env.execute_async("endless"));
        eventually("records", || seen.load(Relaxed) > 10);
        drop(cluster);
        let at_its_end = seen.load(Relaxed);
        assert!(folders().is_empty());
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(seen.load(Relaxed), at_its_end, "tasks of a dropped cluster run on");
    }
    eventually("threads end", || threads() <= before);
    Ok(())
}

#[test]
fn a_cluster_that_is_dropped_leaves_no_folder_and_no_thread() {
    let dir = std::env::temp_dir().join(format!("thalweg-in-process-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["alone", "--exact", "--nocapture"]).env(ALONE, "yes").env("TMPDIR", &dir);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    std::fs::remove_dir_all(dir).unwrap();
}
