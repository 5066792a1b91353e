//! A disk that is really full: a file system of a few megabytes, where this may be mounted.

#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use std::{path::PathBuf, process::Command};
use thalweg_env::{Env, Shutdown};
use thalweg_high_availability_local::LocalConfig;
use thalweg_model::ClusterId;
use thalweg_spi::{ErrorKind, Expect, Happened, PluginConfig, PluginContext, Secret, kind};
use thalweg_testkit::{Place, offer::or_skip};

struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_quota_and_loses_nothing() {
    let place = Place::new();
    let Some(disk) = or_skip("mount", Small::mount(place.dir().join("small"))) else { return };
    thalweg_testkit::run("full disk", async {
        let open = async || {
            let context = PluginContext {
                env: Env::system(tokio::runtime::Handle::current()),
                cluster: ClusterId::new("full"),
                cluster_dir: disk.0.clone(),
                working_dir: disk.0.clone(),
                secret: Secret::new(vec![7; 16]),
                configuration: String::new(),
                shutdown: Shutdown::new(),
            };
            PluginConfig::<kind::HighAvailability>::open(LocalConfig {}, context).await.unwrap()
        };
        let value = |n: usize| Bytes::from(vec![n as u8; 100_000]);
        let services = open().await;
        let epoch = services.leader_election().campaign().await.unwrap();
        let store = services.metadata();
        let mut n = 0;
        let error = loop {
            match store.put(epoch, &format!("k{n:03}"), value(n), Expect::Absent).await {
                Ok(_) => n += 1,
                Err(error) => break error,
            }
            assert!(n < 100, "the disk is never full");
        };
        assert!(n > 5, "{n}: {error}");
        for round in 0..3 {
            let error = store.put(epoch, &format!("k{n:03}"), value(n), Expect::Absent).await.unwrap_err();
            assert_eq!((error.kind(), error.happened()), (ErrorKind::QuotaExceeded, Happened::No), "{round}: {error}");
        }
        println!("{n} records, then: {error}");
        let found = store.list("").await.unwrap();
        assert_eq!(found.len(), n);
        assert!(found.iter().enumerate().all(|(n, (_, found))| found.value == value(n)));
        // A restart on the full disk.
        services.close().await.unwrap();
        drop((store, services));
        let services = open().await;
        let later = services.leader_election().campaign().await.unwrap();
        assert!(later > epoch);
        let store = services.metadata();
        assert_eq!(store.list("").await.unwrap().len(), n);
        // What is removed makes space.
        store.delete(later, "k000", Expect::Any).await.unwrap();
        store.delete(later, "k001", Expect::Any).await.unwrap();
        store.put(later, &format!("k{n:03}"), value(n), Expect::Absent).await.unwrap();
    });
}
