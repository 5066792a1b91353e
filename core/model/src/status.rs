//! States of a job and of a subtask, with the names that Flink's tools know.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A job's state as users and REST see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Accepted and persisted; it has no slots yet.
    Created,
    /// Its tasks are deployed.
    Running,
    /// A failure that ends it was seen; its tasks are being cancelled.
    Failing,
    /// Ended by a failure.
    Failed,
    /// A cancel was asked for; its tasks are being cancelled.
    Cancelling,
    /// Ended by a cancel. Flink spells it so.
    Canceled,
    /// Ended by itself.
    Finished,
    /// Waiting to be deployed again after a failure.
    Restarting,
    /// Its JobMaster stopped, the job did not: another leader goes on with it.
    Suspended,
    /// A new leader compares what runs with what should run.
    Reconciling,
}

impl JobStatus {
    /// No further change.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }

    /// All of them, in the order of a life.
    pub const ALL: [JobStatus; 10] = [
        Self::Created,
        Self::Reconciling,
        Self::Running,
        Self::Restarting,
        Self::Failing,
        Self::Cancelling,
        Self::Suspended,
        Self::Failed,
        Self::Canceled,
        Self::Finished,
    ];

    /// `RUNNING`, `CANCELED`…
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
            Self::Suspended => "SUSPENDED",
            Self::Reconciling => "RECONCILING",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A subtask's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionState {
    /// Not yet deployed.
    Created,
    /// Waits for a slot.
    Scheduled,
    /// Sent to its host.
    Deploying,
    /// Opened; state is being restored.
    Initializing,
    /// Steps.
    Running,
    /// Ended by itself; all it emitted has left.
    Finished,
    /// Told to stop.
    Canceling,
    /// Stopped because it was told to.
    Canceled,
    /// Stopped by a failure.
    Failed,
}

impl ExecutionState {
    /// No further change.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }

    /// All of them, in Flink's order.
    pub const ALL: [ExecutionState; 9] = [
        Self::Created,
        Self::Scheduled,
        Self::Deploying,
        Self::Initializing,
        Self::Running,
        Self::Finished,
        Self::Canceling,
        Self::Canceled,
        Self::Failed,
    ];

    /// `RUNNING`, `CANCELED`…
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Scheduled => "SCHEDULED",
            Self::Deploying => "DEPLOYING",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Canceling => "CANCELING",
            Self::Canceled => "CANCELED",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for ExecutionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
