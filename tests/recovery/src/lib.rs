//! What the tests of fail-over share: a cluster whose JobManagers die and are started again, and the check of the numbered
//! output that tells whether anything stopped, was lost or came twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests: the system's clock is what is measured by"
)]

mod proxy;
mod site;

pub use proxy::{Proxy, Way};
pub use site::*;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use thalweg_cluster_tests::{Cluster, Place, eventually, example, is_alive, kill, thalweg};

/// A process that ends with the test.
pub struct Started(Child);

impl Started {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Collects it once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.0.wait().ok().and_then(|status| status.code())
    }

    /// Its exit code, once it has ended; -1 when a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        self.0.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One more JobManager of this cluster, in the foreground; its log is `<dir>/log/again-<name>.log`.
pub fn start_job_manager(cluster: &Cluster, name: &str, options: &[&str]) -> Started {
    let log = std::fs::File::create(cluster.dir().join(format!("log/again-{name}.log"))).unwrap();
    let mut command = Command::new(thalweg());
    command.arg("--dir").arg(cluster.dir()).arg("-c").arg(cluster.dir().join("thalweg.toml")).arg("jobmanager");
    command.args(options.iter().map(|o| format!("-D{o}")));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Started(command.spawn().unwrap())
}

/// Kills the leading JobManager; answers its pid once it is gone.
pub fn kill_leader(cluster: &Cluster) -> u32 {
    let pid = cluster.job_manager();
    kill(pid, 9);
    eventually("the JobManager is gone", Duration::from_secs(5), || !is_alive(pid));
    pid
}

/// Waits until a JobManager of this pid leads and answers.
pub fn leads(cluster: &Cluster, pid: u32) -> Duration {
    eventually("the new JobManager leads", Duration::from_secs(30), || {
        let file = std::fs::read_to_string(cluster.dir().join("cluster.json")).unwrap_or_default();
        file.contains(&format!("\"pid\": {pid}"))
    })
}

/// The `unbounded` example, with its output.
pub fn start_unbounded(cluster: &Cluster, place: &Place, parallelism: u32, rate: u32) -> (String, PathBuf) {
    let output = place.path().join("numbers");
    let (p, rate) = (parallelism.to_string(), rate.to_string());
    let args = ["--rate", &rate, "--output", output.to_str().unwrap()];
    let job = cluster.submit(&["-p", &p], &example("unbounded"), &args);
    cluster.wait_for(&job, "RUNNING", Duration::from_secs(20));
    eventually("numbers come", Duration::from_secs(20), || Numbers::read(&output).count > 100);
    (job, output)
}

/// Which attempt a job is in.
pub fn attempt(cluster: &Cluster, job: &str) -> u64 {
    cluster.get(&format!("/api/jobs/{job}/progress"))["attempt"].as_u64().unwrap()
}

/// Milliseconds that a number may be under way from its source to its file.
const UNDER_WAY: u64 = 300;

/// What `unbounded` wrote: lines `subtask number unix-millis`.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Lines.
    pub count: u64,
    /// The highest number.
    pub highest: u64,
    /// Numbers that are not there, of those that others have followed for a while: what is under way when a job is cancelled
    /// is not written any more.
    pub missing: u64,
    /// Lines whose number was there before.
    pub doubled: u64,
    /// Milliseconds between one line and the next of its subtask, sorted.
    gaps: Vec<u64>,
}

impl Numbers {
    /// Reads the files as they are; a line that is being written is left for later.
    pub fn read(folder: &Path) -> Self {
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        let mut stamps = Vec::new();
        let mut numbers = Self::default();
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let mut before = None;
            for line in whole.lines() {
                let fields: Vec<u64> = line.split(' ').map(|f| f.parse().unwrap()).collect();
                let [_, number, stamp] = fields[..] else { panic!("not a line of unbounded: {line:?}") };
                *seen.entry(number).or_default() += 1;
                stamps.push((stamp, number));
                numbers.gaps.extend(before.map(|b: u64| stamp.saturating_sub(b)));
                before = Some(stamp);
            }
        }
        numbers.count = seen.values().map(|n| u64::from(*n)).sum();
        numbers.doubled = numbers.count - seen.len() as u64;
        numbers.highest = seen.last_key_value().map_or(0, |(n, _)| *n);
        let last = stamps.iter().map(|(stamp, _)| *stamp).max().unwrap_or(0);
        let settled =
            stamps.iter().filter(|(stamp, _)| *stamp + UNDER_WAY <= last).map(|(_, number)| *number + 1).max();
        let settled = settled.unwrap_or(0);
        numbers.missing = settled - seen.range(..settled).count() as u64;
        numbers.gaps.sort_unstable();
        numbers
    }

    /// The gap that so many thousandths of all do not exceed, in milliseconds.
    pub fn gap(&self, thousandths: usize) -> u64 {
        let at = (self.gaps.len() * thousandths / 1000).min(self.gaps.len().saturating_sub(1));
        self.gaps.get(at).copied().unwrap_or(0)
    }

    /// The longest gap, in milliseconds.
    pub fn worst(&self) -> u64 {
        self.gap(1000)
    }

    /// No number is missing or doubled. Read after the job has ended.
    pub fn assert_whole(&self) {
        assert_eq!((self.missing, self.doubled), (0, 0), "numbers are missing, or came twice, up to {}", self.highest);
    }
}
