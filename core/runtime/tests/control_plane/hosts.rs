//! Task hosts, and the world that their tasks change: tasks that work, finish or fail, and committers that publish.

use crate::{
    kinds::{Local, Message, Net, TaskStep},
    world::World,
};
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thalweg_model::{
    Attempt, ExecutionState, FailureKind, JobId, RegionAttempt, Regions, SubtaskId, SubtaskMetrics, TaskFailure,
    VertexRole,
};
use thalweg_testkit::harness::{Happening, LinkId, NodeId};
use thalweg_wire::{Deploy, FromHost, HostMemory, TaskReport, ToHost};

/// How often a host tells counters.
const METRICS: Duration = Duration::from_secs(5);

pub struct HostTask {
    attempt: Attempt,
    state: ExecutionState,
    role: VertexRole,
    slot: u32,
    /// What it publishes: told by the deployment, or its own.
    manifest: Option<String>,
    prepared: bool,
    publishing: bool,
}

pub struct Host {
    pub task_manager: NodeId,
    pub job: JobId,
    link: LinkId,
    pub tasks: BTreeMap<SubtaskId, HostTask>,
    regions: Regions,
    /// By region.
    newest: BTreeMap<u32, Attempt>,
    cancelled: BTreeMap<u32, Attempt>,
}

impl Host {
    pub fn region(&self, subtask: SubtaskId) -> u32 {
        self.regions.region(subtask)
    }

    /// What of the region has not ended here.
    pub fn live_of(&self, region: u32) -> impl Iterator<Item = (SubtaskId, Attempt)> {
        let live = self.tasks.iter().filter(move |(s, t)| !t.state.is_terminal() && self.region(**s) == region);
        live.map(|(s, t)| (*s, t.attempt))
    }

    fn under(&self, subtask: SubtaskId, attempt: Attempt) -> RegionAttempt {
        RegionAttempt { region: self.regions.region(subtask), attempt }
    }
}

/// What has become visible outside: renames, which may be done twice.
#[derive(Debug, Default)]
pub struct Output {
    /// First half, second half, by manifest.
    pub published: BTreeMap<(JobId, String), (bool, bool)>,
}

impl World {
    /// The forker has forked.
    pub fn host_starts(&mut self, task_manager: NodeId, job: JobId, host: u64) {
        let Some(it) = self.task_managers.get(&task_manager) else { return };
        if !it.is_launching(job, host) {
            return;
        }
        let name = format!("{}/host-{}-{host}", self.sim.name(task_manager), job.as_bytes()[0]);
        let node = self.sim.node(name);
        let link = self.sim.link(task_manager, node);
        let client = self.clients.values().find(|c| c.plan.job == job);
        let regions = client.map(|c| Regions::of(&c.plan.spec.graph)).unwrap_or_default();
        let (newest, cancelled) = (BTreeMap::new(), BTreeMap::new());
        let new = Host { task_manager, job, link, tasks: BTreeMap::new(), regions, newest, cancelled };
        self.hosts.insert(node, new);
        if let Some(it) = self.task_managers.get_mut(&task_manager) {
            it.hosts.insert((job, host), node);
            it.host_links.insert(link, (job, host));
        }
        let after = self.sim.between(Duration::from_millis(1), self.plan.host_start);
        let fails = self.chaos && self.sim.chance(self.plan.host_fails);
        let kind = match self.sim.rng().random_range(0..10) {
            0 => FailureKind::Incompatible,
            1..4 => FailureKind::User,
            _ => FailureKind::Lost,
        };
        let ready = if fails { Local::Refuse(TaskFailure::new(kind, "it cannot start")) } else { Local::Ready };
        self.sim.post(node, after, ready);
    }

    /// The process is gone, whoever ended it.
    pub fn host_dies(&mut self, node: NodeId) {
        if !self.sim.is_alive(node) {
            return;
        }
        self.sim.kill(node);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let (job, task_manager) = (host.job, host.task_manager);
        let live = host.tasks.iter().filter(|(_, t)| !t.state.is_terminal());
        let live: Vec<_> = live.map(|(s, t)| (t.slot, host.under(*s, t.attempt))).collect();
        host.tasks.clear();
        for (slot, of) in &live {
            self.checks.task_ends(task_manager, *slot, job, *of, node);
        }
        // What exchanged data with it notices, sooner or later.
        let regions: BTreeSet<RegionAttempt> = live.iter().map(|(_, of)| *of).collect();
        let others: Vec<NodeId> = self
            .hosts
            .iter()
            .filter(|(n, h)| h.job == job && **n != node && self.sim.is_alive(**n))
            .map(|(n, _)| *n)
            .collect();
        for other in others {
            for of in &regions {
                if self.sim.chance(400) {
                    let after = self.sim.between(Duration::from_micros(10), Duration::from_millis(500));
                    self.sim.post(other, after, Local::PeerLost(*of));
                }
            }
        }
    }

    pub fn host_handles(&mut self, node: NodeId, happening: Happening<Net>) {
        match happening {
            Happening::Local(local) => self.host_local(node, local),
            Happening::Told { message: Message::ToHost(message), .. } => match *message {
                ToHost::Deploy(deploy) => self.host_deploys(node, *deploy),
                ToHost::Cancel { regions } => self.host_cancels(node, &regions),
                ToHost::Commit { subtask, attempt } => {
                    let task = self.hosts.get(&node).and_then(|h| h.tasks.get(&subtask));
                    if task.is_some_and(|t| t.attempt == attempt && t.prepared && !t.publishing) {
                        self.host_task(node, subtask, attempt, TaskStep::PublishFirst);
                    }
                }
                ToHost::Stop => self.host_dies(node),
                ToHost::Start { .. } | ToHost::Unknown => {}
            },
            // Its TaskManager is gone.
            Happening::Closed { .. } => self.host_dies(node),
            _ => {}
        }
    }

    fn host_local(&mut self, node: NodeId, local: Local) {
        let Some(link) = self.hosts.get(&node).map(|h| h.link) else { return };
        match local {
            Local::Ready => {
                let data_address = Some(self.sim.name(node).to_owned());
                self.heard_of_host(node, link, FromHost::Ready { data_address });
                self.sim.post(node, METRICS, Local::Metrics);
            }
            Local::Refuse(failure) => self.heard_of_host(node, link, FromHost::Refused { failure }),
            Local::Metrics => {
                let Some(host) = self.hosts.get(&node) else { return };
                let counters = SubtaskMetrics::default();
                let subtasks = host.tasks.iter().map(|(s, t)| (*s, t.attempt, counters.clone())).collect();
                self.heard_of_host(node, link, FromHost::Metrics { subtasks, memory: HostMemory::default() });
                self.sim.post(node, METRICS, Local::Metrics);
            }
            Local::Task(subtask, attempt, step) => self.host_task(node, subtask, attempt, step),
            Local::PeerLost(of) => {
                let Some(host) = self.hosts.get(&node) else { return };
                let live = host.tasks.iter().find(|(s, t)| {
                    host.under(**s, t.attempt) == of && !t.state.is_terminal() && !t.prepared && !t.publishing
                });
                if let Some(subtask) = live.map(|(s, _)| *s) {
                    let failure = TaskFailure::new(FailureKind::Lost, "the other end of an exchange is gone");
                    self.task_is(node, subtask, ExecutionState::Failed, Some(failure));
                }
            }
            _ => {}
        }
    }

    fn heard_of_host(&mut self, node: NodeId, link: LinkId, message: FromHost) {
        self.send(node, link, Message::FromHost(Box::new(message)));
    }

    fn later(&mut self, node: NodeId, most: Duration, subtask: SubtaskId, attempt: Attempt, step: TaskStep) {
        let after = self.sim.between(Duration::from_micros(100), most);
        self.sim.post(node, after, Local::Task(subtask, attempt, step));
    }

    fn host_deploys(&mut self, node: NodeId, deploy: Deploy) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let attempt = deploy.attempt;
        let regions: BTreeSet<u32> = deploy.tasks.iter().map(|t| host.regions.region(t.subtask)).collect();
        let late = |region: &u32| {
            host.cancelled.get(region).is_some_and(|c| attempt <= *c)
                || host.newest.get(region).is_some_and(|n| attempt < *n)
        };
        let late: BTreeSet<u32> = regions.iter().copied().filter(late).collect();
        let mut lower = Vec::new();
        for region in regions.difference(&late) {
            if host.newest.insert(*region, attempt).is_some_and(|n| n < attempt) {
                let live = host.tasks.iter().filter(|(s, t)| {
                    host.regions.region(**s) == *region && !t.state.is_terminal() && t.attempt < attempt
                });
                lower.extend(live.map(|(s, t)| (*s, t.attempt)));
            }
        }
        for (subtask, old) in lower {
            self.later(node, Duration::from_millis(5), subtask, old, TaskStep::Cancelled);
        }
        let Some(host) = self.hosts.get(&node) else { return };
        let (job, task_manager) = (host.job, host.task_manager);
        let graph = match self.clients.values().find(|c| c.plan.job == job) {
            Some(client) => client.plan.spec.graph.clone(),
            None => return,
        };
        for task in deploy.tasks {
            let Some(place) = deploy.placement.of(task.subtask) else { continue };
            let Some(host) = self.hosts.get_mut(&node) else { return };
            let of = host.under(task.subtask, attempt);
            if late.contains(&of.region) {
                self.host_reports(node, task.subtask, attempt, ExecutionState::Canceled, None, None);
                continue;
            }
            if host.tasks.get(&task.subtask).is_some_and(|t| t.attempt == attempt) {
                continue;
            }
            let role = graph.vertices[task.subtask.vertex as usize].role;
            let manifest = task.publish.map(|m| String::from_utf8_lossy(&m).into_owned());
            let new = HostTask {
                attempt,
                state: ExecutionState::Deploying,
                role,
                slot: place.slot,
                manifest,
                prepared: false,
                publishing: false,
            };
            host.tasks.insert(task.subtask, new);
            self.checks.task_starts(task_manager, place.slot, job, of, node);
            self.later(node, Duration::from_millis(5), task.subtask, attempt, TaskStep::Initializing);
        }
    }

    fn host_cancels(&mut self, node: NodeId, regions: &[RegionAttempt]) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        for RegionAttempt { region, attempt } in regions {
            let cancelled = host.cancelled.entry(*region).or_insert(*attempt);
            *cancelled = *attempt.max(cancelled);
        }
        let stops = |(s, t): &(&SubtaskId, &HostTask)| {
            let region = host.regions.region(**s);
            !t.state.is_terminal() && regions.iter().any(|r| r.region == region && t.attempt <= r.attempt)
        };
        for (subtask, of) in host.tasks.iter().filter(stops).map(|(s, t)| (*s, t.attempt)).collect::<Vec<_>>() {
            if !self.sim.chance(self.plan.stubborn) {
                self.later(node, Duration::from_millis(50), subtask, of, TaskStep::Cancelled);
            }
        }
    }

    fn host_task(&mut self, node: NodeId, subtask: SubtaskId, attempt: Attempt, step: TaskStep) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let job = host.job;
        let Some(task) = host.tasks.get_mut(&subtask).filter(|t| t.attempt == attempt && !t.state.is_terminal()) else {
            return;
        };
        match step {
            TaskStep::Initializing => {
                self.task_is(node, subtask, ExecutionState::Initializing, None);
                self.later(node, Duration::from_millis(20), subtask, attempt, TaskStep::Running);
            }
            TaskStep::Running => {
                let (role, publish) = (task.role, task.manifest.is_some());
                self.task_is(node, subtask, ExecutionState::Running, None);
                let Some(plan) = self.clients.values().find(|c| c.plan.job == job).map(|c| c.plan.clone()) else {
                    return;
                };
                let fails = self.chaos && self.sim.chance(plan.fails);
                match role {
                    _ if publish => {
                        self.later(node, Duration::from_millis(5), subtask, attempt, TaskStep::PublishFirst)
                    }
                    _ if fails => self.later(node, plan.work, subtask, attempt, TaskStep::Failed),
                    VertexRole::Committer => self.gather(job, attempt),
                    _ if plan.spec.graph.bounded => {
                        self.later(node, plan.work, subtask, attempt, TaskStep::Finished);
                    }
                    _ => {}
                }
            }
            TaskStep::Finished => {
                self.task_is(node, subtask, ExecutionState::Finished, None);
                self.finished.entry((job, attempt)).or_default().insert(subtask);
                self.gather(job, attempt);
            }
            TaskStep::Failed => {
                let kinds = [FailureKind::User, FailureKind::UserPanic, FailureKind::Lost, FailureKind::Storage];
                let kind = kinds[self.sim.rng().random_range(0..kinds.len())];
                let failure = TaskFailure::new(kind, "as the seed wants it");
                self.task_is(node, subtask, ExecutionState::Failed, Some(failure));
            }
            TaskStep::Gathered => {
                if task.prepared || task.publishing {
                    return;
                }
                task.prepared = true;
                let manifest = format!("{attempt}/{subtask}");
                task.manifest = Some(manifest.clone());
                self.host_reports(node, subtask, attempt, ExecutionState::Running, None, Some(manifest));
            }
            TaskStep::PublishFirst => {
                task.publishing = true;
                let manifest = task.manifest.clone().unwrap_or_default();
                self.check_publish(job, &manifest);
                self.output.published.entry((job, manifest)).or_default().0 = true;
                self.later(node, Duration::from_millis(300), subtask, attempt, TaskStep::PublishLast);
            }
            TaskStep::PublishLast => {
                let manifest = task.manifest.clone().unwrap_or_default();
                self.output.published.entry((job, manifest)).or_default().1 = true;
                self.task_is(node, subtask, ExecutionState::Finished, None);
            }
            TaskStep::Cancelled => self.task_is(node, subtask, ExecutionState::Canceled, None),
        }
    }

    /// Committers prepare when all that feeds them has ended.
    fn gather(&mut self, job: JobId, attempt: Attempt) {
        let Some(client) = self.clients.values().find(|c| c.plan.job == job) else { return };
        let graph = &client.plan.spec.graph;
        let regions = Regions::of(graph);
        let finished = self.finished.get(&(job, attempt));
        // The regions in which something else has not finished.
        let mut waits = BTreeSet::new();
        for (vertex, v) in graph.vertices.iter().enumerate().filter(|(_, v)| v.role != VertexRole::Committer) {
            for index in 0..v.parallelism {
                let subtask = SubtaskId { vertex: vertex as u32, index };
                if finished.is_none_or(|all| !all.contains(&subtask)) {
                    waits.insert(regions.region(subtask));
                }
            }
        }
        let mut ready = Vec::new();
        for (node, host) in self.hosts.iter().filter(|(n, h)| h.job == job && self.sim.is_alive(**n)) {
            let committers = host.tasks.iter().filter(|(s, t)| {
                !waits.contains(&regions.region(**s))
                    && t.role == VertexRole::Committer
                    && t.attempt == attempt
                    && t.state == ExecutionState::Running
                    && t.manifest.is_none()
            });
            ready.extend(committers.map(|(s, _)| (*node, *s)));
        }
        for (node, subtask) in ready {
            self.later(node, Duration::from_millis(50), subtask, attempt, TaskStep::Gathered);
        }
    }

    fn task_is(&mut self, node: NodeId, subtask: SubtaskId, state: ExecutionState, failure: Option<TaskFailure>) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let (job, task_manager) = (host.job, host.task_manager);
        let Some(task) = host.tasks.get_mut(&subtask) else { return };
        task.state = state;
        let (attempt, slot) = (task.attempt, task.slot);
        let of = host.under(subtask, attempt);
        if state.is_terminal() {
            self.checks.task_ends(task_manager, slot, job, of, node);
        }
        self.host_reports(node, subtask, attempt, state, failure, None);
    }

    fn host_reports(
        &mut self,
        node: NodeId,
        subtask: SubtaskId,
        attempt: Attempt,
        state: ExecutionState,
        failure: Option<TaskFailure>,
        prepared: Option<String>,
    ) {
        let Some(link) = self.hosts.get(&node).map(|h| h.link) else { return };
        let report = TaskReport {
            subtask,
            attempt,
            state,
            failure,
            prepared: prepared.map(|m| m.into_bytes().into()),
            collected: BTreeMap::new(),
            metrics: SubtaskMetrics::default(),
        };
        self.heard_of_host(node, link, FromHost::Task(Box::new(report)));
    }
}
