//! The client role: ships this executable to a cluster, submits the program, and waits.
//!
//! Blobs are named by their content: the cluster is asked first, so that a job that was submitted before sends kilobytes.
//!
//! The JobManager that leads may die at any moment, and another one take its place. So everything may be asked twice: the
//! client names its job before it sends it, and a submission whose answer was lost finds the job when it is repeated.

use crate::{
    blocking::Blocking,
    cluster_rest::{ClusterRest, Failure},
    embedded::program_defaults,
    role::Parent,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::Method;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thalweg_api::{
    JobError,
    executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob},
};
use thalweg_control::submission::{ResultAnswer, Submission, SubmissionAnswer};
use thalweg_env::{Entropy, SystemEntropy};
use thalweg_model::{BlobKey, ClusterId, JobId};
use thalweg_spi::{Plugin, kind};
use thalweg_wire::{
    JobResult, JobSpec, PROTOCOL, PROTOCOL_OLDEST, RestartStrategy, decode, encode,
    role::{ClientRole, FromClient},
};

/// Longest answer that is read.
const MAX_ANSWER: usize = 256 << 20;
/// A request that asks for no wait is answered within this.
const LIMIT: Duration = Duration::from_secs(10);
/// So is a submission: the cluster reads the executable before it answers.
const SUBMISSION_LIMIT: Duration = Duration::from_secs(60);
/// So many bytes of an upload get through in a second on the slowest line.
const SLOWEST: u64 = 128 << 10;
/// A debug build has some hundred MiB, a release build about ten.
const LARGE_EXECUTABLE: u64 = 64 << 20;
/// How long one request waits for a job's end, which is also how often progress is told.
const POLL: Duration = Duration::from_millis(200);

/// See the module.
pub struct ClientExecutor {
    inner: Arc<Inner>,
    ordinals: Ordinals,
    blocking: Blocking,
}

struct Inner {
    role: ClientRole,
    parent: Parent,
    cluster: ClusterRest,
    /// Key of this executable, once it is known.
    executable: tokio::sync::OnceCell<BlobKey>,
    /// Results so far, by ordinal: frozen into the jobs that follow.
    results: Mutex<BTreeMap<u32, JobResult>>,
    handle: tokio::runtime::Handle,
}

impl ClientExecutor {
    /// Submits as the role says.
    pub fn new(role: ClientRole, parent: Parent) -> Self {
        let blocking = Blocking::new();
        let addresses = [role.rest.clone()].into_iter().chain(role.others.iter().cloned());
        let secret = role.secret.as_ref().map(|secret| String::from_utf8_lossy(secret).into_owned());
        let inner = Inner {
            cluster: ClusterRest::new(addresses, secret),
            role,
            parent,
            executable: tokio::sync::OnceCell::new(),
            results: Mutex::default(),
            handle: blocking.handle(),
        };
        Self { inner: Arc::new(inner), ordinals: Ordinals::new(), blocking }
    }
}

impl Executor for ClientExecutor {
    fn defaults(&self) -> ProgramDefaults {
        let mut defaults = program_defaults(self.inner.role.parallelism);
        if let Some(dir) = &self.inner.role.client_dir {
            defaults.client_dir = dir.into();
        }
        defaults
    }

    fn ordinals(&self) -> &Ordinals {
        &self.ordinals
    }

    fn has_taken(&self, ordinal: u32) -> bool {
        // Whom else a client submits to gets a new job of it.
        let Some(cluster) = self.inner.role.in_cluster.as_ref().map(ClusterId::new) else { return false };
        let route = format!("/api/jobs/{}/result?attached=false&wait=0", JobId::in_cluster(&cluster, ordinal));
        let inner = self.inner.clone();
        // Whatever else keeps it from answering is told when the job is submitted.
        self.blocking.run(async move { inner.request(Method::GET, &route, None, LIMIT).await.is_ok() }).unwrap_or(false)
    }

    fn submit(&self, program: Program) -> BoxFuture<'static, Result<Arc<dyn RunningJob>, JobError>> {
        let inner = self.inner.clone();
        let client_dir = self.defaults().client_dir;
        let submitted = self.inner.handle.spawn(async move { inner.submit(program, client_dir).await });
        Box::pin(async move {
            submitted.await.unwrap_or_else(|e| Err(JobError::Submission(format!("the submission failed: {e}"))))
        })
    }

    fn block_on(&self, future: BoxFuture<'static, ()>) {
        self.blocking.block_on(future);
    }
}

impl Inner {
    async fn submit(self: Arc<Self>, program: Program, client_dir: PathBuf) -> Result<Arc<dyn RunningJob>, JobError> {
        let outcome = self.clone().try_submit(program, client_dir).await;
        if let Err(message) = &outcome {
            self.parent.tell(&FromClient::Failed { message: message.clone() });
        }
        outcome.map_err(JobError::Submission)
    }

    async fn try_submit(self: Arc<Self>, program: Program, client_dir: PathBuf) -> Result<Arc<dyn RunningJob>, String> {
        let ordinal = program.ordinal;
        let name = program.name.clone();
        let earlier = self.earlier(ordinal)?;
        let executable = *self.executable.get_or_try_init(|| self.ship_executable()).await?;
        let mut files = BTreeMap::new();
        for (name, path) in program.files {
            files.insert(name, self.ship(&path).await?);
        }
        let client_timeout = self.role.client_timeout.filter(|_| !self.role.detached);
        let spec = JobSpec {
            name: program.name,
            graph: program.plan.graph().clone(),
            executable,
            files,
            args: arguments()?,
            env: program.forward_env.iter().filter_map(|n| Some((n.clone(), std::env::var(n).ok()?))).collect(),
            client_dir: client_dir.to_string_lossy().into_owned(),
            ordinal,
            earlier,
            default_parallelism: program.default_parallelism,
            mode: program.mode,
            restart: match program.restart {
                RestartStrategy::ByKind => self.role.restart.clone().unwrap_or_default(),
                chosen => chosen,
            },
            client_timeout,
            options: BTreeMap::new(),
            plugins: Plugin::<kind::ShuffleKind>::all().iter().map(|p| format!("shuffle/{}", p.name)).collect(),
            protocol: (PROTOCOL, PROTOCOL_OLDEST),
        };
        let cluster = self.role.in_cluster.as_ref().map(ClusterId::new);
        let job = match &cluster {
            Some(cluster) => JobId::in_cluster(cluster, ordinal),
            None => JobId::from_bytes(SystemEntropy.id()),
        };
        let submission = encode(&Submission { job: Some(job), spec, from_main: cluster.is_some() });
        let answer = self.request(Method::POST, "/api/jobs", Some(submission.into()), SUBMISSION_LIMIT).await;
        let answer: SubmissionAnswer =
            decode(&answer.map_err(|e| e.to_string())?, MAX_ANSWER).map_err(|e| e.to_string())?;
        let (named, result) = match answer {
            SubmissionAnswer::Running { job } => (job, None),
            SubmissionAnswer::Ended(result) => (result.job, Some(*result)),
        };
        if named != job {
            return Err(format!("the cluster answered of job {named} when job {job} was submitted"));
        }
        self.parent.tell(&FromClient::Submitted { job, name });
        Ok(Arc::new(ClientJob { inner: self, job, ordinal, result }))
    }

    fn earlier(&self, ordinal: u32) -> Result<Vec<JobResult>, String> {
        let results = self.results.lock();
        let known = (0..ordinal).map(|n| results.get(&n).cloned());
        known.collect::<Option<Vec<_>>>().ok_or_else(|| {
            "a job can be submitted only when the results of the executes before it are known: wait for them first"
                .to_owned()
        })
    }

    async fn ship_executable(&self) -> Result<BlobKey, String> {
        let path = Path::new(self.role.executable.as_deref().unwrap_or("/proc/self/exe"));
        if let Some(large) = std::fs::metadata(path).ok().and_then(|m| large_executable(m.len())) {
            self.notice(&large);
        }
        self.ship(path).await
    }

    /// Uploads a file unless the cluster has it.
    async fn ship(&self, path: &Path) -> Result<BlobKey, String> {
        let read = path.to_owned();
        let key = tokio::task::spawn_blocking(move || hash_file(&read)).await.map_err(|e| e.to_string())?;
        let key = key.map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let route = format!("/api/blobs/{key}");
        match self.request(Method::HEAD, &route, None, LIMIT).await {
            Ok(_) => return Ok(key),
            Err(Failure::Refused { status: 404, .. }) => {}
            Err(e) => return Err(e.to_string()),
        }
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let limit = SUBMISSION_LIMIT + Duration::from_secs(size / SLOWEST);
        let put = |http: &reqwest::Client, at: &str| {
            let file = std::fs::File::open(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
            let file = tokio::io::BufReader::new(tokio::fs::File::from_std(file));
            let level = async_compression::Level::Fastest;
            let packed = async_compression::tokio::bufread::ZstdEncoder::with_quality(file, level);
            let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(packed, 64 << 10));
            Ok(http.put(format!("{at}{route}")).header("content-encoding", "zstd").body(body))
        };
        let put = self.cluster.ask_patiently(put, limit, &|message| self.notice(message)).await;
        put.map(|_| key).map_err(|e| e.to_string())
    }

    /// Asks until there is an answer, or the cluster was away for too long.
    async fn request(
        &self,
        method: Method,
        route: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Bytes, Failure> {
        let build = |http: &reqwest::Client, at: &str| {
            let request = http.request(method.clone(), format!("{at}{route}"));
            Ok(match &body {
                Some(body) => request.header("content-type", "application/msgpack").body(body.clone()),
                None => request,
            })
        };
        self.cluster.ask_patiently(build, limit, &|message| self.notice(message)).await
    }

    fn notice(&self, message: &str) {
        self.parent.tell(&FromClient::Notice { message: message.to_owned() });
    }
}

fn arguments() -> Result<Vec<String>, String> {
    let text = |arg: std::ffi::OsString| {
        arg.into_string().map_err(|arg| format!("the argument {arg:?} is not UTF-8, and a job's arguments must be"))
    };
    std::env::args_os().skip(1).map(text).collect()
}

/// Says why nothing happens for a while, where that is so.
fn large_executable(bytes: u64) -> Option<String> {
    let large = bytes >= LARGE_EXECUTABLE;
    large.then(|| {
        format!(
            "the executable has {} MiB, which takes a while to read and to send: one that is built with --release is smaller, \
             and more so without debug information (debug = false and strip = true of [profile.release] in Cargo.toml)",
            bytes >> 20
        )
    })
}

fn hash_file(path: &std::path::Path) -> std::io::Result<BlobKey> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(BlobKey::from_bytes(hash.finalize().into()));
        }
        hash.update(&buffer[..n]);
    }
}

#[derive(Clone)]
struct ClientJob {
    inner: Arc<Inner>,
    job: JobId,
    ordinal: u32,
    result: Option<JobResult>,
}

impl ClientJob {
    async fn watch(self) -> Result<JobResult, JobError> {
        let result = match self.result.clone() {
            Some(result) => result,
            None => self.poll().await?,
        };
        let (job, status, failure) = (self.job, result.status, result.failure.clone());
        self.inner.parent.tell(&FromClient::Ended { job, status, failure });
        self.inner.results.lock().insert(self.ordinal, result.clone());
        Ok(result)
    }

    async fn poll(&self) -> Result<JobResult, JobError> {
        let inner = &self.inner;
        // The first looks are quick, so that a trivial job costs no more than it takes.
        let mut wait = Duration::from_millis(20);
        loop {
            // A `main` that the cluster runs itself is no client whose going would be missed.
            let attached = inner.role.in_cluster.is_none();
            let route = format!("/api/jobs/{}/result?attached={attached}&wait={}", self.job, wait.as_millis());
            let answer = inner.request(Method::GET, &route, None, wait + LIMIT).await;
            wait = (wait * 2).min(POLL);
            let answer = answer.map_err(|e| self.lost(&e))?;
            let answer: ResultAnswer = decode(&answer, MAX_ANSWER).map_err(|e| JobError::Unknown(e.to_string()))?;
            if let Some(result) = answer.result {
                if result.job != self.job {
                    let other = result.job;
                    return Err(JobError::Unknown(format!(
                        "asked for job {}, the cluster told of job {other}",
                        self.job
                    )));
                }
                return Ok(result);
            }
            inner.parent.tell(&FromClient::Progress {
                job: self.job,
                status: answer.status,
                tasks: answer.tasks,
                records: answer.records,
                source_bytes: answer.source_bytes,
                waiting: answer.waiting,
            });
        }
    }
}

impl ClientJob {
    /// Why it will not be known what becomes of the job.
    fn lost(&self, failure: &Failure) -> JobError {
        JobError::Unknown(match failure {
            Failure::Refused { status: 404, .. } => format!(
                "the cluster does not know job {} any longer: its JobManager was replaced by one that kept nothing, or it has forgotten the result",
                self.job
            ),
            other => format!("job {}: {other}", self.job),
        })
    }
}

impl RunningJob for ClientJob {
    fn id(&self) -> JobId {
        self.job
    }

    fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>> {
        if self.inner.role.detached {
            // What follows in `main` may need the result, which a detached client does not wait for.
            std::process::exit(0);
        }
        let watched = self.inner.handle.spawn(self.clone().watch());
        Box::pin(async move { watched.await.unwrap_or_else(|e| Err(JobError::Unknown(e.to_string()))) })
    }

    fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>> {
        let (inner, job) = (self.inner.clone(), self.job);
        let route = format!("/jobs/{job}?mode=cancel");
        let asked = self.inner.handle.spawn(async move {
            let asked = inner.request(Method::PATCH, &route, None, LIMIT).await;
            asked.map(drop).map_err(|e| JobError::Unknown(e.to_string()))
        });
        Box::pin(async move { asked.await.map_err(|e| JobError::Unknown(e.to_string()))? })
    }
}

#[cfg(test)]
mod tests;
