//! The election of one: who locks the folder first leads, and nobody waits.
//!
//! What a plugin keeps while it leads, and where it writes the epoch down, is a [`Keep`]. Office is one value, the seat:
//! what was opened and the lock, dropped in this order, so that the next leader never finds it still open. Work under
//! this office holds the seat for reading, and leaving office takes it: so it waits for work that has begun, and no
//! work begins after.

use crate::{Folder, Lock, Retrieval, blocking};
use async_trait::async_trait;
use parking_lot::RwLock;
use std::sync::Arc;
use thalweg_env::Clock;
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, LeaderElection, LeaderInfo, Office, Result, ServiceError};
use tokio::sync::watch;

/// The epoch of the next grant: above the stored one whatever the clock says, and above those of a folder that was lost
/// as long as the clock is right.
pub fn next_epoch(stored: Epoch, now: UnixMillis) -> Epoch {
    Epoch(stored.0.saturating_add(1).max(now.0))
}

/// Where a plugin keeps its epoch, and what it has open while it leads. Everything here may block.
pub trait Keep: Send + Sync + 'static {
    /// What is open while this process leads; dropped before the lock is released.
    type Open: Send + Sync + 'static;

    /// Opens. The next epoch MUST be durable before this returns. Called under the folder's lock; what was opened may be
    /// dropped at once, when nobody waits for office any more.
    fn take_office(&self, folder: &Folder, now: UnixMillis) -> Result<(Epoch, Self::Open)>;

    /// The highest epoch that was granted, as it is stored: another process may have been granted one while this one was
    /// stopped.
    fn highest(&self, folder: &Folder, open: &Self::Open) -> Result<Epoch>;
}

/// This process's standing.
pub struct Election<K: Keep> {
    inner: Arc<Inner<K>>,
    /// One campaign at a time, so that a second one of this process is not refused by the first.
    campaigning: tokio::sync::Mutex<()>,
}

struct Inner<K: Keep> {
    keep: K,
    folder: Folder,
    clock: Arc<dyn Clock>,
    retrieval: Arc<Retrieval>,
    /// Taken on threads that may block: closing may take a while.
    seat: RwLock<Option<Seat<K::Open>>>,
    office: watch::Sender<Office>,
}

struct Seat<O> {
    epoch: Epoch,
    // The order of these two is the order in which they are dropped.
    open: O,
    lock: Lock,
}

impl<K: Keep> Inner<K> {
    fn held(&self) -> Option<Epoch> {
        match *self.office.borrow() {
            Office::Leader(epoch) => Some(epoch),
            _ => None,
        }
    }

    fn leave(&self) -> Result<()> {
        // The guard ends with this line: closing may take a while, and others need not wait for it.
        let seat = self.seat.write().take();
        let Some(seat) = seat else { return Ok(()) };
        // While the lock is still held: afterwards this would be the next leader's file. As it is in a folder that was
        // replaced.
        let removed = if self.folder.is_held_by(&seat.lock) { self.folder.remove_leader() } else { Ok(()) };
        drop(seat);
        self.retrieval.look();
        removed
    }
}

/// Work on what is open in office, on a thread that may block.
pub struct Desk<K: Keep>(Arc<Inner<K>>);

impl<K: Keep> Clone for Desk<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Keep> Desk<K> {
    /// The cluster's folder.
    pub fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// What the plugin keeps.
    pub fn keep(&self) -> &K {
        &self.0.keep
    }

    /// Works under office `epoch`; refused as `Fenced` when this process does not hold it. Office is not left before the
    /// work is done.
    pub fn under<T>(
        &self,
        epoch: Epoch,
        operation: &'static str,
        work: impl FnOnce(&K::Open) -> Result<T>,
    ) -> Result<T> {
        let seat = self.0.seat.read();
        match &*seat {
            // The office is told to be lost before the seat is taken.
            Some(seat) if seat.epoch == epoch && self.0.held() == Some(epoch) => {
                if self.0.folder.is_held_by(&seat.lock) {
                    return work(&seat.open);
                }
                self.lose(epoch);
                let dir = self.0.folder.path().display();
                let text = format!("{dir} was removed or replaced: this process leads no longer");
                Err(ServiceError::new(ErrorKind::Fenced, operation, text))
            }
            _ => {
                let text = match *self.0.office.borrow() {
                    Office::Leader(now) => format!("epoch {epoch} is over; this process leads under {now}"),
                    _ => format!("this process does not lead under epoch {epoch}"),
                };
                Err(ServiceError::new(ErrorKind::Fenced, operation, text))
            }
        }
    }

    /// Works on what is open, if this process leads.
    pub fn if_open<T>(&self, work: impl FnOnce(&K::Open) -> T) -> Option<T> {
        self.0.seat.read().as_ref().map(|seat| work(&seat.open))
    }

    /// Tells that office is lost, where the plugin finds that out. The seat is kept until the process leaves.
    pub fn lose(&self, epoch: Epoch) {
        self.0.office.send_if_modified(|office| {
            let held = *office == Office::Leader(epoch);
            if held {
                *office = Office::Lost(epoch);
            }
            held
        });
    }
}

impl<K: Keep> Election<K> {
    /// Nobody stands yet.
    pub fn new(keep: K, folder: Folder, clock: Arc<dyn Clock>, retrieval: Arc<Retrieval>) -> Self {
        let (seat, office) = (RwLock::new(None), watch::Sender::new(Office::None));
        let inner = Arc::new(Inner { keep, folder, clock, retrieval, seat, office });
        Self { inner, campaigning: tokio::sync::Mutex::new(()) }
    }

    /// Work in office.
    pub fn desk(&self) -> Desk<K> {
        Desk(self.inner.clone())
    }

    /// Leaves whatever office is held, and ends a campaign before.
    pub async fn leave(&self) -> Result<()> {
        let _none_begins = self.campaigning.lock().await;
        if let Some(epoch) = self.inner.held() {
            self.desk().lose(epoch);
        }
        let inner = self.inner.clone();
        blocking("leave office", move || inner.leave()).await
    }
}

#[async_trait]
impl<K: Keep> LeaderElection for Election<K> {
    async fn campaign(&self) -> Result<Epoch> {
        let _one = self.campaigning.lock().await;
        if let Some(epoch) = self.inner.held() {
            return Ok(epoch);
        }
        let inner = self.inner.clone();
        let taken = blocking("take office", move || {
            // A seat that was lost and not left yet still holds the lock.
            inner.leave()?;
            let lock = inner.folder.lock()?;
            let (epoch, open) = inner.keep.take_office(&inner.folder, inner.clock.wall())?;
            // What a leader that was killed had announced is not true any more.
            inner.folder.remove_leader()?;
            Ok(Seat { epoch, open, lock })
        });
        // A campaign that is dropped here drops the seat when it comes: then this process does not stand.
        let seat = taken.await?;
        let epoch = seat.epoch;
        *self.inner.seat.write() = Some(seat);
        self.inner.office.send_replace(Office::Leader(epoch));
        tracing::info!(%epoch, "leads this cluster folder");
        Ok(epoch)
    }

    async fn announce(&self, epoch: Epoch, leader: LeaderInfo) -> Result<()> {
        let desk = self.desk();
        blocking("announce leader", move || {
            let (operation, inner) = ("announce leader", &desk.0);
            desk.under(epoch, operation, |open| {
                let highest = inner.keep.highest(&inner.folder, open)?;
                if epoch < highest {
                    let text = format!("epoch {epoch} is over; the highest that was granted is {highest}");
                    return Err(ServiceError::new(ErrorKind::Fenced, operation, text));
                }
                inner.folder.store_leader(&leader)
            })?;
            inner.retrieval.look();
            Ok(())
        })
        .await
    }

    fn office(&self) -> watch::Receiver<Office> {
        self.inner.office.subscribe()
    }

    async fn resign(&self, epoch: Epoch) -> Result<()> {
        // An office that was lost is left too: its lock would keep the next one out.
        let own = matches!(*self.inner.office.borrow(), Office::Leader(e) | Office::Lost(e) if e == epoch);
        if own { self.leave().await } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_the_time_and_never_below_the_stored_one() {
        assert_eq!(next_epoch(Epoch(0), UnixMillis(5000)), Epoch(5000));
        assert_eq!(next_epoch(Epoch(5000), UnixMillis(5000)), Epoch(5001));
        assert_eq!(next_epoch(Epoch(5000), UnixMillis(10)), Epoch(5001));
        assert_eq!(next_epoch(Epoch(u64::MAX), UnixMillis(10)), Epoch(u64::MAX));
    }
}
