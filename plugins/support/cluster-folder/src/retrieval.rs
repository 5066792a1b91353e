//! Finds the leader: at a configured address, or in the cluster's folder.
//!
//! A new leader writes its file, and a leader that ends closes its lock: both are events of the folder, and nothing is
//! read while nothing happens. Some things are no event, and so it looks once a second too: a folder that was made or
//! replaced, and a process of another host on a shared file system.

use crate::{
    Folder,
    changes::Changes,
    folder::{LEADER, LOCK},
};
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

/// Looks so often while events are told.
const SELDOM: Duration = Duration::from_secs(1);
/// Looks so often where they are not: the folder is not there yet, or the system has no watch to spare.
const OFTEN: Duration = Duration::from_millis(100);
/// A dying process closes its lock file a moment before its lock is free.
const SETTLE: Duration = Duration::from_millis(20);

/// The leader as this process knows it.
pub struct Retrieval {
    /// `None` when the address is configured.
    folder: Option<Folder>,
    env: Env,
    shutdown: Shutdown,
    leader: watch::Sender<Option<LeaderInfo>>,
    looking: AtomicBool,
    me: Weak<Retrieval>,
}

impl Retrieval {
    /// Looks into the folder.
    pub fn folder(folder: Folder, env: Env, shutdown: Shutdown) -> Arc<Self> {
        Self::new(Some(folder), None, env, shutdown)
    }

    /// Knows where the leader is.
    pub fn fixed(leader: LeaderInfo, env: Env, shutdown: Shutdown) -> Arc<Self> {
        Self::new(None, Some(leader), env, shutdown)
    }

    fn new(folder: Option<Folder>, leader: Option<LeaderInfo>, env: Env, shutdown: Shutdown) -> Arc<Self> {
        let (leader, looking) = (watch::Sender::new(leader), AtomicBool::new(false));
        Arc::new_cyclic(|me| Self { folder, env, shutdown, leader, looking, me: me.clone() })
    }

    /// Looks now, and tells the watchers what changed.
    pub(crate) fn look(&self) {
        let Some(folder) = &self.folder else { return };
        // Read within the call, which excludes others: or a slow look could put an old leader over a newer one.
        self.leader.send_if_modified(|known| {
            let found = folder.leader();
            let changed = *known != found;
            *known = found;
            changed
        });
    }

    /// Looks whenever something may have happened. Begun with the first watcher: a process that only leads needs none of
    /// it. Weak, so that it ends with the services.
    async fn follow(me: Weak<Self>, folder: Folder, env: Env, shutdown: Shutdown) {
        let changes = Changes::new();
        if let Err(e) = &changes {
            tracing::debug!("no events of {}, it is looked at every {OFTEN:?}: {e}", folder.path().display());
        }
        let changes = changes.ok();
        let mut happened = false;
        loop {
            let watched = changes.as_ref().filter(|c| c.watch(folder.path()).is_ok());
            // After the watch is laid, so that nothing falls between the look and the wait.
            match me.upgrade() {
                Some(retrieval) => retrieval.look(),
                None => return,
            }
            let pause = match (happened, watched) {
                (true, _) => SETTLE,
                (false, Some(_)) => SELDOM,
                (false, None) => OFTEN,
            };
            happened = tokio::select! {
                () = shutdown.triggered() => return,
                () = env.clock.sleep(pause) => false,
                () = change(watched) => true,
            };
        }
    }
}

async fn change(watched: Option<&Changes>) {
    match watched {
        Some(changes) => changes.of(&[LEADER, LOCK]).await,
        None => std::future::pending().await,
    }
}

impl LeaderRetrieval for Retrieval {
    fn leader(&self) -> watch::Receiver<Option<LeaderInfo>> {
        // At once, so that a late watcher has the present leader from the start.
        self.look();
        if let Some(folder) = &self.folder
            && !self.looking.swap(true, Ordering::SeqCst)
        {
            let follow = Self::follow(self.me.clone(), folder.clone(), self.env.clone(), self.shutdown.clone());
            self.env.spawner.spawn("leader-retrieval", follow);
        }
        self.leader.subscribe()
    }
}
