//! Deployment modes: what a cluster is for, who starts its jobs, and when it ends. Pure decisions, no I/O.

use serde::{Deserialize, Serialize};
use std::fmt;
use thalweg_model::{JobId, JobStatus};

/// How a cluster ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ApplicationStatus {
    /// All its work succeeded.
    Succeeded,
    /// Some of it failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// It was stopped from outside.
    Unknown,
}

impl fmt::Display for ApplicationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// The job's `main` in a cluster that runs it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MainState {
    /// This cluster runs none.
    None,
    /// Not started yet.
    Waiting,
    /// Runs.
    Running,
    /// Ended with this exit code; `None` when a signal ended it.
    Ended(Option<i32>),
}

/// What a mode decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// The job's `main`.
    pub main: MainState,
    /// All jobs that were submitted, in order.
    pub jobs: Vec<(JobId, JobStatus)>,
}

/// What a cluster does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Goes on.
    Continue,
    /// Starts the job's `main` as a client of this cluster.
    StartMain,
    /// Cancels these jobs, because nobody is left who wants them.
    Cancel(Vec<JobId>),
    /// Ends, with this status.
    End(ApplicationStatus),
}

/// What a cluster is for.
pub trait DeploymentMode: Send + Sync {
    /// Are jobs taken from clients outside?
    fn accepts_submissions(&self) -> bool;
    /// Are job ids derived from the cluster's id, so that a `main` that runs again finds its jobs?
    fn derives_job_ids(&self) -> bool;
    /// What next? Called at the start and after every change. MUST be a function of the view alone: the same view again
    /// has the same answer. Once every job is terminal and `main` has ended, a mode that ends MUST answer `End`.
    fn decide(&self, view: &ClusterView) -> Decision;
}
