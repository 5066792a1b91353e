//! The engine as a task host sees it: hosts, attempts, cancels, failures, committers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "what other tests need of it")]
mod support;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use support::{Cluster, attempt};
use thalweg_dataflow::{
    Data, Freeze, OpId, Plan, PlanBuilder, TaskFailure,
    fold::{Combine, Merge, Pairs, Sum},
    gate_task::add_gate,
    key::{ByFirst, ByRef},
    ops::{Filter, Map},
    pipe::{Pipe, Then, close},
    routes::{KeyRoute, TurnRoute},
    sink::{Collect, Discard, ForEach, TextSink, add_sink, decode_collected},
    source::{Sequence, SocketText, Source, SourceHead, add_source},
};
use thalweg_env::Address;
use thalweg_model::{ExecutionState, FailureKind, Partitioner, RegionAttempt, Regions, SubtaskId, VertexRole};
use thalweg_wire::{Deploy, ExecutionMode, TaskDeployment};

fn freeze(b: &PlanBuilder, parallelism: u32) -> Plan {
    b.freeze(&Freeze { parallelism, max_parallelism: None, mode: ExecutionMode::Automatic })
        .unwrap_or_else(|e| panic!("{e:?}"))
}

fn tmp() -> PathBuf {
    std::env::temp_dir()
}

fn word(i: u64) -> String {
    format!("word number {}", i % 101)
}

fn first(pair: &(String, u64)) -> &str {
    &pair.0
}

fn then<P: Pipe, F>(b: &PlanBuilder, op: OpId, up: P, f: F) -> Then<P, Map<F>> {
    Then::new(up, Map(f), b.operator(op.vertex, "map", &[]).op)
}

/// Sequence, map to words, keyed sum, and back to the program.
fn words(n: u64, parallelism: u32) -> Plan {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..n));
    let pipe = then(&b, op, head, |i: u64| (word(i), i));
    let fold = Sum(|p: (String, u64)| p.1);
    let combine = b.operator(op.vertex, "combine", &[]);
    let pipe = Then::new(pipe, Combine { fold: fold.clone(), key: ByRef(first), gathers: true }, combine.op);
    let to = b.vertex(VertexRole::Task, None);
    let sum = b.operator(to, "sum", &[]);
    let edge = b.edge::<(String, u64)>(op.vertex, to, Partitioner::Hash, false);
    close(&b, op.vertex, pipe, KeyRoute { edge, timed: false, key: ByFirst });
    let inlet = add_gate::<(String, u64)>(&b, to, vec![edge], sum);
    add_sink(&b, to, Then::new(inlet, Merge::<_, (String, u64), _>::new(fold, Pairs), sum.op), Collect::new());
    freeze(&b, parallelism)
}

#[test]
fn a_keyed_job_runs_over_two_hosts_with_little_credit() {
    let n = 100_000;
    let c = Cluster::with(words(n, 4), 2, tmp(), 500, 1 << 14, 1 << 20);
    c.deploy(attempt(0));
    c.wait_prepared(attempt(0));
    assert_eq!(c.count(attempt(0), ExecutionState::Running), 4 * 2 + 2 + 1, "each ran, and the committer prepared");
    c.commit(attempt(0));
    c.wait_finished(attempt(0), 4 * 2 + 2);
    let reports = c.reports.all();
    let bytes = reports.iter().find_map(|r| r.collected.values().next().cloned()).unwrap();
    let got: BTreeMap<String, u64> = decode_collected::<(String, u64)>(&bytes).unwrap().into_iter().collect();
    let mut naive = BTreeMap::new();
    (0..n).for_each(|i| *naive.entry(word(i)).or_default() += i);
    assert_eq!(got, naive);
    let metrics: Vec<_> = c.engines.iter().flat_map(|e| e.metrics()).collect();
    let of = |v: u32| metrics.iter().filter(move |(s, ..)| s.vertex == v).map(|(.., m)| m);
    assert_eq!(of(0).map(|m| m.records_in).sum::<u64>(), n);
    let counter = c.plan.graph().vertices.iter().position(|v| v.operators[0].kind == "sum").unwrap() as u32;
    assert!(of(counter).all(|m| m.records_in > 0 && m.bytes_in > 0), "every counter had records over the border");
    assert_eq!(of(0).map(|m| m.records_out).sum::<u64>(), of(counter).map(|m| m.records_in).sum::<u64>());
    c.stop();
}

fn unbounded(range: std::ops::Range<u64>, rate: Option<f64>, own_thread: bool, parallelism: u32) -> Plan {
    let b = PlanBuilder::default();
    let source = Sequence::new(range);
    let (op, head) = add_source(&b, if let Some(r) = rate { source.rate(r) } else { source });
    if own_thread {
        b.set_own_thread(op.vertex);
    }
    let to = b.vertex(VertexRole::Task, None);
    let re = b.operator(to, "rebalance", &[]);
    let edge = b.edge::<u64>(op.vertex, to, Partitioner::Rebalance, false);
    close(&b, op.vertex, head, TurnRoute { edge, timed: false });
    add_sink(&b, to, add_gate::<u64>(&b, to, vec![edge], re), Discard);
    freeze(&b, parallelism)
}

/// Sooner than anything that is waited for would come by itself, and late enough for a machine that has much to do.
const AT_ONCE: Duration = Duration::from_secs(10);

#[test]
fn a_cancel_ends_busy_and_parked_tasks_at_once_and_each_reports_it_once() {
    // With a rate the readers sleep for a minute.
    for (rate, own) in [(None, false), (Some(0.03), false), (Some(0.03), true)] {
        let plan = unbounded(0..u64::MAX, rate, own, 2);
        let c = Cluster::new(plan, 2, tmp());
        c.deploy(attempt(0));
        let subtasks = c.plan.graph().subtasks() as usize;
        std::thread::sleep(Duration::from_millis(50));
        let clock = c.runtime.env.clock.clone();
        let began = clock.now();
        (0..2).for_each(|host| c.cancel(host, attempt(0)));
        // A task may hear first that its peer on the other host is gone: that is a loss, and the end all the same.
        assert!(c.reports.wait(|all| all.iter().filter(|r| r.state.is_terminal()).count() == subtasks));
        let took = clock.now().since(began);
        assert!(took < AT_ONCE, "{took:?}");
        c.stop();
        let ends: Vec<_> = c.reports.all().into_iter().filter(|r| r.state.is_terminal()).collect();
        assert_eq!(ends.len(), subtasks);
        assert!(ends.iter().filter_map(|r| r.failure.as_ref()).all(|f| f.kind == FailureKind::Lost), "{ends:?}");
        let canceled = c.count(attempt(0), ExecutionState::Canceled);
        c.deploy(attempt(0));
        let now = c.count(attempt(0), ExecutionState::Canceled);
        assert_eq!(now, canceled + subtasks, "a cancelled attempt does not start");
    }
}

#[test]
fn an_idle_job_parks() {
    let c = Cluster::new(unbounded(0..u64::MAX, Some(4.0), false, 2), 1, tmp());
    c.deploy(attempt(0));
    std::thread::sleep(Duration::from_millis(500));
    let (before, clock) = ((c.engines[0].parks(), cpu_ms()), c.runtime.env.clock.clone());
    let since = clock.now();
    std::thread::sleep(Duration::from_millis(1000));
    while c.engines[0].parks() == before.0 && clock.now().since(since) < AT_ONCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (parks, took) = (c.engines[0].parks() - before.0, clock.now().since(since));
    // Four numbers a second, each woken for by a timer and a ring, on two slots.
    assert!(parks > 0 && (parks as f64) < 200.0 * took.as_secs_f64(), "{parks} parks in {took:?}");
    println!("idle: {parks} parks in {took:?}, {} ms CPU of the whole test process", cpu_ms() - before.1);
    c.stop();
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

fn failing(f: impl FnMut(u64) + Clone + Send + 'static, parallelism: u32) -> Plan {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..1_000_000));
    let pipe = then(&b, op, head, |i: u64| i);
    let sink = add_sink(&b, op.vertex, pipe, ForEach(f));
    b.set_uid(sink, "the sink".into());
    let (op, head) = add_source(&b, Sequence::new(0..50));
    add_sink(&b, op.vertex, head, Discard);
    freeze(&b, parallelism)
}

#[test]
fn a_panic_fails_its_task_and_not_the_others_of_its_slot() {
    thalweg_dataflow::capture_backtraces();
    let c = Cluster::new(failing(|i| assert!(i != 70, "seventy"), 1), 1, tmp());
    c.deploy(attempt(0));
    // Source, its coordinator and the other source with its coordinator share the slot.
    assert!(c.reports.wait(|all| {
        let count = |s| all.iter().filter(|r| r.state == s).count();
        count(ExecutionState::Failed) == 1 && count(ExecutionState::Finished) >= 2
    }));
    let failure = c.reports.all().into_iter().find_map(|r| r.failure).unwrap();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::UserPanic, Some("the sink")));
    assert!(failure.message.contains("seventy") && failure.subtask.is_some());
    assert!(failure.detail.unwrap().contains("engine.rs"), "the place is told");
    assert_eq!(c.count(attempt(0), ExecutionState::Canceled), 0);
    c.cancel(0, attempt(0));
    c.stop();
    let all = c.reports.all();
    for s in all.iter().map(|r| r.subtask) {
        let ends = all.iter().filter(|r| r.subtask == s && r.state.is_terminal()).count();
        assert_eq!(ends, 1, "{s} ends once");
    }
}

#[test]
fn what_is_wrong_with_a_deployment_is_a_failed_task() {
    let c = Cluster::new(words(10, 2), 1, tmp());
    let mut placement = c.placement();
    let task = |vertex, index| TaskDeployment { subtask: SubtaskId { vertex, index }, publish: None };
    placement.hosts[0].task_manager = support::name(9);
    let tasks = vec![task(0, 0)];
    c.engines[0].deploy(Deploy { attempt: attempt(0), tasks, placement, descriptors: vec![] });
    let tasks = vec![task(99, 0), task(0, 77)];
    c.engines[0].deploy(Deploy { attempt: attempt(1), tasks, placement: c.placement(), descriptors: vec![] });
    let mut remote = c.placement();
    remote.hosts.push(remote.hosts[0].clone());
    remote.hosts[1].task_manager = support::name(1);
    // The coordinator is elsewhere, and no descriptor says where.
    let coordinator = c.plan.graph().vertices.iter().position(|v| v.role == VertexRole::Coordinator).unwrap();
    remote.subtasks[coordinator][0].host = 1;
    let tasks = vec![task(0, 1)];
    c.engines[0].deploy(Deploy { attempt: attempt(2), tasks, placement: remote, descriptors: vec![] });
    let failed = |n| move |all: &[thalweg_wire::TaskReport]| all.iter().filter(|r| r.failure.is_some()).count() == n;
    assert!(c.reports.wait(failed(4)));
    let messages: Vec<_> = c.reports.all().into_iter().filter_map(|r| r.failure).map(|f| f.message).collect();
    for part in ["does not know TaskManager host-0", "subtask 99/0", "subtask 0/77", "no descriptor for edge"] {
        assert!(messages.iter().any(|m| m.contains(part)), "{part} not in {messages:?}");
    }
    c.stop();
}

#[test]
fn a_higher_attempt_takes_over_and_a_lower_one_is_not_started() {
    let c = Cluster::new(unbounded(0..u64::MAX, None, false, 2), 2, tmp());
    let subtasks = c.plan.graph().subtasks() as usize;
    c.deploy(attempt(0));
    c.deploy(attempt(1));
    assert!(c.reports.wait(|all| {
        let of = |n, s| all.iter().filter(|r| r.attempt.n == n && r.state == s).count();
        of(0, ExecutionState::Canceled) == subtasks && of(1, ExecutionState::Running) == subtasks
    }));
    c.deploy(attempt(0));
    assert_eq!(c.count(attempt(0), ExecutionState::Canceled), 2 * subtasks);
    assert_eq!(c.count(attempt(1), ExecutionState::Failed), 0);
    assert!(c.engines[0].metrics().iter().all(|(_, of, _)| *of == attempt(1)));
    c.stop();
}

/// Two pipelines that have nothing to do with each other.
fn two_regions() -> Plan {
    let b = PlanBuilder::default();
    for _ in 0..2 {
        let (op, head) = add_source(&b, Sequence::new(0..u64::MAX));
        let to = b.vertex(VertexRole::Task, None);
        let re = b.operator(to, "rebalance", &[]);
        let edge = b.edge::<u64>(op.vertex, to, Partitioner::Rebalance, false);
        close(&b, op.vertex, head, TurnRoute { edge, timed: false });
        add_sink(&b, to, add_gate::<u64>(&b, to, vec![edge], re), Discard);
    }
    freeze(&b, 2)
}

#[test]
fn a_region_is_cancelled_and_started_again_while_the_other_goes_on_in_the_same_slots() {
    let c = Cluster::new(two_regions(), 2, tmp());
    let regions = Regions::of(c.plan.graph());
    assert_eq!(regions.count(), 2);
    c.deploy(attempt(0));
    let subtasks = c.plan.graph().subtasks() as usize;
    let running = |n: u32, count: usize| {
        move |all: &[thalweg_wire::TaskReport]| {
            all.iter().filter(|r| r.attempt.n == n && r.state == ExecutionState::Running).count() == count
        }
    };
    assert!(c.reports.wait(running(0, subtasks)));
    let one = RegionAttempt { region: 1, attempt: attempt(0) };
    c.engines.iter().for_each(|e| e.cancel(&[one]));
    assert!(c.reports.wait(|all| all.iter().filter(|r| r.state.is_terminal()).count() == subtasks / 2));
    let ended: Vec<_> = c.reports.all().into_iter().filter(|r| r.state.is_terminal()).collect();
    assert!(ended.iter().all(|r| regions.region(r.subtask) == 1), "{ended:?}");
    // The whole is deployed under the next attempt to the cancelled region alone.
    c.deploy_if(attempt(1), |subtask| regions.region(subtask) == 1);
    assert!(c.reports.wait(running(1, subtasks / 2)));
    // What the region that was left alone has taken in goes up, in the slots that it shares.
    let records = || -> u64 {
        let all = c.engines.iter().flat_map(|e| e.metrics());
        all.filter(|(s, of, _)| regions.region(*s) == 0 && *of == attempt(0)).map(|(.., m)| m.records_in).sum()
    };
    let before = records();
    let clock = c.runtime.env.clock.clone();
    let began = clock.now();
    while records() <= before {
        assert!(clock.now().since(began) < Duration::from_secs(5), "the other region stands still");
        std::thread::sleep(Duration::from_millis(5));
    }
    let newest = c.engines[0].metrics();
    assert!(newest.iter().all(|(s, of, _)| of.n == regions.region(*s)), "{newest:?}");
    let failures: Vec<_> = c.reports.all().into_iter().filter_map(|r| r.failure).collect();
    assert!(
        failures.iter().all(|f| f.kind == FailureKind::Lost && regions.region(f.subtask.unwrap()) == 1),
        "{failures:?}"
    );
    c.stop();
}

fn text(dir: &str, n: u64) -> Plan {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..n));
    add_sink(&b, op.vertex, head, TextSink::new(dir));
    freeze(&b, 3)
}

fn files(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn output_is_published_by_the_commit_and_publishing_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let c = Cluster::new(text("out", 30_000), 2, dir.path().to_owned());
    let committer = c.committers()[0];
    c.commit(attempt(0));
    c.deploy(attempt(0));
    c.wait_prepared(attempt(0));
    assert!(files(&out).iter().all(|f| f.starts_with(".part-")), "nothing is visible yet");
    // Of another attempt: ignored.
    c.commit(attempt(1));
    std::thread::sleep(Duration::from_millis(20));
    assert!(files(&out).iter().all(|f| f.starts_with(".part-")));
    let hidden = files(&out);
    let marker = hidden[0].split_once(".inprogress-").unwrap().1;
    std::fs::write(out.join(format!(".part-7-0-0.inprogress-{marker}")), "of an attempt that is no more").unwrap();
    let manifest = c.reports.all().into_iter().find_map(|r| r.prepared).unwrap();
    c.commit(attempt(0));
    c.wait_finished(attempt(0), c.plan.graph().subtasks() as usize);
    let names = files(&out);
    assert!(names.iter().all(|f| f.starts_with("part-")), "{names:?}");
    let lines = || {
        let mut all: Vec<u64> = Vec::new();
        for f in files(&out) {
            all.extend(std::fs::read_to_string(out.join(f)).unwrap().lines().map(|l| l.parse::<u64>().unwrap()));
        }
        all.sort_unstable();
        all
    };
    assert_eq!(lines(), (0..30_000).collect::<Vec<_>>());

    // After a fail-over only the committer is deployed, with the manifest that was recorded; one file was not renamed.
    let before = hidden.iter().find(|name| name.starts_with(&format!(".{}-", names[0]))).unwrap();
    std::fs::rename(out.join(&names[0]), out.join(before)).unwrap();
    let publish: BTreeMap<SubtaskId, Bytes> = [(committer, manifest.clone())].into();
    c.deploy_to(0, attempt(1), &publish);
    c.wait_finished(attempt(1), 1);
    assert_eq!((files(&out), lines()), (names.clone(), (0..30_000).collect::<Vec<_>>()));

    // A file that is gone altogether is told.
    std::fs::remove_file(out.join(&names[0])).unwrap();
    c.deploy_to(0, attempt(2), &publish);
    assert!(c.reports.wait(|all| all.iter().any(|r| r.state == ExecutionState::Failed)));
    let failure = c.reports.all().into_iter().find_map(|r| r.failure).unwrap();
    assert_eq!(failure.kind, FailureKind::Storage);
    c.stop();
}

/// Numbers become records, which go round to two hosts; what fails there.
fn failure_between_hosts<T: Data>(n: u64, f: impl FnMut(u64) -> T + Clone + Send + 'static) -> TaskFailure {
    let b = PlanBuilder::default();
    let (op, head) = add_source(&b, Sequence::new(0..n));
    b.set_parallelism(op.vertex, 1);
    let pipe = then(&b, op, head, f);
    let to = b.vertex(VertexRole::Task, None);
    let re = b.operator(to, "rebalance", &[]);
    let edge = b.edge::<T>(op.vertex, to, Partitioner::Rebalance, false);
    close(&b, op.vertex, pipe, TurnRoute { edge, timed: false });
    let inlet = add_gate::<T>(&b, to, vec![edge], re);
    let keep = b.operator(to, "filter", &[]);
    add_sink(&b, to, Then::new(inlet, Filter(|_: &T| true), keep.op), Discard);
    let c = Cluster::with(freeze(&b, 2), 2, tmp(), 1 << 20, 1 << 20, 5000);
    c.deploy(attempt(0));
    assert!(c.reports.wait(|all| all.iter().any(|r| r.failure.is_some())));
    let failure = c.reports.all().into_iter().find_map(|r| r.failure).unwrap();
    c.stop();
    failure
}

#[test]
fn a_record_that_is_too_long_for_the_exchange_is_a_named_error() {
    let failure = failure_between_hosts(20_000, |i| "x".repeat(if i % 1000 == 999 { 6000 } else { 1 }));
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::User, Some("map-1")));
    assert!(failure.message.contains("exchange.max-record is 5000"), "{failure}");
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Number(u64),
}

#[test]
fn records_that_can_be_written_but_not_read_are_a_named_error_of_the_program() {
    let failure = failure_between_hosts(20_000, Loose::Number);
    assert_eq!(failure.kind, FailureKind::User);
    assert!(failure.message.contains("Loose") && failure.message.contains("untagged"), "{failure}");
}

fn to_sink<S: Source<Item = String>>(source: S, own_thread: bool) -> Plan {
    let b = PlanBuilder::default();
    let (op, head): (OpId, SourceHead<S>) = add_source(&b, source);
    b.set_parallelism(op.vertex, 1);
    if own_thread {
        b.set_own_thread(op.vertex);
    }
    add_sink(&b, op.vertex, head, Collect::new());
    freeze(&b, 1)
}

#[test]
fn a_socket_gives_its_lines_and_is_cancelled_while_it_waits() {
    for own_thread in [false, true] {
        let server = TestServer::new();
        let c = Cluster::new(to_sink(SocketText::new(server.address()), own_thread), 1, tmp());
        c.deploy(attempt(0));
        let mut peer = server.accept();
        server.send(&mut peer, "one\r\ntwo\nthr");
        std::thread::sleep(Duration::from_millis(30));
        server.send(&mut peer, "ee");
        drop(peer);
        c.wait_prepared(attempt(0));
        let bytes = c.reports.all().into_iter().find_map(|r| r.collected.into_values().next()).unwrap();
        assert_eq!(decode_collected::<String>(&bytes).unwrap(), ["one", "two", "three"]);
        c.commit(attempt(0));
        c.deploy(attempt(1));
        let _peer = server.accept();
        let clock = c.runtime.env.clock.clone();
        let began = clock.now();
        c.cancel(0, attempt(1));
        assert!(c.reports.wait(|all| {
            all.iter().filter(|r| r.attempt.n == 1 && r.state == ExecutionState::Canceled).count() == 3
        }));
        assert!(clock.now().since(began) < AT_ONCE);
        c.stop();
    }
}

struct TestServer {
    runtime: thalweg_dataflow::testing::TestRuntime,
    listener: Box<dyn thalweg_env::Listener>,
}

impl TestServer {
    fn new() -> Self {
        let runtime = thalweg_dataflow::testing::TestRuntime::new().unwrap();
        let at = Address::Tcp("127.0.0.1:0".into());
        let listener = runtime.block_on(async { runtime.env.network.listen(&at).await }).unwrap();
        Self { runtime, listener }
    }
    fn address(&self) -> String {
        self.listener.address().to_string().trim_start_matches("tcp://").to_owned()
    }
    fn accept(&self) -> thalweg_env::BoxStream {
        self.runtime.block_on(self.listener.accept()).unwrap().0
    }
    fn send(&self, to: &mut thalweg_env::BoxStream, text: &str) {
        use tokio::io::AsyncWriteExt;
        self.runtime.block_on(async {
            to.write_all(text.as_bytes()).await.unwrap();
            to.flush().await.unwrap();
        });
    }
}
