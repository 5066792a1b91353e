//! `thalweg jobmanager`: a JobManager in the foreground.

use crate::{
    common::{ClusterFile, Global, give_memory_back, private_dir, runtime, secret_of, signal},
    exit::Exit,
    logging, per_job,
};
use std::{path::PathBuf, sync::Arc};
use thalweg_control::{JobManager, JobManagerEnd, JobManagerServices, MainRunner};
use thalweg_env::{Env, Shutdown};
use thalweg_model::InstanceId;
use thalweg_rpc::Role;
use thalweg_runtime::settings;
use thalweg_spi::{
    ApplicationStatus, PluginContext,
    combinations::{Chosen, check},
    kind,
};
use thalweg_task::host::process::start_time;

/// Runs until the cluster's work has ended or a signal comes.
pub fn run(
    global: &Global,
    secret_file: Option<PathBuf>,
    job: Option<PathBuf>,
    client_dir: Option<PathBuf>,
    args: Vec<String>,
) -> anyhow::Result<Exit> {
    give_memory_back();
    let configuration = global.configuration()?;
    logging::start(&configuration)?;
    let dir = global.cluster_dir()?;
    let secret_file = secret_file.or_else(|| configuration.security.secret_file.clone());
    let (secret, _) = secret_of(&dir, secret_file.as_deref())?;
    let working_dir = dir.join("work").join(format!("jobmanager-{}", std::process::id()));
    private_dir(&working_dir)?;
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
            configuration: configuration.effective_toml(),
            shutdown: shutdown.clone(),
        };
        let ha = configuration.open::<kind::HighAvailability>(context.clone()).await?;
        let blobs = configuration.open::<kind::Blob>(context.clone()).await?;
        let shuffle = configuration.open::<kind::ShuffleKind>(context.clone()).await?;
        let provider = configuration.open::<kind::Resource>(context.clone()).await?;
        let deployment = configuration.open::<kind::Deployment>(context.clone()).await?;
        check(&Chosen {
            high_availability: (configuration.plugin_name("high-availability"), ha.capabilities()),
            blob: (configuration.plugin_name("blob"), blobs.capabilities()),
            shuffle: (configuration.plugin_name("shuffle"), shuffle.capabilities()),
            resource_provider: Some((configuration.plugin_name("resource-provider"), provider.capabilities())),
            single_host: configuration.cluster.single_host,
        })
        .map_err(|wrong| crate::exit::wrong_use(wrong.join("\n")))?;
        let rpc = settings::rpc(&configuration, Role::JobManager, instance, secret.clone());
        let mut config = settings::job_manager(&configuration, rpc, Some(log_dir.clone()));
        if provider.capabilities().passive {
            config.worker = None;
        }
        let main: Option<Arc<dyn MainRunner>> = match job {
            None => None,
            Some(job) => Some(Arc::new(per_job::Main {
                job,
                args,
                client_dir: client_dir.map_or_else(std::env::current_dir, Ok)?,
                cluster: configuration.cluster.name.id(),
                secret: secret.clone(),
                parallelism: configuration.pipeline.parallelism.max(1),
                client_timeout: configuration.per_job.attached.then(|| configuration.client.timeout.into()),
                log_dir: log_dir.clone(),
            })),
        };
        let has_main = main.is_some();
        let services = JobManagerServices {
            env: env.clone(),
            high_availability: ha,
            blobs,
            shuffle: shuffle.master(),
            provider: Some(provider),
            deployment,
            main,
        };
        let job_manager = JobManager::start(config, services).await?;
        let file = ClusterFile {
            cluster: configuration.cluster.name.id().as_str().to_owned(),
            pid: std::process::id(),
            start_time: start_time(std::process::id()).unwrap_or(0),
            rest: job_manager.rest_url().unwrap_or_default(),
            rpc: job_manager.rpc().address().map(|a| a.to_string()).unwrap_or_default(),
            epoch: job_manager.epoch().0,
        };
        file.write(&dir)?;
        tracing::info!(rest = file.rest, rpc = file.rpc, epoch = file.epoch, "JobManager serves");
        let (exit, end) = tokio::select! {
            end = job_manager.ended() => {
                tracing::info!(status = %end.status, "the cluster's work has ended: {}", end.diagnostics);
                if has_main {
                    per_job::write_result(&dir, &job_manager, &end).await;
                    if configuration.per_job.attached {
                        per_job::linger(&env, &job_manager, configuration.per_job.linger.into()).await;
                    }
                }
                let exit = if has_main && end.status != ApplicationStatus::Succeeded { Exit::Failed } else { Exit::Ok };
                (exit, Some(end))
            }
            signal = signal() => {
                tracing::info!("{} came: ending", signal?);
                let diagnostics = "the JobManager was stopped by a signal".to_owned();
                (Exit::Ok, Some(JobManagerEnd { status: ApplicationStatus::Unknown, diagnostics }))
            }
            () = job_manager.lost_office() => {
                tracing::error!("leadership is lost: ending at once");
                (Exit::Fatal, None)
            }
        };
        ClusterFile::remove(&dir);
        if exit != Exit::Fatal {
            job_manager.close(end).await;
        }
        shutdown.trigger();
        anyhow::Ok(exit)
    });
    let _ = std::fs::remove_dir_all(&working_dir);
    // Tasks that are still in a blocking call do not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome
}
