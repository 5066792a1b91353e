//! What belongs to one program is used in another: streams of two environments that meet, streams of a program that was
//! executed before, results that are asked for what another job gathered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use thalweg_api::{ProcessContext, prelude::*, testing};

fn env() -> Environment {
    testing::environment(2, std::env::temp_dir()).unwrap()
}

fn timed(env: &Environment) -> DataStream<u64> {
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    env.sequence(0..3).assign_timestamps_and_watermarks(|n| *n as i64, strategy).boxed()
}

/// Both environments tell of it, with the line, and run nothing.
fn is_refused(how: &str, combine: impl Fn(&Environment, &Environment) -> u32) {
    let (one, other) = (env(), env());
    let line = combine(&one, &other);
    for env in [one, other] {
        let error = env.execute("mixed").unwrap_err().to_string();
        let place =
            format!("{how} at core/api/tests/two_programs.rs:{line}: both streams must come from one Environment");
        assert!(error.contains(&place), "{place} is not in {error}");
        assert_eq!(error.lines().count(), 2, "{error}");
        // What comes next is a program of its own.
        let all = env.sequence(0..3).collect();
        assert_eq!(env.execute("next").unwrap().collected(&all).unwrap().len(), 3);
    }
}

#[derive(Clone)]
struct First;

impl thalweg_api::KeyedCoProcess<u64, u64> for First {
    type Key = u64;
    type State = u64;
    type Out = u64;
    fn left(&mut self, item: u64, _: &mut u64, ctx: &mut impl KeyedContext<u64, u64>) {
        ctx.emit(item);
    }
    fn right(&mut self, _: u64, _: &mut u64, _: &mut impl KeyedContext<u64, u64>) {}
}

#[derive(Clone)]
struct Rules;

impl thalweg_api::BroadcastProcessFunction<u64, u64> for Rules {
    type State = u64;
    type Out = u64;
    fn process(&mut self, item: u64, _: &u64, ctx: &mut impl ProcessContext<u64>) {
        ctx.emit(item);
    }
    fn process_broadcast(&mut self, _: u64, _: &mut u64, _: &mut impl ProcessContext<u64>) {}
}

impl thalweg_api::KeyedBroadcastProcessFunction<u64, u64> for Rules {
    type Key = u64;
    type State = u64;
    type Broadcast = u64;
    type Out = u64;
    fn process(&mut self, item: u64, _: &mut u64, _: &u64, ctx: &mut impl KeyedContext<u64, u64>) {
        ctx.emit(item);
    }
    fn process_broadcast(&mut self, _: u64, _: &mut u64, _: &mut impl ProcessContext<u64>) {}
}

#[test]
fn streams_of_two_environments_do_not_meet() {
    is_refused("union", |a, b| {
        let (a, b) = (a.sequence(0..3).map(|n| n), b.sequence(10..13));
        let (at, both) = (line!(), a.union(b));
        both.map(|n| n + 1).discard();
        at
    });
    // The other one has less vertices than the edges between them would name.
    is_refused("union", |a, b| {
        let (a, b) = (a.sequence(0..3).rebalance().rebalance(), b.sequence(10..13));
        let (at, both) = (line!(), b.union(a));
        both.discard();
        at
    });
    is_refused("connect", |a, b| {
        let (a, b) = (a.sequence(0..3), b.sequence(0..3));
        let (at, both) = (line!(), a.connect(b));
        both.map(|n| n, |n| n).discard();
        at
    });
    is_refused("connect", |a, b| {
        let (a, b) = (a.sequence(0..3).key_by(|n| *n), b.sequence(0..3).rebalance().key_by(|n| *n));
        let (at, both) = (line!(), a.connect(b));
        both.process(First).discard();
        at
    });
    is_refused("connect_broadcast", |a, b| {
        let (a, b) = (a.sequence(0..3), b.sequence(0..3).rebalance());
        let (at, both) = (line!(), a.connect_broadcast(b));
        both.process(Rules).discard();
        at
    });
    is_refused("connect_broadcast", |a, b| {
        let (a, b) = (a.sequence(0..3).key_by(|n| *n), b.sequence(0..3).rebalance());
        let (at, both) = (line!(), a.connect_broadcast(b));
        both.process(Rules).discard();
        at
    });
    is_refused("join", |a, b| {
        let (a, b) = (timed(a).key_by(|n| *n), timed(b).key_by(|n| *n));
        let (at, both) = (line!(), a.join(b));
        let windows = TumblingEventTimeWindows::of(std::time::Duration::from_millis(10));
        both.window(windows).apply(|a, _| *a).discard();
        at
    });
    is_refused("interval_join", |a, b| {
        let (a, b) = (timed(a).key_by(|n| *n), timed(b).key_by(|n| *n));
        let (at, both) = (line!(), a.interval_join(b));
        both.between(-1, 1).apply(|a, _| *a).discard();
        at
    });
}

#[test]
fn a_stream_is_executed_by_its_own_environment() {
    let (one, other) = (env(), env());
    let error = one.sequence(0..3).execute_and_collect(&other, "elsewhere").unwrap_err().to_string();
    assert!(error.contains("execute_and_collect at ") && error.contains("both streams must come from one"), "{error}");
}

#[test]
fn a_stream_of_a_program_that_was_executed_is_not_used_again() {
    let env = env();
    let numbers = env.sequence(0..3).rebalance().rebalance();
    let before = numbers.clone();
    numbers.discard();
    env.execute("first").unwrap();
    before.clone().map(|n| n).uid("late").parallelism(2).discard();
    env.sequence(0..3).discard();
    let error = env.execute("second").unwrap_err().to_string();
    for part in
        ["map at core/api/tests/two_programs.rs:", "of a program that was executed before", "make the source again"]
    {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    before.union(env.sequence(0..3)).discard();
    let error = env.execute("third").unwrap_err().to_string();
    assert!(error.contains("union at ") && error.contains("of a program that was executed before"), "{error}");
    env.sequence(0..3).discard();
    env.execute("fourth").unwrap();
}

#[test]
fn a_sink_is_named_before_its_program_is_executed() {
    let env = env();
    let (sink, all) = (env.sequence(0..3).discard(), env.sequence(0..3).collect());
    env.execute("first").unwrap();
    sink.uid("dropped").name("too late");
    all.with_uid("all");
    env.sequence(0..3).discard();
    let JobError::Program(wrong) = env.execute("second").unwrap_err() else { panic!("it is no error of the plan") };
    for (what, wrong) in ["uid \"dropped\"", "name \"too late\"", "uid \"all\""].iter().zip(&wrong) {
        assert!(wrong.starts_with(what) && wrong.contains("-sink (core/api/tests/two_programs.rs:"), "{wrong}");
    }
    assert_eq!(wrong.len(), 3, "{wrong:?}");
}

#[test]
fn a_result_knows_what_its_own_job_gathered() {
    let (one, other) = (env(), env());
    let squares = one.sequence(0..3).map(|n| n * n).collect();
    let first = one.execute("squares").unwrap();
    let cubes = other.sequence(0..3).map(|n| n * n * n).collect();
    let second = other.execute("cubes").unwrap();
    let again = one.sequence(5..8).collect();
    let third = one.execute("again").unwrap();
    // All three have one uid.
    for (result, wrong) in [(&first, [&cubes, &again]), (&second, [&squares, &again]), (&third, [&squares, &cubes])] {
        for handle in wrong {
            let error = result.collected(handle).unwrap_err().to_string();
            assert!(error.contains("is of another job than") && error.contains(result.name()), "{error}");
        }
    }
    let mut all = [first.collected(&squares), second.collected(&cubes), third.collected(&again)].map(Result::unwrap);
    all.iter_mut().for_each(|all| all.sort_unstable());
    assert_eq!(all, [[0, 1, 4], [0, 1, 8], [5, 6, 7]]);
}

#[test]
fn a_stream_of_long_ago_is_told_of_by_the_program_that_comes_next() {
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let old = env.from_collection([1]).boxed();
    old.clone().discard();
    env.execute("a").unwrap();
    env.sequence(0..3).discard();
    env.execute("b").unwrap();
    old.discard();
    env.sequence(0..3).discard();
    let error = env.execute("c").unwrap_err().to_string();
    assert!(error.contains("executed before"), "{error}");
}

#[test]
fn a_side_output_that_is_asked_before_its_operator_is_moved_is_no_panic() {
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let late = OutputTag::<u64>::new("late");
    let parsed = env.from_collection(["1", "x"]).map(str::to_owned).parse_with(|line: &str| line.parse::<u64>());
    let side = parsed.side_output(&late);
    parsed.disable_chaining().discard();
    side.uid("late").discard();
    let _ = env.execute("moved");
    let parsed = env.from_collection(["1", "x"]).map(str::to_owned).parse_with(|line: &str| line.parse::<u64>());
    drop(parsed.side_output(&late));
    parsed.disable_chaining().discard();
    assert!(env.execute("moved").is_err(), "nobody takes the side output");
}
