//! Carries out what the Dispatcher's core decides: records, JobMasters, clean-up, the job's `main`. No decision here.

use super::core::{CancelAnswer, Dispatcher, Effect, Entry, Event, Settings, Step, Submitted};
use crate::{
    Now,
    calls::{CallIds, Calls},
    job_master::{
        self, JobView, Left,
        driver::{Change, JobMasterHandle, JobMasterServices},
    },
    stores::{Stores, Written},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use thalweg_env::{Env, Shutdown};
use thalweg_model::{BlobKey, Epoch, InstanceId, JobId, TaskManagerId};
use thalweg_rpc::Reply;
use thalweg_spi::{ApplicationStatus, BlobService, HighAvailabilityServices, MainState, ServiceError};
use thalweg_wire::{JobRecord, JobResult, JobSpec};
use tokio::sync::{mpsc, oneshot};

/// What the driver works with.
pub struct DispatcherServices {
    /// Seams.
    pub env: Env,
    /// Of this leader.
    pub epoch: Epoch,
    /// Where records go.
    pub stores: Stores,
    /// Cleans up after jobs.
    pub high_availability: Arc<dyn HighAvailabilityServices>,
    /// Executables of ended jobs are removed from here.
    pub blobs: Arc<dyn BlobService>,
    /// How a JobMaster is.
    pub job_master: job_master::Settings,
    /// Makes what a JobMaster works with; it is given the sender of changes.
    pub job_master_services: Box<dyn Fn(ChangeSender) -> JobMasterServices + Send>,
    /// Starts the job's `main`.
    pub start_main: Option<Box<dyn Fn(DispatcherHandle) + Send>>,
    /// Called when the cluster shall end.
    pub on_end: Box<dyn Fn(ApplicationStatus, String) + Send>,
    /// What an earlier leader left of the jobs that are recovered.
    pub left: BTreeMap<JobId, Left>,
    /// Ends the driver.
    pub shutdown: Shutdown,
}

/// Takes changes of jobs.
pub type ChangeSender = Arc<dyn Fn(JobId, Change) + Send + Sync>;

enum Command {
    Event(Event),
    Submit { job: JobId, spec: Box<JobSpec>, from_main: bool, reply: oneshot::Sender<Submitted> },
    Cancel { job: JobId, reply: oneshot::Sender<CancelAnswer> },
    Entries(oneshot::Sender<Vec<Entry>>),
    Master(JobId, oneshot::Sender<Option<JobMasterHandle>>),
    Result(JobId, oneshot::Sender<Option<JobResult>>),
    LastView(JobId, oneshot::Sender<Option<Arc<JobView>>>),
    MasterEnded(Box<JobResult>, Arc<JobView>),
    WorkerGone(TaskManagerId, InstanceId, String),
    WorkerPresent(TaskManagerId, InstanceId, BTreeSet<JobId>),
    Waiting(JobId, Option<String>),
}

/// A handle for this process.
#[derive(Clone)]
pub struct DispatcherHandle(mpsc::UnboundedSender<Command>);

impl DispatcherHandle {
    /// Starts the Dispatcher with what an earlier leader left.
    pub fn start(settings: Settings, services: DispatcherServices, recovered: Event) -> Self {
        let (commands, inbox) = mpsc::unbounded_channel();
        let handle = Self(commands);
        let env = services.env.clone();
        let driver = Driver {
            core: Dispatcher::new(settings, services.start_main.is_some()),
            services,
            handle: handle.clone(),
            masters: BTreeMap::new(),
            blobs: BTreeMap::new(),
            unused: VecDeque::new(),
            views: BTreeMap::new(),
            ids: CallIds::default(),
            submissions: Calls::new(),
            cancels: Calls::new(),
            waiters: Vec::new(),
        };
        env.spawner.spawn("dispatcher", driver.run(inbox));
        handle.send(Command::Event(recovered));
        handle
    }

    fn send(&self, command: Command) {
        // The driver ends with the process; what is told it then matters to nobody.
        let _ = self.0.send(command);
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (send, receive) = oneshot::channel();
        self.send(command(send));
        receive.await.ok()
    }

    /// Submits a job. `None` when the Dispatcher has ended.
    pub async fn submit(&self, job: JobId, spec: Box<JobSpec>, from_main: bool) -> Option<Submitted> {
        self.ask(|reply| Command::Submit { job, spec, from_main, reply }).await
    }

    /// Cancels a job. `None` when the Dispatcher has ended.
    pub async fn cancel(&self, job: JobId) -> Option<CancelAnswer> {
        self.ask(|reply| Command::Cancel { job, reply }).await
    }

    /// All jobs that are known.
    pub async fn entries(&self) -> Vec<Entry> {
        self.ask(Command::Entries).await.unwrap_or_default()
    }

    /// All that REST shows of a job, running or ended.
    pub async fn view(&self, job: JobId) -> Option<Arc<JobView>> {
        let master = self.ask(|reply| Command::Master(job, reply)).await.flatten();
        if let Some(master) = master
            && let Some(view) = master.view().await
        {
            return Some(Arc::new(view));
        }
        self.ask(|reply| Command::LastView(job, reply)).await.flatten()
    }

    /// Waits for a job's result, which is told once it is written down. `None` when there is no such job.
    pub async fn result(&self, job: JobId) -> Option<JobResult> {
        self.ask(|reply| Command::Result(job, reply)).await.flatten()
    }

    /// An attached client was heard.
    pub fn client_seen(&self, job: JobId) {
        self.send(Command::Event(Event::ClientSeen { job }));
    }

    /// A TaskManager is gone.
    pub fn worker_gone(&self, id: &TaskManagerId, instance: InstanceId, cause: &str) {
        self.send(Command::WorkerGone(id.clone(), instance, cause.into()));
    }

    /// A TaskManager is registered, and holds slots of these jobs.
    pub fn worker_present(&self, id: &TaskManagerId, instance: InstanceId, jobs: BTreeSet<JobId>) {
        self.send(Command::WorkerPresent(id.clone(), instance, jobs));
    }

    /// What a job waits for.
    pub fn waiting(&self, job: JobId, why: Option<String>) {
        self.send(Command::Waiting(job, why));
    }

    /// The job's `main` has changed.
    pub fn main(&self, state: MainState) {
        self.send(Command::Event(Event::Main(state)));
    }

    /// The cluster shall end: jobs are cancelled first.
    pub fn stop(&self) {
        self.send(Command::Event(Event::Stop));
    }
}

/// How many executables and cached files of ended jobs stay.
const KEPT_BLOBS: usize = 16;

struct Driver {
    core: Dispatcher,
    services: DispatcherServices,
    handle: DispatcherHandle,
    masters: BTreeMap<JobId, JobMasterHandle>,
    /// Executables and cached files in use, by job, so that one that another job uses is kept.
    blobs: BTreeMap<JobId, Vec<BlobKey>>,
    /// Those of ended jobs, oldest first.
    unused: VecDeque<BlobKey>,
    /// Last look of ended jobs.
    views: BTreeMap<JobId, Arc<JobView>>,
    ids: CallIds,
    submissions: Calls<Submitted>,
    cancels: Calls<CancelAnswer>,
    /// Who waits for results.
    waiters: Vec<(JobId, oneshot::Sender<Option<JobResult>>)>,
}

fn replies<T: Send + 'static>(reply: oneshot::Sender<T>) -> Reply<T> {
    Reply::new(move |answer: Result<T, _>| {
        if let Ok(answer) = answer {
            let _ = reply.send(answer);
        }
    })
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let clock = self.services.env.clock.clone();
        loop {
            let deadline = self.core.deadline();
            let wake = async {
                match deadline {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(command) = inbox.recv() => self.command(command),
                () = wake => self.feed(Event::Tick),
                () = self.services.shutdown.triggered() => return,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Event(event) => self.feed(event),
            Command::Submit { job, spec, from_main, reply } => {
                let call = self.submissions.keep(&mut self.ids, replies(reply));
                self.feed(Event::Submit { call, job, spec, from_main });
            }
            Command::Cancel { job, reply } => {
                let call = self.cancels.keep(&mut self.ids, replies(reply));
                self.feed(Event::Cancel { call, job });
            }
            Command::Entries(reply) => drop(reply.send(self.core.entries())),
            Command::Master(job, reply) => drop(reply.send(self.masters.get(&job).cloned())),
            Command::Result(job, reply) => {
                self.waiters.push((job, reply));
                self.tell_waiters();
            }
            Command::LastView(job, reply) => drop(reply.send(self.views.get(&job).cloned())),
            Command::MasterEnded(result, view) => {
                self.views.insert(result.job, view);
                self.feed(Event::MasterEnded { result });
            }
            Command::WorkerGone(id, instance, cause) => {
                for master in self.masters.values() {
                    master.worker_gone(&id, instance, &cause);
                }
            }
            Command::WorkerPresent(id, instance, jobs) => {
                for (job, master) in &self.masters {
                    master.worker_present(&id, instance, jobs.contains(job));
                }
            }
            Command::Waiting(job, why) => {
                if let Some(master) = self.masters.get(&job) {
                    master.waiting(why);
                }
            }
        }
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(?event);
        let now = Now::of(&*self.services.env.clock);
        let ended = matches!(event, Event::StepDone { .. });
        for effect in self.core.on_event(now, event) {
            self.perform(effect);
        }
        if ended {
            self.tell_waiters();
        }
    }

    fn tell_waiters(&mut self) {
        self.waiters.retain(|(_, reply)| !reply.is_closed());
        if self.waiters.is_empty() {
            return;
        }
        let entries = self.core.entries();
        for (job, reply) in std::mem::take(&mut self.waiters) {
            match entries.iter().find(|e| e.id == job) {
                Some(Entry { result: None, .. }) => self.waiters.push((job, reply)),
                known => drop(reply.send(known.and_then(|e| e.result.clone()))),
            }
        }
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.services.env.spawner.spawn_started(name, future);
    }

    fn perform(&mut self, effect: Effect) {
        let handle = self.handle.clone();
        let stores = self.services.stores.clone();
        let ends = self.services.shutdown.clone();
        match effect {
            Effect::Answer { call, answer } => self.submissions.answer(call, Ok(answer)),
            Effect::AnswerCancel { call, answer } => self.cancels.answer(call, Ok(answer)),
            Effect::Persist(record) => self.spawn("persist-job", async move {
                let job = record.job;
                let outcome = match stores.put_job(&record).await.for_submission() {
                    Ok(known) => Some(known.map_err(|e| e.to_string())),
                    Err(e) => {
                        tracing::warn!(%job, "the job may or may not be written down, trying again: {e}");
                        None
                    }
                };
                handle.send(Command::Event(Event::Persisted { job, outcome }));
            }),
            Effect::StartMaster(record) => self.start_master(*record),
            Effect::RecordCancel(job) => self.spawn("record-cancel", async move {
                let done = written(job, stores.put_cancel(job).await, &ends);
                handle.send(Command::Event(Event::CancelRecorded { job, done }));
            }),
            Effect::ReleaseMaster(job) => {
                if let Some(master) = self.masters.remove(&job) {
                    master.result_recorded();
                }
            }
            Effect::CancelMaster(job) => {
                if let Some(master) = self.masters.get(&job) {
                    master.cancel();
                }
            }
            Effect::RecordResult(record) => self.spawn("record-result", async move {
                let job = record.result.job;
                let done = written(job, stores.put_result(&record).await, &ends);
                handle.send(Command::Event(Event::StepDone { job, step: Step::Record, done }));
            }),
            Effect::CleanUp(job) => self.clean_up(job),
            Effect::MarkClean(record) => self.spawn("mark-clean", async move {
                let job = record.result.job;
                let done = written(job, stores.put_result(&record).await, &ends);
                handle.send(Command::Event(Event::StepDone { job, step: Step::MarkClean, done }));
            }),
            Effect::Forget(job) => {
                self.views.remove(&job);
                self.spawn("forget-job", async move {
                    if let Err(e) = stores.delete_result(job).await {
                        tracing::warn!(%job, "an old result was not removed: {e}");
                    }
                });
            }
            Effect::StartMain => {
                if let Some(start) = &self.services.start_main {
                    start(self.handle.clone());
                }
            }
            Effect::End { status, diagnostics } => (self.services.on_end)(status, diagnostics),
        }
    }

    fn start_master(&mut self, record: JobRecord) {
        let job = record.job;
        let handle = self.handle.clone();
        let changes: ChangeSender = Arc::new(move |job, change| {
            handle.send(match change {
                Change::Status(status) => Command::Event(Event::Status { job, status }),
                Change::Ended(result, view) => Command::MasterEnded(result, view),
            });
        });
        self.blobs.insert(job, record.spec.blobs().collect());
        let services = (self.services.job_master_services)(changes);
        let left = self.services.left.remove(&job).unwrap_or_default();
        let settings = self.services.job_master.clone();
        let master = JobMasterHandle::start(record, left, settings, services);
        self.masters.insert(job, master);
    }

    /// What ended jobs have sent stays for a while, so that the same job submitted again sends kilobytes. Answers what goes.
    fn drop_old_blobs(&mut self, ended: &[BlobKey]) -> Vec<BlobKey> {
        self.unused.retain(|key| !ended.contains(key));
        self.unused.extend(ended);
        let in_use: Vec<_> = self.blobs.values().flatten().copied().collect();
        self.unused.retain(|key| !in_use.contains(key));
        let over = self.unused.len().saturating_sub(KEPT_BLOBS);
        self.unused.drain(..over).collect()
    }

    fn clean_up(&mut self, job: JobId) {
        let (handle, stores) = (self.handle.clone(), self.services.stores.clone());
        let ends = self.services.shutdown.clone();
        let (ha, blobs) = (self.services.high_availability.clone(), self.services.blobs.clone());
        let ended = self.blobs.remove(&job).unwrap_or_default();
        let dropped = self.drop_old_blobs(&ended);
        self.spawn("clean-up-job", async move {
            let cleaned = async {
                stores.delete_job(job).await?;
                ha.clean_up(job).await?;
                for key in dropped {
                    blobs.delete(key).await?;
                }
                Ok::<_, ServiceError>(())
            };
            let outcome = cleaned.await;
            // One that ends has left office already, perhaps: the next leader goes on with it.
            match &outcome {
                Err(e) if ends.is_triggered() => tracing::debug!(%job, "clean-up is left to the next leader: {e}"),
                Err(e) => tracing::warn!(%job, "clean-up will be tried again: {e}"),
                Ok(()) => {}
            }
            handle.send(Command::Event(Event::StepDone { job, step: Step::CleanUp, done: outcome.is_ok() }));
        });
    }
}

fn written(job: JobId, outcome: Written, ends: &Shutdown) -> bool {
    match outcome {
        Written::Yes => true,
        Written::No(e) | Written::Unknown(e) if ends.is_triggered() => {
            tracing::debug!(%job, "what became of the job is left to the next leader to write down: {e}");
            false
        }
        Written::No(e) | Written::Unknown(e) => {
            tracing::warn!(%job, "the job's result is not certainly written down, trying again: {e}");
            false
        }
    }
}
