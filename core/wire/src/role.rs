//! How a job's executable is told what it is: over a Unix socket that it inherits.
//!
//! Whoever starts the executable sets [`ROLE_VARIABLE`] to `descriptor:pid`, its own pid; the executable trusts the
//! descriptor only when it is a Unix socket that this process made. The first frame says the role. A job that was started
//! by hand has no such socket, and runs embedded; so does a grandchild, which does not inherit it.

use crate::RestartStrategy;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thalweg_model::{JobGraph, JobId, JobStatus, TaskFailure};

/// Names the inherited descriptor and who made it.
pub const ROLE_VARIABLE: &str = "THALWEG_ROLE";

/// What the executable is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It submits its jobs to a cluster.
    Client(Box<ClientRole>),
    /// It tells its first graph and ends.
    Plan {
        /// Parallelism of what the program leaves open.
        parallelism: u32,
    },
    /// It serves tasks: the messages of [`crate::host`] follow on the same socket.
    Host,
    /// Anything of a newer version.
    #[serde(other)]
    Unknown,
}

/// How a client submits.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientRole {
    /// `http://host:port` of the cluster's REST.
    pub rest: String,
    /// The same of the cluster's other JobManagers: any of them will do.
    #[serde(default)]
    pub others: Vec<String>,
    /// As it goes behind `Bearer`; `None` where writes are open.
    #[serde(default)]
    pub secret: Option<Bytes>,
    /// Submit and do not wait.
    #[serde(default)]
    pub detached: bool,
    /// Parallelism of what the program leaves open.
    pub parallelism: u32,
    /// An attached client that was not heard for so long is gone, and its job is cancelled; `None` to let it run on.
    #[serde(default)]
    pub client_timeout: Option<Duration>,
    /// This `main` is run by the cluster itself: job ids are derived from the cluster's name.
    #[serde(default)]
    pub in_cluster: Option<String>,
    /// Where the executable can be read; its own file when absent.
    #[serde(default)]
    pub executable: Option<String>,
    /// The client's working directory.
    #[serde(default)]
    pub client_dir: Option<String>,
    /// When its jobs start again, where the program does not say.
    #[serde(default)]
    pub restart: Option<RestartStrategy>,
}

impl std::fmt::Debug for ClientRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientRole({}, detached {})", self.rest, self.detached)
    }
}

/// What a client tells whoever started it, for progress and exit codes. It may not listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromClient {
    /// The graph of the role [`Role::Plan`].
    Plan {
        /// The job's name.
        name: String,
        /// Its graph.
        graph: Box<JobGraph>,
    },
    /// A job was submitted.
    Submitted {
        /// Which.
        job: JobId,
        /// Its name.
        name: String,
    },
    /// How it is doing.
    Progress {
        /// Which.
        job: JobId,
        /// Its status.
        status: JobStatus,
        /// Tasks that run, of all.
        tasks: (u32, u32),
        /// Records so far.
        records: u64,
        /// Bytes that sources read, of all.
        source_bytes: (u64, u64),
        /// Why it waits.
        waiting: Option<String>,
    },
    /// A job has ended.
    Ended {
        /// Which.
        job: JobId,
        /// How.
        status: JobStatus,
        /// Why, when it failed.
        failure: Option<TaskFailure>,
    },
    /// Something that people who wait should know.
    Notice {
        /// What.
        message: String,
    },
    /// The program went wrong before a job was submitted, or the cluster did not take it.
    Failed {
        /// Why.
        message: String,
    },
    /// Anything of a newer version.
    #[serde(other)]
    Unknown,
}

/// Longest frame on a role socket.
pub const MAX_ROLE_FRAME: usize = 64 << 20;
