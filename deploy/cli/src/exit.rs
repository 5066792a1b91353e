//! Exit codes: a client answers 0 finished, 1 failed, 2 cancelled, 3 unknown, 64 wrong use; a JobManager or TaskManager
//! 0 normal or SIGTERM, 1 start failed or the per-job cluster's job failed, 2 fatal.

use std::{fmt, process::ExitCode};
use thalweg_model::JobStatus;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok,
    /// The job failed, or the process could not start.
    Failed,
    /// The job was cancelled.
    Canceled,
    /// What became of the job is not known.
    Unknown,
    /// A process ended by a fatal error.
    Fatal,
    /// The command was used wrongly.
    WrongUse,
}

impl Exit {
    /// How a client ends when its job ended so.
    pub fn of(status: JobStatus) -> Self {
        match status {
            JobStatus::Finished => Self::Ok,
            JobStatus::Failed => Self::Failed,
            JobStatus::Canceled => Self::Canceled,
            _ => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Canceled | Exit::Fatal => 2,
            Exit::Unknown => 3,
            Exit::WrongUse => 64,
        })
    }
}

/// An error that carries its exit code.
#[derive(Debug)]
pub struct Coded(pub Exit, pub String);

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Coded {}

/// Wrong use, in words that say what would be right.
pub fn wrong_use(message: impl Into<String>) -> anyhow::Error {
    Coded(Exit::WrongUse, message.into()).into()
}

/// The exit code of an error: 1 where nothing else was said.
pub fn of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Coded>().map_or(Exit::Failed, |coded| coded.0)
}
