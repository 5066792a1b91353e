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
mod masters;
mod plan;
mod provider;
mod task_manager;
mod world;

use std::collections::BTreeSet;
use thalweg_control::job_master::states::TRANSITIONS;
use thalweg_testkit::harness::{Failure, Schedules};
use world::{Planted, Report, World};

/// So many schedules run whenever the tests do.
const CI: u64 = 5000;

/// Runs one seed; a failure brings its trace along when it is the only one.
fn schedule(seed: u64, traced: bool, planted: Option<Planted>) -> Result<Report, Failure> {
    World::new(seed, traced, planted).run().map_err(|(failure, trace)| {
        if traced {
            eprintln!("{trace}");
        }
        failure
    })
}

#[test]
fn one_seed_twice_is_one_trace() {
    for seed in 0..20 {
        let (a, b) = (World::new(seed, true, None).run(), World::new(seed, true, None).run());
        match (a, b) {
            (Ok(a), Ok(b)) => assert!(a.trace == b.trace && a.trace.len() > 1000, "seed {seed}"),
            (Err((_, a)), Err((_, b))) => assert!(a == b, "seed {seed}"),
            _ => panic!("seed {seed} ends in two ways"),
        }
    }
}

#[test]
fn every_invariant_holds_in_every_schedule() {
    let schedules = Schedules::from_env(CI);
    let traced = schedules.count == 1;
    let reports = schedules.run(|seed| schedule(seed, traced, None)).unwrap_or_else(|(seed, failure)| {
        panic!("seed {seed} violates {failure}\nreplay it with THALWEG_SEED={seed}");
    });
    let taken: BTreeSet<_> = reports.iter().flat_map(|r| r.transitions.iter().copied()).collect();
    let missing: Vec<_> = TRANSITIONS.iter().filter(|t| !taken.contains(*t)).collect();
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} schedules, {} events, {} virtual hours; jobs: {} finished, {} failed, {} cancelled, {} restarts, {} deployments in part, {} adoptions",
        reports.len(),
        sum(|r| r.events),
        sum(|r| r.virtual_seconds) / 3600,
        sum(|r| r.finished.into()),
        sum(|r| r.failed.into()),
        sum(|r| r.cancelled.into()),
        sum(|r| r.restarts.into()),
        sum(|r| r.in_part.into()),
        sum(|r| r.adoptions.into()),
    );
    assert!(reports.iter().all(|r| r.events >= 200));
    assert!(missing.is_empty() || (reports.len() as u64) < CI, "transitions that no schedule took: {missing:?}");
}

/// A green run is worth what a red one would have shown.
fn is_found(planted: Planted) {
    let schedules = Schedules { first: 0, ..Schedules::from_env(CI) };
    let found = schedules.run(|seed| schedule(seed, false, Some(planted)));
    let Err((seed, failure)) = found else { panic!("{planted:?} is not found in {} schedules", schedules.count) };
    println!("{planted:?} is found by seed {seed}: {failure}");
    assert_eq!(schedule(seed, false, Some(planted)).unwrap_err(), failure, "its seed replays it");
    assert!(schedule(seed, false, None).is_ok(), "and it is the planted bug that was found");
}

#[test]
fn a_fence_that_is_not_checked_is_found() {
    is_found(Planted::FenceNotChecked);
}

#[test]
fn an_old_offers_answer_that_is_accepted_is_found() {
    is_found(Planted::OldOfferAccepted);
}

#[test]
fn a_job_that_is_acknowledged_before_it_is_persisted_is_found() {
    is_found(Planted::AcknowledgedBeforePersisted);
}

#[test]
fn an_adoption_of_tasks_of_another_attempt_is_found() {
    is_found(Planted::StaleAdoption);
}

#[test]
fn a_region_that_starts_again_before_its_tasks_have_ended_is_found() {
    is_found(Planted::StopNotAwaited);
}

#[test]
fn a_result_that_is_marked_clean_before_the_clean_up_is_found() {
    is_found(Planted::CleanBeforeCleanUp);
}

#[test]
fn a_terminal_state_that_is_lost_between_two_leaders_is_found() {
    is_found(Planted::TerminalStateLost);
}
