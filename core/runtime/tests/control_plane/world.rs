//! The simulated cluster: processes around the shipped cores, and what is outside of them.

use crate::{
    checks::Checks,
    clients::Client,
    hosts::{Host, Output},
    job_manager::JobManager,
    kinds::{Dialled, Local, Message, Net, Write, Written},
    plan::{Plan, RPC},
    provider::Provider,
    task_manager::TaskManager,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thalweg_control::Now;
use thalweg_model::{Attempt, Epoch, InstanceId, JobId, SubtaskId, UnixMillis};
use thalweg_testkit::harness::{Failure, Happening, NodeId, Sim};
use thalweg_wire::{CommitRecord, DeploymentRecord, JobRecord, ResultRecord};

/// More events than any schedule needs.
const STORM: u64 = 50_000;

/// A mistake that the harness must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    StaleAdoption,
    StopNotAwaited,
    CleanBeforeCleanUp,
    TerminalStateLost,
    FenceNotChecked,
    OldOfferAccepted,
    AcknowledgedBeforePersisted,
}

/// What leaders write down. It refuses epochs below the highest that it granted.
#[derive(Debug, Default)]
pub struct Store {
    pub granted: Epoch,
    pub jobs: BTreeMap<JobId, JobRecord>,
    pub deployments: BTreeMap<JobId, DeploymentRecord>,
    pub commits: BTreeMap<JobId, CommitRecord>,
    pub cancelled: BTreeSet<JobId>,
    pub results: BTreeMap<JobId, ResultRecord>,
}

/// A place where a TaskManager is started again and again.
#[derive(Debug, Clone)]
pub struct Place {
    pub name: String,
    pub node: Option<NodeId>,
    /// A start is planned.
    pub booting: bool,
}

/// See the module.
pub struct World {
    pub sim: Sim<Net>,
    pub plan: Plan,
    pub outside: NodeId,
    pub store: Store,
    pub store_trouble: bool,
    /// How often the store was lost.
    pub life: u32,
    pub managers: BTreeMap<NodeId, JobManager>,
    /// JobManagers that are born and do not lead yet.
    pub candidate: Option<NodeId>,
    pub leader: Option<(NodeId, Epoch)>,
    pub task_managers: BTreeMap<NodeId, TaskManager>,
    pub places: Vec<Place>,
    pub hosts: BTreeMap<NodeId, Host>,
    pub clients: BTreeMap<NodeId, Client>,
    pub provider: Provider,
    pub output: Output,
    /// Subtasks that have finished, by job and attempt.
    pub finished: BTreeMap<(JobId, Attempt), BTreeSet<SubtaskId>>,
    /// Who listens where.
    pub listening: BTreeMap<String, NodeId>,
    /// Nothing reaches these, and they reach nothing.
    pub cut_off: BTreeSet<NodeId>,
    pub chaos: bool,
    pub lives: u64,
    pub checks: Checks,
    pub planted: Option<Planted>,
}

/// What one schedule gave.
#[derive(Debug, Default)]
pub struct Report {
    pub events: u64,
    pub virtual_seconds: u64,
    pub transitions: BTreeSet<(&'static str, &'static str)>,
    pub finished: u32,
    pub failed: u32,
    pub cancelled: u32,
    pub restarts: u32,
    pub adoptions: u32,
    /// Deployments of some regions of a job, while others went on.
    pub in_part: u32,
    pub trace: String,
}

impl World {
    pub fn new(seed: u64, traced: bool, planted: Option<Planted>) -> Self {
        let plan = Plan::draw(&mut SmallRng::seed_from_u64(seed ^ 0x5eed));
        let mut sim = Sim::new(seed, traced);
        let outside = sim.node("outside");
        sim.note(|| format!("{plan:#?}"));
        Self {
            sim,
            outside,
            store: Store::default(),
            store_trouble: false,
            life: 0,
            managers: BTreeMap::new(),
            candidate: None,
            leader: None,
            task_managers: BTreeMap::new(),
            places: Vec::new(),
            hosts: BTreeMap::new(),
            clients: BTreeMap::new(),
            provider: Provider::default(),
            output: Output::default(),
            finished: BTreeMap::new(),
            listening: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            chaos: true,
            lives: 0,
            checks: Checks::default(),
            plan,
            planted,
        }
    }

    pub fn now(&self) -> Now {
        let at = self.sim.now();
        Now { at, wall: UnixMillis(1_000_000 + at.since_start().as_millis() as u64) }
    }

    pub fn instance(&mut self) -> InstanceId {
        self.lives += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.lives.to_be_bytes());
        InstanceId::from_bytes(bytes)
    }

    /// Runs the schedule; every invariant is looked at on the way.
    pub fn run(mut self) -> Result<Report, (Failure, String)> {
        let outcome = self.play();
        let trace = self.sim.trace().to_owned();
        match outcome {
            Ok(mut report) => {
                report.trace = trace;
                Ok(report)
            }
            Err(failure) => Err((failure, trace)),
        }
    }

    fn play(&mut self) -> Result<Report, Failure> {
        self.set_up();
        let limit = self.plan.chaos_for;
        // Faults go on until there were enough events to call it a schedule.
        while self.sim.now().since_start() < limit || self.sim.happened() < 200 {
            self.step()?;
        }
        self.calm_down();
        self.until("liveness: every job ends", Duration::from_secs(1200), |w| w.all_jobs_ended())?;
        self.until("SL-2: every slot is free again", Duration::from_secs(180), |w| w.all_slots_free())?;
        self.until("each ask has one answer", Duration::from_secs(30), |w| w.all_asks_answered())?;
        self.until("clean-up: only the result is left", Duration::from_secs(30), |w| w.all_is_cleaned_up())?;
        Ok(self.report())
    }

    fn step(&mut self) -> Result<(), Failure> {
        let Some((node, happening)) = self.sim.next() else {
            return Err(Failure { invariant: "engine", seen: "nothing happens any more".into() });
        };
        self.handle(node, happening);
        self.look_at(node);
        if self.sim.happened() > STORM {
            self.checks.fail("liveness: no storm of messages", format!("{STORM} events and no end"));
        }
        match self.checks.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn until(
        &mut self,
        what: &'static str,
        bound: Duration,
        holds: impl Fn(&World) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let end = self.sim.now() + bound;
        let mut next_look = self.sim.now();
        loop {
            if self.sim.now() >= next_look {
                next_look = self.sim.now() + Duration::from_secs(1);
                match holds(self) {
                    Ok(()) => return Ok(()),
                    Err(why) if self.sim.now() >= end => {
                        let seen = format!("not within {}s after the faults: {why}", bound.as_secs());
                        return Err(Failure { invariant: what, seen });
                    }
                    Err(_) => self.no_job_waits_in_vain()?,
                }
            }
            self.step()?;
        }
    }

    fn handle(&mut self, node: NodeId, happening: Happening<Net>) {
        if node == self.outside {
            if let Happening::Local(local) = happening {
                self.outside(local);
            }
        } else if self.managers.contains_key(&node) || self.candidate == Some(node) {
            self.manager_handles(node, happening);
        } else if self.task_managers.contains_key(&node) {
            self.task_manager_handles(node, happening);
        } else if self.hosts.contains_key(&node) {
            self.host_handles(node, happening);
        } else if self.clients.contains_key(&node) {
            self.client_handles(node, happening);
        }
    }

    fn outside(&mut self, local: Local) {
        match local {
            Local::Chaos => self.misfortune(),
            // What was on its way to a store that is lost is lost with it.
            Local::Apply { life, .. } if life != self.life => {}
            Local::Apply { epoch, manager, write, written, answer_after, .. } => {
                self.apply(epoch, manager, write, written, answer_after);
            }
            Local::HostDies(host) => self.host_dies(host),
            Local::Boot(place) => self.boot(place),
            Local::BootManager => self.boot_manager(),
            Local::Replace(leader) => {
                if self.live_leader() == Some(leader) {
                    self.manager_dies(leader);
                    self.boot_manager();
                }
                self.heal();
            }
            Local::Heal => self.heal(),
            Local::Provider(order) => self.provider_hears(order),
            _ => {}
        }
    }

    // ---- the network ----

    /// Dials; the dialler is told by what `then` makes of the outcome.
    pub fn dial(&mut self, from: NodeId, address: &str, then: impl FnOnce(Dialled) -> Local) {
        let least = Duration::from_micros(100);
        let wait = self.sim.between(least, least + self.sim.weather.delay.1.min(Duration::from_millis(50)));
        let there = self.listening.get(address).copied().filter(|n| self.sim.is_alive(*n));
        let reachable = |n: &NodeId| !self.cut_off.contains(n) && !self.cut_off.contains(&from);
        match there {
            None => self.sim.post(from, wait, then(Dialled::Refused)),
            Some(peer) if reachable(&peer) && !self.sim.is_stopped(peer) => {
                let link = self.sim.link(from, peer);
                self.sim.post(from, wait, then(Dialled::Connected { link, peer }));
            }
            Some(_) => self.sim.post(from, RPC, then(Dialled::Unreachable)),
        }
    }

    // ---- the store ----

    /// Writes; the JobManager is told how it went.
    pub fn write(&mut self, manager: NodeId, write: Write) {
        let Some(epoch) = self.managers.get(&manager).map(|m| m.epoch) else { return };
        let most = self.plan.store_delay;
        let (apply_after, answer_after) =
            (self.sim.between(Duration::ZERO, most), self.sim.between(Duration::ZERO, most));
        let (fails, unknown) = if self.chaos { self.plan.store } else { (0, 0) };
        let trouble = if self.store_trouble && self.chaos { 400 } else { 0 };
        let draw = self.sim.rng().random_range(0..1000);
        let (applied, written) = if draw < fails {
            (false, Written::No)
        } else if draw < fails + unknown + trouble {
            (self.sim.chance(500), Written::Unknown)
        } else {
            (true, Written::Yes)
        };
        // The store decides when the write arrives; the writer hears of it later, if it still lives.
        if applied {
            let arrived = Local::Apply { life: self.life, epoch, manager, write, written, answer_after };
            self.sim.post(self.outside, apply_after, arrived);
        } else {
            self.sim.post(manager, apply_after + answer_after, Local::Written(write, written));
        }
    }

    fn apply(&mut self, epoch: Epoch, manager: NodeId, write: Write, written: Written, answer_after: Duration) {
        let fenced = epoch < self.store.granted;
        let written = if fenced { Written::No } else { written };
        self.sim.post(manager, answer_after, Local::Written(write.clone(), written));
        if fenced {
            return;
        }
        self.check_write(&write);
        match write {
            Write::Job(record) => drop(self.store.jobs.insert(record.job, *record)),
            Write::Deployment(job, record) => drop(self.store.deployments.insert(job, record)),
            Write::Commit(job, record) => drop(self.store.commits.insert(job, record)),
            Write::Cancel(job) => drop(self.store.cancelled.insert(job)),
            Write::Result(record) => drop(self.store.results.insert(record.result.job, *record)),
            Write::CleanUp(job) => {
                self.store.jobs.remove(&job);
                self.store.deployments.remove(&job);
                self.store.commits.remove(&job);
                self.store.cancelled.remove(&job);
            }
            Write::Forget(job) => drop(self.store.results.remove(&job)),
        }
    }

    /// The next epoch.
    pub fn grant(&mut self) -> Epoch {
        self.store.granted = Epoch(self.store.granted.0 + 1);
        self.store.granted
    }

    pub fn send(&mut self, from: NodeId, link: thalweg_testkit::harness::LinkId, message: Message) {
        self.sim.tell(link, from, message);
    }
}
