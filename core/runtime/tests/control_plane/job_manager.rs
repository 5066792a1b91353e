//! A JobManager process: ResourceManager, Dispatcher and JobMasters, driven as their drivers drive them.

use crate::{
    kinds::{Answer, Dialled, ExecutorCall, Local, Message, Net, ProviderOrder, Ticket, Write, Written},
    masters::Master,
    plan::{CANCEL, IDLE, RECONCILE, RPC, SLOT_REQUEST, heartbeat},
    world::{Planted, World},
};
use rand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use thalweg_control::{
    dispatcher::core::{self as dispatcher, Dispatcher, Step},
    job_master::{self, JobMaster},
    resource_manager::{self, ResourceManager},
};
use thalweg_model::{Attempt, Epoch, FailureKind, InstanceId, JobId, Moment, TaskFailure, TaskManagerId};
use thalweg_rpc::{Fence, Origin};
use thalweg_spi::{ClusterView, Decision, DeploymentMode, WorkerProfile};
use thalweg_testkit::harness::{CallId, Happening, LinkId, NodeId, Outcome};
use thalweg_wire::{DeployedOn, JobRecord};

/// Channels within the process.
pub const MANAGER: u64 = 1;
pub const DISPATCHER: u64 = 2;
pub const PROVIDER: u64 = 3;

pub fn master_lane(job: JobId) -> u64 {
    10 + u64::from(job.as_bytes()[0])
}

/// Takes jobs for ever.
pub struct Session;

impl DeploymentMode for Session {
    fn accepts_submissions(&self) -> bool {
        true
    }
    fn derives_job_ids(&self) -> bool {
        false
    }
    fn decide(&self, _: &ClusterView) -> Decision {
        Decision::Continue
    }
}

/// Replies that wait, by the core's number.
#[derive(Default)]
pub struct Replies {
    next: u64,
    waiting: BTreeMap<u64, CallId>,
}

impl Replies {
    pub fn keep(&mut self, call: CallId) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, call);
        self.next
    }

    pub fn take(&mut self, number: u64) -> Option<CallId> {
        self.waiting.remove(&number)
    }

    pub fn all(&self) -> impl Iterator<Item = CallId> + '_ {
        self.waiting.values().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

pub struct JobManager {
    pub epoch: Epoch,
    pub manager: ResourceManager,
    pub links: BTreeMap<TaskManagerId, (InstanceId, LinkId)>,
    /// Links whose end means that somebody should be looked for.
    watched: BTreeMap<LinkId, (TaskManagerId, InstanceId, String)>,
    pub dispatcher: Dispatcher,
    pub masters: BTreeMap<JobId, Master>,
    pub replies: Replies,
    /// Records that may have been written: only success ends the trying.
    unsure: BTreeSet<(JobId, Attempt)>,
    manager_tick: Option<Moment>,
    dispatcher_tick: Option<Moment>,
}

impl World {
    /// It is granted office, reads what was left, and serves.
    fn lead(&mut self, node: NodeId) {
        if self.candidate != Some(node) {
            return;
        }
        self.candidate = None;
        let epoch = self.grant();
        let profile = self.plan.active.then_some(WorkerProfile { slots: self.plan.slots, memory: None });
        let manager = ResourceManager::new(resource_manager::Settings {
            epoch,
            heartbeat: heartbeat(),
            request_again: RPC,
            idle_timeout: IDLE,
            profile,
        });
        let settings =
            dispatcher::Settings { mode: Arc::new(Session), history: 100, retry: Duration::from_millis(500) };
        let mut dispatcher = Dispatcher::new(settings, false);
        if self.planted == Some(Planted::AcknowledgedBeforePersisted) {
            dispatcher.plant_hasty_answers();
        }
        if self.planted == Some(Planted::CleanBeforeCleanUp) {
            dispatcher.plant_early_clean_marks();
        }
        let it = JobManager {
            epoch,
            manager,
            links: BTreeMap::new(),
            watched: BTreeMap::new(),
            dispatcher,
            masters: BTreeMap::new(),
            replies: Replies::default(),
            unsure: BTreeSet::new(),
            manager_tick: None,
            dispatcher_tick: None,
        };
        // Whoever led before hears that it has lost its office, when it can hear again.
        for old in self.managers.keys().copied().collect::<Vec<_>>() {
            let late = self.sim.between(Duration::from_micros(100), Duration::from_millis(500));
            self.sim.post(old, late, Local::Exit);
        }
        self.managers.insert(node, it);
        self.leader = Some((node, epoch));
        self.provider.listener = Some(node);
        self.provider.declared = 0;
        let (jobs, results) =
            (self.store.jobs.values().cloned().collect(), self.store.results.values().cloned().collect());
        let cancelled = self.store.cancelled.clone();
        self.sim.note(|| format!("leads under epoch {epoch}"));
        self.provider_greets(node);
        self.feed_dispatcher(node, dispatcher::Event::Recovered { jobs, cancelled, results });
        self.sim.post(node, heartbeat().interval, Local::HeartbeatAll);
        let told: Vec<NodeId> = self.task_managers.keys().copied().collect();
        for task_manager in told {
            let late = self.sim.between(Duration::from_millis(1), Duration::from_millis(300));
            self.sim.post(task_manager, late, Local::LeaderChanged);
        }
    }

    pub fn manager_handles(&mut self, node: NodeId, happening: Happening<Net>) {
        match happening {
            Happening::Local(local) => self.manager_local(node, local),
            Happening::Asked { call, message } => {
                if self.managers.contains_key(&node) {
                    self.manager_called(node, call.link(), Some(call), message);
                } else {
                    self.sim.answer(call, node, Answer::NotLeading);
                }
            }
            Happening::Told { link, message } => self.manager_called(node, link, None, message),
            Happening::Answered { ticket, outcome } => self.manager_answered(node, ticket, outcome),
            Happening::Closed { link } => {
                let Some(it) = self.managers.get_mut(&node) else { return };
                if let Some((id, instance, address)) = it.watched.remove(&link) {
                    self.dial(node, &address, |found| Local::DialledBack { id, instance, found });
                }
            }
        }
    }

    fn manager_local(&mut self, node: NodeId, local: Local) {
        let now = self.now();
        match local {
            Local::Lead => self.lead(node),
            // It has lost its office: it exits.
            Local::Exit if self.leader.is_some_and(|(leader, _)| leader != node) => self.manager_dies(node),
            Local::HeartbeatAll => {
                let Some(it) = self.managers.get(&node) else { return };
                let (fence, links) = (Fence::cluster(it.epoch), it.links.values().map(|(_, l)| *l).collect::<Vec<_>>());
                for link in links {
                    let call = ExecutorCall::HeartbeatFromResourceManager;
                    self.send(node, link, Message::Executor { fence, call });
                }
                self.feed_manager(node, resource_manager::Event::Tick);
                self.sim.post(node, heartbeat().interval, Local::HeartbeatAll);
            }
            Local::ManagerTick => {
                let Some(it) = self.managers.get_mut(&node) else { return };
                if it.manager_tick.take_if(|at| *at <= now.at).is_some() {
                    self.feed_manager(node, resource_manager::Event::Tick);
                }
            }
            Local::DispatcherTick => {
                let Some(it) = self.managers.get_mut(&node) else { return };
                if it.dispatcher_tick.take_if(|at| *at <= now.at).is_some() {
                    self.feed_dispatcher(node, dispatcher::Event::Tick);
                }
            }
            Local::MasterTick(job) => {
                let Some(master) = self.managers.get_mut(&node).and_then(|it| it.masters.get_mut(&job)) else { return };
                if master.tick.take_if(|at| *at <= now.at).is_some() {
                    let random = self.sim.rng().random();
                    self.feed_master(node, job, job_master::Event::Tick { random });
                }
            }
            Local::Manager(event) => self.feed_manager(node, event),
            Local::Dispatcher(event) => {
                self.feed_dispatcher(node, *event);
            }
            Local::WorkerGone(id, instance, cause) => {
                let Some(it) = self.managers.get(&node) else { return };
                for job in it.masters.keys().copied().collect::<Vec<_>>() {
                    let event = job_master::Event::WorkerGone { id: id.clone(), instance, cause: cause.clone() };
                    self.sim.post_in_order(node, master_lane(job), Local::Master(job, Box::new(event)));
                }
            }
            Local::WorkerPresent(id, instance, jobs) => {
                let Some(it) = self.managers.get(&node) else { return };
                for job in it.masters.keys().copied().collect::<Vec<_>>() {
                    let event = job_master::Event::Present { id: id.clone(), instance, holds: jobs.contains(&job) };
                    self.sim.post_in_order(node, master_lane(job), Local::Master(job, Box::new(event)));
                }
            }
            Local::LookAgainFor { job, there, until } => self.look_for(node, job, there, until),
            Local::LookedFor { job, there, until, found } => {
                let cause = match found {
                    Dialled::Refused => "its process is gone",
                    Dialled::Unreachable if now.at >= until => return,
                    Dialled::Unreachable => {
                        let again = Local::LookAgainFor { job, there, until };
                        return self.sim.post(node, Duration::from_millis(200), again);
                    }
                    Dialled::Connected { link, peer } => {
                        self.sim.close(link, node);
                        if self.task_managers.get(&peer).is_some_and(|t| t.info.instance == there.instance) {
                            return;
                        }
                        "another process took its address"
                    }
                };
                let event = job_master::Event::Vanished { id: there.id, instance: there.instance, cause: cause.into() };
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, Box::new(event)));
            }
            Local::Waiting(job, why) => {
                let event = Box::new(job_master::Event::Waiting(why));
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
            }
            Local::Master(job, event) => self.feed_master(node, job, *event),
            Local::Written(write, written) => self.written(node, write, written),
            Local::DialledBack { id, instance, found } => {
                let cause = match found {
                    Dialled::Refused => "its process is gone",
                    Dialled::Unreachable => return,
                    Dialled::Connected { link, peer } => {
                        self.sim.close(link, node);
                        if self.task_managers.get(&peer).is_some_and(|t| t.info.instance == instance) {
                            return;
                        }
                        "another process took its address"
                    }
                };
                let event = resource_manager::Event::Gone { id, instance, cause: cause.into() };
                self.sim.post_in_order(node, MANAGER, Local::Manager(event));
            }
            Local::StopAgain { job, regions, id } => {
                self.feed_master(node, job, job_master::Event::Stopped { id, regions, ending: None });
            }
            Local::ResetAgain { job, attempt, id } => {
                let event = job_master::Event::HostReset { attempt, id, done: false };
                self.feed_master(node, job, event);
            }
            _ => {}
        }
    }

    /// A process of this address has spoken on this link.
    fn watch(&mut self, node: NodeId, id: TaskManagerId, instance: InstanceId, address: String, link: LinkId) {
        let closed = self.sim.is_closed(link, node);
        let Some(it) = self.managers.get_mut(&node) else { return };
        if it.links.get(&id).is_some_and(|(life, known)| *life == instance && link <= *known) {
            return;
        }
        it.links.insert(id.clone(), (instance, link));
        if closed {
            self.dial(node, &address, |found| Local::DialledBack { id, instance, found });
        } else {
            it.watched.insert(link, (id, instance, address));
        }
    }

    fn manager_called(&mut self, node: NodeId, link: LinkId, call: Option<CallId>, message: Message) {
        let from = |fence| Origin { fence, connection: link.number() };
        let Some(it) = self.managers.get_mut(&node) else { return };
        match message {
            Message::RegisterTaskManager { fence, info, report } => {
                let Some(call) = call else { return };
                self.watch(node, info.id.clone(), info.instance, info.rpc.clone(), call.link());
                let Some(it) = self.managers.get_mut(&node) else { return };
                let call = it.replies.keep(call);
                let from = from(fence);
                self.feed_manager(node, resource_manager::Event::Register { call, from, info, report });
            }
            Message::Heartbeat { fence, id, instance, report } => {
                let from = from(fence);
                self.feed_manager(node, resource_manager::Event::Heartbeat { from, id, instance, report });
            }
            Message::SlotFreed { fence, id, instance, allocation } => {
                let from = from(fence);
                self.feed_manager(node, resource_manager::Event::SlotFreed { from, id, instance, allocation });
            }
            Message::Master { job, fence, call: what } => self.master_called(node, job, from(fence), call, what),
            Message::Submit { job, spec } => {
                let Some(call) = call else { return };
                let call = it.replies.keep(call);
                let event = dispatcher::Event::Submit { call, job, spec, from_main: false };
                self.sim.post_in_order(node, DISPATCHER, Local::Dispatcher(Box::new(event)));
            }
            Message::Cancel { job } => {
                let Some(call) = call else { return };
                let call = it.replies.keep(call);
                let event = dispatcher::Event::Cancel { call, job };
                self.sim.post_in_order(node, DISPATCHER, Local::Dispatcher(Box::new(event)));
            }
            Message::ClientSeen { job } => {
                // Whoever is attached looks at the job, too.
                let looked = Box::new(job_master::Event::Looked);
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, looked));
                let event = dispatcher::Event::ClientSeen { job };
                self.sim.post_in_order(node, DISPATCHER, Local::Dispatcher(Box::new(event)));
            }
            Message::Executor { .. } | Message::ToHost(_) | Message::FromHost(_) => {}
        }
    }

    // ---- ResourceManager ----

    pub fn feed_manager(&mut self, node: NodeId, event: resource_manager::Event) {
        let now = self.now();
        let Some(it) = self.managers.get_mut(&node) else { return };
        let ticks = matches!(event, resource_manager::Event::Tick);
        let effects = it.manager.on_event(now.at, event);
        self.checks.does_not_spin("ResourceManager", ticks, now.at, it.manager.deadline());
        for effect in effects {
            self.manager_performs(node, effect);
        }
        let Some(it) = self.managers.get_mut(&node) else { return };
        if let Some(at) = it.manager.deadline().filter(|at| it.manager_tick.is_none_or(|t| *at < t)) {
            it.manager_tick = Some(at);
            self.sim.post(node, at.since(now.at), Local::ManagerTick);
        }
    }

    fn manager_performs(&mut self, node: NodeId, effect: resource_manager::Effect) {
        use resource_manager::Effect;
        let Some(it) = self.managers.get_mut(&node) else { return };
        match effect {
            Effect::Answer { call, answer } => match it.replies.take(call) {
                Some(call) => self.sim.answer(call, node, Answer::Registered(answer)),
                None => self.checks.answered_twice("ResourceManager"),
            },
            Effect::RequestSlot { id, instance, request } => {
                let Some((_, link)) = it.links.get(&id).filter(|(i, _)| *i == instance) else { return };
                let (link, fence) = (*link, Fence::cluster(it.epoch));
                let ticket = Ticket::Slot { id, instance, allocation: request.allocation };
                let call = ExecutorCall::RequestSlot(request);
                self.sim.ask(link, node, RPC, ticket, Message::Executor { fence, call });
            }
            Effect::FreeSlot { id, instance, job, allocation } => {
                let Some((_, link)) = it.links.get(&id).filter(|(i, _)| *i == instance) else { return };
                let (link, fence) = (*link, Fence::cluster(it.epoch));
                let call = ExecutorCall::FreeSlot { job, allocation };
                self.sim.ask(link, node, RPC, Ticket::Nothing, Message::Executor { fence, call });
            }
            Effect::WorkerLost { id, instance, cause } => {
                if let Some((known, link)) = it.links.remove(&id) {
                    if known == instance {
                        self.sim.close(link, node);
                    } else {
                        it.links.insert(id.clone(), (known, link));
                    }
                }
                self.sim.post_in_order(node, DISPATCHER, Local::WorkerGone(id, instance, cause));
            }
            Effect::Declare(workers) => {
                let order = ProviderOrder::Declare(node, workers.values().sum());
                self.order(node, order);
            }
            Effect::Release(id) => self.order(node, ProviderOrder::Release(node, id)),
            Effect::Registered { id, instance, jobs } => {
                self.sim.post_in_order(node, DISPATCHER, Local::WorkerPresent(id.clone(), instance, jobs));
                self.order(node, ProviderOrder::Registered(node, id));
            }
            Effect::Shortage { job, missing, free, .. } => {
                let why = (missing > 0).then(|| format!("needs {missing} more slots, {free} free"));
                self.sim.post_in_order(node, DISPATCHER, Local::Waiting(job, why));
            }
        }
    }

    fn order(&mut self, _node: NodeId, order: ProviderOrder) {
        // The provider is reached over one task, in order.
        self.sim.post_in_order(self.outside, PROVIDER, Local::Provider(order));
    }

    // ---- Dispatcher ----

    pub fn feed_dispatcher(&mut self, node: NodeId, event: dispatcher::Event) {
        let now = self.now();
        let Some(it) = self.managers.get_mut(&node) else { return };
        let ticks = matches!(event, dispatcher::Event::Tick);
        let effects = it.dispatcher.on_event(now, event);
        self.checks.does_not_spin("Dispatcher", ticks, now.at, it.dispatcher.deadline());
        for effect in effects {
            self.dispatcher_performs(node, effect);
        }
        let Some(it) = self.managers.get_mut(&node) else { return };
        if let Some(at) = it.dispatcher.deadline().filter(|at| it.dispatcher_tick.is_none_or(|t| *at < t)) {
            it.dispatcher_tick = Some(at);
            self.sim.post(node, at.since(now.at), Local::DispatcherTick);
        }
    }

    fn dispatcher_performs(&mut self, node: NodeId, effect: dispatcher::Effect) {
        use dispatcher::Effect;
        let Some(it) = self.managers.get_mut(&node) else { return };
        match effect {
            Effect::Answer { call, answer } => match it.replies.take(call) {
                Some(call) => self.sim.answer(call, node, Answer::Submitted(answer)),
                None => self.checks.answered_twice("Dispatcher, submit"),
            },
            Effect::AnswerCancel { call, answer } => match it.replies.take(call) {
                Some(call) => self.sim.answer(call, node, Answer::Cancelled(answer)),
                None => self.checks.answered_twice("Dispatcher, cancel"),
            },
            Effect::Persist(record) => self.write(node, Write::Job(record)),
            Effect::StartMaster(record) => self.start_master(node, *record),
            Effect::RecordCancel(job) => self.write(node, Write::Cancel(job)),
            Effect::ReleaseMaster(job) => {
                let event = Box::new(job_master::Event::ResultRecorded);
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
            }
            Effect::CancelMaster(job) => {
                let event = Box::new(job_master::Event::Cancel);
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
            }
            Effect::RecordResult(record) | Effect::MarkClean(record) => self.write(node, Write::Result(record)),
            Effect::CleanUp(job) => self.write(node, Write::CleanUp(job)),
            Effect::Forget(job) => self.write(node, Write::Forget(job)),
            Effect::StartMain | Effect::End { .. } => {}
        }
    }

    fn start_master(&mut self, node: NodeId, record: JobRecord) {
        self.check_start(node, record.job);
        let job = record.job;
        let left = job_master::Left {
            commit: self.store.commits.get(&job).cloned(),
            deployment: self.store.deployments.get(&job).cloned(),
            cancelled: self.store.cancelled.contains(&job),
        };
        let Some(it) = self.managers.get_mut(&node) else { return };
        let settings = job_master::Settings {
            epoch: it.epoch,
            heartbeat: heartbeat(),
            reconcile_timeout: RECONCILE,
            slot_request_timeout: SLOT_REQUEST,
            cancel_timeout: CANCEL,
        };
        let mut core = JobMaster::new(record, left, settings);
        if self.planted == Some(Planted::StaleAdoption) {
            core.plant_credulity();
        }
        if self.planted == Some(Planted::StopNotAwaited) {
            core.plant_haste();
        }
        let master = Master { core, links: BTreeMap::new(), replies: Replies::default(), tick: None };
        it.masters.insert(job, master);
        // Before any call.
        self.feed_master(node, job, job_master::Event::Start);
    }

    pub fn look_for(&mut self, node: NodeId, job: JobId, there: DeployedOn, until: Moment) {
        let address = there.rpc.clone();
        self.dial(node, &address, |found| Local::LookedFor { job, there, until, found });
    }

    fn written(&mut self, node: NodeId, write: Write, written: Written) {
        let certain = written == Written::Yes;
        let failed = || TaskFailure::new(FailureKind::Storage, "the store refused");
        match write {
            Write::Job(record) => {
                let outcome = match written {
                    Written::Yes => Some(Ok(())),
                    Written::No => Some(Err("the store refused".into())),
                    Written::Unknown => None,
                };
                self.feed_dispatcher(node, dispatcher::Event::Persisted { job: record.job, outcome });
            }
            Write::Deployment(job, record) => match self.until_known(node, job, record.attempt, written) {
                Written::Unknown => self.write(node, Write::Deployment(job, record)),
                _ => {
                    let outcome = if certain { Ok(()) } else { Err(failed()) };
                    let event = job_master::Event::DeploymentRecorded { attempt: record.attempt, outcome };
                    self.feed_master(node, job, event);
                }
            },
            Write::Commit(job, record) => match self.until_known(node, job, record.attempt, written) {
                Written::Unknown => self.write(node, Write::Commit(job, record)),
                _ => {
                    let outcome = if certain { Ok(()) } else { Err(failed()) };
                    let event = job_master::Event::CommitRecorded { attempt: record.attempt, outcome };
                    self.feed_master(node, job, event);
                }
            },
            Write::Result(record) => {
                let step = if record.dirty { Step::Record } else { Step::MarkClean };
                let event = dispatcher::Event::StepDone { job: record.result.job, step, done: certain };
                self.feed_dispatcher(node, event);
            }
            Write::Cancel(job) => {
                self.feed_dispatcher(node, dispatcher::Event::CancelRecorded { job, done: certain });
            }
            Write::CleanUp(job) => {
                let event = dispatcher::Event::StepDone { job, step: Step::CleanUp, done: certain };
                self.feed_dispatcher(node, event);
            }
            Write::Forget(_) => {}
        }
    }

    fn until_known(&mut self, node: NodeId, job: JobId, attempt: Attempt, written: Written) -> Written {
        let Some(it) = self.managers.get_mut(&node) else { return written };
        match written {
            Written::Yes => drop(it.unsure.remove(&(job, attempt))),
            Written::No if !it.unsure.contains(&(job, attempt)) => return Written::No,
            _ => {
                it.unsure.insert((job, attempt));
                return Written::Unknown;
            }
        }
        Written::Yes
    }

    pub fn manager_answered(&mut self, node: NodeId, ticket: Ticket, outcome: Outcome<Answer>) {
        match ticket {
            Ticket::Slot { id, instance, allocation } => {
                let granted = match outcome {
                    Outcome::Answer(Answer::Done(Ok(granted))) => Some(granted.is_ok()),
                    // Closed, timed out: it may have happened. A fault: it has not.
                    Outcome::Closed | Outcome::TimedOut => None,
                    Outcome::Answer(_) => Some(false),
                };
                let event = resource_manager::Event::SlotAnswered { id, instance, allocation, granted };
                self.sim.post_in_order(node, MANAGER, Local::Manager(event));
            }
            Ticket::Deploy { job, attempt, id } => {
                let outcome = match outcome {
                    Outcome::Answer(Answer::Done(Ok(inner))) => inner,
                    other => Err(format!("{other:?}")),
                };
                let event = Box::new(job_master::Event::DeployAnswered { attempt, id, outcome });
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
            }
            Ticket::Commit { job, attempt, id } => {
                let cause = match outcome {
                    Outcome::Answer(Answer::Done(Ok(_))) => return,
                    other => format!("{other:?}"),
                };
                let event = Box::new(job_master::Event::DeployAnswered { attempt, id, outcome: Err(cause) });
                self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
            }
            Ticket::Stop { job, regions, id } => {
                if let Outcome::Answer(Answer::Ending(Ok(ending))) = outcome {
                    let event = Box::new(job_master::Event::Stopped { id, regions, ending: Some(ending) });
                    self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
                } else {
                    self.sim.post(node, Duration::from_millis(200), Local::StopAgain { job, regions, id });
                }
            }
            Ticket::Reset { job, attempt, id } => {
                if matches!(outcome, Outcome::Answer(Answer::Done(Ok(_)))) {
                    let event = Box::new(job_master::Event::HostReset { attempt, id, done: true });
                    self.sim.post_in_order(node, master_lane(job), Local::Master(job, event));
                } else {
                    self.sim.post(node, Duration::from_millis(200), Local::ResetAgain { job, attempt, id });
                }
            }
            _ => {}
        }
    }
}
