//! Carries out what the TaskExecutor's core decides: hosts, calls, timers. No decision is made here.

use super::{
    core::{Answer, CallId, Effect, Event, HostId, Settings, TaskExecutor},
    leader::Leader,
};
use crate::{
    host::{HostEvent, HostHandle, HostLauncher, HostRequest},
    logs::Logs,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use thalweg_env::{Env, Shutdown};
use thalweg_model::{JobId, Moment, SubtaskId};
use thalweg_rpc::{
    Envelope, Fault, Fence, Mailbox, Reply, RpcError, RpcService, Target,
    gateways::{
        JobMasterGateway, JobRegistration, JobRegistrationAnswer, ResourceManagerGateway, SlotReport,
        TaskExecutorMessage, TaskManagerInfo, TaskManagerStatus, endpoint,
    },
    mailbox,
};
use thalweg_spi::{Gauge, MetricRegistry};
use thalweg_wire::{FromHost, TaskReport};
use tokio::sync::{mpsc, oneshot, watch};

/// What the driver works with.
pub struct ExecutorServices {
    /// Seams.
    pub env: Env,
    /// This process's RPC.
    pub rpc: RpcService,
    /// This TaskManager.
    pub info: TaskManagerInfo,
    /// Starts hosts.
    pub hosts: Arc<dyn HostLauncher>,
    /// Log files.
    pub logs: Arc<Logs>,
    /// What this process counts of itself.
    pub metrics: MetricRegistry,
    /// A JobMaster that is not there for so long is over.
    pub job_master_patience: Duration,
    /// When the leader was last heard; the leader link reads it.
    pub heard: watch::Sender<Moment>,
    /// Ends the driver.
    pub shutdown: Shutdown,
}

enum Command {
    Event(Box<Event>),
    LeaderFound(Leader),
    SlotReport(oneshot::Sender<SlotReport>),
    Busy(oneshot::Sender<bool>),
    Host(JobId, HostId, HostEvent),
    /// Stop, and tell when nothing is left.
    Stop(oneshot::Sender<()>),
}

/// A handle for this process.
#[derive(Clone)]
pub struct ExecutorHandle(mpsc::UnboundedSender<Command>);

impl ExecutorHandle {
    /// Starts the TaskExecutor and serves its endpoint.
    pub fn start(settings: Settings, services: ExecutorServices) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, calls) = mailbox();
        services.rpc.serve(endpoint::TASK_EXECUTOR, sender);
        let handle = Self(commands);
        let env = services.env.clone();
        let driver = Driver {
            gauges: Gauges::of(&services.metrics, settings.slots),
            core: TaskExecutor::new(settings),
            services,
            handle: handle.clone(),
            leader: None,
            hosts: HashMap::new(),
            reporters: HashMap::new(),
            replies: HashMap::new(),
            next_call: 0,
            stopped: Vec::new(),
        };
        env.spawner.spawn("task-executor", driver.run(inbox, calls));
        handle
    }

    fn send(&self, command: Command) {
        // The driver ends with the process; what is told it then matters to nobody.
        let _ = self.0.send(command);
    }

    fn event(&self, event: Event) {
        self.send(Command::Event(Box::new(event)));
    }

    /// All slots, by index.
    pub async fn slot_report(&self) -> SlotReport {
        let (send, receive) = oneshot::channel();
        self.send(Command::SlotReport(send));
        receive.await.unwrap_or_default()
    }

    /// Is anything of any job here?
    pub async fn is_busy(&self) -> bool {
        let (send, receive) = oneshot::channel();
        self.send(Command::Busy(send));
        receive.await.unwrap_or_default()
    }

    /// This TaskManager is registered with a leader.
    pub fn leader_found(&self, leader: Leader) {
        self.send(Command::LeaderFound(leader));
    }

    /// The leader is lost.
    pub fn leader_lost(&self) {
        self.event(Event::LeaderLost);
    }

    /// Ends all hosts; resolves when they are gone.
    pub async fn stop(&self) {
        let (send, receive) = oneshot::channel();
        self.send(Command::Stop(send));
        let _ = receive.await;
    }
}

enum Waiting {
    Unit(Reply<()>),
    Outcome(Reply<Result<(), String>>),
    Ending(Reply<Vec<SubtaskId>>),
}

/// What the TaskExecutor tells of itself.
struct Gauges {
    free_slots: Gauge,
    hosts: Gauge,
    tasks: Gauge,
}

impl Gauges {
    fn of(registry: &MetricRegistry, slots: u32) -> Self {
        registry.gauge("taskSlotsTotal").set(u64::from(slots));
        let free_slots = registry.gauge("taskSlotsAvailable");
        free_slots.set(u64::from(slots));
        Self { free_slots, hosts: registry.gauge("numTaskHosts"), tasks: registry.gauge("numTasks") }
    }
}

struct Driver {
    gauges: Gauges,
    core: TaskExecutor,
    services: ExecutorServices,
    handle: ExecutorHandle,
    leader: Option<Leader>,
    hosts: HashMap<(JobId, HostId), HostHandle>,
    /// Reports go to a JobMaster one after the other, so that they arrive in their order.
    reporters: HashMap<JobId, mpsc::UnboundedSender<Box<TaskReport>>>,
    replies: HashMap<CallId, Waiting>,
    next_call: CallId,
    stopped: Vec<oneshot::Sender<()>>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, mut calls: Mailbox<TaskExecutorMessage>) {
        let clock = self.services.env.clock.clone();
        loop {
            let deadline = self.core.deadline();
            let wake = async {
                match deadline {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // What a peer told before it answered is in the mailbox before the answer: calls come first.
            tokio::select! {
                biased;
                Some(call) = calls.recv() => self.called(call),
                Some(command) = commands.recv() => self.command(command),
                () = wake => self.feed(Event::Tick),
                () = self.services.shutdown.triggered() => return,
            }
            if self.core.is_empty() {
                for told in self.stopped.drain(..) {
                    let _ = told.send(());
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Event(event) => {
                if matches!(*event, Event::LeaderLost) {
                    self.leader = None;
                    self.reporters.clear();
                }
                self.feed(*event);
            }
            Command::LeaderFound(leader) => {
                self.reporters.clear();
                let epoch = leader.epoch;
                self.leader = Some(leader);
                self.feed(Event::LeaderFound { epoch });
            }
            Command::SlotReport(reply) => drop(reply.send(self.core.slot_report())),
            Command::Busy(reply) => drop(reply.send(!self.core.is_empty())),
            Command::Host(job, host, event) => self.host_event(job, host, event),
            Command::Stop(told) => {
                self.stopped.push(told);
                self.feed(Event::Stop);
            }
        }
    }

    fn keep(&mut self, reply: Waiting) -> CallId {
        self.next_call += 1;
        self.replies.insert(self.next_call, reply);
        self.next_call
    }

    fn called(&mut self, call: Envelope<TaskExecutorMessage>) {
        let fence = call.caller.fence;
        match call.message {
            TaskExecutorMessage::RequestSlot { request, reply } => {
                let call = self.keep(Waiting::Outcome(reply));
                self.feed(Event::RequestSlot { call, fence, request });
            }
            TaskExecutorMessage::Deploy { job, deploy, reply } => {
                let call = self.keep(Waiting::Outcome(reply));
                self.feed(Event::Deploy { call, fence, job, deploy: Box::new(deploy) });
            }
            TaskExecutorMessage::Cancel { job, regions, reply } => {
                let call = self.keep(Waiting::Ending(reply));
                self.feed(Event::Cancel { call, fence, job, regions });
            }
            TaskExecutorMessage::Commit { job, subtask, attempt, reply } => {
                let call = self.keep(Waiting::Unit(reply));
                self.feed(Event::Commit { call, fence, job, subtask, attempt });
            }
            TaskExecutorMessage::ResetHost { job, attempt, reply } => {
                let call = self.keep(Waiting::Unit(reply));
                self.feed(Event::ResetHost { call, fence, job, attempt });
            }
            TaskExecutorMessage::FreeSlot { job, allocation, cause, reply } => {
                if self.core.has(job, allocation) {
                    tracing::info!(%job, %allocation, "slot given back: {cause}");
                }
                let call = self.keep(Waiting::Unit(reply));
                self.feed(Event::FreeSlot { call, fence, job, allocation });
            }
            TaskExecutorMessage::Metrics { reply } => reply.send(Ok(self.services.metrics.read())),
            TaskExecutorMessage::ListLogs { reply } => {
                let logs = self.services.logs.clone();
                self.spawn("list-logs", async move { reply.send(Ok(logs.list().await)) });
            }
            TaskExecutorMessage::ReadLog { name, offset, length, reply } => {
                let logs = self.services.logs.clone();
                self.spawn("read-log", async move { reply.send(Ok(logs.read(&name, offset, length).await)) });
            }
            TaskExecutorMessage::HeartbeatFromResourceManager {} => {
                self.services.heard.send_replace(self.services.env.clock.now());
                self.feed(Event::ResourceManagerHeartbeat { fence });
            }
            TaskExecutorMessage::HeartbeatFromJobMaster { job, report } => {
                self.services.heard.send_replace(self.services.env.clock.now());
                self.feed(Event::JobMasterHeartbeat { fence, job, report });
            }
        }
    }

    fn host_event(&mut self, job: JobId, host: HostId, event: HostEvent) {
        match event {
            HostEvent::Message(FromHost::Ready { data_address }) => {
                self.feed(Event::HostReady { job, host, data_address });
            }
            HostEvent::Message(FromHost::Task(report)) => self.feed(Event::TaskReported { job, host, report }),
            HostEvent::Message(FromHost::Metrics { subtasks, memory }) => {
                self.feed(Event::HostMetrics { job, host, metrics: subtasks, memory });
            }
            HostEvent::Message(_) => {}
            HostEvent::Memory(bytes) => self.feed(Event::HostMemory { job, host, bytes }),
            HostEvent::Gone(failure) => {
                self.hosts.remove(&(job, host));
                tracing::info!(%job, host, "host ended: {failure}");
                self.feed(Event::HostGone { job, host, failure });
            }
        }
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(?event);
        let now = self.services.env.clock.now();
        for effect in self.core.on_event(now, event) {
            self.perform(effect);
        }
        let counts = self.core.counts();
        self.gauges.free_slots.set(counts.free_slots);
        self.gauges.hosts.set(counts.hosts);
        self.gauges.tasks.set(counts.tasks);
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.services.env.spawner.spawn_started(name, future);
    }

    fn job_master(&self, job: JobId) -> Option<JobMasterGateway> {
        let leader = self.leader.as_ref()?;
        let fence = Fence::job(job, leader.epoch);
        let target = Target::remote(leader.connection.clone(), endpoint::job_master(job), fence);
        Some(JobMasterGateway::new(target))
    }

    fn resource_manager(&self) -> Option<ResourceManagerGateway> {
        let leader = self.leader.as_ref()?;
        let fence = Fence::cluster(leader.epoch);
        Some(ResourceManagerGateway::new(Target::remote(leader.connection.clone(), endpoint::RESOURCE_MANAGER, fence)))
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        match self.replies.remove(&call) {
            Some(Waiting::Outcome(reply)) => reply.send(answer),
            Some(Waiting::Unit(reply)) => reply.send(answer.map(drop)),
            Some(Waiting::Ending(_)) | None => {}
        }
    }

    fn perform(&mut self, effect: Effect) {
        let (id, instance) = (self.services.info.id.clone(), self.services.info.instance);
        match effect {
            Effect::Answer { call, answer } => self.answer(call, answer),
            Effect::AnswerCancel { call, answer } => {
                if let Some(Waiting::Ending(reply)) = self.replies.remove(&call) {
                    reply.send(answer);
                }
            }
            Effect::RegisterAtJobMaster { job, status } => self.register(job, status),
            Effect::StartHost { job, host, spec } => {
                let handle = self.handle.clone();
                let events = Arc::new(move |event| handle.send(Command::Host(job, host, event)));
                let leader = self.leader.as_ref().map(|l| l.connection.clone());
                let request = HostRequest { job, host, spec, leader };
                let started = self.services.hosts.launch(request, events);
                self.hosts.insert((job, host), started);
            }
            Effect::LimitHost { job, host, bytes } => {
                if let Some(host) = self.hosts.get(&(job, host)) {
                    host.memory.send_replace(bytes);
                }
            }
            Effect::KillHost { job, host } => {
                if let Some(host) = self.hosts.get(&(job, host)) {
                    host.kill.trigger();
                }
            }
            Effect::SendHost { job, host, message } => {
                if let Some(host) = self.hosts.get(&(job, host)) {
                    // A host that is gone is told by its supervisor.
                    let _ = host.messages.send(*message);
                }
            }
            Effect::Offer { job, offer, slots } => {
                let Some(gateway) = self.job_master(job) else { return };
                let handle = self.handle.clone();
                self.spawn("offer-slots", async move {
                    let accepted = match gateway.offer_slots(id, instance, slots).await {
                        Ok(accepted) => Some(accepted),
                        Err(e) if e.may_pass() => None,
                        // Registering again offers again.
                        Err(e) => return tracing::debug!(%job, "offer without an answer: {e}"),
                    };
                    handle.event(Event::OfferAnswered { job, offer, accepted });
                });
            }
            Effect::Report { job, report } => self.report(job, report),
            Effect::ReportHostFailed { job, failed } => {
                let Some(gateway) = self.job_master(job) else { return };
                let clock = self.services.env.clock.clone();
                self.spawn("report-host", async move {
                    loop {
                        match gateway.host_failed(id.clone(), instance, failed.clone()).await {
                            Err(e) if e.may_pass() => clock.sleep(Duration::from_millis(100)).await,
                            // It is told again to whoever leads next.
                            Err(e) => return tracing::debug!(%job, "a host's failure is not acknowledged: {e}"),
                            Ok(()) => return,
                        }
                    }
                });
            }
            Effect::SlotFreed { allocation } => {
                if let Some(gateway) = self.resource_manager() {
                    // The next slot report says it again.
                    let _ = gateway.slot_freed(id, instance, allocation);
                }
            }
            Effect::SendSlotReport(report) => {
                if let Some(gateway) = self.resource_manager() {
                    let _ = gateway.heartbeat(id, instance, report);
                }
            }
            Effect::SendStatus { job, status } => {
                if let Some(gateway) = self.job_master(job) {
                    let _ = gateway.heartbeat(id, instance, status);
                }
            }
            Effect::ForgetJob(job) => {
                self.reporters.remove(&job);
                let Some(gateway) = self.job_master(job) else { return };
                self.spawn("leave-job", async move {
                    // A JobMaster that has ended does not mind.
                    let _ = gateway.disconnect_task_manager(id, instance, "it holds no slot of the job".into()).await;
                });
            }
        }
    }

    /// Presents this TaskManager to the job's JobMaster until it answers, or is certainly not there.
    fn register(&self, job: JobId, status: TaskManagerStatus) {
        let Some(gateway) = self.job_master(job) else { return };
        let registration = JobRegistration {
            id: self.services.info.id.clone(),
            instance: self.services.info.instance,
            rpc: self.services.info.rpc.clone(),
            status,
        };
        let (handle, clock) = (self.handle.clone(), self.services.env.clock.clone());
        let patience = self.services.job_master_patience;
        self.spawn("register-at-job-master", async move {
            let began = clock.now();
            let answer = loop {
                match gateway.register_task_manager(registration.clone()).await {
                    Ok(answer) => break answer,
                    Err(RpcError::Fault(Fault::NoEndpoint(_) | Fault::Ended)) => {
                        if clock.now().since(began) >= patience {
                            break JobRegistrationAnswer::Rejected("it has no JobMaster any more".into());
                        }
                    }
                    Err(RpcError::Timeout) => {}
                    // Fenced or closed: whoever leads next is registered with anew.
                    Err(e) => return tracing::debug!(%job, "registration ends: {e}"),
                }
                clock.sleep(Duration::from_millis(100)).await;
            };
            if let JobRegistrationAnswer::Rejected(why) = &answer {
                tracing::info!(%job, "the JobMaster does not want this TaskManager: {why}");
            }
            handle.event(Event::JobRegistered { job, answer });
        });
    }

    fn report(&mut self, job: JobId, report: Box<TaskReport>) {
        let Some(gateway) = self.job_master(job) else { return };
        let (id, instance) = (self.services.info.id.clone(), self.services.info.instance);
        let (handle, env) = (self.handle.clone(), self.services.env.clone());
        let queue = self.reporters.entry(job).or_insert_with(|| {
            let (queue, mut reports) = mpsc::unbounded_channel::<Box<TaskReport>>();
            let clock = env.clock.clone();
            env.spawner.spawn("report-tasks", async move {
                while let Some(report) = reports.recv().await {
                    loop {
                        match gateway.report(id.clone(), instance, (*report).clone()).await {
                            Ok(()) => {
                                let (subtask, attempt, state) = (report.subtask, report.attempt, report.state);
                                let prepared = report.prepared.is_some();
                                handle.event(Event::ReportAcknowledged { job, subtask, attempt, state, prepared });
                                break;
                            }
                            Err(e) if e.may_pass() => clock.sleep(Duration::from_millis(50)).await,
                            Err(RpcError::TooLarge { size, limit }) => {
                                handle.event(Event::ReportTooLarge { job, report, size, limit });
                                break;
                            }
                            // What must not get lost is told again to whoever leads next.
                            Err(e) => {
                                let (subtask, state) = (report.subtask, report.state);
                                tracing::debug!(%job, %subtask, %state, "a report is not acknowledged: {e}");
                                break;
                            }
                        }
                    }
                }
            });
            queue
        });
        let _ = queue.send(report);
    }
}
