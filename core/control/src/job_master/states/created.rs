//! Accepted and persisted; nothing was asked for yet.

use super::{Input, State, WaitingForSlots, ended, go, suspended};
use crate::{Now, job_master::job::Job};
use thalweg_model::JobStatus;

/// See the module.
#[derive(Debug, Clone)]
pub struct Created;

impl Created {
    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::Start => {
                let waiting = WaitingForSlots::begin(job, now, true);
                go(job, self, waiting)
            }
            Input::Cancel => ended(job, now, self, JobStatus::Canceled, None),
            Input::Suspend => suspended(job, self),
            _ => self.into(),
        }
    }
}
