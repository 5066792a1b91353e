//! Accepted and persisted; nothing was asked for yet. The first event begins it: nobody can cancel it before.

use super::{Input, Reconciling, State, WaitingForSlots, go};
use crate::{Now, job_master::job::Job};

/// See the module.
#[derive(Debug, Clone)]
pub struct Created;

impl Created {
    pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::Start => {
                if job.left.is_some() {
                    let reconciling = Reconciling::begin(job, now);
                    let state = go(job, self, reconciling);
                    // Nobody may be expected.
                    return state.on_input(job, now, Input::Tick);
                }
                let waiting = WaitingForSlots::begin(job, now, true);
                go(job, self, waiting)
            }
            _ => self.into(),
        }
    }
}
