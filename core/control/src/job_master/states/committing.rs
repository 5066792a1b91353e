//! All output is written and every committer has prepared. The commit is written down; from then on a restart publishes
//! only, and a cancel comes too late.

use super::{Input, State, ended, failed, suspended};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use thalweg_model::{JobStatus, TaskFailure, TaskManagerId};
use thalweg_wire::CommitRecord;

/// See the module.
#[derive(Debug, Clone)]
pub struct Committing {
    /// `None` once it is written down.
    record: Option<CommitRecord>,
    /// What failed while it was being written: decided when it is known whether it was.
    failure: Option<(TaskFailure, Option<TaskManagerId>)>,
}

impl Committing {
    pub(super) fn begin(job: &mut Job, record: CommitRecord) -> Self {
        job.effects.push(Effect::RecordCommit(record.clone()));
        Self { record: Some(record), failure: None }
    }

    /// An earlier leader wrote it down.
    pub(super) fn again(job: &mut Job) -> Self {
        publish(job);
        Self { record: None, failure: None }
    }

    pub(super) fn on_input(mut self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::CommitRecorded(Ok(())) => {
                if let Some(record) = self.record.take() {
                    job.committed = Some(record);
                    // Whatever is lost from here on, one slot is enough to publish.
                    job.effects.push(Effect::Require(job.slots_needed()));
                }
                if let Some((failure, id)) = self.failure.take() {
                    return failed(job, now, self, failure, id);
                }
                publish(job);
                self.into()
            }
            Input::CommitRecorded(Err(failure)) => {
                let (failure, id) = self.failure.take().unwrap_or((failure, None));
                failed(job, now, self, failure, id)
            }
            Input::TaskFailed { failure, id } if self.record.is_some() => {
                self.failure.get_or_insert((failure, id));
                self.into()
            }
            Input::TaskFailed { failure, id } => failed(job, now, self, failure, id),
            Input::Suspend => suspended(job, self),
            _ if job.committed.is_some() && job.all_finished() => ended(job, now, self, JobStatus::Finished, None),
            _ => self.into(),
        }
    }
}

fn publish(job: &mut Job) {
    for (subtask, id, attempt) in job.committers() {
        job.effects.push(Effect::Commit { id, subtask, attempt });
    }
}
