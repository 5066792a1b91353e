//! A failure was seen: every host of the job is ended by force, so that nothing of the old attempt goes on, and the next
//! attempt begins when they are gone and the delay is over.

use super::{Input, State, WaitingForSlots, cancelled, go, suspended};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use std::collections::BTreeSet;
use thalweg_model::{ExecutionState, Moment, TaskManagerId};

/// See the module.
#[derive(Debug, Clone)]
pub struct Restarting {
    at: Moment,
    /// Hosts that are not certainly gone.
    ending: BTreeSet<TaskManagerId>,
}

impl Restarting {
    pub(super) fn begin(job: &mut Job, now: Now, at: Moment, failed: Option<&TaskManagerId>) -> Self {
        let ending = job.holders();
        let attempt = job.attempt;
        for task in job.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
            task.enter(now, ExecutionState::Canceled);
        }
        for id in &ending {
            job.host_is_over(id);
            job.effects.push(Effect::ResetHost { id: id.clone(), attempt });
        }
        // A host that failed before its slots were taken: a fresh one is started, and nothing of it has to be waited for.
        if let Some(id) = failed.filter(|id| !ending.contains(*id) && job.is_registered(id)) {
            job.host_is_over(id);
            job.effects.push(Effect::ResetHost { id: id.clone(), attempt });
        }
        job.effects.push(Effect::ReleasePartitions { attempt });
        Self { at, ending }
    }

    /// While a host is not certainly gone, the answer to its reset is waited for and not the time.
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.ending.is_empty().then_some(self.at)
    }

    pub(super) fn on_input(mut self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::HostReset { attempt, id, done } if attempt == job.attempt => {
                if done {
                    self.ending.remove(&id);
                } else if self.ending.contains(&id) {
                    // Nobody knows whether the old host lives: ask again. If the TaskManager is gone, that is told.
                    job.effects.push(Effect::ResetHost { id, attempt });
                }
            }
            // Nothing less means that the host is gone: not a task that failed, nor tasks that could not be sent.
            Input::WorkerGone { id } => {
                self.ending.remove(&id);
            }
            Input::Cancel => return cancelled(job, now, self),
            Input::Suspend => return suspended(job, self),
            _ => {}
        }
        if now.at < self.at || !self.ending.is_empty() {
            return self.into();
        }
        job.next_attempt();
        let waiting = WaitingForSlots::begin(job, now, false);
        let state = go(job, self, waiting);
        // The hosts may be ready again by now.
        state.on_input(job, now, Input::SlotsChanged)
    }
}
