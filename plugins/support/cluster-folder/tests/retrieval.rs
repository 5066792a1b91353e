//! Who waits for a leader learns of it by events, and where there are none it looks.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::{path::Path, sync::Arc, time::Duration};
use thalweg_env::{Clock, Env, ManualClock, Shutdown, SystemClock, timeout};
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{LeaderElection, LeaderInfo, LeaderRetrieval, Result};
use thalweg_support_cluster_folder::{Election, Folder, Keep, Retrieval, next_epoch};
use thalweg_testkit::Place;
use tokio::sync::watch;

/// Keeps its epoch nowhere.
struct Forgetful;

impl Keep for Forgetful {
    type Open = ();

    fn take_office(&self, _: &Folder, now: UnixMillis) -> Result<(Epoch, ())> {
        Ok((next_epoch(Epoch(0), now), ()))
    }

    fn highest(&self, _: &Folder, (): &()) -> Result<Epoch> {
        Ok(Epoch(0))
    }
}

fn env() -> Env {
    Env::system(tokio::runtime::Handle::current())
}

/// A clock that stands still: nothing that happens can be owed to a look now and then.
fn without_time() -> Env {
    Env { clock: Arc::new(ManualClock::default()), ..env() }
}

fn watcher(dir: &Path, env: Env) -> (Arc<Retrieval>, watch::Receiver<Option<LeaderInfo>>) {
    let retrieval = Retrieval::folder(Folder::new(dir), env, Shutdown::new());
    let leader = retrieval.leader();
    (retrieval, leader)
}

async fn lead(dir: &Path) -> (Election<Forgetful>, LeaderInfo) {
    let folder = Folder::new(dir);
    let retrieval = Retrieval::folder(folder.clone(), env(), Shutdown::new());
    let election = Election::new(Forgetful, folder, env().clock, retrieval);
    let epoch = election.campaign().await.unwrap();
    let info = LeaderInfo { epoch: Some(epoch), rpc: "tcp://127.0.0.1:1".into(), rest: "http://127.0.0.1:2".into() };
    election.announce(epoch, info.clone()).await.unwrap();
    (election, info)
}

async fn sees(leader: &mut watch::Receiver<Option<LeaderInfo>>, wanted: Option<LeaderInfo>, within: Duration) {
    let seen = timeout(&SystemClock::new(), within, leader.wait_for(|now| *now == wanted)).await;
    assert!(matches!(seen, Ok(Ok(_))), "{wanted:?} within {within:?}");
}

#[test]
fn a_new_leader_and_its_leaving_are_events() {
    thalweg_testkit::run("events", async {
        let place = Place::new();
        let (_keep, mut leader) = watcher(place.dir(), without_time());
        assert_eq!(*leader.borrow(), None);
        // Until the watch is laid.
        SystemClock::new().sleep(Duration::from_millis(100)).await;
        for _ in 0..3 {
            let (election, info) = lead(place.dir()).await;
            sees(&mut leader, Some(info), Duration::from_secs(5)).await;
            election.leave().await.unwrap();
            sees(&mut leader, None, Duration::from_secs(5)).await;
        }
    });
}

#[test]
fn a_leader_that_ends_without_leaving_is_noticed() {
    thalweg_testkit::run("ends", async {
        let place = Place::new();
        let (_keep, mut leader) = watcher(place.dir(), env());
        let (election, info) = lead(place.dir()).await;
        sees(&mut leader, Some(info), Duration::from_secs(5)).await;
        drop(election);
        assert!(place.dir().join("leader.json").exists(), "nobody removed it");
        sees(&mut leader, None, Duration::from_secs(5)).await;
    });
}

#[test]
fn a_folder_that_is_made_later_or_replaced_is_found() {
    thalweg_testkit::run("made later", async {
        let place = Place::new();
        let dir = place.dir().join("later");
        let (_keep, mut leader) = watcher(&dir, env());
        SystemClock::new().sleep(Duration::from_millis(150)).await;
        std::fs::create_dir(&dir).unwrap();
        let (first, info) = lead(&dir).await;
        sees(&mut leader, Some(info), Duration::from_secs(5)).await;
        std::fs::rename(&dir, place.dir().join("away")).unwrap();
        sees(&mut leader, None, Duration::from_secs(5)).await;
        std::fs::create_dir(&dir).unwrap();
        SystemClock::new().sleep(Duration::from_millis(2)).await;
        let (_second, info) = lead(&dir).await;
        sees(&mut leader, Some(info), Duration::from_secs(5)).await;
        drop(first);
    });
}
