//! Tasks that can be made to stand still for good, all at once: what ends with the process and its memory then neither sees
//! the other's end nor complains of it. Nothing is dropped.

use futures::future::BoxFuture;
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::Duration,
};
use thalweg_env::{Env, Spawner, Task};

/// Freezes tasks.
#[derive(Clone, Default)]
pub(crate) struct Freeze(Arc<State>);

#[derive(Default)]
struct State {
    frozen: AtomicBool,
    /// Tasks that are within a step.
    stepping: AtomicUsize,
}

impl Freeze {
    /// The same seams, but for tasks that this can freeze.
    pub(crate) fn env(&self, env: &Env) -> Env {
        Env { spawner: Arc::new(Freezing { spawner: env.spawner.clone(), freeze: self.clone() }), ..env.clone() }
    }

    /// From now on no task begins a step. Waits until none is within one, at most so long: one that takes longer may be
    /// what calls this.
    pub(crate) fn now(&self, at_most: Duration) {
        const LOOK_AGAIN: Duration = Duration::from_micros(50);
        self.0.frozen.store(true, SeqCst);
        for _ in 0..at_most.as_micros() / LOOK_AGAIN.as_micros() {
            if self.0.stepping.load(SeqCst) == 0 {
                return;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

struct Freezing {
    spawner: Arc<dyn Spawner>,
    freeze: Freeze,
}

impl Spawner for Freezing {
    fn spawn_boxed(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        self.spawner.spawn_boxed(name, Box::pin(Freezable { future, freeze: self.freeze.clone() }))
    }

    fn thread(&self, name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        self.spawner.thread(name, run)
    }
}

struct Freezable {
    future: BoxFuture<'static, ()>,
    freeze: Freeze,
}

/// Counted also when a step panics.
struct Step<'a>(&'a State);

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.0.stepping.fetch_sub(1, SeqCst);
    }
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { future, freeze } = &mut *self;
        // First counted, then looked: whoever freezes does it the other way round.
        freeze.0.stepping.fetch_add(1, SeqCst);
        let _step = Step(&freeze.0);
        if freeze.0.frozen.load(SeqCst) { Poll::Pending } else { future.as_mut().poll(cx) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_it_no_task_takes_a_step() {
        let freeze = Freeze::default();
        let env = freeze.env(&Env::in_process(tokio::runtime::Handle::current()));
        let steps = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let steps = steps.clone();
            env.spawner.spawn("steps", async move {
                loop {
                    // Both within one step.
                    steps.fetch_add(1, SeqCst);
                    std::thread::yield_now();
                    steps.fetch_add(1, SeqCst);
                    tokio::task::yield_now().await;
                }
            });
        }
        while steps.load(SeqCst) < 1000 {
            tokio::task::yield_now().await;
        }
        freeze.now(Duration::from_secs(10));
        let frozen = steps.load(SeqCst);
        assert!(frozen.is_multiple_of(2), "a task is within a step");
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(steps.load(SeqCst), frozen);
    }
}
