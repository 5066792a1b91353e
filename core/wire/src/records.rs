//! What a leader writes down for the next one. Core derives its stores from these and the metadata seam.

use crate::{JobResult, JobSpec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thalweg_model::{Attempt, InstanceId, JobId, Placement, TaskManagerId, UnixMillis};

/// An accepted job. Written before the submission is acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Which.
    pub job: JobId,
    /// What was submitted.
    pub spec: JobSpec,
    /// When.
    pub submitted: UnixMillis,
}

/// One deployment, of the whole job or of some of its regions. Written before its first task is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// The latest attempt.
    pub attempt: Attempt,
    /// Under which attempt each region is.
    #[serde(default)]
    pub regions: Vec<Attempt>,
    /// Parallelism by vertex.
    pub parallelism: Vec<u32>,
    /// Those that take part.
    pub task_managers: Vec<DeployedOn>,
    /// Where each subtask is: what is found there again is adopted.
    #[serde(default)]
    pub placement: Placement,
}

/// A TaskManager that takes part in a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedOn {
    /// Its name.
    pub id: TaskManagerId,
    /// Which life of it.
    pub instance: InstanceId,
    /// Where it takes RPC, so that the next leader can look whether it lives.
    pub rpc: String,
}

/// All subtasks have finished and every committer has prepared: from here on a restart publishes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// The attempt whose output it is.
    pub attempt: Attempt,
    /// What each committer publishes, by its uid.
    pub manifests: BTreeMap<String, Bytes>,
    /// What `collect` gathered, by uid.
    #[serde(default)]
    pub collected: BTreeMap<String, Bytes>,
}

/// A job that has ended. It never runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultRecord {
    /// How it ended.
    pub result: JobResult,
    /// Clean-up is still to be done.
    pub dirty: bool,
}
