//! Connected streams, side outputs, functions that wait and the rest, against naive models, over random streams,
//! parallelism and order of steps. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod drawn;

use drawn::each;
use rand::Rng;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    AsyncOptions, BroadcastProcessFunction, Collected, CountEvictor, CountTrigger, Data, Either, GlobalWindows,
    JobResult, KeyedCoProcess, OperatorListState, OperatorStates, ProcessContext, ProcessFunction, TaskFailure,
    prelude::*, testing,
};
use thalweg_dataflow::OpCx;

fn sorted<T: Data + Ord>(result: &JobResult, collected: &Collected<T>) -> Vec<T> {
    let mut all = result.collected(collected).unwrap();
    all.sort_unstable();
    all
}

/// Remembers the last left record of a key for the right ones that follow.
#[derive(Clone)]
struct Enrich;

impl KeyedCoProcess<(u64, u64), u64> for Enrich {
    type Key = u64;
    type State = (u64, u64);
    type Out = (u64, u64);
    fn left(&mut self, item: (u64, u64), state: &mut Self::State, _: &mut impl KeyedContext<u64, (u64, u64)>) {
        state.0 = item.1;
    }
    fn right(&mut self, item: u64, state: &mut Self::State, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        // What the left ones left behind is of the same key.
        assert!(state.0 % 5 == item % 5 || state.0 == 0, "{state:?} at {item}");
        state.1 += 1;
        ctx.emit((item, state.1));
    }
}

#[derive(Clone)]
struct Rules;

impl BroadcastProcessFunction<u64, u64> for Rules {
    type State = BTreeSet<u64>;
    type Out = u64;
    fn process(&mut self, item: u64, rules: &BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        assert!(rules.iter().all(|r| *r < 10));
        ctx.emit(item);
    }
    fn process_broadcast(&mut self, rule: u64, rules: &mut BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        assert!(rules.insert(rule), "a rule comes once to each subtask");
        ctx.emit(1000 + rule);
    }
    fn end(&mut self, rules: &BTreeSet<u64>, ctx: &mut impl ProcessContext<u64>) {
        ctx.emit(2000 + rules.len() as u64);
    }
}

/// Tells numbers at once, and of texts how many there were when nothing follows.
#[derive(Clone)]
struct Apart(OperatorListState<String>);

impl ProcessFunction<Either<u64, String>> for Apart {
    type Out = (u64, u64);
    fn states(&mut self, states: &mut OperatorStates) {
        states.add(&mut self.0);
    }
    fn process(&mut self, item: Either<u64, String>, ctx: &mut impl ProcessContext<(u64, u64)>) {
        match item {
            Either::Left(number) => ctx.emit((number, 0)),
            Either::Right(text) => ctx.list(&self.0).push(text),
        }
    }
    fn end(&mut self, ctx: &mut impl ProcessContext<(u64, u64)>) {
        let length = ctx.list(&self.0).iter().map(|text| text.len() as u64).sum();
        ctx.emit((u64::MAX, length));
    }
}

#[test]
fn streams_are_connected_without_keys_and_handled_as_either() {
    each(100, |env, random| {
        let (n, texts) = (random.random_range(0..200u64), random.random_range(0..100usize));
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let parallelism = random.random_range(1..4);
        let words = env.from_collection((0..texts).map(|i| "x".repeat(i)));
        let apart = Apart(OperatorListState::new("texts"));
        let apart = env.sequence(0..n).connect(words).either().process(apart).parallelism(parallelism).collect();
        let mut got = env.execute("either").unwrap().collected(&apart).unwrap();
        got.sort_unstable();
        let ends = got.split_off(n as usize);
        assert_eq!(got, (0..n).map(|i| (i, 0)).collect::<Vec<_>>());
        assert_eq!(ends.len(), parallelism as usize, "each subtask ends once");
        assert!(ends.iter().all(|end| end.0 == u64::MAX));
        assert_eq!(ends.iter().map(|end| end.1).sum::<u64>(), (0..texts as u64).sum::<u64>());
    });
}

#[test]
fn streams_are_connected_and_broadcast() {
    each(100, |env, random| {
        let parallelism = random.random_range(1..4u32);
        let n = random.random_range(0..200u64);
        let numbers = env.sequence(0..n);
        let mapped = numbers.connect(env.from_collection(["x".to_owned()])).map(|i| i.to_string(), |s| s).collect();
        let flat = env
            .sequence(0..n)
            .connect(env.from_collection([7u8]))
            .flat_map(|i| 0..i % 3, |b| Some(u64::from(b)))
            .collect();
        let left = env.sequence(0..n).map(|i| (i % 5, i)).key_by(|p| p.0);
        let right = env.source(thalweg_api::Sequence::new(0..n).interleaved()).parallelism(1);
        let counted = left.connect(right.key_by(|i| i % 5)).process(Enrich).collect();
        let ruled = env
            .sequence(0..n)
            .connect_broadcast(env.from_collection(0..10u64))
            .process(Rules)
            .parallelism(parallelism)
            .collect();
        let chained = env.sequence(0..n).start_new_chain().map(|i| i).collect();
        let result = env.execute("connected").unwrap();
        let mut expected: Vec<_> = (0..n).map(|i| i.to_string()).chain(["x".to_owned()]).collect();
        expected.sort_unstable();
        assert_eq!(sorted(&result, &mapped), expected);
        let mut expected: Vec<_> = (0..n).flat_map(|i| 0..i % 3).chain([7]).collect();
        expected.sort_unstable();
        assert_eq!(sorted(&result, &flat), expected);
        let counted = sorted(&result, &counted);
        assert_eq!(counted, (0..n).map(|i| (i, i / 5 + 1)).collect::<Vec<_>>());
        let ruled = result.collected(&ruled).unwrap();
        assert_eq!(ruled.iter().filter(|i| (1000..2000).contains(*i)).count(), 10 * parallelism as usize);
        let ends: Vec<_> = ruled.iter().filter(|i| **i >= 2000).collect();
        assert_eq!(ends, vec![&2010; parallelism as usize], "each subtask ends once, behind both streams");
        assert_eq!(ruled.iter().filter(|i| **i < 1000).count() as u64, n);
        assert_eq!(sorted(&result, &chained), (0..n).collect::<Vec<_>>());
    });
}

/// Says which subtask has a record.
#[derive(Clone)]
struct Where(u32);

impl ProcessFunction<u64> for Where {
    type Out = (u64, u32);
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.0 = cx.subtask;
        Ok(())
    }
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<(u64, u32)>) {
        ctx.emit((item, self.0));
    }
}

#[test]
fn each_way_to_deal_records_out_reaches_the_subtasks_that_it_promises() {
    each(100, |env, random| {
        let (n, sources, to) =
            (random.random_range(0..200u64), random.random_range(1..4), random.random_range(1..4u32));
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let numbers = || env.sequence(0..n).parallelism(sources);
        let dealt = |stream: DataStream<u64>| stream.process(Where(0)).parallelism(to).collect();
        let (rebalanced, rescaled, shuffled) =
            (dealt(numbers().rebalance()), dealt(numbers().rescale()), dealt(numbers().shuffle()));
        let (spread, global) = (dealt(numbers().broadcast()), dealt(numbers().global()));
        let custom = dealt(numbers().partition_custom(|i, n| *i as usize * 7 + n));
        let result = env.execute("dealt").unwrap();
        let at = |subtask: fn(u64, u32) -> u32| (0..n).map(|i| (i, subtask(i, to))).collect::<Vec<_>>();
        assert_eq!(sorted(&result, &global), at(|_, _| 0));
        assert_eq!(sorted(&result, &custom), at(|i, n| (i * 7 % u64::from(n)) as u32));
        let everywhere: Vec<_> = (0..n).flat_map(|i| (0..to).map(move |subtask| (i, subtask))).collect();
        assert_eq!(sorted(&result, &spread), everywhere);
        for by_turns in [&rebalanced, &rescaled, &shuffled] {
            let numbers: Vec<_> = sorted(&result, by_turns).into_iter().map(|(i, _)| i).collect();
            assert_eq!(numbers, (0..n).collect::<Vec<_>>());
        }
        let shares = (0..to).map(|to| result.collected(&rebalanced).unwrap().iter().filter(|r| r.1 == to).count());
        let shares: Vec<_> = shares.collect();
        let uneven = shares.iter().max().unwrap() - shares.iter().min().unwrap();
        assert!(uneven <= sources as usize, "each of {sources} subtasks deals out in turn: {shares:?}");
    });
}

/// Even numbers go on, odd ones leave by the side.
#[derive(Clone)]
struct Sort(OutputTag<u64>);

impl ProcessFunction<u64> for Sort {
    type Out = u64;
    fn process(&mut self, item: u64, ctx: &mut impl ProcessContext<u64>) {
        if item.is_multiple_of(2) { ctx.emit(item) } else { ctx.output(&self.0, item) }
    }
}

#[test]
fn side_outputs_split_a_stream_and_may_be_left_alone() {
    each(50, |env, random| {
        let n = random.random_range(0..500u64);
        let tag = OutputTag::new("odd");
        let even = env.sequence(0..n).process(Sort(tag.clone()));
        let odd = even.side_output(&tag).rebalance().collect();
        let even = even.map(|i| i).collect();
        let alone = env.sequence(0..n).process(Sort(OutputTag::new("nobody"))).collect();
        let result = env.execute("sides").unwrap();
        let sorted = |c| {
            let mut all: Vec<u64> = result.collected(c).unwrap();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&even), (0..n).filter(|i| i % 2 == 0).collect::<Vec<_>>());
        assert_eq!(sorted(&odd), (0..n).filter(|i| i % 2 == 1).collect::<Vec<_>>());
        assert_eq!(sorted(&alone), sorted(&even));
    });
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let tag = OutputTag::new("odd");
    let even = env.sequence(0..3).process(Sort(tag.clone()));
    let (a, b) = (even.side_output(&tag), even.side_output(&tag));
    a.union(b).discard();
    even.discard();
    assert!(env.execute("twice").unwrap_err().to_string().contains("\"odd\" is taken twice"));
}

#[test]
fn windows_of_so_many_records_tumble_and_slide_with_keys_and_without() {
    each(20, |env, _| {
        env.mode(ExecutionMode::Streaming);
        let numbers = || env.sequence(0..10).parallelism(1);
        let all = numbers().key_by(|_| ()).count_window(4).sum(|n| n).collect();
        let sliding = numbers().key_by(|n| n % 2).window(GlobalWindows).trigger(CountTrigger::of(2));
        let sliding = sliding.evictor(CountEvictor::of(3));
        let sliding =
            sliding.apply(|_, _, numbers: Vec<(i64, u64)>| [numbers.into_iter().map(|(_, n)| n).collect::<Vec<_>>()]);
        let sliding = sliding.collect();
        let result = env.execute("counted").unwrap();
        let sums: Vec<u64> = result.collected(&all).unwrap().iter().map(|w| w.value).collect();
        // What is left at the end makes no window.
        assert_eq!(sums, [6, 22]);
        let expected: [Vec<u64>; 4] = [vec![0, 2], vec![1, 3], vec![2, 4, 6], vec![3, 5, 7]];
        assert_eq!(sorted(&result, &sliding), expected);
    });
}

#[test]
fn either_is_an_iterator_too() {
    let both: [Either<std::ops::Range<u8>, std::option::IntoIter<u8>>; 2] =
        [Either::Left(0..2), Either::Right(Some(9).into_iter())];
    assert_eq!(both.into_iter().flatten().collect::<Vec<_>>(), [0, 1, 9]);
}

#[test]
fn functions_that_wait_lose_nothing_and_keep_order_where_that_is_asked() {
    each(20, |env, random| {
        let n = random.random_range(0..300u64);
        let wait = |i: u64| Duration::from_micros(i * 7919 % 900);
        let capacity = random.random_range(1..40);
        let retries = |o: AsyncOptions| o.capacity(capacity).retries(2, Duration::ZERO);
        let source = || {
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            env.sequence(0..n).parallelism(1).assign_timestamps_and_watermarks(|i| *i as i64, strategy)
        };
        let asks = move |i: u64| async move {
            tokio::time::sleep(wait(i)).await;
            Ok::<_, String>(i + 1)
        };
        let ordered = source().map_async(retries(AsyncOptions::ordered()), asks).collect();
        // A window behind it: no watermark may pass what is under way.
        let windows = source()
            .map_async(retries(AsyncOptions::unordered()), asks)
            .key_by(|_| 0u8)
            .window(TumblingEventTimeWindows::of(Duration::from_millis(10)))
            .count()
            .collect();
        let blocking = source().map_blocking(AsyncOptions::unordered(), |i| Ok::<_, String>(i + 1)).collect();
        let result = env.execute("waits").unwrap();
        assert_eq!(result.collected(&ordered).unwrap(), (1..=n).collect::<Vec<_>>());
        let total: u64 = result.collected(&windows).unwrap().iter().map(|w| w.value).sum();
        assert_eq!(total, n);
        let mut blocking: Vec<u64> = result.collected(&blocking).unwrap();
        blocking.sort_unstable();
        assert_eq!(blocking, (1..=n).collect::<Vec<_>>());
    });
}

#[test]
fn a_function_that_fails_hangs_or_panics_is_tried_again_and_then_fails_the_job() {
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let counted = tries.clone();
    let options = AsyncOptions::ordered().retries(3, Duration::from_millis(1));
    let second = env
        .from_collection([7u64])
        .map_async(options, move |i| {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            async move { if n < 2 { Err("not yet") } else { Ok(i) } }
        })
        .collect();
    let result = env.execute("tries").unwrap();
    assert_eq!((result.collected(&second).unwrap(), tries.load(Ordering::Relaxed)), (vec![7], 3));

    let fails = |name: &str, part: &str| {
        let error = env.execute(name).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("asks"), "{error}");
    };
    env.sequence(0..9).map_async(options, |_| async { Err::<u64, _>("never") }).uid("asks").discard();
    fails("fails", "never (tried 4 times)");
    let short = AsyncOptions::unordered().timeout(Duration::from_millis(5));
    env.sequence(0..9).map_async(short, |_| std::future::pending::<Result<u64, String>>()).uid("asks").discard();
    fails("hangs", "no answer within 5ms");
    let patient = AsyncOptions::unordered();
    env.sequence(0..9).map_async(patient, |i| async move { panics(i) }).uid("asks").discard();
    fails("panics", "number 3 is bad");
    env.sequence(0..9).map_blocking(patient, panics).uid("asks").discard();
    fails("panics too", "number 3 is bad");
}

fn panics(i: u64) -> Result<u64, String> {
    assert!(i != 3, "number {i} is bad");
    Ok(i)
}
