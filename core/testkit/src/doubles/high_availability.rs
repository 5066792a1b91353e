//! High availability in memory: durable as long as its cluster lives, seen by every process of it, with standbys.
//!
//! There are no leases and so no waiting: a test says when a process crashes or is cut off, and that is when office
//! passes.

use crate::suites::high_availability::HighAvailabilityFixture;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use thalweg_model::{Epoch, JobId, UnixMillis};
use thalweg_spi::{
    ErrorKind, Expect, HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderInfo,
    LeaderRetrieval, MetadataStore, Office, Result, ServiceError, Versioned,
};
use tokio::sync::{Notify, watch};

/// One cluster's store. Each [`MemoryCluster::process`] is one process.
#[derive(Clone, Default)]
pub struct MemoryCluster {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Told when office is free.
    vacant: Notify,
}

#[derive(Default)]
struct State {
    highest: Epoch,
    /// Who leads, by process number.
    leader: Option<u64>,
    announced: Option<LeaderInfo>,
    records: BTreeMap<String, Versioned>,
    versions: u64,
    watchers: Vec<Watcher>,
    counter: u64,
}

/// What a process is told through.
#[derive(Clone)]
struct Watcher {
    cut_off: Arc<AtomicBool>,
    leader: watch::Sender<Option<LeaderInfo>>,
}

/// One process's services.
pub struct MemoryHa {
    number: u64,
    cluster: MemoryCluster,
    watcher: Watcher,
    epoch: AtomicU64,
    office: watch::Sender<Office>,
    me: Weak<MemoryHa>,
}

impl MemoryCluster {
    /// A further process.
    pub fn process(&self) -> Arc<MemoryHa> {
        let mut state = self.inner.state.lock();
        state.counter += 1;
        let number = state.counter;
        let announced = state.announced.clone();
        let watcher = Watcher { cut_off: Arc::default(), leader: watch::Sender::new(announced) };
        state.watchers.push(watcher.clone());
        Arc::new_cyclic(|me| MemoryHa {
            number,
            cluster: self.clone(),
            watcher,
            epoch: AtomicU64::new(0),
            office: watch::Sender::new(Office::None),
            me: me.clone(),
        })
    }

    fn publish(&self, state: &mut State, leader: Option<LeaderInfo>) {
        state.announced = leader.clone();
        for watcher in state.watchers.iter().filter(|w| !w.cut_off.load(Ordering::SeqCst)) {
            watcher.leader.send_replace(leader.clone());
        }
    }
}

impl MemoryHa {
    fn reach(&self, operation: &'static str) -> Result<()> {
        if self.watcher.cut_off.load(Ordering::SeqCst) {
            return Err(ServiceError::new(ErrorKind::Unavailable, operation, "cut off"));
        }
        Ok(())
    }

    /// Takes office away, and tells this process first.
    fn leave(&self) {
        let mut state = self.cluster.inner.state.lock();
        if state.leader != Some(self.number) {
            return;
        }
        self.office.send_replace(Office::Lost(Epoch(self.epoch.load(Ordering::SeqCst))));
        state.leader = None;
        self.cluster.publish(&mut state, None);
        drop(state);
        self.cluster.inner.vacant.notify_waiters();
    }

    /// Everybody else loses sight of it; office passes on.
    pub fn cut_off(&self) {
        self.watcher.cut_off.store(true, Ordering::SeqCst);
        self.leave();
    }

    /// Is back, and sees what is now.
    pub fn reconnect(&self) {
        let state = self.cluster.inner.state.lock();
        self.watcher.cut_off.store(false, Ordering::SeqCst);
        self.watcher.leader.send_replace(state.announced.clone());
    }

    fn fenced(&self, state: &State, epoch: Epoch, operation: &'static str) -> Result<()> {
        // A leader that left is as old as one that was replaced: its successor may be writing already.
        let left = matches!(*self.office.borrow(), Office::Lost(lost) if lost == epoch);
        if epoch < state.highest || left {
            let message = format!("epoch {epoch} is over, {} was granted", state.highest);
            return Err(ServiceError::new(ErrorKind::Fenced, operation, message));
        }
        Ok(())
    }

    fn this(&self) -> Arc<MemoryHa> {
        // Called through an `Arc` alone, so there is one.
        self.me.upgrade().expect("the process is alive while it is asked")
    }
}

impl Drop for MemoryHa {
    fn drop(&mut self) {
        self.leave();
    }
}

#[async_trait]
impl LeaderElection for MemoryHa {
    async fn campaign(&self) -> Result<Epoch> {
        loop {
            let vacant = self.cluster.inner.vacant.notified();
            tokio::pin!(vacant);
            vacant.as_mut().enable();
            self.reach("campaign")?;
            {
                let mut state = self.cluster.inner.state.lock();
                match state.leader {
                    None => {
                        state.highest.0 += 1;
                        state.leader = Some(self.number);
                        self.epoch.store(state.highest.0, Ordering::SeqCst);
                        self.office.send_replace(Office::Leader(state.highest));
                        return Ok(state.highest);
                    }
                    Some(number) if number == self.number => return Ok(state.highest),
                    Some(_) => {}
                }
            }
            vacant.await;
        }
    }

    async fn announce(&self, epoch: Epoch, leader: LeaderInfo) -> Result<()> {
        self.reach("announce leader")?;
        let mut state = self.cluster.inner.state.lock();
        self.fenced(&state, epoch, "announce leader")?;
        self.cluster.publish(&mut state, Some(leader));
        Ok(())
    }

    fn office(&self) -> watch::Receiver<Office> {
        self.office.subscribe()
    }

    async fn resign(&self, epoch: Epoch) -> Result<()> {
        if self.epoch.load(Ordering::SeqCst) == epoch.0 {
            self.leave();
        }
        Ok(())
    }
}

impl LeaderRetrieval for MemoryHa {
    fn leader(&self) -> watch::Receiver<Option<LeaderInfo>> {
        self.watcher.leader.subscribe()
    }
}

#[async_trait]
impl MetadataStore for MemoryHa {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.reach("get record")?;
        Ok(self.cluster.inner.state.lock().records.get(key).cloned())
    }

    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        self.reach("put record")?;
        let mut state = self.cluster.inner.state.lock();
        self.fenced(&state, epoch, "put record")?;
        holds(state.records.get(key), expect, "put record", key)?;
        state.versions += 1;
        let version = state.versions;
        state.records.insert(key.to_owned(), Versioned { value, version });
        Ok(version)
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        self.reach("delete record")?;
        let mut state = self.cluster.inner.state.lock();
        self.fenced(&state, epoch, "delete record")?;
        holds(state.records.get(key), expect, "delete record", key)?;
        state.records.remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        self.reach("list records")?;
        let state = self.cluster.inner.state.lock();
        let from = state.records.range(prefix.to_owned()..);
        Ok(from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

fn holds(found: Option<&Versioned>, expect: Expect, operation: &'static str, key: &str) -> Result<()> {
    let good = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found.is_some_and(|f| f.version == version),
    };
    if good {
        return Ok(());
    }
    let found = found.map_or_else(|| "it is not there".to_owned(), |f| format!("it has version {}", f.version));
    Err(ServiceError::new(ErrorKind::Conflict, operation, format!("expected {expect:?}, but {found}")).with("key", key))
}

#[async_trait]
impl HighAvailabilityServices for MemoryHa {
    fn capabilities(&self) -> HighAvailabilityCapabilities {
        HighAvailabilityCapabilities { durable: true, shared: true, standby: true }
    }

    fn leader_election(&self) -> Arc<dyn LeaderElection> {
        self.this()
    }

    fn leader_retrieval(&self) -> Arc<dyn LeaderRetrieval> {
        self.this()
    }

    fn metadata(&self) -> Arc<dyn MetadataStore> {
        self.this()
    }

    async fn clean_up(&self, _: JobId) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.leave();
        Ok(())
    }
}

/// The double as a fixture.
#[derive(Default)]
pub struct MemoryFixture {
    cluster: MemoryCluster,
    /// Which process a handle is: the handle alone does not tell.
    processes: Mutex<Vec<Arc<MemoryHa>>>,
}

impl MemoryFixture {
    /// Opens a process and remembers it.
    pub fn process(&self) -> Arc<MemoryHa> {
        let process = self.cluster.process();
        self.processes.lock().push(process.clone());
        process
    }

    /// The process whose election this is.
    pub fn of(&self, services: &Arc<dyn HighAvailabilityServices>) -> Arc<MemoryHa> {
        let address = Arc::as_ptr(services).cast::<()>();
        let processes = self.processes.lock();
        processes.iter().find(|p| Arc::as_ptr(p).cast::<()>() == address).cloned().expect("opened by this fixture")
    }
}

#[async_trait]
impl HighAvailabilityFixture for MemoryFixture {
    async fn open(&self) -> Result<Arc<dyn HighAvailabilityServices>> {
        Ok(self.process())
    }

    async fn crash(&self, services: Arc<dyn HighAvailabilityServices>) {
        self.of(&services).cut_off();
    }

    async fn cut_off(&self, services: &Arc<dyn HighAvailabilityServices>) -> bool {
        self.of(services).cut_off();
        true
    }

    async fn reconnect(&self, services: &Arc<dyn HighAvailabilityServices>) {
        self.of(services).reconnect();
    }

    async fn clock_is_at(&self, _: UnixMillis) -> bool {
        // Its epochs are counted: whatever the time is, it does not matter.
        true
    }

    fn takeover(&self) -> Duration {
        Duration::from_secs(1)
    }
}
