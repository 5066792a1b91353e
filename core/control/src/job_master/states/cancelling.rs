//! A cancel was asked for: waits until every task has stopped, and ends them by force when they do not.

use super::{Input, State, ended, suspended};
use crate::{Now, job_master::job::Job};
use thalweg_model::{JobStatus, Moment};

/// See the module.
#[derive(Debug, Clone)]
pub struct Cancelling {
    pub(super) deadline: Moment,
}

impl Cancelling {
    pub(super) fn begin(job: &mut Job, now: Now) -> Self {
        job.needs_no_more_slots();
        job.cancel_tasks(now);
        Self { deadline: now.at + job.settings.cancel_timeout }
    }

    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        if matches!(input, Input::Suspend) {
            return suspended(job, self);
        }
        if now.at >= self.deadline {
            job.force_end(now);
        }
        // A task that fails while it is being cancelled is over all the same.
        if job.all_terminal() { ended(job, now, self, JobStatus::Canceled, None) } else { self.into() }
    }
}
