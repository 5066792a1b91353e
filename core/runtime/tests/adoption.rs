//! How long a new leader needs for a thousand jobs: the shipped JobManager and TaskManagers in one process, over the
//! in-memory transport, with a store in memory and hosts that do nothing. A figure, no test, and ignored as such.
//!
//! `THALWEG_JOBS` says how many (1,000), `THALWEG_ROUNDS` how often the leader changes (5).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{sync::Arc, time::Duration};
use thalweg_blob_local as _;
use thalweg_config::{Configuration, Sources};
use thalweg_control::{JobManager, JobManagerServices, dispatcher::Submitted};
use thalweg_deployment_session as _;
use thalweg_env::{Address, Env, Shutdown};
use thalweg_high_availability_standalone as _;
use thalweg_model::{
    Attempt, ExecutionState, FailureKind, InstanceId, JobGraph, JobId, JobStatus, OperatorInfo, SubtaskMetrics,
    TaskFailure, TaskManagerId, Vertex, VertexId, VertexRole,
};
use thalweg_rpc::{Role, RpcSettings};
use thalweg_runtime::settings;
use thalweg_shuffle_local as _;
use thalweg_spi::{Secret, Shuffle};
use thalweg_task::{
    TaskManager, TaskManagerServices,
    host::{HostEvent, HostEvents, HostHandle, HostLauncher, HostRequest, process::NO_EXECUTABLE},
    logs::Logs,
};
use thalweg_testkit::{
    doubles::{blob::MemoryBlobs, deployment::OpenHouse, high_availability::MemoryCluster, shuffle::MemoryShuffle},
    eventually,
};
use thalweg_wire::{Deploy, ExecutionMode, FromHost, JobSpec, PROTOCOL, PROTOCOL_OLDEST, TaskReport, ToHost};
use tokio::sync::{mpsc, oneshot};

const TASK_MANAGERS: usize = 10;
const LIMIT: Duration = Duration::from_secs(60);

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn configuration() -> Configuration {
    let fixed =
        ["shuffle.type=local", "blob.type=local", "high-availability.type=standalone", "deployment.type=session"];
    let overrides = fixed.map(str::to_owned).to_vec();
    Configuration::load(Sources { file: None, environment: std::iter::empty(), overrides }).unwrap()
}

/// Hosts whose tasks run as soon as they are deployed, and do nothing.
struct IdleHosts(Env);

impl HostLauncher for IdleHosts {
    fn launch(&self, _: HostRequest, events: HostEvents) -> HostHandle {
        let (messages, mut queue) = mpsc::unbounded_channel();
        let kill = Shutdown::new();
        let killed = kill.clone();
        self.0.spawner.spawn("idle-host", async move {
            let mut host = IdleHost { deployed: Vec::new(), events };
            host.says(FromHost::Ready { data_address: None });
            loop {
                tokio::select! {
                    message = queue.recv() => match message {
                        Some(ToHost::Deploy(deploy)) => host.deploy(&deploy),
                        Some(ToHost::Cancel { .. }) => host.cancel(),
                        None | Some(ToHost::Stop) => break,
                        Some(_) => {}
                    },
                    () = killed.triggered() => break,
                }
            }
            (host.events)(HostEvent::Gone(TaskFailure::new(FailureKind::Lost, "it was ended")));
        });
        HostHandle { messages, kill, memory: tokio::sync::watch::Sender::new(0) }
    }
}

struct IdleHost {
    deployed: Vec<TaskReport>,
    events: HostEvents,
}

impl IdleHost {
    fn says(&self, message: FromHost) {
        (self.events)(HostEvent::Message(message));
    }

    fn enters(&mut self, state: ExecutionState) {
        for report in &mut self.deployed {
            report.state = state;
            (self.events)(HostEvent::Message(FromHost::Task(Box::new(report.clone()))));
        }
    }

    fn deploy(&mut self, deploy: &Deploy) {
        let report = |subtask, attempt: Attempt| TaskReport {
            subtask,
            attempt,
            state: ExecutionState::Deploying,
            failure: None,
            prepared: None,
            collected: Default::default(),
            metrics: SubtaskMetrics::default(),
        };
        self.deployed = deploy.tasks.iter().map(|task| report(task.subtask, deploy.attempt)).collect();
        self.enters(ExecutionState::Initializing);
        self.enters(ExecutionState::Running);
    }

    fn cancel(&mut self) {
        self.enters(ExecutionState::Canceled);
        self.deployed.clear();
    }
}

/// What all processes of the cluster share.
struct World {
    env: Env,
    configuration: Configuration,
    store: MemoryCluster,
    blobs: Arc<MemoryBlobs>,
    shuffle: MemoryShuffle,
}

impl World {
    fn speaks(&self, role: Role) -> RpcSettings {
        let instance = InstanceId::from_bytes(self.env.entropy.id());
        settings::rpc(&self.configuration, role, instance, Secret::new("open sesame"))
    }

    /// A JobManager that leads as soon as nobody else does.
    fn job_manager(&self, name: &str) -> impl Future<Output = JobManager> + Send + 'static {
        let mut config = settings::job_manager(&self.configuration, self.speaks(Role::JobManager), None);
        config.rpc_bind = Address::Memory(name.into());
        config.rest_bind = None;
        config.worker = None;
        let services = JobManagerServices {
            env: self.env.clone(),
            high_availability: self.store.process(),
            blobs: self.blobs.clone(),
            shuffle: self.shuffle.master(),
            provider: None,
            deployment: Arc::new(OpenHouse),
            main: None,
        };
        async move { JobManager::start(config, services).await.unwrap() }
    }

    async fn task_manager(&self, name: &str, slots: u32) -> TaskManager {
        let mut config = settings::task_manager(&self.configuration, self.speaks(Role::TaskManager), true);
        config.rpc_bind = Address::Memory(name.into());
        (config.id, config.slots) = (Some(TaskManagerId::new(name)), slots);
        let hosts = Arc::new(IdleHosts(self.env.clone()));
        let services = TaskManagerServices {
            env: self.env.clone(),
            retrieval: self.store.process(),
            hosts: Box::new(move |id| Ok((hosts as Arc<dyn HostLauncher>, Arc::new(Logs::new(None, id.as_str()))))),
        };
        TaskManager::start(config, services).await.unwrap()
    }
}

/// One task that never ends.
fn job(n: usize) -> JobSpec {
    let operator =
        OperatorInfo { uid: "numbers".into(), name: "numbers".into(), kind: "source".into(), states: vec![] };
    let vertex = Vertex {
        id: VertexId::from_uid("numbers"),
        operators: vec![operator],
        parallelism: 1,
        max_parallelism: 128,
        role: VertexRole::Task,
        own_thread: false,
        slot_sharing_group: None,
    };
    JobSpec {
        name: format!("job-{n}"),
        graph: JobGraph { vertices: vec![vertex], edges: vec![], bounded: false },
        executable: NO_EXECUTABLE,
        files: Default::default(),
        args: Vec::new(),
        env: Default::default(),
        client_dir: String::new(),
        ordinal: 0,
        earlier: Vec::new(),
        default_parallelism: 1,
        mode: ExecutionMode::Automatic,
        restart: Default::default(),
        client_timeout: None,
        options: Default::default(),
        plugins: Vec::new(),
        protocol: (PROTOCOL, PROTOCOL_OLDEST),
    }
}

/// Waits until so many jobs run.
async fn all_run(job_manager: &JobManager, jobs: usize) {
    eventually("every job runs", LIMIT, async || {
        let entries = job_manager.dispatcher().entries().await;
        (entries.iter().filter(|e| e.status == JobStatus::Running).count() == jobs).then_some(())
    })
    .await;
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {} ms, worst {} ms of {}", median.as_millis(), worst.as_millis(), times.len());
}

#[test]
#[ignore = "measures"]
fn a_new_leader_lists_and_adopts_a_thousand_jobs() {
    let (jobs, rounds) = (number("THALWEG_JOBS", 1000), number("THALWEG_ROUNDS", 5).max(1));
    thalweg_testkit::run("a thousand jobs", async move {
        let env = Env::in_process(tokio::runtime::Handle::current());
        let world = World {
            env: env.clone(),
            configuration: configuration(),
            store: MemoryCluster::default(),
            blobs: Arc::new(MemoryBlobs::default()),
            shuffle: MemoryShuffle::default(),
        };
        let mut leader = world.job_manager("jm-0").await;
        let mut task_managers = Vec::new();
        for n in 0..TASK_MANAGERS {
            task_managers.push(world.task_manager(&format!("tm-{n}"), jobs.div_ceil(TASK_MANAGERS) as u32).await);
        }
        for n in 0..jobs {
            let id = JobId::from_bytes(env.entropy.id());
            let answer = leader.dispatcher().submit(id, Box::new(job(n)), false).await;
            assert!(matches!(answer, Some(Submitted::Accepted)), "{answer:?}");
        }
        all_run(&leader, jobs).await;
        let (mut listed, mut adopted) = (Vec::new(), Vec::new());
        for n in 1..=rounds {
            // It stands by before the other one goes.
            let (leads, next) = oneshot::channel();
            let standby = world.job_manager(&format!("jm-{n}"));
            env.spawner.spawn("standby", async move { drop(leads.send(standby.await)) });
            env.clock.sleep(Duration::from_millis(200)).await;
            let (office, left) = (leader.epoch(), env.clock.now());
            leader.close(None).await;
            leader = next.await.unwrap();
            listed.push(env.clock.now().since(left));
            all_run(&leader, jobs).await;
            adopted.push(env.clock.now().since(left));
            assert!(leader.epoch() > office, "epochs grow");
            for entry in leader.dispatcher().entries().await {
                let view = leader.dispatcher().view(entry.id).await.unwrap();
                assert_eq!((view.attempt, view.status), (0, JobStatus::Running), "it was adopted as it was");
            }
        }
        println!("{jobs} stored jobs of one slot on {TASK_MANAGERS} TaskManagers, all in one process");
        told("the old leader goes; until the next one has listed them and gives its word", listed);
        told("  until it has adopted them all", adopted);
    });
}
