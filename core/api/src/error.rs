//! Why an `execute` did not give a result.

use crate::JobResult;

/// An error of [`crate::Environment::execute`].
#[derive(Clone, thiserror::Error)]
pub enum JobError {
    /// The program cannot run. All that is wrong with it, a line each.
    #[error("the program cannot run:\n  {}", .0.join("\n  "))]
    Program(Vec<String>),
    /// The job was not accepted.
    #[error("the job was not accepted: {0}")]
    Submission(String),
    /// The job ended by a failure.
    #[error("job {:?} failed: {}", .0.name(), .0.failure().map_or_else(|| "no cause was told".to_owned(), ToString::to_string))]
    Failed(Box<JobResult>),
    /// The job was cancelled.
    #[error("job {:?} was cancelled", .0.name())]
    Canceled(Box<JobResult>),
    /// The job has finished, and what it collected cannot be read.
    #[error("the job has finished, and what it collected cannot be read: {0}")]
    Collected(String),
    /// What became of the job is not known.
    #[error("what became of the job is not known: {0}")]
    Unknown(String),
}

/// The same words as `Display`: a `main` that returns this error prints it so.
impl std::fmt::Debug for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
