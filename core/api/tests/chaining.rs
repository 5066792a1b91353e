//! Which operators share a chain, and that a program's answer does not depend on it. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod taken;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;
use taken::graph_of;
use thalweg_api::{DataStream, prelude::*, testing};
use thalweg_model::{JobGraph, Partitioner, VertexRole};

/// The names of the operators of each vertex of tasks, and its parallelism.
fn chains(graph: &JobGraph) -> Vec<(String, u32)> {
    let tasks = graph.vertices.iter().filter(|v| v.role == VertexRole::Task);
    let names = |v: &thalweg_model::Vertex| v.operators.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(" ");
    tasks.map(|v| (names(v), v.parallelism)).collect()
}

fn streaming(program: impl FnOnce(&Environment)) -> Vec<(String, u32)> {
    chains(&graph_of(ExecutionMode::Streaming, program).unwrap())
}

fn of(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(names, parallelism)| ((*names).to_owned(), *parallelism)).collect()
}

#[test]
fn an_operator_alone_is_apart_from_what_is_before_and_behind_it() {
    let got = streaming(|env| {
        let stream =
            env.sequence(0..9).map(|i| i).name("a").map(|i| i).disable_chaining().name("b").uid("u").parallelism(3);
        stream.map(|i| i).name("c").discard();
    });
    assert_eq!(got, of(&[("sequence-source a", 2), ("b", 3), ("chain c discard-sink", 2)]));
    let graph = graph_of(ExecutionMode::Streaming, |env| {
        env.sequence(0..9).map(|i| i).disable_chaining().uid("u").for_each(|_| ());
    });
    let graph = graph.unwrap();
    // Subtask i feeds subtask i, and the sink is behind a chain of its own too.
    assert_eq!(chains(&graph), of(&[("sequence-source", 2), ("map", 2), ("chain for-each-sink", 2)]));
    assert_eq!(graph.vertices.iter().filter(|v| v.operators[0].uid == "u").count(), 1);
    let forward = graph.edges.iter().filter(|e| !e.feedback && e.partitioner == Partitioner::Forward);
    assert!(forward.count() >= 2, "{:?}", graph.edges);
}

#[test]
fn it_keeps_what_was_said_of_its_chain() {
    let got = streaming(|env| drop(env.sequence(0..9).map(|i| i).parallelism(3).disable_chaining().discard()));
    assert_eq!(got, of(&[("sequence-source", 3), ("map", 3), ("chain discard-sink", 2)]));
    let own = |program: fn(&Environment)| {
        let graph = graph_of(ExecutionMode::Streaming, program).unwrap();
        graph.vertices.iter().filter(|v| v.own_thread).map(|v| v.operators[0].kind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(own(|env| drop(env.sequence(0..9).map(|i| i).disable_chaining().own_thread().discard())), ["map"]);
    let grouped = graph_of(ExecutionMode::Streaming, |env| {
        env.sequence(0..9).slot_sharing_group("x").map(|i| i).disable_chaining().slot_sharing_group("y").discard();
    });
    assert_eq!(grouped.unwrap().slots(), 4);
}

#[test]
fn no_exchange_is_added_where_there_is_one() {
    // In front: the first behind an exchange, of a vertex of its own, and a source. Behind: an exchange follows.
    let got = streaming(|env| {
        env.sequence(0..9)
            .disable_chaining()
            .rebalance()
            .map(|i| i)
            .disable_chaining()
            .key_by(|i| *i)
            .max(|i| i)
            .discard();
    });
    assert_eq!(got, of(&[("sequence-source", 2), ("rebalance map", 2), ("chain combine", 2), ("max discard-sink", 2)]));
    let got = streaming(|env| {
        let wide = env.sequence(0..9).key_by(|i| *i).stateful_map(|n: &mut u64, i| *n + i).disable_chaining();
        wide.global().discard();
    });
    assert_eq!(got.len(), 3, "{got:?}");
    // Each branch of a split is behind a chain of its own.
    let got = streaming(|env| {
        let [a, b] = env.sequence(0..9).map(|i| i).disable_chaining().split();
        a.map(|i| i).discard();
        b.filter(|_| true).discard();
    });
    assert_eq!(
        got,
        of(&[("sequence-source", 2), ("map", 2), ("chain map discard-sink", 2), ("chain filter discard-sink", 2)])
    );
}

#[test]
fn what_cannot_stand_alone_is_told_with_what_to_do() {
    let wrong = |program: fn(&Environment)| graph_of(ExecutionMode::Streaming, program).unwrap_err();
    let strategy = || WatermarkStrategy::for_monotonous_timestamps();
    let error = wrong(|env| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        let times = env.sequence(0..9).assign_timestamps_and_watermarks(|i| *i as i64, strategy);
        times.disable_chaining().discard();
    });
    assert!(error.contains("disable_chaining at") && error.contains("chaining.rs:"), "{error}");
    assert!(error.contains("start_new_chain() behind it"), "{error}");
    let error = wrong(|env| drop(env.sequence(0..9).map(|i| i).boxed().disable_chaining().discard()));
    assert!(error.contains("boxed(), split() and side_output()"), "{error}");
    let error = wrong(|env| {
        let tag = OutputTag::<u64>::new("late");
        let stream = env.sequence(0..9).process(Odd(tag.clone()));
        let _ = stream.side_output(&tag).discard();
        stream.disable_chaining().discard();
    });
    assert!(error.contains("right behind the operator"), "{error}");
    let error = wrong(|env| {
        let tag = OutputTag::<u64>::new("late");
        let stream = env.sequence(0..9).process(Odd(tag.clone()));
        let side = stream.side_output(&tag);
        stream.disable_chaining().discard();
        side.discard();
    });
    assert!(error.contains("before side_output()"), "{error}");
    // Times that are given behind an operator alone are of the whole stream, and may stand alone.
    let got = streaming(|env| {
        let apart = env.sequence(0..9).map(|i| i).disable_chaining();
        apart.assign_timestamps_and_watermarks(|i| *i as i64, strategy()).disable_chaining().discard();
    });
    assert_eq!(got, of(&[("sequence-source", 2), ("map", 2), ("chain timestamps", 2), ("chain discard-sink", 2)]));
}

#[derive(Clone)]
struct Odd(OutputTag<u64>);

impl ProcessFunction<u64> for Odd {
    type Out = u64;
    fn process(&mut self, i: u64, ctx: &mut impl ProcessContext<u64>) {
        if i.is_multiple_of(2) { ctx.emit(i) } else { ctx.output(&self.0, i) }
    }
}

fn cases(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

/// One way or the other to cut a stream behind its last operator, or none.
macro_rules! cut {
    ($random:expr, $stream:expr) => {{
        let stream = $stream;
        match $random.random_range(0..4) {
            0 => stream.disable_chaining(),
            1 => stream.disable_chaining().parallelism($random.random_range(1..4)),
            2 => stream.start_new_chain(),
            _ => stream.boxed(),
        }
    }};
}

/// Maps, times, windows, side outputs, state and splits, cut at random.
#[test]
fn the_answer_does_not_depend_on_chains() {
    for seed in cases(300) {
        let random = &mut SmallRng::seed_from_u64(seed);
        let n = random.random_range(0..400u64);
        let stepped = random.random_range(0..8) > 0;
        let env = if stepped {
            testing::stepped(random.random_range(1..4), std::env::temp_dir(), seed).unwrap()
        } else {
            testing::environment(2, std::env::temp_dir()).unwrap()
        };
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let source = cut!(random, env.sequence(0..n));
        let mapped: DataStream<u64> = cut!(random, source.map(|i| i + 1));
        let many = cut!(random, mapped.flat_map(|i| [i, i * 2]));
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(10));
        let times = many.assign_timestamps_and_watermarks(|i| *i as i64, strategy);
        // Not alone: nothing may be cut between it and a source that is in front of it.
        let times = if random.random() { times.start_new_chain() } else { times.boxed() };
        let tag = OutputTag::new("odd");
        let even = times.process(Odd(tag.clone()));
        let even = if random.random() { even.disable_chaining() } else { even.boxed() };
        let odd = even.side_output(&tag).key_by(|_| 0u8).count().collect();
        let windows = TumblingEventTimeWindows::of(Duration::from_millis(50));
        let [a, b] = even.split();
        let counted = cut!(random, a.key_by(|i| i % 3).window(windows).count());
        let all = cut!(random, counted.map(|w| w.value)).collect();
        let sums = cut!(random, b.key_by(|i| i % 5).sum(|i| i)).collect();
        let result = env.execute("cut").unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
        let odd = result.collected(&odd).unwrap().last().map_or(0, |(_, count)| *count);
        assert_eq!(odd, (0..n).filter(|i| i % 2 == 0).count() as u64, "THALWEG_SEED={seed}");
        let even: Vec<u64> = (0..n).flat_map(|i| [i + 1, (i + 1) * 2]).filter(|i| i % 2 == 0).collect();
        let got: u64 = result.collected(&all).unwrap().iter().sum();
        assert_eq!(got, even.len() as u64, "THALWEG_SEED={seed}");
        let mut naive = std::collections::BTreeMap::<u64, u64>::new();
        even.iter().for_each(|i| *naive.entry(i % 5).or_default() += i);
        let mut got = std::collections::BTreeMap::new();
        for (key, sum) in result.collected(&sums).unwrap() {
            let latest = got.entry(key).or_insert(sum);
            *latest = sum.max(*latest);
        }
        assert_eq!(got, naive, "THALWEG_SEED={seed}");
    }
}
