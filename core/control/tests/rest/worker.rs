//! A TaskManager that a test plays: it takes slots and tasks as a real one does, and reports what the test says.

use crate::cluster::speaks;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{
    AllocationId, Attempt, Epoch, ExecutionState, InstanceId, JobId, SubtaskId, SubtaskMetrics, TaskFailure,
    TaskManagerId,
};
use thalweg_rpc::{
    Fence, Mailbox, Role, RpcService, Target,
    gateways::{
        JobMasterGateway, JobRegistration, LogFile, RegistrationAnswer, ResourceManagerGateway, SlotOffer, SlotReport,
        SlotStatus, TaskExecutorMessage, TaskManagerInfo, TaskManagerStatus, endpoint,
    },
    mailbox,
};
use thalweg_testkit::eventually;
use thalweg_wire::TaskReport;

#[derive(Default)]
struct State {
    slots: Vec<Option<(JobId, AllocationId)>>,
    registered: BTreeSet<JobId>,
    tasks: BTreeMap<(JobId, SubtaskId), (Attempt, ExecutionState, SubtaskMetrics)>,
    logs: BTreeMap<String, Bytes>,
    hangs: bool,
}

#[derive(Clone)]
pub struct Worker {
    pub info: TaskManagerInfo,
    env: Env,
    rpc: RpcService,
    job_manager: Address,
    epoch: Epoch,
    state: Arc<Mutex<State>>,
    shutdown: Shutdown,
}

impl Worker {
    pub async fn start(env: &Env, job_manager: &Address, epoch: Epoch, name: &str, slots: u32) -> Self {
        let shutdown = Shutdown::new();
        let settings = speaks(env, Role::TaskManager);
        let instance = settings.instance;
        let rpc = RpcService::new(env.clone(), settings, shutdown.child());
        let address = rpc.listen(&Address::Tcp("127.0.0.1:0".into())).await.unwrap();
        let info = TaskManagerInfo {
            id: TaskManagerId::new(name),
            instance,
            rpc: address.to_string(),
            pid: 4711,
            slots,
            memory: 512 << 20,
            cores: 8,
            platform: "x86_64 glibc-2.36".into(),
        };
        let state = Arc::new(Mutex::new(State { slots: vec![None; slots as usize], ..State::default() }));
        let this = Self { info, env: env.clone(), rpc, job_manager: job_manager.clone(), epoch, state, shutdown };
        let (sender, calls) = mailbox();
        this.rpc.serve(endpoint::TASK_EXECUTOR, sender);
        this.env.spawner.spawn("worker", this.clone().serve(calls));
        let gateway = this.resource_manager().await;
        let answer = gateway.register_task_manager(this.info.clone(), this.report_of_slots()).await.unwrap();
        assert_eq!(answer, RegistrationAnswer::Accepted);
        this
    }

    async fn resource_manager(&self) -> ResourceManagerGateway {
        let connection = self.rpc.connect(&self.job_manager).await.unwrap();
        ResourceManagerGateway::new(Target::remote(connection, endpoint::RESOURCE_MANAGER, Fence::cluster(self.epoch)))
    }

    async fn job_master(&self, job: JobId) -> JobMasterGateway {
        let connection = self.rpc.connect(&self.job_manager).await.unwrap();
        JobMasterGateway::new(Target::remote(connection, endpoint::job_master(job), Fence::job(job, self.epoch)))
    }

    fn instance(&self) -> InstanceId {
        self.info.instance
    }

    fn report_of_slots(&self) -> SlotReport {
        let state = self.state.lock();
        let status = |s: &Option<(JobId, AllocationId)>| match s {
            None => SlotStatus::Free,
            Some((job, allocation)) => SlotStatus::Taken { job: *job, allocation: *allocation, active: true },
        };
        SlotReport { slots: state.slots.iter().map(status).collect() }
    }

    fn status(&self, job: JobId) -> TaskManagerStatus {
        let state = self.state.lock();
        let mine = || state.tasks.iter().filter(|((j, _), _)| *j == job);
        TaskManagerStatus {
            host_failure: None,
            allocations: state.slots.iter().flatten().filter(|(j, _)| *j == job).map(|(_, a)| *a).collect(),
            tasks: mine().map(|((_, s), (attempt, task, _))| (*s, *attempt, *task)).collect(),
            metrics: mine().map(|((_, s), (_, _, metrics))| (*s, metrics.clone())).collect(),
        }
    }

    async fn serve(self, mut calls: Mailbox<TaskExecutorMessage>) {
        while let Some(call) = calls.recv().await {
            match call.message {
                TaskExecutorMessage::Metrics { reply } => reply.send(Ok(vec![("numTasks".into(), 3)])),
                TaskExecutorMessage::RequestSlot { request, reply } => {
                    self.state.lock().slots[request.slot as usize] = Some((request.job, request.allocation));
                    reply.send(Ok(Ok(())));
                    self.offer_soon(request.job);
                }
                TaskExecutorMessage::Deploy { job, deploy, reply } => {
                    let mut state = self.state.lock();
                    for task in &deploy.tasks {
                        let fresh = (deploy.attempt, ExecutionState::Deploying, SubtaskMetrics::default());
                        state.tasks.insert((job, task.subtask), fresh);
                    }
                    reply.send(Ok(Ok(())));
                }
                TaskExecutorMessage::Cancel { job, reply, .. } => {
                    let state = self.state.lock();
                    let live = state.tasks.iter().filter(|((j, _), (_, state, _))| *j == job && !state.is_terminal());
                    reply.send(Ok(live.map(|((_, subtask), _)| *subtask).collect()));
                }
                TaskExecutorMessage::Commit { reply, .. } => {
                    reply.send(Ok(()));
                }
                TaskExecutorMessage::ResetHost { .. } if self.state.lock().hangs => {}
                TaskExecutorMessage::ResetHost { job, reply, .. } => {
                    self.state.lock().tasks.retain(|(j, _), _| *j != job);
                    reply.send(Ok(()));
                    self.offer_soon(job);
                }
                TaskExecutorMessage::FreeSlot { allocation, reply, .. } => {
                    let mut state = self.state.lock();
                    for slot in state.slots.iter_mut().filter(|s| s.is_some_and(|(_, a)| a == allocation)) {
                        *slot = None;
                    }
                    reply.send(Ok(()));
                }
                TaskExecutorMessage::ListLogs { reply } => {
                    let state = self.state.lock();
                    let file = |(name, text): (&String, &Bytes)| LogFile {
                        name: name.clone(),
                        size: text.len() as u64,
                        modified: 1,
                    };
                    reply.send(Ok(state.logs.iter().map(file).collect()));
                }
                TaskExecutorMessage::ReadLog { name, offset, length, reply } => {
                    let state = self.state.lock();
                    reply.send(Ok(state.logs.get(&name).map(|text| {
                        let from = (offset as usize).min(text.len());
                        text.slice(from..text.len().min(from + length as usize))
                    })));
                }
                TaskExecutorMessage::HeartbeatFromResourceManager {} => {
                    let gateway = self.resource_manager().await;
                    gateway.heartbeat(self.info.id.clone(), self.instance(), self.report_of_slots()).unwrap();
                }
                TaskExecutorMessage::HeartbeatFromJobMaster { job, .. } => self.heartbeat(job).await,
            }
        }
    }

    /// Tells the JobMaster what runs here and what it counted.
    pub async fn heartbeat(&self, job: JobId) {
        self.job_master(job).await.heartbeat(self.info.id.clone(), self.instance(), self.status(job)).unwrap();
    }

    fn offer_soon(&self, job: JobId) {
        // Each offer is of a host that is younger than all before: what was reset is over.
        static LIVES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let life = LIVES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let this = self.clone();
        self.env.spawner.spawn("offer", async move {
            let gateway = this.job_master(job).await;
            let id = this.info.id.clone();
            if this.state.lock().registered.insert(job) {
                let registration = JobRegistration {
                    id: id.clone(),
                    instance: this.instance(),
                    rpc: this.info.rpc.clone(),
                    status: TaskManagerStatus::default(),
                };
                gateway.register_task_manager(registration).await.unwrap();
            }
            let slots = this.state.lock().slots.clone();
            let mine = (0..).zip(slots).filter_map(|(i, s)| s.filter(|(j, _)| *j == job).map(|(_, a)| (i, a)));
            let offer =
                |(slot, allocation)| SlotOffer { allocation, slot, host: life, data_address: Some("there".into()) };
            gateway.offer_slots(id, this.instance(), mine.map(offer).collect()).await.unwrap();
        });
    }

    /// Writes a log.
    pub fn log(&self, name: &str, text: impl Into<Bytes>) {
        self.state.lock().logs.insert(name.into(), text.into());
    }

    /// The tasks of the job here, once there are so many.
    pub async fn tasks(&self, job: JobId, attempt: u32, count: usize) -> Vec<SubtaskId> {
        eventually("tasks are deployed", Duration::from_secs(30), async || {
            let state = self.state.lock();
            let mine = state.tasks.iter().filter(|((j, _), (a, _, _))| *j == job && a.n == attempt);
            let mine: Vec<SubtaskId> = mine.map(|((_, s), _)| *s).collect();
            (mine.len() == count).then_some(mine)
        })
        .await
    }

    /// A task entered a state, having counted this.
    pub async fn report(&self, job: JobId, subtask: SubtaskId, state: ExecutionState, metrics: SubtaskMetrics) {
        self.report_with(job, subtask, state, metrics, None, None).await;
    }

    pub async fn report_with(
        &self,
        job: JobId,
        subtask: SubtaskId,
        state: ExecutionState,
        metrics: SubtaskMetrics,
        failure: Option<TaskFailure>,
        prepared: Option<Bytes>,
    ) {
        let attempt = {
            let mut all = self.state.lock();
            let task = all.tasks.get_mut(&(job, subtask)).unwrap();
            (task.1, task.2) = (state, metrics.clone());
            task.0
        };
        let report = TaskReport { subtask, attempt, state, failure, prepared, collected: BTreeMap::new(), metrics };
        self.job_master(job).await.report(self.info.id.clone(), self.instance(), report).await.unwrap();
    }

    /// A task has counted more; the next heartbeat tells it.
    pub fn counts(&self, job: JobId, subtask: SubtaskId, metrics: SubtaskMetrics) {
        self.state.lock().tasks.get_mut(&(job, subtask)).unwrap().2 = metrics;
    }

    /// From now on it does not manage to end its hosts.
    pub fn hang(&self) {
        self.state.lock().hangs = true;
    }

    /// Its process dies.
    pub fn die(&self) {
        self.shutdown.trigger();
    }
}
