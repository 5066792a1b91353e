//! The plugin passes the high-availability suite, and its words help.

#![allow(clippy::unwrap_used, reason = "test code")]

use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Env, ManualClock};
use thalweg_high_availability_standalone::StandaloneConfig;
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{HighAvailabilityServices, LeaderInfo, PluginConfig, Result, kind};
use thalweg_testkit::{Place, suites::high_availability::HighAvailabilityFixture};

#[derive(Default)]
struct Fixture {
    place: Place,
    clock: Mutex<Option<UnixMillis>>,
}

impl Fixture {
    /// The real world, but for the time if a test says so.
    fn env(&self) -> Env {
        let mut env = Env::system(tokio::runtime::Handle::current());
        if let Some(wall) = *self.clock.lock() {
            let clock = ManualClock::default();
            clock.advance(Duration::from_millis(wall.0));
            env.clock = Arc::new(clock);
        }
        env
    }
}

#[async_trait::async_trait]
impl HighAvailabilityFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn HighAvailabilityServices>> {
        PluginConfig::<kind::HighAvailability>::open(StandaloneConfig::default(), self.place.context_with(self.env()))
            .await
    }

    async fn clock_is_at(&self, wall: UnixMillis) -> bool {
        *self.clock.lock() = Some(wall);
        true
    }

    // The lock goes with the process, which here are the services; the file that names the leader stays behind.
    async fn crash(&self, services: Arc<dyn HighAvailabilityServices>) {
        drop(services);
    }
}

thalweg_testkit::high_availability_suite!(async || Fixture::default());

#[test]
fn a_second_job_manager_on_one_folder_is_refused_by_name() {
    thalweg_testkit::run("second", async {
        let fixture = Fixture::default();
        let (a, b) = (fixture.open().await.unwrap(), fixture.open().await.unwrap());
        a.leader_election().campaign().await.unwrap();
        let error = b.leader_election().campaign().await.unwrap_err();
        let (pid, dir) = (std::process::id(), fixture.place.dir().display());
        let text = format!("another JobManager (pid {pid}) uses {dir}: stop it or choose another --dir");
        assert_eq!(error.message(), text);
    });
}

#[test]
fn the_epoch_is_the_time_and_grows_although_the_clock_stands_still() {
    thalweg_testkit::run("epoch", async {
        let place = Place::new();
        let clock = ManualClock::default();
        clock.advance(std::time::Duration::from_millis(5000));
        let env = Env { clock: Arc::new(clock.clone()), ..Env::system(tokio::runtime::Handle::current()) };
        let mut epochs = Vec::new();
        for _ in 0..3 {
            let config = StandaloneConfig::default();
            let services = PluginConfig::<kind::HighAvailability>::open(config, place.context_with(env.clone()));
            epochs.push(services.await.unwrap().leader_election().campaign().await.unwrap());
        }
        assert_eq!(epochs, [Epoch(5000), Epoch(5001), Epoch(5002)]);
        std::fs::write(place.dir().join("epoch"), "soup").unwrap();
        let config = StandaloneConfig::default();
        let services = PluginConfig::<kind::HighAvailability>::open(config, place.context_with(env));
        let error = services.await.unwrap().leader_election().campaign().await.unwrap_err();
        assert!(error.to_string().contains("does not hold a number; remove it"), "{error}");
    });
}

#[test]
fn a_configured_address_is_the_leader() {
    thalweg_testkit::run("configured", async {
        let config =
            StandaloneConfig { rpc_address: Some("tcp://jm:6123".into()), rest_address: Some("http://jm:8081".into()) };
        PluginConfig::<kind::HighAvailability>::validate(&config).unwrap();
        let place = Place::new();
        let services = PluginConfig::<kind::HighAvailability>::open(config.clone(), place.context()).await.unwrap();
        let leader = services.leader_retrieval().leader().borrow().clone();
        let expected = LeaderInfo { epoch: None, rpc: "tcp://jm:6123".into(), rest: "http://jm:8081".into() };
        assert_eq!(leader, Some(expected));
        let validate = |config: &StandaloneConfig| PluginConfig::<kind::HighAvailability>::validate(config);
        let half = StandaloneConfig { rest_address: None, ..config.clone() };
        assert!(validate(&half).unwrap_err().contains("together"));
        let bad = StandaloneConfig { rpc_address: Some("jm:6123".into()), ..config };
        assert!(validate(&bad).unwrap_err().contains("expected tcp://HOST:PORT"));
    });
}

#[test]
fn a_leader_file_without_a_leader_says_nothing() {
    thalweg_testkit::run("stale", async {
        let fixture = Fixture::default();
        let a = fixture.open().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let info =
            LeaderInfo { epoch: Some(epoch), rpc: "tcp://127.0.0.1:1".into(), rest: "http://127.0.0.1:2".into() };
        a.leader_election().announce(epoch, info.clone()).await.unwrap();
        let b = fixture.open().await.unwrap();
        assert_eq!(*b.leader_retrieval().leader().borrow(), Some(info));
        fixture.crash(a).await;
        assert!(fixture.place.dir().join("leader.json").exists(), "a killed JobManager leaves it");
        assert_eq!(*b.leader_retrieval().leader().borrow(), None);
    });
}
