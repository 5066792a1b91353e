//! Carries out what a JobMaster's core decides: calls to TaskExecutors, records, timers. No decision is made here.

use super::core::{Effect, Event, JobMaster};
use super::{JobView, Left, Settings};
use crate::{
    Now,
    calls::{CallIds, Calls},
    resource_manager::ResourceManagerHandle,
    stores::{Stores, Written, commit_refused, deployment_refused},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{AllocationId, FailureKind, InstanceId, JobId, JobStatus, TaskFailure, TaskManagerId};
use thalweg_rpc::{
    Connection, Envelope, Fence, Mailbox, RpcError, RpcService, Target,
    gateways::{JobMasterMessage, JobRegistrationAnswer, TaskExecutorGateway, endpoint},
    mailbox,
};
use thalweg_spi::{PartitionId, ServiceError, ShuffleMaster};
use thalweg_wire::{DeployedOn, Descriptor, JobRecord, JobResult};
use tokio::sync::{mpsc, oneshot};

/// What the driver works with.
#[derive(Clone)]
pub struct JobMasterServices {
    /// Seams.
    pub env: Env,
    /// This process's RPC.
    pub rpc: RpcService,
    /// Where slots come from.
    pub resources: ResourceManagerHandle,
    /// Registers partitions.
    pub shuffle: Arc<dyn ShuffleMaster>,
    /// Where records go.
    pub stores: Stores,
    /// Called with each change of status, and with the result.
    pub on_change: Arc<dyn Fn(JobId, Change) + Send + Sync>,
    /// Ends the driver; the job is suspended.
    pub shutdown: Shutdown,
}

/// What a JobMaster tells the Dispatcher.
pub enum Change {
    /// Its status.
    Status(JobStatus),
    /// It ended; with its last look.
    Ended(Box<JobResult>, Arc<JobView>),
}

enum Command {
    Event(Box<Event>),
    View(oneshot::Sender<JobView>),
}

/// A handle for this process.
#[derive(Clone)]
pub struct JobMasterHandle {
    job: JobId,
    commands: mpsc::UnboundedSender<Command>,
}

impl JobMasterHandle {
    /// Starts the JobMaster and serves its endpoint.
    pub fn start(record: JobRecord, left: Left, settings: Settings, services: JobMasterServices) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, calls) = mailbox();
        let job = record.job;
        services.rpc.serve(&endpoint::job_master(job), sender);
        let handle = Self { job, commands };
        let env = services.env.clone();
        let driver = Driver {
            core: JobMaster::new(record, left, settings.clone()),
            settings,
            services,
            handle: handle.clone(),
            connections: HashMap::new(),
            ids: CallIds::default(),
            registrations: Calls::new(),
            offers: Calls::new(),
            reports: Calls::new(),
            ended: false,
        };
        env.spawner.spawn("job-master", driver.run(inbox, calls));
        handle
    }

    fn event(&self, event: Event) {
        // A JobMaster that has ended takes no more events.
        let _ = self.commands.send(Command::Event(Box::new(event)));
    }

    /// Cancels the job.
    pub fn cancel(&self) {
        self.event(Event::Cancel);
    }

    /// The job is left as it is.
    pub fn suspend(&self) {
        self.event(Event::Suspend);
    }

    /// A TaskManager is gone.
    pub fn worker_gone(&self, id: &TaskManagerId, instance: InstanceId, cause: &str) {
        self.event(Event::WorkerGone { id: id.clone(), instance, cause: cause.into() });
    }

    /// A TaskManager is registered; `holds` when it will present itself to this job.
    pub fn worker_present(&self, id: &TaskManagerId, instance: InstanceId, holds: bool) {
        self.event(Event::Present { id: id.clone(), instance, holds });
    }

    /// How the job ended is written down.
    pub fn result_recorded(&self) {
        self.event(Event::ResultRecorded);
    }

    /// What the job waits for.
    pub fn waiting(&self, why: Option<String>) {
        self.event(Event::Waiting(why));
    }

    /// All that REST shows; `None` when the JobMaster is gone.
    pub async fn view(&self) -> Option<JobView> {
        let (send, receive) = oneshot::channel();
        self.commands.send(Command::View(send)).ok()?;
        receive.await.ok()
    }
}

struct Driver {
    core: JobMaster,
    settings: Settings,
    services: JobMasterServices,
    handle: JobMasterHandle,
    connections: HashMap<TaskManagerId, (InstanceId, Connection)>,
    ids: CallIds,
    registrations: Calls<JobRegistrationAnswer>,
    offers: Calls<Vec<AllocationId>>,
    reports: Calls<()>,
    ended: bool,
}

/// Wait between two tries of a write that may or may not have happened.
const WRITE_AGAIN: Duration = Duration::from_millis(200);

impl Driver {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, mut calls: Mailbox<JobMasterMessage>) {
        let clock = self.services.env.clock.clone();
        // Before any call: until then it does not know what an earlier leader left.
        self.feed(Event::Start);
        while !self.ended {
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
                Some(command) = commands.recv() => match command {
                    Command::Event(event) => self.feed(*event),
                    Command::View(reply) => {
                        drop(reply.send(self.core.view()));
                        self.feed(Event::Looked);
                    }
                },
                () = wake => {
                    let random = self.services.env.entropy.next_u64();
                    self.feed(Event::Tick { random });
                }
                () = self.services.shutdown.triggered() => {
                    self.feed(Event::Suspend);
                    break;
                }
            }
        }
        self.services.rpc.withdraw(&endpoint::job_master(self.handle.job));
    }

    fn called(&mut self, call: Envelope<JobMasterMessage>) {
        let from = call.caller.origin();
        match call.message {
            JobMasterMessage::RegisterTaskManager { registration, reply } => {
                if let Some(connection) = call.caller.connection {
                    let (id, instance) = (registration.id.clone(), registration.instance);
                    let known = self.connections.get(&id).filter(|(life, _)| *life == instance);
                    if known.is_none_or(|(_, known)| connection.is_later(known)) {
                        self.connections.insert(id, (instance, connection));
                    }
                }
                let call = self.registrations.keep(&mut self.ids, reply);
                self.feed(Event::Register { call, from, registration });
            }
            JobMasterMessage::OfferSlots { id, instance, offers, reply } => {
                let call = self.offers.keep(&mut self.ids, reply);
                self.feed(Event::Offer { call, from, id, instance, offers });
            }
            JobMasterMessage::Report { id, instance, report, reply } => {
                let call = self.reports.keep(&mut self.ids, reply);
                self.feed(Event::Report { call, from, id, instance, report });
            }
            JobMasterMessage::HostFailed { id, instance, failed, reply } => {
                let call = self.reports.keep(&mut self.ids, reply);
                self.feed(Event::HostFailed { call, from, id, instance, failed });
            }
            JobMasterMessage::DisconnectTaskManager { id, instance, cause, reply } => {
                self.feed(Event::Left { from, id, instance, cause });
                reply.send(Ok(()));
            }
            JobMasterMessage::Heartbeat { id, instance, status } => {
                self.feed(Event::Heartbeat { from, id, instance, status });
            }
        }
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(?event);
        let now = Now::of(&*self.services.env.clock);
        for effect in self.core.on_event(now, event) {
            self.perform(effect);
        }
    }

    fn gateway(&self, id: &TaskManagerId) -> Option<TaskExecutorGateway> {
        let (_, connection) = self.connections.get(id)?;
        let fence = Fence::job(self.handle.job, self.settings.epoch);
        Some(TaskExecutorGateway::new(Target::remote(connection.clone(), endpoint::TASK_EXECUTOR, fence)))
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.services.env.spawner.spawn_started(name, future);
    }

    /// Calls a TaskExecutor and posts what its answer means.
    fn call<F, T>(
        &self,
        id: TaskManagerId,
        ask: impl FnOnce(TaskExecutorGateway) -> F,
        then: impl FnOnce(TaskManagerId, Result<T, RpcError>) -> Option<Event> + Send + 'static,
    ) where
        F: Future<Output = Result<T, RpcError>> + Send + 'static,
        T: Send + 'static,
    {
        let handle = self.handle.clone();
        let Some(gateway) = self.gateway(&id) else {
            if let Some(event) = then(id, Err(RpcError::Closed)) {
                handle.event(event);
            }
            return;
        };
        let asked = ask(gateway);
        self.spawn("call-task-executor", async move {
            if let Some(event) = then(id, asked.await) {
                handle.event(event);
            }
        });
    }

    fn perform(&mut self, effect: Effect) {
        let job = self.handle.job;
        match effect {
            Effect::AnswerRegister { call, answer } => self.registrations.answer(call, answer),
            Effect::AnswerOffer { call, answer } => self.offers.answer(call, answer),
            Effect::Acknowledge { call, answer } => self.reports.answer(call, answer),
            Effect::Require(slots) => self.services.resources.require(job, slots),
            Effect::RegisterPartitions { attempt } => self.register_partitions(attempt),
            Effect::RecordDeployment(record) => {
                let (stores, handle, clock) =
                    (self.services.stores.clone(), self.handle.clone(), self.services.env.clock.clone());
                self.spawn("record-deployment", async move {
                    let attempt = record.attempt;
                    let outcome = until_known(&*clock, || stores.put_deployment(job, &record)).await;
                    let outcome = outcome.map_err(|e| deployment_refused(&e));
                    handle.event(Event::DeploymentRecorded { attempt, outcome });
                });
            }
            Effect::RecordCommit(record) => {
                let (stores, handle, clock) =
                    (self.services.stores.clone(), self.handle.clone(), self.services.env.clock.clone());
                self.spawn("record-commit", async move {
                    let attempt = record.attempt;
                    let outcome = until_known(&*clock, || stores.put_commit(job, &record)).await;
                    let outcome = outcome.map_err(|e| commit_refused(&record, &e));
                    handle.event(Event::CommitRecorded { attempt, outcome });
                });
            }
            Effect::Deploy { id, deploy } => {
                let attempt = deploy.attempt;
                self.call(
                    id,
                    |gateway| async move { gateway.deploy(job, *deploy).await },
                    move |id, answer| {
                        let outcome = answer.map_err(|e| e.to_string()).and_then(|inner| inner);
                        Some(Event::DeployAnswered { attempt, id, outcome })
                    },
                );
            }
            Effect::Cancel { id, regions } => {
                let (clock, told) = (self.services.env.clock.clone(), regions.clone());
                self.call(
                    id,
                    |g| async move {
                        let answer = g.cancel(job, told).await;
                        if answer.is_err() {
                            clock.sleep(WRITE_AGAIN).await;
                        }
                        answer
                    },
                    move |id, answer| Some(Event::Stopped { id, regions, ending: answer.ok() }),
                );
            }
            Effect::Commit { id, subtask, attempt } => {
                self.call(
                    id,
                    |g| async move { g.commit(job, subtask, attempt).await },
                    move |id, answer| {
                        let cause = answer.err()?.to_string();
                        Some(Event::DeployAnswered { attempt, id, outcome: Err(cause) })
                    },
                );
            }
            Effect::ResetHost { id, attempt } => {
                let clock = self.services.env.clock.clone();
                self.call(
                    id,
                    |g| async move {
                        let answer = g.reset_host(job, attempt).await;
                        if answer.is_err() {
                            clock.sleep(WRITE_AGAIN).await;
                        }
                        answer
                    },
                    move |id, answer| Some(Event::HostReset { attempt, id, done: answer.is_ok() }),
                );
            }
            Effect::FreeSlot { id, allocation, cause, .. } => {
                // If it does not arrive, the next heartbeat's report says that the slot is not the job's.
                self.call(id, |g| async move { g.free_slot(job, allocation, cause).await }, |_, _| None);
            }
            Effect::Heartbeat { id, report } => {
                if let Some(gateway) = self.gateway(&id) {
                    // A closed connection is told by the ResourceManager, which watches it.
                    let _ = gateway.heartbeat_from_job_master(job, report);
                }
            }
            Effect::Disconnect { id, instance } => {
                if let Some((_, connection)) = self.connections.get(&id).filter(|(i, _)| *i == instance) {
                    connection.close();
                }
            }
            Effect::ReleasePartitions { regions } => {
                let shuffle = self.services.shuffle.clone();
                self.spawn("release-partitions", async move {
                    for region in regions {
                        if let Err(e) = shuffle.release(job, region).await {
                            tracing::warn!(%job, "partitions were not released: {e}");
                        }
                    }
                });
            }
            Effect::Failed { failure, decision } => tracing::warn!(%job, "{failure}; {decision}"),
            Effect::Status(status) => {
                tracing::info!(%job, %status, "job status");
                (self.services.on_change)(job, Change::Status(status));
            }
            Effect::Adopted => {
                tracing::info!(%job, attempt = %self.core.attempt(), "tasks of an earlier leader adopted")
            }
            Effect::LookFor(there) => self.look_for(there),
            Effect::Over => {
                self.ended = true;
                self.services.resources.over(job);
            }
            Effect::Ended(result) => {
                (self.services.on_change)(job, Change::Ended(result, Arc::new(self.core.view())));
            }
        }
    }

    /// A TaskManager that was lost together with the earlier leader refuses the connection: so much is known at once.
    fn look_for(&self, there: DeployedOn) {
        let Ok(address) = there.rpc.parse::<Address>() else { return };
        let (service, handle) = (self.services.rpc.clone(), self.handle.clone());
        let (clock, patience) = (self.services.env.clock.clone(), self.settings.reconcile_timeout);
        self.services.env.spawner.spawn("look-for-task-manager", async move {
            let began = clock.now();
            let cause = loop {
                match service.dial(&address).await {
                    Err(e) if e.is_refused_connection() => break "its process is gone",
                    Ok(peer) => {
                        let same = peer.peer_id().0 == there.instance;
                        peer.close();
                        if same {
                            return;
                        }
                        break "another process took its address";
                    }
                    Err(_) => {}
                }
                if clock.now().since(began) >= patience {
                    return;
                }
                clock.sleep(WRITE_AGAIN).await;
            };
            handle.event(Event::Vanished { id: there.id, instance: there.instance, cause: cause.into() });
        });
    }

    fn register_partitions(&self, attempt: thalweg_model::Attempt) {
        let (shuffle, handle, job) = (self.services.shuffle.clone(), self.handle.clone(), self.handle.job);
        let partitions = self.core.partitions();
        self.spawn("register-partitions", async move {
            let mut descriptors = Vec::with_capacity(partitions.len());
            for p in partitions {
                let id = PartitionId { job, region: p.region, attempt, edge: p.edge, producer: p.producer };
                match shuffle.register(id, &p.host).await {
                    Ok(descriptor) => {
                        descriptors.push(Descriptor { edge: p.edge, producer: p.producer, bytes: descriptor.0 });
                    }
                    Err(e) => {
                        let kind = if e.may_retry() { FailureKind::Lost } else { FailureKind::Incompatible };
                        let outcome = Err(TaskFailure::new(kind, e.to_string()));
                        return handle.event(Event::PartitionsRegistered { attempt, outcome });
                    }
                }
            }
            handle.event(Event::PartitionsRegistered { attempt, outcome: Ok(descriptors) });
        });
    }
}

/// Writes until it is known whether it was written. Once nobody knows, a later refusal says nothing about the earlier
/// try: only success ends it then.
async fn until_known<F: Future<Output = Written>>(
    clock: &dyn thalweg_env::Clock,
    write: impl Fn() -> F,
) -> Result<(), ServiceError> {
    let mut maybe = false;
    loop {
        match write().await {
            Written::Yes => return Ok(()),
            Written::No(e) if !maybe => return Err(e),
            Written::No(e) | Written::Unknown(e) => {
                maybe = true;
                tracing::warn!("a record may or may not be written, trying again: {e}");
                clock.sleep(WRITE_AGAIN).await;
            }
        }
    }
}
