//! How long records take: from a source that makes them at a rate to the sink, and from a window's end to its results. No
//! peer has these: the goal is one of milliseconds.
//!
//! ARG is `RATE` or `RATE:SECONDS`, in records a second of all sources; 0 is as fast as it goes, and then times say how long
//! queues are and nothing else. Each writer leaves a line of its own.

use crate::Answer;
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};
use thalweg::{FailureKind, OpCx, Sequence, Sink, SinkWriter, TaskFailure, Time, prelude::*};

/// Records of a run without a rate.
const UNPACED: u64 = 50_000_000;
/// What begins a run is not counted: the first tenth.
const WARM_UP: u32 = 10;
const WINDOW_MS: u64 = 100;
const KEYS: u64 = 10_000;

static BEGIN: LazyLock<Instant> = LazyLock::new(now);
static BEGIN_MS: LazyLock<i64> = LazyLock::new(|| {
    let wall = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wall.as_millis() as i64 - BEGIN.elapsed().as_millis() as i64
});

#[allow(clippy::disallowed_methods, reason = "what is measured is real time, at the edge")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "what is measured is real time, at the edge")]
fn wall() -> SystemTime {
    SystemTime::now()
}

/// Nanoseconds since the process began to measure.
fn nanos() -> u64 {
    now().duration_since(*BEGIN).as_nanos() as u64
}

struct Run {
    numbers: Sequence,
    records: u64,
    /// Nanoseconds that are not counted.
    warm_up: u64,
}

fn run(arg: &str) -> Result<Run, Box<dyn std::error::Error>> {
    let (rate, seconds) = arg.split_once(':').unwrap_or((arg, "10"));
    let (rate, seconds): (u64, u64) = (rate.parse()?, seconds.parse()?);
    LazyLock::force(&BEGIN_MS);
    let records = if rate == 0 { UNPACED } else { rate * seconds };
    let numbers = Sequence::new(0..records);
    let numbers = if rate == 0 { numbers.interleaved() } else { numbers.rate(rate as f64) };
    let warm_up = Duration::from_secs(seconds) / WARM_UP;
    Ok(Run { numbers, records, warm_up: if rate == 0 { 0 } else { warm_up.as_nanos() as u64 } })
}

/// Source, chain, exchange, chain, sink: nothing is kept.
pub fn stateless(env: &Environment, arg: &str, out: &Path) -> Answer {
    let Run { numbers, records, warm_up } = run(arg)?;
    env.mode(ExecutionMode::Streaming);
    let made = env.generate(numbers, |i| (i, nanos())).uid("made");
    let kept = made.map(|(i, at)| (i ^ (i >> 7), at)).filter(|(i, _)| i & 3 != 0).rebalance().map(|(_, at)| at);
    kept.sink(Latencies { out: out.into(), warm_up });
    env.execute("latency")?;
    Ok(records)
}

/// Counts of keys in windows of event time: how long after a window's end its results are there.
pub fn windowed(env: &Environment, arg: &str, out: &Path) -> Answer {
    let Run { numbers, records, warm_up } = run(arg)?;
    env.mode(ExecutionMode::Streaming);
    let made = env.generate(numbers, |i| (i % KEYS, *BEGIN_MS + (nanos() / 1_000_000) as i64)).uid("made");
    let timed = made.assign_timestamps_and_watermarks(|(_, ms)| *ms, WatermarkStrategy::for_monotonous_timestamps());
    let counts = timed
        .key_by(|(key, _)| *key)
        .window(TumblingEventTimeWindows::of(Duration::from_millis(WINDOW_MS)))
        .count()
        .uid("counts");
    let ends = counts.map(|w| (w.window.end - *BEGIN_MS).max(0) as u64 * 1_000_000);
    ends.sink(Latencies { out: out.into(), warm_up });
    env.execute("latency-windowed")?;
    Ok(records)
}

/// Writes how old records were when they came: `latency COUNT` and microseconds of the median, of 99 and 99.9 of a hundred and
/// of the oldest.
#[derive(Clone)]
struct Latencies {
    out: PathBuf,
    warm_up: u64,
}

struct LatencyWriter {
    file: PathBuf,
    warm_up: u64,
    /// By the position of the highest bit and the five bits below it: within 3 %.
    counts: Vec<u64>,
    most: u64,
}

const FINE: u32 = 5;

fn bucket(nanos: u64) -> usize {
    let shift = (64 - nanos.leading_zeros()).saturating_sub(FINE + 1);
    ((shift as usize) << FINE) + (nanos >> shift) as usize
}

/// The highest number of a bucket.
fn highest(bucket: usize) -> u64 {
    let shift = (bucket >> FINE).saturating_sub(1) as u32;
    let top = bucket as u64 - ((shift as u64) << FINE);
    ((top + 1) << shift).wrapping_sub(1)
}

impl Sink<u64> for Latencies {
    type Writer = LatencyWriter;
    fn kind(&self) -> &'static str {
        "latency-sink"
    }
    fn writer(&self, cx: &OpCx) -> Result<LatencyWriter, TaskFailure> {
        let file = PathBuf::from(format!("{}.{}", self.out.display(), cx.subtask));
        Ok(LatencyWriter { file, warm_up: self.warm_up, counts: vec![0; bucket(u64::MAX) + 1], most: 0 })
    }
}

impl SinkWriter<u64> for LatencyWriter {
    fn write(&mut self, _: Time, made: u64) -> Result<(), TaskFailure> {
        if made >= self.warm_up {
            let took = nanos().saturating_sub(made);
            self.counts[bucket(took)] += 1;
            self.most = self.most.max(took);
        }
        Ok(())
    }
    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        let count: u64 = self.counts.iter().sum();
        let micros = |share: f64| {
            let mut left = (count as f64 * share).ceil() as u64;
            let at = self.counts.iter().position(|n| {
                left = left.saturating_sub(*n);
                left == 0
            });
            at.map_or(0, highest).min(self.most) / 1000
        };
        let (half, p99, p999, most) = (micros(0.5), micros(0.99), micros(0.999), self.most / 1000);
        std::fs::write(&self.file, format!("latency {count} p50 {half} p99 {p99} p99.9 {p999} max {most} us\n"))
            .map_err(|e| TaskFailure::new(FailureKind::Storage, format!("{}: {e}", self.file.display())))?;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_within_three_in_a_hundred() {
        let mut last = 0;
        for nanos in (0..4000).chain((12..63).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + (1 << (n - 2))])) {
            let b = bucket(nanos);
            assert!(b >= last || nanos < 4096, "{nanos}");
            assert!(highest(b) >= nanos && highest(b) as f64 <= nanos as f64 * 1.04, "{nanos} {}", highest(b));
            last = b;
        }
    }
}
