//! Under which attempt each region of the job is, which of them broke, and what becomes of their tasks.

use super::{Job, Task};
use crate::Now;
use crate::job_master::core::Effect;
use std::collections::{BTreeMap, BTreeSet};
use thalweg_model::{Attempt, ExecutionState, RegionAttempt, SubtaskId, TaskManagerId};

impl Job {
    /// The number of the next attempt, under this leader: for the regions that are to be started.
    pub(in crate::job_master) fn next_attempt(&mut self) {
        self.attempt = Attempt { epoch: self.settings.epoch, n: self.attempt.n + 1 };
        for region in &self.starting {
            self.broken.remove(region);
            if let Some(attempt) = self.attempts.get_mut(*region as usize) {
                *attempt = self.attempt;
            }
        }
    }

    /// Under which attempt the subtask's region is.
    pub(in crate::job_master) fn attempt_of(&self, subtask: SubtaskId) -> Attempt {
        self.attempts.get(self.regions.region(subtask) as usize).copied().unwrap_or(self.attempt)
    }

    /// Is any region under this attempt?
    pub(in crate::job_master) fn is_under(&self, attempt: Attempt) -> bool {
        self.attempts.contains(&attempt)
    }

    /// What is to end with this attempt: whatever earlier leaders deployed ends with the last that is known of them. One of
    /// them may have written down more than what was found.
    pub(super) fn up_to(&self, attempt: Attempt) -> Attempt {
        Attempt { epoch: attempt.epoch.max(self.settings.epoch), n: attempt.n }
    }

    /// What is to end when all of the job is.
    pub(in crate::job_master) fn up_to_now(&self) -> Attempt {
        self.up_to(self.attempt)
    }

    /// These regions, each up to its attempt.
    pub(super) fn under(&self, regions: impl IntoIterator<Item = u32>) -> Vec<RegionAttempt> {
        let attempt = |region: u32| self.attempts.get(region as usize).map(|a| self.up_to(*a));
        regions.into_iter().filter_map(|region| Some(RegionAttempt { region, attempt: attempt(region)? })).collect()
    }

    /// All regions, each up to its attempt.
    pub(in crate::job_master) fn all_regions(&self) -> Vec<RegionAttempt> {
        self.under(0..self.regions.count())
    }

    /// The regions that are to be started, each up to its last attempt.
    pub(in crate::job_master) fn starting_regions(&self) -> Vec<RegionAttempt> {
        self.under(self.starting.iter().copied())
    }

    /// The subtask's region cannot go on.
    pub(in crate::job_master) fn breaks(&mut self, subtask: SubtaskId) {
        self.broken.insert(self.regions.region(subtask));
    }

    /// Is there something that nobody has decided about?
    pub(in crate::job_master) fn has_broken(&self) -> bool {
        !self.broken.is_subset(&self.starting)
    }

    /// Is there a region that has not broken, in a job that has?
    pub(in crate::job_master) fn goes_on_in_part(&self) -> bool {
        self.committed.is_none() && (self.broken.len() as u32) < self.regions.count()
    }

    /// What broke is to be started again, with all of the job when nothing of it can go on (`false`).
    pub(in crate::job_master) fn restarts_in_part(&mut self) -> bool {
        self.starting.append(&mut self.broken);
        if self.committed.is_some() || self.starting.is_empty() {
            self.starts_over();
        }
        (self.starting.len() as u32) < self.regions.count()
    }

    /// All of the job is to be started again.
    pub(in crate::job_master) fn starts_over(&mut self) {
        self.starting = (0..self.regions.count()).collect();
        self.broken.clear();
    }

    /// Could one of these TaskManagers have something that will be adopted?
    pub(in crate::job_master) fn may_be_adopted(&self, from: &BTreeSet<TaskManagerId>) -> bool {
        self.subtasks().any(|(subtask, task)| {
            task.at.as_ref().is_some_and(|id| from.contains(id)) && !self.broken.contains(&self.regions.region(subtask))
        })
    }

    /// Tells every host with live tasks to stop them.
    pub(in crate::job_master) fn cancel_tasks(&mut self, now: Now) {
        self.stop(now, 0..self.regions.count());
    }

    /// Tells every host with live tasks of these regions to stop them. What cannot be asked, or was not sent, is over.
    pub(in crate::job_master) fn stop(&mut self, now: Now, regions: impl IntoIterator<Item = u32>) {
        let regions: BTreeSet<u32> = regions.into_iter().collect();
        let mut told: BTreeMap<TaskManagerId, BTreeSet<u32>> = BTreeMap::new();
        for subtask in self.subtasks().filter(|(_, t)| !t.state.is_terminal()).map(|(s, _)| s).collect::<Vec<_>>() {
            let region = self.regions.region(subtask);
            if !regions.contains(&region) {
                continue;
            }
            let at = self.task(subtask).and_then(|t| t.at.clone()).filter(|id| self.is_registered(id));
            let tasks = self.tasks.get_mut(subtask.vertex as usize);
            let Some(task) = tasks.and_then(|v| v.get_mut(subtask.index as usize)) else { continue };
            match at {
                Some(id) if task.state != ExecutionState::Scheduled => {
                    told.entry(id).or_default().insert(region);
                    task.enter(now, ExecutionState::Canceling);
                    #[cfg(feature = "planted-bugs")]
                    if self.hasty {
                        task.enter(now, ExecutionState::Canceled);
                    }
                }
                _ => task.enter(now, ExecutionState::Canceled),
            }
        }
        for (id, regions) in told {
            let regions = self.under(regions);
            self.effects.push(Effect::Cancel { id, regions });
        }
    }

    /// Tells a host again what it is to stop.
    pub(in crate::job_master) fn stop_again(&mut self, id: &TaskManagerId) {
        let stopping = self.subtasks().filter(|(_, t)| t.at.as_ref() == Some(id));
        let stopping = stopping.filter(|(_, t)| t.state == ExecutionState::Canceling);
        let regions: BTreeSet<u32> = stopping.map(|(s, _)| self.regions.region(s)).collect();
        if !regions.is_empty() {
            let (id, regions) = (id.clone(), self.under(regions));
            self.effects.push(Effect::Cancel { id, regions });
        }
    }

    /// A host was told to stop these regions; what it does not name as still ending is over. Answers whether that is news.
    pub(in crate::job_master) fn stopped(
        &mut self,
        now: Now,
        id: &TaskManagerId,
        regions: &[RegionAttempt],
        ending: &[SubtaskId],
    ) -> bool {
        let over = |(subtask, task): &(SubtaskId, &Task)| {
            let (region, attempt) = (self.regions.region(*subtask), self.up_to(self.attempt_of(*subtask)));
            task.at.as_ref() == Some(id)
                && task.state == ExecutionState::Canceling
                && regions.contains(&RegionAttempt { region, attempt })
                && !ending.contains(subtask)
        };
        let over: Vec<_> = self.subtasks().filter(over).map(|(s, _)| s).collect();
        for subtask in &over {
            if let Some(task) = self.task_mut(*subtask) {
                task.enter(now, ExecutionState::Canceled);
            }
        }
        !over.is_empty()
    }

    /// What was to stop and has not, with all that is in the same hosts, is over as soon as they are: answers where.
    pub(in crate::job_master) fn end_unstopped(&mut self, now: Now) -> BTreeSet<TaskManagerId> {
        let live = |t: &Task| !t.state.is_terminal();
        let stuck = self.subtasks().filter(|(s, t)| live(t) && self.starting.contains(&self.regions.region(*s)));
        let hosts: BTreeSet<_> = stuck.filter_map(|(_, t)| t.at.clone()).collect();
        let there = self.subtasks().filter(|(_, t)| live(t) && t.at.as_ref().is_some_and(|id| hosts.contains(id)));
        for subtask in there.map(|(s, _)| s).collect::<Vec<_>>() {
            self.breaks(subtask);
            if let Some(task) = self.task_mut(subtask) {
                task.enter(now, ExecutionState::Canceled);
            }
        }
        hosts
    }

    /// Is everything over of the regions that are to be started?
    pub(in crate::job_master) fn all_stopped(&self) -> bool {
        self.subtasks().all(|(s, t)| t.state.is_terminal() || !self.starting.contains(&self.regions.region(s)))
    }

    /// The hosts that still have live tasks are ended by force.
    pub(in crate::job_master) fn force_end(&mut self, now: Now) {
        let mut hosts = BTreeSet::new();
        for task in self.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
            hosts.extend(task.at.clone());
            task.enter(now, ExecutionState::Canceled);
        }
        let attempt = self.up_to_now();
        self.effects.extend(hosts.into_iter().map(|id| Effect::ResetHost { id, attempt }));
    }
}
