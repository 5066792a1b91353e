//! A TaskManager process: the TaskExecutor, driven as its driver drives it. `leader_link.rs` has the way to the leader.

use crate::{
    job_manager::Replies,
    kinds::{Answer, ExecutorCall, Local, MasterCall, Message, Net, Ticket},
    leader_link::{Known, Link},
    plan::{PATIENCE, REGISTRATION, RPC, SLOT, heartbeat, registration},
    world::{Planted, World},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use thalweg_model::{Epoch, FailureKind, JobId, Moment, TaskFailure, TaskManagerId};
use thalweg_rpc::{
    Fault, Fence, RegistrationRetry,
    gateways::{HostFailure, JobRegistration, JobRegistrationAnswer, TaskManagerInfo, TaskManagerStatus},
};
use thalweg_task::executor::{self, Effect, Event, Settings, TaskExecutor};
use thalweg_testkit::harness::{CallId, Happening, LinkId, NodeId, Outcome};
use thalweg_wire::{FromHost, TaskReport};

const MEMORY: u64 = 1 << 30;
const EXECUTOR: u64 = 1;

/// Sends the reports of one job one after the other, to the leader that was there when it began.
struct Reporter {
    job: JobId,
    link: LinkId,
    epoch: Epoch,
    queue: VecDeque<Box<TaskReport>>,
    busy: bool,
}

pub struct TaskManager {
    pub info: TaskManagerInfo,
    pub core: TaskExecutor,
    pub leader: Option<(LinkId, Epoch)>,
    pub link: Link,
    /// When a leader was last heard.
    pub heard: Moment,
    pub hosts: BTreeMap<(JobId, u64), NodeId>,
    /// Hosts that are being started.
    launching: BTreeSet<(JobId, u64)>,
    pub host_links: BTreeMap<LinkId, (JobId, u64)>,
    reporters: BTreeMap<JobId, u64>,
    reporting: BTreeMap<u64, Reporter>,
    next_reporter: u64,
    pub replies: Replies,
    tick: Option<Moment>,
    /// The highest epoch that called.
    pub seen: Epoch,
}

impl TaskManager {
    pub fn is_launching(&self, job: JobId, host: u64) -> bool {
        self.launching.contains(&(job, host))
    }
}

impl World {
    /// A TaskManager process is born.
    pub fn task_manager_starts(&mut self, name: &str, id: TaskManagerId) -> NodeId {
        let node = self.sim.node(name.to_owned());
        let address = format!("tm/{name}");
        self.listening.insert(address.clone(), node);
        let info = TaskManagerInfo {
            id: id.clone(),
            instance: self.instance(),
            rpc: address,
            pid: 1,
            slots: self.plan.slots,
            memory: MEMORY,
            cores: 1,
            platform: "x86_64".into(),
        };
        let mut core = TaskExecutor::new(Settings {
            id,
            slots: self.plan.slots,
            memory: MEMORY,
            slot_timeout: SLOT,
            host_silence: heartbeat().timeout,
            master_silence: heartbeat().timeout,
            orphan_timeout: self.plan.orphan_timeout,
        });
        match self.planted {
            Some(Planted::FenceNotChecked) => core.plant(executor::core::Planted::FenceNotChecked),
            Some(Planted::TerminalStateLost) => core.plant(executor::core::Planted::AcknowledgedForEver),
            Some(Planted::OldOfferAccepted) => core.plant(executor::core::Planted::OldOfferAccepted),
            _ => {}
        }
        let now = self.sim.now();
        let it = TaskManager {
            info,
            core,
            leader: None,
            link: Link {
                turn: 0,
                state: Known::Waiting,
                dialled: None,
                retry: RegistrationRetry::new(registration()),
                unregistered_since: now,
            },
            heard: now,
            hosts: BTreeMap::new(),
            launching: BTreeSet::new(),
            host_links: BTreeMap::new(),
            reporters: BTreeMap::new(),
            reporting: BTreeMap::new(),
            next_reporter: 0,
            replies: Replies::default(),
            tick: None,
            seen: Epoch::default(),
        };
        self.task_managers.insert(node, it);
        self.link_polls(node);
        node
    }

    /// The process dies, and its hosts with it.
    pub fn task_manager_dies(&mut self, node: NodeId) {
        self.sim.kill(node);
        let Some(it) = self.task_managers.get(&node) else { return };
        for host in it.hosts.values().copied().collect::<Vec<_>>() {
            let after = self.sim.between(Duration::from_micros(10), Duration::from_millis(20));
            self.sim.post(self.outside, after, Local::HostDies(host));
        }
        self.task_manager_is_gone(node);
    }

    pub fn task_manager_handles(&mut self, node: NodeId, happening: Happening<Net>) {
        match happening {
            Happening::Local(local) => self.task_manager_local(node, local),
            Happening::Asked { call, message: Message::Executor { fence, call: what } } => {
                self.executor_called(node, Some(call), fence, what);
            }
            Happening::Told { message: Message::Executor { fence, call }, .. } => {
                self.executor_called(node, None, fence, call);
            }
            Happening::Told { link, message: Message::FromHost(message) } => self.host_says(node, link, *message),
            Happening::Answered { ticket, outcome } => self.task_manager_answered(node, ticket, outcome),
            Happening::Closed { link } => {
                let Some(it) = self.task_managers.get_mut(&node) else { return };
                match it.host_links.remove(&link) {
                    Some((job, host)) => {
                        // Its group is killed and waited for before it is told as gone.
                        if let Some(process) = it.hosts.get(&(job, host)).copied() {
                            self.host_dies(process);
                        }
                        let failure = TaskFailure::new(FailureKind::Lost, "the job's host is gone");
                        let after = self.sim.between(Duration::from_micros(10), Duration::from_millis(50));
                        self.sim.post(node, after, Local::HostReaped { job, host, failure });
                    }
                    None => self.link_closed(node, link),
                }
            }
            _ => {}
        }
    }

    fn task_manager_local(&mut self, node: NodeId, local: Local) {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        match local {
            Local::LeaderChanged => self.leader_changed(node),
            Local::LinkStep(turn, step) => self.link_steps(node, turn, step),
            Local::Executor(event) => {
                let answered = match &*event {
                    Event::OfferAnswered { job, .. } => Some((*job, it.core.slot_report())),
                    _ => None,
                };
                self.feed_executor(node, *event);
                if let Some((job, before)) = answered {
                    self.check_answered_offer(node, job, &before);
                }
            }
            Local::LeaderFound(link, epoch) => {
                it.reporters.clear();
                it.leader = Some((link, epoch));
                self.feed_executor(node, Event::LeaderFound { epoch });
            }
            Local::LeaderLost => {
                it.leader = None;
                it.reporters.clear();
                self.feed_executor(node, Event::LeaderLost);
            }
            Local::ExecutorTick if it.tick.take_if(|at| *at <= now).is_some() => {
                self.feed_executor(node, Event::Tick);
            }
            Local::JobRegisterAgain { job, link, epoch, began, status } => {
                self.register_job(node, job, link, epoch, began, status);
            }
            Local::ReportAgain(reporter) => self.report_next(node, reporter),
            Local::HostFailedAgain { job, link, epoch, failed } => {
                self.tell_host_failed(node, job, link, epoch, failed)
            }
            Local::Forked(job, host) => self.host_starts(node, job, host),
            Local::KillHost(process) => {
                self.host_dies(process);
            }
            Local::HostReaped { job, host, failure } => {
                self.executor_hears(node, Local::HostGone { job, host, failure });
            }
            Local::HostGone { job, host, failure } => {
                it.hosts.remove(&(job, host));
                it.launching.remove(&(job, host));
                self.feed_executor(node, Event::HostGone { job, host, failure });
            }
            _ => {}
        }
    }

    /// In the executor's channel.
    pub fn executor_hears(&mut self, node: NodeId, local: Local) {
        self.sim.post_in_order(node, EXECUTOR, local);
    }

    fn executor_called(&mut self, node: NodeId, call: Option<CallId>, fence: Fence, what: ExecutorCall) {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let call = call.map_or(0, |c| it.replies.keep(c));
        if matches!(what, ExecutorCall::HeartbeatFromResourceManager | ExecutorCall::HeartbeatFromJobMaster { .. }) {
            it.heard = now;
        }
        let event = match what {
            ExecutorCall::RequestSlot(request) => Event::RequestSlot { call, fence, request },
            ExecutorCall::Deploy { job, deploy } => Event::Deploy { call, fence, job, deploy },
            ExecutorCall::Cancel { job, regions } => Event::Cancel { call, fence, job, regions },
            ExecutorCall::Commit { job, subtask, attempt } => Event::Commit { call, fence, job, subtask, attempt },
            ExecutorCall::ResetHost { job, attempt } => Event::ResetHost { call, fence, job, attempt },
            ExecutorCall::FreeSlot { job, allocation } => Event::FreeSlot { call, fence, job, allocation },
            ExecutorCall::HeartbeatFromResourceManager => Event::ResourceManagerHeartbeat { fence },
            ExecutorCall::HeartbeatFromJobMaster { job, report } => Event::JobMasterHeartbeat { fence, job, report },
        };
        let name = format_event(&event);
        let before = it.seen;
        it.seen = it.seen.max(fence.epoch);
        let effects = it.core.on_event(now, event);
        if fence.epoch < before {
            self.checks.old_epoch_is_not_obeyed(name, fence.epoch, before, &effects);
        }
        self.executor_performs_all(node, effects);
    }

    fn host_says(&mut self, node: NodeId, link: LinkId, message: FromHost) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let Some((job, host)) = it.host_links.get(&link).copied() else { return };
        match message {
            FromHost::Ready { data_address } => {
                it.launching.remove(&(job, host));
                self.executor_hears(node, Local::Executor(Box::new(Event::HostReady { job, host, data_address })));
            }
            FromHost::Task(report) => {
                self.executor_hears(node, Local::Executor(Box::new(Event::TaskReported { job, host, report })));
            }
            FromHost::Metrics { subtasks, memory } => {
                let event = Event::HostMetrics { job, host, metrics: subtasks, memory };
                self.executor_hears(node, Local::Executor(Box::new(event)));
            }
            FromHost::Refused { failure } => {
                it.host_links.remove(&link);
                if let Some(process) = it.hosts.get(&(job, host)).copied() {
                    self.host_dies(process);
                }
                self.executor_hears(node, Local::HostGone { job, host, failure });
            }
            FromHost::Hello { .. } | FromHost::Unknown => {}
        }
    }

    pub fn feed_executor(&mut self, node: NodeId, event: Event) {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let ticks = matches!(event, Event::Tick);
        let effects = it.core.on_event(now, event);
        self.checks.does_not_spin("TaskExecutor", ticks, now, it.core.deadline());
        self.executor_performs_all(node, effects);
    }

    fn executor_performs_all(&mut self, node: NodeId, effects: Vec<Effect>) {
        let now = self.sim.now();
        for effect in effects {
            self.executor_performs(node, effect);
        }
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        if let Some(at) = it.core.deadline().filter(|at| it.tick.is_none_or(|t| *at < t)) {
            it.tick = Some(at);
            self.sim.post(node, at.since(now), Local::ExecutorTick);
        }
    }

    fn to_master(&self, job: JobId, epoch: Epoch, call: MasterCall) -> Message {
        Message::Master { job, fence: Fence::job(job, epoch), call }
    }

    fn executor_performs(&mut self, node: NodeId, effect: Effect) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let (id, instance, leader) = (it.info.id.clone(), it.info.instance, it.leader);
        match effect {
            Effect::Answer { call, answer } => match it.replies.take(call) {
                Some(call) => self.sim.answer(call, node, Answer::Done(answer)),
                None => self.checks.answered_twice("TaskExecutor"),
            },
            Effect::AnswerCancel { call, answer } => match it.replies.take(call) {
                Some(call) => self.sim.answer(call, node, Answer::Ending(answer)),
                None => self.checks.answered_twice("TaskExecutor"),
            },
            Effect::RegisterAtJobMaster { job, status } => {
                if let Some((link, epoch)) = leader {
                    let now = self.sim.now();
                    self.register_job(node, job, link, epoch, now, status);
                }
            }
            Effect::StartHost { job, host, .. } => {
                it.launching.insert((job, host));
                let after = self.sim.between(Duration::from_millis(1), Duration::from_millis(20));
                self.sim.post(node, after, Local::Forked(job, host));
            }
            // Hosts take no memory here.
            Effect::LimitHost { .. } => {}
            Effect::KillHost { job, host } => {
                let failure = TaskFailure::new(FailureKind::Lost, "the host was ended by its TaskManager");
                let soon = self.sim.between(Duration::from_micros(10), Duration::from_millis(20));
                let Some(it) = self.task_managers.get_mut(&node) else { return };
                match it.hosts.get(&(job, host)).copied() {
                    Some(process) => {
                        let known = it.host_links.len();
                        it.host_links.retain(|_, whose| *whose != (job, host));
                        if it.host_links.len() == known {
                            // Its socket is closed already: its end is on the way.
                            return;
                        }
                        self.sim.post(node, soon, Local::KillHost(process));
                        self.sim.post(node, soon * 2, Local::HostReaped { job, host, failure });
                    }
                    None if it.launching.remove(&(job, host)) => {
                        self.sim.post(node, soon, Local::HostReaped { job, host, failure });
                    }
                    None => {}
                }
            }
            Effect::SendHost { job, host, message } => {
                let link = it.host_links.iter().find(|(_, whose)| **whose == (job, host)).map(|(l, _)| *l);
                if let Some(link) = link {
                    self.send(node, link, Message::ToHost(message));
                }
            }
            Effect::Offer { job, offer, slots } => {
                let Some((link, epoch)) = leader else { return };
                let message = self.to_master(job, epoch, MasterCall::Offer { id, instance, offers: slots });
                self.sim.ask(link, node, RPC, Ticket::Offer { job, offer }, message);
            }
            Effect::Report { job, report } => {
                let Some((link, epoch)) = leader else { return };
                let known = it.reporters.get(&job).copied();
                let reporter = known.unwrap_or_else(|| {
                    it.next_reporter += 1;
                    it.reporters.insert(job, it.next_reporter);
                    let new = Reporter { job, link, epoch, queue: VecDeque::new(), busy: false };
                    it.reporting.insert(it.next_reporter, new);
                    it.next_reporter
                });
                if let Some(r) = it.reporting.get_mut(&reporter) {
                    r.queue.push_back(report);
                    if !r.busy {
                        self.report_next(node, reporter);
                    }
                }
            }
            Effect::ReportHostFailed { job, failed } => {
                if let Some((link, epoch)) = leader {
                    self.tell_host_failed(node, job, link, epoch, failed);
                }
            }
            Effect::SlotFreed { allocation } => {
                if let Some((link, epoch)) = leader {
                    let fence = Fence::cluster(epoch);
                    self.send(node, link, Message::SlotFreed { fence, id, instance, allocation });
                }
            }
            Effect::SendSlotReport(report) => {
                if let Some((link, epoch)) = leader {
                    let fence = Fence::cluster(epoch);
                    self.send(node, link, Message::Heartbeat { fence, id, instance, report });
                }
            }
            Effect::SendStatus { job, status } => {
                if let Some((link, epoch)) = leader {
                    let message = self.to_master(job, epoch, MasterCall::Heartbeat { id, instance, status });
                    self.send(node, link, message);
                }
            }
            Effect::ForgetJob(job) => {
                it.reporters.remove(&job);
                if let Some((link, epoch)) = leader {
                    let message = self.to_master(job, epoch, MasterCall::Disconnect { id, instance });
                    self.sim.ask(link, node, RPC, Ticket::Nothing, message);
                }
            }
        }
    }

    fn register_job(
        &mut self,
        node: NodeId,
        job: JobId,
        link: LinkId,
        epoch: Epoch,
        began: Moment,
        status: TaskManagerStatus,
    ) {
        let Some(it) = self.task_managers.get(&node) else { return };
        let (id, instance, rpc) = (it.info.id.clone(), it.info.instance, it.info.rpc.clone());
        let registration = JobRegistration { id, instance, rpc, status: status.clone() };
        let message = self.to_master(job, epoch, MasterCall::Register(registration));
        self.sim.ask(link, node, RPC, Ticket::JobRegistration { job, link, epoch, began, status }, message);
    }

    fn tell_host_failed(&mut self, node: NodeId, job: JobId, link: LinkId, epoch: Epoch, failed: HostFailure) {
        let Some(it) = self.task_managers.get(&node) else { return };
        let (id, instance) = (it.info.id.clone(), it.info.instance);
        let message = self.to_master(job, epoch, MasterCall::HostFailed { id, instance, failed: failed.clone() });
        self.sim.ask(link, node, RPC, Ticket::HostFailed { job, link, epoch, failed }, message);
    }

    fn report_next(&mut self, node: NodeId, reporter: u64) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let (id, instance) = (it.info.id.clone(), it.info.instance);
        let Some(r) = it.reporting.get_mut(&reporter) else { return };
        let Some(report) = r.queue.front().cloned() else {
            r.busy = false;
            if it.reporters.get(&r.job) != Some(&reporter) {
                it.reporting.remove(&reporter);
            }
            return;
        };
        r.busy = true;
        let (job, link, epoch) = (r.job, r.link, r.epoch);
        let message = self.to_master(job, epoch, MasterCall::Report { id, instance, report });
        self.sim.ask(link, node, RPC, Ticket::Report { reporter }, message);
    }

    fn task_manager_answered(&mut self, node: NodeId, ticket: Ticket, outcome: Outcome<Answer>) {
        let now = self.sim.now();
        match ticket {
            Ticket::Registration { turn } => self.registration_answered(node, turn, outcome),
            Ticket::JobRegistration { job, link, epoch, began, status } => {
                let answer = match outcome {
                    Outcome::Answer(Answer::JobRegistered(Ok(answer))) => answer,
                    Outcome::Answer(
                        Answer::JobRegistered(Err(Fault::NoEndpoint(_))) | Answer::Done(Err(Fault::Ended)),
                    ) if now.since(began) >= PATIENCE => {
                        JobRegistrationAnswer::Rejected("it has no JobMaster any more".into())
                    }
                    Outcome::TimedOut
                    | Outcome::Answer(
                        Answer::JobRegistered(Err(Fault::NoEndpoint(_))) | Answer::Done(Err(Fault::Ended)),
                    ) => {
                        let again = Local::JobRegisterAgain { job, link, epoch, began, status };
                        self.sim.post(node, Duration::from_millis(100), again);
                        return;
                    }
                    // Fenced or closed: whoever leads next is registered with anew.
                    _ => return,
                };
                self.executor_hears(node, Local::Executor(Box::new(Event::JobRegistered { job, answer })));
            }
            Ticket::Offer { job, offer } => {
                let accepted = match outcome {
                    Outcome::Answer(Answer::Offered(Ok(accepted))) => Some(accepted),
                    Outcome::TimedOut => None,
                    _ => return,
                };
                let event = Event::OfferAnswered { job, offer, accepted };
                self.executor_hears(node, Local::Executor(Box::new(event)));
            }
            Ticket::Report { reporter } => {
                let Some(it) = self.task_managers.get_mut(&node) else { return };
                let Some(r) = it.reporting.get_mut(&reporter) else { return };
                if matches!(outcome, Outcome::TimedOut) {
                    self.sim.post(node, Duration::from_millis(50), Local::ReportAgain(reporter));
                    return;
                }
                let Some(report) = r.queue.pop_front() else { return };
                if matches!(outcome, Outcome::Answer(Answer::Done(Ok(_)))) {
                    let (job, subtask) = (r.job, report.subtask);
                    let (attempt, state, prepared) = (report.attempt, report.state, report.prepared.is_some());
                    let event = Event::ReportAcknowledged { job, subtask, attempt, state, prepared };
                    self.executor_hears(node, Local::Executor(Box::new(event)));
                }
                self.report_next(node, reporter);
            }
            Ticket::HostFailed { job, link, epoch, failed } => {
                if matches!(outcome, Outcome::TimedOut) {
                    let again = Local::HostFailedAgain { job, link, epoch, failed };
                    self.sim.post(node, Duration::from_millis(100), again);
                }
            }
            _ => {}
        }
    }

    /// Not registered for too long, and nothing runs here: the process ends.
    pub fn has_waited_too_long(&mut self, node: NodeId) -> bool {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return true };
        if !it.core.is_empty() {
            it.link.unregistered_since = now;
        }
        now.since(it.link.unregistered_since) >= REGISTRATION
    }
}

fn format_event(event: &Event) -> &'static str {
    match event {
        Event::RequestSlot { .. } => "slot request",
        Event::Deploy { .. } => "deploy",
        Event::Cancel { .. } => "cancel",
        Event::Commit { .. } => "commit",
        Event::ResetHost { .. } => "reset",
        Event::FreeSlot { .. } => "free slot",
        _ => "heartbeat",
    }
}
