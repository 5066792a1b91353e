//! What an earlier leader has deployed, and what is found of it.

use super::{Job, Task};
use crate::Now;
use thalweg_model::{ExecutionState, SubtaskId, TaskManagerId, VertexRole};
use thalweg_rpc::gateways::TaskManagerStatus;
use thalweg_wire::DeployedOn;

impl Job {
    /// Takes over what was deployed: nothing of it was found yet.
    pub(in crate::job_master) fn take_over(&mut self, now: Now) -> Vec<DeployedOn> {
        let Some(left) = self.left.clone() else { return Vec::new() };
        self.placement = left.placement;
        let n = self.attempt.n;
        let vertices = self.spec.graph.vertices.iter();
        self.tasks = vertices.map(|v| (0..v.parallelism).map(|_| Task::new(now, n)).collect()).collect();
        // Whoever is not found may still have something: that it was never sent is known of nothing.
        for subtask in self.subtasks().map(|(s, _)| s).collect::<Vec<_>>() {
            let (at, role) = (self.task_manager_of(subtask).cloned(), self.role(subtask));
            let done = self.committed.is_some() && role != VertexRole::Committer;
            let n = self.attempt_of(subtask).n;
            if let Some(task) = self.task_mut(subtask) {
                (task.at, task.attempt) = (at, n);
                if done {
                    task.enter(now, ExecutionState::Finished);
                }
            }
        }
        left.task_managers
    }

    /// Takes over what a TaskManager says that it runs. A failure comes as a report, with its cause; a task that an earlier
    /// leader has stopped is as good as not there.
    pub(super) fn find(&mut self, now: Now, id: &TaskManagerId, status: &TaskManagerStatus) {
        for (subtask, attempt, state) in &status.tasks {
            if !self.is_here(*subtask, *attempt, id) {
                continue;
            }
            if *state == ExecutionState::Canceled {
                continue;
            }
            if let Some(task) = self.task_mut(*subtask).filter(|t| !t.state.is_terminal()) {
                task.handed_over = true;
                task.enter(now, if *state == ExecutionState::Failed { ExecutionState::Running } else { *state });
            }
        }
        for (subtask, metrics) in &status.metrics {
            if self.task_manager_of(*subtask) == Some(id)
                && let Some(task) = self.task_mut(*subtask)
            {
                task.counted(metrics);
            }
        }
    }

    /// Subtasks that were deployed (there) and that nobody has: the first of them, and how many. Their regions are broken.
    pub(in crate::job_master) fn not_found(&mut self, at: Option<&TaskManagerId>) -> Option<(SubtaskId, usize)> {
        let found = |t: &Task| t.state == ExecutionState::Finished || t.handed_over && !t.state.is_terminal();
        let there = |t: &Task| at.is_none() || t.at.as_ref() == at;
        let missing: Vec<_> = self.subtasks().filter(|(_, t)| there(t) && !found(t)).map(|(s, _)| s).collect();
        missing.iter().for_each(|subtask| self.breaks(*subtask));
        missing.first().map(|first| (*first, missing.len()))
    }
}
