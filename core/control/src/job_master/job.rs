//! What a job is in every state: its TaskManagers, slots, tasks, placement, and what went wrong so far.

use super::{
    core::{Effect, Prepared},
    restart::RestartPolicy,
};
use crate::Now;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use thalweg_model::{
    AllocationId, Attempt, Epoch, ExecutionState, FailureKind, HostPlace, InstanceId, JobGraph, JobId, JobStatus,
    Moment, Placement, SubtaskId, SubtaskMetrics, SubtaskPlace, TaskFailure, TaskManagerId, UnixMillis, VertexRole,
};
use thalweg_rpc::{
    HeartbeatMonitor, HeartbeatSettings,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistration, JobRegistrationAnswer, SlotOffer, TaskManagerStatus,
    },
};
use thalweg_wire::{
    CommitRecord, Deploy, DeployedOn, DeploymentRecord, Descriptor, JobRecord, JobResult, JobSpec, TaskDeployment,
    TaskReport,
};

/// What a JobMaster is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of this leader.
    pub epoch: Epoch,
    /// Of TaskManagers.
    pub heartbeat: HeartbeatSettings,
    /// After a change of leaders, tasks that were not found within this are lost.
    pub reconcile_timeout: Duration,
    /// A job that waits longer for its slots fails.
    pub slot_request_timeout: Duration,
    /// Tasks that do not end in time after a cancel are ended by force.
    pub cancel_timeout: Duration,
}

/// What an earlier leader left of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Left {
    /// That its output is complete.
    pub commit: Option<CommitRecord>,
    /// What was deployed last.
    pub deployment: Option<DeploymentRecord>,
    /// A cancel was acknowledged.
    pub cancelled: bool,
}

/// One slot of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSlot {
    /// Where.
    pub id: TaskManagerId,
    /// Which life of the TaskManager.
    pub instance: InstanceId,
    /// Index there.
    pub index: u32,
    /// Of the host.
    pub data_address: Option<String>,
    /// Its host is ready for tasks.
    pub ready: bool,
}

/// One subtask under the present attempt.
#[derive(Debug, Clone)]
pub struct Task {
    /// What it is doing.
    pub state: ExecutionState,
    /// When it entered each state, by position in [`ExecutionState::ALL`].
    pub since: [Option<UnixMillis>; 9],
    /// Where it is.
    pub at: Option<TaskManagerId>,
    /// Counters.
    pub metrics: SubtaskMetrics,
    /// Under which attempt.
    pub attempt: u32,
    /// The host has it: its absence from a report is a loss.
    pub handed_over: bool,
    /// A committer's manifest.
    pub prepared: Option<Prepared>,
}

impl Task {
    fn new(now: Now, attempt: u32) -> Self {
        let mut task = Self {
            state: ExecutionState::Created,
            since: [None; 9],
            at: None,
            metrics: SubtaskMetrics::default(),
            attempt,
            handed_over: false,
            prepared: None,
        };
        task.since[0] = Some(now.wall);
        task
    }

    pub(super) fn enter(&mut self, now: Now, state: ExecutionState) {
        self.state = state;
        if let Some(i) = ExecutionState::ALL.iter().position(|s| *s == state) {
            self.since[i].get_or_insert(now.wall);
        }
    }
}

/// One entry of the exception history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionEntry {
    /// When.
    pub at: UnixMillis,
    /// What.
    pub failure: TaskFailure,
    /// Where.
    pub task_manager: Option<TaskManagerId>,
    /// Under which attempt.
    pub attempt: u32,
    /// What was decided.
    pub decision: String,
}

/// A partition that leaves its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Index of the edge.
    pub edge: u32,
    /// Index of the producing subtask.
    pub producer: u32,
    /// Where the producer is.
    pub host: HostPlace,
}

#[derive(Debug, Clone)]
struct Worker {
    instance: InstanceId,
    rpc: String,
    /// Grants that it held when it presented itself to a new leader, until it offers them: they are the job's.
    held: Vec<AllocationId>,
    next_heartbeat: Moment,
    /// The latest life of the host there that was heard of, ready or failed.
    host: u64,
    /// Lives up to this one are over, and that was acted upon.
    over: u64,
}

/// How many exceptions are remembered.
const EXCEPTIONS: usize = 16;

/// However many look, counters are asked for once in this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Clone)]
pub struct Job {
    pub(super) id: JobId,
    pub(super) spec: JobSpec,
    pub(super) settings: Settings,
    pub(super) submitted: UnixMillis,
    pub(super) attempt: Attempt,
    pub(super) heartbeats: HeartbeatMonitor<(TaskManagerId, InstanceId)>,
    workers: BTreeMap<TaskManagerId, Worker>,
    pub(super) pool: BTreeMap<AllocationId, PoolSlot>,
    pub(super) placement: Placement,
    pub(super) tasks: Vec<Vec<Task>>,
    pub(super) policy: RestartPolicy,
    pub(super) exceptions: VecDeque<ExceptionEntry>,
    pub(super) committed: Option<CommitRecord>,
    /// What an earlier leader has deployed, until it is known what became of it.
    pub(super) left: Option<DeploymentRecord>,
    pub(super) waiting: Option<String>,
    pub(super) statuses: Vec<(JobStatus, UnixMillis)>,
    pub(super) transitions: Vec<(&'static str, &'static str)>,
    pub(super) random: u64,
    pub(super) effects: Vec<Effect>,
    /// The mistake that the seeded harness must find: tasks of any attempt are taken for those of the recorded one.
    #[cfg(feature = "planted-bugs")]
    pub(super) credulous: bool,
}

impl Job {
    pub(super) fn new(record: JobRecord, left: Left, settings: Settings) -> Self {
        let first = Attempt { epoch: settings.epoch, n: 0 };
        Self {
            id: record.job,
            attempt: left.deployment.as_ref().map_or(first, |d| d.attempt),
            heartbeats: HeartbeatMonitor::new(settings.heartbeat),
            policy: RestartPolicy::new(record.spec.restart.clone()),
            submitted: record.submitted,
            spec: record.spec,
            settings,
            workers: BTreeMap::new(),
            pool: BTreeMap::new(),
            placement: Placement::default(),
            tasks: Vec::new(),
            exceptions: VecDeque::new(),
            committed: left.commit,
            left: left.deployment,
            waiting: None,
            statuses: vec![(JobStatus::Created, record.submitted)],
            transitions: Vec::new(),
            random: 0,
            effects: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            credulous: false,
        }
    }

    pub(super) fn graph(&self) -> &JobGraph {
        &self.spec.graph
    }

    /// Was it this attempt of the subtask that was deployed there?
    fn is_here(&self, subtask: SubtaskId, attempt: Attempt, id: &TaskManagerId) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.credulous && self.left.is_some() {
            return true;
        }
        attempt == self.attempt && self.task_manager_of(subtask) == Some(id)
    }

    /// The number of the next attempt, under this leader.
    pub(super) fn next_attempt(&mut self) {
        self.attempt = Attempt { epoch: self.settings.epoch, n: self.attempt.n + 1 };
    }

    /// Slots that the job needs: all of them, or one when its output only has to be published.
    pub(super) fn slots_needed(&self) -> u32 {
        if self.committed.is_some() { 1 } else { self.graph().slots() }
    }

    pub(super) fn status_changed(&mut self, now: Now, status: JobStatus) {
        self.statuses.push((status, now.wall));
        self.effects.push(Effect::Status(status));
    }

    // ---- TaskManagers ----

    pub(super) fn is_current(&self, id: &TaskManagerId, instance: InstanceId) -> bool {
        self.workers.get(id).is_some_and(|w| w.instance == instance)
    }

    pub(super) fn is_registered(&self, id: &TaskManagerId) -> bool {
        self.workers.contains_key(id)
    }

    pub(super) fn register(&mut self, now: Now, who: JobRegistration, over: bool) -> JobRegistrationAnswer {
        if over {
            return JobRegistrationAnswer::Rejected("the job is over".into());
        }
        let known = self.is_current(&who.id, who.instance);
        // Someone who was given up comes back with tasks that nobody counts on any more.
        let stale = who.status.tasks.iter().any(|(subtask, attempt, state)| {
            let ours = (known || self.left.is_some()) && self.is_here(*subtask, *attempt, &who.id);
            !state.is_terminal() && !ours
        });
        if stale {
            return JobRegistrationAnswer::Rejected("its tasks were given up and are started elsewhere".into());
        }
        if !known && self.workers.contains_key(&who.id) {
            // Another life under the same name: what the first one held is gone, and its tasks are told as lost by the
            // one who watches the connection. Until then the newcomer waits.
            return JobRegistrationAnswer::Rejected("another process of the same name is still registered".into());
        }
        let (host, over) = self.workers.get(&who.id).map_or((0, 0), |w| (w.host, w.over));
        let held = if self.left.is_some() { who.status.allocations.clone() } else { Vec::new() };
        let (instance, rpc) = (who.instance, who.rpc);
        let worker = Worker { instance, rpc, held, next_heartbeat: now.at, host, over };
        self.workers.insert(who.id.clone(), worker);
        if self.left.is_some() {
            self.find(now, &who.id, &who.status);
        }
        self.heartbeats.watch((who.id, who.instance), now.at);
        JobRegistrationAnswer::Accepted(Box::new(self.spec.clone()))
    }

    pub(super) fn forget_worker(&mut self, id: &TaskManagerId) {
        if let Some(worker) = self.workers.remove(id) {
            self.heartbeats.forget(&(id.clone(), worker.instance));
        }
        self.pool.retain(|_, slot| slot.id != *id);
    }

    pub(super) fn next_heartbeat(&self) -> Option<Moment> {
        self.workers.values().map(|w| w.next_heartbeat).min()
    }

    pub(super) fn send_heartbeats(&mut self, now: Now) {
        for (id, worker) in &mut self.workers {
            if worker.next_heartbeat <= now.at {
                worker.next_heartbeat = now.at + self.settings.heartbeat.interval;
                let mine = self.pool.iter().filter(|(_, s)| s.id == *id && s.instance == worker.instance);
                let mine: BTreeSet<_> = mine.map(|(a, _)| *a).chain(worker.held.iter().copied()).collect();
                let report = AllocatedSlotReport { allocations: mine.into_iter().collect() };
                self.effects.push(Effect::Heartbeat { id: id.clone(), report });
            }
        }
    }

    /// Somebody looks at the job: the heartbeats whose answers bring its counters go out now, unless they just did.
    pub(super) fn looked(&mut self, now: Now) {
        let interval = self.settings.heartbeat.interval;
        for worker in self.workers.values_mut().filter(|w| w.next_heartbeat + LOOK_AGAIN <= now.at + interval) {
            worker.next_heartbeat = now.at;
        }
        self.send_heartbeats(now);
    }

    /// Takes counters over; answers a failure when a task that was handed over is not there any more.
    pub(super) fn heard(
        &mut self,
        now: Now,
        id: &TaskManagerId,
        instance: InstanceId,
        status: &TaskManagerStatus,
    ) -> Option<TaskFailure> {
        self.heartbeats.heard(&(id.clone(), instance), now.at);
        for (subtask, metrics) in &status.metrics {
            if self.task_manager_of(*subtask) == Some(id)
                && let Some(task) = self.task_mut(*subtask)
                && !task.state.is_terminal()
            {
                task.metrics = *metrics;
            }
        }
        // What was offered and accepted is in every status that follows: a slot that is not was freed there.
        self.pool.retain(|allocation, slot| {
            slot.id != *id || slot.instance != instance || status.allocations.contains(allocation)
        });
        let there: BTreeSet<SubtaskId> =
            status.tasks.iter().filter(|(_, attempt, _)| *attempt == self.attempt).map(|(s, _, _)| *s).collect();
        let missing = self.subtasks().find(|(subtask, task)| {
            task.at.as_ref() == Some(id) && task.handed_over && !task.state.is_terminal() && !there.contains(subtask)
        });
        let (subtask, _) = missing?;
        Some(TaskFailure::new(FailureKind::Lost, format!("TaskManager {id} no longer knows the task")).at(subtask))
    }

    // ---- slots ----

    /// Takes those offers that it needs; answers their grants.
    pub(super) fn offered(
        &mut self,
        id: &TaskManagerId,
        instance: InstanceId,
        offers: Vec<SlotOffer>,
        wanted: bool,
        all_in_use: bool,
    ) -> Vec<AllocationId> {
        // No task is torn out of its slot: neither while it is being stopped, nor because others were offered before.
        let in_use: BTreeSet<u32> = offers.iter().map(|o| o.slot).filter(|s| self.in_use(id, *s, all_in_use)).collect();
        // Until it is known what an earlier leader left, no other slot is wanted.
        let wanted = wanted && self.left.is_none();
        let most = self.slots_needed();
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.instance == instance) else { return Vec::new() };
        worker.host = offers.iter().map(|o| o.host).fold(worker.host, u64::max);
        let (latest, over) = (worker.host, worker.over);
        worker.held.clear();
        let mut accepted = Vec::new();
        for offer in offers {
            let known = self.pool.contains_key(&offer.allocation);
            // Of a host that another has followed: its own offer says all that is true of the slot.
            if offer.host < latest {
                accepted.extend(known.then_some(offer.allocation));
                continue;
            }
            // A slot has one grant at a time, and one leader's grants are in order: a later one means that the earlier
            // has ended, and an offer under an earlier one is late.
            let same = |slot: &PoolSlot| slot.id == *id && slot.instance == instance && slot.index == offer.slot;
            if self.pool.iter().any(|(allocation, slot)| *allocation > offer.allocation && same(slot)) {
                continue;
            }
            self.pool.retain(|allocation, slot| *allocation >= offer.allocation || !same(slot));
            if !known && !in_use.contains(&offer.slot) && (!wanted || self.pool.len() as u32 >= most) {
                continue;
            }
            accepted.push(offer.allocation);
            // The word of a host that is being ended may be late.
            let ready = offer.host > over;
            let slot =
                PoolSlot { id: id.clone(), instance, index: offer.slot, data_address: offer.data_address, ready };
            self.pool.insert(offer.allocation, slot);
        }
        self.free_unused(most, all_in_use);
        accepted
    }

    /// Gives back what is more than needed and has no task in it.
    fn free_unused(&mut self, keep: u32, all: bool) {
        let over = self.pool.len().saturating_sub(keep as usize);
        let unused = self.pool.iter().filter(|(_, s)| over > 0 && !self.in_use(&s.id, s.index, all)).map(|(a, _)| *a);
        for allocation in unused.take(over).collect::<Vec<_>>() {
            if let Some(slot) = self.pool.remove(&allocation) {
                let cause = "another slot has the task".to_owned();
                self.effects.push(Effect::FreeSlot { id: slot.id, instance: slot.instance, allocation, cause });
            }
        }
    }

    /// Is it the first that is heard of this host's end, or was it not yet acted upon? A later host may be there already.
    pub(super) fn is_news(&mut self, id: &TaskManagerId, instance: InstanceId, failed: &HostFailure) -> bool {
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.instance == instance) else { return false };
        if failed.host < worker.host || failed.host <= worker.over {
            return false;
        }
        worker.host = failed.host;
        true
    }

    /// Every host there that was heard of is over, or about to be: what is still told of it is late.
    pub(super) fn host_is_over(&mut self, id: &TaskManagerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.over = worker.host;
        }
        self.host_gone(id);
    }

    /// The host on this TaskManager is gone: its slots are not ready until they are offered again.
    pub(super) fn host_gone(&mut self, id: &TaskManagerId) {
        for slot in self.pool.values_mut().filter(|s| s.id == *id) {
            slot.ready = false;
        }
    }

    pub(super) fn all_slots_ready(&self) -> bool {
        let ready = self.pool.values().filter(|s| s.ready).count() as u32;
        ready >= self.slots_needed() && self.pool.values().all(|s| s.ready)
    }

    /// Gives back what is more than needed, and all of it when the job is over.
    pub(super) fn free_slots(&mut self, keep: u32, cause: &str) {
        while self.pool.len() as u32 > keep {
            let Some((allocation, slot)) = self.pool.pop_last() else { return };
            let (id, instance, cause) = (slot.id, slot.instance, cause.to_owned());
            self.effects.push(Effect::FreeSlot { id, instance, allocation, cause });
        }
    }

    /// The TaskManagers that hold slots, or still run tasks: after a change of leaders those may not have been offered yet.
    pub(super) fn holders(&self) -> BTreeSet<TaskManagerId> {
        let running = self.tasks.iter().flatten().filter(|t| t.handed_over && !t.state.is_terminal());
        let running = running.filter_map(|t| t.at.clone()).filter(|id| self.is_registered(id));
        self.pool.values().map(|s| s.id.clone()).chain(running).collect()
    }

    // ---- tasks ----

    pub(super) fn subtasks(&self) -> impl Iterator<Item = (SubtaskId, &Task)> {
        self.tasks.iter().enumerate().flat_map(|(v, tasks)| {
            tasks.iter().enumerate().map(move |(i, t)| (SubtaskId { vertex: v as u32, index: i as u32 }, t))
        })
    }

    fn task_mut(&mut self, subtask: SubtaskId) -> Option<&mut Task> {
        self.tasks.get_mut(subtask.vertex as usize)?.get_mut(subtask.index as usize)
    }

    fn task_manager_of(&self, subtask: SubtaskId) -> Option<&TaskManagerId> {
        let place = self.placement.of(subtask)?;
        self.placement.hosts.get(place.host as usize).map(|h| &h.task_manager)
    }

    /// Where a subtask is.
    pub(super) fn task_manager(&self, subtask: SubtaskId) -> Option<TaskManagerId> {
        self.task_manager_of(subtask).cloned()
    }

    fn role(&self, subtask: SubtaskId) -> VertexRole {
        self.graph().vertices.get(subtask.vertex as usize).map(|v| v.role).unwrap_or_default()
    }

    /// Begins an attempt: places every subtask in the slots, subtask i of each vertex in slot i.
    pub(super) fn place(&mut self, now: Now) {
        let mut slots: Vec<_> = self.pool.values().cloned().collect();
        slots.sort_by(|a, b| (&a.id, a.index).cmp(&(&b.id, b.index)));
        let mut hosts: Vec<HostPlace> = Vec::new();
        let places: Vec<SubtaskPlace> = slots
            .iter()
            .map(|slot| {
                let known = hosts.iter().position(|h| h.task_manager == slot.id);
                let host = known.unwrap_or_else(|| {
                    hosts.push(HostPlace { task_manager: slot.id.clone(), data_address: slot.data_address.clone() });
                    hosts.len() - 1
                });
                SubtaskPlace { host: host as u32, slot: slot.index }
            })
            .collect();
        let place_of = |i: u32| places.get(i as usize % places.len().max(1)).copied();
        let vertices = &self.spec.graph.vertices;
        let subtasks = vertices.iter().map(|v| (0..v.parallelism).filter_map(place_of).collect()).collect();
        self.placement = Placement { hosts, subtasks };
        let n = self.attempt.n;
        self.tasks = vertices.iter().map(|v| (0..v.parallelism).map(|_| Task::new(now, n)).collect()).collect();
        for subtask in self.subtasks().map(|(s, _)| s).collect::<Vec<_>>() {
            let (at, role) = (self.task_manager_of(subtask).cloned(), self.role(subtask));
            let done = self.committed.is_some() && role != VertexRole::Committer;
            if let Some(task) = self.task_mut(subtask) {
                task.at = at;
                task.enter(now, if done { ExecutionState::Finished } else { ExecutionState::Scheduled });
            }
        }
    }

    /// Partitions with at least one consumer on another host.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        let mut partitions = Vec::new();
        if self.committed.is_some() {
            return partitions;
        }
        for (index, edge) in self.graph().edges.iter().enumerate() {
            let places = |v: u32| self.placement.subtasks.get(v as usize).map(Vec::as_slice).unwrap_or_default();
            let consumers = places(edge.to);
            for (producer, place) in places(edge.from).iter().enumerate() {
                let forward = edge.partitioner == thalweg_model::Partitioner::Forward;
                let leaves = if forward {
                    consumers.get(producer).is_some_and(|c| c.host != place.host)
                } else {
                    consumers.iter().any(|c| c.host != place.host)
                };
                if leaves && let Some(host) = self.placement.hosts.get(place.host as usize) {
                    partitions.push(Partition { edge: index as u32, producer: producer as u32, host: host.clone() });
                }
            }
        }
        partitions
    }

    pub(super) fn deployment_record(&self) -> DeploymentRecord {
        DeploymentRecord {
            attempt: self.attempt,
            parallelism: self.graph().vertices.iter().map(|v| v.parallelism).collect(),
            task_managers: self.placement.hosts.iter().filter_map(|h| self.deployed_on(&h.task_manager)).collect(),
            placement: self.placement.clone(),
        }
    }

    fn deployed_on(&self, id: &TaskManagerId) -> Option<DeployedOn> {
        let worker = self.workers.get(id)?;
        Some(DeployedOn { id: id.clone(), instance: worker.instance, rpc: worker.rpc.clone() })
    }

    // ---- what an earlier leader left ----

    /// Takes over what was deployed: nothing of it was found yet.
    pub(super) fn take_over(&mut self, now: Now) -> Vec<DeployedOn> {
        let Some(left) = self.left.clone() else { return Vec::new() };
        self.placement = left.placement;
        let n = self.attempt.n;
        let vertices = self.spec.graph.vertices.iter();
        self.tasks = vertices.map(|v| (0..v.parallelism).map(|_| Task::new(now, n)).collect()).collect();
        for subtask in self.subtasks().map(|(s, _)| s).collect::<Vec<_>>() {
            let (at, role) = (self.task_manager_of(subtask).cloned(), self.role(subtask));
            let done = self.committed.is_some() && role != VertexRole::Committer;
            if let Some(task) = self.task_mut(subtask) {
                task.at = at;
                if done {
                    task.enter(now, ExecutionState::Finished);
                }
            }
        }
        left.task_managers
    }

    /// Takes over what a TaskManager says that it runs. A failure comes as a report, with its cause; a task that an earlier
    /// leader has stopped is as good as not there.
    fn find(&mut self, now: Now, id: &TaskManagerId, status: &TaskManagerStatus) {
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
                task.metrics = *metrics;
            }
        }
    }

    /// Subtasks that were deployed (there) and that nobody has: the first of them, and how many.
    pub(super) fn not_found(&self, at: Option<&TaskManagerId>) -> Option<(SubtaskId, usize)> {
        let found = |t: &Task| t.state == ExecutionState::Finished || t.handed_over && !t.state.is_terminal();
        let there = |t: &Task| at.is_none() || t.at.as_ref() == at;
        let mut missing = self.subtasks().filter(|(_, t)| there(t) && !found(t)).map(|(s, _)| s);
        missing.next().map(|first| (first, 1 + missing.count()))
    }

    /// Sends each host its part.
    pub(super) fn deploy(&mut self, now: Now, descriptors: Vec<Descriptor>) {
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
    }

    fn publish_of(&self, subtask: SubtaskId) -> Option<bytes::Bytes> {
        let committed = self.committed.as_ref()?;
        let vertex = self.graph().vertices.get(subtask.vertex as usize)?;
        let uid = &vertex.operators.first()?.uid;
        // A committer that prepared nothing publishes nothing, and ends.
        Some(committed.manifests.get(uid).cloned().unwrap_or_default())
    }

    pub(super) fn deployed(&mut self, id: &TaskManagerId) {
        for task in self.tasks.iter_mut().flatten() {
            if task.at.as_ref() == Some(id) && task.state >= ExecutionState::Deploying {
                task.handed_over = true;
            }
        }
    }

    /// Was the task stopped, and not on behalf of this leader? An earlier one's word may have been under way.
    pub(super) fn is_stopped_by_another(&self, report: &TaskReport) -> bool {
        let task = self.tasks.get(report.subtask.vertex as usize).and_then(|v| v.get(report.subtask.index as usize));
        report.state == ExecutionState::Canceled && task.is_some_and(|t| t.state != ExecutionState::Canceling)
    }

    /// Takes a report over; answers whether it changed anything.
    pub(super) fn report(&mut self, now: Now, id: &TaskManagerId, instance: InstanceId, report: &TaskReport) -> bool {
        if report.attempt != self.attempt
            || !self.is_current(id, instance)
            || self.task_manager_of(report.subtask) != Some(id)
        {
            return false;
        }
        let Some(task) = self.task_mut(report.subtask) else { return false };
        if task.state.is_terminal() || task.state == ExecutionState::Scheduled {
            return false;
        }
        task.metrics = report.metrics;
        if report.state > task.state || report.state.is_terminal() {
            task.enter(now, report.state);
        }
        if let Some(manifest) = &report.prepared {
            task.prepared = Some(Prepared { manifest: manifest.clone(), collected: report.collected.clone() });
        }
        true
    }

    /// The tasks there are over; answers whether one of them was still needed.
    pub(super) fn end_tasks_on(&mut self, now: Now, id: &TaskManagerId, _failure: &TaskFailure) -> bool {
        let mut any = false;
        for task in self.tasks.iter_mut().flatten() {
            if task.at.as_ref() == Some(id) && !task.state.is_terminal() {
                any = true;
                task.enter(now, ExecutionState::Failed);
            }
        }
        any
    }

    /// Are there tasks of the present attempt in this slot, or on their way? With `all`, ended ones count.
    fn in_use(&self, id: &TaskManagerId, slot: u32, all: bool) -> bool {
        self.subtasks().any(|(subtask, task)| {
            let here = self.placement.of(subtask).is_some_and(|p| p.slot == slot) && task.at.as_ref() == Some(id);
            here && (all || !task.state.is_terminal())
        })
    }

    /// Was a task of the present attempt there?
    pub(super) fn had_tasks_on(&self, id: &TaskManagerId) -> bool {
        self.tasks.iter().flatten().any(|t| t.at.as_ref() == Some(id))
    }

    /// Every task is over.
    pub(super) fn all_terminal(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.state.is_terminal())
    }

    pub(super) fn all_finished(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.state == ExecutionState::Finished)
    }

    /// Every task has finished but the committers, which have all prepared.
    pub(super) fn all_prepared(&self) -> Option<CommitRecord> {
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

    pub(super) fn committers(&self) -> Vec<(SubtaskId, TaskManagerId)> {
        self.subtasks()
            .filter(|(s, t)| self.role(*s) == VertexRole::Committer && !t.state.is_terminal())
            .filter_map(|(s, t)| Some((s, t.at.clone()?)))
            .collect()
    }

    /// The job is ending: what it loses now is not replaced. What it still holds is given back at its end.
    pub(super) fn needs_no_more_slots(&mut self) {
        self.effects.push(Effect::Require(0));
    }

    /// Tells every host with live tasks to stop them.
    pub(super) fn cancel_tasks(&mut self, now: Now) {
        let mut hosts = BTreeSet::new();
        for task in self.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
            if task.state >= ExecutionState::Deploying {
                hosts.extend(task.at.clone());
                task.enter(now, ExecutionState::Canceling);
            } else {
                task.enter(now, ExecutionState::Canceled);
            }
        }
        let attempt = self.attempt;
        self.effects.extend(hosts.into_iter().map(|id| Effect::Cancel { id, attempt }));
    }

    /// The hosts that still have live tasks are ended by force.
    pub(super) fn force_end(&mut self, now: Now) {
        let mut hosts = BTreeSet::new();
        for task in self.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
            hosts.extend(task.at.clone());
            task.enter(now, ExecutionState::Canceled);
        }
        let attempt = self.attempt;
        self.effects.extend(hosts.into_iter().map(|id| Effect::ResetHost { id, attempt }));
    }

    // ---- failures and the end ----

    pub(super) fn note_exception(
        &mut self,
        now: Now,
        failure: TaskFailure,
        id: Option<TaskManagerId>,
        decision: String,
    ) {
        if self.exceptions.len() == EXCEPTIONS {
            self.exceptions.pop_front();
        }
        let attempt = self.attempt.n;
        self.effects.push(Effect::Failed { failure: failure.clone(), decision: decision.clone() });
        self.exceptions.push_back(ExceptionEntry { at: now.wall, failure, task_manager: id, attempt, decision });
    }

    pub(super) fn result(&self, now: Now, status: JobStatus, failure: Option<TaskFailure>) -> JobResult {
        let mut source_records = BTreeMap::new();
        for index in self.graph().sources() {
            let head = self.graph().vertices.get(index).and_then(|v| v.operators.first());
            if let (Some(tasks), Some(head)) = (self.tasks.get(index), head) {
                source_records.insert(head.uid.clone(), tasks.iter().map(|t| t.metrics.records_in).sum());
            }
        }
        let collected = self.committed.as_ref().filter(|_| status == JobStatus::Finished);
        JobResult {
            job: self.id,
            name: self.spec.name.clone(),
            status,
            failure,
            started: self.submitted,
            ended: now.wall,
            attempt: self.attempt.n,
            collected: collected.map(|c| c.collected.clone()).unwrap_or_default(),
            source_records,
        }
    }
}
