//! Embedded: the same JobManager, TaskManager and host protocol as on a cluster, in this process, over an in-memory
//! transport. It is started with the first execute and lives as long as the process.

use crate::{own_folder, own_folder::OwnFolder, settings};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
};
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_config::{Configuration, Sources};
use thalweg_control::{
    JobManager, JobManagerServices,
    dispatcher::{DispatcherHandle, Submitted},
};
use thalweg_dataflow::Plan;
use thalweg_env::{Address, BoxStream, Env, Shutdown};
use thalweg_model::{InstanceId, JobId};
use thalweg_rpc::Role;
use thalweg_spi::{PluginContext, Secret, kind};
use thalweg_task::{
    TaskManager, TaskManagerServices,
    host::{
        HostEvent, HostEvents, HostHandle, HostLauncher, HostRequest,
        process::{NO_EXECUTABLE, job_secret},
        side::{self, Start},
        supervisor::{self, Supervision},
    },
    logs::Logs,
};
use thalweg_wire::{ExecutionMode, FromHost, JobResult, JobSpec, PROTOCOL, PROTOCOL_OLDEST, ToHost, encode};
use tokio::sync::mpsc;

/// A runtime of our own, on which futures are driven from any thread, inside or outside of another runtime.
pub struct Blocking(Option<tokio::runtime::Runtime>);

impl Blocking {
    /// Starts the runtime.
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("thalweg").enable_all().build();
        match runtime {
            Ok(runtime) => Self(Some(runtime)),
            Err(e) => {
                // No thread can be made: nothing that follows could work.
                eprintln!("thalweg: cannot start its runtime: {e}");
                std::process::exit(2);
            }
        }
    }

    /// To spawn onto it.
    pub fn handle(&self) -> tokio::runtime::Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            // Taken only in `drop`.
            None => unreachable!("the runtime is there until the drop"),
        }
    }

    /// Drives a future to its end; an error when it panicked.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
        let (send, receive) = std_mpsc::channel();
        let task = self.handle().spawn(async move {
            let _ = send.send(future.await);
        });
        let outcome = receive.recv();
        drop(task);
        outcome.map_err(|_| "a task of the runtime panicked".to_owned())
    }

    /// Drives a future to its end.
    pub fn block_on(&self, future: BoxFuture<'static, ()>) {
        let _ = self.run(future);
    }
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // Not the waiting kind of shutdown: this may be dropped on a thread of another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a program begins with in this process.
pub(crate) fn program_defaults(parallelism: u32) -> ProgramDefaults {
    ProgramDefaults {
        parallelism,
        mode: ExecutionMode::Automatic,
        client_dir: std::env::current_dir().unwrap_or_default(),
        files: None,
        is_client: true,
    }
}

/// Slots of the embedded TaskManager: a slot costs nothing until a job uses it.
const SLOTS: u32 = 1024;

/// From here on a job takes seconds to start and to end.
const MANY_CHANNELS: u64 = 50_000;

/// Sections that speak of what an embedded job does not have.
const NO_EFFECT: [&str; 5] = ["rest", "client", "per-job", "process", "security"];

type Plans = Arc<Mutex<HashMap<JobId, Arc<Plan>>>>;

/// See the module.
pub struct EmbeddedExecutor {
    ordinals: Ordinals,
    parallelism: u32,
    cluster: Arc<tokio::sync::Mutex<Option<Result<Arc<Cluster>, String>>>>,
    blocking: Blocking,
}

impl EmbeddedExecutor {
    /// Nothing is started before the first execute.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let asked = configuration().ok().map(|c| c.pipeline.parallelism).filter(|p| *p > 0);
        Self {
            ordinals: Ordinals::new(),
            parallelism: asked.unwrap_or(cores),
            cluster: Arc::default(),
            blocking: Blocking::new(),
        }
    }
}

impl Default for EmbeddedExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor for EmbeddedExecutor {
    fn defaults(&self) -> ProgramDefaults {
        program_defaults(self.parallelism)
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let (cluster, handle) = (self.cluster.clone(), self.blocking.handle());
        let env = Env::in_process(handle.clone());
        let submitted = handle.spawn(async move {
            let mut cell = cluster.lock().await;
            if cell.is_none() {
                *cell = Some(Cluster::start(env).await.map(Arc::new));
            }
            let started = match &*cell {
                Some(Ok(cluster)) => cluster.clone(),
                Some(Err(e)) => return Err(JobError::Submission(e.clone())),
                None => return Err(JobError::Submission("the embedded cluster did not start".into())),
            };
            drop(cell);
            started.submit(program).await
        });
        Box::pin(async move {
            submitted.await.unwrap_or_else(|e| Err(JobError::Submission(format!("the embedded cluster failed: {e}"))))
        })
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.blocking.block_on(future);
    }
}

fn configuration() -> Result<Configuration, String> {
    // What ties a process to its surroundings is fixed here; everything else may be set in the environment.
    let fixed = [
        "cluster.name=embedded",
        "shuffle.type=local",
        "blob.type=local",
        "high-availability.type=standalone",
        "deployment.type=session",
        &format!("task-manager.slots={SLOTS}"),
    ];
    let sources = Sources {
        file: None,
        environment: std::env::vars(),
        overrides: fixed.iter().map(|s| (*s).to_owned()).collect(),
    };
    Configuration::load(sources).map_err(|e| e.to_string())
}

/// The embedded cluster.
struct Cluster {
    env: Env,
    job_manager: JobManager,
    plans: Plans,
    configuration: Configuration,
    _task_manager: TaskManager,
    _dir: OwnFolder,
}

impl Cluster {
    async fn start(env: Env) -> Result<Self, String> {
        let configuration = configuration()?;
        configuration.advice().iter().for_each(|advice| tracing::warn!("{advice}"));
        for key in configuration.set_below(&NO_EFFECT) {
            tracing::warn!("{key} has no effect in an embedded job: it has no REST, no other processes and no client");
        }
        let parent = std::env::temp_dir();
        let dir = OwnFolder::make(&parent).map_err(|e| {
            format!("no folder for temporary files could be made in {} (TMPDIR says where): {e}", parent.display())
        })?;
        // Beside the job: a large folder takes its time. Without a thread for it, the next process does it.
        let _ = env.spawner.thread("thalweg-sweep".to_owned(), Box::new(move || own_folder::sweep(&parent)));
        let secret = Secret::new(env.entropy.id().to_vec());
        let shutdown = Shutdown::new();
        let context = PluginContext {
            env: env.clone(),
            cluster: configuration.cluster.name.id(),
            cluster_dir: dir.path().to_owned(),
            working_dir: dir.path().to_owned(),
            secret: secret.clone(),
            configuration: String::new(),
            shutdown: shutdown.clone(),
        };
        let failed = |e: thalweg_spi::ServiceError| e.to_string();
        let ha = configuration.open::<kind::HighAvailability>(context.clone()).await.map_err(failed)?;
        let blobs = configuration.open::<kind::Blob>(context.clone()).await.map_err(failed)?;
        let shuffle = configuration.open::<kind::ShuffleKind>(context.clone()).await.map_err(failed)?;
        let deployment = configuration.open::<kind::Deployment>(context.clone()).await.map_err(failed)?;
        let instance = || InstanceId::from_bytes(env.entropy.id());
        let speaks = |role| settings::rpc(&configuration, role, instance(), secret.clone());
        let mut jm = settings::job_manager(&configuration, speaks(Role::JobManager), None);
        jm.rpc_bind = Address::Memory("job-manager".into());
        jm.rest_bind = None;
        jm.worker = None;
        let services = JobManagerServices {
            env: env.clone(),
            high_availability: ha.clone(),
            blobs,
            shuffle: shuffle.master(),
            provider: None,
            deployment,
            main: None,
        };
        let job_manager = JobManager::start(jm, services).await.map_err(failed)?;
        let plans = Plans::default();
        let mut tm = settings::task_manager(&configuration, speaks(Role::TaskManager), false);
        tm.rpc_bind = Address::Memory("task-manager".into());
        tm.id = Some(thalweg_model::TaskManagerId::new("embedded"));
        let (host_env, host_plans, scratch) = (env.clone(), plans.clone(), dir.path().to_owned());
        let (exchange, host_secret) = (settings::exchange(&configuration), secret.clone());
        let start_timeout = configuration.host.start_timeout.into();
        let hosts = move |id: &thalweg_model::TaskManagerId| {
            let launcher = EmbeddedHosts {
                env: host_env,
                plans: host_plans,
                id: id.clone(),
                exchange,
                secret: host_secret,
                scratch,
                start_timeout,
            };
            Ok((Arc::new(launcher) as Arc<dyn HostLauncher>, Arc::new(Logs::new(None, id.as_str()))))
        };
        let services =
            TaskManagerServices { env: env.clone(), retrieval: ha.leader_retrieval(), hosts: Box::new(hosts) };
        let task_manager = TaskManager::start(tm, services).await.map_err(failed)?;
        Ok(Self { env, job_manager, plans, configuration, _task_manager: task_manager, _dir: dir })
    }

    async fn submit(&self, program: Program) -> Result<Arc<dyn RunningJob>, JobError> {
        let job = JobId::from_bytes(self.env.entropy.id());
        let client_dir = std::env::current_dir().unwrap_or_default();
        let restart = match program.restart {
            thalweg_wire::RestartStrategy::ByKind => self.configuration.restart.strategy(),
            chosen => chosen,
        };
        let spec = JobSpec {
            name: program.name,
            graph: program.plan.graph().clone(),
            executable: NO_EXECUTABLE,
            // The paths of cached files are the client's own.
            files: Default::default(),
            args: Vec::new(),
            env: Default::default(),
            client_dir: client_dir.to_string_lossy().into_owned(),
            ordinal: program.ordinal,
            earlier: Vec::new(),
            default_parallelism: program.default_parallelism,
            mode: program.mode,
            restart,
            client_timeout: None,
            options: Default::default(),
            plugins: Vec::new(),
            protocol: (PROTOCOL, PROTOCOL_OLDEST),
        };
        if spec.graph.channels() > MANY_CHANNELS {
            tracing::warn!(
                "the job has {} channels between its subtasks (up to parallelism {}, each slot a thread of this process): \
                 it starts and ends slowly; a parallelism near the number of cores is faster",
                spec.graph.channels(),
                spec.graph.vertices.iter().map(|v| v.parallelism).max().unwrap_or(0),
            );
        }
        self.plans.lock().insert(job, program.plan);
        let dispatcher = self.job_manager.dispatcher().clone();
        match dispatcher.submit(job, Box::new(spec), false).await {
            Some(Submitted::Accepted | Submitted::Running) => {
                Ok(Arc::new(EmbeddedJob { job, dispatcher, env: self.env.clone(), plans: self.plans.clone() }))
            }
            Some(Submitted::Refused(why)) => Err(JobError::Submission(why)),
            Some(Submitted::Ended(_)) | None => Err(JobError::Submission("the embedded cluster has ended".into())),
        }
    }
}

#[derive(Clone)]
struct EmbeddedJob {
    job: JobId,
    dispatcher: DispatcherHandle,
    env: Env,
    plans: Plans,
}

impl RunningJob for EmbeddedJob {
    fn id(&self) -> JobId {
        self.job
    }

    fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>> {
        let this = self.clone();
        let (send, receive) = tokio::sync::oneshot::channel();
        this.env.clone().spawner.spawn("wait-for-job", async move {
            let _ = send.send(this.dispatcher.result(this.job).await);
            this.plans.lock().remove(&this.job);
        });
        Box::pin(async move {
            let result = receive.await.ok().flatten();
            result.ok_or_else(|| JobError::Unknown("the embedded cluster has ended".into()))
        })
    }

    fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>> {
        let (dispatcher, job) = (self.dispatcher.clone(), self.job);
        Box::pin(async move {
            dispatcher.cancel(job).await;
            Ok(())
        })
    }
}

/// Hosts in this process: the same protocol, over an in-memory pipe.
#[derive(Clone)]
struct EmbeddedHosts {
    env: Env,
    plans: Plans,
    id: thalweg_model::TaskManagerId,
    exchange: String,
    secret: Secret,
    scratch: PathBuf,
    start_timeout: std::time::Duration,
}

/// Bytes that one direction of the pipe holds before the writer waits.
const PIPE: usize = 256 << 10;

impl HostLauncher for EmbeddedHosts {
    fn launch(&self, request: HostRequest, events: HostEvents) -> HostHandle {
        let (messages, queue) = mpsc::unbounded_channel();
        let kill = Shutdown::new();
        let (hosts, killed, env) = (self.clone(), kill.clone(), self.env.clone());
        env.spawner.spawn("embedded-host", async move {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let (ended, wait_ended) = tokio::sync::oneshot::channel();
            let side = hosts.clone();
            hosts.env.spawner.spawn("embedded-host-side", async move {
                side.serve(BoxStream::Memory(theirs)).await;
                let _ = ended.send(());
            });
            let supervision = Supervision { start: hosts.start_message(&request), start_timeout: hosts.start_timeout };
            let talk = supervisor::supervise(&hosts.env, BoxStream::Memory(ours), supervision, queue, &killed, &events);
            let failure = talk.await;
            // Only then is every task of it over.
            let _ = wait_ended.await;
            events(HostEvent::Gone(failure));
        });
        HostHandle { messages, kill, memory: tokio::sync::watch::Sender::new(0) }
    }
}

impl EmbeddedHosts {
    fn start_message(&self, request: &HostRequest) -> Box<dyn FnOnce(u32) -> ToHost + Send> {
        let (job, spec, this) = (request.job, request.spec.clone(), self.clone());
        let scratch = self.scratch.join(format!("host-{job}-{}", request.host));
        Box::new(move |protocol| ToHost::Start {
            job,
            spec,
            task_manager: this.id,
            data_bind: "memory:data".into(),
            shuffle: this.exchange,
            scratch: scratch.to_string_lossy().into_owned(),
            output: None,
            data_secret: job_secret(&this.secret, job),
            protocol,
        })
    }

    /// What a host's `main` does up to its execute, without a `main`: the plan is already there.
    async fn serve(&self, stream: BoxStream) {
        use futures::{SinkExt, StreamExt};
        let mut socket = supervisor::framed(stream);
        let hello = FromHost::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            protocol_oldest: PROTOCOL_OLDEST,
            pid: 0,
        };
        if socket.send(bytes::Bytes::from(encode(&hello))).await.is_err() {
            return;
        }
        let Some(Ok(frame)) = socket.next().await else { return };
        let message = thalweg_wire::decode(&frame, thalweg_wire::host::MAX_HOST_FRAME);
        let Some(start) = message.ok().and_then(Start::of) else { return };
        let plan = self.plans.lock().get(&start.job).cloned();
        if let Some(plan) = plan {
            let _ = std::fs::create_dir_all(&start.scratch);
            let scratch = start.scratch.clone();
            if let Err(e) = side::serve(&self.env, socket.into_inner(), start, plan).await {
                tracing::warn!("the embedded host ended: {e}");
            }
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}
