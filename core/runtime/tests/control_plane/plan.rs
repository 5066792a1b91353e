//! What one schedule is like, drawn from its seed: the cluster, the jobs, and which misfortunes it knows.

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};
use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{BlobKey, Edge, JobGraph, JobId, OperatorInfo, Partitioner, Vertex, VertexId, VertexRole};
use thalweg_rpc::{HeartbeatSettings, RetrySettings};
use thalweg_testkit::harness::Weather;
use thalweg_wire::{ExecutionMode, JobSpec, RestartStrategy};

/// How long a call waits.
pub const RPC: Duration = Duration::from_secs(10);
/// A job that waits longer for its slots fails.
pub const SLOT_REQUEST: Duration = Duration::from_secs(300);
/// After a change of leaders, tasks that were not found within this are lost.
pub const RECONCILE: Duration = Duration::from_secs(15);
/// Tasks that do not end in time after a cancel are ended by force.
pub const CANCEL: Duration = Duration::from_secs(30);
/// An offered slot that nobody takes is freed after this.
pub const SLOT: Duration = Duration::from_secs(10);
/// A worker of an active provider that is idle for so long is ended.
pub const IDLE: Duration = Duration::from_secs(30);
/// A TaskManager that finds no leader for so long ends.
pub const REGISTRATION: Duration = Duration::from_secs(300);
/// How long a TaskManager asks for a JobMaster that is not there.
pub const PATIENCE: Duration = Duration::from_secs(3);

pub fn heartbeat() -> HeartbeatSettings {
    HeartbeatSettings::default()
}

pub fn registration() -> RetrySettings {
    RetrySettings::default()
}

/// Kinds of misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillTaskManager,
    StopTaskManager,
    KillHost,
    StopHost,
    StopBoth,
    BreakLink,
    CutOff,
    KillJobManager,
    StopJobManager,
    /// A JobManager is stopped, another is elected, and the first one wakes.
    Depose,
    /// A TaskManager is cut off until it is given up; when it is back, another JobManager leads.
    MissTheChange,
    Storms,
    StoreTrouble,
    ClientDies,
}

const FAULTS: [Fault; 14] = [
    Fault::KillTaskManager,
    Fault::StopTaskManager,
    Fault::KillHost,
    Fault::StopHost,
    Fault::StopBoth,
    Fault::BreakLink,
    Fault::CutOff,
    Fault::KillJobManager,
    Fault::StopJobManager,
    Fault::Depose,
    Fault::MissTheChange,
    Fault::Storms,
    Fault::StoreTrouble,
    Fault::ClientDies,
];

/// One job.
#[derive(Debug, Clone)]
pub struct JobPlan {
    pub job: JobId,
    pub spec: JobSpec,
    pub submit_at: Duration,
    pub cancel_at: Option<Duration>,
    /// Chance in thousandths that one of its tasks fails in one attempt.
    pub fails: u32,
    /// Longest work of a task.
    pub work: Duration,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The store survives the JobManager.
    pub durable: bool,
    pub active: bool,
    /// Workers of an active provider survive the JobManager.
    pub recovers: bool,
    pub quota: u32,
    pub task_managers: usize,
    pub slots: u32,
    /// A TaskManager that is started again has its old name.
    pub fixed_names: bool,
    pub orphan_timeout: Duration,
    pub jobs: Vec<JobPlan>,
    pub chaos_for: Duration,
    pub faults: Vec<Fault>,
    pub fault_every: Duration,
    /// Longest start of a host.
    pub host_start: Duration,
    /// Chance in thousandths that a host does not start.
    pub host_fails: u32,
    /// Chance in thousandths that a task does not end when it is told to.
    pub stubborn: u32,
    pub weather: Weather,
    /// Chances in thousandths that a write fails for certain, and that nobody knows.
    pub store: (u32, u32),
    /// Some sub-systems are slow to answer.
    pub store_delay: Duration,
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Plan {
    /// Draws one.
    pub fn draw(rng: &mut SmallRng) -> Self {
        // Some schedules are about one leader after another, and little else.
        let leaders = rng.random_bool(0.2);
        let durable = leaders || rng.random_bool(0.6);
        let active = rng.random_bool(0.3);
        let task_managers = rng.random_range(1..=4);
        let slots = rng.random_range(1..=3);
        let total = task_managers as u32 * slots;
        let count = rng.random_range(1..=4);
        let jobs = (1..=count).map(|n| job(rng, n, total.min(4))).collect::<Vec<_>>();
        let needed: u32 = jobs.iter().map(|j| j.spec.graph.slots()).sum();
        let mut faults: Vec<Fault> = FAULTS.iter().copied().filter(|_| rng.random_bool(0.4)).collect();
        if faults.is_empty() {
            faults.push(Fault::KillTaskManager);
        }
        if leaders {
            faults = match rng.random_range(0..3) {
                0 => vec![Fault::Depose, Fault::KillJobManager, Fault::KillHost],
                1 => vec![Fault::MissTheChange, Fault::KillHost],
                _ => vec![Fault::MissTheChange],
            };
        }
        faults.retain(|f| !matches!(f, Fault::Depose | Fault::MissTheChange) || durable);
        let late = *[0, 0, 100, 400].choose(rng).unwrap_or(&0);
        let slowest = *[2, 20, 200, 2000].choose(rng).unwrap_or(&2);
        Self {
            durable,
            active,
            recovers: rng.random_bool(0.5),
            quota: needed.div_ceil(slots) + rng.random_range(0..=1),
            task_managers,
            slots,
            fixed_names: rng.random_bool(0.5),
            orphan_timeout: if leaders || durable && rng.random_bool(0.8) {
                Duration::from_secs(rng.random_range(5..200))
            } else {
                Duration::ZERO
            },
            jobs,
            chaos_for: Duration::from_secs(rng.random_range(20..150) + if leaders { 80 } else { 0 }),
            faults,
            fault_every: if leaders {
                Duration::from_secs(rng.random_range(10..40))
            } else {
                millis(*[1000, 4000, 10_000].choose(rng).unwrap_or(&4000))
            },
            host_start: millis(*[5, 300, 3000].choose(rng).unwrap_or(&300)),
            host_fails: *[0, 20, 150].choose(rng).unwrap_or(&0),
            stubborn: *[0, 0, 200].choose(rng).unwrap_or(&0),
            weather: Weather {
                delay: (millis(0), millis(slowest)),
                jam: *[0, 1, 5].choose(rng).unwrap_or(&0),
                jam_for: millis(*[2000, 15_000].choose(rng).unwrap_or(&2000)),
                hesitation: millis(*[1, 20, 200].choose(rng).unwrap_or(&1)),
                late_notice: late,
                notice_after: Duration::from_secs(60),
                grace: millis(*[0, 50, 1000].choose(rng).unwrap_or(&0)),
            },
            store: *[(0, 0), (0, 50), (20, 100)].choose(rng).unwrap_or(&(0, 0)),
            store_delay: millis(*[2, 50, 500].choose(rng).unwrap_or(&2)),
        }
    }
}

fn job(rng: &mut SmallRng, n: u8, most: u32) -> JobPlan {
    let slots = rng.random_range(1..=most);
    let committers = rng.random_range(0..=2u32);
    let bounded = rng.random_bool(0.75);
    let delay = millis(*[0, 50, 1000].choose(rng).unwrap_or(&0));
    let restart = match rng.random_range(0..6) {
        0 => RestartStrategy::None,
        1 => RestartStrategy::FixedDelay { attempts: rng.random_range(1..5), delay },
        2 => RestartStrategy::FailureRate { max_failures: 3, interval: Duration::from_secs(60), delay },
        3 => RestartStrategy::ExponentialDelay {
            initial: millis(50),
            max: Duration::from_secs(5),
            multiplier: 2.0,
            reset_after: Duration::from_secs(60),
            jitter: 0.1,
            attempts: None,
        },
        _ => RestartStrategy::ByKind,
    };
    let attached = rng.random_bool(0.3);
    let cancel = rng.random_bool(0.3);
    JobPlan {
        job: JobId::from_bytes([n; 16]),
        spec: JobSpec {
            name: format!("job-{n}"),
            graph: graph(rng, slots, if bounded { committers } else { 0 }, bounded),
            executable: BlobKey::of(b"job"),
            args: Vec::new(),
            files: BTreeMap::new(),
            env: BTreeMap::new(),
            client_dir: String::new(),
            ordinal: 0,
            earlier: Vec::new(),
            default_parallelism: 1,
            mode: ExecutionMode::Automatic,
            restart,
            client_timeout: attached.then_some(Duration::from_secs(30)),
            options: BTreeMap::new(),
            plugins: Vec::new(),
            protocol: (1, 1),
        },
        submit_at: millis(rng.random_range(0..30_000)),
        cancel_at: cancel.then(|| millis(rng.random_range(0..100_000))),
        fails: *[0, 50, 300].choose(rng).unwrap_or(&0),
        work: millis(*[20, 2000, 30_000].choose(rng).unwrap_or(&2000)),
    }
}

/// One pipeline or more that have nothing to do with each other; records stay in their slot, or cross over, at
/// times to slots that are shared with nobody else.
fn graph(rng: &mut SmallRng, slots: u32, committers: u32, bounded: bool) -> JobGraph {
    let vertex = |uid: String, parallelism, role| Vertex {
        id: VertexId::from_uid(&uid),
        operators: vec![OperatorInfo { name: uid.clone(), uid, kind: "map".into(), states: Vec::new() }],
        parallelism,
        max_parallelism: 128,
        role,
        own_thread: false,
        slot_sharing_group: None,
    };
    let (mut vertices, mut edges) = (Vec::new(), Vec::new());
    let pipelines = *[1, 1, 1, 2, 3].choose(rng).unwrap_or(&1);
    for n in 0..pipelines {
        let sinks = if n == 0 { slots } else { rng.random_range(1..=slots) };
        let forward = rng.random_bool(0.3);
        let sources = if forward { sinks } else { rng.random_range(1..=slots) };
        let partitioner = if forward { Partitioner::Forward } else { Partitioner::Hash };
        let edge = |from, to, partitioner| Edge { from, to, partitioner, item: "u64".into(), feedback: false };
        let source = vertices.len() as u32;
        let apart = pipelines == 1 && !forward && slots > 1 && rng.random_bool(0.3);
        let (sources, sinks) = if apart { (1, slots - 1) } else { (sources, sinks) };
        vertices.push(vertex(format!("source-{n}"), sources, VertexRole::Task));
        vertices.push(vertex(format!("sink-{n}"), sinks, VertexRole::Task));
        edges.push(edge(source, source + 1, partitioner));
        let committers = if n == 0 || committers == 0 { committers } else { rng.random_range(0..=committers) };
        for c in 0..committers {
            edges.push(edge(source + 1, vertices.len() as u32, Partitioner::Hash));
            vertices.push(vertex(format!("sink-{n}-{c}/committer"), 1, VertexRole::Committer));
        }
        for vertex in vertices.iter_mut().skip(source as usize + 1).filter(|_| apart) {
            vertex.slot_sharing_group = Some("apart".into());
        }
    }
    JobGraph { vertices, edges, bounded }
}
