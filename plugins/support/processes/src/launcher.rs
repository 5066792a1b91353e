//! Launches a whole cluster on this host: JobManagers and TaskManagers as processes that outlive the launcher.
//!
//! ```text
//!  <dir>/processes/<role>-<id>.json   who was started by the launcher
//!  <dir>/workers/…json                who was started by a JobManager (provider `process`)
//!  <dir>/cluster.json                 written by the JobManager once it leads: where its REST is
//!  <dir>/jobmanagers/<id>.json        written by each JobManager from its start: where it is
//!  <dir>/status.json                  written by a JobManager that ends a cluster: {"status": "SUCCEEDED"}
//!  <dir>/log/<role>-<id>.log          their output
//! ```

use crate::{
    Identity, Record, private,
    start::{Start, Started, ending, tail},
    stop::stop,
};
use async_trait::async_trait;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};
use thalweg_env::{Address, Env, timeout};
use thalweg_spi::{
    ApplicationStatus, ClusterHandle, ClusterLauncher, ClusterSpec, ClusterState, ErrorKind, Result, ServiceError,
};

/// How often the folder is looked at while the cluster starts.
const LOOK: Duration = Duration::from_millis(5);
/// One try to reach REST.
const CONNECT: Duration = Duration::from_secs(1);
/// Lines of a log that a failure shows.
const LINES: usize = 20;

/// Launches clusters on this host.
pub struct LocalLauncher {
    /// The world.
    pub env: Env,
    /// How long a JobManager may take until it serves REST.
    pub start_timeout: Duration,
    /// How long a process may take to end before it is killed.
    pub stop_timeout: Duration,
}

/// What a JobManager writes of itself.
#[derive(Debug, Clone, Deserialize)]
struct ClusterFile {
    #[serde(flatten)]
    identity: Identity,
    rest: String,
}

/// How a cluster ended.
#[derive(Debug, Deserialize)]
struct StatusFile {
    status: ApplicationStatus,
}

fn cluster_file(dir: &Path) -> Option<ClusterFile> {
    serde_json::from_slice(&std::fs::read(dir.join("cluster.json")).ok()?).ok()
}

/// `http://host:port/…` as an address to dial.
fn rest_address(url: &str) -> Option<Address> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let at = rest.split('/').next().filter(|at| !at.is_empty())?;
    format!("tcp://{at}").parse().ok()
}

impl LocalLauncher {
    async fn serves_rest(&self, url: &str) -> bool {
        let Some(address) = rest_address(url) else { return false };
        matches!(timeout(&*self.env.clock, CONNECT, self.env.network.connect(&address)).await, Ok(Ok(_)))
    }

    fn folders(dir: &Path) -> [PathBuf; 2] {
        [dir.join("processes"), dir.join("workers")]
    }

    /// JobManagers that tell of themselves, whoever started them. What cannot be read names nobody.
    fn listed(dir: &Path) -> Vec<Identity> {
        let files = std::fs::read_dir(dir.join("jobmanagers")).into_iter().flatten().flatten();
        files.filter_map(|file| serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()).collect()
    }

    /// Is there a JobManager that lives, whoever started it?
    fn has_job_manager(dir: &Path) -> bool {
        let records = Record::read_all(&dir.join("processes")).unwrap_or_default();
        let started = records.into_iter().filter(|r| r.role == "jobmanager").map(|r| r.identity);
        let leader = cluster_file(dir).map(|file| file.identity);
        started.chain(leader).chain(Self::listed(dir)).any(|identity| identity.is_alive())
    }

    /// A process that still runs for this folder, whoever started it.
    fn occupant(dir: &Path) -> Option<Identity> {
        let records = Self::folders(dir).into_iter().flat_map(|folder| Record::read_all(&folder).unwrap_or_default());
        let leader = cluster_file(dir).map(|file| file.identity).into_iter();
        let mut all = leader.chain(records.map(|r| r.identity)).chain(Self::listed(dir));
        all.find(Identity::is_alive)
    }

    fn start(&self, spec: &ClusterSpec, role: &str, id: &str, more: Vec<OsString>) -> Result<(Record, Started)> {
        let mut arguments: Vec<OsString> = vec![role.into(), "--dir".into(), spec.dir.clone().into(), "-c".into()];
        arguments.extend([spec.configuration.clone().into(), "--secret-file".into(), spec.secret.clone().into()]);
        arguments.extend(more);
        // A job's `main` runs in the JobManager's folder, and it must be the client's.
        let dir = if role == "jobmanager" { &spec.client_dir } else { &spec.dir };
        let output = spec.dir.join("log").join(format!("{role}-{id}.log"));
        let start = Start { program: spec.thalweg.clone(), arguments, dir: dir.clone(), output };
        let started = start.start()?;
        let record = Record { role: role.into(), id: id.into(), identity: started.identity, profile: None };
        let written = record.write(&spec.dir.join("processes"));
        match written {
            Ok(()) => Ok((record, started)),
            Err(e) => {
                // Nobody would find it again.
                let _ = started.identity.kill();
                Err(ServiceError::io("launch cluster", e).with("dir", spec.dir.display()))
            }
        }
    }

    fn start_all(&self, spec: &ClusterSpec, started: &mut Vec<(Record, Started)>) -> Result<()> {
        for n in 1..=spec.job_managers.max(1) {
            let mut more: Vec<OsString> = vec!["--id".into(), n.to_string().into()];
            if n > 1 {
                // The others of one host cannot have the first one's ports.
                more.extend(["-Djob-manager.rpc-port=0", "-Drest.port=0"].map(OsString::from));
            }
            if let Some((job, arguments)) = &spec.job {
                more.extend(["-Ddeployment.type=per-job".into(), "--job".into(), job.clone().into(), "--".into()]);
                more.extend(arguments.iter().map(OsString::from));
            }
            started.push(self.start(spec, "jobmanager", &n.to_string(), more)?);
        }
        for n in 1..=spec.task_managers {
            let id = format!("{n}-{:06x}", self.env.entropy.next_u64() & 0xff_ffff);
            let name = format!("-Dtask-manager.id={id}").into();
            started.push(self.start(spec, "taskmanager", &id, vec![name])?);
        }
        Ok(())
    }

    /// Waits until one of the started JobManagers serves REST.
    async fn wait(&self, spec: &ClusterSpec, started: &mut [(Record, Started)]) -> Result<ClusterHandle> {
        let failed = |kind, text: String, started: &[(Record, Started)]| {
            let output = started.first().map(|(_, s)| s.output.clone()).unwrap_or_default();
            let log = tail(&output, LINES);
            let shown = if log.is_empty() { String::new() } else { format!(":\n{log}\n") };
            let text = format!("{text}; see {}{shown}", output.display());
            ServiceError::new(kind, "launch cluster", text).with("dir", spec.dir.display())
        };
        let until = self.env.clock.now() + self.start_timeout;
        loop {
            if let Some(file) = cluster_file(&spec.dir)
                && started.iter().any(|(record, _)| record.identity == file.identity)
                && self.serves_rest(&file.rest).await
            {
                let provider = BTreeMap::from([("dir".to_owned(), spec.dir.display().to_string())]);
                return Ok(ClusterHandle { cluster: spec.cluster.clone(), rest: file.rest, provider });
            }
            for (record, process) in started.iter_mut() {
                if let Ok(Some(status)) = process.child.try_wait() {
                    let text = format!("{} {} ended with {}", record.role, record.id, ending(Ok(status)));
                    let output = tail(&process.output, LINES);
                    let text = format!("{text}; see {}:\n{output}\n", process.output.display());
                    let error = ServiceError::new(ErrorKind::Internal, "launch cluster", text);
                    return Err(error.with("dir", spec.dir.display()));
                }
            }
            if self.env.clock.now() >= until {
                let text = format!("the JobManager does not serve REST after {:?}", self.start_timeout);
                return Err(failed(ErrorKind::Timeout, text, started));
            }
            self.env.clock.sleep(LOOK).await;
        }
    }

    async fn end_all(&self, dir: &Path) -> Result<()> {
        let error = |e| ServiceError::io("stop cluster", e).with("dir", dir.display());
        let [processes, workers] = Self::folders(dir);
        let of = |role: &str, records: Vec<Record>| -> Vec<Identity> {
            records.into_iter().filter(|r| r.role == role).map(|r| r.identity).collect()
        };
        let mut leaders = of("jobmanager", Record::read_all(&processes).map_err(error)?);
        for other in cluster_file(dir).map(|file| file.identity).into_iter().chain(Self::listed(dir)) {
            if !leaders.contains(&other) {
                leaders.push(other);
            }
        }
        // JobManagers first: one that lives may start workers while they are being ended.
        let mut left = stop(&*self.env.clock, &leaders, self.stop_timeout).await;
        let mut rest = of("taskmanager", Record::read_all(&processes).map_err(error)?);
        rest.extend(of("taskmanager", Record::read_all(&workers).map_err(error)?));
        left.extend(stop(&*self.env.clock, &rest, self.stop_timeout).await);
        if !left.is_empty() {
            let pids: Vec<_> = left.iter().map(|p| p.pid.to_string()).collect();
            let text = format!("these processes cannot be ended: {}", pids.join(", "));
            return Err(ServiceError::new(ErrorKind::Internal, "stop cluster", text).maybe_happened());
        }
        clean(dir).map_err(error)
    }
}

/// Removes what only makes sense while the cluster runs. Logs, results and blobs stay.
fn clean(dir: &Path) -> std::io::Result<()> {
    for folder in LocalLauncher::folders(dir).into_iter().chain([dir.join("jobmanagers")]) {
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    for name in ["cluster.json", "leader.json", "jobmanager.lock"] {
        private::remove(&dir.join(name))?;
    }
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if std::os::unix::fs::FileTypeExt::is_socket(&entry.file_type()?) {
            private::remove(&entry.path())?;
        }
    }
    Ok(())
}

fn dir_of(cluster: &ClusterHandle) -> Result<PathBuf> {
    let missing = || ServiceError::new(ErrorKind::InvalidConfig, "find cluster", "the handle has no folder");
    cluster.provider.get("dir").map(PathBuf::from).ok_or_else(missing)
}

#[async_trait]
impl ClusterLauncher for LocalLauncher {
    async fn launch(&self, spec: ClusterSpec) -> Result<ClusterHandle> {
        if let Some(process) = Self::occupant(&spec.dir) {
            let dir = spec.dir.display();
            if !Self::has_job_manager(&spec.dir) {
                let text = format!(
                    "the JobManager of the cluster in {dir} is gone, and processes of it still run (pid {}): start it again with `thalweg --dir {dir} jobmanager` (with durable high availability its jobs go on), or end everything with `thalweg cluster stop --dir {dir}`",
                    process.pid
                );
                return Err(ServiceError::new(ErrorKind::AlreadyExists, "launch cluster", text));
            }
            let text = format!(
                "a cluster runs in {dir} already (pid {}): stop it with `thalweg cluster stop --dir {dir}`, or choose another --dir",
                process.pid
            );
            return Err(ServiceError::new(ErrorKind::AlreadyExists, "launch cluster", text));
        }
        let error = |e| ServiceError::io("launch cluster", e).with("dir", spec.dir.display());
        private::create_dir(&spec.dir).map_err(error)?;
        clean(&spec.dir).map_err(error)?;
        private::remove(&spec.dir.join("status.json")).map_err(error)?;
        let mut started = Vec::new();
        let result = match self.start_all(&spec, &mut started) {
            Ok(()) => self.wait(&spec, &mut started).await,
            Err(e) => Err(e),
        };
        if result.is_err() {
            let identities: Vec<_> = started.iter().map(|(record, _)| record.identity).collect();
            let left = stop(&*self.env.clock, &identities, self.stop_timeout).await;
            if left.is_empty() {
                let _ = self.end_all(&spec.dir).await;
            }
        }
        result
    }

    async fn status(&self, cluster: &ClusterHandle) -> Result<ClusterState> {
        let dir = dir_of(cluster)?;
        match cluster_file(&dir) {
            Some(file) if file.identity.is_alive() => {
                let serves = self.serves_rest(&file.rest).await;
                Ok(if serves { ClusterState::Running } else { ClusterState::Starting })
            }
            _ if Record::read_all(&dir.join("processes"))
                .unwrap_or_default()
                .iter()
                .any(|r| r.role == "jobmanager" && r.identity.is_alive()) =>
            {
                Ok(ClusterState::Starting)
            }
            _ => {
                let text = std::fs::read(dir.join("status.json")).unwrap_or_default();
                let status = serde_json::from_slice::<StatusFile>(&text).ok();
                Ok(ClusterState::Ended(status.map(|s| s.status)))
            }
        }
    }

    async fn kill(&self, cluster: &ClusterHandle) -> Result<()> {
        self.end_all(&dir_of(cluster)?).await
    }
}
