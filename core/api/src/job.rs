//! A job that runs, and how it ended.

use crate::{Collected, JobError, executor::RunningJob};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use thalweg_dataflow::{Data, ProgramMark, sink::decode_collected};
use thalweg_model::{JobId, JobStatus, TaskFailure};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult(thalweg_wire::JobResult, ProgramMark);

impl JobResult {
    /// The job.
    pub fn id(&self) -> JobId {
        self.0.job
    }
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&TaskFailure> {
        self.0.failure.as_ref()
    }
    /// From acceptance to end.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.0.ended.0.saturating_sub(self.0.started.0))
    }
    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.0.attempt
    }
    /// Records that all sources gave together.
    pub fn source_records(&self) -> u64 {
        self.0.source_records.values().sum()
    }
    /// All that is known.
    pub fn wire(&self) -> &thalweg_wire::JobResult {
        &self.0
    }

    /// What a `collect` of this program gathered, by subtask and in the order of each.
    pub fn collected<T: Data>(&self, handle: &Collected<T>) -> Result<Vec<T>, JobError> {
        let uid = handle.uid().ok_or_else(|| {
            JobError::Program(vec!["this collect() is of a program that was not executed".to_owned()])
        })?;
        if *handle.program() != self.1 {
            return Err(JobError::Program(vec![format!(
                "the collect() with uid {uid:?} is of another job than {:?}, whose result was asked: ask the result of the \
                 execute() that ran it",
                self.0.name
            )]));
        }
        match self.0.collected.get(uid) {
            Some(bytes) => decode_collected(bytes).map_err(JobError::Collected),
            None => Err(JobError::Program(vec![format!("job {:?} has no collect() with uid {uid:?}", self.0.name)])),
        }
    }

    pub(crate) fn judge(result: thalweg_wire::JobResult, of: ProgramMark) -> Result<Self, JobError> {
        let status = result.status;
        let result = Self(result, of);
        match status {
            JobStatus::Finished => Ok(result),
            JobStatus::Canceled => Err(JobError::Canceled(Box::new(result))),
            _ => Err(JobError::Failed(Box::new(result))),
        }
    }
}

/// A job that was accepted. Dropping it does nothing to the job.
#[derive(Clone)]
pub struct JobHandle(Arc<dyn RunningJob>, ProgramMark);

impl JobHandle {
    pub(crate) fn new(job: Arc<dyn RunningJob>, of: ProgramMark) -> Self {
        Self(job, of)
    }
    /// Its id.
    pub fn id(&self) -> JobId {
        self.0.id()
    }
    /// Resolves when the job has ended. One that failed or was cancelled is an error.
    pub fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>> {
        let (wait, of) = (self.0.wait(), self.1.clone());
        Box::pin(async move { JobResult::judge(wait.await?, of) })
    }
    /// Asks for the job's end.
    pub fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>> {
        self.0.cancel()
    }
}
