//! Carries out what the ResourceManager's core decides: connections, calls, timers. No decision is made here.

use super::core::{Effect, Event, ResourceManager, Settings, WorkerView};
use crate::{
    Now,
    calls::{CallIds, Calls},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{InstanceId, JobId, TaskManagerId};
use thalweg_rpc::{
    Connection, Envelope, Fence, Mailbox, RpcService, Target,
    gateways::{RegistrationAnswer, ResourceManagerMessage, TaskExecutorGateway, endpoint, resource_manager::GOODBYE},
    mailbox,
};
use thalweg_spi::{ErrorKind, ProviderEvent, ResourceProvider};
use tokio::sync::{mpsc, oneshot};

/// Told who has registered, and of which jobs it holds slots.
pub type OnWorkerPresent = Arc<dyn Fn(&TaskManagerId, InstanceId, BTreeSet<JobId>) + Send + Sync>;

/// What the driver works with.
pub struct ResourceManagerServices {
    /// Seams.
    pub env: Env,
    /// This process's RPC.
    pub rpc: RpcService,
    /// Starts and ends workers; `None` when everything is in one process.
    pub provider: Option<Arc<dyn ResourceProvider>>,
    /// Called when a TaskManager is lost.
    pub on_worker_lost: Arc<dyn Fn(&TaskManagerId, InstanceId, &str) + Send + Sync>,
    /// Called when a TaskManager has registered.
    pub on_worker_present: OnWorkerPresent,
    /// Called when a job waits, or waits no longer.
    pub on_shortage: Arc<dyn Fn(JobId, Option<String>) + Send + Sync>,
    /// Ends the driver.
    pub shutdown: Shutdown,
}

enum Command {
    Event(Event),
    View(oneshot::Sender<Vec<WorkerView>>),
    Connection(TaskManagerId, oneshot::Sender<Option<Connection>>),
}

/// A handle for this process.
#[derive(Clone)]
pub struct ResourceManagerHandle(mpsc::UnboundedSender<Command>);

impl ResourceManagerHandle {
    /// Starts the ResourceManager and serves its endpoint.
    pub fn start(settings: Settings, services: ResourceManagerServices) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (sender, calls) = mailbox();
        services.rpc.serve(endpoint::RESOURCE_MANAGER, sender);
        let handle = Self(commands.clone());
        let (provide, queue) = mpsc::unbounded_channel();
        if let Some(provider) = services.provider.clone() {
            services
                .env
                .spawner
                .spawn("provider", run_provider(provider, queue, handle.clone(), services.shutdown.clone()));
        }
        let env = services.env.clone();
        let driver = Driver {
            core: ResourceManager::new(settings.clone()),
            settings,
            services,
            handle: handle.clone(),
            provide,
            connections: HashMap::new(),
            ids: CallIds::default(),
            registrations: Calls::new(),
        };
        env.spawner.spawn("resource-manager", driver.run(inbox, calls));
        handle
    }

    fn send(&self, command: Command) {
        // The driver ends with the process; what is told it then matters to nobody.
        let _ = self.0.send(command);
    }

    /// A job needs so many slots in all.
    pub fn require(&self, job: JobId, slots: u32) {
        self.send(Command::Event(Event::Require { job, slots }));
    }

    /// A job is over: whatever is still held for it is freed.
    pub fn over(&self, job: JobId) {
        self.send(Command::Event(Event::Over { job }));
    }

    /// The registered TaskManagers.
    pub async fn view(&self) -> Vec<WorkerView> {
        let (send, receive) = oneshot::channel();
        self.send(Command::View(send));
        receive.await.unwrap_or_default()
    }

    /// The connection to a registered TaskManager.
    pub async fn connection(&self, id: TaskManagerId) -> Option<Connection> {
        let (send, receive) = oneshot::channel();
        self.send(Command::Connection(id, send));
        receive.await.ok().flatten()
    }
}

enum ToProvider {
    Declare(std::collections::BTreeMap<thalweg_spi::WorkerProfile, u32>),
    Release(TaskManagerId),
    Registered(TaskManagerId),
}

/// One task, so that declarations and releases reach the provider in the order in which they were decided.
async fn run_provider(
    provider: Arc<dyn ResourceProvider>,
    mut queue: mpsc::UnboundedReceiver<ToProvider>,
    handle: ResourceManagerHandle,
    shutdown: Shutdown,
) {
    let mut events = provider.events();
    loop {
        let next_event = async {
            match &mut events {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = next_event => match event {
                Some(event) => handle.send(Command::Event(Event::Provider(event))),
                None => events = None,
            },
            order = queue.recv() => {
                let outcome = match &order {
                    None => return,
                    Some(ToProvider::Declare(workers)) => provider.declare(workers.clone()).await,
                    Some(ToProvider::Release(id)) => provider.release(id).await,
                    Some(ToProvider::Registered(id)) => {
                        provider.registered(id).await;
                        Ok(())
                    }
                };
                // It was deregistered: the cluster is ending, and needs nobody any more.
                if outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closed) {
                    continue;
                }
                if let Err(e) = outcome {
                    tracing::error!("resource provider: {e}");
                    if let Some(ToProvider::Declare(workers)) = order {
                        for profile in workers.into_keys() {
                            let refused = ProviderEvent::Refused { profile, cause: e.to_string(), retry: e.may_retry() };
                            handle.send(Command::Event(Event::Provider(refused)));
                        }
                    }
                }
            },
            () = shutdown.triggered() => return,
        }
    }
}

/// Looks at a process whose connection closed, until it was seen alive so often.
const SEEN_ALIVE: u32 = 3;
/// Time between two of them.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

struct Driver {
    core: ResourceManager,
    settings: Settings,
    services: ResourceManagerServices,
    handle: ResourceManagerHandle,
    provide: mpsc::UnboundedSender<ToProvider>,
    connections: HashMap<TaskManagerId, (InstanceId, Connection)>,
    ids: CallIds,
    registrations: Calls<RegistrationAnswer>,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>, mut calls: Mailbox<ResourceManagerMessage>) {
        let clock = self.services.env.clock.clone();
        let mut heartbeat = clock.now() + self.settings.heartbeat.interval;
        loop {
            let wake = self.core.deadline().map_or(heartbeat, |d| d.min(heartbeat));
            // What a peer told before it answered is in the mailbox before the answer: calls come first.
            tokio::select! {
                biased;
                Some(call) = calls.recv() => self.called(call),
                Some(command) = commands.recv() => match command {
                    Command::Event(event) => self.feed(event),
                    Command::View(reply) => drop(reply.send(self.core.view())),
                    Command::Connection(id, reply) => {
                        drop(reply.send(self.connections.get(&id).map(|(_, c)| c.clone())));
                    }
                },
                () = clock.sleep_until(wake) => {
                    if clock.now() >= heartbeat {
                        heartbeat = clock.now() + self.settings.heartbeat.interval;
                        for (_, connection) in self.connections.values() {
                            // A closed connection is told by its watcher.
                            let _ = self.gateway(connection).heartbeat_from_resource_manager();
                        }
                    }
                    self.feed(Event::Tick);
                }
                () = self.services.shutdown.triggered() => return,
            }
        }
    }

    fn gateway(&self, connection: &Connection) -> TaskExecutorGateway {
        let fence = Fence::cluster(self.settings.epoch);
        TaskExecutorGateway::new(Target::remote(connection.clone(), endpoint::TASK_EXECUTOR, fence))
    }

    fn called(&mut self, call: Envelope<ResourceManagerMessage>) {
        let from = call.caller.origin();
        match call.message {
            ResourceManagerMessage::RegisterTaskManager { info, report, reply } => {
                if let Some(connection) = call.caller.connection {
                    self.watch(info.id.clone(), info.instance, info.rpc.clone(), connection);
                }
                let call = self.registrations.keep(&mut self.ids, reply);
                self.feed(Event::Register { call, from, info, report });
            }
            ResourceManagerMessage::DisconnectTaskManager { id, instance, cause, reply } => {
                self.feed(Event::Gone { id, instance, cause });
                reply.send(Ok(()));
            }
            ResourceManagerMessage::Heartbeat { id, instance, report } => {
                self.feed(Event::Heartbeat { from, id, instance, report });
            }
            ResourceManagerMessage::SlotFreed { id, instance, allocation } => {
                self.feed(Event::SlotFreed { from, id, instance, allocation });
            }
            ResourceManagerMessage::DeclareRequirements { job, slots } => self.feed(Event::Require { job, slots }),
        }
    }

    /// When the connection closes, dials again at once: refused, or answered by another life, and the TaskManager is
    /// gone; no answer, and the heartbeat's time-out decides. A process that is dying may still take a connection, so one
    /// look that says nothing clear is not the last.
    fn watch(&mut self, id: TaskManagerId, instance: InstanceId, rpc: String, connection: Connection) {
        // The end of an earlier connection may not have been noticed yet: the new one is watched all the same.
        if self.connections.get(&id).is_some_and(|(life, known)| *life == instance && !connection.is_later(known)) {
            return;
        }
        self.connections.insert(id.clone(), (instance, connection.clone()));
        let (service, handle) = (self.services.rpc.clone(), self.handle.clone());
        let (clock, patience) = (self.services.env.clock.clone(), self.settings.heartbeat.timeout);
        self.services.env.spawner.spawn("watch-task-manager", async move {
            connection.closed().await;
            let closed = clock.now();
            let mut seen_alive = 0;
            let cause = loop {
                let address = match rpc.parse::<Address>() {
                    Ok(address) => address,
                    Err(e) => break e.to_string(),
                };
                match service.dial(&address).await {
                    Err(e) if e.is_refused_connection() => break "its process is gone".to_owned(),
                    Ok(there) => {
                        let same = there.peer_id().0 == instance;
                        there.close();
                        if !same {
                            break "another process took its address".to_owned();
                        }
                        seen_alive += 1;
                    }
                    Err(_) => {}
                }
                // It lives, and registers anew; or the heartbeat's time-out has decided.
                if seen_alive == SEEN_ALIVE || clock.now().since(closed) >= patience {
                    return;
                }
                clock.sleep(LOOK_AGAIN).await;
            };
            handle.send(Command::Event(Event::Gone { id, instance, cause }));
        });
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(?event);
        let now = Now::of(&*self.services.env.clock);
        for effect in self.core.on_event(now.at, event) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Answer { call, answer } => self.registrations.answer(call, answer),
            Effect::RequestSlot { id, instance, request } => {
                let Some((_, connection)) = self.connections.get(&id).filter(|(i, _)| *i == instance) else { return };
                let (gateway, handle) = (self.gateway(connection), self.handle.clone());
                self.services.env.spawner.spawn_started("request-slot", async move {
                    let allocation = request.allocation;
                    let granted = match gateway.request_slot(request).await {
                        Ok(Ok(())) => Some(true),
                        Ok(Err(cause)) => {
                            tracing::info!(task_manager = %id, "slot refused: {cause}");
                            Some(false)
                        }
                        Err(e) if e.may_have_happened() => None,
                        Err(_) => Some(false),
                    };
                    handle.send(Command::Event(Event::SlotAnswered { id, instance, allocation, granted }));
                });
            }
            Effect::FreeSlot { id, instance, job, allocation } => {
                let Some((_, connection)) = self.connections.get(&id).filter(|(i, _)| *i == instance) else { return };
                let gateway = self.gateway(connection);
                self.services.env.spawner.spawn_started("free-slot", async move {
                    // The next slot report shows it if it was not freed.
                    let _ = gateway.free_slot(job, allocation, "the job is over".into()).await;
                });
            }
            Effect::WorkerLost { id, instance, cause } => {
                if cause == GOODBYE {
                    tracing::info!(task_manager = %id, "TaskManager left: {cause}");
                } else {
                    tracing::warn!(task_manager = %id, "TaskManager lost: {cause}");
                }
                if let Some((known, connection)) = self.connections.remove(&id) {
                    if known == instance {
                        // If it lives, it notices and registers again.
                        connection.close();
                    } else {
                        self.connections.insert(id.clone(), (known, connection));
                    }
                }
                (self.services.on_worker_lost)(&id, instance, &cause);
            }
            Effect::Declare(workers) => drop(self.provide.send(ToProvider::Declare(workers))),
            Effect::Release(id) => drop(self.provide.send(ToProvider::Release(id))),
            Effect::Registered { id, instance, jobs } => {
                (self.services.on_worker_present)(&id, instance, jobs);
                drop(self.provide.send(ToProvider::Registered(id)));
            }
            Effect::Shortage { job, missing, free, refused } => {
                let why = (missing > 0).then(|| {
                    let refused = refused.map(|r| format!("; no worker could be started: {r}")).unwrap_or_default();
                    format!("needs {missing} more slots, {free} free{refused}")
                });
                if let Some(why) = &why {
                    tracing::info!(%job, "job waits: {why}");
                }
                (self.services.on_shortage)(job, why);
            }
        }
    }
}
