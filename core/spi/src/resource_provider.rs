//! Resource providers: where workers (TaskManagers) come from, and who launches whole clusters.
//!
//! The unpleasant truth: **two live workers may have one identity** (a machine that was cut off comes back after its
//! replacement was started), and an answer that does not come does not mean that nothing was started.

use crate::{ApplicationStatus, Result};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use thalweg_model::{ClusterId, TaskManagerId};
use tokio::sync::mpsc;

/// What a resource provider can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderCapabilities {
    /// Workers come by themselves; `declare` changes nothing.
    pub passive: bool,
    /// It refuses beyond some number of workers, and that is retryable.
    pub quota: bool,
    /// Workers survive the JobManager and are found again by the next one.
    pub recovers: bool,
}

/// What a worker is like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerProfile {
    /// Slots that it offers; at least 1.
    pub slots: u32,
    /// Its memory in bytes; `None` for no limit.
    pub memory: Option<u64>,
}

/// What happened to workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderEvent {
    /// A declared worker was started; it registers by itself.
    Started {
        /// Its identity.
        worker: TaskManagerId,
        /// Which declaration it serves.
        profile: WorkerProfile,
    },
    /// A worker of an earlier JobManager still lives.
    Recovered {
        /// Its identity.
        worker: TaskManagerId,
        /// What it is like.
        profile: WorkerProfile,
    },
    /// A worker is gone. MUST be told exactly once for each worker that was `Started` or `Recovered`, whoever ended it.
    Lost {
        /// Its identity.
        worker: TaskManagerId,
        /// Why, for people.
        cause: String,
    },
    /// A declared worker could not be started.
    Refused {
        /// Which declaration.
        profile: WorkerProfile,
        /// Why, for people.
        cause: String,
        /// May it work later? The provider tries again by itself when the declaration still stands.
        retry: bool,
    },
}

/// The JobManager's side.
#[async_trait]
pub trait ResourceProvider: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> ProviderCapabilities;

    /// So many workers of each profile, in all. MUST be absolute and idempotent: the same again changes nothing; fewer
    /// ends workers that were not yet registered first, and never one that `release` was not called for otherwise.
    /// For each missing worker a `Started` or `Refused` event MUST follow within the provider's deadline.
    async fn declare(&self, workers: BTreeMap<WorkerProfile, u32>) -> Result<()>;

    /// This worker has registered: from now on only [`ResourceProvider::release`] ends it. The caller MUST tell each
    /// registration; a provider that was told of none ends nobody when less is declared, since it cannot know.
    async fn registered(&self, _worker: &TaskManagerId) {}

    /// Ends this worker. MUST be idempotent, and lowers what counts as there, not what was declared.
    async fn release(&self, worker: &TaskManagerId) -> Result<()>;

    /// The events, once: a second call answers `None`. Workers of an earlier JobManager are told first.
    fn events(&self) -> Option<mpsc::UnboundedReceiver<ProviderEvent>>;

    /// The cluster ends: all workers are ended, nothing is left behind. MUST be idempotent.
    async fn deregister(&self, status: ApplicationStatus, diagnostics: &str) -> Result<()>;
}

/// What to launch.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name.
    pub cluster: ClusterId,
    /// Its folder on this machine; `cluster.json` will be there.
    pub dir: PathBuf,
    /// The `thalweg` executable.
    pub thalweg: PathBuf,
    /// File with the effective configuration, TOML, without secrets.
    pub configuration: PathBuf,
    /// File with the cluster's secret, readable by its owner alone.
    pub secret: PathBuf,
    /// Per job: the job's executable and its arguments. The JobManager runs it as a client of itself.
    pub job: Option<(PathBuf, Vec<String>)>,
    /// The client's working directory.
    pub client_dir: PathBuf,
    /// JobManagers to start; more than 1 needs high availability with standbys.
    pub job_managers: u32,
    /// TaskManagers to start at once; an active provider starts more by itself.
    pub task_managers: u32,
}

/// A launched cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHandle {
    /// Its name.
    pub cluster: ClusterId,
    /// Where REST is served: `http://host:port`.
    pub rest: String,
    /// What the provider needs to find it again.
    pub provider: BTreeMap<String, String>,
}

/// What a launched cluster is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterState {
    /// Being started.
    Starting,
    /// Serves REST.
    Running,
    /// Ended, with this status where it is known.
    Ended(Option<ApplicationStatus>),
}

/// The client's side.
#[async_trait]
pub trait ClusterLauncher: Send + Sync {
    /// Starts a cluster and waits until REST is served. When it fails it MUST leave nothing running. MUST deliver the
    /// secret as a private file or an inherited descriptor.
    async fn launch(&self, spec: ClusterSpec) -> Result<ClusterHandle>;
    /// What is it doing?
    async fn status(&self, cluster: &ClusterHandle) -> Result<ClusterState>;
    /// Ends all of it, by force where it must. MUST be idempotent.
    async fn kill(&self, cluster: &ClusterHandle) -> Result<()>;
}
