//! What operators give out when their input ends reaches those that wait for time behind them: the word that all time is over
//! comes behind it, also within one chain. In steps drawn from a seed; `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n`
//! replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod seeded;

use rand::Rng;
use seeded::{Record, each, environment, ms};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use thalweg_api::{
    OperatorListState, OperatorStates, ProcessContext, ProcessFunction, Sink, SinkWriter, TaskFailure, TimeDomain,
    prelude::*,
};
use thalweg_dataflow::{OpCx, Time};

type Pair = (u64, u64);

/// Gives out what it has got when there is no more.
#[derive(Clone)]
struct AtTheEnd(OperatorListState<Pair>);

impl ProcessFunction<Pair> for AtTheEnd {
    type Out = Pair;
    fn states(&mut self, states: &mut OperatorStates) {
        states.add(&mut self.0);
    }
    fn process(&mut self, item: Pair, ctx: &mut impl ProcessContext<Pair>) {
        ctx.list(&self.0).push(item);
    }
    fn end(&mut self, ctx: &mut impl ProcessContext<Pair>) {
        let all = std::mem::take(ctx.list(&self.0));
        all.into_iter().for_each(|item| ctx.emit(item));
    }
}

fn at_the_end() -> AtTheEnd {
    AtTheEnd(OperatorListState::new("all"))
}

fn timed(pairs: DataStream<Pair>) -> DataStream<Pair> {
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(1_000_000));
    pairs.assign_timestamps_and_watermarks(|pair: &Pair| pair.0 as i64 * 7, strategy).boxed()
}

/// By key and window the sum of what is in it.
type Sums = BTreeMap<(u64, i64), u64>;

fn windows(pairs: DataStream<Pair>) -> DataStream<Record> {
    let windows = pairs.key_by(|pair| pair.0 % 3).window(TumblingEventTimeWindows::of(ms(20)));
    windows.sum(|pair| pair.1).map(|sum| (sum.key, sum.window.start, sum.value)).boxed()
}

fn sums(all: impl IntoIterator<Item = Pair>) -> Sums {
    let mut sums = Sums::new();
    all.into_iter().for_each(|(n, value)| *sums.entry((n % 3, n as i64 * 7 / 20 * 20)).or_default() += value);
    sums
}

#[test]
fn what_is_given_out_at_the_end_is_in_time_for_windows_and_for_the_ends_of_others() {
    each(120, |seed, random| {
        let n = random.random_range(1..300);
        let all: Vec<u64> = (0..n).map(|_| random.random_range(0..40)).collect();
        let mut counts = BTreeMap::<u64, u64>::new();
        all.iter().for_each(|n| *counts.entry(*n).or_default() += 1);
        let env = environment(seed, random, ExecutionMode::Batch);
        let numbers = || env.from_collection(all.clone());
        let which = random.random_range(0..5);
        let pairs = match which {
            0 => numbers().key_by(|n| *n).count().boxed(),
            1 => numbers().key_by(|n| *n).fold(0, |count: &mut u64, _| *count += 1).boxed(),
            2 => numbers().key_by(|n| *n).count().process(at_the_end()).boxed(),
            3 => numbers().key_by(|n| *n).count().top(1000, |a, b| a.cmp(b)).boxed(),
            _ => numbers().key_by(|n| *n).count().top(1000, |a, b| a.cmp(b)).process(at_the_end()).boxed(),
        };
        let out = windows(timed(pairs)).collect();
        let got = env.execute("ends").unwrap().collected(&out).unwrap();
        let rows = got.len();
        let got: Sums = got.into_iter().map(|(key, start, sum)| ((key, start), sum)).collect();
        assert_eq!((got.len(), &got), (rows, &sums(counts)), "{which}");
    });
}

#[allow(clippy::ptr_arg, reason = "the records are strings")]
fn whole(key: &String) -> std::iter::Once<&str> {
    std::iter::once(key)
}

#[test]
fn what_aggregations_give_out_at_the_end_has_the_latest_time_of_its_key() {
    each(150, |seed, random| {
        let n = random.random_range(1..300);
        // Key, time, number.
        let all: Vec<Record> =
            (0..n).map(|i| (random.random_range(0..9), random.random_range(-200..200), i * 7 % 100)).collect();
        let mut keys = BTreeMap::<u64, (i64, Vec<u64>)>::new();
        for (key, at, value) in &all {
            let (latest, values) = keys.entry(*key).or_insert((*at, Vec::new()));
            *latest = (*latest).max(*at);
            values.push(*value);
        }
        let env = environment(seed, random, ExecutionMode::Batch);
        let records = env.from_collection(all).assign_timestamps_and_watermarks(
            |record: &Record| record.1,
            WatermarkStrategy::for_monotonous_timestamps(),
        );
        let (records, which) = (records.rebalance(), random.random_range(0..6));
        let key = |record: &Record| record.0;
        let (pairs, expected): (_, fn(&[u64]) -> u64) = match which {
            0 => (records.key_by(key).count().boxed(), |values| values.len() as u64),
            1 => (records.key_by(key).without_combining().sum(|r| r.2).boxed(), |values| values.iter().sum()),
            2 => (records.key_by(key).max(|r| r.2).boxed(), |values| values.iter().copied().max().unwrap()),
            3 => {
                let least = records.key_by(key).min_by(|a, b| a.2.cmp(&b.2)).map(|r| (r.0, r.2));
                (least.boxed(), |values| values.iter().copied().min().unwrap())
            }
            4 => (records.key_by(key).fold(0, |n: &mut u64, r: Record| *n += r.2 + 1).boxed(), |values| {
                values.iter().map(|v| v + 1).sum()
            }),
            _ => {
                let counts = records.map(|r| r.0.to_string()).key_each(whole).count();
                let parsed = counts.map(|(key, n)| (key.parse().unwrap(), n));
                (parsed.boxed(), |values| values.len() as u64)
            }
        };
        let out = windows(pairs).collect();
        let got = env.execute("ends").unwrap().collected(&out).unwrap();
        let mut sums = Sums::new();
        for (key, (latest, values)) in keys {
            *sums.entry((key % 3, latest.div_euclid(20) * 20)).or_default() += expected(&values);
        }
        let rows = got.len();
        let got: Sums = got.into_iter().map(|(key, start, sum)| ((key, start), sum)).collect();
        assert_eq!((got.len(), got), (rows, sums), "{which}");
    });
}

/// Tells how many records there were when all time is over.
#[derive(Clone)]
struct WhenAllIsOver;

impl KeyedProcess<Record> for WhenAllIsOver {
    type Key = u64;
    type State = u64;
    type Out = Pair;
    fn process(&mut self, _: Record, n: &mut u64, ctx: &mut impl KeyedContext<u64, Pair>) {
        *n += 1;
        ctx.register_event_time_timer(Time::MAX);
    }
    fn on_timer(&mut self, _: TimeDomain, n: &mut u64, ctx: &mut impl KeyedContext<u64, Pair>) {
        assert_eq!(ctx.time(), Time::MAX);
        ctx.emit((*ctx.key(), *n));
    }
}

#[test]
fn what_a_timer_at_the_end_of_all_time_gives_out_is_as_late_as_the_latest_record() {
    each(120, |seed, random| {
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        let n = random.random_range(1..100);
        let all: Vec<Record> = (0..n).map(|i| (0, random.random_range(-200..200), i)).collect();
        let latest = all.iter().map(|record| record.1).max().unwrap();
        let env = environment(seed, random, mode);
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(ms(random.random_range(0..300)));
        let records = env.from_collection(all).assign_timestamps_and_watermarks(|record: &Record| record.1, strategy);
        let [some, others] = records.key_by(|record| record.0).process(WhenAllIsOver).boxed().split();
        let tumbling = windows(some).collect();
        let sessions = others.key_by(|pair| pair.0).window(EventTimeSessionWindows::with_gap(ms(20))).count().collect();
        let result = env.execute("over").unwrap();
        assert_eq!(result.collected(&tumbling).unwrap(), [(0, latest.div_euclid(20) * 20, n)]);
        let sessions = result.collected(&sessions).unwrap();
        assert_eq!(sessions.iter().map(|s| (s.window.start, s.value)).collect::<Vec<_>>(), [(latest, 1)]);
    });
}

#[test]
fn windows_of_the_machines_clock_give_their_last_ones_in_time() {
    each(40, |seed, random| {
        let n = random.random_range(1..200);
        let all: Vec<u64> = (0..n).map(|_| random.random_range(0..9)).collect();
        let env = environment(seed, random, ExecutionMode::Streaming);
        let day = TumblingProcessingTimeWindows::of(ms(86_400_000));
        let counts = env.from_collection(all.clone()).key_by(|n| *n).window(day).count();
        let out = counts.map(|count| (count.key, count.value)).process(at_the_end()).collect();
        let mut got = BTreeMap::<u64, u64>::new();
        let answers = env.execute("ends").unwrap().collected(&out).unwrap();
        answers.into_iter().for_each(|(key, count)| *got.entry(key).or_default() += count);
        let mut expected = BTreeMap::<u64, u64>::new();
        all.iter().for_each(|n| *expected.entry(*n).or_default() += 1);
        assert_eq!(got, expected);
    });
}

/// Keeps records until it is flushed, and has nothing to do at its end.
#[derive(Clone, Default)]
struct ByFlush(Arc<Mutex<Vec<u64>>>);

struct Flushes(Arc<Mutex<Vec<u64>>>, Vec<u64>);

impl Sink<u64> for ByFlush {
    type Writer = Flushes;
    fn kind(&self) -> &'static str {
        "by-flush"
    }
    fn writer(&self, _: &OpCx) -> Result<Flushes, TaskFailure> {
        Ok(Flushes(self.0.clone(), Vec::new()))
    }
}

impl SinkWriter<u64> for Flushes {
    fn write(&mut self, _: Time, item: u64) -> Result<(), TaskFailure> {
        self.1.push(item);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), TaskFailure> {
        self.0.lock().unwrap().append(&mut self.1);
        Ok(())
    }
}

#[test]
fn a_writer_that_is_only_flushed_has_all_records() {
    each(60, |seed, random| {
        let env = environment(seed, random, ExecutionMode::Batch);
        let (sink, n) = (ByFlush::default(), random.random_range(0..300));
        env.sequence(0..n).rebalance().sink(sink.clone());
        env.execute("flushes").unwrap();
        let mut all = sink.0.lock().unwrap().clone();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..n));
    });
}
