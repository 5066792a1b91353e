//! Whole programs, from the API down to slots, against naive answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_api::{Environment, ProcessingTimeWindows, SinkRef, TextOutput, prelude::*, testing};
use thalweg_model::{FailureKind, JobStatus, VertexRole};

fn env(parallelism: u32) -> Environment {
    testing::environment(parallelism, std::env::temp_dir()).unwrap()
}

fn words(text: &[u8]) -> BTreeMap<Vec<u8>, u64> {
    let mut counts = BTreeMap::new();
    let space = |b: &u8| matches!(b, b' ' | b'\t'..=b'\r');
    for w in text.split(space).filter(|w| !w.is_empty()) {
        *counts.entry(w.to_vec()).or_default() += 1;
    }
    counts
}

#[test]
fn operators_do_what_their_names_say() {
    for parallelism in [1, 3] {
        let env = env(parallelism);
        let out = env
            .sequence(0..1000)
            .map(|i| i * 2)
            .filter(|i| i % 3 == 0)
            .filter_map(|i| (i % 5 != 0).then_some(i))
            .flat_map(|i| [i, i + 1])
            .inspect(|_| ())
            .try_map(i32::try_from)
            .collect();
        let mut got = env.execute("operators").unwrap().collected(&out).unwrap();
        got.sort_unstable();
        let naive: Vec<i32> =
            (0..1000).map(|i| i * 2).filter(|i| i % 3 == 0 && i % 5 != 0).flat_map(|i| [i, i + 1]).collect();
        assert_eq!(got, naive);
    }
}

#[test]
fn keyed_aggregates_give_final_results_in_batch_and_every_update_in_streaming() {
    for parallelism in [1, 4] {
        let env = env(parallelism);
        for mode in [ExecutionMode::Batch, ExecutionMode::Streaming] {
            env.mode(mode);
            let [a, b] = env.sequence(0..10_000).split();
            let [b, c] = b.boxed().split();
            let counts = a.key_by(|i| i % 7).count().collect();
            let sums = b.key_by(|i| i % 7).sum(|i| i).collect();
            let largest = c.key_by(|i| i % 7).reduce(|a, b| *a = (*a).max(b)).collect();
            let result = env.execute("keyed").unwrap();
            let last = |pairs: Vec<(u64, u64)>| {
                pairs.into_iter().fold(BTreeMap::new(), |mut all, (k, v)| {
                    let old: &mut u64 = all.entry(k).or_default();
                    *old = v.max(*old);
                    all
                })
            };
            let (counts, sums) = (result.collected(&counts).unwrap(), result.collected(&sums).unwrap());
            let largest = result.collected(&largest).unwrap();
            let expected = if mode == ExecutionMode::Batch { 7 } else { 10_000 };
            assert_eq!((counts.len(), sums.len(), largest.len()), (expected, expected, expected));
            let naive =
                |f: &dyn Fn(u64) -> u64| (0..7).map(|k| (k, (0..10_000).filter(|i| i % 7 == k).map(f).sum())).collect();
            assert_eq!(last(counts), naive(&|_| 1));
            assert_eq!(last(sums), naive(&|i| i));
            assert_eq!(largest.iter().max(), Some(&9999));
        }
    }
}

#[derive(Clone)]
struct EveryTenth;
impl KeyedProcess<(String, u64)> for EveryTenth {
    type Key = String;
    type State = u64;
    type Out = String;
    fn process(&mut self, item: (String, u64), seen: &mut u64, ctx: &mut impl KeyedContext<String, String>) {
        *seen += 1;
        if seen.is_multiple_of(10) {
            ctx.emit(format!("{} {}", ctx.key(), item.1));
        }
    }
}

#[test]
fn keyed_functions_keep_one_state_a_key() {
    let env = env(3);
    let keyed = |i: u64| (format!("key number {}", i % 13), i);
    let [a, b] = env.sequence(0..1300).map(keyed).split();
    let tenths = a.key_by_ref(|p| p.0.as_str()).process(EveryTenth).collect();
    let numbered = b
        .key_by(|p| p.1 % 13)
        .stateful_map(|n: &mut u64, _| {
            *n += 1;
            *n
        })
        .collect();
    let result = env.execute("process").unwrap();
    assert_eq!(result.collected(&tenths).unwrap().len(), 130);
    let mut numbered = result.collected(&numbered).unwrap();
    numbered.sort_unstable();
    assert_eq!(numbered, (0..1300).map(|i| i / 13 + 1).collect::<Vec<_>>());
}

#[test]
fn union_rebalance_and_top_see_every_record_once() {
    let env = env(2);
    let a = env.sequence(0..5000).rebalance();
    let b = env.from_collection(5000..8000u64).parallelism(1);
    let top = a.union(b).map(|i| i ^ 1).top(3, Ord::cmp).collect();
    let result = env.execute("top").unwrap();
    assert_eq!(result.collected(&top).unwrap(), [7999, 7998, 7997]);
    assert_eq!(result.source_records(), 8000);
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

#[test]
fn words_of_any_bytes_are_counted_like_a_naive_loop_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    let pieces: [&[u8]; 6] = [b"alpha", b"\xff\xfe", "größe".as_bytes(), b"x", b"\x0b", b"beta\rgamma"];
    let mut seed = 7u64;
    for file in 0..5 {
        let mut text = Vec::new();
        for _ in 0..20_000 * file {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            text.extend_from_slice(pieces[(seed >> 33) as usize % pieces.len()]);
            text.push(b" \n\t\n "[(seed >> 40) as usize % 5]);
        }
        write(dir.path(), &format!("in/deep/{file}"), &text);
        all.extend_from_slice(&text);
        all.push(b'\n');
    }
    // A link is not followed within a folder.
    std::os::unix::fs::symlink(dir.path().join("in/deep/4"), dir.path().join("in/link")).unwrap();
    let env = testing::environment(3, dir.path()).unwrap();
    let counts = env.read_blocks(["in"]).key_each(TextBlock::words).count();
    counts.write_lines("out", |(w, n), line| {
        line.extend_from_slice(w);
        line.extend_from_slice(format!(" {n}").as_bytes());
    });
    env.execute("words").unwrap();
    let mut got = BTreeMap::new();
    for part in std::fs::read_dir(dir.path().join("out")).unwrap() {
        let part = part.unwrap();
        assert!(part.file_name().to_str().unwrap().starts_with("part-"), "{part:?}");
        for line in std::fs::read(part.path()).unwrap().split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let at = line.iter().rposition(|b| *b == b' ').unwrap();
            got.insert(line[..at].to_vec(), std::str::from_utf8(&line[at + 1..]).unwrap().parse().unwrap());
        }
    }
    assert_eq!(got, words(&all));

    let lines = env.read_text("in").map(|l| l.len() as u64).key_by(|_| 0u8).count().collect();
    let result = env.execute("lines").unwrap();
    let naive = all.iter().filter(|b| **b == b'\n').count() as u64 - 5 + 4;
    let got = result.collected(&lines).unwrap()[0].1;
    assert!(got <= naive + 1 && got >= naive - 5, "{got} lines, {naive} line ends");
    assert_eq!(result.source_records(), got);
}

#[test]
fn output_is_refused_where_something_is_unless_overwriting() {
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(2, dir.path()).unwrap();
    // What a job that was killed left over is no output, and is not removed: it may be of one that runs.
    let others = ".part-0-0-0.inprogress-0123456789abcdef";
    write(dir.path(), &format!("killed/{others}"), b"left over");
    env.sequence(0..10).write_text("killed");
    env.execute("beside").unwrap();
    assert_eq!(std::fs::read(dir.path().join("killed").join(others)).unwrap(), b"left over");
    write(dir.path(), "out/part-9", b"old");
    env.sequence(0..10).write_text("out");
    let error = env.execute("refused").unwrap_err().to_string();
    assert!(
        error.contains("is not empty: name another one, or have it replaced by TextOutput::overwrite()"),
        "{error}"
    );
    env.sequence(0..10).write_text(TextOutput::new("out").overwrite());
    env.execute("overwrites").unwrap();
    let mut lines: Vec<u64> = Vec::new();
    for part in std::fs::read_dir(dir.path().join("out")).unwrap() {
        let part = part.unwrap().path();
        let name = part.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("part-") && name != "part-9", "{name}");
        lines.extend(std::fs::read_to_string(part).unwrap().lines().map(|l| l.parse::<u64>().unwrap()));
    }
    lines.sort_unstable();
    assert_eq!(lines, (0..10).collect::<Vec<_>>());

    env.read_text("nowhere").discard();
    let error = env.execute("no input").unwrap_err().to_string();
    assert!(error.contains("nowhere does not exist (relative paths start in the client's folder)"), "{error}");
}

#[test]
fn what_is_wrong_with_a_program_is_said_at_once_with_its_place() {
    let env = env(2);
    let _ = env.sequence(0..1).map(|i| i).uid("a");
    env.sequence(0..1).uid("same").map(|i| i).uid("same").parallelism(0).discard();
    let [_a, b] = env.sequence(0..1).split();
    b.discard();
    let error = env.execute("wrong").unwrap_err().to_string();
    for part in ["what comes out of map (", "uid \"same\" is used twice", "parallelism 0", "tests/programs.rs:"] {
        assert!(error.contains(part), "{part} not in {error}");
    }
    let error = env.execute("empty").unwrap_err().to_string();
    assert!(error.contains("the program has no stream"), "{error}");
    env.mode(ExecutionMode::Batch).socket_text("localhost:1").discard();
    let error = env.execute("unbounded").unwrap_err().to_string();
    assert!(error.contains("socket-source") && error.contains("use streaming mode"), "{error}");
}

#[test]
fn a_panic_in_a_key_or_a_partitioner_names_the_operator_that_it_is_for() {
    fn bad(i: u64) -> u64 {
        assert!(i != 700, "number {i} is bad");
        i
    }
    fn numbers(env: &Environment) -> DataStream<u64> {
        env.sequence(0..1000).map(|i| i).uid("before").boxed()
    }
    let hour = TumblingProcessingTimeWindows::of(Duration::from_secs(3600));
    let programs: [fn(&Environment, ProcessingTimeWindows) -> SinkRef; 4] = [
        |env, _| numbers(env).key_by(|i| bad(*i)).stateful_map(|(): &mut (), i| i).uid("it").discard(),
        |env, _| numbers(env).key_by(|i| bad(*i)).count().uid("it").discard(),
        |env, _| numbers(env).partition_custom(|i, _| bad(*i) as usize).uid("it").map(|i| i).discard(),
        |env, hour| {
            let joined = numbers(env).key_by(|i| bad(*i)).join(env.sequence(0..10).key_by(|i| *i)).window(hour);
            joined.apply(|a, b| (*a, *b)).uid("it").discard()
        },
    ];
    for (i, program) in programs.into_iter().enumerate() {
        let env = env(2);
        let _ = program(&env, hour);
        let JobError::Failed(result) = env.execute("panics").unwrap_err() else { panic!() };
        let failure = result.failure().unwrap();
        let uid = failure.uid.as_deref().unwrap();
        assert!(uid == "it" || uid.starts_with("it/"), "{i}: {failure:?}");
        assert!(failure.message.contains("number 700 is bad"), "{i}: {failure}");
    }
}

#[test]
fn a_panic_and_an_error_fail_the_job_and_name_their_operator() {
    let env = env(2);
    env.sequence(0..1000)
        .map(|i| i)
        .map(|i| {
            assert!(i != 700, "number {i} is bad");
            i
        })
        .uid("picky")
        .map(|i| i)
        .discard();
    let JobError::Failed(result) = env.execute("panics").unwrap_err() else { panic!() };
    let failure = result.failure().unwrap();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::UserPanic, Some("picky")));
    assert!(failure.message.contains("number 700 is bad"), "{failure}");
    assert_eq!(result.wire().status, JobStatus::Failed);

    let seen = Arc::new(AtomicU64::new(0));
    let sees = seen.clone();
    let out = env.sequence(0..1000).try_map(|i| if i == 500 { Err("five hundred") } else { Ok(i) }).uid("tries");
    out.for_each(move |_| {
        sees.fetch_add(1, Ordering::Relaxed);
    });
    let JobError::Failed(result) = env.execute("fails").unwrap_err() else { panic!() };
    let failure = result.failure().unwrap();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::User, Some("tries")));
    assert!(failure.message.contains("five hundred") && seen.load(Ordering::Relaxed) < 1000);
}

#[test]
fn several_programs_in_one_main_and_settings() {
    let env = env(2);
    env.parallelism(3).max_parallelism(200);
    let a = env.from_collection(vec![1u64, 2, 3]).collect();
    let first = env.execute("first").unwrap();
    let n = first.collected(&a).unwrap().len() as u64;
    let b = env.sequence(0..n).collect().with_uid("named");
    let second = env.execute("second").unwrap();
    assert_eq!(second.collected(&b).unwrap().len(), 3);
    assert_eq!(b.uid(), Some("named"));
    assert!(second.collected(&a).is_err(), "of another program");
    assert_eq!(env.on_client(|| 1), Some(1));
}

#[test]
fn derived_uids_are_stable_and_companions_follow_their_operator() {
    let plan = || {
        let b = thalweg_dataflow::PlanBuilder::default();
        let (op, head) = thalweg_dataflow::source::add_source(&b, thalweg_api::Sequence::new(0..5));
        b.set_uid(op, "numbers".into());
        thalweg_dataflow::sink::add_sink(&b, op.vertex, head, thalweg_dataflow::sink::Collect::new());
        let with = thalweg_dataflow::Freeze { parallelism: 2, max_parallelism: None, mode: ExecutionMode::Automatic };
        b.freeze(&with).unwrap()
    };
    let graph = plan().graph().clone();
    assert_eq!(graph.diff(plan().graph()), None);
    let uids: Vec<_> = graph.vertices.iter().flat_map(|v| &v.operators).map(|o| o.uid.as_str()).collect();
    assert_eq!(uids, ["numbers", "collect-sink-1", "numbers/coordinator", "collect-sink-1/committer"]);
    let names: Vec<_> = graph.vertices.iter().map(|v| v.name()).collect();
    let told_apart = ["sequence-source -> collect-sink", "numbers/coordinator", "collect-sink-1/committer"];
    assert_eq!(names, told_apart, "as people see them");
    let roles: Vec<_> = graph.vertices.iter().map(|v| (v.role, v.parallelism)).collect();
    assert_eq!(roles, [(VertexRole::Task, 2), (VertexRole::Coordinator, 1), (VertexRole::Committer, 1)]);
}

#[test]
fn a_slot_sharing_group_goes_on_until_another_one_is_named() {
    use thalweg_dataflow::{gate_task::add_gate, pipe::close, routes::TurnRoute};
    let b = thalweg_dataflow::PlanBuilder::default();
    let rebalance = thalweg_model::Partitioner::Rebalance;
    let (source, head) = thalweg_dataflow::source::add_source(&b, thalweg_api::Sequence::new(0..5));
    let [inner, back] = [(); 2].map(|()| b.vertex(VertexRole::Task, None));
    let [first, second] = [(source.vertex, inner), (inner, back)].map(|(f, t)| b.edge::<u64>(f, t, rebalance, false));
    close(&b, source.vertex, head, TurnRoute { edge: first, timed: false });
    let inlet = add_gate::<u64>(&b, inner, vec![first], b.operator(inner, "inner", &[]));
    close(&b, inner, inlet, TurnRoute { edge: second, timed: false });
    let inlet = add_gate::<u64>(&b, back, vec![second], b.operator(back, "back", &[]));
    thalweg_dataflow::sink::add_sink(&b, back, inlet, thalweg_dataflow::sink::Collect::new());
    b.set_slot_sharing_group(source.vertex, "apart".into());
    b.set_slot_sharing_group(back, "default".into());
    let with = thalweg_dataflow::Freeze { parallelism: 2, max_parallelism: None, mode: ExecutionMode::Automatic };
    let graph = b.freeze(&with).unwrap().graph().clone();
    let groups: Vec<_> = graph
        .vertices
        .iter()
        .map(|v| (v.operators.last().unwrap().uid.as_str(), v.slot_sharing_group.as_deref()))
        .collect();
    let apart = Some("apart");
    let expected = [
        ("sequence-source-1", apart),
        ("sequence-source-1/coordinator", apart),
        ("inner-1", apart),
        ("collect-sink-1", None),
        ("collect-sink-1/committer", None),
    ];
    assert_eq!(groups, expected);
    assert_eq!(graph.slots(), 4);
}

/// How many records each slot's thread had.
fn by_slot(deal: impl Fn(DataStream<u64>) -> DataStream<u64>, records: u64) -> Vec<u64> {
    let seen = Arc::new(std::sync::Mutex::new(BTreeMap::<String, u64>::new()));
    let (env, counts) = (env(3), seen.clone());
    deal(env.sequence(0..records).parallelism(1).boxed()).for_each(move |_| {
        let slot = std::thread::current().name().unwrap_or_default().to_owned();
        *counts.lock().unwrap().entry(slot).or_default() += 1;
    });
    env.execute("dealt").unwrap();
    let seen = seen.lock().unwrap();
    seen.values().copied().collect()
}

#[test]
fn few_records_are_dealt_out_too() {
    assert_eq!(by_slot(|s| s.rebalance(), 9), [3, 3, 3]);
    assert_eq!(by_slot(|s| s.start_new_chain().parallelism(3), 300), [100, 100, 100]);
    let by_chance = by_slot(|s| s.shuffle(), 300);
    assert!(by_chance.len() == 3 && by_chance.iter().all(|n| (50..150).contains(n)), "{by_chance:?}");
}

/// Writes a string where it reads a number.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Disagrees {
    id: u64,
    #[serde(serialize_with = "as_text")]
    n: u64,
}

fn as_text<S: serde::Serializer>(n: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&n.to_string())
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Flat {
    #[serde(flatten)]
    rest: BTreeMap<String, u64>,
}

/// Is left out for some records, so that only these cannot be read.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    id: u64,
}

#[test]
fn what_cannot_be_collected_is_told_with_what_to_do() {
    fn refused<T: thalweg_dataflow::Data + Clone>(make: impl FnMut(u64) -> T + Clone + Send + 'static) -> String {
        let env = env(1);
        let all = env.sequence(0..100).map(make).collect();
        let error = match env.execute("collects") {
            Ok(result) => result.collected(&all).map(|all| all.len()).unwrap_err(),
            Err(e) => e,
        };
        let error = error.to_string();
        assert!(error.contains(std::any::type_name::<T>()) && error.contains("a string of JSON"), "{error}");
        assert!(!error.contains("is not known"), "{error}");
        error
    }
    assert!(refused(|id| Disagrees { id, n: 48 }).contains("must agree"));
    assert!(refused(Untagged::Number).contains("untagged"));
    assert!(refused(|n| Flat { rest: BTreeMap::from([("n".to_owned(), n)]) }).contains("flatten"));
    // The first one can be.
    let late = refused(|id| Skips { n: (id < 50).then_some(1), id });
    assert!(late.contains("the job has finished, and what it collected cannot be read"), "{late}");
    // Records without bytes can.
    let env = env(2);
    let units = env.sequence(0..100).map(|_| ()).collect();
    assert_eq!(env.execute("units").unwrap().collected(&units).unwrap().len(), 100);
}
