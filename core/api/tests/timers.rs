//! Timers of keys against naive models, over random streams with disorder and late records, parallelism and order of steps,
//! in both modes. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod drawn;

use drawn::{Probe, Record, Seen, Sent, draw, each};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thalweg_api::{Time, TimeDomain, prelude::*};

/// How far behind its record a timer is.
const AFTER: Time = 30;

/// Asks for a time behind each record, twice, and takes that back for each third number; tells how many records had come
/// by that time.
#[derive(Clone)]
struct Later;

/// The key, the time, how many records there were by then, and whether it was a late record that asked.
type Told = (u64, Time, u64, bool);

#[derive(Default, Serialize, Deserialize)]
struct Known {
    /// Times of records that were not late.
    times: Vec<Time>,
    /// What they asked for, and has not come.
    pending: BTreeSet<Time>,
    /// What late ones asked for.
    late: BTreeSet<Time>,
}

impl KeyedProcess<Record> for Later {
    type Key = u64;
    type State = Known;
    type Out = Told;
    fn process(&mut self, item: Record, known: &mut Known, ctx: &mut impl KeyedContext<u64, Told>) {
        assert_eq!(ctx.time(), item.1);
        assert!(known.pending.iter().all(|at| *at > ctx.watermark()), "{:?} at {}", known.pending, ctx.watermark());
        let at = item.1 + AFTER;
        if item.1 <= ctx.watermark() {
            known.late.insert(at);
        } else {
            known.times.push(item.1);
            known.pending.insert(at);
        }
        ctx.register_event_time_timer(at);
        ctx.register_event_time_timer(at);
        if item.2.is_multiple_of(3) {
            ctx.delete_event_time_timer(at);
            known.pending.remove(&at);
        }
    }
    fn on_timer(&mut self, domain: TimeDomain, known: &mut Known, ctx: &mut impl KeyedContext<u64, Told>) {
        assert_eq!(domain, TimeDomain::EventTime);
        assert!(ctx.watermark() >= ctx.time(), "{} before its time, {}", ctx.watermark(), ctx.time());
        known.pending.remove(&ctx.time());
        let n = known.times.iter().filter(|t| **t <= ctx.time()).count();
        ctx.emit((*ctx.key(), ctx.time(), n as u64, known.late.contains(&ctx.time())));
    }
}

/// Records of one key are all of one split, so that their order is known.
fn key(record: &Record) -> u64 {
    record.0 * 10 + record.2 / 10_000
}

#[test]
fn timers_fire_once_in_time_and_can_be_taken_back() {
    each(1170, |env, random| {
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        env.mode(mode);
        let bound = if random.random() { 0 } else { random.random_range(1..60) };
        let in_time = |sent: &&Sent| sent.before(sent.record.1) == Some(true);
        let timer = |sent: &Sent| (key(&sent.record), sent.record.1 + AFTER);
        // What is late asks for a time that has passed, each for another one: it is called at once.
        let mut passed = BTreeSet::new();
        let [all] = draw(random, bound, mode == ExecutionMode::Batch, false, |sent| {
            in_time(&sent) || sent.before(timer(sent).1) == Some(false) && passed.insert(timer(sent))
        });
        let parallelism = random.random_range(1..4);
        let seen = Seen::by(parallelism);
        let later = all.stream(env, &seen).key_by(key).process(Later).parallelism(parallelism);
        let later = later.apply("probe", Probe(seen)).collect();
        let mut got = env.execute("later").unwrap().collected(&later).unwrap();
        got.sort_unstable();

        let mut timers = BTreeSet::new();
        for sent in &all.sent {
            let (key, at) = timer(sent);
            timers.insert((key, at, !in_time(&sent)));
            if sent.record.2.is_multiple_of(3) {
                timers.remove(&(key, at, !in_time(&sent)));
            }
        }
        let by = |of, at| {
            all.sent.iter().filter(in_time).filter(|s| key(&s.record) == of && s.record.1 <= at).count() as u64
        };
        let expected: Vec<Told> = timers.into_iter().map(|(k, at, late)| (k, at, by(k, at), late)).collect();
        assert_eq!(got, expected, "bound {bound}");
    });
}

/// Ticks each 10 ms of the machine's clock, three times.
#[derive(Clone)]
struct Ticks;

impl KeyedProcess<u64> for Ticks {
    type Key = u64;
    type State = u64;
    type Out = (u64, u64);
    fn process(&mut self, _: u64, _: &mut u64, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        ctx.register_processing_time_timer(ctx.processing_time() + 10);
    }
    fn on_timer(&mut self, domain: TimeDomain, n: &mut u64, ctx: &mut impl KeyedContext<u64, (u64, u64)>) {
        assert_eq!(domain, TimeDomain::ProcessingTime);
        assert!(ctx.processing_time() >= ctx.time());
        *n += 1;
        ctx.emit((*ctx.key(), *n));
        if *n < 3 {
            ctx.register_processing_time_timer(ctx.time() + 10);
        }
    }
}

#[test]
fn timers_of_the_machines_clock_fire_while_the_input_pauses() {
    each(20, |env, _| {
        // One number a second, so that the input lasts longer than the ticks.
        let source = env.source(thalweg_api::Sequence::new(0..3).rate(1.0)).parallelism(1);
        let ticks = source.key_by(|i| *i).process(Ticks).collect();
        let result = env.execute("ticks").unwrap();
        let mut got = result.collected(&ticks).unwrap();
        got.sort_unstable();
        // What is asked for by the last number may be cut off by the end.
        let (first, last): (Vec<_>, Vec<_>) = got.into_iter().partition(|tick| tick.0 < 2);
        assert_eq!(first, [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(last, [(2, 1), (2, 2), (2, 3)][..last.len()]);
    });
}
