//! No cycle of full buffers stops a job: exchanges with the least memory that there may be, between slots of one process
//! and between hosts by way of the network; bursts, records of 1 MiB, a stream that parts and comes together again, all
//! to all twice, and a slow end. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
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
const MAX_RECORD: usize = 2 << 20;
/// A job that took so long hangs.
const BOUND: Duration = Duration::from_secs(60);

type Record = (u64, String);

/// What one number of the source becomes: mostly little, at times very many, or one that is 1 MiB long.
fn burst(seed: u64, i: u64) -> Vec<Record> {
    let mut random = SmallRng::seed_from_u64(seed ^ (i << 20));
    let many = match random.random_range(0..60) {
        0 => return vec![(i, "m".repeat(1 << 20))],
        1..4 => 2000,
        _ => random.random_range(0..4),
    };
    (0..many).map(|_| (random.random_range(0..1000), "s".repeat(random.random_range(0..60)))).collect()
}

/// A second burst, behind the first exchange.
fn again(record: Record) -> Vec<Record> {
    let more = if record.0.is_multiple_of(97) && record.1.len() < 60 { 300 } else { 0 };
    let copies = (0..more).map(|n| (record.0 + n, record.1.clone())).collect::<Vec<_>>();
    std::iter::once(record).chain(copies).collect()
}

fn weight(record: &Record) -> u64 {
    record.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(record.1.len() as u64)
}

/// Count and sum of what arrives.
#[derive(Default)]
struct Seen(AtomicU64, AtomicU64);

/// The job, and what must arrive.
fn job(seed: u64, parallelism: u32, numbers: u64) -> (Arc<Plan>, Arc<Seen>, (u64, u64)) {
    let taken = Arc::new(Taker { plan: Mutex::new(None), ordinals: Ordinals::new(), parallelism });
    let env = Environment::with_executor(taken.clone());
    let seen = Arc::new(Seen::default());
    let [left, right] = env
        .sequence(0..numbers)
        .flat_map(move |i| burst(seed, i))
        .key_by(|r: &Record| r.0)
        .stateful_map(|n: &mut u64, r: Record| {
            *n += 1;
            r
        })
        .flat_map(again)
        .split();
    let (left, right) = (left.rebalance(), right.key_by(|r: &Record| r.0 % 5).stateful_map(|_: &mut u64, r: Record| r));
    let sink = seen.clone();
    left.union(right).key_by(|r: &Record| r.0 % 7).stateful_map(|_: &mut u64, r: Record| r).for_each(move |r| {
        sink.1.fetch_add(weight(&r), Ordering::Relaxed);
        if sink.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(2003) {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let refused = env.execute("full buffers").map(|_| ()).unwrap_err().to_string();
    let plan = taken.plan.lock().take().unwrap_or_else(|| panic!("{refused}"));
    let (mut count, mut sum) = (0, 0u64);
    for record in (0..numbers).flat_map(|i| burst(seed, i)).flat_map(again) {
        count += 2;
        sum = sum.wrapping_add(weight(&record).wrapping_mul(2));
    }
    (plan, seen, (count, sum))
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

/// Subtask i in slot i / hosts of host i % hosts.
fn run(seed: u64, plan: &Arc<Plan>, hosts: u32, shuffles: Vec<Arc<dyn ShuffleEnvironment>>, runtime: &TestRuntime) {
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
    let place = |i| SubtaskPlace { host: i % hosts, slot: i / hosts };
    let host = |h: u32| HostPlace { task_manager: name(h), data_address: addresses[h as usize].clone() };
    let placement = Placement {
        hosts: (0..hosts).map(host).collect(),
        subtasks: graph.vertices.iter().map(|v| (0..v.parallelism).map(place).collect()).collect(),
    };
    let address = |producer: u32| addresses[(producer % hosts) as usize].clone().unwrap_or_default();
    let of_edge = |(edge, from): (u32, u32)| {
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
        let failure = all.iter().find_map(|r| r.failure.as_ref());
        assert!(failure.is_none(), "seed {seed}: {failure:?}");
        if all.iter().filter(|r| r.state == ExecutionState::Finished).count() == graph.subtasks() as usize {
            break;
        }
        if clock.now() > until {
            let metrics: Vec<_> = engines.iter().flat_map(Engine::metrics).collect();
            panic!("seed {seed}: the job stands still: {metrics:#?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    engines.iter().for_each(Engine::stop);
}

fn cases(default: u64, case: impl Fn(u64, &mut SmallRng)) {
    let seed = std::env::var("THALWEG_SEED").ok().map(|s| s.parse::<u64>().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().map_or(default, |n| n.parse().unwrap());
    for seed in seed.map_or(0..n, |seed| seed..seed + 1) {
        let run = || case(seed, &mut SmallRng::seed_from_u64(seed));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok(), "THALWEG_SEED={seed}");
    }
}

#[test]
fn between_the_slots_of_a_process_no_cycle_of_full_rings_stops_a_job() {
    let runtime = TestRuntime::new().unwrap();
    cases(6, |seed, random| {
        let (plan, seen, expected) = job(seed, random.random_range(1..6), 200);
        run(seed, &plan, 1, vec![Arc::new(NoShuffle)], &runtime);
        assert_eq!((seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed)), expected);
    });
}

#[test]
fn between_hosts_no_cycle_of_spent_credit_stops_a_job() {
    let runtime = TestRuntime::new().unwrap();
    let place = Place::new();
    cases(6, |seed, random| {
        let (parallelism, hosts) = (random.random_range(2..6), random.random_range(2..4));
        let (plan, seen, expected) = job(seed, parallelism, 120);
        let compression = if random.random() { Compression::Lz4 } else { Compression::None };
        let shuffles = (0..hosts)
            .map(|_| {
                let config = NetworkConfig { compression, ..NetworkConfig::default() };
                let context = place.context_with(runtime.env.clone());
                let shuffle = runtime.block_on(PluginConfig::<kind::ShuffleKind>::open(config, context)).unwrap();
                let (bind, secret) = ("tcp://127.0.0.1:0".to_owned(), Bytes::from_static(b"secret"));
                let max_parcel = MAX_RECORD + (1 << 20);
                shuffle.environment(EnvironmentSetup { job: JOB, bind, secret, memory: 1, max_parcel }).unwrap()
            })
            .collect();
        run(seed, &plan, hosts, shuffles, &runtime);
        assert_eq!((seen.0.load(Ordering::Relaxed), seen.1.load(Ordering::Relaxed)), expected);
    });
}
