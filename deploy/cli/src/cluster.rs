//! `thalweg cluster`: starts, looks at and stops a session cluster on this machine.

use crate::{
    cluster_files::{ClusterFile, JobManagerFile},
    common::{Global, runtime, secret_of},
    exit::{Coded, Exit, wrong_use},
    jobs::{Overview, Worker},
    rest::Rest,
    run::LAUNCH_PATIENCE,
};
use clap::Subcommand;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thalweg_config::Configuration;
use thalweg_env::{Env, Shutdown};
use thalweg_spi::{ClusterHandle, ClusterLauncher, ClusterSpec, ErrorKind, PluginContext, Secret, kind};

/// More on one machine are a mistake.
const MAX_JOB_MANAGERS: i64 = 16;

/// Sub-commands.
#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Starts a cluster and waits until its TaskManagers are registered.
    Start {
        /// TaskManagers to start.
        #[arg(long, value_name = "N", default_value_t = 1)]
        taskmanagers: u32,
        /// Slots of each.
        #[arg(long, value_name = "S")]
        slots: Option<u32>,
        /// JobManagers to start: one leads, the others wait to take over. Needs a high availability that knows standbys.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_JOB_MANAGERS))]
        jobmanagers: u32,
    },
    /// Says what runs.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stops it: jobs, TaskManagers, JobManager.
    Stop,
}

/// Runs one.
pub fn run(global: &Global, command: ClusterCommand) -> anyhow::Result<Exit> {
    match command {
        ClusterCommand::Start { taskmanagers, slots, jobmanagers } => start(global, taskmanagers, slots, jobmanagers),
        ClusterCommand::Status { json } => status(global, json),
        ClusterCommand::Stop => stop(global),
    }
}

/// What starting and stopping work with.
struct Setup {
    launcher: Arc<dyn ClusterLauncher>,
    configuration: Configuration,
    context: PluginContext,
    dir: PathBuf,
    secret_file: PathBuf,
    secret: Secret,
}

async fn setup(global: &Global, env: &Env, more: &[String]) -> anyhow::Result<Setup> {
    let configuration = global.configuration_with(more)?;
    let dir = global.cluster_dir()?;
    let (secret, secret_file) = secret_of(&dir, configuration.security.secret_file.as_deref())?;
    let context = PluginContext {
        env: env.clone(),
        cluster: configuration.cluster.name.id(),
        cluster_dir: dir.clone(),
        working_dir: dir.clone(),
        secret: secret.clone(),
        configuration: configuration.effective_toml(),
        shutdown: Shutdown::new(),
    };
    let launcher = configuration.open::<kind::Launcher>(context.clone()).await?;
    Ok(Setup { launcher, configuration, context, dir, secret_file, secret })
}

/// Several JobManagers need a high availability in which one waits for the other.
async fn check_standby(setup: &Setup, job_managers: u32) -> anyhow::Result<()> {
    if job_managers < 2 {
        return Ok(());
    }
    let high_availability = setup.configuration.open::<kind::HighAvailability>(setup.context.clone()).await?;
    let standby = high_availability.capabilities().standby;
    // Nothing was asked of it, so nothing is lost when it does not close.
    let _ = high_availability.close().await;
    if standby {
        return Ok(());
    }
    Err(wrong_use(format!(
        "high-availability {:?} has one JobManager at a time; choose etcd, or --jobmanagers 1",
        setup.configuration.plugin_name("high-availability")
    )))
}

fn start(global: &Global, task_managers: u32, slots: Option<u32>, job_managers: u32) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let env = Env::system(runtime.handle().clone());
    let more: Vec<String> = slots.map(|s| format!("task-manager.slots={s}")).into_iter().collect();
    runtime.block_on(async {
        let setup = setup(global, &env, &more).await?;
        check_standby(&setup, job_managers).await?;
        let Setup { launcher, configuration, dir, secret_file, secret, .. } = setup;
        let file = dir.join("thalweg.toml");
        // What a cluster that is there already was started with, and is started again with.
        let before = std::fs::read(&file).ok();
        std::fs::write(&file, configuration.effective_toml())?;
        let passive = configuration.plugin_name("resource-provider") == "standalone";
        let spec = ClusterSpec {
            cluster: configuration.cluster.name.id(),
            dir: dir.clone(),
            thalweg: std::env::current_exe()?,
            configuration: file.clone(),
            secret: secret_file,
            job: None,
            client_dir: std::env::current_dir()?,
            job_managers,
            task_managers: if passive { task_managers } else { 0 },
        };
        let launched = launcher.launch(spec).await;
        if let (Err(e), Some(before)) = (&launched, before)
            && e.kind() == ErrorKind::AlreadyExists
        {
            std::fs::write(&file, before)?;
        }
        let cluster = launched?;
        let rest = Rest::new(vec![cluster.rest.clone()], Some(&secret));
        let ready = async {
            if passive {
                wait_registered(&env, &rest, task_managers).await?;
            }
            wait_listed(&env, &dir, job_managers).await
        };
        let listed = match ready.await {
            Ok(listed) => listed,
            Err(e) => {
                launcher.kill(&cluster).await?;
                return Err(e);
            }
        };
        let shown = dir.display();
        println!("cluster {} runs", cluster.cluster);
        println!("  web      {}", cluster.rest);
        for standby in listed.iter().filter(|l| l.rest != cluster.rest) {
            println!("  standby  {}", standby.rest);
        }
        println!("  folder   {shown}");
        println!("  logs     {shown}/log");
        let given = global.dir.as_ref().map(|d| format!(" --dir {}", d.display())).unwrap_or_default();
        println!("next: thalweg run{given} JOB [ARGS…]");
        Ok(Exit::Ok)
    })
}

async fn wait_registered(env: &Env, rest: &Rest, wanted: u32) -> anyhow::Result<()> {
    let until = env.clock.now() + LAUNCH_PATIENCE;
    loop {
        let overview: anyhow::Result<Overview> = rest.json("/api/overview").await;
        let registered = overview.as_ref().map_or(0, |o| o.taskmanagers.len() as u32);
        if registered >= wanted {
            return Ok(());
        }
        if env.clock.now() >= until {
            let message = format!(
                "{registered} of {wanted} TaskManagers registered within {}s; their logs say why",
                LAUNCH_PATIENCE.as_secs()
            );
            return Err(Coded(Exit::Failed, message).into());
        }
        env.clock.sleep(Duration::from_millis(5)).await;
    }
}

/// The JobManagers that were started, once all of them listen.
async fn wait_listed(env: &Env, dir: &Path, wanted: u32) -> anyhow::Result<Vec<JobManagerFile>> {
    let until = env.clock.now() + LAUNCH_PATIENCE;
    loop {
        let listed = JobManagerFile::alive_in(dir);
        if listed.len() >= wanted as usize {
            return Ok(listed);
        }
        if env.clock.now() >= until {
            let message = format!(
                "{} of {wanted} JobManagers listen after {}s; their logs say why",
                listed.len(),
                LAUNCH_PATIENCE.as_secs()
            );
            return Err(Coded(Exit::Failed, message).into());
        }
        env.clock.sleep(Duration::from_millis(5)).await;
    }
}

/// A JobManager as status shows it.
struct Seen {
    id: String,
    pid: u32,
    rest: String,
    rpc: String,
    /// It answers.
    answers: bool,
    leads: bool,
    epoch: Option<u64>,
    /// Its process is there, as far as one can tell.
    alive: bool,
}

/// What `/api/jobmanager` tells.
#[derive(serde::Deserialize)]
struct Told {
    cluster: String,
    leads: bool,
    #[serde(default)]
    epoch: Option<u64>,
    pid: u32,
    #[serde(default)]
    rpc: Option<String>,
}

impl Seen {
    async fn look(&mut self) -> Option<Told> {
        let told: Told = Rest::new(vec![self.rest.clone()], None).json("/api/jobmanager").await.ok()?;
        (self.answers, self.leads, self.epoch) = (true, told.leads, told.epoch);
        Some(told)
    }

    fn standing(&self) -> &'static str {
        match (self.leads, self.answers, self.alive) {
            (true, ..) => "leader",
            (false, true, _) => "standby",
            (false, false, true) => "does not answer",
            (false, false, false) => "is gone",
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "role": "jobmanager", "id": self.id, "pid": self.pid, "rest": self.rest, "rpc": self.rpc,
            "leader": self.leads, "standing": self.standing(), "alive": self.alive, "epoch": self.epoch,
        })
    }
}

/// The JobManagers of this folder: those that run, and the one that led last if it is another.
fn in_folder(dir: &Path) -> Vec<Seen> {
    let (leader, listed) = (ClusterFile::read(dir).ok(), JobManagerFile::alive_in(dir));
    let other =
        leader.filter(|leader| listed.iter().all(|l| l.pid != leader.pid) && (leader.is_alive() || listed.is_empty()));
    let other = other.map(|leader| Seen {
        id: leader.pid.to_string(),
        pid: leader.pid,
        alive: leader.is_alive(),
        rest: leader.rest,
        rpc: leader.rpc,
        answers: false,
        leads: false,
        epoch: Some(leader.epoch),
    });
    let listed = listed.into_iter().map(|l| Seen {
        id: l.id,
        pid: l.pid,
        alive: true,
        rest: l.rest,
        rpc: l.rpc,
        answers: false,
        leads: false,
        epoch: None,
    });
    listed.chain(other).collect()
}

fn status(global: &Global, json: bool) -> anyhow::Result<Exit> {
    if global.master.is_some() {
        return status_of(global, json);
    }
    let Some(dir) = global.existing_dir() else {
        if json {
            println!("{}", serde_json::json!({ "running": false, "processes": [] }));
        } else {
            println!("no cluster: start one with `thalweg cluster start`");
        }
        return Ok(Exit::Failed);
    };
    let mut seen = in_folder(&dir);
    if seen.is_empty() {
        let last = std::fs::read_to_string(dir.join("result.json")).unwrap_or_default();
        if json {
            let ended: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            println!("{}", serde_json::json!({ "running": false, "processes": [], "last-result": ended }));
        } else {
            println!("no cluster runs in {}", dir.display());
        }
        return Ok(Exit::Failed);
    }
    let (addresses, secret) = global.cluster()?;
    let overview: Option<Overview> = runtime()?.block_on(async {
        for job_manager in seen.iter_mut().filter(|s| s.alive) {
            job_manager.look().await;
        }
        Rest::new(addresses, secret.as_ref()).json("/api/overview").await.ok()
    });
    show(&seen, overview.as_ref(), json)
}

/// Of a cluster whose folder is elsewhere: what its REST tells.
fn status_of(global: &Global, json: bool) -> anyhow::Result<Exit> {
    let (addresses, secret) = global.cluster()?;
    let (seen, overview) = runtime()?.block_on(async {
        let mut seen = Vec::new();
        for rest in &addresses {
            let (id, rest, rpc) = (String::new(), rest.clone(), String::new());
            let mut one = Seen { id, pid: 0, rest, rpc, answers: false, leads: false, epoch: None, alive: false };
            if let Some(told) = one.look().await {
                (one.id, one.pid, one.alive) = (told.cluster, told.pid, true);
                one.rpc = told.rpc.unwrap_or_default();
            }
            seen.push(one);
        }
        let overview: anyhow::Result<Overview> = Rest::new(addresses, secret.as_ref()).json("/api/overview").await;
        (seen, overview)
    });
    if seen.iter().all(|s| !s.answers) {
        // In the words that tell why nobody answers.
        return Err(overview.err().unwrap_or_else(|| wrong_use("no JobManager answers")));
    }
    show(&seen, overview.ok().as_ref(), json)
}

fn show(job_managers: &[Seen], overview: Option<&Overview>, json: bool) -> anyhow::Result<Exit> {
    let workers = || overview.into_iter().flat_map(|o| &o.taskmanagers);
    if json {
        let running = job_managers.iter().any(|s| s.alive);
        let processes: Vec<_> = job_managers.iter().map(Seen::json).chain(workers().map(worker_json)).collect();
        let shown = serde_json::json!({ "running": running, "processes": processes });
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        for seen in job_managers {
            println!("jobmanager   {:<24} pid {:<8} {}  {}", seen.id, seen.pid, seen.rest, seen.standing());
        }
        workers().for_each(print_worker);
    }
    Ok(if overview.is_some() { Exit::Ok } else { Exit::Failed })
}

fn worker_json(worker: &Worker) -> serde_json::Value {
    serde_json::json!({
        "role": "taskmanager", "id": worker.id, "pid": worker.pid, "rpc": worker.rpc, "slots": worker.slots,
        "free": worker.free, "alive": true, "leader": false,
    })
}

fn print_worker(worker: &Worker) {
    println!(
        "taskmanager  {:<24} pid {:<8} {}  {} of {} slots free",
        worker.id, worker.pid, worker.rpc, worker.free, worker.slots
    );
}

fn stop(global: &Global) -> anyhow::Result<Exit> {
    let Some(dir) = global.existing_dir() else {
        return Err(wrong_use("no cluster: there is no folder of one"));
    };
    let runtime = runtime()?;
    let env = Env::system(runtime.handle().clone());
    runtime.block_on(async {
        let Setup { launcher, configuration, dir: dir_used, .. } = setup(global, &env, &[]).await?;
        let rest = ClusterFile::read(&dir).map(|f| f.rest).unwrap_or_default();
        let provider = BTreeMap::from([("dir".to_owned(), dir_used.display().to_string())]);
        launcher.kill(&ClusterHandle { cluster: configuration.cluster.name.id(), rest, provider }).await?;
        println!("stopped");
        Ok(Exit::Ok)
    })
}
