//! `thalweg jobmanager`: a JobManager in the foreground.

use crate::{
    cluster_files::{ClusterFile, JobManagerFile},
    common::{Global, give_memory_back, private_dir, runtime, secret_of, signal},
    exit::{Exit, wrong_use},
    logging, per_job,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use thalweg_control::{Bound, JobManager, JobManagerEnd, JobManagerServices, MainRunner};
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

/// Arguments of `thalweg jobmanager`.
pub struct JobManagerArgs {
    /// File with the cluster's secret.
    pub secret_file: Option<PathBuf>,
    /// Its name among the cluster's JobManagers.
    pub id: Option<String>,
    /// Per job: the executable.
    pub job: Option<PathBuf>,
    /// Where the client stood.
    pub client_dir: Option<PathBuf>,
    /// The job's arguments.
    pub args: Vec<String>,
}

/// Runs until the cluster's work has ended or a signal comes.
pub fn run(global: &Global, args: JobManagerArgs) -> anyhow::Result<Exit> {
    let JobManagerArgs { secret_file, id, job, client_dir, args } = args;
    let id = id.unwrap_or_else(|| std::process::id().to_string());
    if id.is_empty() || id.contains(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)) {
        return Err(wrong_use(format!("--id {id:?}: letters, digits, - and _ make a name")));
    }
    give_memory_back();
    let configuration = global.configuration()?;
    logging::start(&configuration)?;
    let dir = global.cluster_dir()?;
    let secret_file = secret_file.or_else(|| configuration.security.secret_file.clone());
    let (secret, _) = secret_of(&dir, secret_file.as_deref())?;
    let working_dir = dir.join("work").join(format!("jobmanager-{}", std::process::id()));
    forget_working_dirs(&dir.join("work"));
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
        .map_err(|wrong| wrong_use(wrong.join("\n")))?;
        if !ha.capabilities().durable && dir.join("metadata.redb").exists() {
            tracing::warn!(
                "this folder has records of high-availability \"local\" (metadata.redb), and this JobManager has {:?}: it does not know their jobs, and TaskManagers end the tasks of them; to go on with them, start it with -Dhigh-availability.type=local",
                configuration.plugin_name("high-availability")
            );
        }
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
        let others_wait = ha.capabilities().standby;
        let services = JobManagerServices {
            env: env.clone(),
            high_availability: ha.clone(),
            blobs,
            shuffle: shuffle.master(),
            provider: Some(provider),
            deployment,
            main,
        };
        let cluster = configuration.cluster.name.id().as_str().to_owned();
        let (pid, started) = (std::process::id(), start_time(std::process::id()).unwrap_or(0));
        let listed = Listed::default();
        let tell = |bound: Bound| {
            let rpc = bound.rpc.to_string();
            let file = JobManagerFile { id, cluster: cluster.clone(), pid, start_time: started, rest: bound.rest, rpc };
            listed.write(&dir, file);
        };
        let job_manager = tokio::select! {
            job_manager = JobManager::start_and_tell(config, services, tell) => job_manager?,
            signal = signal() => {
                // It stands for office, or reads what an earlier leader left: the next one will do it.
                tracing::info!("{} came before this JobManager led: ending", signal?);
                if let Err(e) = ha.close().await {
                    tracing::warn!("high availability did not close: {e}");
                }
                shutdown.trigger();
                return anyhow::Ok(Exit::Ok);
            }
        };
        let file = ClusterFile {
            cluster,
            pid,
            start_time: started,
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
                // Where another one may take over, this one's end is not the cluster's: its workers stay.
                let end = JobManagerEnd { status: ApplicationStatus::Unknown, diagnostics };
                (Exit::Ok, (!others_wait).then_some(end))
            }
            () = job_manager.lost_office() => {
                tracing::error!("leadership is lost: ending at once");
                (Exit::Fatal, None)
            }
        };
        if exit != Exit::Fatal {
            // In office to the last: what a next leader writes is not touched. One that lost office leaves its file, which
            // names a process that is gone, or is overwritten already.
            ClusterFile::remove(&dir);
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

/// This process's line in the cluster's list of JobManagers, as long as it lives.
#[derive(Default)]
struct Listed(OnceLock<(PathBuf, JobManagerFile)>);

impl Listed {
    fn write(&self, dir: &Path, file: JobManagerFile) {
        // Without it commands find this process while it leads, and its work is not hindered.
        match file.write(dir) {
            Ok(()) => drop(self.0.set((dir.to_owned(), file))),
            Err(e) => tracing::error!("this JobManager is not in the cluster's list: {e:#}"),
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some((dir, file)) = self.0.get() {
            file.remove(dir);
        }
    }
}

/// Removes what JobManagers that were killed left.
fn forget_working_dirs(work: &std::path::Path) {
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.strip_prefix("jobmanager-")?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
