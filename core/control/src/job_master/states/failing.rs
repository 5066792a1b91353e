//! A failure that ends the job was seen: waits until every task has stopped, and ends them by force when they do not.

use super::{Input, State, ended, suspended};
use crate::{Now, job_master::job::Job};
use thalweg_model::{JobStatus, Moment, TaskFailure};

/// See the module.
#[derive(Debug, Clone)]
pub struct Failing {
    pub(super) deadline: Moment,
    failure: TaskFailure,
}

impl Failing {
    /// `why` it does not start again is added to what people read, where there is more to say than the failure itself.
    pub(super) fn begin(job: &mut Job, now: Now, mut failure: TaskFailure, why: &str) -> Self {
        job.needs_no_more_slots();
        job.cancel_tasks(now);
        let restarted = job.attempt.n > 0 || failure.kind.restarts_by_default();
        if restarted && !why.is_empty() {
            failure.message = format!("{}; {why}", failure.message);
        }
        Self { deadline: now.at + job.settings.cancel_timeout, failure }
    }

    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        if matches!(input, Input::Suspend) {
            return suspended(job, self);
        }
        if now.at >= self.deadline {
            job.force_end(now);
        }
        if job.all_terminal() {
            let failure = self.failure.clone();
            ended(job, now, self, JobStatus::Failed, Some(failure))
        } else {
            self.into()
        }
    }
}
