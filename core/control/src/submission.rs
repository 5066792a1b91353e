//! What a client and REST say to each other about a job, in MessagePack. Here and not with the routes, since clients have no
//! server in them.

use serde::{Deserialize, Serialize};
use thalweg_model::{JobId, JobStatus};
use thalweg_wire::{JobResult, JobSpec};

/// A job to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Submission {
    /// Its id; the cluster derives one where its mode says so.
    pub job: Option<JobId>,
    /// What it is.
    pub spec: JobSpec,
    /// From a `main` that this cluster runs.
    #[serde(default)]
    pub from_main: bool,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum SubmissionAnswer {
    /// It runs, or did already.
    Running {
        /// Its id.
        job: JobId,
    },
    /// It has ended before.
    Ended(Box<JobResult>),
}

/// How a job is doing.
#[derive(Debug, Serialize, Deserialize)]
pub struct ResultAnswer {
    /// Its status.
    pub status: JobStatus,
    /// Its result, when it has ended.
    pub result: Option<JobResult>,
    /// Why it waits.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Tasks that run, of all.
    #[serde(default)]
    pub tasks: (u32, u32),
    /// Records that its sources gave so far.
    #[serde(default)]
    pub records: u64,
    /// Bytes that its sources read, of all.
    #[serde(default)]
    pub source_bytes: (u64, u64),
    /// The present attempt.
    #[serde(default)]
    pub attempt: u32,
}
