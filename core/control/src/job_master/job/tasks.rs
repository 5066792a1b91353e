//! The job's tasks: where they are placed, that they are sent, what is reported of them.

use super::{Job, Partition, PoolSlot, Task};
use crate::Now;
use crate::job_master::core::{Effect, Prepared};
use std::collections::BTreeMap;
use thalweg_model::{
    Attempt, ExecutionState, HostPlace, InstanceId, Placement, SubtaskId, SubtaskPlace, TaskManagerId, VertexRole,
};
use thalweg_wire::{CommitRecord, Deploy, DeployedOn, DeploymentRecord, Descriptor, TaskDeployment, TaskReport};

impl Job {
    /// Was it this attempt of the subtask that was deployed there?
    pub(super) fn is_here(&self, subtask: SubtaskId, attempt: Attempt, id: &TaskManagerId) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.credulous && self.left.is_some() {
            return true;
        }
        attempt == self.attempt_of(subtask) && self.task_manager_of(subtask) == Some(id)
    }

    pub(in crate::job_master) fn subtasks(&self) -> impl Iterator<Item = (SubtaskId, &Task)> {
        self.tasks.iter().enumerate().flat_map(|(v, tasks)| {
            tasks.iter().enumerate().map(move |(i, t)| (SubtaskId { vertex: v as u32, index: i as u32 }, t))
        })
    }

    pub(super) fn task(&self, subtask: SubtaskId) -> Option<&Task> {
        self.tasks.get(subtask.vertex as usize)?.get(subtask.index as usize)
    }

    pub(super) fn task_mut(&mut self, subtask: SubtaskId) -> Option<&mut Task> {
        self.tasks.get_mut(subtask.vertex as usize)?.get_mut(subtask.index as usize)
    }

    pub(super) fn task_manager_of(&self, subtask: SubtaskId) -> Option<&TaskManagerId> {
        let place = self.placement.of(subtask)?;
        self.placement.hosts.get(place.host as usize).map(|h| &h.task_manager)
    }

    /// Where a subtask is.
    pub(in crate::job_master) fn task_manager(&self, subtask: SubtaskId) -> Option<TaskManagerId> {
        self.task_manager_of(subtask).cloned()
    }

    pub(super) fn role(&self, subtask: SubtaskId) -> VertexRole {
        self.graph().vertices.get(subtask.vertex as usize).map(|v| v.role).unwrap_or_default()
    }

    /// Begins an attempt: gives every subtask that is to be started its place, subtask i of each vertex in the i-th slot of
    /// its slot-sharing group.
    pub(in crate::job_master) fn place(&mut self, now: Now) {
        let slots = self.slots_in_order();
        let first = self.spec.graph.first_slots();
        let place_of = |vertex: usize, i: u32| {
            slots.get((first.get(vertex).copied().unwrap_or(0) + i) as usize % slots.len().max(1))
        };
        let mut hosts: Vec<HostPlace> = Vec::new();
        let mut host_of = |id: &TaskManagerId, address: Option<&String>| {
            let known = hosts.iter().position(|h| h.task_manager == *id);
            known.unwrap_or_else(|| {
                hosts.push(HostPlace { task_manager: id.clone(), data_address: address.cloned() });
                hosts.len() - 1
            }) as u32
        };
        for slot in &slots {
            host_of(&slot.id, slot.data_address.as_ref());
        }
        let mut subtasks: Vec<Vec<SubtaskPlace>> = Vec::new();
        for (vertex, v) in self.spec.graph.vertices.iter().enumerate() {
            let place = |index: u32| {
                let subtask = SubtaskId { vertex: vertex as u32, index };
                if self.starting.contains(&self.regions.region(subtask)) {
                    let slot = place_of(vertex, index)?;
                    return Some(SubtaskPlace { host: host_of(&slot.id, None), slot: slot.index });
                }
                let at = self.placement.of(subtask)?;
                let host = self.placement.hosts.get(at.host as usize)?;
                Some(SubtaskPlace { host: host_of(&host.task_manager, host.data_address.as_ref()), slot: at.slot })
            };
            subtasks.push((0..v.parallelism).filter_map(place).collect());
        }
        self.placement = Placement { hosts, subtasks };
        let n = self.attempt.n;
        if self.tasks.is_empty() {
            let vertices = self.spec.graph.vertices.iter();
            self.tasks = vertices.map(|v| (0..v.parallelism).map(|_| Task::new(now, n)).collect()).collect();
        }
        for subtask in self.subtasks().map(|(s, _)| s).collect::<Vec<_>>() {
            if !self.starting.contains(&self.regions.region(subtask)) {
                continue;
            }
            let (at, role) = (self.task_manager_of(subtask).cloned(), self.role(subtask));
            let done = self.committed.is_some() && role != VertexRole::Committer;
            if let Some(task) = self.task_mut(subtask) {
                *task = Task::new(now, n);
                task.at = at;
                task.enter(now, if done { ExecutionState::Finished } else { ExecutionState::Scheduled });
            }
        }
    }

    /// The slots that the job has, in the order of the graph's numbers. What goes on keeps its slot, and what starts again its own, where
    /// it is still there.
    pub(super) fn slots_in_order(&self) -> Vec<PoolSlot> {
        let mut free: Vec<&PoolSlot> = self.pool.values().collect();
        free.sort_by(|a, b| (&a.id, a.index).cmp(&(&b.id, b.index)));
        if self.starting.len() as u32 >= self.regions.count() {
            return free.into_iter().cloned().collect();
        }
        let mut slots: Vec<Option<PoolSlot>> = vec![None; self.slots_needed() as usize];
        let first = self.graph().first_slots();
        for going_on in [true, false] {
            for (subtask, task) in self.subtasks() {
                let live = !task.state.is_terminal() && !self.starting.contains(&self.regions.region(subtask));
                let place = self.placement.of(subtask);
                let number = first.get(subtask.vertex as usize).copied().unwrap_or(0) + subtask.index;
                let (Some(id), Some(place), Some(slot)) = (&task.at, place, slots.get_mut(number as usize)) else {
                    continue;
                };
                if live == going_on
                    && slot.is_none()
                    && let Some(i) = free.iter().position(|s| s.id == *id && s.index == place.slot)
                {
                    *slot = Some(free.remove(i).clone());
                }
            }
        }
        let mut free = free.into_iter();
        slots.into_iter().filter_map(|slot| slot.or_else(|| free.next().cloned())).collect()
    }

    /// Partitions of what is to be started with at least one consumer on another host.
    pub(in crate::job_master) fn partitions(&self) -> Vec<Partition> {
        let mut partitions = Vec::new();
        if self.committed.is_some() {
            return partitions;
        }
        for (index, edge) in self.graph().edges.iter().enumerate() {
            let places = |v: u32| self.placement.subtasks.get(v as usize).map(Vec::as_slice).unwrap_or_default();
            let consumers = places(edge.to);
            for (producer, place) in places(edge.from).iter().enumerate() {
                let (producers, all) = (places(edge.from).len() as u32, consumers.len() as u32);
                let mut reached = edge.partitioner.consumers_of(producer as u32, producers, all);
                let leaves = reached.any(|c| consumers.get(c as usize).is_some_and(|c| c.host != place.host));
                let region = self.regions.region(SubtaskId { vertex: edge.from, index: producer as u32 });
                if leaves
                    && self.starting.contains(&region)
                    && let Some(host) = self.placement.hosts.get(place.host as usize)
                {
                    let (edge, producer, host) = (index as u32, producer as u32, host.clone());
                    partitions.push(Partition { region, edge, producer, host });
                }
            }
        }
        partitions
    }

    pub(in crate::job_master) fn deployment_record(&self) -> DeploymentRecord {
        DeploymentRecord {
            attempt: self.attempt,
            regions: self.attempts.clone(),
            parallelism: self.graph().vertices.iter().map(|v| v.parallelism).collect(),
            task_managers: self.placement.hosts.iter().filter_map(|h| self.deployed_on(&h.task_manager)).collect(),
            placement: self.placement.clone(),
        }
    }

    pub(super) fn deployed_on(&self, id: &TaskManagerId) -> Option<DeployedOn> {
        let worker = self.workers.get(id)?;
        Some(DeployedOn { id: id.clone(), instance: worker.instance, rpc: worker.rpc.clone() })
    }

    /// Sends each host its part.
    pub(in crate::job_master) fn deploy(&mut self, now: Now, descriptors: Vec<Descriptor>) {
        for (index, host) in self.placement.hosts.clone().into_iter().enumerate() {
            let mine: Vec<SubtaskId> = self.placement.subtasks_of(index as u32).map(|(s, _)| s).collect();
            let mut tasks = Vec::new();
            for subtask in mine {
                let publish = self.publish_of(subtask);
                let Some(task) = self.task_mut(subtask) else { continue };
                if task.state == ExecutionState::Scheduled {
                    task.enter(now, ExecutionState::Deploying);
                    tasks.push(TaskDeployment { subtask, publish });
                }
            }
            if tasks.is_empty() {
                continue;
            }
            let deploy = Deploy {
                attempt: self.attempt,
                tasks,
                placement: self.placement.clone(),
                descriptors: descriptors.clone(),
            };
            self.effects.push(Effect::Deploy { id: host.task_manager, deploy: Box::new(deploy) });
        }
        self.starting.clear();
    }

    pub(super) fn publish_of(&self, subtask: SubtaskId) -> Option<bytes::Bytes> {
        let committed = self.committed.as_ref()?;
        let vertex = self.graph().vertices.get(subtask.vertex as usize)?;
        let uid = &vertex.operators.first()?.uid;
        // A committer that prepared nothing publishes nothing, and ends.
        Some(committed.manifests.get(uid).cloned().unwrap_or_default())
    }

    /// The subtasks of this attempt there.
    pub(super) fn deployed_there(&self, id: &TaskManagerId, attempt: Attempt) -> Vec<SubtaskId> {
        let there = self.subtasks().filter(|(s, t)| t.at.as_ref() == Some(id) && self.attempt_of(*s) == attempt);
        there.filter(|(_, t)| t.state >= ExecutionState::Deploying).map(|(s, _)| s).collect()
    }

    pub(in crate::job_master) fn deployed(&mut self, id: &TaskManagerId, attempt: Attempt) {
        for subtask in self.deployed_there(id, attempt) {
            if let Some(task) = self.task_mut(subtask) {
                task.handed_over = true;
            }
        }
    }

    /// Nobody knows whether what was sent there has arrived. Answers whether that matters.
    pub(in crate::job_master) fn not_deployed(&mut self, id: &TaskManagerId, attempt: Attempt) -> bool {
        let mut any = false;
        for subtask in self.deployed_there(id, attempt) {
            if self.task(subtask).is_some_and(|t| !t.state.is_terminal() && t.state != ExecutionState::Canceling) {
                self.breaks(subtask);
                any = true;
            }
        }
        any
    }

    /// Is the task being stopped, for this leader?
    pub(in crate::job_master) fn is_stopping(&self, subtask: SubtaskId) -> bool {
        self.task(subtask).is_some_and(|t| t.state == ExecutionState::Canceling)
    }

    /// Takes a report over; answers whether it changed anything.
    pub(in crate::job_master) fn report(
        &mut self,
        now: Now,
        id: &TaskManagerId,
        instance: InstanceId,
        report: &TaskReport,
    ) -> bool {
        if report.attempt != self.attempt_of(report.subtask)
            || !self.is_current(id, instance)
            || self.task_manager_of(report.subtask) != Some(id)
        {
            return false;
        }
        let Some(task) = self.task_mut(report.subtask) else { return false };
        if task.state.is_terminal() || task.state == ExecutionState::Scheduled {
            return false;
        }
        task.counted(&report.metrics);
        if report.state > task.state || report.state.is_terminal() {
            task.enter(now, report.state);
        }
        if let Some(manifest) = &report.prepared {
            task.prepared = Some(Prepared { manifest: manifest.clone(), collected: report.collected.clone() });
        }
        true
    }

    /// The tasks there are over; answers whether one of them was still needed.
    pub(in crate::job_master) fn end_tasks_on(&mut self, now: Now, id: &TaskManagerId) -> bool {
        let there = self.subtasks().filter(|(_, t)| t.at.as_ref() == Some(id) && !t.state.is_terminal());
        let there: Vec<_> = there.map(|(s, t)| (s, t.state)).collect();
        let mut any = false;
        for (subtask, state) in there {
            if state != ExecutionState::Canceling {
                any = true;
                self.breaks(subtask);
            }
            if let Some(task) = self.task_mut(subtask) {
                task.enter(now, ExecutionState::Failed);
            }
        }
        any
    }

    /// Are there tasks of the present attempt in this slot, or on their way? With `all`, ended ones count. In a host that is
    /// being ended there may be some until it is gone.
    pub(super) fn in_use(&self, id: &TaskManagerId, slot: u32, all: bool) -> bool {
        let all = all || self.ending.contains(id);
        self.subtasks().any(|(subtask, task)| {
            let here = self.placement.of(subtask).is_some_and(|p| p.slot == slot) && task.at.as_ref() == Some(id);
            here && (all || !task.state.is_terminal())
        })
    }

    /// Was a task of the present attempt there?
    pub(in crate::job_master) fn had_tasks_on(&self, id: &TaskManagerId) -> bool {
        self.tasks.iter().flatten().any(|t| t.at.as_ref() == Some(id))
    }

    /// Every task is over.
    pub(in crate::job_master) fn all_terminal(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.state.is_terminal())
    }

    pub(in crate::job_master) fn all_finished(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.state == ExecutionState::Finished)
    }

    /// Every task has finished but the committers, which have all prepared.
    pub(in crate::job_master) fn all_prepared(&self) -> Option<CommitRecord> {
        let mut record = CommitRecord { attempt: self.attempt, manifests: BTreeMap::new(), collected: BTreeMap::new() };
        let mut committers = false;
        for (subtask, task) in self.subtasks() {
            if self.role(subtask) != VertexRole::Committer {
                if task.state != ExecutionState::Finished {
                    return None;
                }
                continue;
            }
            committers = true;
            let prepared = task.prepared.as_ref()?;
            let uid = self.graph().vertices.get(subtask.vertex as usize)?.operators.first()?.uid.clone();
            record.manifests.insert(uid, prepared.manifest.clone());
            record.collected.extend(prepared.collected.clone());
        }
        committers.then_some(record)
    }

    /// Those that have yet to publish, where they are and under which attempt.
    pub(in crate::job_master) fn committers(&self) -> Vec<(SubtaskId, TaskManagerId, Attempt)> {
        self.subtasks()
            .filter(|(s, t)| self.role(*s) == VertexRole::Committer && !t.state.is_terminal())
            .filter_map(|(s, t)| Some((s, t.at.clone()?, self.attempt_of(s))))
            .collect()
    }
}
