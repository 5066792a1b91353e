//! A job for tests: `two_pipelines DIR` has two pipelines that have nothing to do with each other. One goes on without an
//! end; the other fails when `DIR/fail` is there, which it removes first.

use std::{path::PathBuf, time::Duration};
use thalweg::{RestartStrategy, Sequence, prelude::*};

fn main() -> Result<(), JobError> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_default());
    let env = Environment::new();
    env.parallelism(2).restart_strategy(RestartStrategy::FixedDelay { attempts: 3, delay: Duration::ZERO });
    let numbers = |uid: &str| env.source(Sequence::new(0..u64::MAX).rate(1000.0)).uid(uid).rebalance();
    numbers("steady-numbers").map(|n| n + 1).uid("steady").discard().uid("steady-end");
    let fragile = numbers("fragile-numbers").try_map(move |n| {
        let fails = std::fs::remove_file(dir.join("fail")).is_ok();
        if fails { Err("it was told to fail") } else { Ok(n) }
    });
    fragile.uid("fragile").discard().uid("fragile-end");
    env.execute("two pipelines").map(drop)
}
