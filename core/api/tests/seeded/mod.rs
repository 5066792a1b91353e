//! How the cases of window tests are drawn: seeds, environments, records' type. It is no test itself. Tests that must know
//! what is late in every run take `drawn` instead.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;
use thalweg_api::{prelude::*, testing};

/// Key, time, number.
pub type Record = (u64, i64, u64);

pub fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

pub fn each(default: u64, case: impl Fn(u64, &mut SmallRng)) {
    let seeds = match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect(),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| case(seed, &mut SmallRng::seed_from_u64(seed)));
        assert!(std::panic::catch_unwind(run).is_ok(), "THALWEG_SEED={seed}");
    }
}

pub fn environment(seed: u64, random: &mut SmallRng, mode: ExecutionMode) -> Environment {
    let (parallelism, dir) = (random.random_range(1..4), std::env::temp_dir());
    let env =
        if seed % 8 == 7 { testing::environment(parallelism, dir) } else { testing::stepped(parallelism, dir, seed) };
    let env = env.unwrap();
    env.mode(mode);
    env
}
