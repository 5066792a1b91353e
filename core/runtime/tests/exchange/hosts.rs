//! Whole jobs on task hosts of one process, with slots that are threads and real connections between the hosts; without
//! TaskManagers and JobManager.

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use thalweg_api::{
    Environment, JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_dataflow::{
    Engine, EngineSetup, Plan,
    testing::{FIRST, NoShuffle, Reports, TestRuntime},
};
use thalweg_model::{ExecutionState, HostPlace, JobId, Placement, SubtaskPlace, TaskManagerId};
use thalweg_shuffle_network::{Compression, NetworkConfig};
use thalweg_spi::{EnvironmentSetup, PluginConfig, ShuffleEnvironment, kind};
use thalweg_testkit::Place;
use thalweg_wire::{Deploy, Descriptor, ExecutionMode, TaskDeployment};

const JOB: JobId = JobId::from_bytes([4; 16]);
/// Longest record, in bytes.
pub(crate) const MAX_RECORD: usize = 2 << 20;
/// A job that took so long hangs.
const BOUND: Duration = Duration::from_secs(60);

/// A shuffle for each host.
pub(crate) type Shuffles = Vec<Arc<dyn ShuffleEnvironment>>;

/// All slots in one process.
pub(crate) fn on_one() -> Shuffles {
    vec![Arc::new(NoShuffle)]
}

/// So many hosts with connections between them, and the least memory for these.
pub(crate) fn on_hosts(hosts: u32, compression: Compression, place: &Place, runtime: &TestRuntime) -> Shuffles {
    let open = |_| {
        let config = NetworkConfig { compression, ..NetworkConfig::default() };
        let context = place.context_with(runtime.env.clone());
        let shuffle = runtime.block_on(PluginConfig::<kind::ShuffleKind>::open(config, context)).unwrap();
        let (bind, secret) = ("tcp://127.0.0.1:0".to_owned(), Bytes::from_static(b"secret"));
        let max_parcel = MAX_RECORD + (1 << 20);
        shuffle.environment(EnvironmentSetup { job: JOB, bind, secret, memory: 1, max_parcel }).unwrap()
    };
    (0..hosts).map(open).collect()
}

/// The plan of a program at this parallelism.
pub(crate) fn plan_of(parallelism: u32, program: impl FnOnce(&Environment)) -> Arc<Plan> {
    let taken = Arc::new(Taker { plan: Mutex::new(None), ordinals: Ordinals::new(), parallelism });
    let env = Environment::with_executor(taken.clone());
    program(&env);
    let refused = env.execute("plan").map(|_| ()).unwrap_err().to_string();
    taken.plan.lock().take().unwrap_or_else(|| panic!("{refused}"))
}

/// Takes the plan of a program and runs nothing.
struct Taker {
    plan: Mutex<Option<Arc<Plan>>>,
    ordinals: Ordinals,
    parallelism: u32,
}

impl Executor for Taker {
    fn defaults(&self) -> ProgramDefaults {
        ProgramDefaults {
            parallelism: self.parallelism,
            mode: ExecutionMode::Streaming,
            client_dir: std::env::temp_dir(),
            files: None,
            is_client: true,
        }
    }
    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }
    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        *self.plan.lock() = Some(program.plan);
        Box::pin(async { Err(JobError::Program(vec!["its plan was taken".to_owned()])) })
    }
    fn block_on(&self, future: BoxFuture<'static, ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }
}

/// Where a subtask is, by its vertex, its number and how many hosts there are.
pub(crate) type Placing = fn(u32, u32, u32) -> SubtaskPlace;

/// Subtask i in slot i / hosts of host i % hosts.
pub(crate) fn in_turn(_: u32, i: u32, hosts: u32) -> SubtaskPlace {
    SubtaskPlace { host: i % hosts, slot: i / hosts }
}

/// The same, but single tasks, coordinators among them, are on the hosts in turn, too.
pub(crate) fn scattered(vertex: u32, i: u32, hosts: u32) -> SubtaskPlace {
    in_turn(vertex, vertex + i, hosts)
}

/// Answers the first failure.
pub(crate) fn run(plan: &Arc<Plan>, place: Placing, shuffles: Shuffles, runtime: &TestRuntime) -> Result<(), String> {
    let hosts = shuffles.len() as u32;
    let reports = Arc::new(Reports::default());
    let name = |host: u32| TaskManagerId::new(format!("host-{host}"));
    let addresses: Vec<_> = shuffles.iter().map(|s| s.data_address()).collect();
    let engines: Vec<_> = (0..)
        .zip(shuffles)
        .map(|(host, shuffle)| {
            Engine::new(EngineSetup {
                job: JOB,
                task_manager: name(host),
                plan: plan.clone(),
                env: runtime.env.clone(),
                shuffle,
                listener: reports.clone(),
                // Batches of 256 bytes, four of them in a ring.
                exchange_memory: 1,
                max_record: MAX_RECORD,
                buffer_timeout: Duration::from_millis(20),
                latency_interval: None,
                client_dir: std::env::temp_dir(),
                scratch: std::env::temp_dir(),
            })
        })
        .collect();
    let graph = plan.graph();
    let of_vertex = |(v, p): (u32, u32)| (0..p).map(|i| place(v, i, hosts)).collect();
    let host = |h: u32| HostPlace { task_manager: name(h), data_address: addresses[h as usize].clone() };
    let placement = Placement {
        hosts: (0..hosts).map(host).collect(),
        subtasks: (0..).zip(graph.vertices.iter().map(|v| v.parallelism)).map(of_vertex).collect(),
    };
    let addresses = &addresses;
    let of_edge = |(edge, from): (u32, u32)| {
        let address = move |i| addresses[place(from, i, hosts).host as usize].clone().unwrap_or_default();
        (0..graph.vertices[from as usize].parallelism).map(move |producer| Descriptor {
            edge,
            producer,
            bytes: Bytes::from(address(producer)),
        })
    };
    let descriptors: Vec<_> = (0..).zip(graph.edges.iter().map(|e| e.from)).flat_map(of_edge).collect();
    for (host, engine) in (0..).zip(&engines) {
        let tasks = placement.subtasks_of(host).map(|(subtask, _)| TaskDeployment { subtask, publish: None }).collect();
        let (placement, descriptors) = (placement.clone(), descriptors.clone());
        engine.deploy(Deploy { attempt: FIRST, tasks, placement, descriptors });
    }
    let clock = runtime.env.clock.clone();
    let until = clock.now() + BOUND;
    loop {
        let all = reports.all();
        if let Some(failure) = all.iter().find_map(|r| r.failure.as_ref()) {
            engines.iter().for_each(Engine::stop);
            return Err(failure.to_string());
        }
        if all.iter().filter(|r| r.state == ExecutionState::Finished).count() == graph.subtasks() as usize {
            break;
        }
        if clock.now() > until {
            let metrics: Vec<_> = engines.iter().flat_map(Engine::metrics).collect();
            panic!("the job stands still: {metrics:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    engines.iter().for_each(Engine::stop);
    Ok(())
}
