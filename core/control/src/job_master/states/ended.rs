//! The job is over: finished, failed or cancelled. Nothing follows.

use super::{Input, State};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use thalweg_model::{JobStatus, TaskFailure};

/// See the module.
#[derive(Debug, Clone)]
pub struct Ended {
    status: JobStatus,
}

impl Ended {
    pub(super) fn begin(job: &mut Job, now: Now, status: JobStatus, failure: Option<TaskFailure>) -> Self {
        job.waiting = None;
        let result = job.result(now, status, failure);
        let attempt = job.attempt;
        job.effects.push(Effect::ReleasePartitions { attempt });
        job.effects.push(Effect::Require(0));
        job.free_slots(0, "the job is over");
        job.effects.push(Effect::Ended(Box::new(result)));
        Self { status }
    }

    pub(super) fn status(&self) -> JobStatus {
        self.status
    }

    pub(super) fn on_input(self, _: &mut Job, _: Now, _: Input) -> State {
        self.into()
    }
}
