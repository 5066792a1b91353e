//! A cluster for one program: `thalweg run --deployment per-job` launches it, its JobManager runs the job's `main` as a
//! client of itself, and it ends with the program.

use crate::{
    common::{Global, private_dir, runtime, secret_of},
    exit::{Coded, Exit},
    logs::Follow,
    progress::{Progress, Shown},
    rest::Rest,
    run::RunArgs,
};
use anyhow::Context;
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use thalweg_config::Configuration;
use thalweg_control::{JobManager, JobManagerEnd, MainRunner, job_manager::bearer};
use thalweg_env::{Env, Shutdown};
use thalweg_model::{ClusterId, JobId, JobStatus};
use thalweg_runtime::role;
use thalweg_spi::{ApplicationStatus, ClusterLauncher, ClusterSpec, ClusterState, PluginContext, Secret, kind};
use thalweg_wire::role::{ClientRole, Role};

/// Runs the job's `main` on the JobManager.
pub struct Main {
    /// The executable.
    pub job: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where relative paths begin.
    pub client_dir: PathBuf,
    /// Job ids are derived from it.
    pub cluster: ClusterId,
    /// The cluster's secret.
    pub secret: Secret,
    /// Parallelism of what the program leaves open.
    pub parallelism: u32,
    /// Jobs are cancelled when the attached client was not heard for so long.
    pub client_timeout: Option<Duration>,
    /// Where its output goes: `main.out` and `main.err`.
    pub log_dir: PathBuf,
}

impl MainRunner for Main {
    fn run(&self, rest: String) -> BoxFuture<'static, Result<Option<i32>, String>> {
        let role = ClientRole {
            rest,
            others: Vec::new(),
            secret: Some(bearer(&self.secret).into()),
            detached: false,
            parallelism: self.parallelism,
            client_timeout: self.client_timeout,
            in_cluster: Some(self.cluster.as_str().to_owned()),
            executable: None,
            client_dir: Some(self.client_dir.to_string_lossy().into_owned()),
            // The JobManager was given the client's configuration.
            restart: None,
        };
        let (job, args, dir, log_dir) =
            (self.job.clone(), self.args.clone(), self.client_dir.clone(), self.log_dir.clone());
        let (send, receive) = tokio::sync::oneshot::channel();
        // A thread of its own that waits for the child: the child ends with the thread that started it.
        let started = std::thread::Builder::new().name("job-main".into()).spawn(move || {
            let _ = send.send(run_main(&job, &args, &dir, &log_dir, role).map_err(|e| format!("{e:#}")));
        });
        Box::pin(async move {
            started.map_err(|e| e.to_string())?;
            receive.await.unwrap_or_else(|_| Err("the thread that ran it panicked".into()))
        })
    }
}

fn run_main(job: &Path, args: &[String], dir: &Path, log_dir: &Path, role: ClientRole) -> anyhow::Result<Option<i32>> {
    let output = |name: &str| -> anyhow::Result<Stdio> {
        let path = log_dir.join(name);
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        Ok(file.with_context(|| format!("{} cannot be written", path.display()))?.into())
    };
    let (mut ours, theirs) = role::pair()?;
    let mut command = Command::new(job);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(output("main.out")?).stderr(output("main.err")?);
    role::hand_over(&mut command, theirs);
    let mut child = command.spawn().with_context(|| format!("{} cannot be started", job.display()))?;
    drop(command);
    role::assign(&mut ours, &Role::Client(Box::new(role)))?;
    // What it tells is on REST too; read, so that it never waits for us.
    while let Ok(Some(_)) = role::next_message(&mut ours) {}
    Ok(child.wait()?.code())
}

/// Writes how the cluster ended into its folder: for people, and for `thalweg cluster status`.
pub async fn write_result(dir: &Path, job_manager: &JobManager, end: &JobManagerEnd) {
    let jobs: Vec<_> = job_manager
        .dispatcher()
        .entries()
        .await
        .iter()
        .map(|e| {
            let failure = e.result.as_ref().and_then(|r| r.failure.as_ref()).map(ToString::to_string);
            serde_json::json!({ "id": e.id, "name": e.name, "status": e.status, "failure": failure })
        })
        .collect();
    let result = serde_json::json!({ "status": end.status, "diagnostics": end.diagnostics, "jobs": jobs });
    for name in ["result.json", "status.json"] {
        let (path, partial) = (dir.join(name), dir.join(format!("{name}.partial")));
        let text = serde_json::to_vec_pretty(&result).unwrap_or_default();
        if let Err(e) = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, &path)) {
            tracing::error!("{} cannot be written: {e}", path.display());
        }
    }
}

/// Waits until the attached client has read every result, or for so long.
pub async fn linger(env: &Env, job_manager: &JobManager, limit: Duration) {
    let Some(rest) = job_manager.rest() else { return };
    let read = async {
        for entry in job_manager.dispatcher().entries().await {
            rest.result_read(entry.id).await;
        }
        rest.end_read().await;
    };
    if thalweg_env::timeout(&*env.clock, limit, read).await.is_err() {
        tracing::warn!("nobody read the result within {}s; it is in result.json", limit.as_secs_f64());
    }
}

/// Launches a cluster for this job and, unless detached, waits for its end.
pub fn launch(
    global: &Global,
    configuration: &Configuration,
    overrides: &[String],
    job: &Path,
    args: RunArgs,
) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let env = Env::system(runtime.handle().clone());
    let short = hex::encode(&env.entropy.id()[..4]);
    let stem = job.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    let name = format!("{name}-{short}");
    let dir = match &global.dir {
        Some(_) => global.cluster_dir()?,
        None => {
            let parent = global.cluster_dir()?;
            let dir = parent.parent().unwrap_or(&parent).join("jobs").join(&name);
            private_dir(&dir)?;
            dir.canonicalize()?
        }
    };
    let mut more = overrides.to_vec();
    more.push(format!("cluster.name={name}"));
    more.push(format!("per-job.attached={}", !args.detached));
    for port in ["rest.port", "job-manager.rpc-port"] {
        // Many of them run side by side; a port that the operator asked for is kept.
        if configuration.source_of(port).is_none_or(|s| matches!(s, thalweg_config::Source::Default)) {
            more.push(format!("{port}=0"));
        }
    }
    let configuration = global.configuration_with(&more)?;
    let file = dir.join("thalweg.toml");
    std::fs::write(&file, configuration.effective_toml())?;
    let (secret, secret_file) = secret_of(&dir, configuration.security.secret_file.as_deref())?;
    let parallelism = configuration.pipeline.parallelism.max(1);
    let passive = configuration.plugin_name("resource-provider") == "standalone";
    let task_managers = if passive { parallelism.div_ceil(configuration.task_manager.slots) } else { 0 };
    // Of an earlier cluster in the same folder.
    for old in ["result.json", "status.json", "log/main.out", "log/main.err"] {
        match std::fs::remove_file(dir.join(old)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("{} cannot be removed", dir.join(old).display()));
            }
            _ => {}
        }
    }
    let spec = ClusterSpec {
        cluster: configuration.cluster.name.id(),
        dir: dir.clone(),
        thalweg: std::env::current_exe()?,
        configuration: file,
        secret: secret_file,
        job: Some((job.to_owned(), args.args.clone())),
        client_dir: std::env::current_dir()?,
        job_managers: 1,
        task_managers,
    };
    runtime.block_on(async {
        let context = PluginContext {
            env: env.clone(),
            cluster: configuration.cluster.name.id(),
            cluster_dir: dir.clone(),
            working_dir: dir.clone(),
            secret: secret.clone(),
            configuration: configuration.effective_toml(),
            shutdown: Shutdown::new(),
        };
        let launcher = configuration.open::<kind::Launcher>(context).await?;
        let cluster = launcher.launch(spec).await?;
        if args.detached {
            println!("{}", dir.display());
            eprintln!("per-job cluster {name} runs at {}; result: {}/result.json", cluster.rest, dir.display());
            return Ok(Exit::Ok);
        }
        let mut attached = Attached {
            rest: Rest::new(vec![cluster.rest.clone()], Some(&secret)),
            dir: dir.clone(),
            progress: Progress::new(),
            main_read: 0,
            outputs: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        let outcome = attached.follow(&env, &*launcher, &cluster).await;
        attached.progress.end();
        // Workers that come by themselves go by nobody; and whatever went wrong, nothing stays behind.
        launcher.kill(&cluster).await?;
        outcome
    })
}

struct Attached {
    rest: Rest,
    dir: PathBuf,
    progress: Progress,
    main_read: u64,
    outputs: BTreeMap<JobId, Follow>,
    results: BTreeMap<JobId, JobStatus>,
}

#[derive(serde::Deserialize)]
struct Ended {
    status: ApplicationStatus,
    diagnostics: String,
}

impl Attached {
    async fn follow(
        &mut self,
        env: &Env,
        launcher: &dyn ClusterLauncher,
        cluster: &thalweg_spi::ClusterHandle,
    ) -> anyhow::Result<Exit> {
        loop {
            let seen = self.look().await;
            let result = std::fs::read(self.dir.join("result.json")).ok();
            let ended = result.and_then(|text| serde_json::from_slice::<Ended>(&text).ok());
            if let Some(ended) = ended {
                // Once more, for what was written last; and the cluster need not wait for us any longer.
                let _ = self.look().await;
                let _ = self.rest.send(reqwest::Method::POST, "/api/end-read").await;
                self.copy_errors();
                return self.judge(&ended);
            }
            if seen.is_err() && matches!(launcher.status(cluster).await?, ClusterState::Ended(_)) {
                self.copy_errors();
                return Err(Coded(
                    Exit::Unknown,
                    format!("the cluster ended without a result; its logs are in {}", self.dir.join("log").display()),
                )
                .into());
            }
            env.clock.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Copies what was written, and reads results that are there.
    async fn look(&mut self) -> anyhow::Result<()> {
        let overview: crate::jobs::Overview = self.rest.json("/api/overview").await?;
        for job in overview.jobs {
            let answer = self.rest.result_as(job.id, 50, true).await?;
            if !self.outputs.contains_key(&job.id) {
                self.progress.submitted(job.id, &job.name);
            }
            let follow = self.outputs.entry(job.id).or_default();
            let more = follow.more(&self.rest, job.id, ".out").await.unwrap_or_default();
            self.write(&more);
            match &answer.result {
                Some(result) if !self.results.contains_key(&job.id) => {
                    self.results.insert(job.id, result.status);
                    let why = result.failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
                    self.progress.line(&format!("job {} {}{why}", job.id, result.status));
                }
                Some(_) => {}
                None => self.progress.show(&Shown {
                    status: answer.status,
                    tasks: answer.tasks,
                    records: answer.records,
                    source_bytes: answer.source_bytes,
                    waiting: answer.waiting.as_deref(),
                }),
            }
        }
        loop {
            let route = format!("/api/main?offset={}", self.main_read);
            let piece = self.rest.send(reqwest::Method::GET, &route).await?;
            if piece.is_empty() {
                return Ok(());
            }
            self.main_read += piece.len() as u64;
            self.write(&piece);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.progress.suspend(|| {
                let _ = std::io::stdout().write_all(bytes);
                let _ = std::io::stdout().flush();
            });
        }
    }

    fn copy_errors(&mut self) {
        let errors = std::fs::read(self.dir.join("log/main.err")).unwrap_or_default();
        self.progress.suspend(|| {
            let _ = std::io::stderr().write_all(&errors);
        });
    }

    fn judge(&self, ended: &Ended) -> anyhow::Result<Exit> {
        match ended.status {
            ApplicationStatus::Succeeded => Ok(Exit::Ok),
            ApplicationStatus::Canceled => Ok(Exit::Canceled),
            ApplicationStatus::Failed => Err(Coded(Exit::Failed, ended.diagnostics.clone()).into()),
            ApplicationStatus::Unknown => Err(Coded(Exit::Unknown, ended.diagnostics.clone()).into()),
        }
    }
}
