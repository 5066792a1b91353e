//! Why a task failed. The kind decides whether the job restarts; the rest is for the person who reads it.

use crate::SubtaskId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Kinds of failure, each with its own answer to "start again?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// User code returned an error.
    User,
    /// User code panicked.
    UserPanic,
    /// The host went over its memory.
    OutOfMemory,
    /// A process, a machine or a connection went away.
    Lost,
    /// A disk or a store failed.
    Storage,
    /// The executable cannot run there, or speaks another version. It never helps to try again.
    Incompatible,
}

impl FailureKind {
    /// Is a restart tried when no restart strategy is configured?
    pub fn restarts_by_default(self) -> bool {
        matches!(self, Self::Lost | Self::Storage | Self::OutOfMemory)
    }

    /// Can a restart help at all?
    pub fn may_restart(self) -> bool {
        self != Self::Incompatible
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user error",
            Self::UserPanic => "user panic",
            Self::OutOfMemory => "out of memory",
            Self::Lost => "lost",
            Self::Storage => "storage",
            Self::Incompatible => "incompatible",
        })
    }
}

/// One failure of one task, or of what it ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Decides what happens next.
    pub kind: FailureKind,
    /// What happened, in words, and what to do about it where that is known.
    pub message: String,
    /// The subtask that failed; `None` when a whole host or TaskManager did.
    #[serde(default)]
    pub subtask: Option<SubtaskId>,
    /// The operator's uid, where it is known.
    #[serde(default)]
    pub uid: Option<String>,
    /// Backtrace or other detail that is too long for a line.
    #[serde(default)]
    pub detail: Option<String>,
}

impl TaskFailure {
    /// A failure that is not of one subtask.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), subtask: None, uid: None, detail: None }
    }

    /// The same failure, told of one subtask.
    pub fn at(mut self, subtask: SubtaskId) -> Self {
        self.subtask = Some(subtask);
        self
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        match (&self.uid, self.subtask) {
            (Some(uid), Some(s)) => write!(f, " (operator {uid:?}, subtask {})", s.index),
            (None, Some(s)) => write!(f, " (vertex {}, subtask {})", s.vertex, s.index),
            (Some(uid), None) => write!(f, " (operator {uid:?})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for TaskFailure {}
