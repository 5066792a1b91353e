//! The JobManager stops while the job goes on: its tasks and slots are left for the next leader.

use super::{Input, State};
use crate::{Now, job_master::job::Job};

/// See the module.
#[derive(Debug, Clone)]
pub struct Suspended;

impl Suspended {
    pub(super) fn on_input(self, _: &mut Job, _: Now, _: Input) -> State {
        self.into()
    }
}
