//! A resource provider whose workers are entries of a table: it starts them at once and they do nothing.

use crate::suites::resource_provider::ResourceProviderFixture;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use thalweg_model::TaskManagerId;
use thalweg_spi::{
    ApplicationStatus, ErrorKind, ProviderCapabilities, ProviderEvent, ResourceProvider, Result, ServiceError,
    WorkerProfile,
};
use tokio::sync::mpsc;

/// The world outside of the JobManagers: its workers live on when a JobManager ends.
#[derive(Clone, Default)]
pub struct MemoryWorkers {
    inner: Arc<Mutex<World>>,
    quota: Option<u32>,
}

#[derive(Default)]
struct World {
    workers: BTreeMap<TaskManagerId, WorkerProfile>,
    counter: u64,
    /// Of the JobManager that is there now.
    listener: Option<Arc<MemoryProvider>>,
}

/// One JobManager's provider.
pub struct MemoryProvider {
    world: MemoryWorkers,
    state: Mutex<State>,
    events: mpsc::UnboundedSender<ProviderEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<ProviderEvent>>>,
}

#[derive(Default)]
struct State {
    declared: BTreeMap<WorkerProfile, u32>,
    registered: BTreeSet<TaskManagerId>,
    refused: BTreeMap<WorkerProfile, u32>,
    closed: bool,
}

impl MemoryWorkers {
    /// At most so many workers.
    pub fn with_quota(quota: u32) -> Self {
        Self { inner: Arc::default(), quota: Some(quota) }
    }

    /// A JobManager opens its provider; the one before it is out of office.
    pub fn provider(&self) -> Arc<MemoryProvider> {
        let (events, receiver) = mpsc::unbounded_channel();
        let receiver = Mutex::new(Some(receiver));
        let provider = Arc::new(MemoryProvider { world: self.clone(), state: Mutex::default(), events, receiver });
        let mut world = self.inner.lock();
        for (worker, profile) in &world.workers {
            provider.tell(ProviderEvent::Recovered { worker: worker.clone(), profile: profile.clone() });
        }
        world.listener = Some(provider.clone());
        provider
    }

    /// A worker is gone; who leads is told.
    pub fn end(&self, worker: &TaskManagerId, cause: &str) {
        let mut world = self.inner.lock();
        let there = world.workers.remove(worker).is_some();
        let listener = world.listener.clone();
        drop(world);
        if let (true, Some(provider)) = (there, listener) {
            provider.tell(ProviderEvent::Lost { worker: worker.clone(), cause: cause.into() });
            provider.state.lock().refused.clear();
            provider.reconcile();
        }
    }
}

impl MemoryProvider {
    fn tell(&self, event: ProviderEvent) {
        let _ = self.events.send(event);
    }

    fn reconcile(&self) {
        let mut surplus = Vec::new();
        {
            let (mut world, mut state) = (self.world.inner.lock(), self.state.lock());
            if state.closed {
                return;
            }
            let state = &mut *state;
            for (profile, wanted) in &state.declared {
                let here = world.workers.values().filter(|p| *p == profile).count() as u32;
                for _ in here..*wanted {
                    let full = self.world.quota.is_some_and(|quota| world.workers.len() as u32 >= quota);
                    if profile.slots == 0 || full {
                        let told = state.refused.entry(profile.clone()).or_default();
                        if *told < *wanted - here.min(*wanted) {
                            *told += 1;
                            let cause = if full { "the quota is used up" } else { "a worker needs a slot" };
                            let profile = profile.clone();
                            self.tell(ProviderEvent::Refused { profile, cause: cause.into(), retry: full });
                        }
                        continue;
                    }
                    world.counter += 1;
                    let worker = TaskManagerId::new(format!("memory-{}", world.counter));
                    world.workers.insert(worker.clone(), profile.clone());
                    self.tell(ProviderEvent::Started { worker, profile: profile.clone() });
                }
            }
            // Whoever was never told of a registration cannot know who is idle.
            if !state.registered.is_empty() {
                let mut here: BTreeMap<_, u32> = BTreeMap::new();
                world.workers.values().for_each(|p| *here.entry(p.clone()).or_default() += 1);
                for (worker, profile) in world.workers.iter().filter(|(w, _)| !state.registered.contains(w)) {
                    let here = here.entry(profile.clone()).or_default();
                    if *here > state.declared.get(profile).copied().unwrap_or(0) {
                        *here -= 1;
                        surplus.push(worker.clone());
                    }
                }
            }
        }
        for worker in surplus {
            self.world.end(&worker, "not needed any more");
        }
    }
}

#[async_trait]
impl ResourceProvider for MemoryProvider {
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { passive: false, quota: self.world.quota.is_some(), recovers: true }
    }

    async fn declare(&self, workers: BTreeMap<WorkerProfile, u32>) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(ServiceError::new(ErrorKind::Closed, "declare workers", "the cluster has ended"));
            }
            if state.declared != workers {
                state.declared = workers;
                state.refused.clear();
            }
        }
        self.reconcile();
        Ok(())
    }

    async fn registered(&self, worker: &TaskManagerId) {
        self.state.lock().registered.insert(worker.clone());
    }

    async fn release(&self, worker: &TaskManagerId) -> Result<()> {
        self.world.end(worker, "released");
        Ok(())
    }

    fn events(&self) -> Option<mpsc::UnboundedReceiver<ProviderEvent>> {
        self.receiver.lock().take()
    }

    async fn deregister(&self, _: ApplicationStatus, _: &str) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.declared.clear();
        }
        let all: Vec<_> = self.world.inner.lock().workers.keys().cloned().collect();
        for worker in all {
            self.world.end(&worker, "the cluster has ended");
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceProviderFixture for MemoryWorkers {
    async fn open(&self) -> Result<Arc<dyn ResourceProvider>> {
        Ok(self.provider())
    }

    async fn shut_down(&self, _: Arc<dyn ResourceProvider>) {
        self.inner.lock().listener = None;
    }

    async fn kill(&self, worker: &TaskManagerId) -> bool {
        self.end(worker, "killed");
        true
    }

    async fn alive(&self) -> BTreeSet<TaskManagerId> {
        self.inner.lock().workers.keys().cloned().collect()
    }

    fn impossible(&self) -> Option<WorkerProfile> {
        Some(WorkerProfile { slots: 0, memory: None })
    }

    fn quota(&self) -> Option<u32> {
        self.quota
    }
}
