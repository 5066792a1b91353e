//! `thalweg taskmanager`: a TaskManager in the foreground.

use crate::{
    common::{Global, give_memory_back, private_dir, runtime, secret_of, signal},
    exit::Exit,
    logging,
};
use std::{path::PathBuf, sync::Arc};
use thalweg_env::{Env, Shutdown};
use thalweg_model::InstanceId;
use thalweg_rpc::Role;
use thalweg_runtime::settings;
use thalweg_spi::{ErrorKind, PluginContext, ServiceError, kind};
use thalweg_task::{
    TaskManager, TaskManagerServices,
    blob_cache::BlobCache,
    file_cache::FileCache,
    host::{
        HostLauncher,
        cgroup::Groups,
        process::{Forker, ProcessHosts, reap_leftovers},
    },
    logs::Logs,
};

/// Runs until a signal or a fatal error comes.
pub fn run(global: &Global, secret_file: Option<PathBuf>) -> anyhow::Result<Exit> {
    give_memory_back();
    let configuration = global.configuration()?;
    logging::start(&configuration)?;
    let dir = global.cluster_dir()?;
    let secret_file = secret_file.or_else(|| configuration.security.secret_file.clone());
    let (secret, _) = secret_of(&dir, secret_file.as_deref())?;
    let name = configuration.task_manager.id.clone().unwrap_or_else(|| std::process::id().to_string());
    let name = name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_");
    let base = configuration.process.working_dir.clone().unwrap_or_else(|| dir.join("work"));
    let working_dir = base.join(format!("taskmanager-{name}"));
    private_dir(&working_dir)?;
    reap_leftovers(&working_dir);
    let log_dir = configuration.log.dir.clone().unwrap_or_else(|| dir.join("log"));
    private_dir(&log_dir)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let env = Env::system(runtime.handle().clone());
        let instance = InstanceId::from_bytes(env.entropy.id());
        let shutdown = Shutdown::new();
        let context = PluginContext {
            env: env.clone(),
            cluster: configuration.cluster.name.id(),
            cluster_dir: dir.clone(),
            working_dir: working_dir.clone(),
            secret: secret.clone(),
            configuration: String::new(),
            shutdown: shutdown.clone(),
        };
        let ha = configuration.open::<kind::HighAvailability>(context).await?;
        let rpc = settings::rpc(&configuration, Role::TaskManager, instance, secret.clone());
        let config = settings::task_manager(&configuration, rpc, ha.capabilities().durable);
        let forker = Forker::start(&env)?;
        let hosts = {
            let (env, working_dir) = (env.clone(), working_dir.clone());
            let data_bind = data_bind(&configuration.task_manager.bind);
            let shuffle = settings::exchange(&configuration);
            let start_timeout = configuration.host.start_timeout.into();
            move |id: &thalweg_model::TaskManagerId| {
                let cache = BlobCache::open(working_dir.join("blobs"))
                    .map_err(|e| ServiceError::new(ErrorKind::Internal, "open blob cache", e.to_string()))?;
                let cache = Arc::new(cache);
                let logs = Arc::new(Logs::new(Some(log_dir), id.as_str()));
                let launcher = ProcessHosts {
                    env,
                    files: FileCache::new(cache.clone()),
                    cache,
                    logs: logs.clone(),
                    id: id.clone(),
                    dir: working_dir,
                    secret,
                    data_bind,
                    shuffle,
                    start_timeout,
                    forker,
                    groups: Groups::find(),
                };
                Ok((Arc::new(launcher) as Arc<dyn HostLauncher>, logs))
            }
        };
        let services =
            TaskManagerServices { env: env.clone(), retrieval: ha.leader_retrieval(), hosts: Box::new(hosts) };
        let task_manager = TaskManager::start(config, services).await?;
        tracing::info!(id = %task_manager.info().id, rpc = task_manager.info().rpc, "TaskManager serves");
        let exit = tokio::select! {
            signal = signal() => {
                tracing::info!("{} came: ending", signal?);
                Exit::Ok
            }
            why = task_manager.fatal() => {
                tracing::error!("{why}");
                eprintln!("thalweg: {why}");
                Exit::Fatal
            }
        };
        task_manager.stop().await;
        let _ = ha.close().await;
        shutdown.trigger();
        anyhow::Ok(exit)
    });
    let _ = std::fs::remove_dir_all(&working_dir);
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome
}

fn data_bind(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("tcp://[{host}]:0") } else { format!("tcp://{host}:0") }
}
