//! A cluster on a real etcd, whose JobManagers come and go, and a stopwatch for the change of leaders.

use crate::{
    Started, kill_leader,
    proxy::{Proxy, Way},
    start_job_manager,
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use thalweg_cluster_tests::*;

/// Short, so that a test may lose many leaders.
pub const SHORT: Duration = Duration::from_secs(6);
/// What ships: etcd may lose its own leader meanwhile, and the office stays.
pub const SHIPPED: Duration = Duration::from_secs(10);
/// Lease, etcd's look at leases, and a margin for a busy machine.
pub const TAKEOVER: Duration = Duration::from_secs(20);

/// How often, as a variable says.
pub fn times(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// What a site is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// etcd's members.
    pub members: u32,
    /// Of the leader.
    pub lease: Duration,
    /// JobManagers at the start.
    pub job_managers: u32,
    /// TaskManagers.
    pub task_managers: u32,
    /// Slots of each.
    pub slots: u32,
    /// Flags for etcd's members.
    pub etcd_flags: &'static str,
}

/// The cluster's name, as etcd knows it.
const NAME: &str = "recovery";

/// In the order in which they end.
pub struct Site {
    /// JobManagers that were started after the cluster.
    pub again: Vec<Started>,
    /// The cluster.
    pub cluster: Cluster,
    /// Its etcd.
    pub etcd: Etcd,
    /// Where everything is.
    pub place: Place,
}

/// A JobManager that reaches etcd by ways of its own.
pub struct BehindProxies {
    /// Its process.
    pub process: Started,
    /// Its log is `again-<name>.log`.
    pub name: String,
    ways: Vec<Proxy>,
}

impl BehindProxies {
    /// All its ways do this from now on.
    pub fn ways(&self, way: Way) {
        self.ways.iter().for_each(|proxy| proxy.set(way));
    }
}

/// When what was so after a leader was killed, counted from its death.
#[derive(Debug, Clone, Copy)]
pub struct Takeover {
    /// Its lease ends, as its last renewal has it.
    pub lease: Duration,
    /// etcd has let it go.
    pub let_go: Duration,
    /// The next leader gives its word, which is where commands find it.
    pub word: Duration,
    /// Its REST tells of the jobs.
    pub rest: Duration,
    /// All of them run.
    pub reconciled: Duration,
}

impl Site {
    /// With the configuration that ships. `None`, visibly, where there is no etcd.
    pub fn start(plan: Plan) -> Option<Self> {
        let place = Place::new();
        let etcd = Etcd::start_with(&place, plan.members, plan.etcd_flags)?;
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../conf/etcd-ha.toml");
        let mut flags: Vec<String> = vec!["-c".into(), shipped.into()];
        let (lease, name) = (lease_option(plan.lease), format!("cluster.name={NAME}"));
        let options = [&*etcd.option(), &*lease, &*name, "rest.port=0", "job-manager.rpc-port=0"];
        flags.extend(options.iter().map(|o| format!("-D{o}")));
        let dir = place.path().join("cluster");
        let numbers = [plan.job_managers, plan.task_managers, plan.slots].map(|n| n.to_string());
        let mut start = Command::new(thalweg());
        start.args(&flags).arg("--dir").arg(&dir).args(["cluster", "start", "--jobmanagers", &numbers[0]]);
        let done = run(start.args(["--taskmanagers", &numbers[1], "--slots", &numbers[2]]));
        assert_eq!(done.code, 0, "{done:?}");
        Some(Self { again: Vec::new(), cluster: Cluster::at(&dir, &flags), etcd, place })
    }

    /// One more standby, in the place of one that is gone.
    pub fn replace(&mut self, name: &str) {
        self.again.push(start_job_manager(&self.cluster, name, &["rest.port=0", "job-manager.rpc-port=0"]));
        self.standby_waits();
    }

    /// The same, which can be cut off from etcd alone.
    pub fn replace_behind_proxies(&self, name: &str) -> BehindProxies {
        let ways: Vec<Proxy> = self.etcd.endpoints.iter().map(|e| Proxy::to(e)).collect();
        let endpoints: Vec<String> = ways.iter().map(|proxy| format!("{:?}", proxy.endpoint())).collect();
        let through = format!("high-availability.etcd.endpoints=[{}]", endpoints.join(","));
        let process = start_job_manager(&self.cluster, name, &["rest.port=0", "job-manager.rpc-port=0", &through]);
        self.standby_waits();
        BehindProxies { process, name: name.into(), ways }
    }

    /// It waits before the next one dies.
    fn standby_waits(&self) {
        eventually("a standby waits", Duration::from_secs(10), || {
            self.cluster.processes().iter().any(|p| p["role"] == "jobmanager" && p["standing"] == "standby")
        });
    }

    /// Does another JobManager than this one lead?
    fn is_replaced(&self, leader: u32) -> bool {
        let file = std::fs::read_to_string(self.cluster.dir().join("cluster.json")).unwrap_or_default();
        !file.is_empty() && !file.contains(&format!("\"pid\": {leader}")) && is_alive(self.cluster.job_manager())
    }

    /// Until another JobManager leads; answers how long it took.
    pub fn another_leads(&self, than: u32) -> Duration {
        eventually("another JobManager leads", TAKEOVER, || self.is_replaced(than))
    }

    /// Log of a JobManager that was started again.
    pub fn log(&self, name: &str) -> String {
        log_at(&self.cluster.dir().join(format!("log/again-{name}.log")))
    }

    /// Kills the leader, and watches until another one has all these jobs.
    pub fn takeover(&self, jobs: usize) -> Takeover {
        let lease = self.etcd.lease_of(&format!("/thalweg/{NAME}/@leader"));
        let began = Instant::now();
        let leader = kill_leader(&self.cluster);
        let (mut last_second, mut let_go) = (None, None);
        while !self.is_replaced(leader) {
            assert!(began.elapsed() < TAKEOVER, "another JobManager leads: not within {TAKEOVER:?}");
            if let_go.is_none() {
                match self.etcd.left_of(lease) {
                    // Whole seconds, cut off.
                    Some(0) => drop(last_second.get_or_insert(began.elapsed())),
                    Some(_) => {}
                    None => let_go = Some(began.elapsed()),
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let word = began.elapsed();
        let mut told = serde_json::Value::Null;
        let statuses = |told: &serde_json::Value| -> Vec<String> {
            let jobs = told["jobs"].as_array().cloned().unwrap_or_default();
            jobs.iter().map(|j| j["status"].as_str().unwrap_or_default().to_owned()).collect()
        };
        eventually("its REST serves", TAKEOVER, || {
            told = self.cluster.try_get("/api/overview").unwrap_or_default();
            !told.is_null()
        });
        let rest = began.elapsed();
        let all_run = |told: &serde_json::Value| statuses(told).iter().filter(|s| *s == "RUNNING").count() == jobs;
        eventually("all jobs are reconciled", TAKEOVER, || {
            if !all_run(&told) {
                told = self.cluster.try_get("/api/overview").unwrap_or_default();
            }
            all_run(&told)
        });
        let lease = last_second.map_or(word, |at| at + Duration::from_secs(1));
        Takeover { lease, let_go: let_go.unwrap_or(word), word, rest, reconciled: began.elapsed() }
    }
}

/// `key=value` of a lease.
fn lease_option(lease: Duration) -> String {
    format!("high-availability.etcd.lease={}s", lease.as_secs())
}

fn log_at(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Median and worst.
pub fn told(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
        println!("{what}: median {} ms, worst {} ms of {}", median.as_millis(), worst.as_millis(), times.len());
    }
}

/// The parts of some takeovers, one after the other, and what they come to.
pub fn told_in_parts(all: &[Takeover]) {
    let part = |what: &str, of: fn(&Takeover) -> Duration| told(what, all.iter().map(of).collect());
    part("a leader is killed; then to the end of its lease", |t| t.lease);
    part("  then until etcd lets the lease go", |t| t.let_go.saturating_sub(t.lease));
    part("  then to the next leader's word", |t| t.word.saturating_sub(t.let_go));
    part("  then until its REST serves", |t| t.rest.saturating_sub(t.word));
    part("  then until all jobs are reconciled", |t| t.reconciled.saturating_sub(t.rest));
    part("in all, from the end of the lease", |t| t.reconciled.saturating_sub(t.lease));
    part("in all, from the kill", |t| t.reconciled);
}
