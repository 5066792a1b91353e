//! What JobManagers say of themselves in the cluster's folder, so that commands find them.
//!
//! ```text
//!  <dir>/cluster.json            the one that leads, or led last
//!  <dir>/jobmanagers/<id>.json   each one, from its start to its end
//! ```
//!
//! A process that was killed leaves its file behind; it counts for nothing, since its pid and start time name nobody.

use crate::{
    common::private_dir,
    exit::{Coded, Exit},
};
use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use thalweg_task::host::process::start_time;

/// `cluster.json`: what the JobManager that leads says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster's name.
    pub cluster: String,
    /// The JobManager's process.
    pub pid: u32,
    /// When that process started, in clock ticks since boot.
    pub start_time: u64,
    /// `http://host:port`.
    pub rest: String,
    /// Where TaskManagers dial.
    pub rpc: String,
    /// Under which it leads.
    pub epoch: u64,
}

/// `jobmanagers/<id>.json`: what a JobManager says of itself, whether it leads or waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobManagerFile {
    /// Its name among the cluster's JobManagers.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its process.
    pub pid: u32,
    /// When that process started, in clock ticks since boot.
    pub start_time: u64,
    /// `http://host:port`.
    pub rest: String,
    /// Where TaskManagers dial when it leads.
    pub rpc: String,
}

fn alive(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Writes it as a whole. Two JobManagers may do so at once.
fn write(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    std::fs::write(&partial, serde_json::to_vec_pretty(value)?)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

impl ClusterFile {
    fn path(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    /// Reads it.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        read(&Self::path(dir))
    }

    /// Does its process still run?
    pub fn is_alive(&self) -> bool {
        alive(self.pid, self.start_time)
    }

    /// Writes it over whatever an earlier leader wrote.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        write(&Self::path(dir), self)
    }

    /// Removes it if it is still this process's. To be called while this process holds office: between the look and the
    /// removal a next leader could have written its own.
    pub fn remove(dir: &Path) {
        let own = |file: Self| file.pid == std::process::id() && file.is_alive();
        if Self::read(dir).is_ok_and(own) {
            let _ = std::fs::remove_file(Self::path(dir));
        }
    }
}

impl JobManagerFile {
    fn folder(dir: &Path) -> PathBuf {
        dir.join("jobmanagers")
    }

    fn path(&self, dir: &Path) -> PathBuf {
        Self::folder(dir).join(format!("{}.json", self.id))
    }

    /// Writes it; refused while another process has this id. What dead ones left is taken away.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        private_dir(&Self::folder(dir))?;
        for (path, other) in Self::read_all(dir) {
            if !alive(other.pid, other.start_time) {
                let _ = std::fs::remove_file(path);
            } else if other.id == self.id && other.pid != self.pid {
                let text = format!("the JobManager {} runs already (pid {}): choose another --id", self.id, other.pid);
                return Err(Coded(Exit::WrongUse, text).into());
            }
        }
        write(&self.path(dir), self)
    }

    /// Removes it.
    pub fn remove(&self, dir: &Path) {
        let _ = std::fs::remove_file(self.path(dir));
    }

    fn read_all(dir: &Path) -> Vec<(PathBuf, Self)> {
        let entries = std::fs::read_dir(Self::folder(dir)).into_iter().flatten().flatten();
        let json = entries.map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        // One that is damaged is as good as none.
        json.filter_map(|path| Some((path.clone(), read(&path).ok()?))).collect()
    }

    /// All whose process runs, by id.
    pub fn alive_in(dir: &Path) -> Vec<Self> {
        let all = Self::read_all(dir).into_iter().map(|(_, file)| file);
        let mut found: Vec<Self> = all.filter(|file| alive(file.pid, file.start_time)).collect();
        found.sort_by_key(|file| (file.id.parse::<u64>().unwrap_or(u64::MAX), file.id.clone()));
        found
    }
}

/// Where the REST of the cluster in this folder can be: the last leader first, then the others that run.
pub fn addresses_in(dir: &Path) -> Vec<String> {
    let others = JobManagerFile::alive_in(dir);
    let leader = ClusterFile::read(dir).ok().filter(|leader| leader.is_alive() || others.is_empty());
    let mut addresses: Vec<String> = leader.map(|leader| leader.rest).into_iter().collect();
    for other in others {
        if !addresses.contains(&other.rest) {
            addresses.push(other.rest);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job_manager(id: &str, pid: u32, started: u64) -> JobManagerFile {
        let rest = format!("http://127.0.0.1:1{id}");
        JobManagerFile { id: id.into(), cluster: "c".into(), pid, start_time: started, rest, rpc: "tcp://x:1".into() }
    }

    fn own() -> (u32, u64) {
        (std::process::id(), start_time(std::process::id()).unwrap())
    }

    #[test]
    fn what_dead_job_managers_left_is_ignored_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (pid, started) = own();
        private_dir(&JobManagerFile::folder(dir.path())).unwrap();
        // Its number is another process's by now.
        let stale = job_manager("7", pid, started + 1);
        write(&stale.path(dir.path()), &stale).unwrap();
        std::fs::write(dir.path().join("jobmanagers/8.json"), "{").unwrap();
        assert!(JobManagerFile::alive_in(dir.path()).is_empty());
        assert!(addresses_in(dir.path()).is_empty());
        let (two, ten) = (job_manager("2", pid, started), job_manager("10", pid, started));
        ten.write(dir.path()).unwrap();
        two.write(dir.path()).unwrap();
        assert!(!stale.path(dir.path()).exists());
        let ids: Vec<_> = JobManagerFile::alive_in(dir.path()).into_iter().map(|f| f.id).collect();
        assert_eq!(ids, ["2", "10"]);
        let parent = std::os::unix::process::parent_id();
        let thief = job_manager("2", parent, start_time(parent).unwrap());
        assert!(thief.write(dir.path()).unwrap_err().to_string().contains("choose another --id"));
        two.remove(dir.path());
        assert_eq!(JobManagerFile::alive_in(dir.path()).len(), 1);
    }

    #[test]
    fn the_leader_is_asked_first_unless_it_is_gone_and_its_file_stays_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let (pid, started) = own();
        let leader = |pid, started| ClusterFile {
            cluster: "c".into(),
            pid,
            start_time: started,
            rest: "http://127.0.0.1:99".into(),
            rpc: "tcp://x:1".into(),
            epoch: 1,
        };
        leader(pid, started + 1).write(dir.path()).unwrap();
        assert_eq!(addresses_in(dir.path()), ["http://127.0.0.1:99"], "where there is nobody else");
        job_manager("1", pid, started).write(dir.path()).unwrap();
        assert_eq!(addresses_in(dir.path()), ["http://127.0.0.1:11"]);
        ClusterFile::remove(dir.path());
        assert!(ClusterFile::read(dir.path()).is_ok(), "it is not this process's");
        leader(pid, started).write(dir.path()).unwrap();
        assert_eq!(addresses_in(dir.path()), ["http://127.0.0.1:99", "http://127.0.0.1:11"]);
        ClusterFile::remove(dir.path());
        assert!(ClusterFile::read(dir.path()).is_err());
    }
}
