//! Records made of numbers at a rate: restored at another parallelism in steps drawn from a seed, and with the real
//! clock. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use thalweg_api::{
    Sequence,
    prelude::*,
    testing::{self, Stepped},
};

/// One at a time: what the process uses is measured.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_checkpoint_at_any_moment_loses_and_doubles_nothing() {
    let _alone = ALONE.lock();
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let mut complete = 0;
    for seed in seed.map_or(0..n, |s| s..s + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let count = random.random_range(1..500u64);
        let mut numbers = Sequence::new(0..count);
        if random.random() {
            numbers = numbers.rate([3.0, 200.0, 10_000.0][random.random_range(0..3)]);
        }
        if random.random() {
            numbers = numbers.interleaved();
        }
        let mut from = Default::default();
        for attempt in 0..3 {
            let taken = Arc::default();
            let checkpoint_at = (attempt < 2).then(|| random.random_range(1..60));
            let steps = Stepped { seed: seed + attempt, from, checkpoint_at, taken: Arc::clone(&taken) };
            let env = steps.environment(random.random_range(1..5), std::env::temp_dir()).unwrap();
            env.mode(ExecutionMode::Streaming);
            let made = env.generate(numbers.clone(), |i| (i, i * i)).uid("made").rebalance().uid("dealt");
            let made = made.collect().with_uid("out");
            let ended = env.execute("made");
            if let Some(snapshot) = taken.lock().unwrap().take() {
                (from, complete) = (snapshot, complete + 1);
                continue;
            }
            let ended = ended.unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
            let mut got = ended.collected(&made).unwrap();
            got.sort_unstable();
            assert_eq!(got, (0..count).map(|i| (i, i * i)).collect::<Vec<_>>(), "THALWEG_SEED={seed}");
            break;
        }
    }
    assert!(complete > 25 || n < 100 || seed.is_some(), "{complete} checkpoints");
}

/// A reader that has several parts of an endless sequence after a restore goes on with all of them, at the whole rate.
#[test]
fn an_endless_sequence_goes_on_with_every_number_at_any_parallelism() {
    let _alone = ALONE.lock();
    for (before, after) in [(3, 1), (1, 3), (4, 2)] {
        let taken = Arc::default();
        let gathered = Arc::new(parking_lot::Mutex::new(vec![]));
        let run = |steps: Stepped, parallelism, stop_at: u64| {
            let env = steps.environment(parallelism, std::env::temp_dir()).unwrap();
            let (all, clock_rate) = (gathered.clone(), 100.0);
            all.lock().clear();
            let numbers = env.generate(Sequence::endless().rate(clock_rate), |i| i).uid("numbers");
            let stops = move |i: u64| if i < stop_at { Ok(i) } else { Err("enough") };
            numbers.try_map(stops).for_each(move |i| all.lock().push(i));
            env.execute("endless").unwrap_err().to_string()
        };
        run(
            Stepped { seed: 1, checkpoint_at: Some(400), taken: Arc::clone(&taken), ..Stepped::default() },
            before,
            100_000,
        );
        let from = taken.lock().unwrap().take().unwrap();
        let error = run(Stepped { seed: 2, from, ..Stepped::default() }, after, 2500);
        assert!(error.contains("enough"), "{error}");
        let mut got = gathered.lock().clone();
        got.sort_unstable();
        let (first, last) = (got[0], got[got.len() - 1]);
        // The readers are never far from each other, so what is missing is missing at the end alone.
        let whole = got.iter().take_while(|i| **i < last - 300);
        assert!(
            first < 2000 && whole.copied().eq(first..last - 300),
            "{before} to {after}: {first} to {last}, {} of them",
            got.len()
        );
    }
}

#[test]
fn a_rate_is_kept_and_waiting_uses_no_processor() {
    let _alone = ALONE.lock();
    for parallelism in [1, 3] {
        let env = testing::environment(parallelism, std::env::temp_dir()).unwrap();
        let (began, used) = (Instant::now(), thalweg_env::usage::cpu_nanos());
        env.generate(Sequence::new(0..100).rate(50.0), |i| i).discard();
        env.execute("slow").unwrap();
        let (took, used) = (began.elapsed(), Duration::from_nanos(thalweg_env::usage::cpu_nanos() - used));
        assert!(took > Duration::from_millis(1850) && took < Duration::from_secs(20), "{took:?}");
        // A thread that spins uses two seconds.
        assert!(used < Duration::from_millis(500), "{used:?} of processor time in {took:?}");
    }
    let env = testing::environment(2, std::env::temp_dir()).unwrap();
    let began = Instant::now();
    env.generate(Sequence::new(0..200_000).rate(200_000.0), |i| i).discard();
    env.execute("fast").unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_rate_that_cannot_be_meant_is_told() {
    let _alone = ALONE.lock();
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        env.generate(Sequence::new(0..1).rate(rate), |i| i).discard();
        let error = env.execute("rate").unwrap_err().to_string();
        assert!(error.contains("name a number above 0"), "{error}");
    }
}
