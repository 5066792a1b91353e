//! Side outputs that are asked for with another tag than their operator writes to: nothing is lost in silence.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;
use thalweg_api::{BadRecord, CountTrigger, Either, WindowContext, WindowFunction, prelude::*, testing};
use thalweg_model::FailureKind;

fn env() -> Environment {
    testing::environment(2, std::env::temp_dir()).unwrap()
}

#[derive(Clone)]
struct Even(OutputTag<u64>);

impl ProcessFunction<u64> for Even {
    type Out = u64;
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<u64>) {
        if item.is_multiple_of(2) { ctx.output(&self.0, item) } else { ctx.emit(item) }
    }
}

/// How the job fails whose side output is asked for with this tag.
fn failure<T: thalweg_dataflow::Data>(tag: &OutputTag<T>) -> String {
    let env = env();
    let odd = env.sequence(0..10).process(Even(OutputTag::new("even"))).uid("sorts");
    odd.side_output(tag).discard();
    odd.discard();
    let JobError::Failed(result) = env.execute("sorted").unwrap_err() else { panic!("it runs") };
    let failure = result.failure().unwrap();
    assert_eq!((failure.kind, failure.uid.as_deref()), (FailureKind::Incompatible, Some("sorts")));
    failure.message.clone()
}

#[test]
fn what_a_function_writes_to_another_tag_of_the_name_fails_the_job() {
    let of_type = failure(&OutputTag::<u32>::new("even"));
    let told =
        "side output \"even\" is asked for with a tag of u32, and the operator writes u64 to it: make the tag once";
    assert!(of_type.starts_with(told), "{of_type}");
    let of_another = failure(&OutputTag::<u64>::new("even"));
    assert!(
        of_another.contains("is asked for with another tag than the operator writes to, both of u64"),
        "{of_another}"
    );
}

#[test]
fn a_tag_that_nobody_asked_for_is_dropped_beside_others_that_are() {
    let env = env();
    let odd = env.sequence(0..10).process(Even(OutputTag::new("even")));
    let none = odd.side_output(&OutputTag::<u64>::new("another")).collect();
    let odd = odd.collect();
    let result = env.execute("sorted").unwrap();
    assert_eq!((result.collected(&odd).unwrap().len(), result.collected(&none).unwrap().len()), (5, 0));
}

#[test]
fn what_the_plan_knows_of_both_tags_is_told_before_anything_runs() {
    let refused = |build: &dyn Fn(&Environment)| {
        let env = env();
        build(&env);
        let JobError::Program(wrong) = env.execute("wrong").unwrap_err() else { panic!("it is no error of the plan") };
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("side_output at core/api/tests/side_tags.rs:"), "{wrong:?}");
        wrong.concat()
    };
    let keyed = |env: &Environment| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        env.sequence(0..3).assign_timestamps_and_watermarks(|n| *n as i64, strategy).key_by(|_| 0u8)
    };
    let tumbling = || TumblingEventTimeWindows::of(Duration::from_millis(10));
    let (late, other) = (OutputTag::<u64>::new("late"), OutputTag::<String>::new("late"));
    let told = "is asked for with a tag of alloc::string::String, and the operator writes u64 to it";
    let of_windows = refused(&|env| {
        let counts = keyed(env).window(tumbling()).side_output_late_data(&late).count();
        counts.side_output(&other).discard();
        counts.discard();
    });
    assert!(of_windows.contains(told), "{of_windows}");
    let of_triggered = refused(&|env| {
        let sessions = EventTimeSessionWindows::with_gap(Duration::from_millis(10));
        let counts = keyed(env).window(sessions).side_output_late_data(&late).count();
        counts.side_output(&other).discard();
        counts.discard();
    });
    assert!(of_triggered.contains(told), "{of_triggered}");
    let of_joined = refused(&|env| {
        let late = OutputTag::<Either<u64, u64>>::new("late");
        let joined = keyed(env).join(keyed(env)).window(tumbling()).side_output_late_data(&late).apply(|a, _| *a);
        joined.side_output(&other).discard();
        joined.discard();
    });
    assert!(of_joined.contains("writes thalweg_dataflow::either::Either<u64, u64> to it"), "{of_joined}");
    let of_lines = refused(&|env| {
        let lines = env.from_collection(["1", "x"]).map(str::to_owned).parse_json::<u64>();
        let numbers = lines.on_error(&OutputTag::<BadRecord>::new("bad"));
        numbers.side_output(&OutputTag::<BadRecord>::new("bad")).discard();
        numbers.discard();
    });
    assert!(of_lines.contains("is asked for with another tag than the operator writes to"), "{of_lines}");
}

#[test]
fn late_records_that_nobody_has_written_to_the_tag_are_told_of_before_anything_runs() {
    let env = env();
    let late = OutputTag::<u64>::new("late");
    let keyed = |env: &Environment| {
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        env.sequence(0..3).assign_timestamps_and_watermarks(|n| *n as i64, strategy).key_by(|n| *n)
    };
    let tumbling = || TumblingEventTimeWindows::of(Duration::from_millis(10));
    let refused = || {
        let error = env.execute("forgotten").unwrap_err().to_string();
        let told = "nothing is written to it; have late records written to it by side_output_late_data(&tag)";
        assert!(error.contains("core/api/tests/side_tags.rs:") && error.contains(told), "{error}");
    };
    let counts = keyed(&env).window(tumbling()).count();
    counts.side_output(&late).discard();
    counts.discard();
    refused();
    let lists = keyed(&env).window(tumbling()).apply(|_, _, all| Some(all.len()));
    lists.side_output(&late).discard();
    lists.discard();
    refused();
    let sums = keyed(&env).window(tumbling()).trigger(CountTrigger::of(2)).sum(|n| n);
    sums.side_output(&late).discard();
    sums.discard();
    refused();
    let pairs = keyed(&env).join(keyed(&env)).window(tumbling()).apply(|a, _| *a);
    pairs.side_output(&late).discard();
    pairs.discard();
    refused();
    // A function may write to any.
    let functions = keyed(&env).window(tumbling()).process(Lists);
    functions.side_output(&late).discard();
    functions.discard();
    env.execute("a function").unwrap();
}

#[derive(Clone)]
struct Lists;

impl WindowFunction<u64, Vec<u64>> for Lists {
    type Out = usize;
    type Results = std::option::IntoIter<usize>;
    fn apply(&mut self, all: Vec<u64>, _: WindowContext<'_, u64>) -> Self::Results {
        Some(all.len()).into_iter()
    }
}
