//! The job is over: finished, failed or cancelled. Its slots, and what its tasks ended with, are held until that is written
//! down: a leader that comes before finds the same end, and none that comes after runs the job again.

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
    recorded: bool,
}

impl Ended {
    pub(super) fn begin(job: &mut Job, now: Now, status: JobStatus, failure: Option<TaskFailure>) -> Self {
        job.waiting = None;
        let result = job.result(now, status, failure);
        let regions = job.all_regions();
        job.effects.push(Effect::ReleasePartitions { regions });
        job.effects.push(Effect::Require(0));
        job.effects.push(Effect::Ended(Box::new(result)));
        Self { status, recorded: false }
    }

    pub(super) fn status(&self) -> JobStatus {
        self.status
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }

    pub(super) fn on_input(mut self, job: &mut Job, _: Now, input: Input) -> State {
        if matches!(input, Input::ResultRecorded) && !self.recorded {
            self.recorded = true;
            job.free_all("the job is over");
            job.effects.push(Effect::Over);
        }
        self.into()
    }
}
