//! For tests of jobs: [`InProcessCluster`], a cluster that a test starts and ends, and the environments of the API's
//! own tests as the [`Environment`] that programs take.

use crate::{
    Environment,
    blocking::Blocking,
    embedded::program_defaults,
    in_process::{Cluster, FIXED, NO_EFFECT},
};
use futures::future::BoxFuture;
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Weak},
};
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_config::{Configuration, Source};
use thalweg_env::Env;

/// An environment whose programs run on one engine alone, see [`thalweg_api::testing::environment`].
pub fn environment(parallelism: u32, dir: impl Into<PathBuf>) -> io::Result<Environment> {
    thalweg_api::testing::environment(parallelism, dir).map(Environment::from)
}

/// An environment whose programs run in steps on the calling thread, see [`thalweg_api::testing::stepped`].
pub fn stepped(parallelism: u32, dir: impl Into<PathBuf>, seed: u64) -> io::Result<Environment> {
    thalweg_api::testing::stepped(parallelism, dir, seed).map(Environment::from)
}

/// Why a cluster could not do what a test asked for.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(String);

/// The same words as `Display`: a test that unwraps or returns this error prints it so.
impl std::fmt::Debug for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A cluster in the test's process: one JobManager and some TaskManagers, as on a cluster of processes, over an
/// in-memory network. It belongs to the test that starts it and ends when it is dropped, its jobs too; any number may
/// run at once.
///
/// Each TaskManager has a host of its own for each job, and what goes from one to another is encoded and passes the
/// `network` shuffle. So a record that cannot be read back, or is longer than `exchange.max-record`, fails here as it
/// does on a cluster. What is not tested here: that `main` runs again in each host (the program is built once),
/// arguments and environment variables, and limits of memory.
///
/// ```no_run
/// use thalweg_runtime::testing::InProcessCluster;
///
/// let cluster = InProcessCluster::builder().task_managers(2).slots(2).option("restart.type", "none").start()?;
/// let env = cluster.environment();
/// env.sequence(0..1000).key_by(|n| n % 7).count().discard();
/// env.execute("counts")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct InProcessCluster {
    running: Arc<Running>,
    parallelism: u32,
}

struct Running {
    cluster: Arc<Cluster>,
    blocking: Blocking,
}

impl InProcessCluster {
    /// Two TaskManagers of two slots.
    pub fn builder() -> InProcessClusterBuilder {
        InProcessClusterBuilder { task_managers: 2, slots: 2, options: Vec::new() }
    }

    /// An environment whose programs run here. Its parallelism is the number of slots that the cluster was started
    /// with, or `pipeline.parallelism`. Each environment is a `main` of its own: its executes belong to one thread.
    pub fn environment(&self) -> Environment {
        let executor = InProcessExecutor {
            running: Arc::downgrade(&self.running),
            parallelism: self.parallelism,
            ordinals: Ordinals::new(),
        };
        thalweg_api::Environment::with_executor(Arc::new(executor)).into()
    }

    /// Numbers of the TaskManagers that run, counted from 0 in the order of their starts.
    pub fn task_managers(&self) -> Vec<u32> {
        self.running.cluster.task_managers()
    }

    /// Starts another TaskManager, with as many slots as the others have, and waits until it is registered. Answers its
    /// number. An error when it does not register.
    pub fn start_task_manager(&self) -> Result<u32, ClusterError> {
        self.wait(|cluster| async move { cluster.start_task_manager().await })
    }

    /// Ends a TaskManager and its hosts as the end of their processes would, without a word: what its tasks have not
    /// sent is lost, and the JobManager notices at once that its connection closed. Answers when no task of it runs any
    /// more, or after `host.stop-timeout` where a function does not return. An error when there is no such TaskManager.
    pub fn kill_task_manager(&self, number: u32) -> Result<(), ClusterError> {
        self.wait(move |cluster| async move { cluster.kill_task_manager(number).await })
    }

    fn wait<T: Send + 'static, F: Future<Output = Result<T, String>> + Send + 'static>(
        &self,
        ask: impl FnOnce(Arc<Cluster>) -> F,
    ) -> Result<T, ClusterError> {
        self.running.blocking.run(ask(self.running.cluster.clone())).and_then(|answer| answer).map_err(ClusterError)
    }
}

impl Drop for InProcessCluster {
    fn drop(&mut self) {
        let cluster = self.running.cluster.clone();
        self.running.blocking.block_on(Box::pin(async move { cluster.end().await }));
    }
}

/// What an [`InProcessCluster`] begins with.
#[derive(Debug, Clone)]
pub struct InProcessClusterBuilder {
    task_managers: u32,
    slots: u32,
    options: Vec<(String, String)>,
}

/// Options that are the same in each such cluster, or that the builder says.
const TAKEN: [&str; 8] = [
    "blob.type",
    "cluster.name",
    "deployment.type",
    "high-availability.type",
    "shuffle.type",
    "task-manager.bind",
    "task-manager.id",
    "task-manager.slots",
];

/// A test that asks for too many slots shall not wait for minutes before it is told.
const SLOT_REQUEST_TIMEOUT: &str = "slot.request-timeout=10s";

impl InProcessClusterBuilder {
    /// How many TaskManagers it starts with: 2 if nobody says. More can be started later.
    pub fn task_managers(mut self, task_managers: u32) -> Self {
        self.task_managers = task_managers;
        self
    }

    /// Slots of each TaskManager: 2 if nobody says.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Sets an option of the configuration, such as `exchange.max-record` to `64KiB`. The last word on an option
    /// counts. `slot.request-timeout` is 10s if nobody says; all others are as on a cluster then. Environment variables
    /// and files are not looked at, so a test is the same everywhere.
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((key.into(), value.into()));
        self
    }

    fn configuration(&self) -> Result<Configuration, String> {
        let slots = format!("task-manager.slots={}", self.slots);
        let ours = ["cluster.name=in-process", "shuffle.type=network", &slots, SLOT_REQUEST_TIMEOUT];
        let ours: Vec<String> = FIXED.into_iter().chain(ours).map(str::to_owned).collect();
        let asked = self.options.iter().map(|(key, value)| format!("{key}={value}"));
        let configuration = Configuration::with(ours.iter().cloned().chain(asked)).map_err(|e| e.to_string())?;
        let by_others = |key: &&&str| match configuration.source_of(key) {
            None | Some(Source::Default) => false,
            Some(Source::Override(text)) => !ours.contains(text),
            Some(Source::File(_) | Source::Environment(_)) => true,
        };
        let mut wrong = Vec::new();
        for key in TAKEN.iter().filter(by_others) {
            let hint = if *key == "task-manager.slots" { ": say it by slots()" } else { "" };
            wrong.push(format!("{key} cannot be set for an in-process cluster{hint}"));
        }
        for key in configuration.set_below(&NO_EFFECT) {
            wrong.push(format!(
                "{key} has no effect in an in-process cluster: it has no REST, no other processes and no client"
            ));
        }
        if wrong.is_empty() { Ok(configuration) } else { Err(wrong.join("\n")) }
    }

    /// Starts the cluster; its TaskManagers are registered when it answers. An error when an option is unknown, wrong
    /// or not for such a cluster, or when there is no room for its folder (in `TMPDIR`) or its threads.
    pub fn start(self) -> Result<InProcessCluster, ClusterError> {
        let configuration = self.configuration().map_err(ClusterError)?;
        let slots = self.task_managers.saturating_mul(self.slots).max(1);
        let parallelism = Some(configuration.pipeline.parallelism).filter(|p| *p > 0).unwrap_or(slots);
        let no_threads = |e: io::Error| ClusterError(format!("cannot start the cluster's threads: {e}"));
        let blocking = Blocking::try_new().map_err(no_threads)?;
        let env = Env::in_process(blocking.handle());
        let started = blocking.run(async move { Cluster::start(env, configuration).await.map(Arc::new) });
        let cluster = started.and_then(|started| started).map_err(ClusterError)?;
        // From here on it ends when it is dropped, also by an error.
        let cluster = InProcessCluster { running: Arc::new(Running { cluster, blocking }), parallelism };
        for _ in 0..self.task_managers {
            cluster.start_task_manager()?;
        }
        Ok(cluster)
    }
}

/// Runs programs on a cluster that is not its own: it does not keep it from ending.
struct InProcessExecutor {
    running: Weak<Running>,
    parallelism: u32,
    ordinals: Ordinals,
}

impl Executor for InProcessExecutor {
    fn defaults(&self) -> ProgramDefaults {
        program_defaults(self.parallelism)
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let Some(running) = self.running.upgrade() else {
            let gone = "its in-process cluster was dropped: keep it until the last execute has answered";
            return Box::pin(async move { Err(JobError::Submission(gone.to_owned())) });
        };
        let cluster = running.cluster.clone();
        let submitted = running.blocking.handle().spawn(async move { cluster.submit(program).await });
        Box::pin(async move {
            submitted.await.unwrap_or_else(|e| Err(JobError::Submission(format!("the in-process cluster failed: {e}"))))
        })
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        match self.running.upgrade() {
            Some(running) => running.blocking.block_on(future),
            // Its job was refused, or has ended with the cluster. Without a runtime, the caller is told that there is
            // none.
            None => {
                if let Ok(blocking) = Blocking::try_new() {
                    blocking.block_on(future);
                }
            }
        }
    }
}
