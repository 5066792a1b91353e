//! What a program is as a graph: an executor that takes the plan and runs nothing.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use thalweg_api::{
    Environment, ExecutionMode, JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_dataflow::Plan;
use thalweg_model::JobGraph;

struct Taker(Mutex<Option<Arc<Plan>>>, Ordinals);

impl Executor for Taker {
    fn defaults(&self) -> ProgramDefaults {
        ProgramDefaults {
            parallelism: 2,
            mode: ExecutionMode::Automatic,
            client_dir: std::env::temp_dir(),
            files: None,
            is_client: true,
        }
    }
    fn ordinals(&self) -> &Ordinals {
        &self.1
    }
    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        *self.0.lock() = Some(program.plan);
        Box::pin(async { Err(JobError::Program(vec!["its plan was taken".to_owned()])) })
    }
    fn block_on(&self, future: BoxFuture<'static, ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    }
}

/// The graph of a program with a default parallelism of 2, or what is wrong with it.
pub fn graph_of(mode: ExecutionMode, program: impl FnOnce(&Environment)) -> Result<JobGraph, String> {
    let taker = Arc::new(Taker(Mutex::new(None), Ordinals::new()));
    let env = Environment::with_executor(taker.clone());
    env.mode(mode);
    program(&env);
    let error = env.execute("taken").unwrap_err().to_string();
    taker.0.lock().take().map(|plan| plan.graph().clone()).ok_or(error)
}
