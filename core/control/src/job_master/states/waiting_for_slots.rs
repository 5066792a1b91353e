//! Waits until every slot is there and its host is ready.

use super::{Deploying, Failing, Input, State, cancelled, failed, go, suspended};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use thalweg_model::{FailureKind, JobStatus, Moment, TaskFailure};

/// See the module.
#[derive(Debug, Clone)]
pub struct WaitingForSlots {
    since: Moment,
    first: bool,
}

impl WaitingForSlots {
    pub(super) fn begin(job: &mut Job, now: Now, first: bool) -> Self {
        let needed = job.slots_needed();
        job.free_unused(needed, false, "fewer slots are needed");
        job.effects.push(Effect::Require(needed));
        Self { since: now.at, first }
    }

    pub(super) fn status(&self) -> JobStatus {
        if self.first { JobStatus::Created } else { JobStatus::Restarting }
    }

    pub(super) fn deadline(&self, job: &Job) -> Moment {
        self.since + job.settings.slot_request_timeout
    }

    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::SlotsChanged | Input::Tick | Input::WorkerGone { .. } | Input::TaskChanged => {}
            Input::HostFailed { failure, id } => return failed(job, now, self, failure, Some(id)),
            Input::TaskFailed { failure, id } => return failed(job, now, self, failure, id),
            Input::Cancel => return cancelled(job, now, self),
            Input::Suspend => return suspended(job, self),
            _ => return self.into(),
        }
        if job.all_slots_ready() {
            job.waiting = None;
            let deploying = Deploying::begin(job, now);
            return go(job, self, deploying);
        }
        if now.at >= self.deadline(job) {
            let waited = job.settings.slot_request_timeout.as_secs_f64();
            let have = job.pool.values().filter(|s| s.ready).count();
            let mut message = format!(
                "no resources: after {waited}s the job has {have} of the {} slots it needs",
                job.slots_needed()
            );
            if let Some(why) = &job.waiting {
                message = format!("{message} ({why})");
            }
            message.push_str("; start more TaskManagers, or lower the parallelism");
            let failure = TaskFailure::new(FailureKind::Lost, message);
            job.note_exception(now, failure.clone(), None, "slot.request-timeout is over".into());
            return self.fail(job, now, failure);
        }
        self.into()
    }

    fn fail(self, job: &mut Job, now: Now, failure: TaskFailure) -> State {
        let failing = Failing::begin(job, now, failure, "");
        let state = go(job, self, failing);
        state.on_input(job, now, Input::TaskChanged)
    }
}
