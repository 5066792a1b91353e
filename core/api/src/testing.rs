//! Runs programs in a test, on one engine in this process.
//!
//! It restarts nothing, and is no executor for users: embedded jobs go through the same control plane as all others.

use crate::{
    Environment, JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use thalweg_dataflow::{
    Plan,
    broadcast::{BroadcastProcessFunction, BroadcastSpec},
    either::{CoOf, EitherKey, KeyedCoProcess},
    fold::ToList,
    key::ByValue,
    keyed::{KeyedProcess, ProcessSpec as KeyedSpec},
    keyed_broadcast::{KeyedBroadcastProcessFunction, KeyedBroadcastSpec},
    ops::ClonedToSubtasks,
    process::ProcessSpec,
    side::Sides,
    testing::{LocalResult, LocalRun, SteppedEnd, SteppedJob},
    window::{TimeWindows, WindowSpec},
};
use thalweg_model::{FailureKind, JobId, JobStatus, TaskFailure, UnixMillis, VertexRole};
use thalweg_wire::{ExecutionMode, JobResult};

pub use thalweg_dataflow::{
    Either,
    task::Snapshot,
    testing::{OperatorTester, TestRuntime},
};

/// A function without keys, for an [`OperatorTester`].
pub fn process<F>(f: F) -> ProcessSpec<F> {
    ProcessSpec { f, sides: Sides::default() }
}

/// A function over a stream of keys, for an [`OperatorTester`]; and how the key is found.
pub fn keyed_process<T, F, S>(f: F, key: S) -> KeyedSpec<F, ByValue<S>>
where
    F: KeyedProcess<T>,
    S: Fn(&T) -> F::Key + ClonedToSubtasks,
{
    KeyedSpec { f, key: ByValue(key), sides: Sides::default() }
}

/// A function of windows of one length, for an [`OperatorTester`]; and how the key is found.
pub fn windows<T, S, R>(of: TimeWindows, key: S, f: R) -> WindowSpec<T, ToList, ByValue<S>, R> {
    let sides = Sides::default();
    WindowSpec { windows: of, lateness: 0, fold: ToList, key: ByValue(key), result: f, late: None, sides }
}

/// A function over two keyed streams, for an [`OperatorTester`] that is fed [`Either`]; and how the keys are found.
pub fn co_process<A, B, F, S, R>(f: F, left: S, right: R) -> KeyedSpec<CoOf<F, A, B>, EitherKey<ByValue<S>, ByValue<R>>>
where
    F: KeyedCoProcess<A, B>,
    S: Fn(&A) -> F::Key + ClonedToSubtasks,
    R: Fn(&B) -> F::Key + ClonedToSubtasks,
{
    let key = EitherKey { left: ByValue(left), right: ByValue(right) };
    KeyedSpec { f: CoOf::new(f), key, sides: Sides::default() }
}

/// A function of a stream and a broadcast one, for an [`OperatorTester`] that is fed [`Either`]: records on the left, what is
/// broadcast on the right.
pub fn broadcast_process<A, B, F: BroadcastProcessFunction<A, B>>(f: F) -> BroadcastSpec<F, A, B> {
    BroadcastSpec::new(f, Sides::default())
}

/// The same with the state of keys, and how the key is found.
pub fn keyed_broadcast_process<A, B, F, S>(f: F, key: S) -> KeyedBroadcastSpec<F, ByValue<S>, A, B>
where
    F: KeyedBroadcastProcessFunction<A, B>,
    S: Fn(&A) -> F::Key + ClonedToSubtasks,
{
    KeyedBroadcastSpec::new(f, ByValue(key), Sides::default())
}

/// How a program's tasks are driven.
enum Drive {
    /// By slots' threads of a real engine.
    Threads,
    /// One step after the other on the calling thread.
    Steps(Stepped),
}

/// One engine a program.
pub struct LocalExecutor {
    runtime: TestRuntime,
    parallelism: u32,
    dir: PathBuf,
    ordinals: Ordinals,
    drive: Drive,
}

impl LocalExecutor {
    /// Programs have this parallelism, and their relative paths begin in this folder.
    pub fn new(parallelism: u32, dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        let (runtime, ordinals) = (TestRuntime::new()?, Ordinals::new());
        Ok(Self { runtime, parallelism, dir: dir.into(), ordinals, drive: Drive::Threads })
    }

    fn run(&self, plan: &Arc<Plan>) -> LocalResult {
        let env = self.runtime.env.clone();
        match &self.drive {
            Drive::Threads => LocalRun::start(plan.clone(), env, self.dir.clone()).finish(),
            Drive::Steps(steps) => {
                let mut job = match SteppedJob::start(plan, &env, steps.seed, steps.from.clone(), &self.dir) {
                    Ok(job) => job,
                    Err(failure) => return LocalResult { failure: Some(failure), ..LocalResult::default() },
                };
                let failure = match job.run(steps.checkpoint_at) {
                    Ok(SteppedEnd::Finished) => None,
                    Ok(SteppedEnd::Checkpoint(snapshot)) => {
                        *steps.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot);
                        Some(TaskFailure::new(FailureKind::Lost, "ended by its checkpoint"))
                    }
                    Err(failure) => Some(failure),
                };
                LocalResult { failure, collected: job.collected().clone(), metrics: job.metrics() }
            }
        }
    }
}

/// An environment for a test.
pub fn environment(parallelism: u32, dir: impl Into<PathBuf>) -> std::io::Result<Environment> {
    Ok(Environment::with_executor(Arc::new(LocalExecutor::new(parallelism, dir)?)))
}

/// An environment whose jobs run on the calling thread, one step after the other, in an order that the seed gives: tasks
/// stall, budgets and channels are tiny, and time jumps instead of passing. One seed gives one run.
///
/// For programs whose operators keep to themselves; a source of sockets, say, waits for nobody here.
pub fn stepped(parallelism: u32, dir: impl Into<PathBuf>, seed: u64) -> std::io::Result<Environment> {
    Stepped { seed, ..Stepped::default() }.environment(parallelism, dir)
}

/// Steps with a checkpoint, or from one on.
#[derive(Debug, Clone, Default)]
pub struct Stepped {
    /// Gives the order of steps.
    pub seed: u64,
    /// What a job begins with; a job of any parallelism.
    pub from: Snapshot,
    /// In which round a checkpoint is asked for. If it becomes complete the job fails, and `taken` has it.
    pub checkpoint_at: Option<u64>,
    /// The last checkpoint that was complete.
    pub taken: Arc<Mutex<Option<Snapshot>>>,
}

impl Stepped {
    /// An environment whose jobs run so.
    pub fn environment(self, parallelism: u32, dir: impl Into<PathBuf>) -> std::io::Result<Environment> {
        let executor = LocalExecutor { drive: Drive::Steps(self), ..LocalExecutor::new(parallelism, dir)? };
        Ok(Environment::with_executor(Arc::new(executor)))
    }
}

struct Ended(JobResult);

impl RunningJob for Ended {
    fn id(&self) -> JobId {
        self.0.job
    }
    fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>> {
        let result = self.0.clone();
        Box::pin(async move { Ok(result) })
    }
    fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Executor for LocalExecutor {
    fn defaults(&self) -> ProgramDefaults {
        let (parallelism, client_dir) = (self.parallelism, self.dir.clone());
        ProgramDefaults { parallelism, mode: ExecutionMode::Automatic, client_dir, files: None, is_client: true }
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    /// Runs the job to its end before it answers.
    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let plan = program.plan;
        let ended = self.run(&plan);
        let mut source_records = BTreeMap::new();
        let coordinators: Vec<String> = plan
            .graph()
            .vertices
            .iter()
            .filter(|v| v.role == VertexRole::Coordinator)
            .filter_map(|v| Some(v.operators.first()?.uid.strip_suffix("/coordinator")?.to_owned()))
            .collect();
        for (subtask, metrics) in &ended.metrics {
            let head = plan.graph().vertices.get(subtask.vertex as usize).and_then(|v| v.operators.first());
            if let Some(head) = head.filter(|o| coordinators.contains(&o.uid)) {
                *source_records.entry(head.uid.clone()).or_default() += metrics.records_in;
            }
        }
        let result = JobResult {
            job: JobId::from_bytes([program.ordinal as u8; 16]),
            name: program.name,
            status: if ended.failure.is_some() { JobStatus::Failed } else { JobStatus::Finished },
            failure: ended.failure,
            started: UnixMillis(0),
            ended: UnixMillis(0),
            attempt: 0,
            collected: ended.collected,
            source_records,
        };
        Box::pin(async move { Ok(Arc::new(Ended(result)) as Arc<dyn RunningJob>) })
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.runtime.block_on(future);
    }
}
