//! `thalweg cluster`: starts, looks at and stops a session cluster on this machine.

use crate::{
    common::{ClusterFile, Global, runtime, secret_of},
    exit::{Coded, Exit, wrong_use},
    jobs::{Overview, Worker},
    rest::Rest,
    run::LAUNCH_PATIENCE,
};
use clap::Subcommand;
use std::{collections::BTreeMap, time::Duration};
use thalweg_env::{Env, Shutdown};
use thalweg_spi::{ClusterHandle, ClusterLauncher, ClusterSpec, PluginContext, kind};
use thalweg_task::host::process::start_time;

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
        ClusterCommand::Start { taskmanagers, slots } => start(global, taskmanagers, slots),
        ClusterCommand::Status { json } => status(global, json),
        ClusterCommand::Stop => stop(global),
    }
}

async fn launcher(
    global: &Global,
    env: &Env,
    more: &[String],
) -> anyhow::Result<(
    std::sync::Arc<dyn ClusterLauncher>,
    thalweg_config::Configuration,
    std::path::PathBuf,
    std::path::PathBuf,
    thalweg_spi::Secret,
)> {
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
    let launcher = configuration.open::<kind::Launcher>(context).await?;
    Ok((launcher, configuration, dir, secret_file, secret))
}

fn start(global: &Global, task_managers: u32, slots: Option<u32>) -> anyhow::Result<Exit> {
    let runtime = runtime()?;
    let env = Env::system(runtime.handle().clone());
    let more: Vec<String> = slots.map(|s| format!("task-manager.slots={s}")).into_iter().collect();
    runtime.block_on(async {
        let (launcher, configuration, dir, secret_file, secret) = launcher(global, &env, &more).await?;
        let file = dir.join("thalweg.toml");
        // Written under the launcher's lock of the folder would be better still; a running cluster has read its own.
        std::fs::write(&file, configuration.effective_toml())?;
        let passive = configuration.plugin_name("resource-provider") == "standalone";
        let spec = ClusterSpec {
            cluster: configuration.cluster.name.id(),
            dir: dir.clone(),
            thalweg: std::env::current_exe()?,
            configuration: file,
            secret: secret_file,
            job: None,
            client_dir: std::env::current_dir()?,
            job_managers: 1,
            task_managers: if passive { task_managers } else { 0 },
        };
        let cluster = launcher.launch(spec).await?;
        let rest = Rest::new(cluster.rest.clone(), Some(secret));
        if passive && let Err(e) = wait_registered(&env, &rest, task_managers).await {
            launcher.kill(&cluster).await?;
            return Err(e);
        }
        let shown = dir.display();
        println!("cluster {} runs", cluster.cluster);
        println!("  web      {}", cluster.rest);
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

fn status(global: &Global, json: bool) -> anyhow::Result<Exit> {
    if global.master.is_some() {
        return status_of(global, json);
    }
    let Some(dir) = global.existing_dir() else {
        return Err(wrong_use("no cluster: start one with `thalweg cluster start`"));
    };
    let Ok(file) = ClusterFile::read(&dir) else {
        let last = std::fs::read_to_string(dir.join("result.json")).unwrap_or_default();
        if json {
            let ended: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            println!("{}", serde_json::json!({ "running": false, "processes": [], "last-result": ended }));
        } else {
            println!("no cluster runs in {}", dir.display());
        }
        return Ok(Exit::Failed);
    };
    let alive = start_time(file.pid) == Some(file.start_time);
    let (rest, secret) = global.cluster()?;
    let overview: Option<Overview> = runtime()?.block_on(Rest::new(rest, secret).json("/api/overview")).ok();
    let mut processes = vec![serde_json::json!({
        "role": "jobmanager", "id": file.cluster, "pid": file.pid, "rest": file.rest, "rpc": file.rpc,
        "leader": alive && overview.is_some(), "alive": alive, "epoch": file.epoch,
    })];
    processes.extend(overview.iter().flat_map(|o| &o.taskmanagers).map(worker_json));
    if json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "running": alive, "processes": processes }))?);
    } else {
        let leads = if alive && overview.is_some() {
            "leader"
        } else if alive {
            "does not answer"
        } else {
            "is gone"
        };
        println!("jobmanager   {:<24} pid {:<8} {}  {leads}", file.cluster, file.pid, file.rest);
        overview.iter().flat_map(|o| &o.taskmanagers).for_each(print_worker);
    }
    Ok(if alive && overview.is_some() { Exit::Ok } else { Exit::Failed })
}

/// Of a cluster whose folder is elsewhere: what its REST tells.
fn status_of(global: &Global, json: bool) -> anyhow::Result<Exit> {
    let (rest, secret) = global.cluster()?;
    let overview: Overview = runtime()?.block_on(Rest::new(rest.clone(), secret).json("/api/overview"))?;
    if json {
        let mut processes = vec![serde_json::json!({
            "role": "jobmanager", "id": overview.cluster, "pid": overview.pid, "rest": rest, "leader": true,
            "alive": true, "epoch": overview.epoch,
        })];
        processes.extend(overview.taskmanagers.iter().map(worker_json));
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "running": true, "processes": processes }))?);
    } else {
        println!("jobmanager   {:<24} pid {:<8} {rest}  leader", overview.cluster, overview.pid);
        overview.taskmanagers.iter().for_each(print_worker);
    }
    Ok(Exit::Ok)
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
        let (launcher, configuration, dir_used, _, _) = launcher(global, &env, &[]).await?;
        let rest = ClusterFile::read(&dir).map(|f| f.rest).unwrap_or_default();
        let provider = BTreeMap::from([("dir".to_owned(), dir_used.display().to_string())]);
        launcher.kill(&ClusterHandle { cluster: configuration.cluster.name.id(), rest, provider }).await?;
        println!("stopped");
        Ok(Exit::Ok)
    })
}
