//! Hosts in this process: the same protocol as with hosts that are processes, over an in-memory pipe. Nothing of a
//! host's memory is looked at or limited here.

use super::Plans;
use std::{path::PathBuf, sync::Arc, time::Duration};
use thalweg_env::{BoxStream, Env, Shutdown};
use thalweg_model::TaskManagerId;
use thalweg_spi::Secret;
use thalweg_task::host::{
    HostEvent, HostEvents, HostHandle, HostLauncher, HostRequest,
    process::job_secret,
    side::{self, Start},
    supervisor::{self, Supervision},
};
use thalweg_wire::{FromHost, PROTOCOL, PROTOCOL_OLDEST, ToHost, encode};
use tokio::sync::{mpsc, watch};

/// What every host of a TaskManager is started with.
#[derive(Clone)]
pub(super) struct InProcessHosts {
    /// For what sees to it that a host's threads end, although its TaskManager was killed.
    pub(super) env: Env,
    /// For what ends with the TaskManager.
    pub(super) mortal: Env,
    pub(super) plans: Plans,
    /// This TaskManager.
    pub(super) id: TaskManagerId,
    /// What hosts are told of their exchanges, TOML.
    pub(super) exchange: String,
    pub(super) secret: Secret,
    pub(super) scratch: PathBuf,
    pub(super) start_timeout: Duration,
    /// Ends all of them.
    pub(super) kill: Shutdown,
    /// How many there are whose threads have not ended.
    pub(super) alive: Arc<watch::Sender<usize>>,
}

/// Bytes that one direction of the pipe holds before the writer waits.
const PIPE: usize = 256 << 10;

impl HostLauncher for InProcessHosts {
    fn launch(&self, request: HostRequest, events: HostEvents) -> HostHandle {
        let (messages, queue) = mpsc::unbounded_channel();
        let kill = self.kill.child();
        let (hosts, killed, env) = (self.clone(), kill.clone(), self.env.clone());
        let alive = Alive::one_more(&self.alive);
        env.spawner.spawn("in-process-host", async move {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let (ended, wait_ended) = tokio::sync::oneshot::channel();
            let side = hosts.clone();
            let data = format!("memory:{}/{}-{}", hosts.id, request.job, request.host);
            hosts.env.spawner.spawn("in-process-host-side", async move {
                side.serve(BoxStream::Memory(theirs)).await;
                drop(alive);
                let _ = ended.send(());
            });
            let start = hosts.start_message(&request, data);
            let supervision = Supervision { start, start_timeout: hosts.start_timeout };
            let talk = supervisor::supervise(&hosts.env, BoxStream::Memory(ours), supervision, queue, &killed, &events);
            let failure = talk.await;
            // Only then is every task of it over.
            let _ = wait_ended.await;
            events(HostEvent::Gone(failure));
        });
        HostHandle { messages, kill, memory: watch::Sender::new(0) }
    }
}

/// Counts a host as long as it is kept.
struct Alive(Arc<watch::Sender<usize>>);

impl Alive {
    fn one_more(alive: &Arc<watch::Sender<usize>>) -> Self {
        alive.send_modify(|n| *n += 1);
        Self(alive.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl InProcessHosts {
    fn start_message(&self, request: &HostRequest, data_bind: String) -> Box<dyn FnOnce(u32) -> ToHost + Send> {
        let (job, spec, this) = (request.job, request.spec.clone(), self.clone());
        let scratch = self.scratch.join(format!("{}-{job}-{}", self.id, request.host));
        Box::new(move |protocol| ToHost::Start {
            job,
            spec,
            task_manager: this.id,
            data_bind,
            shuffle: this.exchange,
            scratch: scratch.to_string_lossy().into_owned(),
            output: None,
            data_secret: job_secret(&this.secret, job),
            protocol,
        })
    }

    /// What a host's `main` does up to its execute, without a `main`: the plan is already there.
    async fn serve(&self, stream: BoxStream) {
        use futures::{SinkExt, StreamExt};
        let mut socket = supervisor::framed(stream);
        let hello = FromHost::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: PROTOCOL,
            protocol_oldest: PROTOCOL_OLDEST,
            pid: 0,
        };
        if socket.send(bytes::Bytes::from(encode(&hello))).await.is_err() {
            return;
        }
        let Some(Ok(frame)) = socket.next().await else { return };
        let message = thalweg_wire::decode(&frame, thalweg_wire::host::MAX_HOST_FRAME);
        let Some(start) = message.ok().and_then(Start::of) else { return };
        let plan = self.plans.lock().get(&start.job).cloned();
        if let Some(plan) = plan {
            let _ = std::fs::create_dir_all(&start.scratch);
            let scratch = start.scratch.clone();
            if let Err(e) = side::serve(&self.mortal, socket.into_inner(), start, plan).await {
                tracing::warn!("the in-process host ended: {e}");
            }
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}
