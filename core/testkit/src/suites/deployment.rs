//! The deployment suite: what a cluster does next, for every view that matters. Pure, so it needs no fixture but the mode.

use async_trait::async_trait;
use std::sync::Arc;
use thalweg_model::{JobId, JobStatus};
use thalweg_spi::{ApplicationStatus, ClusterView, Decision, DeploymentMode, MainState, Result};

/// Opens the mode.
#[async_trait]
pub trait DeploymentFixture: Send + Sync {
    /// The mode.
    async fn open(&self) -> Result<Arc<dyn DeploymentMode>>;
}

fn job(n: u8) -> JobId {
    JobId::from_bytes([n; 16])
}

fn view(main: MainState, jobs: &[JobStatus]) -> ClusterView {
    let jobs = jobs.iter().enumerate().map(|(n, status)| (job(n as u8), *status)).collect();
    ClusterView { main, jobs }
}

/// Every state of `main` with every pair of job states, and with fewer jobs.
fn views() -> Vec<ClusterView> {
    let mut all = Vec::new();
    let ends = [Some(0), Some(1), Some(2), Some(101), None].map(MainState::Ended);
    for main in [MainState::None, MainState::Waiting, MainState::Running].into_iter().chain(ends) {
        all.push(view(main.clone(), &[]));
        for a in JobStatus::ALL {
            all.push(view(main.clone(), &[a]));
            all.extend(JobStatus::ALL.map(|b| view(main.clone(), &[a, b])));
        }
    }
    all
}

/// Does this mode run the job's `main` itself? Those that do end with it.
async fn runs_main(fixture: &impl DeploymentFixture) -> Option<Arc<dyn DeploymentMode>> {
    let mode = fixture.open().await.unwrap();
    (mode.decide(&view(MainState::Waiting, &[])) == Decision::StartMain).then_some(mode)
}

pub async fn the_same_view_has_the_same_answer(fixture: &impl DeploymentFixture) {
    let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
    let forwards: Vec<_> = views().iter().map(|v| a.decide(v)).collect();
    let mut backwards: Vec<_> = views().iter().rev().map(|v| b.decide(v)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
}

pub async fn a_cluster_without_a_main_goes_on_and_takes_jobs(fixture: &impl DeploymentFixture) {
    let mode = fixture.open().await.unwrap();
    if runs_main(fixture).await.is_some() {
        return;
    }
    assert!(mode.accepts_submissions(), "a cluster that neither runs a main nor takes jobs has no use");
    for v in views().into_iter().filter(|v| v.main == MainState::None) {
        assert_eq!(mode.decide(&v), Decision::Continue, "{v:?}");
    }
}

pub async fn a_main_that_waits_is_started(fixture: &impl DeploymentFixture) {
    if let Some(mode) = runs_main(fixture).await {
        // A new leader finds the jobs of the one before, and runs main again so that it finds them too.
        assert_eq!(mode.decide(&view(MainState::Waiting, &[JobStatus::Finished])), Decision::StartMain);
        assert!(mode.derives_job_ids(), "a main that runs again must find its jobs");
    }
}

pub async fn nothing_ends_while_main_runs(fixture: &impl DeploymentFixture) {
    if let Some(mode) = runs_main(fixture).await {
        for v in views().into_iter().filter(|v| v.main == MainState::Running) {
            assert_eq!(mode.decide(&v), Decision::Continue, "{v:?}: a second execute may follow");
        }
    }
}

pub async fn a_finished_failed_and_cancelled_job_each_end_it_with_their_status(fixture: &impl DeploymentFixture) {
    let Some(mode) = runs_main(fixture).await else { return };
    use JobStatus::{Canceled, Failed, Finished};
    let ended = |code, jobs: &[JobStatus]| mode.decide(&view(MainState::Ended(code), jobs));
    for (code, jobs, status) in [
        (Some(0), &[Finished][..], ApplicationStatus::Succeeded),
        (Some(0), &[Finished, Finished], ApplicationStatus::Succeeded),
        (Some(0), &[], ApplicationStatus::Succeeded),
        (Some(1), &[Failed], ApplicationStatus::Failed),
        // A main that goes on after a failed job does not make the job good.
        (Some(0), &[Failed, Finished], ApplicationStatus::Failed),
        (Some(2), &[Canceled], ApplicationStatus::Canceled),
        (Some(1), &[Canceled], ApplicationStatus::Canceled),
        (Some(1), &[Canceled, Failed], ApplicationStatus::Failed),
        (Some(1), &[Finished], ApplicationStatus::Failed),
        (Some(1), &[], ApplicationStatus::Failed),
    ] {
        assert_eq!(ended(code, jobs), Decision::End(status), "exit code {code:?} with {jobs:?}");
    }
}

pub async fn a_main_that_dies_cancels_its_jobs_and_fails(fixture: &impl DeploymentFixture) {
    let Some(mode) = runs_main(fixture).await else { return };
    for death in [None, Some(101)] {
        let at = |jobs: &[JobStatus]| mode.decide(&view(MainState::Ended(death), jobs));
        assert_eq!(at(&[JobStatus::Running, JobStatus::Created]), Decision::Cancel(vec![job(0), job(1)]));
        assert_eq!(at(&[JobStatus::Finished, JobStatus::Restarting]), Decision::Cancel(vec![job(1)]));
        assert_eq!(at(&[JobStatus::Cancelling, JobStatus::Failing]), Decision::Continue, "they are ending already");
        assert_eq!(at(&[JobStatus::Canceled]), Decision::End(ApplicationStatus::Failed));
        assert_eq!(at(&[JobStatus::Finished]), Decision::End(ApplicationStatus::Failed));
        assert_eq!(at(&[]), Decision::End(ApplicationStatus::Failed));
    }
    // One that ends well and leaves a detached job behind wants it to go on.
    assert_eq!(mode.decide(&view(MainState::Ended(Some(0)), &[JobStatus::Running])), Decision::Continue);
}

pub async fn once_all_is_over_it_ends(fixture: &impl DeploymentFixture) {
    let Some(mode) = runs_main(fixture).await else { return };
    for v in views() {
        let over = matches!(v.main, MainState::Ended(_)) && v.jobs.iter().all(|(_, s)| s.is_terminal());
        let ends = matches!(mode.decide(&v), Decision::End(_));
        assert_eq!(ends, over, "{v:?}");
    }
}

pub async fn whatever_it_does_it_comes_to_an_end(fixture: &impl DeploymentFixture) {
    let Some(mode) = runs_main(fixture).await else { return };
    for first in views().into_iter().filter(|v| matches!(v.main, MainState::Ended(_))) {
        let mut v = first.clone();
        let mut rounds = 0;
        loop {
            let decision = mode.decide(&v);
            if matches!(decision, Decision::End(_)) {
                break;
            }
            rounds += 1;
            assert!(rounds < 10, "{first:?} comes to no end although its jobs do as they are told");
            for (id, status) in &mut v.jobs {
                *status = match (&decision, *status) {
                    (Decision::Cancel(ids), s) if ids.contains(id) && !s.is_terminal() => JobStatus::Cancelling,
                    (_, JobStatus::Cancelling) => JobStatus::Canceled,
                    (_, JobStatus::Failing) => JobStatus::Failed,
                    (_, s) if s.is_terminal() => s,
                    (_, _) => JobStatus::Finished,
                };
            }
        }
    }
}

/// Makes each case of the deployment suite a test: `deployment_suite!(async || fixture)`.
#[macro_export]
macro_rules! deployment_suite {
    ($open:expr) => { $crate::conformance_cases!("", async || Some(($open)().await), deployment,
        the_same_view_has_the_same_answer
        a_cluster_without_a_main_goes_on_and_takes_jobs
        a_main_that_waits_is_started
        nothing_ends_while_main_runs
        a_finished_failed_and_cancelled_job_each_end_it_with_their_status
        a_main_that_dies_cancels_its_jobs_and_fails
        once_all_is_over_it_ends
        whatever_it_does_it_comes_to_an_end
    ); };
}
