//! An earlier leader has deployed the job. Its tasks go on; who has which of them is found out, and the regions of which all
//! are there are adopted as they are; the others start again. Nothing is asked of the ResourceManager before: what the job
//! holds is still being told.

use super::{Cancelling, Committing, Executing, Input, State, ended, failed, go, suspended};
use crate::{
    Now,
    job_master::{
        core::Effect,
        job::{Job, Task},
    },
};
use std::collections::BTreeSet;
use thalweg_model::{ExecutionState, FailureKind, JobStatus, Moment, TaskFailure, TaskManagerId};

/// See the module.
#[derive(Debug, Clone)]
pub struct Reconciling {
    pub(super) deadline: Moment,
    /// TaskManagers of the deployment that have not told what they have.
    expected: BTreeSet<TaskManagerId>,
    /// Something is certainly lost.
    failure: Option<(TaskFailure, Option<TaskManagerId>)>,
    cancel: bool,
}

impl Reconciling {
    pub(super) fn begin(job: &mut Job, now: Now) -> Self {
        let expected = job.take_over(now);
        let names = expected.iter().map(|t| t.id.clone()).collect();
        job.effects.extend(expected.into_iter().map(Effect::LookFor));
        let deadline = now.at + job.settings.reconcile_timeout;
        Self { deadline, expected: names, failure: None, cancel: false }
    }

    pub(super) fn on_input(mut self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::Suspend => return suspended(job, self),
            Input::Cancel => self.cancel = true,
            Input::Accounted { id } => {
                if self.expected.remove(&id)
                    && let Some((subtask, _)) = job.not_found(Some(&id))
                {
                    let failure =
                        TaskFailure::new(FailureKind::Lost, format!("TaskManager {id} no longer has the task"));
                    self.failure.get_or_insert((failure.at(subtask), Some(id)));
                }
            }
            Input::Vanished { failure, id } | Input::HostFailed { failure, id } => self.lost(job, failure, Some(id)),
            Input::TaskFailed { failure, id } => {
                self.failure.get_or_insert((failure, id));
            }
            Input::WorkerGone { id } => {
                let message = format!("TaskManager {id} was lost after the JobManager changed");
                self.lost(job, TaskFailure::new(FailureKind::Lost, message), Some(id));
            }
            _ => {}
        }
        // Nobody who is still expected can change what is decided. A cancel stops what can be found, so it waits for
        // everybody who may still have something.
        let lost = self.failure.is_some() && !self.cancel && !job.may_be_adopted(&self.expected);
        let known = self.expected.is_empty() || lost;
        if !known && now.at < self.deadline {
            return self.into();
        }
        job.left = None;
        self.decide(job, now)
    }

    /// Finished tasks of a host that is gone are no loss.
    fn lost(&mut self, job: &mut Job, failure: TaskFailure, id: Option<TaskManagerId>) {
        if let Some(id) = &id {
            self.expected.remove(id);
        }
        let needed = |t: &Task| t.at == id && t.state != ExecutionState::Finished;
        let needed: Vec<_> = job.subtasks().filter(|(_, t)| needed(t)).map(|(s, _)| s).collect();
        if !needed.is_empty() {
            needed.into_iter().for_each(|subtask| job.breaks(subtask));
            self.failure.get_or_insert((failure, id));
        }
    }

    fn decide(mut self, job: &mut Job, now: Now) -> State {
        if self.cancel && job.committed.is_none() && !job.all_finished() {
            let cancelling = Cancelling::begin(job, now);
            let state = go(job, self, cancelling);
            return state.on_input(job, now, Input::TaskChanged);
        }
        if let Some((subtask, missing)) = job.not_found(None) {
            let message = format!("{missing} tasks were not found after the JobManager changed");
            let failure = TaskFailure::new(FailureKind::Lost, message).at(subtask);
            let id = job.task_manager(subtask);
            self.failure.get_or_insert((failure, id));
        }
        if let Some((failure, id)) = self.failure.take() {
            if job.goes_on_in_part() {
                job.effects.push(Effect::Adopted);
            }
            return failed(job, now, self, failure, id);
        }
        if job.all_finished() {
            return ended(job, now, self, JobStatus::Finished, None);
        }
        job.effects.push(Effect::Require(job.slots_needed()));
        job.effects.push(Effect::Adopted);
        if job.committed.is_some() {
            let committing = Committing::again(job);
            return go(job, self, committing);
        }
        let state = go(job, self, Executing);
        // All may have been prepared for long.
        state.on_input(job, now, Input::TaskChanged)
    }
}
