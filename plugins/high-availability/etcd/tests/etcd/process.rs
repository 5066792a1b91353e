//! Processes of one cluster, each with ways to etcd of its own, so that one can be cut off or die.

use crate::{
    proxy::{Proxy, Way},
    server::Server,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use thalweg_high_availability_etcd::EtcdConfig;
use thalweg_model::Epoch;
use thalweg_spi::{HighAvailabilityServices, LeaderInfo, PluginConfig, Result, TimeSpan, kind};
use thalweg_testkit::{Place, suites::high_availability::HighAvailabilityFixture};

pub type Services = Arc<dyn HighAvailabilityServices>;

/// One cluster in a given etcd.
pub struct Cluster {
    pub place: Place,
    pub config: EtcdConfig,
    ways: Mutex<Vec<(Services, Vec<Proxy>)>>,
}

/// A short lease, so that tests of its end are short too. One that is shorter would end when the machine has no time for
/// whoever renews it.
pub const LEASE: Duration = Duration::from_secs(4);

impl Cluster {
    pub fn new(server: &Server) -> Self {
        let config = EtcdConfig {
            endpoints: server.endpoints().to_vec(),
            lease: TimeSpan::from_secs(LEASE.as_secs()),
            request_timeout: TimeSpan::from_millis(1000),
            ..EtcdConfig::default()
        };
        Self { place: Place::new(), config, ways: Mutex::default() }
    }

    /// The same, with other options.
    pub fn with(server: &Server, change: impl FnOnce(&mut EtcdConfig)) -> Self {
        let mut this = Self::new(server);
        change(&mut this.config);
        PluginConfig::<kind::HighAvailability>::validate(&this.config).unwrap();
        this
    }

    /// A process with these options and no ways in between.
    pub async fn direct(&self) -> Result<Services> {
        PluginConfig::<kind::HighAvailability>::open(self.config.clone(), self.place.context()).await
    }

    /// What all ways of this process do from now on.
    pub fn set(&self, services: &Services, way: Way) {
        let ways = self.ways.lock();
        let same = |other: &Services| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(services));
        let (_, proxies) = ways.iter().find(|(other, _)| same(other)).expect("opened through ways");
        proxies.iter().for_each(|proxy| proxy.set(way));
    }

    /// The key under which etcd has the leader.
    pub fn leader_key(&self) -> String {
        format!("{}/{}/@leader", self.config.prefix, self.place.context().cluster)
    }
}

#[async_trait::async_trait]
impl HighAvailabilityFixture for Cluster {
    async fn open(&self) -> Result<Services> {
        let proxies = futures::future::join_all(self.config.endpoints.iter().map(|e| Proxy::to(e))).await;
        let through = self.config.endpoints.iter().zip(&proxies).map(|(e, proxy)| proxy.endpoint(e)).collect();
        let config = EtcdConfig { endpoints: through, ..self.config.clone() };
        let services = PluginConfig::<kind::HighAvailability>::open(config, self.place.context()).await?;
        self.ways.lock().push((services.clone(), proxies));
        Ok(services)
    }

    async fn crash(&self, services: Services) {
        self.set(&services, Way::Closed);
    }

    async fn cut_off(&self, services: &Services) -> bool {
        self.set(services, Way::Silent { there: true, back: true });
        true
    }

    async fn reconnect(&self, services: &Services) {
        self.set(services, Way::Open);
    }

    fn at_once(&self) -> Duration {
        LEASE / 2
    }

    /// The lease, half a second until etcd looks at it, and an election within etcd.
    fn takeover(&self) -> Duration {
        LEASE + Duration::from_secs(6)
    }
}

/// Where a leader of this epoch says that it is.
pub fn info(epoch: Epoch) -> LeaderInfo {
    LeaderInfo { epoch: Some(epoch), rpc: format!("tcp://jm:{}", epoch.0 % 9999), rest: "http://jm:8081".into() }
}
