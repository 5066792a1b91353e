//! TaskManager ↔ task host. One message is one length-delimited frame on the host's Unix socket, in order.
//!
//! ```text
//! host                                TaskManager
//!   Hello ───────────────────────────────▶        version, pid
//!        ◀─────────────────────────────── Start   the job's spec
//!   (main() runs up to the ordinal-th execute)
//!   Ready ───────────────────────────────▶        data address; or Refused
//!        ◀─────────────────────────────── Deploy / Cancel / Commit / Release
//!   Task, Metrics ───────────────────────▶
//!        ◀─────────────────────────────── Stop    end in peace; a closed socket means: end at once
//! ```

use crate::JobSpec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thalweg_model::{
    Attempt, ExecutionState, JobId, Placement, RegionAttempt, SubtaskId, SubtaskMetrics, TaskFailure, TaskManagerId,
};

/// One subtask to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDeployment {
    /// Which.
    pub subtask: SubtaskId,
    /// For a committer whose manifest was recorded before: publish it and end, without input.
    #[serde(default)]
    pub publish: Option<Bytes>,
}

/// Where the consumers of a producer's partition find it, as the shuffle plugin wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Index of the edge.
    pub edge: u32,
    /// Index of the producing subtask.
    pub producer: u32,
    /// The plugin's own bytes.
    pub bytes: Bytes,
}

/// Run these subtasks under this attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// Tasks of these tasks' regions that still run under lower attempts are cancelled first; other regions go on.
    pub attempt: Attempt,
    /// The host's part.
    pub tasks: Vec<TaskDeployment>,
    /// The whole.
    pub placement: Placement,
    /// For every edge that leaves a host.
    #[serde(default)]
    pub descriptors: Vec<Descriptor>,
}

/// To the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToHost {
    /// First message.
    Start {
        /// The job.
        job: JobId,
        /// All that was frozen at submission.
        spec: Box<JobSpec>,
        /// The TaskManager's name, as [`Placement::hosts`] has it.
        task_manager: TaskManagerId,
        /// Address to listen on for data: `tcp://127.0.0.1:0`.
        data_bind: String,
        /// `[shuffle]` section of the cluster's configuration, TOML.
        shuffle: String,
        /// Where the host may leave files; gone with it.
        scratch: String,
        /// File that gets standard output from here on; what `main` prints before stays where it went.
        #[serde(default)]
        output: Option<String>,
        /// Secret of the data connections among this job's hosts.
        data_secret: Bytes,
        /// The version that both speak.
        protocol: u32,
    },
    /// Run tasks.
    Deploy(Box<Deploy>),
    /// Stop the tasks of these regions, under this attempt and lower ones; each reports its end.
    Cancel {
        /// The regions, each with its attempt.
        regions: Vec<RegionAttempt>,
    },
    /// The JobMaster has recorded what this committer prepared: publish.
    Commit {
        /// The committer.
        subtask: SubtaskId,
        /// Ignored unless it is the one that prepared.
        attempt: Attempt,
    },
    /// End in peace.
    Stop,
    /// Anything of a newer TaskManager.
    #[serde(other)]
    Unknown,
}

/// A change of one subtask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which.
    pub subtask: SubtaskId,
    /// Under which attempt.
    pub attempt: Attempt,
    /// What it is now.
    pub state: ExecutionState,
    /// Why, when it failed.
    #[serde(default)]
    pub failure: Option<TaskFailure>,
    /// A committer that has its whole input and waits for `Commit`: what it will publish.
    #[serde(default)]
    pub prepared: Option<Bytes>,
    /// What `collect` gathered, by uid; comes with `prepared`.
    #[serde(default)]
    pub collected: BTreeMap<String, Bytes>,
    /// Counters at this moment.
    #[serde(default)]
    pub metrics: SubtaskMetrics,
}

/// What a host uses memory for, as far as it knows, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostMemory {
    /// The tables of keyed state, without what keys and values own elsewhere.
    pub state: u64,
    /// Records on their way from and to other hosts.
    pub exchange: u64,
}

/// From the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromHost {
    /// First message, before `main` has run.
    Hello {
        /// Thalweg version of the job's library.
        version: String,
        /// Newest protocol it speaks.
        protocol: u32,
        /// Oldest protocol it speaks.
        protocol_oldest: u32,
        /// Its process id; 0 when it lives in the TaskManager's own process.
        pid: u32,
    },
    /// `main` reached its execute and built the graph that was submitted.
    Ready {
        /// Where other hosts of this job reach it.
        data_address: Option<String>,
    },
    /// It cannot serve this job.
    Refused {
        /// Why.
        failure: TaskFailure,
    },
    /// A subtask changed.
    Task(Box<TaskReport>),
    /// Counters of all running subtasks, from time to time.
    Metrics {
        /// By subtask, each under its attempt.
        subtasks: Vec<(SubtaskId, Attempt, SubtaskMetrics)>,
        /// What its memory is used for.
        #[serde(default)]
        memory: HostMemory,
    },
    /// Anything of a newer host.
    #[serde(other)]
    Unknown,
}

/// Longest frame in either direction.
pub const MAX_HOST_FRAME: usize = 64 << 20;
