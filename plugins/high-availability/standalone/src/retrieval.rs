//! Finds the leader: at a configured address, or by looking at the cluster's folder ten times a second.

use crate::files::Files;
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use thalweg_env::{Env, Shutdown};
use thalweg_spi::{LeaderInfo, LeaderRetrieval};
use tokio::sync::watch;

/// A JobManager that is started anew is found after so long at the latest.
const PERIOD: Duration = Duration::from_millis(100);

/// The leader as this process knows it.
pub(crate) struct Retrieval {
    /// `None` when the address is configured.
    files: Option<Files>,
    env: Env,
    shutdown: Shutdown,
    leader: watch::Sender<Option<LeaderInfo>>,
    looking: AtomicBool,
    me: Weak<Retrieval>,
}

impl Retrieval {
    /// Looks into the folder.
    pub(crate) fn folder(files: Files, env: Env, shutdown: Shutdown) -> Arc<Self> {
        Self::new(Some(files), None, env, shutdown)
    }

    /// Knows where the leader is.
    pub(crate) fn fixed(leader: LeaderInfo, env: Env, shutdown: Shutdown) -> Arc<Self> {
        Self::new(None, Some(leader), env, shutdown)
    }

    fn new(files: Option<Files>, leader: Option<LeaderInfo>, env: Env, shutdown: Shutdown) -> Arc<Self> {
        let (leader, looking) = (watch::Sender::new(leader), AtomicBool::new(false));
        Arc::new_cyclic(|me| Self { files, env, shutdown, leader, looking, me: me.clone() })
    }

    /// Looks now, and tells the watchers what changed.
    pub(crate) fn look(&self) {
        let Some(files) = &self.files else { return };
        let found = files.leader();
        self.leader.send_if_modified(|known| {
            let changed = *known != found;
            *known = found;
            changed
        });
    }
}

impl LeaderRetrieval for Retrieval {
    fn leader(&self) -> watch::Receiver<Option<LeaderInfo>> {
        // At once, so that a late watcher has the present leader from the start.
        self.look();
        if self.files.is_some() && !self.looking.swap(true, Ordering::SeqCst) {
            // Begun with the first watcher: a process that only leads needs none of it. Weak, so that it ends with the
            // services.
            let (me, clock, shutdown) = (self.me.clone(), self.env.clock.clone(), self.shutdown.clone());
            self.env.spawner.spawn("leader-retrieval", async move {
                loop {
                    tokio::select! {
                        () = shutdown.triggered() => return,
                        () = clock.sleep(PERIOD) => {}
                    }
                    match me.upgrade() {
                        Some(retrieval) => retrieval.look(),
                        None => return,
                    }
                }
            });
        }
        self.leader.subscribe()
    }
}
