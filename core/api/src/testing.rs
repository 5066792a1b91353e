//! Runs programs in a test, on one engine in this process.
//!
//! It restarts nothing, and is no executor for users: embedded jobs go through the same control plane as all others.

use crate::{
    Environment, JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use thalweg_dataflow::testing::{LocalRun, TestRuntime};
use thalweg_model::{JobId, JobStatus, UnixMillis, VertexRole};
use thalweg_wire::{ExecutionMode, JobResult};

/// One engine a program.
pub struct LocalExecutor {
    runtime: TestRuntime,
    parallelism: u32,
    dir: PathBuf,
    ordinals: Ordinals,
}

impl LocalExecutor {
    /// Programs have this parallelism, and their relative paths begin in this folder.
    pub fn new(parallelism: u32, dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        Ok(Self { runtime: TestRuntime::new()?, parallelism, dir: dir.into(), ordinals: Ordinals::new() })
    }
}

/// An environment for a test.
pub fn environment(parallelism: u32, dir: impl Into<PathBuf>) -> std::io::Result<Environment> {
    Ok(Environment::with_executor(Arc::new(LocalExecutor::new(parallelism, dir)?)))
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
        let ended = LocalRun::start(plan.clone(), self.runtime.env.clone(), self.dir.clone()).finish();
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
