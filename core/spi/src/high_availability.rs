//! High availability: who leads, how others find the leader, and what a leader writes down for the next one.
//!
//! The unpleasant truth: **two processes may believe that they lead at one moment.** A process that was stopped wakes up
//! in the belief it went to sleep with. What makes this harmless is the *epoch*: each grant has a higher one, every
//! write carries it, and the store refuses what is lower than the highest it has granted.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_model::{Epoch, JobId};
use tokio::sync::watch;

/// What a high-availability plugin can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HighAvailabilityCapabilities {
    /// Metadata is there after a restart of every process.
    pub durable: bool,
    /// Processes on other hosts compete for the same office and see the same metadata.
    pub shared: bool,
    /// A second candidate waits for office instead of being refused.
    pub standby: bool,
}

/// Where the leader is. Everybody may read it: no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderInfo {
    /// The leader's epoch; `None` where only the leader itself can tell it (an address from a configuration file).
    pub epoch: Option<Epoch>,
    /// Where it takes RPC, as `thalweg_env::Address` text.
    pub rpc: String,
    /// Where it serves REST: `http://host:port`.
    pub rest: String,
}

/// This process's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Office {
    /// It does not lead.
    None,
    /// It leads under this epoch.
    Leader(Epoch),
    /// It led under this epoch and does no longer. There is no way back from here: the process exits.
    Lost(Epoch),
}

/// The one election of a process.
#[async_trait]
pub trait LeaderElection: Send + Sync {
    /// Waits for office. Epochs MUST grow strictly over all grants of this cluster, over restarts of the store too. May
    /// be dropped: then this process does not stand, or leaves office if it was granted meanwhile.
    async fn campaign(&self) -> Result<Epoch>;

    /// Tells everybody where the leader is. Fenced like any write.
    async fn announce(&self, epoch: Epoch, leader: LeaderInfo) -> Result<()>;

    /// This process's standing, as it changes. `Lost` MUST be told before this process could be granted again, and
    /// before the plugin's own lease can have ended for others.
    fn office(&self) -> watch::Receiver<Office>;

    /// Leaves office; the next candidate gets it at once. Leaving an office that one does not hold is fine.
    async fn resign(&self, epoch: Epoch) -> Result<()>;
}

/// Finds the leader.
pub trait LeaderRetrieval: Send + Sync {
    /// The present leader, and each later one. A late watcher MUST see the present one, and one that was cut off MUST see
    /// the last state when it is back. `None` while nobody leads.
    fn leader(&self) -> watch::Receiver<Option<LeaderInfo>>;
}

/// A value with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Bytes,
    /// Changes with each write of the key; compare for equality only.
    pub version: u64,
}

/// What must be true of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// It is not there.
    Absent,
    /// It has this version.
    Version(u64),
}

/// Small records that outlive a leader. Keys are `/`-separated text; a value of 1 MB MUST work or be refused as
/// [`crate::ErrorKind::TooLarge`].
#[async_trait]
pub trait MetadataStore: Send + Sync {
    /// One record.
    async fn get(&self, key: &str) -> Result<Option<Versioned>>;

    /// Writes one record as a whole or not at all; answers its new version.
    ///
    /// - A lower epoch than the highest granted MUST be refused as [`crate::ErrorKind::Fenced`].
    /// - An expectation that does not hold MUST be refused as [`crate::ErrorKind::Conflict`].
    /// - An error that may have happened anyway MUST say so; what is read afterwards is the old value or the new one.
    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64>;

    /// Removes one record. What is not there MUST be fine, unless a version was expected. Fenced like a put.
    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()>;

    /// All records whose key begins with `prefix`, in key order. `jobs/1/` MUST NOT find `jobs/10/`.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>>;
}

/// Everything of one cluster in one process.
#[async_trait]
pub trait HighAvailabilityServices: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> HighAvailabilityCapabilities;
    /// The one election of this process.
    fn leader_election(&self) -> Arc<dyn LeaderElection>;
    /// Finds the leader.
    fn leader_retrieval(&self) -> Arc<dyn LeaderRetrieval>;
    /// Records.
    fn metadata(&self) -> Arc<dyn MetadataStore>;
    /// Removes all that is kept for a job outside `metadata`. MUST be idempotent.
    async fn clean_up(&self, job: JobId) -> Result<()>;
    /// Ends background work and leaves office. What `metadata` holds stays.
    async fn close(&self) -> Result<()>;
}
