//! `thalweg run`: starts the job's executable as a client of a session cluster, or launches a cluster of its own for it.

use crate::{
    common::Global,
    exit::{Coded, Exit, wrong_use},
    logs::Follow,
    per_job,
    progress::{Progress, Shown},
    rest::Rest,
};
use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use thalweg_control::job_manager::bearer;
use thalweg_model::{JobId, JobStatus};
use thalweg_runtime::role;
use thalweg_wire::role::{ClientRole, FromClient, Role};

/// Arguments of `thalweg run`.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Submit and do not wait.
    #[arg(short, long)]
    pub detached: bool,
    /// Parallelism of what the program leaves open.
    #[arg(short, long, value_name = "N")]
    pub parallelism: Option<u32>,
    /// `session` (a cluster that runs) or `per-job` (a cluster of its own).
    #[arg(long, value_name = "D")]
    pub deployment: Option<String>,
    /// Where the workers of a cluster of its own come from.
    #[arg(long, value_name = "R")]
    pub resource_provider: Option<String>,
    /// The job's executable.
    pub job: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Is this a file that can be started? Answers its absolute path.
pub fn check_job(job: &Path) -> anyhow::Result<PathBuf> {
    let shown = job.display();
    let meta = std::fs::metadata(job).map_err(|e| wrong_use(format!("the job {shown} cannot be read: {e}")))?;
    if !meta.is_file() {
        return Err(wrong_use(format!("the job {shown} is not a file: name the executable that cargo built")));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(wrong_use(format!("the job {shown} is not executable: chmod +x it, or name what cargo built")));
    }
    let mut head = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(job)?, 4096), &mut head)?;
    if !head.starts_with(b"\x7fELF") {
        return Err(wrong_use(format!("the job {shown} is not an ELF executable: name what cargo built for Linux")));
    }
    let machine = head.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let expected = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    if machine != Some(expected) {
        return Err(wrong_use(format!(
            "the job {shown} is built for another architecture than this machine ({}): the client runs its main() here",
            std::env::consts::ARCH
        )));
    }
    Ok(job.canonicalize()?)
}

/// Runs.
pub fn run(global: &Global, args: RunArgs) -> anyhow::Result<Exit> {
    let job = check_job(&args.job)?;
    if args.parallelism == Some(0) {
        return Err(wrong_use("-p 0: a parallelism is at least 1"));
    }
    let mut overrides = Vec::new();
    overrides.extend(args.deployment.as_ref().map(|d| format!("deployment.type={d}")));
    overrides.extend(args.resource_provider.as_ref().map(|r| format!("resource-provider.type={r}")));
    overrides.extend(args.parallelism.map(|p| format!("pipeline.parallelism={p}")));
    let configuration = global.configuration_with(&overrides)?;
    if configuration.plugin_name("deployment") != "session" {
        return per_job::launch(global, &configuration, &overrides, &job, args);
    }
    let (addresses, secret) = global.cluster()?;
    let role = ClientRole {
        rest: addresses.first().cloned().unwrap_or_default(),
        others: addresses.iter().skip(1).cloned().collect(),
        secret: secret.as_ref().map(|s| bearer(s).into()),
        detached: args.detached,
        parallelism: configuration.pipeline.parallelism.max(1),
        client_timeout: Some(configuration.client.timeout.into()),
        in_cluster: None,
        executable: None,
        client_dir: None,
        // What this client was told goes over what the cluster was told, and the program over both.
        restart: configuration
            .source_of("restart.type")
            .filter(|s| !matches!(s, thalweg_config::Source::Default))
            .map(|_| configuration.restart.strategy()),
    };
    let (mut ours, theirs) = role::pair()?;
    let mut command = Command::new(&job);
    command.args(&args.args);
    role::hand_over(&mut command, theirs);
    let mut child = command.spawn().map_err(|e| wrong_use(format!("{} cannot be started: {e}", job.display())))?;
    // Its end of the socket is the child's alone, so that the end of the child is the end of the socket.
    drop(command);
    // What is no Thalweg job ends without listening, and is told so below.
    let _ = role::assign(&mut ours, &Role::Client(Box::new(role)));
    let mut watch = Watch::new(Rest::new(addresses, secret.as_ref()), args.detached);
    let runtime = crate::common::runtime()?;
    while let Ok(Some(message)) = role::next_message(&mut ours) {
        watch.heard(message, &runtime);
    }
    let status = child.wait()?;
    watch.progress.end();
    watch.judge(&job, status)
}

struct Watch {
    rest: Rest,
    detached: bool,
    progress: Progress,
    follows: BTreeMap<JobId, Follow>,
    ended: Vec<(JobId, JobStatus)>,
    submitted: usize,
    refused: bool,
}

impl Watch {
    fn new(rest: Rest, detached: bool) -> Self {
        Self {
            rest,
            detached,
            progress: Progress::new(),
            follows: BTreeMap::new(),
            ended: Vec::new(),
            submitted: 0,
            refused: false,
        }
    }

    fn heard(&mut self, message: FromClient, runtime: &tokio::runtime::Runtime) {
        match message {
            FromClient::Submitted { job, name } => {
                self.submitted += 1;
                self.progress.submitted(job, &name);
                if self.detached {
                    println!("{job}");
                }
                self.follows.insert(job, Follow::default());
            }
            FromClient::Progress { job, status, tasks, records, source_bytes, waiting } => {
                let waiting = waiting.as_deref();
                self.progress.show(&Shown { status, tasks, records, source_bytes, waiting });
                self.copy_output(job, runtime);
            }
            FromClient::Ended { job, status, failure } => {
                self.copy_output(job, runtime);
                let why = failure.map(|f| format!(": {f}")).unwrap_or_default();
                self.progress.line(&format!("job {job} {status}{why}"));
                self.ended.push((job, status));
            }
            FromClient::Failed { message } => {
                self.refused = true;
                self.progress.line(&format!("not submitted: {message}"));
            }
            FromClient::Notice { message } => self.progress.line(&message),
            FromClient::Plan { .. } | FromClient::Unknown => {}
        }
    }

    /// What the job's `print` wrote on the workers.
    fn copy_output(&mut self, job: JobId, runtime: &tokio::runtime::Runtime) {
        let Some(follow) = self.follows.get_mut(&job) else { return };
        // A TaskManager that is away now is asked again later.
        let more = runtime.block_on(follow.more(&self.rest, job, ".out")).unwrap_or_default();
        if !more.is_empty() {
            self.progress.suspend(|| {
                let _ = std::io::stdout().write_all(&more);
                let _ = std::io::stdout().flush();
            });
        }
    }

    fn judge(&self, job: &Path, status: std::process::ExitStatus) -> anyhow::Result<Exit> {
        if self.refused {
            return Ok(Exit::Failed);
        }
        if self.submitted == 0 {
            if status.success() {
                return Err(wrong_use(format!(
                    "{} ended without an execute(): is it a Thalweg job, and are its arguments right?",
                    job.display()
                )));
            }
            // What argument parsers and sysexits.h end with when the arguments are wrong.
            let exit = if matches!(status.code(), Some(2 | 64)) { Exit::WrongUse } else { Exit::Failed };
            return Err(Coded(exit, format!("main() ended ({status}) before it submitted a job")).into());
        }
        let worst = self.ended.iter().map(|(_, s)| *s).find(|s| *s != JobStatus::Finished);
        match worst {
            Some(status) => Ok(Exit::of(status)),
            None if self.detached => Ok(Exit::Ok),
            None if self.ended.len() < self.submitted => Ok(Exit::Unknown),
            None if status.success() => Ok(Exit::Ok),
            None => Err(Coded(Exit::Failed, format!("the jobs finished, but main() ended with {status}")).into()),
        }
    }
}

/// How long a launched cluster may take to show its first sign.
pub const LAUNCH_PATIENCE: Duration = Duration::from_secs(60);
