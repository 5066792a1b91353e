//! Tasks and threads, each with a name.

use futures::future::BoxFuture;
use std::{future::Future, thread};

/// A spawned task. Dropping it does not end the task; [`Task::abort`] does, at its next await.
pub struct Task(tokio::task::JoinHandle<()>);

impl Task {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Resolves when the task has ended, by itself or aborted; `Err` with the message when it panicked.
    pub async fn join(self) -> Result<(), String> {
        match self.0.await {
            Err(e) if e.is_panic() => Err(panic_message(&*e.into_panic())),
            _ => Ok(()),
        }
    }
}

/// What a panic said.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic without a message".to_owned())
}

/// Starts tasks and threads.
pub trait Spawner: Send + Sync + 'static {
    /// Runs the future on the runtime. It is dropped when the runtime ends.
    fn spawn_boxed(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task;
    /// Runs the closure on a thread of its own, named so.
    fn thread(&self, name: String, run: Box<dyn FnOnce() + Send>) -> std::io::Result<thread::JoinHandle<()>>;
}

impl dyn Spawner {
    /// Runs the future on the runtime.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task {
        self.spawn_boxed(name, Box::pin(future))
    }

    /// Runs the future on the runtime, after its first step was taken here and now: what it sends first is sent before
    /// this returns, so that calls leave in the order in which they were decided.
    pub fn spawn_started(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let mut future: BoxFuture<'static, ()> = Box::pin(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if future.as_mut().poll(&mut context).is_pending() {
            // Its next poll brings the right waker.
            self.spawn_boxed(name, future);
        }
    }
}

/// Tasks on a tokio runtime, threads of the system.
pub struct SystemSpawner {
    runtime: tokio::runtime::Handle,
}

impl SystemSpawner {
    /// Spawns onto this runtime.
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { runtime }
    }
}

impl Spawner for SystemSpawner {
    fn spawn_boxed(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        // A panic of a spawned task would otherwise be seen only by who joins it.
        let watched = async move {
            let run = std::panic::AssertUnwindSafe(future);
            if let Err(panic) = futures::FutureExt::catch_unwind(run).await {
                tracing::error!(task = name, "task panicked: {}", panic_message(&*panic));
                std::panic::resume_unwind(panic);
            }
        };
        Task(self.runtime.spawn(watched))
    }

    fn thread(&self, name: String, run: Box<dyn FnOnce() + Send>) -> std::io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name(name).spawn(run)
    }
}
