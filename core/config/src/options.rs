//! The core's options as typed structs. Doc comments here become `conf/reference.md`; values come from
//! `conf/default.toml`, so a struct has no defaults of its own. Plugins' options are not here: each plugin has its own
//! struct.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thalweg_model::ClusterId;
use thalweg_spi::{ByteSize, TimeSpan};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

section!(
    /// The cluster as a whole.
    Cluster {
        /// Name of the cluster; whatever it keeps outside is under it.
        name: ClusterName,
        /// All processes run on this host, so stores that only this host can read are good enough.
        single_host: bool,
    }
);

/// A cluster's name as text. Letters, digits, `-`, `_` and `.`, since it becomes part of paths and object names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct ClusterName(pub String);

impl ClusterName {
    /// The name as an id.
    pub fn id(&self) -> ClusterId {
        ClusterId::new(self.0.as_str())
    }
}

section!(
    /// The JobManager.
    JobManager {
        /// Host or address that the JobManager's RPC listens on.
        bind: String,
        /// Port of the JobManager's RPC; 0 takes a free one.
        rpc_port: u16,
        /// Host that others dial; left out it is the bind address.
        address: Option<String>,
    }
);

impl JobManager {
    /// The host that others dial.
    pub fn advertised(&self) -> &str {
        self.address.as_deref().unwrap_or(&self.bind)
    }
}

/// What a REST write from this host must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoopbackWrites {
    /// The cluster's secret.
    Secret,
    /// Nothing: for tools that cannot send it. Every user of this host may run code as the cluster's user.
    Open,
}

section!(
    /// The REST endpoint.
    Rest {
        /// Host or address that REST listens on.
        bind: String,
        /// Port of REST; 0 takes a free one.
        port: u16,
        /// Longest body that a request may have; executables are streamed and not bound by it.
        max_body: ByteSize,
        /// What a write from this host must show: the cluster's secret, or nothing.
        loopback_writes: LoopbackWrites,
    }
);

section!(
    /// TaskManagers.
    TaskManager {
        /// Slots that a TaskManager offers.
        #[schemars(range(min = 1, max = 1024))]
        slots: u32,
        /// Host or address that a TaskManager and its task hosts listen on.
        bind: String,
        /// Fixed name of the TaskManager, kept over restarts; left out it gets a fresh one.
        id: Option<String>,
        /// Memory of the task hosts of a TaskManager, in equal shares of its slots; a host that takes more than its slots have is ended.
        memory: ByteSize,
        /// A TaskManager that finds no ResourceManager for so long ends.
        registration_timeout: TimeSpan,
        /// A slot that was allocated and not used for so long is free again.
        slot_timeout: TimeSpan,
        /// A TaskManager without work for so long is given back to an active resource provider.
        idle_timeout: TimeSpan,
    }
);

section!(
    /// Calls between processes.
    Rpc {
        /// A call without an answer for so long fails.
        timeout: TimeSpan,
        /// Longest message.
        max_frame: ByteSize,
    }
);

section!(
    /// Heartbeats.
    Heartbeat {
        /// Time between two heartbeats.
        interval: TimeSpan,
        /// A peer that was not heard for so long is lost; must be more than the interval.
        timeout: TimeSpan,
    }
);

section!(
    /// Registration of one component with another.
    Registration {
        /// How long the first registration waits for its answer; doubles with each.
        initial_timeout: TimeSpan,
        /// The longest such wait.
        max_timeout: TimeSpan,
        /// Pause after a connection was refused; doubles with each.
        refused_delay: TimeSpan,
        /// The longest such pause.
        refused_max_delay: TimeSpan,
    }
);

section!(
    /// A job's slots.
    Slot {
        /// A job that does not get its slots within this time fails.
        request_timeout: TimeSpan,
    }
);

section!(
    /// Jobs.
    Job {
        /// How long tasks go on without a JobManager, where high availability is durable; elsewhere nobody could take them
        /// over, and they end with it.
        orphan_timeout: TimeSpan,
        /// After a change of JobManagers, tasks that were not found within this are lost.
        reconcile_timeout: TimeSpan,
        /// How many jobs that have ended are remembered.
        #[schemars(range(min = 0, max = 100_000))]
        history: u32,
    }
);

section!(
    /// Dataflow programs.
    Pipeline {
        /// Parallelism of operators whose program does not say; 0 is the cores when embedded and 1 on a cluster.
        #[schemars(range(min = 0, max = 32_768))]
        parallelism: u32,
    }
);

section!(
    /// What the exchanges between operators may use.
    Exchange {
        /// What the exchanges of one task host may hold in memory.
        memory: ByteSize,
        /// Longest single record between two operators.
        max_record: ByteSize,
        /// A batch that is not full leaves after this time.
        buffer_timeout: TimeSpan,
    }
);

section!(
    /// What is measured beyond what costs nothing.
    Metrics {
        /// How often each source sends a latency marker, whose age each task notes; 0s for none. An idle job wakes up for it.
        latency_interval: TimeSpan,
    }
);

section!(
    /// Task hosts, and other processes that one of ours starts.
    Host {
        /// A task host whose main has not reached its execute after this time failed to start.
        start_timeout: TimeSpan,
        /// A process that was asked to end is killed after this time.
        stop_timeout: TimeSpan,
    }
);

section!(
    /// Clients.
    Client {
        /// An attached job is cancelled when its client was not heard for so long.
        timeout: TimeSpan,
    }
);

section!(
    /// Clusters that live for one job.
    PerJob {
        /// How long a per-job cluster waits for its client to read the result.
        linger: TimeSpan,
        /// Whoever launched the cluster waits for it: its jobs are cancelled when that client was not heard for
        /// `client.timeout`, and the result is kept for it until it was read. `thalweg run` sets this.
        attached: bool,
    }
);

section!(
    /// Who may do what.
    Security {
        /// Listening beyond this host is allowed without encryption: everybody on the network may read and change
        /// everything.
        insecure: bool,
        /// File with the cluster's secret, readable by its owner alone; the launcher makes one.
        secret_file: Option<PathBuf>,
    }
);

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

section!(
    /// Logs.
    Log {
        /// For people or for machines.
        format: LogFormat,
        /// `error`, `warn`, `info`, `debug` or `trace`, or a filter like `info,thalweg_control=debug`.
        level: String,
        /// Folder of the log files; left out it is `log/` in the cluster's folder.
        dir: Option<PathBuf>,
    }
);

section!(
    /// Files of processes.
    Process {
        /// Where processes keep their own files; left out it is in the cluster's folder.
        working_dir: Option<PathBuf>,
    }
);
