//! A TaskManager process: puts RPC, leader retrieval, blob cache, hosts and TaskExecutor together, in the order in which
//! they start, each step with one log line.
//!
//! How it ends: [`TaskManager::stop`] says goodbye to the ResourceManager, ends every host, and stops serving. A fatal
//! error ([`TaskManager::fatal`]) asks the owner to do that and exit.

use crate::{
    executor::{
        ExecutorHandle, ExecutorServices, Settings,
        leader::{Leader, LeaderLink},
    },
    host::HostLauncher,
    logs::Logs,
};
use std::{sync::Arc, time::Duration};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{InstanceId, Moment, TaskManagerId};
use thalweg_rpc::{HeartbeatSettings, RetrySettings, RpcService, RpcSettings, gateways::TaskManagerInfo};
use thalweg_spi::{ErrorKind, LeaderRetrieval, MetricRegistry, Result, ServiceError};
use tokio::sync::watch;

/// Numbers and names of a TaskManager.
#[derive(Clone)]
pub struct TaskManagerConfig {
    /// How it speaks.
    pub rpc: RpcSettings,
    /// Where it takes RPC.
    pub rpc_bind: Address,
    /// Its name; made of its address when absent.
    pub id: Option<TaskManagerId>,
    /// Number of slots.
    pub slots: u32,
    /// Memory for all slots, bytes.
    pub memory: u64,
    /// Of leaders and hosts.
    pub heartbeat: HeartbeatSettings,
    /// How patient registration is.
    pub retry: RetrySettings,
    /// Not registered for so long: it ends.
    pub registration_timeout: Duration,
    /// An offered slot that nobody takes is freed after this.
    pub slot_timeout: Duration,
    /// Tasks whose leader is lost go on for so long.
    pub orphan_timeout: Duration,
}

/// What a TaskManager works with.
pub struct TaskManagerServices {
    /// Seams.
    pub env: Env,
    /// Who leads.
    pub retrieval: Arc<dyn LeaderRetrieval>,
    /// Makes what starts hosts, once the TaskManager has its name.
    pub hosts: Box<dyn FnOnce(&TaskManagerId) -> Result<(Arc<dyn HostLauncher>, Arc<Logs>)> + Send>,
}

/// A running TaskManager.
pub struct TaskManager {
    env: Env,
    info: TaskManagerInfo,
    executor: ExecutorHandle,
    leader: Arc<parking_lot::Mutex<Option<Leader>>>,
    fatal: watch::Receiver<Option<String>>,
    shutdown: Shutdown,
}

fn step(env: &Env, name: &str, since: &mut Moment) {
    let now = env.clock.now();
    tracing::info!("{name} in {:.1} ms", now.since(*since).as_secs_f64() * 1e3);
    *since = now;
}

/// What executables can run on this machine: `x86_64 glibc-2.36`.
#[allow(unsafe_code)]
pub fn platform() -> String {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the function takes nothing and returns a static string.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("{} glibc-{}", std::env::consts::ARCH, version.to_string_lossy())
    }
    #[cfg(not(target_env = "gnu"))]
    {
        std::env::consts::ARCH.to_owned()
    }
}

impl TaskManager {
    /// Starts and begins to register; does not wait for a leader.
    pub async fn start(config: TaskManagerConfig, services: TaskManagerServices) -> Result<Self> {
        let env = services.env;
        let shutdown = Shutdown::new();
        let mut since = env.clock.now();
        let rpc = RpcService::new(env.clone(), config.rpc.clone(), shutdown.child());
        let bound = rpc.listen(&config.rpc_bind).await.map_err(|e| {
            ServiceError::new(
                ErrorKind::AlreadyExists,
                "start RPC",
                format!("cannot listen on {}: {e}", config.rpc_bind),
            )
        })?;
        step(&env, "RPC listens", &mut since);
        let id = config.id.clone().unwrap_or_else(|| name(&bound, config.rpc.instance));
        let (hosts, logs) = (services.hosts)(&id)?;
        step(&env, "blob cache, file cache and task hosts prepared", &mut since);
        let info = TaskManagerInfo {
            id: id.clone(),
            instance: config.rpc.instance,
            rpc: bound.to_string(),
            pid: std::process::id(),
            slots: config.slots,
            memory: config.memory,
            cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            platform: platform(),
        };
        let metrics = MetricRegistry::new();
        metrics.register_process();
        step(&env, "metrics registered", &mut since);
        let (heard, hears) = watch::channel(env.clock.now());
        let executor = ExecutorHandle::start(
            Settings {
                id,
                slots: config.slots,
                memory: config.memory,
                slot_timeout: config.slot_timeout,
                host_silence: config.heartbeat.timeout,
                master_silence: config.heartbeat.timeout,
                orphan_timeout: config.orphan_timeout,
            },
            ExecutorServices {
                env: env.clone(),
                rpc: rpc.clone(),
                info: info.clone(),
                hosts,
                logs,
                metrics,
                job_master_patience: Duration::from_secs(3),
                heard,
                shutdown: shutdown.child(),
            },
        );
        step(&env, "TaskExecutor started", &mut since);
        let (fatal, fatal_seen) = watch::channel(None);
        let leader: Arc<parking_lot::Mutex<Option<Leader>>> = Arc::default();
        let link = LeaderLink {
            env: env.clone(),
            rpc,
            retrieval: services.retrieval,
            info: info.clone(),
            retry: config.retry,
            heartbeat: config.heartbeat,
            registration_timeout: config.registration_timeout,
            heard: hears,
            on_fatal: Arc::new(move |why| drop(fatal.send_replace(Some(why)))),
            shutdown: shutdown.child(),
            on_registered: {
                let leader = leader.clone();
                Arc::new(move |registered| *leader.lock() = registered)
            },
        };
        env.spawner.spawn("leader-link", link.run(executor.clone()));
        step(&env, "leader retrieval started", &mut since);
        Ok(Self { env, info, executor, leader, fatal: fatal_seen, shutdown })
    }

    /// How it presents itself.
    pub fn info(&self) -> &TaskManagerInfo {
        &self.info
    }

    /// Resolves when the process must end, with the reason.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.fatal.clone();
        let why = fatal.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Says goodbye, ends every host, stops serving.
    pub async fn stop(self) {
        let leader = self.leader.lock().clone();
        if let Some(leader) = leader.filter(|l| !l.connection.is_closed()) {
            LeaderLink::goodbye(&self.env, &leader, &self.info).await;
        }
        if thalweg_env::timeout(&*self.env.clock, Duration::from_secs(5), self.executor.stop()).await.is_err() {
            tracing::warn!("some task hosts did not end in time");
        }
        self.shutdown.trigger();
    }
}

/// `host:port-1a2b3c`.
fn name(bound: &Address, instance: InstanceId) -> TaskManagerId {
    let at = match bound {
        Address::Tcp(at) => at.clone(),
        other => other.to_string(),
    };
    TaskManagerId::new(format!("{at}-{}", &instance.to_string()[..6]))
}
