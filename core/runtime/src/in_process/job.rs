//! A job of a cluster in this process.

use super::{Cluster, Plans};
use futures::future::BoxFuture;
use std::sync::Arc;
use thalweg_api::{
    JobError,
    executor::{Program, RunningJob},
};
use thalweg_control::dispatcher::{DispatcherHandle, Submitted};
use thalweg_env::Env;
use thalweg_model::JobId;
use thalweg_task::host::process::NO_EXECUTABLE;
use thalweg_wire::{JobResult, JobSpec, PROTOCOL, PROTOCOL_OLDEST, RestartStrategy};

/// From here on a job takes seconds to start and to end.
const MANY_CHANNELS: u64 = 50_000;

#[derive(Clone)]
struct InProcessJob {
    job: JobId,
    dispatcher: DispatcherHandle,
    env: Env,
    plans: Plans,
    /// What is said when the cluster has ended before the job.
    ended: String,
}

impl RunningJob for InProcessJob {
    fn id(&self) -> JobId {
        self.job
    }

    fn wait(&self) -> BoxFuture<'static, Result<JobResult, JobError>> {
        let this = self.clone();
        let (send, receive) = tokio::sync::oneshot::channel();
        let ended = self.ended.clone();
        this.env.clone().spawner.spawn("wait-for-job", async move {
            let _ = send.send(this.dispatcher.result(this.job).await);
            this.plans.lock().remove(&this.job);
        });
        Box::pin(async move {
            let result = receive.await.ok().flatten();
            result.ok_or(JobError::Unknown(ended))
        })
    }

    fn cancel(&self) -> BoxFuture<'static, Result<(), JobError>> {
        let (dispatcher, job) = (self.dispatcher.clone(), self.job);
        Box::pin(async move {
            dispatcher.cancel(job).await;
            Ok(())
        })
    }
}

impl Cluster {
    /// Hands a program to the Dispatcher.
    pub(crate) async fn submit(&self, program: Program) -> Result<Arc<dyn RunningJob>, JobError> {
        let job = JobId::from_bytes(self.env.entropy.id());
        let client_dir = std::env::current_dir().unwrap_or_default();
        let restart = match program.restart {
            RestartStrategy::ByKind => self.configuration.restart.strategy(),
            chosen => chosen,
        };
        let spec = JobSpec {
            name: program.name,
            graph: program.plan.graph().clone(),
            executable: NO_EXECUTABLE,
            // The paths of cached files are the client's own.
            files: Default::default(),
            args: Vec::new(),
            env: Default::default(),
            client_dir: client_dir.to_string_lossy().into_owned(),
            ordinal: program.ordinal,
            earlier: Vec::new(),
            default_parallelism: program.default_parallelism,
            mode: program.mode,
            restart,
            client_timeout: None,
            options: Default::default(),
            plugins: Vec::new(),
            protocol: (PROTOCOL, PROTOCOL_OLDEST),
        };
        if spec.graph.channels() > MANY_CHANNELS {
            tracing::warn!(
                "the job has {} channels between its subtasks (up to parallelism {}, each slot a thread of this process): \
                 it starts and ends slowly; a parallelism near the number of cores is faster",
                spec.graph.channels(),
                spec.graph.vertices.iter().map(|v| v.parallelism).max().unwrap_or(0),
            );
        }
        self.plans.lock().insert(job, program.plan);
        let ended = self.has_ended();
        match self.dispatcher.submit(job, Box::new(spec), false).await {
            Some(Submitted::Accepted | Submitted::Running) => Ok(Arc::new(InProcessJob {
                job,
                dispatcher: self.dispatcher.clone(),
                env: self.env.clone(),
                plans: self.plans.clone(),
                ended,
            })),
            Some(Submitted::Refused(why)) => Err(JobError::Submission(why)),
            Some(Submitted::Ended(_)) | None => Err(JobError::Submission(ended)),
        }
    }
}
