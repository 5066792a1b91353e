//! Tasks that can be killed as those of a process: all at once, wherever they wait, without a last word. Threads
//! cannot; who starts one must end it.

use futures::future::BoxFuture;
use std::{io, sync::Arc, thread::JoinHandle};
use thalweg_env::{Env, Shutdown, Spawner, Task};

struct Mortal {
    spawner: Arc<dyn Spawner>,
    kill: Shutdown,
}

/// The same seams, but for tasks that are gone as soon as `kill` is triggered: what they hold is dropped, connections
/// too.
pub(super) fn mortal(env: &Env, kill: &Shutdown) -> Env {
    Env { spawner: Arc::new(Mortal { spawner: env.spawner.clone(), kill: kill.clone() }), ..env.clone() }
}

impl Spawner for Mortal {
    fn spawn_boxed(&self, name: &'static str, future: BoxFuture<'static, ()>) -> Task {
        let kill = self.kill.clone();
        let until_killed = async move {
            tokio::select! {
                biased;
                () = kill.triggered() => {}
                () = future => {}
            }
        };
        self.spawner.spawn_boxed(name, Box::pin(until_killed))
    }

    fn thread(&self, name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        self.spawner.thread(name, run)
    }
}
