//! A failure was seen: what it broke ends, and the next attempt begins when that is certain and the delay is over.
//!
//! When nothing of the job can go on, every host is ended by force, and fresh ones are started. Otherwise the tasks of the
//! broken regions are stopped, in hosts that live on for the others.

use super::{Input, State, WaitingForSlots, cancelled, failed, go, suspended};
use crate::{
    Now,
    job_master::{core::Effect, job::Job},
};
use thalweg_model::{ExecutionState, FailureKind, Moment, TaskManagerId};

/// See the module. The hosts that are not certainly gone are the job's `ending`.
#[derive(Debug, Clone)]
pub struct Restarting {
    at: Moment,
    /// Until when what is told to stop may take.
    patience: Moment,
    /// The rest of the job goes on.
    partly: bool,
}

impl Restarting {
    pub(super) fn begin(job: &mut Job, now: Now, at: Moment, failed: Option<&TaskManagerId>) -> Self {
        let patience = now.at + job.settings.cancel_timeout;
        let partly = job.restarts_in_part();
        if partly {
            end_regions(job, now);
        } else {
            start_over(job, now, failed);
        }
        Self { at, patience, partly }
    }

    /// While a host is not certainly gone, or a task not certainly over, the word of it is waited for and not the time.
    pub(super) fn deadline(&self, job: &Job) -> Option<Moment> {
        if job.all_stopped() { job.ending.is_empty().then_some(self.at) } else { Some(self.patience) }
    }

    pub(super) fn on_input(mut self, job: &mut Job, now: Now, input: Input) -> State {
        match input {
            Input::HostReset { attempt, id, done } if attempt == job.up_to_now() => {
                if done {
                    job.ending.remove(&id);
                } else if job.ending.contains(&id) {
                    // Nobody knows whether the old host lives: ask again. If the TaskManager is gone, that is told.
                    job.effects.push(Effect::ResetHost { id, attempt });
                }
            }
            Input::NotStopped { id } => job.stop_again(&id),
            // What was going on has failed too. One loss is told by all who miss something, and counts once.
            Input::TaskFailed { failure, id } if job.has_broken() => {
                if failure.kind != FailureKind::Lost {
                    return failed(job, now, self, failure, id);
                }
                job.note_exception(now, failure, id.clone(), "starts again with what is restarting".into());
                let all = Self::begin(job, now, self.at, id.as_ref());
                return go(job, self, all).on_input(job, now, Input::Tick);
            }
            Input::HostFailed { .. } if self.partly => end_dead_hosts(job),
            Input::Cancel => return cancelled(job, now, self),
            Input::Suspend => return suspended(job, self),
            _ => {}
        }
        job.forget_ended_hosts();
        if now.at >= self.patience && !job.all_stopped() {
            self.end_by_force(job, now);
        }
        if now.at < self.at || !job.ending.is_empty() || !job.all_stopped() {
            return self.into();
        }
        job.next_attempt();
        let waiting = WaitingForSlots::begin(job, now, false);
        let state = go(job, self, waiting);
        // The hosts may be ready again by now.
        state.on_input(job, now, Input::SlotsChanged)
    }

    /// The hosts that still have what was to stop are ended, and whatever else is in them starts again too.
    fn end_by_force(&mut self, job: &mut Job, now: Now) {
        self.patience = now.at + job.settings.cancel_timeout;
        let hosts = job.end_unstopped(now);
        self.partly = job.restarts_in_part();
        if self.partly {
            hosts.into_iter().for_each(|id| end_host(job, id));
            end_regions(job, now);
        } else {
            start_over(job, now, None);
        }
    }
}

/// Stops what is left of the regions that start again.
fn end_regions(job: &mut Job, now: Now) {
    let regions = job.starting_regions();
    job.stop(now, regions.iter().map(|r| r.region));
    end_dead_hosts(job);
    job.effects.push(Effect::ReleasePartitions { regions });
}

/// A host that is gone is not started again before it is asked for.
fn end_dead_hosts(job: &mut Job) {
    job.dead_hosts().into_iter().for_each(|id| end_host(job, id));
}

/// Ends every host by force, so that nothing of the old attempts goes on.
fn start_over(job: &mut Job, now: Now, failed: Option<&TaskManagerId>) {
    let holders = job.holders();
    for task in job.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
        task.enter(now, ExecutionState::Canceled);
    }
    // A host that failed before its slots were taken: a fresh one is started, and nothing of it has to be waited for.
    let failed = failed.filter(|id| !holders.contains(*id) && job.is_registered(id));
    failed.into_iter().for_each(|id| end_host(job, id.clone()));
    holders.iter().for_each(|id| end_host(job, id.clone()));
    job.ending = holders;
    let regions = job.starting_regions();
    job.effects.push(Effect::ReleasePartitions { regions });
}

fn end_host(job: &mut Job, id: TaskManagerId) {
    job.host_is_over(&id);
    job.ending.insert(id.clone());
    let attempt = job.up_to_now();
    job.effects.push(Effect::ResetHost { id, attempt });
}
