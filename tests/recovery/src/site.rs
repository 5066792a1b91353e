//! A cluster on a real etcd, whose JobManagers come and go.

use crate::{
    Started,
    proxy::{Proxy, Way},
    start_job_manager,
};
use std::{path::Path, process::Command, time::Duration};
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

impl Site {
    /// With the configuration that ships. `None`, visibly, where there is no etcd.
    pub fn start(plan: Plan) -> Option<Self> {
        let place = Place::new();
        let etcd = Etcd::start(&place, plan.members)?;
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
