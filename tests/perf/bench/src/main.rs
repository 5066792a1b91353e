//! `thalweg-bench BENCH ARG OUT [PARALLELISM]`: one benchmark. The answer is in OUT, or what each subtask has of it in
//! `OUT.SUBTASK` (a line `sum COUNT SUM`, to be added up); standard output has the number of records.
//!
//! ARG is the number of records; for b1 and b1-preagg the file of words, whose records are its words. Jobs are written as a
//! user would write them: there is no path for benchmarks alone.

#![allow(clippy::redundant_closure, reason = "see `events`")]

mod latency;
mod sums;

use std::{path::Path, time::Duration};
use sums::SumSink;
use thalweg::{MonotonousTimestamps, Sequence, Str, prelude::*};
use thalweg_examples::nexmark::{Bid, Event, event, splitmix64};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Answer = Result<u64, Box<dyn std::error::Error>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    thalweg::init();
    let args: Vec<String> = std::env::args().collect();
    let [_, bench, arg, out, rest @ ..] = &args[..] else {
        return Err("thalweg-bench BENCH ARG OUT [PARALLELISM]".into());
    };
    let env = Environment::new();
    env.parallelism(rest.first().map_or(Ok(2), |p| p.parse())?);
    let out = Path::new(out);
    let n = || arg.parse::<u64>();
    let records = match bench.as_str() {
        "b1" => words(&env, arg, out, false)?,
        "b1-preagg" => words(&env, arg, out, true)?,
        "b2" => running_sums::<1_000_000>(&env, n()?, out)?,
        "b2-10m" => running_sums::<10_000_000>(&env, n()?, out)?,
        "wide" => wide_sums(&env, n()?, out)?,
        "b3" => chain(&env, n()?, out)?,
        "q1" => currency(&env, n()?, out)?,
        "q2" => selection(&env, n()?, out)?,
        "q5" => hot_items(&env, n()?, out)?,
        "q8" => new_sellers(&env, n()?, out, WatermarkStrategy::for_monotonous_timestamps())?,
        "q8-aligned" => new_sellers(&env, n()?, out, aligned())?,
        "latency" => latency::stateless(&env, arg, out)?,
        "latency-windowed" => latency::windowed(&env, arg, out)?,
        other => {
            return Err(format!(
                "no benchmark {other}: b1, b1-preagg, b2, b2-10m, wide, b3, q1, q2, q5, q8, q8-aligned, latency, \
                 latency-windowed"
            )
            .into());
        }
    };
    println!("{records}");
    Ok(())
}

fn lines(out: &Path, mut lines: Vec<String>) -> std::io::Result<()> {
    lines.sort_unstable();
    lines.push(String::new());
    std::fs::write(out, lines.join("\n"))
}

/// Counts words: each crosses the exchange, or what was counted before it does.
fn words(env: &Environment, input: &str, out: &Path, combined: bool) -> Answer {
    let words = env.read_blocks([input]).uid("words");
    let counts = if combined {
        words
            .key_each(TextBlock::words)
            .count()
            .uid("counts")
            .map(|(w, n)| (String::from_utf8_lossy(&w).into_owned(), n))
            .boxed()
    } else {
        let words = words.flat_map(TextBlock::into_words);
        words.key_by(Str::clone).without_combining().count().uid("counts").map(|(w, n)| (w.into(), n)).boxed()
    };
    let counts = counts.collect();
    let result = env.execute("words")?;
    let counts: Vec<(String, u64)> = result.collected(&counts)?;
    let records = counts.iter().map(|(_, n)| n).sum();
    lines(out, counts.into_iter().map(|(w, n)| format!("{w} {n}")).collect())?;
    Ok(records)
}

/// Key of the i-th record of b2: one of so many.
#[inline(always)]
fn b2_key<const KEYS: u64>(i: u64) -> u64 {
    (splitmix64(i) >> 1) % KEYS
}

/// What q8 gives out of a pair.
#[inline(always)]
fn q8_hash(person: u64, auction: u64) -> u64 {
    splitmix64(person.wrapping_mul(1_000_003).wrapping_add(auction)) >> 20
}

/// A running sum of each key, for each record.
fn running_sums<const KEYS: u64>(env: &Environment, n: u64, out: &Path) -> Answer {
    let keyed = env.sequence(0..n).uid("numbers").map(|i| (b2_key::<KEYS>(i), 1u64)).key_by(|p| p.0);
    let sums = keyed.stateful_map(|sum: &mut u64, (_, v)| {
        *sum += v;
        *sum
    });
    sums.uid("sums").sink(SumSink { out: out.into(), value: |sum: u64| sum });
    env.execute("b2")?;
    Ok(n)
}

/// The same of a million keys with records of 1 KiB, each of an allocation of its own.
fn wide_sums(env: &Environment, n: u64, out: &Path) -> Answer {
    let wide = env.sequence(0..n).uid("numbers").map(|i| (b2_key::<1_000_000>(i), vec![i as u8; 1024]));
    let sums = wide.key_by(|p| p.0).stateful_map(|sum: &mut u64, (_, bytes)| {
        *sum += u64::from(bytes[0]) + u64::from(bytes[1023]);
        *sum
    });
    sums.uid("sums").sink(SumSink { out: out.into(), value: |sum: u64| sum });
    env.execute("wide")?;
    Ok(n)
}

/// A chain without an exchange.
fn chain(env: &Environment, n: u64, out: &Path) -> Answer {
    let mixed = env.sequence(0..n).uid("numbers").map(splitmix64).filter(|x| x & 3 != 0).map(|x| x ^ (x >> 7));
    mixed.sink(SumSink { out: out.into(), value: |x: u64| x });
    env.execute("b3")?;
    Ok(n)
}

/// The events, in blocks of 50 to each reader in turn, so that event time goes up in all of them together.
///
/// A closure for each job, which the compiler puts into that job's loop; a function's name is one thing for all jobs here, and
/// is called.
macro_rules! events {
    ($env:expr, $n:expr) => {
        $env.source(Sequence::new(0..$n / 50).interleaved())
            .uid("events")
            .flat_map(|block| (block * 50..block * 50 + 50).map(|i| event(i)))
    };
}

fn currency(env: &Environment, n: u64, out: &Path) -> Answer {
    let bids = events!(env, n).filter_map(|e| if let Event::Bid(b) = e { Some(b) } else { None });
    let converted = bids.map(|mut b| {
        b.price = b.price * 908 / 1000;
        b
    });
    converted.sink(SumSink { out: out.into(), value: |b: Bid| b.price });
    env.execute("q1")?;
    Ok(n)
}

fn selection(env: &Environment, n: u64, out: &Path) -> Answer {
    let bids = events!(env, n).filter_map(|e| if let Event::Bid(b) = e { Some(b) } else { None });
    let selected = bids.filter(|b| b.auction.is_multiple_of(123)).map(|b| (b.auction, b.price));
    selected.sink(SumSink { out: out.into(), value: |(auction, price): (u64, u64)| auction * 31 + price });
    env.execute("q2")?;
    Ok(n)
}

/// The auction with most bids, of the lowest number among equals, in each 10 s that begin each 2 s.
fn hot_items(env: &Environment, n: u64, out: &Path) -> Answer {
    env.mode(ExecutionMode::Streaming);
    let seconds = Duration::from_secs;
    let bids = events!(env, n)
        .assign_timestamps_and_watermarks(Event::time, WatermarkStrategy::for_monotonous_timestamps())
        .filter_map(|e| if let Event::Bid(b) = e { Some(b.auction) } else { None });
    let counts = bids
        .key_by(|auction| *auction)
        .window(SlidingEventTimeWindows::of(seconds(10), seconds(2)))
        .count()
        .uid("counts");
    let hottest = counts
        .map(|w| (w.window.end, w.key, w.value))
        .key_by(|hot| hot.0)
        .window(TumblingEventTimeWindows::of(seconds(2)))
        .reduce(|best, other| {
            if (other.2, std::cmp::Reverse(other.1)) > (best.2, std::cmp::Reverse(best.1)) {
                *best = other;
            }
        })
        .uid("hottest")
        .map(|w| w.value)
        .collect();
    let result = env.execute("q5")?;
    let hottest = result.collected(&hottest)?;
    lines(out, hottest.into_iter().map(|(end, auction, n): (i64, u64, u64)| format!("{end} {auction} {n}")).collect())?;
    Ok(n)
}

/// One reader waits while it is half a window ahead of the other, so that what the windows keep stays bounded.
fn aligned() -> WatermarkStrategy<MonotonousTimestamps> {
    WatermarkStrategy::for_monotonous_timestamps().with_alignment(
        "events",
        Duration::from_secs(5),
        Duration::from_millis(20),
    )
}

/// Who came and offered something within the same 10 s.
fn new_sellers(env: &Environment, n: u64, out: &Path, watermarks: WatermarkStrategy<MonotonousTimestamps>) -> Answer {
    env.mode(ExecutionMode::Streaming);
    let events = events!(env, n)
        .assign_timestamps_and_watermarks(Event::time, watermarks)
        .filter(|e| !matches!(e, Event::Bid(_)));
    let [persons, auctions] = events.split();
    let persons = persons.filter_map(|e| if let Event::Person(p) = e { Some((p.id, Str::from(p.name))) } else { None });
    let auctions = auctions.filter_map(|e| if let Event::Auction(a) = e { Some((a.seller, a.id)) } else { None });
    let joined = persons
        .key_by(|p| p.0)
        .join(auctions.key_by(|a| a.0))
        .window(TumblingEventTimeWindows::of(Duration::from_secs(10)))
        .apply(|person, auction| q8_hash(person.0, auction.1) + person.1.len() as u64)
        .uid("joined");
    joined.sink(SumSink { out: out.into(), value: |x: u64| x });
    env.execute("q8")?;
    Ok(n)
}
