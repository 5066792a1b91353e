//! Office against the clock: nothing that blocks prolongs it, and nothing that is busy loses it.

use crate::{
    process::{Cluster, LEASE, info},
    proxy::{Way, pass},
    server::Server,
};
use bytes::Bytes;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use thalweg_spi::{ErrorKind, Expect, Happened, Office};
use thalweg_testkit::suites::high_availability::HighAvailabilityFixture;

/// Runs a case on one thread, which the case may block.
fn on_one_thread(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(case);
}

#[test]
fn a_lease_is_renewed_although_the_process_is_busy() {
    let Some(server) = Server::shared() else { return };
    on_one_thread(async {
        let a = Cluster::new(server).direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        std::thread::sleep(LEASE * 2);
        assert_eq!(*a.leader_election().office().borrow(), Office::Leader(epoch));
        a.metadata().put(epoch, "k", Bytes::new(), Expect::Absent).await.unwrap();
    });
}

#[test]
fn loss_is_told_in_time_although_the_process_is_busy_and_etcd_hangs() {
    let Some(server) = Server::start(&["1"]) else { return };
    on_one_thread(async {
        let a = Cluster::new(&server).direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        let office = a.leader_election().office();
        server.does("freeze", 1);
        let since = now();
        while *office.borrow() == Office::Leader(epoch) {
            assert!(since.elapsed() < LEASE, "told before the lease can have ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(*office.borrow(), Office::Lost(epoch));
        // No answer of etcd is needed to be refused.
        let asked = now();
        let error = a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap_err();
        assert_eq!((error.kind(), error.happened()), (ErrorKind::Fenced, Happened::No), "{error}");
        assert!(asked.elapsed() < Duration::from_millis(900), "less than the time-out of a request");
        server.does("thaw", 1);
    });
}

#[test]
fn a_process_that_was_stopped_and_wakes_writes_nothing() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("stopped", async {
        let cluster = Cluster::new(server);
        let prefix = format!("/thalweg/{}", cluster.place.context().cluster);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "office::the_process_that_is_stopped", "--ignored", "--nocapture"])
            .env("THALWEG_ETCD_ENDPOINT", &server.endpoints()[0])
            .env("THALWEG_ETCD_PREFIX", &prefix)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let wrote = |line: &String| line.starts_with("wrote");
        assert!(lines.by_ref().take(50).any(|line| wrote(&line)));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        // What it wrote before is in the pipe; the other one leads after that.
        pass(Duration::from_millis(100)).await;
        let b = stopped_cluster(&server.endpoints()[0], &prefix, &cluster.place).await;
        let new = b.leader_election().campaign().await.unwrap();
        let before = b.metadata().get("k").await.unwrap();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        // An empty line is in front of each of those that it wrote, of which there may be some.
        let before_it_slept = |line: &String| line.is_empty() || wrote(line);
        let after: Vec<_> = lines.skip_while(before_it_slept).take_while(|line| line != "end").collect();
        assert_eq!(after, ["refused: fenced", "office: lost"]);
        child.wait().unwrap();
        assert_eq!(b.metadata().get("k").await.unwrap(), before);
        b.metadata().put(new, "k", Bytes::new(), Expect::Any).await.unwrap();
    });
}

async fn stopped_cluster(endpoint: &str, prefix: &str, place: &thalweg_testkit::Place) -> crate::process::Services {
    use thalweg_spi::{PluginConfig, TimeSpan, kind};
    let config = thalweg_high_availability_etcd::EtcdConfig {
        endpoints: vec![endpoint.to_owned()],
        prefix: prefix.to_owned(),
        lease: TimeSpan::from_secs(LEASE.as_secs()),
        ..Default::default()
    };
    let mut context = place.context();
    context.cluster = thalweg_model::ClusterId::new("stopped");
    PluginConfig::<kind::HighAvailability>::open(config, context).await.unwrap()
}

/// Not a test: what the test above starts.
#[test]
#[ignore = "a part of a_process_that_was_stopped_and_wakes_writes_nothing"]
fn the_process_that_is_stopped() {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(endpoint) = variable("THALWEG_ETCD_ENDPOINT") else { return };
    let prefix = variable("THALWEG_ETCD_PREFIX").unwrap();
    // One thread, so that only the lease's own thread could tell the loss before the write is refused.
    on_one_thread(async {
        let a = stopped_cluster(&endpoint, &prefix, &thalweg_testkit::Place::new()).await;
        let epoch = a.leader_election().campaign().await.unwrap();
        for n in 0u32.. {
            match a.metadata().put(epoch, "k", Bytes::from(n.to_string()), Expect::Any).await {
                Ok(_) => println!("\nwrote {n}"),
                Err(e) => {
                    println!("refused: {}", e.kind().as_str());
                    let lost = *a.leader_election().office().borrow() == Office::Lost(epoch);
                    println!("office: {}", if lost { "lost" } else { "kept" });
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("end");
    });
}

#[test]
fn a_leader_whose_key_was_removed_is_fenced_and_told() {
    let Some(server) = Server::shared() else { return };
    on_one_thread(async {
        let cluster = Cluster::new(server);
        let a = cluster.direct().await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        // This thread is blocked meanwhile, so that the watch has told nothing yet: etcd itself refuses.
        server.ctl(&["del", &cluster.leader_key()]);
        let error = a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap_err();
        assert_eq!((error.kind(), error.happened()), (ErrorKind::Fenced, Happened::No), "{error}");
        assert!(error.message().contains("etcd has another leader or none"), "{error}");
        assert_eq!(*a.leader_election().office().borrow(), Office::Lost(epoch));
        // And without a write, the watch tells.
        let again = a.leader_election().campaign().await.unwrap();
        assert!(again > epoch);
        server.ctl(&["del", &cluster.leader_key()]);
        let mut office = a.leader_election().office();
        office.wait_for(|o| *o == Office::Lost(again)).await.unwrap();
    });
}

#[test]
fn a_leader_that_resigns_is_followed_at_once() {
    let Some(server) = Server::shared_three() else { return };
    thalweg_testkit::run("resign", async {
        let cluster = Cluster::new(server);
        let (a, b) = (cluster.direct().await.unwrap(), cluster.direct().await.unwrap());
        let mut took = Vec::new();
        let (mut leads, mut waits) = (a, b);
        let mut epoch = leads.leader_election().campaign().await.unwrap();
        for _ in 0..5 {
            let election = waits.leader_election();
            let next = tokio::task::unconstrained(election.campaign());
            let resign = async {
                pass(Duration::from_millis(200)).await;
                let since = now();
                leads.leader_election().resign(epoch).await.unwrap();
                since
            };
            let (next, since) = futures::join!(async { (next.await.unwrap(), now()) }, resign);
            took.push(next.1.duration_since(since));
            assert!(next.0 > epoch);
            epoch = next.0;
            std::mem::swap(&mut leads, &mut waits);
        }
        took.sort();
        println!("from resign to the next leader: {took:?}");
        assert!(took[2] < LEASE / 4, "{took:?}");
    });
}

#[test]
fn a_crash_passes_office_within_lease_and_margin() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("crash", async {
        let cluster = Cluster::new(server);
        let (a, b) = (cluster.open().await.unwrap(), cluster.open().await.unwrap());
        a.leader_election().campaign().await.unwrap();
        let since = now();
        cluster.crash(a).await;
        b.leader_election().campaign().await.unwrap();
        println!("from a crash to the next leader: {:?}, lease {LEASE:?}", since.elapsed());
        // etcd looks for leases that are over each half second.
        assert!(since.elapsed() < LEASE + Duration::from_secs(3), "{:?}", since.elapsed());
    });
}

#[test]
fn a_grant_whose_answer_is_lost_is_found_again() {
    let Some(server) = Server::shared_three() else { return };
    thalweg_testkit::run("campaigns", async {
        let cluster = Cluster::with(server, |c| c.lease = thalweg_spi::TimeSpan::from_secs(30));
        let a = cluster.open().await.unwrap();
        let mut last = thalweg_model::Epoch(0);
        for round in 0..60u64 {
            // Each round the connections break a little later in the candidacy.
            let election = a.leader_election();
            let breaks = async {
                pass(Duration::from_micros(200 * round)).await;
                cluster.set(&a, Way::Closed);
                cluster.set(&a, Way::Open);
            };
            let since = now();
            let (epoch, ()) = futures::join!(election.campaign(), breaks);
            let epoch = epoch.unwrap();
            assert!(epoch > last, "round {round}");
            // A grant that was not found again would have to end with its lease.
            assert!(since.elapsed() < Duration::from_secs(10), "round {round}: {:?}", since.elapsed());
            a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
            a.leader_election().resign(epoch).await.unwrap();
            last = epoch;
        }
    });
}

#[test]
fn a_standby_outlives_an_etcd_that_is_away() {
    let Some(server) = Server::start(&["1"]) else { return };
    thalweg_testkit::run("away", async {
        let cluster = Cluster::new(&server);
        let (a, b) = (cluster.direct().await.unwrap(), cluster.direct().await.unwrap());
        let old = a.leader_election().campaign().await.unwrap();
        let election = b.leader_election();
        let campaign = election.campaign();
        let restart = async {
            pass(Duration::from_millis(200)).await;
            server.does("kill", 1);
            pass(LEASE * 2).await;
            assert_eq!(*a.leader_election().office().borrow(), Office::Lost(old));
            server.does("again", 1);
        };
        let (new, ()) = futures::join!(campaign, restart);
        assert!(new.unwrap() > old, "epochs grow over a restart of the store");
    });
}

#[test]
fn a_watcher_sees_the_last_state_although_history_was_compacted_while_it_was_cut_off() {
    let Some(server) = Server::start(&["1"]) else { return };
    thalweg_testkit::run("compacted", async {
        let cluster = Cluster::new(&server);
        let (a, watcher) = (cluster.direct().await.unwrap(), cluster.open().await.unwrap());
        let old = a.leader_election().campaign().await.unwrap();
        a.leader_election().announce(old, info(old)).await.unwrap();
        let mut leader = watcher.leader_retrieval().leader();
        leader.wait_for(|l| *l == Some(info(old))).await.unwrap();
        cluster.set(&watcher, Way::Closed);
        a.leader_election().resign(old).await.unwrap();
        let new = a.leader_election().campaign().await.unwrap();
        a.leader_election().announce(new, info(new)).await.unwrap();
        for n in 0..20u8 {
            a.metadata().put(new, "k", Bytes::copy_from_slice(&[n]), Expect::Any).await.unwrap();
        }
        let now = a.metadata().get("k").await.unwrap().unwrap().version;
        server.ctl(&["compact", &now.to_string()]);
        cluster.set(&watcher, Way::Open);
        let mut leader = watcher.leader_retrieval().leader();
        let seen = leader.wait_for(|l| *l == Some(info(new)));
        assert!(thalweg_env::timeout(&thalweg_env::SystemClock::new(), Duration::from_secs(10), seen).await.is_ok());
    });
}

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn now() -> Instant {
    Instant::now()
}
