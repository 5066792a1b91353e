//! The plugin passes the high-availability suite, and its words help.

#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use parking_lot::Mutex;
use std::{os::unix::fs::PermissionsExt, sync::Arc, time::Duration};
use thalweg_env::{Env, ManualClock};
use thalweg_high_availability_local::LocalConfig;
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, Expect, HighAvailabilityServices, Office, PluginConfig, Result, kind};
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

    async fn leader(&self) -> (Arc<dyn HighAvailabilityServices>, Epoch) {
        let services = self.open().await.unwrap();
        let epoch = services.leader_election().campaign().await.unwrap();
        (services, epoch)
    }
}

#[async_trait::async_trait]
impl HighAvailabilityFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn HighAvailabilityServices>> {
        PluginConfig::<kind::HighAvailability>::open(LocalConfig {}, self.place.context_with(self.env())).await
    }

    // Lock and open file go with the process, which here are the services; `tests/killed.rs` kills real ones.
    async fn crash(&self, services: Arc<dyn HighAvailabilityServices>) {
        drop(services);
    }

    async fn clock_is_at(&self, wall: UnixMillis) -> bool {
        *self.clock.lock() = Some(wall);
        true
    }
}

thalweg_testkit::high_availability_suite!(async || Fixture::default());

const X: Bytes = Bytes::from_static(b"x");

#[test]
fn a_second_job_manager_on_one_folder_is_refused_by_name() {
    thalweg_testkit::run("second", async {
        let fixture = Fixture::default();
        let (_leader, _) = fixture.leader().await;
        let second = fixture.open().await.unwrap();
        let error = second.leader_election().campaign().await.unwrap_err();
        let (pid, dir) = (std::process::id(), fixture.place.dir().display());
        let text = format!("another JobManager (pid {pid}) uses {dir}: stop it or choose another --dir");
        assert_eq!(error.message(), text);
    });
}

#[test]
fn records_are_read_before_a_campaign_and_after_office_and_not_beside_a_leader() {
    thalweg_testkit::run("readers", async {
        let fixture = Fixture::default();
        let other = fixture.open().await.unwrap();
        assert_eq!(other.metadata().list("").await.unwrap(), [], "nothing was ever written");
        let (leader, epoch) = fixture.leader().await;
        leader.metadata().put(epoch, "k", X, Expect::Absent).await.unwrap();
        let error = other.metadata().get("k").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.may_retry(), "{error}");
        let pid = format!("the JobManager (pid {}) that leads has", std::process::id());
        assert!(error.message().contains(&pid), "{error}");
        leader.leader_election().resign(epoch).await.unwrap();
        for services in [&leader, &other] {
            assert_eq!(services.metadata().get("k").await.unwrap().unwrap().value, X);
            let error = services.metadata().put(epoch, "k", X, Expect::Any).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced);
            assert!(error.message().contains("does not lead under epoch"), "{error}");
        }
    });
}

#[test]
fn the_epoch_is_the_time_and_grows_although_the_clock_goes_back() {
    thalweg_testkit::run("epoch", async {
        let fixture = Fixture::default();
        let mut epochs = Vec::new();
        for wall in [5000, 5000, 4000, 9000] {
            fixture.clock_is_at(UnixMillis(wall)).await;
            let (services, epoch) = fixture.leader().await;
            epochs.push(epoch);
            services.close().await.unwrap();
        }
        assert_eq!(epochs, [Epoch(5000), Epoch(5001), Epoch(5002), Epoch(9000)]);
    });
}

#[test]
fn a_damaged_file_refuses_office_with_what_to_do_and_leaves_the_lock_free() {
    thalweg_testkit::run("damaged", async {
        let fixture = Fixture::default();
        let (services, epoch) = fixture.leader().await;
        services.metadata().put(epoch, "k", X, Expect::Any).await.unwrap();
        services.close().await.unwrap();
        let file = fixture.place.dir().join("metadata.redb");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let good = std::fs::read(&file).unwrap();
        std::fs::write(&file, &good[..good.len() / 2]).unwrap();
        for _ in 0..2 {
            let services = fixture.open().await.unwrap();
            let error = services.leader_election().campaign().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            let told = error.to_string();
            assert!(told.contains(&file.display().to_string()) && told.contains("put a copy of it back"), "{told}");
            assert_eq!(*services.leader_election().office().borrow(), Office::None);
        }
        std::fs::write(&file, &good).unwrap();
        let (services, later) = fixture.leader().await;
        assert!(later > epoch && services.metadata().get("k").await.unwrap().is_some());
    });
}

#[test]
fn a_folder_that_is_replaced_ends_office_at_the_next_write() {
    thalweg_testkit::run("replaced", async {
        let fixture = Fixture::default();
        let (old, epoch) = fixture.leader().await;
        for name in ["metadata.redb", "jobmanager.lock"] {
            std::fs::remove_file(fixture.place.dir().join(name)).unwrap();
        }
        let (new, later) = fixture.leader().await;
        let info = thalweg_spi::LeaderInfo { epoch: Some(later), rpc: "tcp://h:1".into(), rest: "http://h:2".into() };
        new.leader_election().announce(later, info.clone()).await.unwrap();
        let error = old.metadata().put(epoch, "k", X, Expect::Any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.message().contains("was removed or replaced: this process leads no longer"), "{error}");
        assert_eq!(*old.leader_election().office().borrow(), Office::Lost(epoch));
        old.close().await.unwrap();
        assert_eq!(*new.leader_retrieval().leader().borrow(), Some(info), "the old one does not remove it");
        new.metadata().put(later, "k", X, Expect::Any).await.unwrap();
    });
}

#[test]
fn records_that_are_replaced_under_a_leader_end_its_office() {
    thalweg_testkit::run("records replaced", async {
        let fixture = Fixture::default();
        let (services, epoch) = fixture.leader().await;
        std::fs::remove_file(fixture.place.dir().join("metadata.redb")).unwrap();
        let error = services.metadata().put(epoch, "k", X, Expect::Any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.message().contains("metadata.redb was removed or replaced"), "{error}");
        services.leader_election().resign(epoch).await.unwrap();
        let (_next, later) = fixture.leader().await;
        assert!(later > epoch);
    });
}
