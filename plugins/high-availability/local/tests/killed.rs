//! Real processes, killed in the middle of their writes: what was acknowledged is there, and the next one leads.
//!
//! This executable runs itself again as the other process: `the_other_process` does nothing unless a variable tells it
//! where to lead.

#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use thalweg_env::{Clock, Entropy, Env, Shutdown, SystemClock, SystemEntropy, timeout};
use thalweg_high_availability_local::LocalConfig;
use thalweg_model::{ClusterId, Epoch};
use thalweg_spi::{ErrorKind, Expect, HighAvailabilityServices, LeaderInfo, PluginConfig, PluginContext, Secret, kind};
use thalweg_testkit::Place;

const DIR: &str = "THALWEG_TEST_LEAD_IN";

async fn open(dir: &Path) -> Arc<dyn HighAvailabilityServices> {
    let context = PluginContext {
        env: Env::system(tokio::runtime::Handle::current()),
        cluster: ClusterId::new("killed"),
        cluster_dir: dir.to_owned(),
        working_dir: dir.to_owned(),
        secret: Secret::new(vec![7; 16]),
        configuration: String::new(),
        shutdown: Shutdown::new(),
    };
    PluginConfig::<kind::HighAvailability>::open(LocalConfig {}, context).await.unwrap()
}

fn key(n: u64) -> String {
    format!("jobs/{n:06}")
}

fn value(n: u64) -> Bytes {
    // Some span pages, some do not.
    Bytes::from(vec![n as u8; 1 + (n as usize * 379) % 9000])
}

/// Leads, and writes until it is killed; tells each record that was acknowledged.
#[test]
fn the_other_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    thalweg_testkit::run("the other process", async {
        let services = open(Path::new(&dir)).await;
        let epoch = services.leader_election().campaign().await.unwrap();
        let info =
            LeaderInfo { epoch: Some(epoch), rpc: "tcp://127.0.0.1:1".into(), rest: "http://127.0.0.1:2".into() };
        services.leader_election().announce(epoch, info).await.unwrap();
        let mut out = std::io::stdout();
        let first = services.metadata().list("jobs/").await.unwrap().len() as u64;
        writeln!(out, "\nleads {epoch} {first}").unwrap();
        for n in first.. {
            let version = services.metadata().put(epoch, &key(n), value(n), Expect::Absent).await.unwrap();
            writeln!(out, "wrote {n} {version}").unwrap();
            out.flush().unwrap();
        }
    });
}

struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["the_other_process", "--exact", "--nocapture"]).env(DIR, dir).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The numbers behind the next line that begins so.
    fn told(&mut self, word: &str) -> Option<Vec<u64>> {
        for line in (&mut self.out).lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            if words.next() == Some(word) {
                return Some(words.map_while(|w| w.parse().ok()).collect());
            }
        }
        None
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_acknowledged_record_is_there_after_a_kill() {
    thalweg_testkit::run("killed", async {
        let place = Place::new();
        let (mut last_epoch, mut last_version, mut acknowledged) = (Epoch(0), 0, 0);
        for round in 0..12 {
            let mut other = Other::start(place.dir());
            let leads = other.told("leads").unwrap();
            let epoch = Epoch(leads[0]);
            assert!(epoch > last_epoch, "round {round}: {epoch} after {last_epoch}");
            let mut tell = |other: &mut Other, acknowledged: &mut u64| {
                let Some(told) = other.told("wrote") else { return false };
                assert!(told[1] > last_version, "round {round}: version {} after {last_version}", told[1]);
                (*acknowledged, last_version) = (told[0] + 1, told[1]);
                true
            };
            for _ in 0..3 {
                assert!(tell(&mut other, &mut acknowledged));
            }
            // Anywhere within a write.
            SystemClock::new().sleep(Duration::from_micros(SystemEntropy.next_u64() % 20_000)).await;
            other.kill();
            while tell(&mut other, &mut acknowledged) {}

            let services = open(place.dir()).await;
            if round % 2 == 0 {
                // Also by one that never stood for office.
                assert!(services.metadata().list("jobs/").await.unwrap().len() as u64 >= acknowledged);
            }
            last_epoch = services.leader_election().campaign().await.unwrap();
            assert!(last_epoch > epoch);
            let found = services.metadata().list("jobs/").await.unwrap();
            let count = found.len() as u64;
            assert!(
                count == acknowledged || count == acknowledged + 1,
                "{count} of {acknowledged}: one may be on its way"
            );
            for (n, (at, record)) in (0..).zip(&found) {
                assert!(*at == key(n) && record.value == value(n), "round {round}: {at}");
                last_version = last_version.max(record.version);
            }
            services.close().await.unwrap();
            acknowledged = count;
        }
        assert!(acknowledged > 36);
    });
}

#[test]
fn a_second_process_is_refused_and_leads_after_the_first_was_killed() {
    thalweg_testkit::run("refused", async {
        let place = Place::new();
        let mut other = Other::start(place.dir());
        other.told("leads").unwrap();
        let services = open(place.dir()).await;
        let mut leader = services.leader_retrieval().leader();
        assert!(leader.borrow().is_some());
        let error = services.leader_election().campaign().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let (pid, dir) = (other.child.id(), place.dir().display());
        let text = format!("another JobManager (pid {pid}) uses {dir}: stop it or choose another --dir");
        assert_eq!(error.message(), text);
        let error = services.metadata().list("").await.unwrap_err();
        assert!(error.message().contains(&format!("the JobManager (pid {pid}) that leads has")), "{error}");

        let clock = SystemClock::new();
        clock.sleep(Duration::from_millis(100)).await;
        let killed = clock.now();
        other.kill();
        let seen = timeout(&clock, Duration::from_secs(5), leader.wait_for(Option::is_none)).await;
        assert!(matches!(seen, Ok(Ok(_))), "its death is noticed");
        drop(seen);
        println!("noticed after {:?}", clock.now() - killed);
        let epoch = services.leader_election().campaign().await.unwrap();
        services.metadata().put(epoch, "mine", Bytes::new(), Expect::Absent).await.unwrap();
    });
}
