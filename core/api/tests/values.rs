//! Values that cannot be: `execute` tells of them with their place, and nothing takes another one instead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;
use thalweg_api::{AsyncOptions, CountEvictor, prelude::*, testing};

fn env() -> Environment {
    testing::environment(2, std::env::temp_dir()).unwrap()
}

#[test]
fn a_parallelism_that_cannot_be_is_told_once_and_of_what_the_program_says() {
    let told = |set: &dyn Fn(&Environment), one: u32, most: u32| {
        let env = env();
        set(&env);
        let some = env.sequence(0..3).map(|n| n).rebalance();
        let some = if one > 0 { some.parallelism(one) } else { some };
        let some = if most > 0 { some.max_parallelism(most) } else { some };
        some.collect();
        let error = env.execute("wrong").unwrap_err().to_string();
        assert!(!error.contains("coordinator") && !error.contains("committer"), "{error}");
        let lines: Vec<_> = error.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines.len(), 1, "{error}");
        lines[0].to_owned()
    };
    let all = |set: &dyn Fn(&Environment)| told(set, 0, 0);
    let too_many = "max_parallelism 40000 is more than 32768, the most that there can be";
    assert_eq!(all(&|env| _ = env.max_parallelism(40_000)), too_many);
    assert_eq!(all(&|env| _ = env.max_parallelism(0)), "max_parallelism 0 must be at least 1");
    assert_eq!(all(&|env| _ = env.parallelism(0)), "parallelism 0 must be at least 1");
    let more = all(&|env| _ = env.parallelism(9).max_parallelism(8));
    assert_eq!(more, "parallelism 9 is more than max_parallelism, which is 8");
    let of_one = told(&|_| (), 0, 40_000);
    assert!(of_one.starts_with("rebalance (") && of_one.ends_with(too_many), "{of_one}");
    let of_one = told(&|env| _ = env.max_parallelism(8), 9, 0);
    assert!(
        of_one.starts_with("rebalance (") && of_one.ends_with("parallelism 9 is more than max_parallelism, which is 8")
    );
}

/// All that is wrong with what this program does, without its head.
fn wrong(build: impl Fn(&Environment)) -> Vec<String> {
    let env = env();
    build(&env);
    let JobError::Program(wrong) = env.execute("wrong").unwrap_err() else { panic!("it is no error of the plan") };
    wrong
}

/// A keyed stream with event time.
macro_rules! keyed {
    ($env:ident) => {{
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        $env.sequence(0..3).assign_timestamps_and_watermarks(|n| *n as i64, strategy).key_by(|_| 0u8)
    }};
}

#[test]
fn windows_that_cannot_be_are_refused_with_their_line() {
    let (odd, even) = (Duration::from_micros(1_500), Duration::from_millis(3));
    macro_rules! told {
        ($windows:expr) => {{
            let wrong = wrong(|env| drop(keyed!(env).window($windows).count().discard()));
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(wrong[0].starts_with("core/api/tests/values.rs:"), "{wrong:?}");
            wrong.concat()
        }};
    }
    let all = [
        told!(TumblingEventTimeWindows::of(odd)),
        told!(TumblingEventTimeWindows::of(even).offset(odd)),
        told!(SlidingEventTimeWindows::of(odd, even)),
        told!(SlidingEventTimeWindows::of(even, odd)),
        told!(TumblingProcessingTimeWindows::of(odd)),
        told!(SlidingProcessingTimeWindows::of(even, odd)),
        told!(EventTimeSessionWindows::with_gap(odd)),
        told!(ProcessingTimeSessionWindows::with_gap(odd)),
    ];
    for told in &all {
        assert!(told.contains("whole milliseconds"), "{told}");
    }
    let many = told!(SlidingEventTimeWindows::of(Duration::from_secs(1_000_000_000), Duration::from_millis(1)));
    assert!(many.contains("a record would belong to 1000000000000 of them, and 100000 is the most"), "{many}");
}

#[test]
fn triggers_that_cannot_be_are_refused_with_their_line() {
    let (size, odd) = (Duration::from_millis(10), Duration::from_micros(1_500));
    let windows = || TumblingEventTimeWindows::of(size);
    let is_told = |what: &str, build: &dyn Fn(&Environment)| {
        let wrong = wrong(build);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("core/api/tests/values.rs:") && wrong[0].contains(what), "{wrong:?}");
    };
    let none = "a count of 0 records never fires";
    is_told(none, &|env| drop(keyed!(env).count_window(0).count().discard()));
    is_told(none, &|env| drop(keyed!(env).window(windows()).trigger(CountTrigger::of(0)).count().discard()));
    is_told(none, &|env| {
        let trigger = PurgingTrigger::of(CountTrigger::of(0));
        keyed!(env).window(EventTimeSessionWindows::with_gap(size)).trigger(trigger).count().discard();
    });
    is_told(none, &|env| {
        let kept = keyed!(env).window(windows()).evictor(CountEvictor::of(2));
        kept.trigger(CountTrigger::of(0)).count().discard();
    });
    is_told(none, &|env| {
        let joined = keyed!(env).join(keyed!(env)).window(windows());
        joined.trigger(CountTrigger::of(0)).apply(|a, _| *a).discard();
    });
    for interval in [odd, Duration::ZERO] {
        let whole = "a continuous trigger's interval is whole milliseconds, and at least 1";
        let (event, wall) = (ContinuousEventTimeTrigger::of(interval), ContinuousProcessingTimeTrigger::of(interval));
        is_told(whole, &|env| drop(keyed!(env).window(windows()).trigger(event).count().discard()));
        is_told(whole, &|env| drop(keyed!(env).window(windows()).trigger(wall).count().discard()));
    }
}

#[test]
fn empty_uids_and_names_are_refused() {
    let of_uids = wrong(|env| drop(env.sequence(0..3).uid("").map(|n| n).uid(" ").discard().uid("")));
    assert_eq!(of_uids.len(), 3, "{of_uids:?}");
    let of_names = wrong(|env| drop(env.sequence(0..3).map(|n| n).name("").discard().name("")));
    assert_eq!(of_names.len(), 2, "{of_names:?}");
    for (told, what) in of_uids.iter().map(|told| (told, "uid")).chain(of_names.iter().map(|told| (told, "name"))) {
        assert!(told.contains(&format!("its {what} is empty")) && told.contains("tests/values.rs:"), "{told}");
    }
}

#[test]
fn options_of_calls_that_cannot_be_are_refused_with_their_line() {
    let options = [
        (AsyncOptions::ordered().capacity(0), "a capacity of 0 calls"),
        (AsyncOptions::unordered().timeout(Duration::ZERO), "a timeout of 0"),
    ];
    for (options, expected) in options {
        let asynchronous = wrong(|env| {
            env.sequence(0..3).map_async(options, |n| async move { Ok::<_, String>(n) }).discard();
        });
        let blocking = wrong(|env| {
            env.sequence(0..3).map_blocking(options, Ok::<_, String>).discard();
        });
        for told in [asynchronous, blocking] {
            assert!(told.len() == 1 && told[0].contains("values.rs:") && told[0].contains(expected), "{told:?}");
        }
    }
}

#[test]
fn one_answer_of_the_whole_stream_is_made_by_one_subtask() {
    let told = wrong(|env| {
        env.sequence(0..9).top(3, Ord::cmp).map(|n| n).parallelism(2).discard();
    });
    assert!(told.len() == 1 && told[0].contains("start_new_chain() before parallelism(2)"), "{told:?}");
    let env = env();
    let moved = env.sequence(0..9).top(3, Ord::cmp).map(|n| n).disable_chaining().parallelism(2).collect();
    assert_eq!(env.execute("top").unwrap().collected(&moved).unwrap().len(), 3);
    let top = env.sequence(0..9).top(3, Ord::cmp).map(|n| n).start_new_chain().parallelism(2).collect();
    let mut got = env.execute("top").unwrap().collected(&top).unwrap();
    got.sort_unstable();
    assert_eq!(got, [6, 7, 8]);
}

#[test]
fn an_output_folder_is_of_one_sink_and_an_operator_has_one_uid() {
    let dir = tempfile::tempdir().unwrap();
    let told = wrong(|env| {
        env.sequence(0..9).write_text(dir.path().join("out")).uid("a");
        env.sequence(0..9).write_text(dir.path().join("./out")).uid("b");
        env.sequence(0..9).write_text(dir.path().join("other")).uid("c");
    });
    assert!(
        told.len() == 1 && told[0].contains("values.rs:") && told[0].contains("output folder of another sink"),
        "{told:?}"
    );
    // Behind a link too, where the folder is there and where it is not yet.
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    for folder in ["", "out"] {
        let told = wrong(|env| {
            env.sequence(0..9).write_text(dir.path().join(folder)).uid("a");
            env.sequence(0..9).write_text(dir.path().join("link").join(folder)).uid("b");
        });
        assert!(told.len() == 1 && told[0].contains("output folder of another sink"), "{told:?}");
    }
    let told = wrong(|env| {
        let [a, b] = env.sequence(0..9).uid("one").split();
        a.uid("one").discard();
        b.uid("another").discard();
    });
    assert!(told.len() == 1 && told[0].contains("is given the uid \"another\" and has the uid \"one\""), "{told:?}");
}
