//! A store whose writes fail now and then, some of them after they were done: what a network makes of any store.

use crate::{doubles::high_availability::MemoryFixture, suites::high_availability::HighAvailabilityFixture};
use async_trait::async_trait;
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Entropy, SeededEntropy};
use thalweg_model::{Epoch, JobId, UnixMillis};
use thalweg_spi::{
    ErrorKind, Expect, HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderRetrieval,
    MetadataStore, Result, ServiceError, Versioned,
};

/// Metadata with faults in front of it. A seed gives one sequence of faults.
pub struct FaultyMetadata {
    inner: Arc<dyn MetadataStore>,
    entropy: Arc<SeededEntropy>,
}

enum Fault {
    None,
    /// Refused before anything was done, and it says so.
    Before,
    /// Not done, and nobody knows.
    LostRequest,
    /// Done, and nobody knows.
    LostAnswer,
}

impl FaultyMetadata {
    /// Faults, drawn from the entropy, in front of `inner`.
    pub fn new(inner: Arc<dyn MetadataStore>, entropy: Arc<SeededEntropy>) -> Self {
        Self { inner, entropy }
    }

    fn draw(&self) -> Fault {
        match self.entropy.next_u64() % 8 {
            0 => Fault::Before,
            1 => Fault::LostRequest,
            2 => Fault::LostAnswer,
            _ => Fault::None,
        }
    }

    async fn through<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = || ServiceError::new(ErrorKind::Timeout, operation, "no answer");
        match self.draw() {
            Fault::None => call.await,
            Fault::Before => Err(ServiceError::new(ErrorKind::Unavailable, operation, "connection refused")),
            Fault::LostRequest => Err(lost()),
            Fault::LostAnswer => call.await.and_then(|_| Err(lost())),
        }
    }
}

#[async_trait]
impl MetadataStore for FaultyMetadata {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.through("get record", self.inner.get(key)).await
    }

    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        self.through("put record", self.inner.put(epoch, key, value, expect)).await
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        self.through("delete record", self.inner.delete(epoch, key, expect)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        self.through("list records", self.inner.list(prefix)).await
    }
}

/// Services whose metadata has faults.
pub struct FaultyServices {
    inner: Arc<dyn HighAvailabilityServices>,
    metadata: Arc<FaultyMetadata>,
}

impl FaultyServices {
    /// Faults, drawn from the seed, in front of the metadata of `inner`.
    pub fn new(inner: Arc<dyn HighAvailabilityServices>, seed: u64) -> Self {
        let metadata = FaultyMetadata::new(inner.metadata(), Arc::new(SeededEntropy::new(seed)));
        Self { inner, metadata: Arc::new(metadata) }
    }
}

#[async_trait]
impl HighAvailabilityServices for FaultyServices {
    fn capabilities(&self) -> HighAvailabilityCapabilities {
        self.inner.capabilities()
    }

    fn leader_election(&self) -> Arc<dyn LeaderElection> {
        self.inner.leader_election()
    }

    fn leader_retrieval(&self) -> Arc<dyn LeaderRetrieval> {
        self.inner.leader_retrieval()
    }

    fn metadata(&self) -> Arc<dyn MetadataStore> {
        self.metadata.clone()
    }

    async fn clean_up(&self, job: JobId) -> Result<()> {
        self.inner.clean_up(job).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// The in-memory double behind faults, as a fixture.
pub struct FaultyFixture {
    inner: MemoryFixture,
    seed: u64,
    opened: parking_lot::Mutex<Vec<(Arc<dyn HighAvailabilityServices>, Arc<dyn HighAvailabilityServices>)>>,
}

impl FaultyFixture {
    /// With this seed. `THALWEG_SEED` replaces it, to replay.
    pub fn new(seed: u64) -> Self {
        let seed = std::env::var("THALWEG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
        println!("seed {seed}");
        Self { inner: MemoryFixture::default(), seed, opened: Default::default() }
    }

    fn inner_of(&self, services: &Arc<dyn HighAvailabilityServices>) -> Arc<dyn HighAvailabilityServices> {
        let opened = self.opened.lock();
        let found = opened.iter().find(|(outer, _)| std::ptr::addr_eq(Arc::as_ptr(outer), Arc::as_ptr(services)));
        found.map(|(_, inner)| inner.clone()).expect("opened by this fixture")
    }
}

#[async_trait]
impl HighAvailabilityFixture for FaultyFixture {
    async fn open(&self) -> Result<Arc<dyn HighAvailabilityServices>> {
        let inner: Arc<dyn HighAvailabilityServices> = self.inner.process();
        let nth = self.opened.lock().len() as u64;
        let outer: Arc<dyn HighAvailabilityServices> =
            Arc::new(FaultyServices::new(inner.clone(), self.seed.wrapping_add(nth)));
        self.opened.lock().push((outer.clone(), inner));
        Ok(outer)
    }

    async fn crash(&self, services: Arc<dyn HighAvailabilityServices>) {
        self.inner.crash(self.inner_of(&services)).await;
    }

    async fn cut_off(&self, services: &Arc<dyn HighAvailabilityServices>) -> bool {
        self.inner.cut_off(&self.inner_of(services)).await
    }

    async fn reconnect(&self, services: &Arc<dyn HighAvailabilityServices>) {
        self.inner.reconnect(&self.inner_of(services)).await;
    }

    async fn clock_is_at(&self, wall: UnixMillis) -> bool {
        self.inner.clock_is_at(wall).await
    }

    fn takeover(&self) -> Duration {
        self.inner.takeover()
    }
}
