//! Deployment mode `per-job`: a cluster that runs one job's `main` as a client of itself and ends with it.
//!
//! It ends when `main` has exited *and* every job that it submitted is terminal. The status is that of the worst job;
//! a `main` that fails by itself makes it `FAILED`. A `main` that dies (a signal, a panic, an exit code that no result of
//! a job has) leaves jobs that nobody waits for: they are cancelled.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_model::JobStatus;
use thalweg_spi::{
    ApplicationStatus, ClusterView, Decision, DeploymentMode, MainState, Plugin, PluginConfig, PluginContext, Result,
    inventory, kind,
};

/// It has nothing to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PerJobConfig {}

/// The mode.
#[derive(Debug, Clone, Copy)]
pub struct PerJob;

/// How a `main` ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MainEnd {
    /// Exit code 0.
    Well,
    /// An exit code that the result of a job explains: 1 failed, 2 cancelled.
    AsAJobDid,
    /// A signal, a panic, or an exit code of its own.
    Died,
}

impl MainEnd {
    fn of(exit: Option<i32>) -> Self {
        match exit {
            Some(0) => Self::Well,
            Some(1 | 2) => Self::AsAJobDid,
            _ => Self::Died,
        }
    }
}

impl DeploymentMode for PerJob {
    fn accepts_submissions(&self) -> bool {
        // Only its own `main` submits; the core tells that one apart by the id that it derives.
        false
    }

    fn derives_job_ids(&self) -> bool {
        true
    }

    fn decide(&self, view: &ClusterView) -> Decision {
        let exit = match view.main {
            MainState::None | MainState::Running => return Decision::Continue,
            MainState::Waiting => return Decision::StartMain,
            MainState::Ended(exit) => exit,
        };
        let end = MainEnd::of(exit);
        let running = view.jobs.iter().filter(|(_, status)| !status.is_terminal());
        if running.clone().next().is_none() {
            return Decision::End(self::status(end, view));
        }
        if end == MainEnd::Well {
            // It detached from what still runs.
            return Decision::Continue;
        }
        let ending = |status: JobStatus| matches!(status, JobStatus::Cancelling | JobStatus::Failing);
        let orphans: Vec<_> = running.filter(|(_, status)| !ending(*status)).map(|(job, _)| *job).collect();
        if orphans.is_empty() { Decision::Continue } else { Decision::Cancel(orphans) }
    }
}

/// The status of a cluster whose `main` and jobs have all ended.
fn status(end: MainEnd, view: &ClusterView) -> ApplicationStatus {
    let any = |wanted| view.jobs.iter().any(|(_, status)| *status == wanted);
    match end {
        MainEnd::Died => ApplicationStatus::Failed,
        _ if any(JobStatus::Failed) => ApplicationStatus::Failed,
        _ if any(JobStatus::Canceled) => ApplicationStatus::Canceled,
        MainEnd::AsAJobDid => ApplicationStatus::Failed,
        MainEnd::Well => ApplicationStatus::Succeeded,
    }
}

#[async_trait]
impl PluginConfig<kind::Deployment> for PerJobConfig {
    const NAME: &'static str = "per-job";
    const SUMMARY: &'static str = "Runs one job's main and ends with it.";

    async fn open(self, _: PluginContext) -> Result<Arc<dyn DeploymentMode>> {
        Ok(Arc::new(PerJob))
    }
}

inventory::submit! { Plugin::<kind::Deployment>::of::<PerJobConfig>() }
