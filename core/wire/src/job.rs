//! A submitted job, and its result.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{BlobKey, JobGraph, JobId, JobStatus, TaskFailure, UnixMillis};

/// Final results only, or updates as they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecutionMode {
    /// Batch when every source is bounded, else streaming.
    #[default]
    Automatic,
    /// Final results only; refused when a source is unbounded.
    Batch,
    /// Each change of an aggregate is emitted.
    Streaming,
}

/// When a failed job starts again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum RestartStrategy {
    /// By the kind of failure: what was lost starts again with growing delays, what the user's code did fails the job.
    #[default]
    ByKind,
    /// Never.
    None,
    /// After `delay`, at most `attempts` times.
    FixedDelay {
        /// How often.
        attempts: u32,
        /// How long after the failure.
        delay: Duration,
    },
    /// After `delay`, unless there were more than `max_failures` within `interval`.
    FailureRate {
        /// How many failures one interval may hold.
        max_failures: u32,
        /// Length of the interval.
        interval: Duration,
        /// How long after the failure.
        delay: Duration,
    },
    /// After a delay that grows with each failure and falls back when the job was stable.
    ExponentialDelay {
        /// The first delay.
        initial: Duration,
        /// The longest one.
        max: Duration,
        /// Growth from one to the next.
        multiplier: f64,
        /// Stable for so long: the delay falls back to the first.
        reset_after: Duration,
        /// Share of the delay by which it varies.
        jitter: f64,
        /// How often, or `None` for ever.
        attempts: Option<u32>,
    },
}

/// Everything that is frozen at submission. The host's run of `main` sees these and nothing else of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What users call it; need not be unique.
    pub name: String,
    /// The graph that the client built.
    pub graph: JobGraph,
    /// The job's executable; all zero when it runs embedded.
    pub executable: BlobKey,
    /// Its arguments, without the program's name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Cached files, by the name that the program knows them by.
    #[serde(default)]
    pub files: BTreeMap<String, BlobKey>,
    /// The chosen environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The client's working directory: relative paths of sources and sinks start here.
    #[serde(default)]
    pub client_dir: String,
    /// Which `execute` of `main` this job is, from 0.
    #[serde(default)]
    pub ordinal: u32,
    /// Results of the executes before it.
    #[serde(default)]
    pub earlier: Vec<JobResult>,
    /// Parallelism of what the program left open.
    pub default_parallelism: u32,
    /// Batch or streaming.
    #[serde(default)]
    pub mode: ExecutionMode,
    /// When it starts again.
    #[serde(default)]
    pub restart: RestartStrategy,
    /// Set when a client stays attached: the job is cancelled when the client was not heard for so long.
    #[serde(default)]
    pub client_timeout: Option<Duration>,
    /// `job.*` and other options that the job brings along.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Plugins that the executable has linked, as `kind/name`.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Protocol range of the executable: newest, oldest.
    #[serde(default)]
    pub protocol: (u32, u32),
}

impl JobSpec {
    /// Every blob that the job needs while it runs.
    pub fn blobs(&self) -> impl Iterator<Item = BlobKey> {
        std::iter::once(self.executable).chain(self.files.values().copied())
    }
}

/// Folder of a host's scratch in which its cached files are, by name.
pub const FILES_DIR: &str = "files";

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobResult {
    /// Which job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// A terminal status.
    pub status: JobStatus,
    /// Why, when it failed.
    #[serde(default)]
    pub failure: Option<TaskFailure>,
    /// When it was accepted.
    pub started: UnixMillis,
    /// When it ended.
    pub ended: UnixMillis,
    /// Number of the last attempt: 0 when it never restarted.
    #[serde(default)]
    pub attempt: u32,
    /// What `collect` sinks gathered, by uid, encoded by the job.
    #[serde(default)]
    pub collected: BTreeMap<String, Bytes>,
    /// Records that each source gave, summed by uid.
    #[serde(default)]
    pub source_records: BTreeMap<String, u64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{decode, encode};

    pub(crate) fn spec() -> JobSpec {
        JobSpec {
            name: "words".into(),
            graph: JobGraph::default(),
            executable: BlobKey::of(b"elf"),
            args: vec!["--input".into(), "/x".into()],
            files: BTreeMap::from([("dictionary".into(), BlobKey::of(b"words"))]),
            env: BTreeMap::from([("A".into(), "b".into())]),
            client_dir: "/home".into(),
            ordinal: 1,
            earlier: vec![],
            default_parallelism: 2,
            mode: ExecutionMode::Batch,
            restart: RestartStrategy::FixedDelay { attempts: 3, delay: Duration::from_millis(5) },
            client_timeout: Some(Duration::from_secs(30)),
            options: BTreeMap::new(),
            plugins: vec!["shuffle/network".into()],
            protocol: (1, 1),
        }
    }

    #[test]
    fn a_spec_comes_back_as_it_went() {
        assert_eq!(decode::<JobSpec>(&encode(&spec()), 1 << 20).unwrap(), spec());
    }
}
