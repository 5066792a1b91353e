//! The seam behind which programs run. The runtime implements it, once for each role of a job's executable.

use crate::JobError;
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::ThreadId,
};
use thalweg_dataflow::Plan;
use thalweg_model::JobId;
use thalweg_wire::{ExecutionMode, JobResult, RestartStrategy};

/// What a program begins with where it does not say otherwise.
#[derive(Debug, Clone)]
pub struct ProgramDefaults {
    /// Subtasks of a vertex.
    pub parallelism: u32,
    /// Batch or streaming.
    pub mode: ExecutionMode,
    /// Where relative paths begin.
    pub client_dir: PathBuf,
    /// In a task host, the folder in which the job's cached files are.
    pub files: Option<PathBuf>,
    /// This process is the client: `on_client` runs, and inputs and outputs are looked at.
    pub is_client: bool,
}

/// A program that was written down.
pub struct Program {
    /// What users call it.
    pub name: String,
    /// Which `execute` of this process it is, from 0.
    pub ordinal: u32,
    /// What runs.
    pub plan: Arc<Plan>,
    /// Batch or streaming, never automatic.
    pub mode: ExecutionMode,
    /// Parallelism of what the program left open.
    pub default_parallelism: u32,
    /// When it starts again.
    pub restart: RestartStrategy,
    /// Names of the environment variables that the job sees.
    pub forward_env: Vec<String>,
    /// Cached files: name and path.
    pub files: BTreeMap<String, PathBuf>,
}

/// Runs programs.
pub trait Executor: Send + Sync + 'static {
    /// What programs begin with.
    fn defaults(&self) -> ProgramDefaults;
    /// Counts the executes of this process.
    fn ordinals(&self) -> &Ordinals;
    /// Did the cluster take the program of this number from an earlier run of this `main`, whose place this one takes? Its
    /// inputs and outputs were looked at then, and are as the job has made them since.
    fn has_taken(&self, _ordinal: u32) -> bool {
        false
    }
    /// Takes a program. In a task host that this program is for it never resolves.
    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>>;
    /// Drives the future to its end on the calling thread, which may be inside or outside of a tokio runtime.
    fn block_on(&self, future: BoxFuture<'static, ()>);
}

/// A job that was accepted.
pub trait RunningJob: Send + Sync {
    /// Its id.
    fn id(&self) -> JobId;
    /// Resolves when it has ended. A job that failed or was cancelled has a result too.
    fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>>;
    /// Asks for its end.
    fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>>;
}

/// Numbers the executes of one process. A task host runs `main` again and must meet them in the same order, so they
/// belong to one thread.
#[derive(Default)]
pub struct Ordinals(Mutex<Option<(ThreadId, u32)>>);

impl Ordinals {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number that comes next.
    pub fn coming(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |(_, next)| next)
    }

    /// The next number, if this is the thread that had the first.
    pub fn next(&self) -> Result<u32, JobError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let me = std::thread::current().id();
        let (owner, next) = state.get_or_insert((me, 0));
        if *owner != me {
            return Err(JobError::Program(vec![
                "execute() was called on a second thread: a task host runs main() again and must meet the executes in the same order, so call all of them on one thread; in tests, give each function an environment of its own (thalweg::testing::InProcessCluster)"
                    .to_owned(),
            ]));
        }
        let ordinal = *next;
        *next += 1;
        Ok(ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executes_are_numbered_on_one_thread() {
        let ordinals = Arc::new(Ordinals::new());
        assert_eq!((ordinals.next().unwrap(), ordinals.next().unwrap()), (0, 1));
        let other = ordinals.clone();
        let error = std::thread::Builder::new().spawn(move || other.next().unwrap_err().to_string()).unwrap();
        assert!(error.join().unwrap().contains("second thread"));
    }
}
