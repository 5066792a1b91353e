//! Runs a plan for a test, in this process: a job master of twenty lines around a real [`Engine`]. It restarts nothing
//! and is no executor for users; jobs run embedded through the same control plane as anywhere else.

mod operator;
mod stepped;

pub use operator::OperatorTester;
pub use stepped::{SteppedEnd, SteppedJob};

use crate::{
    engine::{Engine, EngineSetup, TaskListener},
    plan::Plan,
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use thalweg_env::Env;
use thalweg_model::{
    Attempt, Epoch, ExecutionState, FailureKind, HostPlace, JobId, Placement, RegionAttempt, SubtaskId, SubtaskMetrics,
    SubtaskPlace, TaskFailure, TaskManagerId, VertexRole,
};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, ErrorKind, Result as ServiceResult, ServiceError, ShuffleDescriptor,
    ShuffleEnvironment,
};
use thalweg_wire::{Deploy, TaskDeployment, TaskReport};

/// Carries nothing: for jobs of one host.
pub struct NoShuffle;

fn refused<T>() -> ServiceResult<T> {
    Err(ServiceError::new(ErrorKind::Unsupported, "open channel", "this test has one host"))
}

impl ShuffleEnvironment for NoShuffle {
    fn data_address(&self) -> Option<String> {
        None
    }
    fn open_writer(&self, _: ChannelId, _: std::task::Waker) -> ServiceResult<Box<dyn ChannelWriter>> {
        refused()
    }
    fn open_reader(
        &self,
        _: ChannelId,
        _: &ShuffleDescriptor,
        _: std::task::Waker,
    ) -> ServiceResult<Box<dyn ChannelReader>> {
        refused()
    }
    fn release(&self, _: JobId, _: RegionAttempt) {}
    fn traffic(&self) -> (u64, u64) {
        (0, 0)
    }
    fn memory_in_use(&self) -> usize {
        0
    }
}

/// Gathers what tasks report, for a test to wait on.
#[derive(Default)]
pub struct Reports {
    all: Mutex<Vec<TaskReport>>,
    more: Condvar,
}

impl TaskListener for Reports {
    fn on_report(&self, report: TaskReport) {
        self.all.lock().push(report);
        self.more.notify_all();
    }
}

impl Reports {
    /// All reports so far.
    pub fn all(&self) -> Vec<TaskReport> {
        self.all.lock().clone()
    }

    /// Waits until `done` says yes to the reports so far, at most a minute. Answers whether it did.
    pub fn wait(&self, mut done: impl FnMut(&[TaskReport]) -> bool) -> bool {
        let mut all = self.all.lock();
        while !done(&all) {
            if self.more.wait_for(&mut all, Duration::from_secs(60)).timed_out() {
                return done(&all);
            }
        }
        true
    }
}

/// How a [`LocalRun`] ended.
#[derive(Debug, Default)]
pub struct LocalResult {
    /// The first failure, if the job failed.
    pub failure: Option<TaskFailure>,
    /// What `collect` gathered, by uid.
    pub collected: BTreeMap<String, bytes::Bytes>,
    /// Counters at the end.
    pub metrics: Vec<(SubtaskId, SubtaskMetrics)>,
}

/// One run of a plan on one engine.
pub struct LocalRun {
    /// The engine.
    pub engine: Engine,
    /// What its tasks report.
    pub reports: Arc<Reports>,
    plan: Arc<Plan>,
    attempt: Attempt,
}

/// The first attempt of the first epoch.
pub const FIRST: Attempt = Attempt { epoch: Epoch(1), n: 0 };

/// Subtask i of each vertex in slot i of one host.
pub fn one_host(plan: &Plan, name: &TaskManagerId) -> Placement {
    let place = |slot| SubtaskPlace { host: 0, slot };
    Placement {
        hosts: vec![HostPlace { task_manager: name.clone(), data_address: None }],
        subtasks: plan.graph().vertices.iter().map(|v| (0..v.parallelism).map(place).collect()).collect(),
    }
}

impl LocalRun {
    /// Deploys the whole plan.
    pub fn start(plan: Arc<Plan>, env: Env, client_dir: PathBuf) -> LocalRun {
        Self::start_with(plan, env, client_dir, 64 << 20)
    }

    /// The same, with this much exchange memory.
    pub fn start_with(plan: Arc<Plan>, env: Env, client_dir: PathBuf, exchange_memory: usize) -> LocalRun {
        Self::start_measured(plan, env, client_dir, exchange_memory, None)
    }

    /// The same, with latency markers so often.
    pub fn start_measured(
        plan: Arc<Plan>,
        env: Env,
        client_dir: PathBuf,
        exchange_memory: usize,
        latency_interval: Option<Duration>,
    ) -> LocalRun {
        let name = TaskManagerId::new("local");
        let reports = Arc::new(Reports::default());
        let engine = Engine::new(EngineSetup {
            job: JobId::from_bytes([1; 16]),
            task_manager: name.clone(),
            plan: plan.clone(),
            env,
            shuffle: Arc::new(NoShuffle),
            listener: reports.clone(),
            exchange_memory,
            max_record: 16 << 20,
            buffer_timeout: Duration::from_millis(100),
            latency_interval,
            scratch: client_dir.clone(),
            client_dir,
        });
        let placement = one_host(&plan, &name);
        let tasks = placement.subtasks_of(0).map(|(subtask, _)| TaskDeployment { subtask, publish: None }).collect();
        engine.deploy(Deploy { attempt: FIRST, tasks, placement, descriptors: vec![] });
        LocalRun { engine, reports, plan, attempt: FIRST }
    }

    /// Waits for the job's end, lets committers publish when everything else is finished, and stops the engine.
    pub fn finish(self) -> LocalResult {
        let committers: BTreeSet<SubtaskId> = (0u32..)
            .zip(&self.plan.graph().vertices)
            .filter(|(_, v)| v.role == VertexRole::Committer)
            .map(|(vertex, _)| SubtaskId { vertex, index: 0 })
            .collect();
        let subtasks = self.plan.graph().subtasks() as usize;
        let failed = |all: &[TaskReport]| all.iter().any(|r| r.state == ExecutionState::Failed);
        let finished = |all: &[TaskReport]| all.iter().filter(|r| r.state == ExecutionState::Finished).count();
        let prepared = |all: &[TaskReport]| all.iter().filter(|r| r.prepared.is_some()).count();
        let canceled = |all: &[TaskReport]| all.iter().any(|r| r.state == ExecutionState::Canceled);
        let mut in_time = self.reports.wait(|all| {
            failed(all)
                || canceled(all)
                || finished(all) + committers.len() == subtasks && prepared(all) == committers.len()
        });
        if in_time && !failed(&self.reports.all()) {
            committers.iter().for_each(|c| self.engine.commit(*c, self.attempt));
            in_time = self.reports.wait(|all| failed(all) || canceled(all) || finished(all) == subtasks);
        }
        let metrics = self.engine.metrics().into_iter().map(|(subtask, _, metrics)| (subtask, metrics)).collect();
        self.engine.stop();
        let mut result = LocalResult { metrics, ..LocalResult::default() };
        for report in self.reports.all() {
            result.collected.extend(report.collected);
            result.failure = result.failure.or(report.failure);
        }
        if !in_time && result.failure.is_none() {
            let message = "the test's job said nothing for a minute, and was ended: it hangs, or has more to do than a test should";
            result.failure = Some(TaskFailure::new(FailureKind::Lost, message));
        }
        result
    }
}

/// A runtime for the I/O of a test, and the environment on it.
pub struct TestRuntime {
    runtime: tokio::runtime::Runtime,
    /// The system's clock, threads and sockets.
    pub env: Env,
}

impl TestRuntime {
    /// A new one with one worker.
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let env = Env::system(runtime.handle().clone());
        Ok(Self { runtime, env })
    }

    /// Drives a future to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
