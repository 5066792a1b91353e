//! A runtime of our own, on which futures are driven from any thread, inside or outside of another runtime.

use futures::future::BoxFuture;
use std::{future::Future, io, sync::mpsc as std_mpsc};
use tokio::runtime::{Builder, Handle, Runtime};

/// See the module.
pub struct Blocking(Option<Runtime>);

impl Blocking {
    /// Starts the runtime, or ends the process.
    pub fn new() -> Self {
        match Self::try_new() {
            Ok(runtime) => runtime,
            Err(e) => {
                // No thread can be made: nothing that follows could work.
                eprintln!("thalweg: cannot start its runtime: {e}");
                std::process::exit(2);
            }
        }
    }

    /// Starts the runtime. An error when no thread can be made.
    pub fn try_new() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("thalweg").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// To spawn onto it.
    pub fn handle(&self) -> Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            // Taken only in `drop`.
            None => unreachable!("the runtime is there until the drop"),
        }
    }

    /// Drives a future to its end; an error when it panicked.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T, String> {
        let (send, receive) = std_mpsc::channel();
        let task = self.handle().spawn(async move {
            let _ = send.send(future.await);
        });
        let outcome = receive.recv();
        drop(task);
        outcome.map_err(|_| "a task of the runtime panicked".to_owned())
    }

    /// Drives a future to its end.
    pub fn block_on(&self, future: BoxFuture<'static, ()>) {
        let _ = self.run(future);
    }
}

impl Default for Blocking {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // Not the waiting kind of shutdown: this may be dropped on a thread of another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
