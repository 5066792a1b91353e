//! The host role: `main` has run up to this job's execute, and from here on this process serves tasks.

use crate::{blocking::Blocking, role};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{os::unix::net::UnixStream, sync::Arc};
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_env::{BoxStream, Env};
use thalweg_model::{FailureKind, JobId, TaskFailure};
use thalweg_task::host::side::{self, Start};
use thalweg_wire::{FILES_DIR, JobResult};

/// See the module.
pub struct HostExecutor {
    start: Start,
    socket: Mutex<Option<UnixStream>>,
    ordinals: Ordinals,
    blocking: Blocking,
}

impl HostExecutor {
    /// Serves the job that the TaskManager named on this socket.
    pub fn new(start: Start, socket: UnixStream) -> Self {
        Self { start, socket: Mutex::new(Some(socket)), ordinals: Ordinals::new(), blocking: Blocking::new() }
    }

    fn refuse(&self, message: String) -> ! {
        if let Some(socket) = &mut *self.socket.lock() {
            role::refuse(socket, TaskFailure::new(FailureKind::Incompatible, message));
        }
        std::process::exit(1)
    }

    fn serve(&self, program: Program) -> ! {
        let Some(socket) = self.socket.lock().take() else { std::process::exit(1) };
        // This process is a host and nothing else: what a panic was doing is told with it.
        thalweg_dataflow::capture_backtraces();
        let start = self.start.clone();
        if let Some(path) = &start.output
            && let Err(e) = redirect_output(path)
        {
            eprintln!("thalweg: standard output stays where it is: {}: {e}", path.display());
        }
        let env = Env::system(self.blocking.handle());
        let served = self.blocking.run(async move {
            socket.set_nonblocking(true).map_err(|e| e.to_string())?;
            let stream = tokio::net::UnixStream::from_std(socket).map_err(|e| e.to_string())?;
            side::serve(&env, BoxStream::Unix(stream), start, program.plan).await
        });
        match served {
            Ok(Ok(())) => std::process::exit(0),
            Ok(Err(e)) | Err(e) => {
                eprintln!("thalweg: this host ends: {e}");
                std::process::exit(1)
            }
        }
    }
}

/// What `main` printed on its way here the client has printed too; what tasks print is the job's output.
fn redirect_output(path: &std::path::Path) -> std::io::Result<()> {
    std::io::Write::flush(&mut std::io::stdout())?;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    nix::unistd::dup2_stdout(&file).map_err(std::io::Error::from)
}

impl Executor for HostExecutor {
    fn defaults(&self) -> ProgramDefaults {
        let spec = &self.start.spec;
        ProgramDefaults {
            parallelism: spec.default_parallelism,
            mode: spec.mode,
            client_dir: spec.client_dir.clone().into(),
            files: Some(self.start.scratch.join(FILES_DIR)),
            is_client: false,
        }
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let wanted = self.start.spec.ordinal;
        if program.ordinal == wanted {
            self.serve(program);
        }
        match self.start.spec.earlier.get(program.ordinal as usize) {
            Some(result) => {
                let job: Arc<dyn RunningJob> = Arc::new(Earlier(result.clone()));
                Box::pin(async move { Ok(job) })
            }
            None => self.refuse(format!(
                "main() on the worker came to its execute number {} without having met number {wanted}",
                program.ordinal
            )),
        }
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.blocking.block_on(future);
    }
}

/// A job before this one, whose result was known when this one was submitted.
struct Earlier(JobResult);

impl RunningJob for Earlier {
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
