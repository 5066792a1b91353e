//! Embedded: a program that was started by hand has its cluster in this process (`in_process`), with one TaskManager.
//! It is started with the first execute and lives as long as the process.

use crate::{
    blocking::Blocking,
    in_process::{Cluster, FIXED, Freeze, NO_EFFECT},
};
use futures::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_config::{Configuration, Sources};
use thalweg_env::Env;
use thalweg_wire::ExecutionMode;

/// What a program begins with in this process.
pub(crate) fn program_defaults(parallelism: u32) -> ProgramDefaults {
    ProgramDefaults {
        parallelism,
        mode: ExecutionMode::Automatic,
        client_dir: std::env::current_dir().unwrap_or_default(),
        files: None,
        is_client: true,
    }
}

/// Slots of the embedded TaskManager: a slot costs nothing until a job uses it.
const SLOTS: u32 = 1024;

/// So long may the end of a process wait for its tasks: one of them may be what ends it.
const EXIT_WITHIN: Duration = Duration::from_millis(50);

/// See the module.
pub struct EmbeddedExecutor {
    ordinals: Ordinals,
    parallelism: u32,
    cluster: Arc<tokio::sync::Mutex<Option<Result<Arc<Cluster>, String>>>>,
    blocking: Blocking,
}

impl EmbeddedExecutor {
    /// Nothing is started before the first execute.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let asked = configuration().ok().map(|c| c.pipeline.parallelism).filter(|p| *p > 0);
        Self {
            ordinals: Ordinals::new(),
            parallelism: asked.unwrap_or(cores),
            cluster: Arc::default(),
            blocking: Blocking::new(),
        }
    }
}

impl Default for EmbeddedExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor for EmbeddedExecutor {
    fn defaults(&self) -> ProgramDefaults {
        program_defaults(self.parallelism)
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let (cluster, handle) = (self.cluster.clone(), self.blocking.handle());
        let env = Env::in_process(handle.clone());
        let submitted = handle.spawn(async move {
            let mut cell = cluster.lock().await;
            if cell.is_none() {
                *cell = Some(start(env).await);
            }
            let started = match &*cell {
                Some(Ok(cluster)) => cluster.clone(),
                Some(Err(e)) => return Err(JobError::Submission(e.clone())),
                None => return Err(JobError::Submission("the embedded cluster did not start".into())),
            };
            drop(cell);
            started.submit(program).await
        });
        Box::pin(async move {
            submitted.await.unwrap_or_else(|e| Err(JobError::Submission(format!("the embedded cluster failed: {e}"))))
        })
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.blocking.block_on(future);
    }
}

fn configuration() -> Result<Configuration, String> {
    // What ties a process to its surroundings is fixed here; everything else may be set in the environment.
    let slots = format!("task-manager.slots={SLOTS}");
    let fixed = FIXED.into_iter().chain(["cluster.name=embedded", "shuffle.type=local", &slots]);
    let overrides = fixed.map(str::to_owned).collect();
    let sources = Sources { file: None, environment: std::env::vars(), overrides };
    Configuration::load(sources).map_err(|e| e.to_string())
}

async fn start(env: Env) -> Result<Arc<Cluster>, String> {
    let configuration = configuration()?;
    configuration.advice().iter().for_each(|advice| tracing::warn!("{advice}"));
    if let Some(file) = std::env::var_os("THALWEG_CONF") {
        let file = file.display();
        tracing::warn!(
            "THALWEG_CONF ({file}) has no effect in an embedded job, which reads no file: set its options by environment \
             variables, such as THALWEG__RESTART__TYPE=none"
        );
    }
    for key in configuration.set_below(&NO_EFFECT) {
        tracing::warn!("{key} has no effect in an embedded job: it has no REST, no other processes and no client");
    }
    let freeze = Freeze::default();
    let cluster = Cluster::start(freeze.env(&env), configuration).await?;
    // Most programs end while the traces of their last job are being removed.
    cluster.before_exit(move || freeze.now(EXIT_WITHIN));
    // Not waited for: the job waits for its slots.
    cluster.launch_task_manager().await?;
    Ok(Arc::new(cluster))
}
