//! The control plane under seeded schedules of misfortune: the shipped cores of Dispatcher, ResourceManager, JobMaster
//! and TaskExecutor, in simulated processes, on the engine of `thalweg_testkit::harness`.
//!
//! The modules beside this one are second drivers of the cores: each does what a core's effect says, and answers with the
//! events that the real driver would answer with. `plan.rs` draws what a schedule is like, `chaos.rs` lets it happen, and
//! `checks.rs` holds the invariants under their names.
//!
//! `THALWEG_SEED=n` replays one schedule and prints its trace; `THALWEG_SCHEDULES=n` runs so many.

#![allow(clippy::unwrap_used, clippy::panic)]

mod chaos;
mod checks;
mod clients;
mod hosts;
mod job_manager;
mod kinds;
mod leader_link;
mod plan;
mod provider;
mod task_manager;
mod world;

use std::collections::BTreeSet;
use thalweg_control::job_master::states::TRANSITIONS;
use thalweg_testkit::harness::{Failure, Schedules};
use world::{Report, World};

/// Runs one seed; a failure brings its trace along when it is the only one.
fn schedule(seed: u64, traced: bool) -> Result<Report, Failure> {
    World::new(seed, traced).run().map_err(|(failure, trace)| {
        if traced {
            eprintln!("{trace}");
        }
        failure
    })
}

#[test]
fn one_seed_twice_is_one_trace() {
    for seed in 0..20 {
        let (a, b) = (World::new(seed, true).run(), World::new(seed, true).run());
        match (a, b) {
            (Ok(a), Ok(b)) => assert!(a.trace == b.trace && a.trace.len() > 1000, "seed {seed}"),
            (Err((_, a)), Err((_, b))) => assert!(a == b, "seed {seed}"),
            _ => panic!("seed {seed} ends in two ways"),
        }
    }
}

#[test]
fn every_invariant_holds_in_every_schedule() {
    let schedules = Schedules::from_env(5000);
    let traced = schedules.count == 1;
    let reports = schedules.run(|seed| schedule(seed, traced)).unwrap_or_else(|(seed, failure)| {
        panic!("seed {seed} violates {failure}\nreplay it with THALWEG_SEED={seed}");
    });
    let taken: BTreeSet<_> = reports.iter().flat_map(|r| r.transitions.iter().copied()).collect();
    let missing: Vec<_> = TRANSITIONS.iter().filter(|t| !taken.contains(*t)).collect();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} schedules, {} events, {} virtual hours; jobs: {} finished, {} failed, {} cancelled, {} restarts",
        reports.len(),
        sum(|r| r.events),
        sum(|r| r.virtual_seconds) / 3600,
        sum(|r| r.finished.into()),
        sum(|r| r.failed.into()),
        sum(|r| r.cancelled.into()),
        sum(|r| r.restarts.into()),
    );
    assert!(reports.iter().all(|r| r.events >= 200));
    assert!(missing.is_empty() || reports.len() < 5000, "transitions that no schedule took: {missing:?}");
}
