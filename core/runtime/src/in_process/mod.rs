//! A cluster within this process: the same JobManager, TaskManagers and host protocol as on a cluster of processes,
//! over an in-memory transport. An embedded job has one with one TaskManager (`embedded.rs`), a test makes them as it
//! likes (`testing.rs`). No REST, no processes, no limit of memory.
//!
//! How it ends: [`Cluster::end`], after which none of its threads is left but those in which a function of the user
//! does not return; or with the process.

mod freeze;
mod hosts;
mod job;
mod mortal;

use crate::{own_folder, own_folder::OwnFolder, settings};
pub(crate) use freeze::Freeze;
use hosts::InProcessHosts;
use mortal::mortal;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use thalweg_config::Configuration;
use thalweg_control::{
    JobManager, JobManagerServices, dispatcher::DispatcherHandle, resource_manager::driver::ResourceManagerHandle,
};
use thalweg_dataflow::Plan;
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{InstanceId, JobId, TaskManagerId};
use thalweg_rpc::Role;
use thalweg_spi::{LeaderRetrieval, PluginContext, Secret, ServiceError, kind};
use thalweg_task::{TaskManager, TaskManagerServices, host::HostLauncher, logs::Logs};
use tokio::sync::watch;

/// What ties a cluster to its surroundings, and is the same for all that are within a process.
pub(crate) const FIXED: [&str; 3] = ["blob.type=local", "high-availability.type=standalone", "deployment.type=session"];

/// Sections that speak of what such a cluster does not have.
pub(crate) const NO_EFFECT: [&str; 5] = ["rest", "client", "per-job", "process", "security"];

/// A TaskManager that has not registered after this never will.
const REGISTERS_WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What the hosts of each job run: no `main` is run again.
pub(crate) type Plans = Arc<Mutex<HashMap<JobId, Arc<Plan>>>>;

/// See the module.
pub(crate) struct Cluster {
    env: Env,
    configuration: Configuration,
    secret: Secret,
    retrieval: Arc<dyn LeaderRetrieval>,
    plans: Plans,
    dispatcher: DispatcherHandle,
    resources: ResourceManagerHandle,
    /// Until it has ended.
    running: Mutex<Option<Running>>,
}

/// What ends.
struct Running {
    job_manager: JobManager,
    next_worker: u32,
    workers: BTreeMap<u32, Worker>,
    /// Of the plugins.
    shutdown: Shutdown,
    dir: OwnFolder,
}

/// A TaskManager and its hosts.
struct Worker {
    _task_manager: TaskManager,
    kill: Shutdown,
    alive: watch::Receiver<usize>,
}

impl Cluster {
    /// Starts the JobManager; no TaskManager yet.
    pub(crate) async fn start(env: Env, configuration: Configuration) -> Result<Self, String> {
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
        let ha = configuration.open::<kind::HighAvailability>(context.clone()).await.map_err(failed)?;
        let blobs = configuration.open::<kind::Blob>(context.clone()).await.map_err(failed)?;
        let shuffle = configuration.open::<kind::ShuffleKind>(context.clone()).await.map_err(failed)?;
        let deployment = configuration.open::<kind::Deployment>(context).await.map_err(failed)?;
        let instance = InstanceId::from_bytes(env.entropy.id());
        let rpc = settings::rpc(&configuration, Role::JobManager, instance, secret.clone());
        let mut jm = settings::job_manager(&configuration, rpc, None);
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
        Ok(Self {
            env,
            configuration,
            secret,
            retrieval: ha.leader_retrieval(),
            plans: Plans::default(),
            dispatcher: job_manager.dispatcher().clone(),
            resources: job_manager.resources().clone(),
            running: Mutex::new(Some(Running { job_manager, next_worker: 0, workers: BTreeMap::new(), shutdown, dir })),
        })
    }

    /// What is to be done before its folder is removed because the process ends.
    pub(crate) fn before_exit(&self, first: impl FnOnce() + Send + 'static) {
        if let Some(running) = &*self.running.lock() {
            running.dir.before_exit(first);
        }
    }

    /// What is said to those who come too late.
    pub(crate) fn has_ended(&self) -> String {
        format!("the {} cluster has ended", self.configuration.cluster.name.0)
    }

    /// Starts another TaskManager, which then registers. Answers its number, counted from 0, and which life it is.
    pub(crate) async fn launch_task_manager(&self) -> Result<(u32, InstanceId), String> {
        let (number, scratch) = match &mut *self.running.lock() {
            Some(running) => {
                running.next_worker += 1;
                (running.next_worker - 1, running.dir.path().to_owned())
            }
            None => return Err(self.has_ended()),
        };
        let (env, configuration) = (&self.env, &self.configuration);
        let id = TaskManagerId::new(format!("task-manager-{number}"));
        let instance = InstanceId::from_bytes(env.entropy.id());
        let rpc = settings::rpc(configuration, Role::TaskManager, instance, self.secret.clone());
        let mut tm = settings::task_manager(configuration, rpc, false);
        tm.rpc_bind = Address::Memory(id.to_string());
        tm.id = Some(id.clone());
        let (alive, hosts_alive) = watch::channel(0);
        let kill = Shutdown::new();
        let mortal = mortal(env, &kill);
        let hosts = InProcessHosts {
            env: env.clone(),
            mortal: mortal.clone(),
            plans: self.plans.clone(),
            id: id.clone(),
            exchange: settings::exchange(configuration),
            secret: self.secret.clone(),
            scratch,
            start_timeout: configuration.host.start_timeout.into(),
            kill: kill.clone(),
            alive: Arc::new(alive),
        };
        let services = TaskManagerServices {
            env: mortal,
            retrieval: self.retrieval.clone(),
            hosts: Box::new(move |id| {
                Ok((Arc::new(hosts) as Arc<dyn HostLauncher>, Arc::new(Logs::new(None, id.as_str()))))
            }),
        };
        let task_manager = TaskManager::start(tm, services).await.map_err(failed)?;
        let worker = Worker { _task_manager: task_manager, kill, alive: hosts_alive };
        let late = match &mut *self.running.lock() {
            Some(running) => {
                running.workers.insert(number, worker);
                None
            }
            None => Some(worker),
        };
        if let Some(worker) = late {
            worker.kill();
            return Err(self.has_ended());
        }
        Ok((number, instance))
    }

    /// Starts another TaskManager and waits until it is registered. Answers its number.
    pub(crate) async fn start_task_manager(&self) -> Result<u32, String> {
        let (number, instance) = self.launch_task_manager().await?;
        let env = &self.env;
        let registers = async {
            while !self.resources.view().await.iter().any(|w| w.info.instance == instance) {
                env.clock.sleep(LOOK_AGAIN).await;
            }
        };
        if thalweg_env::timeout(&*env.clock, REGISTERS_WITHIN, registers).await.is_err() {
            self.kill_task_manager(number).await?;
            let within = REGISTERS_WITHIN.as_secs();
            return Err(format!("TaskManager {number} did not register within {within} s; the log may say why"));
        }
        Ok(number)
    }

    /// Ends a TaskManager and its hosts as the end of their processes would, without a word to anybody; and waits until
    /// no task of it runs, at most for `host.stop-timeout`.
    pub(crate) async fn kill_task_manager(&self, number: u32) -> Result<(), String> {
        let worker = match &mut *self.running.lock() {
            None => return Err(self.has_ended()),
            Some(running) => running.workers.remove(&number).ok_or_else(|| {
                let there: Vec<_> = running.workers.keys().map(u32::to_string).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                format!("there is no TaskManager {number}; these run: {there}")
            })?,
        };
        let alive = worker.kill();
        self.hosts_end(number, alive).await;
        Ok(())
    }

    /// Numbers of the TaskManagers that run.
    pub(crate) fn task_managers(&self) -> Vec<u32> {
        self.running.lock().iter().flat_map(|running| running.workers.keys().copied()).collect()
    }

    /// Ends everything. Jobs that run are ended, and who waits for one is told that the cluster has ended.
    pub(crate) async fn end(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let hosts: Vec<_> = running.workers.into_iter().map(|(number, worker)| (number, worker.kill())).collect();
        // In the same breath, before it can look for TaskManagers that it takes for lost.
        running.job_manager.close(None).await;
        for (number, alive) in hosts {
            self.hosts_end(number, alive).await;
        }
        running.shutdown.trigger();
    }

    async fn hosts_end(&self, number: u32, mut alive: watch::Receiver<usize>) {
        let patience = self.configuration.host.stop_timeout.into();
        let ended = thalweg_env::timeout(&*self.env.clock, patience, alive.wait_for(|n| *n == 0)).await;
        if ended.is_err() {
            tracing::warn!(
                "a function of a task does not return: threads of TaskManager {number} run on, though it was ended"
            );
        }
    }
}

impl Worker {
    /// Tells nobody. Answers how many of its hosts have not ended.
    fn kill(self) -> watch::Receiver<usize> {
        self.kill.trigger();
        self.alive
    }
}

fn failed(e: ServiceError) -> String {
    e.to_string()
}
