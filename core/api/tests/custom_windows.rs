//! Windows that the program's own assigner finds, against a naive model: uneven ones that overlap, and ones that each record
//! says, over disorder, in both modes. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};
use thalweg_api::{CustomWindows, RecordAssigner, Time, TimeWindow, WindowAssigner, WindowTime, prelude::*, testing};

type Record = (u8, Time);

/// Moments of ten: 0 to 2 are short windows, 2 to 9 a long one, and whatever is from 6 on is also in one over the turn.
#[derive(Clone)]
struct Uneven;

fn uneven(at: Time) -> Vec<(Time, Time)> {
    let (ten, within) = (at.div_euclid(10) * 10, at.rem_euclid(10));
    let first = if within < 2 { (ten + within, ten + within + 1) } else { (ten + 2, ten + 10) };
    let over_the_turn = match within {
        6.. => Some((ten + 6, ten + 16)),
        _ => Some((ten - 4, ten + 6)),
    };
    [Some(first), over_the_turn].into_iter().flatten().collect()
}

impl WindowAssigner for Uneven {
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
        to.extend(uneven(at).into_iter().map(|(start, end)| TimeWindow { start, end }));
    }
}

/// Windows as long as the record's key says.
#[derive(Clone)]
struct ByKey;

fn by_key(record: &Record, at: Time) -> (Time, Time) {
    let length = Time::from(record.0) + 3;
    let start = at.div_euclid(length) * length;
    (start, start + length)
}

impl RecordAssigner<Record> for ByKey {
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }
    fn merges(&self) -> bool {
        false
    }
    fn assign_record(&self, item: &Record, at: Time, to: &mut Vec<TimeWindow>) -> Result<(), String> {
        let (start, end) = by_key(item, at);
        to.push(TimeWindow { start, end });
        Ok(())
    }
}

type Counts = BTreeMap<(u8, Time, Time), u64>;

fn model(records: &[Record], windows: impl Fn(&Record) -> Vec<(Time, Time)>) -> Counts {
    let mut counts = Counts::new();
    for record in records {
        windows(record).into_iter().for_each(|(s, e)| *counts.entry((record.0, s, e)).or_default() += 1);
    }
    counts
}

fn counts(of: Vec<(u8, Time, Time, u64)>) -> Counts {
    let n = of.len();
    let all: Counts = of.into_iter().map(|(key, start, end, n)| ((key, start, end), n)).collect();
    assert_eq!(all.len(), n, "each window fires once");
    all
}

/// Windows of no length, or refused from the beginning.
#[derive(Clone)]
struct Wrong(Result<(), &'static str>);

impl WindowAssigner for Wrong {
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
        to.push(TimeWindow { start: at, end: at });
    }
    fn check(&self) -> Result<(), String> {
        self.0.map_err(str::to_owned)
    }
}

#[test]
fn windows_that_cannot_be_are_told_of() {
    let error = |wrong: Wrong| {
        let env = testing::environment(1, std::env::temp_dir()).unwrap();
        let strategy = WatermarkStrategy::for_monotonous_timestamps();
        let timed = env.sequence(7..9).assign_timestamps_and_watermarks(|n| *n as Time, strategy);
        timed.key_by(|n| *n).window(CustomWindows::of(wrong)).count().discard();
        env.execute("wrong").unwrap_err().to_string()
    };
    let empty = error(Wrong(Ok(())));
    assert!(empty.contains("[7, 7)") && empty.contains("ends after it begins"), "{empty}");
    let refused = error(Wrong(Err("a shift has no hours")));
    assert!(refused.contains("a shift has no hours") && refused.contains("custom_windows.rs:"), "{refused}");
}

#[test]
fn windows_of_the_programs_own_are_as_a_model_says() {
    let one = std::env::var("THALWEG_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let cases = std::env::var("THALWEG_CASES").ok().map_or(150, |n| n.parse().unwrap());
    for seed in one.map_or(0..cases, |seed| seed..seed + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut at = random.random_range(-60..60);
        let mut record = |random: &mut SmallRng| {
            at += random.random_range(0..4);
            (random.random_range(0..5), at - random.random_range(0..10))
        };
        let records: Vec<Record> = (0..random.random_range(0..200)).map(|_| record(&mut random)).collect();
        let parallelism = random.random_range(1..4);
        let env = testing::stepped(parallelism, std::env::temp_dir(), seed).unwrap();
        env.mode(if random.random() { ExecutionMode::Streaming } else { ExecutionMode::Batch });
        // One reader: what two of them hold back from each other may be late.
        let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(10));
        let timed = env.from_collection(records.clone()).parallelism(1);
        let [a, b] = timed.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).split();
        let told = |w: Windowed<u8, u64>| (w.key, w.window.start, w.window.end, w.value);
        let uneven_ones = a.key_by(|r| r.0).window(CustomWindows::of(Uneven)).count().map(told).collect();
        let said = b.key_by(|r| r.0).window(CustomWindows::of_records::<Record>(ByKey)).count().map(told).collect();
        let result = env.execute("custom").unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
        let expected = model(&records, |r| uneven(r.1));
        assert_eq!(counts(result.collected(&uneven_ones).unwrap()), expected, "THALWEG_SEED={seed}");
        let expected = model(&records, |r| vec![by_key(r, r.1)]);
        assert_eq!(counts(result.collected(&said).unwrap()), expected, "THALWEG_SEED={seed}");
    }
}
