//! A JobManager process: puts RPC, leadership, ResourceManager, Dispatcher, blobs and REST together, in the order in
//! which they start, and takes them apart in the other.
//!
//! How it ends: the Dispatcher decides (a deployment mode, or a stop that was asked for), [`JobManager::ended`] tells the
//! owner, and the owner calls [`JobManager::close`]. A signal skips the decision and goes straight to `close`.

use crate::{
    blob_server,
    dispatcher::{self, DispatcherHandle, DispatcherServices, driver::ChangeSender},
    job_master::{self, driver::JobMasterServices},
    resource_manager::{self, ResourceManagerHandle, ResourceManagerServices},
    rest,
    stores::Stores,
};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{Epoch, InstanceId};
use thalweg_rpc::{HeartbeatSettings, RpcService, RpcSettings};
use thalweg_spi::{
    ApplicationStatus, BlobService, DeploymentMode, ErrorKind, HighAvailabilityServices, LeaderInfo, MainState, Office,
    ResourceProvider, Result, Secret, ServiceError, ShuffleMaster, WorkerProfile,
};
use thalweg_wire::{JobRecord, RestartStrategy};
use tokio::sync::watch;

/// Runs the job's `main` as a client of this cluster.
pub trait MainRunner: Send + Sync {
    /// Runs it to its end; answers its exit code, `None` when a signal ended it. `Err` when it could not be started.
    fn run(&self, rest: String) -> BoxFuture<'static, std::result::Result<Option<i32>, String>>;
}

/// Numbers and names of a JobManager.
#[derive(Clone)]
pub struct JobManagerConfig {
    /// How it speaks.
    pub rpc: RpcSettings,
    /// Where it takes RPC.
    pub rpc_bind: Address,
    /// Where others dial it; `None` for what it bound.
    pub rpc_advertised: Option<Address>,
    /// Where it serves REST; `None` for nowhere.
    pub rest_bind: Option<Address>,
    /// Longest request body of REST that is not a blob.
    pub rest_max_body: usize,
    /// REST writes need the secret; `false` opens them to everybody who can reach REST.
    pub rest_writes_need_secret: bool,
    /// Of TaskManagers.
    pub heartbeat: HeartbeatSettings,
    /// After a change of leaders, tasks that were not found within this are lost.
    pub reconcile_timeout: Duration,
    /// A job that waits longer for its slots fails.
    pub slot_request_timeout: Duration,
    /// Tasks that do not end in time after a cancel are ended by force.
    pub cancel_timeout: Duration,
    /// An idle worker is ended after this.
    pub idle_timeout: Duration,
    /// What a worker is like, for providers that start them.
    pub worker: Option<WorkerProfile>,
    /// Ended jobs that are remembered.
    pub history: usize,
    /// When a job starts again that does not say so itself.
    pub restart: RestartStrategy,
    /// Key and value of the configuration, without secrets: what REST shows.
    pub shown_configuration: Vec<(String, String)>,
    /// Plugins that a job's executable must have linked, as `kind/name`: its hosts use them.
    pub job_plugins: Vec<String>,
    /// This JobManager's log file: what REST shows.
    pub log_dir: Option<std::path::PathBuf>,
}

/// What a JobManager works with: the chosen plugins, opened.
#[derive(Clone)]
pub struct JobManagerServices {
    /// Seams.
    pub env: Env,
    /// Who leads, and what is written down.
    pub high_availability: Arc<dyn HighAvailabilityServices>,
    /// Executables.
    pub blobs: Arc<dyn BlobService>,
    /// Registers partitions.
    pub shuffle: Arc<dyn ShuffleMaster>,
    /// Starts and ends workers; `None` when everything is in one process.
    pub provider: Option<Arc<dyn ResourceProvider>>,
    /// What the cluster is for.
    pub deployment: Arc<dyn DeploymentMode>,
    /// The job's `main`, in a cluster that runs it itself.
    pub main: Option<Arc<dyn MainRunner>>,
}

/// How the cluster's work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobManagerEnd {
    /// The status.
    pub status: ApplicationStatus,
    /// Why, for people.
    pub diagnostics: String,
}

/// Where a JobManager listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// `http://host:port`; empty where it serves no REST.
    pub rest: String,
    /// Where TaskManagers dial once it leads.
    pub rpc: Address,
}

/// Ends what was started when nobody keeps it.
struct EndOnDrop(Option<Shutdown>);

impl EndOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(shutdown) = &self.0 {
            shutdown.trigger();
        }
    }
}

/// A running JobManager that leads.
pub struct JobManager {
    services: JobManagerServices,
    epoch: Epoch,
    rpc: RpcService,
    rest: Option<rest::RestServer>,
    dispatcher: DispatcherHandle,
    resources: ResourceManagerHandle,
    ended: watch::Receiver<Option<JobManagerEnd>>,
    shutdown: Shutdown,
}

fn step(env: &Env, name: &str, since: &mut thalweg_model::Moment) {
    let now = env.clock.now();
    tracing::info!("{name} in {:.1} ms", now.since(*since).as_secs_f64() * 1e3);
    *since = now;
}

impl JobManager {
    /// Starts, waits for leadership, and serves. An error leaves nothing running.
    pub async fn start(config: JobManagerConfig, services: JobManagerServices) -> Result<Self> {
        Self::start_and_tell(config, services, |_| {}).await
    }

    /// The same; `bound` is told where this process is before it stands for office, which may take as long as another
    /// leads. May be dropped: then it stands no longer, and what listened has ended.
    pub async fn start_and_tell(
        config: JobManagerConfig,
        services: JobManagerServices,
        bound: impl FnOnce(Bound) + Send,
    ) -> Result<Self> {
        let shutdown = Shutdown::new();
        let unless_it_starts = EndOnDrop(Some(shutdown.clone()));
        let started = Self::start_with(config, services, shutdown.clone(), bound).await;
        if started.is_ok() {
            unless_it_starts.keep();
        }
        started
    }

    async fn start_with(
        config: JobManagerConfig,
        services: JobManagerServices,
        shutdown: Shutdown,
        tell: impl FnOnce(Bound) + Send,
    ) -> Result<Self> {
        let env = services.env.clone();
        let mut since = env.clock.now();
        let secret = config.rpc.secret.clone();
        let rpc = RpcService::new(env.clone(), config.rpc.clone(), shutdown.child());
        let taken = |what: &'static str, at: &Address| {
            let at = at.clone();
            move |e: std::io::Error| {
                let hint = match e.kind() {
                    std::io::ErrorKind::AddrInUse => format!(
                        "{at} is in use by another process (another cluster?): choose another port, or 0 for a free one"
                    ),
                    _ => format!("cannot listen on {at}: {e}"),
                };
                ServiceError::new(ErrorKind::AlreadyExists, what, hint)
            }
        };
        let bound = rpc.listen(&config.rpc_bind).await.map_err(taken("start RPC", &config.rpc_bind))?;
        let rpc_address = advertised(&bound, config.rpc_advertised.as_ref());
        step(&env, "RPC listens", &mut since);
        let rest = match &config.rest_bind {
            None => None,
            Some(at) => {
                let server =
                    rest::RestServer::bind(&env, at, &config, secret, services.blobs.clone(), shutdown.child());
                Some(server.await.map_err(taken("start REST", at))?)
            }
        };
        step(&env, "REST listens", &mut since);
        // A `main` that runs beside this process dials what was bound.
        let own_rest = rest.as_ref().map(rest::RestServer::url).unwrap_or_default();
        let rest_url = rest.as_ref().map(|rest| rest.advertised(config.rpc_advertised.as_ref())).unwrap_or_default();
        if let Some(rest) = &rest {
            rest.follow(rest::Whereabouts {
                rest: rest_url.clone(),
                rpc: rpc_address.to_string(),
                leader: services.high_availability.leader_retrieval().leader(),
            });
        }
        tell(Bound { rest: rest_url.clone(), rpc: rpc_address.clone() });
        let election = services.high_availability.leader_election();
        let epoch = election.campaign().await?;
        step(&env, "leadership granted", &mut since);
        blob_server::serve(&env, &rpc, services.blobs.clone());
        let stores = Stores::new(services.high_availability.metadata(), epoch);
        let (jobs, unknown) = stores.jobs().await?;
        let results = stores.results().await?;
        if !unknown.is_empty() {
            let stores = stores.clone();
            env.spawner.spawn("forget-left-overs", async move {
                if let Err(e) = stores.forget(unknown).await {
                    tracing::warn!("left-overs of old jobs stay: {e}");
                }
            });
        }
        let cancelled = jobs.iter().filter(|(_, left)| left.cancelled).map(|(record, _)| record.job).collect();
        let (jobs, left): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        let left: BTreeMap<_, _> = jobs.iter().map(|record: &JobRecord| record.job).zip(left).collect();
        let recovered = dispatcher::Event::Recovered { jobs, cancelled, results };
        step(&env, "earlier jobs read", &mut since);

        let (end, ended) = watch::channel(None);
        let dispatcher: Arc<std::sync::OnceLock<DispatcherHandle>> = Arc::default();
        let resources = ResourceManagerHandle::start(
            resource_manager::Settings {
                epoch,
                heartbeat: config.heartbeat,
                request_again: config.rpc.timeout,
                idle_timeout: config.idle_timeout,
                profile: config.worker.clone(),
            },
            ResourceManagerServices {
                env: env.clone(),
                rpc: rpc.clone(),
                provider: services.provider.clone(),
                on_worker_lost: on_worker_lost(dispatcher.clone()),
                on_worker_present: on_worker_present(dispatcher.clone()),
                on_shortage: on_shortage(dispatcher.clone()),
                shutdown: shutdown.child(),
            },
        );
        let job_master = job_master::Settings {
            epoch,
            heartbeat: config.heartbeat,
            reconcile_timeout: config.reconcile_timeout,
            slot_request_timeout: config.slot_request_timeout,
            cancel_timeout: config.cancel_timeout,
        };
        let make = {
            let (env, rpc, stores) = (env.clone(), rpc.clone(), stores.clone());
            let (resources, shuffle, shutdown) = (resources.clone(), services.shuffle.clone(), shutdown.child());
            move |on_change: ChangeSender| JobMasterServices {
                env: env.clone(),
                rpc: rpc.clone(),
                resources: resources.clone(),
                shuffle: shuffle.clone(),
                stores: stores.clone(),
                on_change,
                shutdown: shutdown.clone(),
            }
        };
        let handle = DispatcherHandle::start(
            dispatcher::Settings {
                mode: services.deployment.clone(),
                history: config.history,
                retry: Duration::from_millis(500),
            },
            DispatcherServices {
                env: env.clone(),
                epoch,
                stores,
                high_availability: services.high_availability.clone(),
                blobs: services.blobs.clone(),
                job_master,
                job_master_services: Box::new(make),
                start_main: services.main.clone().map(|main| start_main(&env, main, own_rest.clone())),
                on_end: Box::new(move |status, diagnostics| {
                    let _ = end.send(Some(JobManagerEnd { status, diagnostics }));
                }),
                left,
                shutdown: shutdown.child(),
            },
            recovered,
        );
        let _ = dispatcher.set(handle.clone());
        // Every recovered job has its JobMaster before a TaskManager can ask for it.
        handle.entries().await;
        rpc.set_epoch(epoch);
        step(&env, "Dispatcher and ResourceManager started", &mut since);
        if let Some(rest) = &rest {
            rest.lead(rest::Leader { dispatcher: handle.clone(), resources: resources.clone(), epoch });
        }
        let leader = LeaderInfo { epoch: Some(epoch), rpc: rpc_address.to_string(), rest: rest_url };
        election.announce(epoch, leader).await?;
        step(&env, "leader announced", &mut since);
        Ok(Self { services, epoch, rpc, rest, dispatcher: handle, resources, ended, shutdown })
    }

    /// Submits and asks about jobs, within this process.
    pub fn dispatcher(&self) -> &DispatcherHandle {
        &self.dispatcher
    }

    /// The registered TaskManagers, within this process.
    pub fn resources(&self) -> &ResourceManagerHandle {
        &self.resources
    }

    /// Where TaskManagers dial.
    pub fn rpc(&self) -> &RpcService {
        &self.rpc
    }

    /// Under which epoch it leads.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where REST is served: `http://host:port`.
    pub fn rest_url(&self) -> Option<String> {
        self.rest.as_ref().map(rest::RestServer::url)
    }

    /// The server of REST.
    pub fn rest(&self) -> Option<&rest::RestServer> {
        self.rest.as_ref()
    }

    /// Resolves when the cluster's work has ended.
    pub async fn ended(&self) -> JobManagerEnd {
        let mut ended = self.ended.clone();
        let over = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        match over {
            Some(end) => end,
            // The Dispatcher is gone without a word; whoever waits for it waits for the process to be ended.
            None => std::future::pending().await,
        }
    }

    /// Resolves when leadership is lost: the process must exit.
    pub async fn lost_office(&self) {
        let mut office = self.services.high_availability.leader_election().office();
        if office.wait_for(|o| matches!(o, Office::Lost(_))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends everything. With `end`, the cluster is over: the provider is told and its workers are ended.
    pub async fn close(self, end: Option<JobManagerEnd>) {
        if let Some(rest) = &self.rest {
            rest.stop_accepting();
        }
        if let (Some(end), Some(provider)) = (&end, &self.services.provider)
            && let Err(e) = provider.deregister(end.status, &end.diagnostics).await
        {
            tracing::error!("the resource provider did not deregister: {e}");
        }
        self.shutdown.trigger();
        let election = self.services.high_availability.leader_election();
        if let Err(e) = election.resign(self.epoch).await {
            tracing::warn!("could not leave office: {e}");
        }
        if let Err(e) = self.services.high_availability.close().await {
            tracing::warn!("high availability did not close: {e}");
        }
    }
}

type Cell = Arc<std::sync::OnceLock<DispatcherHandle>>;

fn on_worker_lost(dispatcher: Cell) -> Arc<dyn Fn(&thalweg_model::TaskManagerId, InstanceId, &str) + Send + Sync> {
    Arc::new(move |id, instance, cause| {
        if let Some(dispatcher) = dispatcher.get() {
            dispatcher.worker_gone(id, instance, cause);
        }
    })
}

fn on_worker_present(dispatcher: Cell) -> resource_manager::driver::OnWorkerPresent {
    Arc::new(move |id, instance, jobs| {
        if let Some(dispatcher) = dispatcher.get() {
            dispatcher.worker_present(id, instance, jobs);
        }
    })
}

fn on_shortage(dispatcher: Cell) -> Arc<dyn Fn(thalweg_model::JobId, Option<String>) + Send + Sync> {
    Arc::new(move |job, why| {
        if let Some(dispatcher) = dispatcher.get() {
            dispatcher.waiting(job, why);
        }
    })
}

fn start_main(env: &Env, main: Arc<dyn MainRunner>, rest: String) -> Box<dyn Fn(DispatcherHandle) + Send> {
    let env = env.clone();
    Box::new(move |dispatcher| {
        let (main, rest) = (main.clone(), rest.clone());
        dispatcher.main(MainState::Running);
        env.spawner.spawn("job-main", async move {
            let code = match main.run(rest).await {
                Ok(code) => code,
                Err(e) => {
                    tracing::error!("the job's main could not be started: {e}");
                    Some(127)
                }
            };
            dispatcher.main(MainState::Ended(code));
        });
    })
}

/// The bound port at the host that others use.
fn advertised(bound: &Address, wanted: Option<&Address>) -> Address {
    match (bound, wanted) {
        (Address::Tcp(bound), Some(Address::Tcp(wanted))) => {
            let port = bound.rsplit_once(':').map_or("0", |(_, port)| port);
            let host = wanted.rsplit_once(':').map_or(wanted.as_str(), |(host, _)| host);
            Address::Tcp(format!("{host}:{port}"))
        }
        _ => bound.clone(),
    }
}

/// The secret as clients write it into the `Authorization` header.
pub fn bearer(secret: &Secret) -> String {
    secret.expose().iter().map(|b| format!("{b:02x}")).collect()
}
