//! Three etcd members, two JobManagers, two TaskManagers: whoever leads is killed, stopped or cut off from etcd, members come
//! and go, and no task notices.
//!
//! `THALWEG_KILLS`, `THALWEG_STOPS` (5 and 2 by default) say how often; `THALWEG_QUORUM_LOSS` for how many seconds etcd has no
//! quorum (8).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::PathBuf, process::Command, time::Duration};
use thalweg_cluster_tests::*;
use thalweg_recovery_tests::*;

/// Short, so that a test may lose many leaders.
const SHORT: &str = "high-availability.etcd.lease=6s";
/// What ships: etcd may lose its own leader meanwhile, and the office stays.
const SHIPPED: &str = "high-availability.etcd.lease=10s";
/// Lease, etcd's look at leases, and a margin for a busy machine.
const TAKEOVER: Duration = Duration::from_secs(20);
/// Beyond what a busy machine does to a run without kills; what is promised is measured offline.
const PAUSE: u64 = 1000;

fn times(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// In the order in which they end.
struct World {
    again: Vec<Started>,
    cluster: Cluster,
    etcd: Etcd,
    job: String,
    output: PathBuf,
    epoch: u64,
    place: Place,
}

impl World {
    fn start(lease: &str) -> Option<Self> {
        let place = Place::new();
        let etcd = Etcd::start(&place, 3)?;
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/etcd-ha.toml");
        let mut flags: Vec<String> = vec!["-c".into(), shipped.into()];
        let options = [&*etcd.option(), lease, "cluster.name=recovery", "rest.port=0", "job-manager.rpc-port=0"];
        flags.extend(options.iter().map(|o| format!("-D{o}")));
        let dir = place.path().join("cluster");
        let mut start = Command::new(thalweg());
        start.args(&flags).arg("--dir").arg(&dir).args(["cluster", "start", "--jobmanagers", "2"]);
        let done = run(start.args(["--taskmanagers", "2", "--slots", "2"]));
        assert_eq!(done.code, 0, "{done:?}");
        let cluster = Cluster::at(&dir, &flags);
        let (job, output) = start_unbounded(&cluster, &place, 4, 2000);
        let mut world = Self { place, etcd, cluster, again: Vec::new(), job, output, epoch: 0 };
        world.goes_on("the start");
        Some(world)
    }

    /// The job runs under a leader of a higher (or the same) epoch, in its first attempt, and numbers come.
    fn goes_on(&mut self, what: &str) {
        let mut seen = serde_json::Value::Null;
        let job = self.job.clone();
        eventually(&format!("{what}: the job runs"), TAKEOVER, || {
            seen = self.cluster.try_get("/api/overview").unwrap_or_default();
            let jobs = seen["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            jobs.iter().any(|j| j["id"] == job.as_str() && j["status"] == "RUNNING")
        });
        let attempt =
            seen["jobs"].as_array().unwrap().iter().find(|j| j["id"] == job.as_str()).unwrap()["attempt"].clone();
        assert_eq!(attempt, 0, "{what}: nothing started again");
        let epoch = seen["epoch"].as_u64().unwrap();
        assert!(epoch >= self.epoch, "{what}: epochs grow: {epoch} after {}", self.epoch);
        self.epoch = epoch;
        let before = Numbers::read(&self.output).count;
        eventually("numbers come", Duration::from_secs(5), || Numbers::read(&self.output).count > before);
    }

    /// One more standby, in the place of one that is gone.
    fn replace(&mut self, name: &str) {
        self.again.push(start_job_manager(&self.cluster, name, &["rest.port=0", "job-manager.rpc-port=0"]));
        // It waits before the next one dies.
        eventually("a standby waits", Duration::from_secs(10), || {
            self.cluster.processes().iter().any(|p| p["role"] == "jobmanager" && p["standing"] == "standby")
        });
    }

    /// Until another JobManager leads; answers how long it took.
    fn another_leads(&self, than: u32) -> Duration {
        eventually("another JobManager leads", TAKEOVER, || {
            let file = std::fs::read_to_string(self.cluster.dir().join("cluster.json")).unwrap_or_default();
            !file.is_empty() && !file.contains(&format!("\"pid\": {than}")) && is_alive(self.cluster.job_manager())
        })
    }

    fn end(mut self, unharmed: &Numbers) {
        let done = run(self.cluster.command(&["cancel"]).arg(&self.job));
        assert_eq!(done.code, 0, "{done:?}");
        self.cluster.wait_for(&self.job, "CANCELED", Duration::from_secs(10));
        let numbers = Numbers::read(&self.output);
        numbers.assert_whole();
        println!(
            "{} numbers; output gaps: p99.9 {} ms, worst {} ms; before the first fault {} and {} ms",
            numbers.count,
            numbers.gap(999),
            numbers.worst(),
            unharmed.gap(999),
            unharmed.worst()
        );
        assert!(numbers.worst() < PAUSE, "the data plane paused for {} ms", numbers.worst());
        assert_eq!(run(self.cluster.command(&["cluster", "stop"])).code, 0);
        self.again.clear();
        let left = processes_with(&self.place.path().join("cluster").to_string_lossy());
        assert_eq!(left, Vec::<u32>::new(), "processes are left");
    }
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
        println!("{what}: median {} ms, worst {} ms of {}", median.as_millis(), worst.as_millis(), times.len());
    }
}

#[test]
fn no_task_notices_that_the_leader_is_killed_or_stopped_or_resigns() {
    let Some(mut world) = World::start(SHORT) else { return };
    let unharmed = Numbers::read(&world.output);
    let (mut kills, mut stops, mut resigned) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..times("THALWEG_KILLS", 5) {
        let leader = kill_leader(&world.cluster);
        kills.push(world.another_leads(leader));
        world.goes_on("a kill");
        world.replace(&format!("kill-{n}"));
    }
    for n in 0..times("THALWEG_STOPS", 2) {
        let leader = world.cluster.job_manager();
        kill(leader, 19);
        stops.push(world.another_leads(leader));
        world.goes_on("a stop");
        kill(leader, 18);
        eventually("whoever has lost office ends", Duration::from_secs(5), || !is_alive(leader));
        world.goes_on("the old leader woke");
        world.replace(&format!("stop-{n}"));
    }
    for n in 0..2 {
        let leader = world.cluster.job_manager();
        kill(leader, 15);
        resigned.push(world.another_leads(leader));
        world.goes_on("a leader resigned");
        eventually("it has ended", Duration::from_secs(5), || !is_alive(leader));
        world.replace(&format!("resign-{n}"));
    }
    told("killed leader to the next one's word", kills);
    told("stopped leader to the next one's word", stops);
    told("resigning leader to the next one's word", resigned);
    world.end(&unharmed);
}

#[test]
fn no_task_notices_what_happens_to_etcd() {
    let Some(mut world) = World::start(SHIPPED) else { return };
    let unharmed = Numbers::read(&world.output);
    for (what, back) in [("kill", "again"), ("freeze", "thaw")] {
        let member = world.etcd.leader();
        world.etcd.does(what, member);
        std::thread::sleep(Duration::from_secs(4));
        world.goes_on(what);
        world.etcd.does(back, member);
        std::thread::sleep(Duration::from_secs(2));
    }
    // Without a quorum nobody leads, and nobody is needed.
    let lost = times("THALWEG_QUORUM_LOSS", 8);
    let leader = world.cluster.job_manager();
    for member in [1, 2] {
        world.etcd.does("freeze", member);
    }
    let before = Numbers::read(&world.output).count;
    eventually("the leader ends by its own clock", Duration::from_secs(15), || !is_alive(leader));
    std::thread::sleep(Duration::from_secs(lost));
    assert!(Numbers::read(&world.output).count > before + lost * 1000, "tasks go on without a leader");
    for member in [1, 2] {
        world.etcd.does("thaw", member);
    }
    // The lease that is over begins anew with etcd's own leader.
    eventually("another JobManager leads", TAKEOVER * 2, || {
        world.cluster.try_get("/api/overview").is_some() && world.cluster.job_manager() != leader
    });
    world.goes_on("the quorum is back");
    world.end(&unharmed);
}

#[test]
fn a_bounded_job_is_exact_when_leader_and_task_manager_are_lost_together() {
    let place = Place::new();
    let Some(etcd) = Etcd::start(&place, 1) else { return };
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/etcd-ha.toml");
    let mut flags: Vec<String> = vec!["-c".into(), shipped.into()];
    let options = [&*etcd.option(), "high-availability.etcd.lease=2s", "cluster.name=both", "rest.port=0"];
    flags.extend(options.iter().map(|o| format!("-D{o}")));
    flags.push("-Djob-manager.rpc-port=0".into());
    let dir = place.path().join("cluster");
    let mut start = Command::new(thalweg());
    start.args(&flags).arg("--dir").arg(&dir).args(["cluster", "start", "--jobmanagers", "2"]);
    let done = run(start.args(["--taskmanagers", "3", "--slots", "2"]));
    assert_eq!(done.code, 0, "{done:?}");
    let cluster = Cluster::at(&dir, &flags);
    let input = place.path().join("words.txt");
    words_file(&input, 120 << 20, 9);
    let expected = counts_by_shell(&input);
    let output = place.path().join("out");
    let args = ["--input", input.to_str().unwrap(), "--output", output.to_str().unwrap()];
    let job = cluster.submit(&["-p", "4"], &example("wordcount"), &args);
    eventually("it reads", Duration::from_secs(20), || cluster.progress(&job).0 > 0);
    let victim = cluster.task_managers().into_iter().find(|tm| !hosts_of(*tm).is_empty()).unwrap();
    kill(victim, 9);
    let leader = kill_leader(&cluster);
    eventually("another JobManager leads", TAKEOVER, || {
        let file = std::fs::read_to_string(cluster.dir().join("cluster.json")).unwrap_or_default();
        !file.is_empty() && !file.contains(&format!("\"pid\": {leader}"))
    });
    cluster.wait_for(&job, "FINISHED", Duration::from_secs(60));
    assert!(attempt(&cluster, &job) >= 1, "what was lost started again");
    assert!(counts_in(&output) == expected, "the answer is not exact");
    assert_eq!(run(cluster.command(&["cluster", "stop"])).code, 0);
}
