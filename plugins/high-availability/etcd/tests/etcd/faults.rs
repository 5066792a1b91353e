//! Members that die or hang: office stays, writes go on with another member, and without a majority nobody is misled.

use crate::{
    process::{Cluster, LEASE, info},
    proxy::pass,
    server::Server,
};
use bytes::Bytes;
use std::time::{Duration, Instant};
use thalweg_high_availability_etcd::EtcdConfig;
use thalweg_spi::{ErrorKind, Expect, Happened, Office, TimeSpan};

/// A leader writes on while `what` happens to the member it talks to, which is etcd's leader too; answers the longest
/// write.
fn writes_go_on(what: &str, undo: &str) {
    let Some(server) = Server::start(&["3"]) else { return };
    thalweg_testkit::run(what, async {
        let victim = server.leader();
        let cluster = Cluster::with(&server, |c| {
            c.endpoints.rotate_left(victim - 1);
            c.lease = TimeSpan::from_secs(10);
        });
        let (a, watcher) = (cluster.direct().await.unwrap(), cluster.direct().await.unwrap());
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        store.put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
        server.does(what, victim);
        let mut longest = Duration::ZERO;
        for n in 0..40u8 {
            let since = now();
            store.put(epoch, "k", Bytes::copy_from_slice(&[n]), Expect::Any).await.unwrap();
            longest = longest.max(since.elapsed());
            pass(Duration::from_millis(100)).await;
        }
        println!("{what} etcd's leader: the longest write took {longest:?}");
        assert!(longest < Duration::from_secs(6), "{longest:?}");
        assert_eq!(*a.leader_election().office().borrow(), Office::Leader(epoch));
        // Who watches through the same member learns of a new leader too.
        let mut leader = watcher.leader_retrieval().leader();
        a.leader_election().announce(epoch, info(epoch)).await.unwrap();
        let since = now();
        leader.wait_for(|l| *l == Some(info(epoch))).await.unwrap();
        println!("{what} etcd's leader: the watcher saw an announcement after {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(12));
        server.does(undo, victim);
        pass(Duration::from_millis(500)).await;
        store.put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
    });
}

#[test]
fn writes_go_on_when_a_member_is_killed() {
    writes_go_on("kill", "again");
}

#[test]
fn writes_go_on_when_a_member_hangs() {
    writes_go_on("freeze", "thaw");
}

#[test]
fn without_a_majority_a_write_is_refused_and_office_ends_by_its_own_clock() {
    let Some(server) = Server::start(&["3"]) else { return };
    thalweg_testkit::run("majority", async {
        let cluster = Cluster::new(&server);
        let (a, b) = (cluster.direct().await.unwrap(), cluster.direct().await.unwrap());
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        store.put(epoch, "k", Bytes::from_static(b"old"), Expect::Any).await.unwrap();
        server.does("freeze", 2);
        server.does("freeze", 3);
        let since = now();
        let error = store.put(epoch, "k", Bytes::from_static(b"new"), Expect::Any).await.unwrap_err();
        println!("without a majority: {error} after {:?}", since.elapsed());
        let mut office = a.leader_election().office();
        office.wait_for(|o| *o == Office::Lost(epoch)).await.unwrap();
        assert!(since.elapsed() < LEASE + error_time(), "{:?}", since.elapsed());
        server.does("thaw", 2);
        server.does("thaw", 3);
        let new = b.leader_election().campaign().await.unwrap();
        assert!(new > epoch);
        let value = b.metadata().get("k").await.unwrap().unwrap().value;
        match error.happened() {
            Happened::No => assert_eq!(value, "old"),
            Happened::Maybe => assert!(value == "old" || value == "new"),
        }
        let late = store.put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Fenced);
    });
}

/// The write may take as long as an operation may.
fn error_time() -> Duration {
    Duration::from_secs(6)
}

#[test]
fn a_process_starts_although_one_member_is_away() {
    let Some(server) = Server::start(&["3"]) else { return };
    thalweg_testkit::run("start", async {
        for (what, undo) in [("kill", "again"), ("freeze", "thaw")] {
            server.does(what, 1);
            // What ships: the member that is away may be etcd's leader, and the next one takes seconds.
            let shipped = EtcdConfig::default();
            let cluster = Cluster::with(&server, |c| {
                (c.lease, c.request_timeout) = (shipped.lease, shipped.request_timeout);
            });
            let a = cluster.direct().await.unwrap();
            let epoch = a.leader_election().campaign().await.unwrap();
            a.metadata().put(epoch, "k", Bytes::new(), Expect::Absent).await.unwrap();
            server.does(undo, 1);
            pass(Duration::from_secs(1)).await;
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn now() -> Instant {
    Instant::now()
}
