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
    Moment, Placement, RegionAttempt, Regions, SubtaskId, SubtaskMetrics, SubtaskPlace, TaskFailure, TaskManagerId,
    UnixMillis, VertexRole,
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
    /// The region that it is in.
    pub region: u32,
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
    /// The latest is gone, and nobody has asked for another.
    dead: bool,
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
    /// The latest attempt: of the regions that were started last.
    pub(super) attempt: Attempt,
    pub(super) regions: Regions,
    /// By region.
    attempts: Vec<Attempt>,
    /// Regions that have lost a task which they need, until it is decided what becomes of them.
    broken: BTreeSet<u32>,
    /// Regions that are to be started: all of them at first, and of a restart those that were broken.
    pub(super) starting: BTreeSet<u32>,
    /// TaskManagers whose host is being ended by force, and is not certainly gone.
    pub(super) ending: BTreeSet<TaskManagerId>,
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
    /// Another: tasks that are told to stop are taken for stopped.
    #[cfg(feature = "planted-bugs")]
    pub(super) hasty: bool,
}

impl Job {
    pub(super) fn new(record: JobRecord, left: Left, settings: Settings) -> Self {
        let first = Attempt { epoch: settings.epoch, n: 0 };
        let attempt = left.deployment.as_ref().map_or(first, |d| d.attempt);
        let regions = Regions::of(&record.spec.graph);
        let mut attempts = left.deployment.as_ref().map(|d| d.regions.clone()).unwrap_or_default();
        attempts.resize(regions.count() as usize, attempt);
        let starting = if left.deployment.is_some() { BTreeSet::new() } else { (0..regions.count()).collect() };
        Self {
            id: record.job,
            attempt,
            regions,
            attempts,
            broken: BTreeSet::new(),
            starting,
            ending: BTreeSet::new(),
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
            #[cfg(feature = "planted-bugs")]
            hasty: false,
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
        attempt == self.attempt_of(subtask) && self.task_manager_of(subtask) == Some(id)
    }

    /// The number of the next attempt, under this leader: for the regions that are to be started.
    pub(super) fn next_attempt(&mut self) {
        self.attempt = Attempt { epoch: self.settings.epoch, n: self.attempt.n + 1 };
        for region in &self.starting {
            self.broken.remove(region);
            if let Some(attempt) = self.attempts.get_mut(*region as usize) {
                *attempt = self.attempt;
            }
        }
    }

    // ---- regions ----

    /// Under which attempt the subtask's region is.
    pub(super) fn attempt_of(&self, subtask: SubtaskId) -> Attempt {
        self.attempts.get(self.regions.region(subtask) as usize).copied().unwrap_or(self.attempt)
    }

    /// Is any region under this attempt?
    pub(super) fn is_under(&self, attempt: Attempt) -> bool {
        self.attempts.contains(&attempt)
    }

    /// What is to end with this attempt: whatever earlier leaders deployed ends with the last that is known of them. One of
    /// them may have written down more than what was found.
    fn up_to(&self, attempt: Attempt) -> Attempt {
        Attempt { epoch: attempt.epoch.max(self.settings.epoch), n: attempt.n }
    }

    /// What is to end when all of the job is.
    pub(super) fn up_to_now(&self) -> Attempt {
        self.up_to(self.attempt)
    }

    /// These regions, each up to its attempt.
    fn under(&self, regions: impl IntoIterator<Item = u32>) -> Vec<RegionAttempt> {
        let attempt = |region: u32| self.attempts.get(region as usize).map(|a| self.up_to(*a));
        regions.into_iter().filter_map(|region| Some(RegionAttempt { region, attempt: attempt(region)? })).collect()
    }

    /// All regions, each up to its attempt.
    pub(super) fn all_regions(&self) -> Vec<RegionAttempt> {
        self.under(0..self.regions.count())
    }

    /// The regions that are to be started, each up to its last attempt.
    pub(super) fn starting_regions(&self) -> Vec<RegionAttempt> {
        self.under(self.starting.iter().copied())
    }

    /// The subtask's region cannot go on.
    pub(super) fn breaks(&mut self, subtask: SubtaskId) {
        self.broken.insert(self.regions.region(subtask));
    }

    /// Is there something that nobody has decided about?
    pub(super) fn has_broken(&self) -> bool {
        !self.broken.is_subset(&self.starting)
    }

    /// Is there a region that has not broken, in a job that has?
    pub(super) fn goes_on_in_part(&self) -> bool {
        self.committed.is_none() && (self.broken.len() as u32) < self.regions.count()
    }

    /// What broke is to be started again, with all of the job when nothing of it can go on (`false`).
    pub(super) fn restarts_in_part(&mut self) -> bool {
        self.starting.append(&mut self.broken);
        if self.committed.is_some() || self.starting.is_empty() {
            self.starts_over();
        }
        (self.starting.len() as u32) < self.regions.count()
    }

    /// All of the job is to be started again.
    pub(super) fn starts_over(&mut self) {
        self.starting = (0..self.regions.count()).collect();
        self.broken.clear();
    }

    /// Could one of these TaskManagers have something that will be adopted?
    pub(super) fn may_be_adopted(&self, from: &BTreeSet<TaskManagerId>) -> bool {
        self.subtasks().any(|(subtask, task)| {
            task.at.as_ref().is_some_and(|id| from.contains(id)) && !self.broken.contains(&self.regions.region(subtask))
        })
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

    pub(super) fn registered(&self) -> impl Iterator<Item = (TaskManagerId, InstanceId)> {
        self.workers.iter().map(|(id, w)| (id.clone(), w.instance))
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
        let (host, over, dead) = self.workers.get(&who.id).map_or((0, 0, false), |w| (w.host, w.over, w.dead));
        let held = if self.left.is_some() { who.status.allocations.clone() } else { Vec::new() };
        let (instance, rpc) = (who.instance, who.rpc);
        let worker = Worker { instance, rpc, held, next_heartbeat: now.at, host, over, dead };
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

    /// Takes counters over; answers a failure when a task that was handed over is not there any more, and whether one is not
    /// there that was to stop.
    pub(super) fn heard(
        &mut self,
        now: Now,
        id: &TaskManagerId,
        instance: InstanceId,
        status: &TaskManagerStatus,
    ) -> (Option<TaskFailure>, bool) {
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
        let here = status.tasks.iter().filter(|(s, attempt, _)| *attempt == self.attempt_of(*s)).map(|(s, ..)| *s);
        let there: BTreeSet<SubtaskId> = here.collect();
        let missing = |(subtask, task): &(SubtaskId, &Task)| {
            task.at.as_ref() == Some(id) && task.handed_over && !task.state.is_terminal() && !there.contains(subtask)
        };
        let missing: Vec<_> = self.subtasks().filter(missing).map(|(s, task)| (s, task.state)).collect();
        let (stopped, lost): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(_, state)| *state == ExecutionState::Canceling);
        for (subtask, _) in &stopped {
            if let Some(task) = self.task_mut(*subtask) {
                task.enter(now, ExecutionState::Canceled);
            }
        }
        lost.iter().for_each(|(subtask, _)| self.breaks(*subtask));
        let failure = lost.first().map(|(subtask, _)| {
            TaskFailure::new(FailureKind::Lost, format!("TaskManager {id} no longer knows the task")).at(*subtask)
        });
        (failure, !stopped.is_empty())
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
        let newest = offers.iter().map(|o| o.host).fold(worker.host, u64::max);
        worker.dead &= newest == worker.host;
        worker.host = newest;
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
        self.free_unused(most, all_in_use, "another slot has the task");
        accepted
    }

    /// Gives back what is more than needed and has no task in it.
    pub(super) fn free_unused(&mut self, keep: u32, all: bool, cause: &str) {
        let over = self.pool.len().saturating_sub(keep as usize);
        let unused = self.pool.iter().filter(|(_, s)| over > 0 && !self.in_use(&s.id, s.index, all)).map(|(a, _)| *a);
        for allocation in unused.take(over).collect::<Vec<_>>() {
            if let Some(slot) = self.pool.remove(&allocation) {
                let cause = cause.to_owned();
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
        (worker.host, worker.dead) = (failed.host, true);
        true
    }

    /// Every host there that was heard of is over, or about to be: what is still told of it is late.
    pub(super) fn host_is_over(&mut self, id: &TaskManagerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            (worker.over, worker.dead) = (worker.host, false);
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

    /// The hosts that are gone, and nobody has asked for others.
    pub(super) fn dead_hosts(&self) -> Vec<TaskManagerId> {
        self.workers.iter().filter(|(_, w)| w.dead).map(|(id, _)| id.clone()).collect()
    }

    /// With its TaskManager a host is certainly gone.
    pub(super) fn forget_ended_hosts(&mut self) {
        let Self { ending, workers, .. } = self;
        ending.retain(|id| workers.contains_key(id));
    }

    /// Gives back every slot: the job is over.
    pub(super) fn free_all(&mut self, cause: &str) {
        while let Some((allocation, slot)) = self.pool.pop_last() {
            let (id, instance, cause) = (slot.id, slot.instance, cause.to_owned());
            self.effects.push(Effect::FreeSlot { id, instance, allocation, cause });
        }
    }

    /// The TaskManagers that hold slots, or still run tasks: after a change of leaders those may not have been offered yet,
    /// and what an earlier leader sent may have arrived after they told what they have.
    pub(super) fn holders(&self) -> BTreeSet<TaskManagerId> {
        let taken_over = self.attempt.epoch < self.settings.epoch;
        let unsure = self.workers.keys().filter(|_| taken_over).cloned();
        let running = self.tasks.iter().flatten().filter(|t| t.handed_over && !t.state.is_terminal());
        let running = running.filter_map(|t| t.at.clone()).filter(|id| self.is_registered(id));
        self.pool.values().map(|s| s.id.clone()).chain(running).chain(unsure).collect()
    }

    // ---- tasks ----

    pub(super) fn subtasks(&self) -> impl Iterator<Item = (SubtaskId, &Task)> {
        self.tasks.iter().enumerate().flat_map(|(v, tasks)| {
            tasks.iter().enumerate().map(move |(i, t)| (SubtaskId { vertex: v as u32, index: i as u32 }, t))
        })
    }

    fn task(&self, subtask: SubtaskId) -> Option<&Task> {
        self.tasks.get(subtask.vertex as usize)?.get(subtask.index as usize)
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

    /// Begins an attempt: gives every subtask that is to be started its place, subtask i of each vertex in the i-th slot.
    pub(super) fn place(&mut self, now: Now) {
        let slots = self.slots_in_order();
        let place_of = |i: u32| slots.get(i as usize % slots.len().max(1));
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
                    let slot = place_of(index)?;
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

    /// The slots that the job has, the i-th for subtasks i. What goes on keeps its slot, and what starts again its own, where
    /// it is still there.
    fn slots_in_order(&self) -> Vec<PoolSlot> {
        let mut free: Vec<&PoolSlot> = self.pool.values().collect();
        free.sort_by(|a, b| (&a.id, a.index).cmp(&(&b.id, b.index)));
        if self.starting.len() as u32 >= self.regions.count() {
            return free.into_iter().cloned().collect();
        }
        let mut slots: Vec<Option<PoolSlot>> = vec![None; self.slots_needed() as usize];
        for going_on in [true, false] {
            for (subtask, task) in self.subtasks() {
                let live = !task.state.is_terminal() && !self.starting.contains(&self.regions.region(subtask));
                let place = self.placement.of(subtask);
                let (Some(id), Some(place), Some(slot)) = (&task.at, place, slots.get_mut(subtask.index as usize))
                else {
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

    pub(super) fn deployment_record(&self) -> DeploymentRecord {
        DeploymentRecord {
            attempt: self.attempt,
            regions: self.attempts.clone(),
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

    /// Subtasks that were deployed (there) and that nobody has: the first of them, and how many. Their regions are broken.
    pub(super) fn not_found(&mut self, at: Option<&TaskManagerId>) -> Option<(SubtaskId, usize)> {
        let found = |t: &Task| t.state == ExecutionState::Finished || t.handed_over && !t.state.is_terminal();
        let there = |t: &Task| at.is_none() || t.at.as_ref() == at;
        let missing: Vec<_> = self.subtasks().filter(|(_, t)| there(t) && !found(t)).map(|(s, _)| s).collect();
        missing.iter().for_each(|subtask| self.breaks(*subtask));
        missing.first().map(|first| (*first, missing.len()))
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
        self.starting.clear();
    }

    fn publish_of(&self, subtask: SubtaskId) -> Option<bytes::Bytes> {
        let committed = self.committed.as_ref()?;
        let vertex = self.graph().vertices.get(subtask.vertex as usize)?;
        let uid = &vertex.operators.first()?.uid;
        // A committer that prepared nothing publishes nothing, and ends.
        Some(committed.manifests.get(uid).cloned().unwrap_or_default())
    }

    /// The subtasks of this attempt there.
    fn deployed_there(&self, id: &TaskManagerId, attempt: Attempt) -> Vec<SubtaskId> {
        let there = self.subtasks().filter(|(s, t)| t.at.as_ref() == Some(id) && self.attempt_of(*s) == attempt);
        there.filter(|(_, t)| t.state >= ExecutionState::Deploying).map(|(s, _)| s).collect()
    }

    pub(super) fn deployed(&mut self, id: &TaskManagerId, attempt: Attempt) {
        for subtask in self.deployed_there(id, attempt) {
            if let Some(task) = self.task_mut(subtask) {
                task.handed_over = true;
            }
        }
    }

    /// Nobody knows whether what was sent there has arrived. Answers whether that matters.
    pub(super) fn not_deployed(&mut self, id: &TaskManagerId, attempt: Attempt) -> bool {
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
    pub(super) fn is_stopping(&self, subtask: SubtaskId) -> bool {
        self.task(subtask).is_some_and(|t| t.state == ExecutionState::Canceling)
    }

    /// Takes a report over; answers whether it changed anything.
    pub(super) fn report(&mut self, now: Now, id: &TaskManagerId, instance: InstanceId, report: &TaskReport) -> bool {
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
    pub(super) fn end_tasks_on(&mut self, now: Now, id: &TaskManagerId) -> bool {
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
    fn in_use(&self, id: &TaskManagerId, slot: u32, all: bool) -> bool {
        let all = all || self.ending.contains(id);
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

    /// Those that have yet to publish, where they are and under which attempt.
    pub(super) fn committers(&self) -> Vec<(SubtaskId, TaskManagerId, Attempt)> {
        self.subtasks()
            .filter(|(s, t)| self.role(*s) == VertexRole::Committer && !t.state.is_terminal())
            .filter_map(|(s, t)| Some((s, t.at.clone()?, self.attempt_of(s))))
            .collect()
    }

    /// The job is ending: what it loses now is not replaced. What it still holds is given back at its end.
    pub(super) fn needs_no_more_slots(&mut self) {
        self.effects.push(Effect::Require(0));
    }

    /// Tells every host with live tasks to stop them.
    pub(super) fn cancel_tasks(&mut self, now: Now) {
        self.stop(now, 0..self.regions.count());
    }

    /// Tells every host with live tasks of these regions to stop them. What cannot be asked, or was not sent, is over.
    pub(super) fn stop(&mut self, now: Now, regions: impl IntoIterator<Item = u32>) {
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
    pub(super) fn stop_again(&mut self, id: &TaskManagerId) {
        let stopping = self.subtasks().filter(|(_, t)| t.at.as_ref() == Some(id));
        let stopping = stopping.filter(|(_, t)| t.state == ExecutionState::Canceling);
        let regions: BTreeSet<u32> = stopping.map(|(s, _)| self.regions.region(s)).collect();
        if !regions.is_empty() {
            let (id, regions) = (id.clone(), self.under(regions));
            self.effects.push(Effect::Cancel { id, regions });
        }
    }

    /// A host was told to stop these regions; what it does not name as still ending is over. Answers whether that is news.
    pub(super) fn stopped(
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
    pub(super) fn end_unstopped(&mut self, now: Now) -> BTreeSet<TaskManagerId> {
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
    pub(super) fn all_stopped(&self) -> bool {
        self.subtasks().all(|(s, t)| t.state.is_terminal() || !self.starting.contains(&self.regions.region(s)))
    }

    /// The hosts that still have live tasks are ended by force.
    pub(super) fn force_end(&mut self, now: Now) {
        let mut hosts = BTreeSet::new();
        for task in self.tasks.iter_mut().flatten().filter(|t| !t.state.is_terminal()) {
            hosts.extend(task.at.clone());
            task.enter(now, ExecutionState::Canceled);
        }
        let attempt = self.up_to_now();
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
