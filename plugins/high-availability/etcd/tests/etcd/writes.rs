//! Records: what an answer says is true, late writes stay away, sizes and quotas, and clusters beside each other.

use crate::{
    process::{Cluster, LEASE},
    proxy::{Way, pass},
    server::Server,
};
use bytes::Bytes;
use std::time::Duration;
use thalweg_env::{Entropy, SeededEntropy, SystemClock, timeout};
use thalweg_model::ClusterId;
use thalweg_spi::{ErrorKind, Expect, Happened, PluginConfig, TimeSpan, kind};
use thalweg_testkit::{eventually, suites::high_availability::HighAvailabilityFixture};

#[test]
fn under_resets_every_answer_is_true() {
    let Some(server) = Server::shared_three() else { return };
    let seed = std::env::var("THALWEG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    thalweg_testkit::run("resets", async {
        let cluster = Cluster::with(server, |c| c.lease = TimeSpan::from_secs(20));
        let a = cluster.open().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        let entropy = SeededEntropy::new(seed);
        let mut counts = [0; 3];
        let writes = async {
            let mut known = None;
            for n in 0..150u64 {
                let new = Bytes::from(vec![n as u8; (entropy.next_u64() % 20_000) as usize]);
                let expect = known.map_or(Expect::Absent, Expect::Version);
                let result = store.put(epoch, "k", new.clone(), expect).await;
                let now = eventually("a read", Duration::from_secs(20), || async { store.get("k").await.ok() }).await;
                let version = now.as_ref().map(|n| n.version);
                match result {
                    Ok(wrote) => {
                        counts[0] += 1;
                        assert_eq!(version, Some(wrote), "write {n} of seed {seed} said that it was done");
                        assert!(now.unwrap().value == new);
                    }
                    Err(e) if e.happened() == Happened::No => {
                        counts[1] += 1;
                        assert_eq!(version, known, "write {n} of seed {seed} said that it did not happen: {e}");
                    }
                    Err(_) => {
                        counts[2] += 1;
                        assert!(version == known || now.unwrap().value == new, "write {n} of seed {seed}");
                    }
                }
                known = version;
            }
        };
        let resets = async {
            let entropy = SeededEntropy::new(seed + 1);
            loop {
                // Mostly in the middle of a write, which takes some milliseconds.
                pass(Duration::from_millis(20 + entropy.next_u64() % 100)).await;
                cluster.set(&a, Way::Closed);
                pass(Duration::from_millis(5)).await;
                cluster.set(&a, Way::Open);
            }
        };
        tokio::select! { () = writes => {}, () = resets => {} }
        println!("done, not done, perhaps: {counts:?}");
        assert!(counts[0] > 75, "{counts:?}");
        assert_eq!(*a.leader_election().office().borrow(), thalweg_spi::Office::Leader(epoch));
    });
}

#[test]
fn a_write_that_lies_in_a_member_that_hangs_never_happens_later() {
    let Some(server) = Server::start(&["3"]) else { return };
    thalweg_testkit::run("late", async {
        let hangs = 1 + (server.leader() % 3);
        // The process talks to the one that will hang.
        let cluster = Cluster::with(&server, |c| {
            c.endpoints.rotate_left(hangs - 1);
            c.lease = TimeSpan::from_secs(30);
        });
        let a = cluster.direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        let kept = store.put(epoch, "kept", value("old"), Expect::Absent).await.unwrap();
        server.does("freeze", hangs);
        // This one is given up by its caller; the others find another member.
        let given_up = store.put(epoch, "given-up", value("late"), Expect::Absent);
        assert!(timeout(&SystemClock::new(), Duration::from_millis(200), given_up).await.is_err());
        let (first, second) = futures::join!(
            store.put(epoch, "gone", value("late"), Expect::Absent),
            store.put(epoch, "kept", value("late"), Expect::Version(kept)),
        );
        first.unwrap();
        second.unwrap();
        assert_eq!(store.get("given-up").await.unwrap(), None);
        store.delete(epoch, "gone", Expect::Any).await.unwrap();
        let newest = store.put(epoch, "kept", value("newest"), Expect::Any).await.unwrap();
        server.does("thaw", hangs);
        pass(Duration::from_secs(3)).await;
        assert_eq!(store.get("gone").await.unwrap(), None, "its creation came late");
        assert_eq!(store.get("given-up").await.unwrap(), None, "it was read as not there before");
        let kept = store.get("kept").await.unwrap().unwrap();
        assert_eq!((kept.version, &kept.value[..]), (newest, &b"newest"[..]));
    });
}

#[test]
fn a_value_that_etcd_does_not_take_is_too_large() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("large", async {
        let a = Cluster::new(server).direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let put = async |bytes: usize| a.metadata().put(epoch, "k", vec![7; bytes].into(), Expect::Any).await;
        put(1_400_000).await.unwrap();
        for bytes in [1_600_000, 9_000_000] {
            let error = put(bytes).await.unwrap_err();
            assert_eq!((error.kind(), error.happened()), (ErrorKind::TooLarge, Happened::No), "{error}");
            assert!(error.message().contains("1.5 MiB"), "{error}");
        }
        assert_eq!(a.metadata().get("k").await.unwrap().unwrap().value.len(), 1_400_000);
    });
}

#[test]
fn a_full_etcd_says_what_to_do_and_still_lets_records_be_removed() {
    let flags = [("ETCD_FLAGS", "--quota-backend-bytes 16777216")];
    let Some(server) = Server::start_with(&["1"], &flags) else { return };
    thalweg_testkit::run("full", async {
        let a = Cluster::new(&server).direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        let mut refused = None;
        for n in 0..40 {
            if let Err(e) = store.put(epoch, &n.to_string(), vec![7; 1_000_000].into(), Expect::Any).await {
                refused = Some(e);
                break;
            }
        }
        let error = refused.expect("16 MiB were full");
        assert_eq!((error.kind(), error.happened()), (ErrorKind::QuotaExceeded, Happened::No), "{error}");
        assert!(error.message().contains("etcdctl alarm disarm"), "{error}");
        pass(LEASE).await;
        assert_eq!(*a.leader_election().office().borrow(), thalweg_spi::Office::Leader(epoch), "renewals go on");
        store.delete(epoch, "0", Expect::Any).await.unwrap();
        assert!(store.get("1").await.unwrap().is_some());
    });
}

#[test]
fn a_long_list_is_whole_and_of_one_moment() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("list", async {
        let a = Cluster::new(server).direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        for n in 0..300 {
            let size = if n % 30 == 0 { 600_000 } else { 100 };
            store.put(epoch, &format!("r/{n:03}"), vec![n as u8; size].into(), Expect::Absent).await.unwrap();
        }
        store.put(epoch, "s", Bytes::new(), Expect::Absent).await.unwrap();
        let all = store.list("r/").await.unwrap();
        assert_eq!(all.len(), 300);
        for (n, (key, value)) in all.iter().enumerate() {
            assert_eq!((key.as_str(), value.value[0]), (format!("r/{n:03}").as_str(), n as u8));
        }
        assert_eq!(store.list("").await.unwrap().len(), 301);
    });
}

#[test]
fn a_record_of_somebody_else_is_damaged_and_named() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("damaged", async {
        let cluster = Cluster::new(server);
        let a = cluster.direct().await.unwrap();
        server.ctl(&["put", &cluster.leader_key().replace("@leader", "@data/k"), "soup"]);
        for error in [a.metadata().get("k").await.unwrap_err(), a.metadata().list("").await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.to_string().contains("@data/k"), "{error}");
        }
    });
}

#[test]
fn clusters_whose_names_begin_alike_do_not_see_each_other() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("prefixes", async {
        let cluster = Cluster::new(server);
        let root = format!("/thalweg/{}", cluster.place.context().cluster);
        let mut open = Vec::new();
        for (prefix, name) in [("", "a"), ("", "ab"), ("/a", "b"), ("/a/b", "a"), ("/a", "leader")] {
            let mut config = cluster.config.clone();
            config.prefix = format!("{root}{prefix}");
            let mut context = cluster.place.context();
            context.cluster = ClusterId::new(name);
            let services = PluginConfig::<kind::HighAvailability>::open(config, context).await.unwrap();
            // Each leads at once: it is a cluster of its own.
            let campaign =
                timeout(&SystemClock::new(), Duration::from_secs(5), services.leader_election().campaign()).await;
            let epoch = campaign.unwrap().unwrap();
            let key = format!("of-{name}");
            services.metadata().put(epoch, &key, Bytes::new(), Expect::Absent).await.unwrap();
            open.push((services, key));
        }
        for (services, key) in &open {
            let keys: Vec<_> = services.metadata().list("").await.unwrap().into_iter().map(|(k, _)| k).collect();
            assert_eq!(keys, [key.as_str()]);
        }
    });
}

#[test]
fn a_write_whose_answer_is_lost_is_found_to_be_done() {
    let Some(server) = Server::shared_three() else { return };
    thalweg_testkit::run("lost answer", async {
        let cluster = Cluster::with(server, |c| c.lease = TimeSpan::from_secs(20));
        let a = cluster.open().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let store = a.metadata();
        store.put(epoch, "warm", Bytes::new(), Expect::Absent).await.unwrap();
        // The request arrives, the answer does not; a second later the way is open again.
        cluster.set(&a, Way::Silent { there: false, back: true });
        let open = async {
            pass(Duration::from_millis(1500)).await;
            cluster.set(&a, Way::Open);
        };
        let (version, ()) = futures::join!(store.put(epoch, "k", Bytes::from_static(b"v"), Expect::Absent), open);
        assert_eq!(store.get("k").await.unwrap().unwrap().version, version.unwrap());
        let late = store.put(epoch, "k", Bytes::from_static(b"v"), Expect::Absent).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict, "an equal value of another write is not this one: {late}");
    });
}
