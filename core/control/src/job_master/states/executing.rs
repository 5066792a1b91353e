//! Tasks are deployed.

use super::{Committing, Input, State, cancelled, ended, failed, go, suspended};
use crate::{Now, job_master::job::Job};
use thalweg_model::JobStatus;

/// See the module.
#[derive(Debug, Clone)]
pub struct Executing;

impl Executing {
    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::TaskFailed { failure, id } => failed(job, now, self, failure, id),
            Input::Cancel => cancelled(job, now, self),
            Input::Suspend => suspended(job, self),
            Input::TaskChanged => {
                if job.all_finished() {
                    return ended(job, now, self, JobStatus::Finished, None);
                }
                if job.committed.is_some() {
                    return self.into();
                }
                match job.all_prepared() {
                    Some(record) => {
                        let committing = Committing::begin(job, record);
                        go(job, self, committing)
                    }
                    None => self.into(),
                }
            }
            _ => self.into(),
        }
    }
}
