//! What a job is in every state. Its regions, its TaskManagers with their slots, its tasks, and what an earlier leader left of
//! it have a file each.

mod left;
mod rates;
mod regions;
mod tasks;
mod workers;

use crate::Now;
use crate::job_master::core::{Effect, Prepared};
use crate::job_master::restart::RestartPolicy;
use rates::Meter;
pub use rates::Rates;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use thalweg_model::{
    AllocationId, Attempt, Epoch, ExecutionState, HostPlace, InstanceId, JobGraph, JobId, JobStatus, Moment, Placement,
    Regions, SubtaskMetrics, TaskFailure, TaskManagerId, UnixMillis,
};
use thalweg_rpc::{HeartbeatMonitor, HeartbeatSettings};
use thalweg_wire::{CommitRecord, DeploymentRecord, JobRecord, JobResult, JobSpec};

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
    meter: Meter,
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
            meter: Meter::default(),
            attempt,
            handed_over: false,
            prepared: None,
        };
        task.since[0] = Some(now.wall);
        task
    }

    /// It has told what it counted.
    pub(super) fn counted(&mut self, metrics: &SubtaskMetrics) {
        // What was told before may come later: a heartbeat and a report take different ways.
        if metrics.read_at.is_none() || metrics.read_at >= self.metrics.read_at {
            self.metrics = metrics.clone();
            self.meter.sample(metrics);
        }
    }

    /// Of lately. Who has ended does nothing any more.
    pub(super) fn rates(&self) -> Option<Rates> {
        self.meter.rates().filter(|_| !self.state.is_terminal())
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
    /// On which it registered last.
    connection: u64,
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

/// However many look, counters are asked for once in this time. Rates are made of samples that are further apart.
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

    /// Slots that the job needs: all of them, or one when its output only has to be published.
    pub(super) fn slots_needed(&self) -> u32 {
        if self.committed.is_some() { 1 } else { self.graph().slots() }
    }

    pub(super) fn status_changed(&mut self, now: Now, status: JobStatus) {
        self.statuses.push((status, now.wall));
        self.effects.push(Effect::Status(status));
    }

    /// The job is ending: what it loses now is not replaced. What it still holds is given back at its end.
    pub(super) fn needs_no_more_slots(&mut self) {
        self.effects.push(Effect::Require(0));
    }

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

    /// What a job that starts again waits for.
    pub(super) fn starts_again_after(&self, status: JobStatus) -> Option<String> {
        let last = self.exceptions.back().filter(|_| status == JobStatus::Restarting)?;
        Some(format!("for its next attempt, after {}", last.failure))
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
