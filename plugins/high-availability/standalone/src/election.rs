//! The election of one: who locks the folder first leads, and nobody waits.

use crate::{
    files::{Files, Lock},
    retrieval::Retrieval,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;
use thalweg_env::Clock;
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, LeaderElection, LeaderInfo, Office, Result, ServiceError};
use tokio::sync::watch;

/// This process's standing.
pub(crate) struct Election {
    files: Files,
    clock: Arc<dyn Clock>,
    retrieval: Arc<Retrieval>,
    held: Mutex<Option<(Epoch, Lock)>>,
    office: watch::Sender<Office>,
}

impl Election {
    pub(crate) fn new(files: Files, clock: Arc<dyn Clock>, retrieval: Arc<Retrieval>) -> Self {
        Self { files, clock, retrieval, held: Mutex::new(None), office: watch::Sender::new(Office::None) }
    }

    /// Refuses an epoch that is over. The stored one is asked for each time: another process may have been granted one
    /// while this one was stopped, and a small file is cheap.
    pub(crate) fn check(&self, epoch: Epoch, operation: &'static str) -> Result<()> {
        let highest = self.files.epoch()?;
        let left = matches!(*self.office.borrow(), Office::Lost(lost) if lost == epoch);
        if epoch < highest || left {
            let text = format!("epoch {epoch} is over; the highest that was granted is {highest}");
            return Err(ServiceError::new(ErrorKind::Fenced, operation, text));
        }
        Ok(())
    }

    /// Leaves whatever office is held.
    pub(crate) fn leave(&self) -> Result<()> {
        let Some((epoch, lock)) = self.held.lock().take() else { return Ok(()) };
        // First the loss is told, then the leader is gone for others, and only then may another lead.
        self.office.send_replace(Office::Lost(epoch));
        let removed = self.files.remove_leader();
        drop(lock);
        self.retrieval.look();
        removed
    }
}

#[async_trait]
impl LeaderElection for Election {
    async fn campaign(&self) -> Result<Epoch> {
        let mut held = self.held.lock();
        if let Some((epoch, _)) = &*held {
            return Ok(*epoch);
        }
        let lock = self.files.lock()?;
        let epoch = Epoch(self.files.epoch()?.0.saturating_add(1).max(self.clock.wall().0));
        self.files.store_epoch(epoch)?;
        // What a leader that was killed had announced is not true any more.
        self.files.remove_leader()?;
        *held = Some((epoch, lock));
        self.office.send_replace(Office::Leader(epoch));
        tracing::info!(%epoch, "leads this cluster folder");
        Ok(epoch)
    }

    async fn announce(&self, epoch: Epoch, leader: LeaderInfo) -> Result<()> {
        self.check(epoch, "announce leader")?;
        if !matches!(&*self.held.lock(), Some((held, _)) if *held == epoch) {
            return Err(ServiceError::new(ErrorKind::Fenced, "announce leader", "this process does not lead"));
        }
        self.files.store_leader(&leader)?;
        self.retrieval.look();
        Ok(())
    }

    fn office(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    async fn resign(&self, epoch: Epoch) -> Result<()> {
        let holds = matches!(&*self.held.lock(), Some((held, _)) if *held == epoch);
        if holds { self.leave() } else { Ok(()) }
    }
}
