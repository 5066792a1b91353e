//! The host's side of the protocol: from the first message to the end of the process's life as a host.
//!
//! How it ends: the TaskManager says stop, or closes the socket; either way every task is cancelled and joined.

use futures::{SinkExt, StreamExt};
use std::{path::PathBuf, sync::Arc, time::Duration};
use thalweg_dataflow::{Engine, EngineSetup, Plan, TaskListener};
use thalweg_env::{BoxStream, Env, Shutdown};
use thalweg_model::{ClusterId, FailureKind, JobId, TaskFailure};
use thalweg_spi::{EnvironmentSetup, Plugin, PluginContext, Secret, kind};
use thalweg_wire::{
    FromHost, HostMemory, JobSpec, PROTOCOL, PROTOCOL_OLDEST, TaskReport, ToHost, decode, encode, host::MAX_HOST_FRAME,
};
use tokio::sync::mpsc;

/// The first message of a host.
pub fn hello() -> FromHost {
    let pid = std::process::id();
    FromHost::Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: PROTOCOL,
        protocol_oldest: PROTOCOL_OLDEST,
        pid,
    }
}

/// What the TaskManager said in [`ToHost::Start`].
#[derive(Clone)]
pub struct Start {
    /// The job.
    pub job: JobId,
    /// All that was frozen at submission.
    pub spec: Box<JobSpec>,
    /// This host's TaskManager.
    pub task_manager: thalweg_model::TaskManagerId,
    /// Where to listen for data.
    pub data_bind: String,
    /// `[shuffle]` section, TOML.
    pub shuffle: String,
    /// Where the host may leave files.
    pub scratch: PathBuf,
    /// File that gets standard output once tasks are served.
    pub output: Option<PathBuf>,
    /// Known to the job's hosts alone.
    pub data_secret: bytes::Bytes,
}

impl Start {
    /// Reads the message; `None` when it is another one.
    pub fn of(message: ToHost) -> Option<Self> {
        match message {
            ToHost::Start {
                job,
                spec,
                task_manager,
                data_bind,
                shuffle,
                scratch,
                output,
                data_secret,
                protocol: _,
            } => {
                let (scratch, output) = (scratch.into(), output.map(PathBuf::from));
                Some(Self { job, spec, task_manager, data_bind, shuffle, scratch, output, data_secret })
            }
            _ => None,
        }
    }
}

/// How the exchanges of a host are. The `[shuffle]` section travels with them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ExchangeSettings {
    /// Name of the shuffle plugin.
    #[serde(rename = "type")]
    pub shuffle: String,
    /// Its options.
    pub options: toml::Table,
    /// `exchange.memory`, bytes.
    pub memory: u64,
    /// `exchange.max-record`, bytes.
    pub max_record: u64,
    /// `exchange.buffer-timeout`, milliseconds.
    pub buffer_timeout_ms: u64,
    /// `metrics.latency-interval`, milliseconds; 0 for none.
    pub latency_interval_ms: u64,
}

impl Default for ExchangeSettings {
    fn default() -> Self {
        Self {
            shuffle: "local".into(),
            options: toml::Table::new(),
            memory: 64 << 20,
            max_record: 16 << 20,
            buffer_timeout_ms: 100,
            latency_interval_ms: 0,
        }
    }
}

struct Reports(mpsc::UnboundedSender<FromHost>);

impl TaskListener for Reports {
    fn on_report(&self, report: TaskReport) {
        // Nobody listens any more: the host is ending.
        let _ = self.0.send(FromHost::Task(Box::new(report)));
    }
}

/// How often counters are told, which also says that the host lives.
const METRICS_EVERY: Duration = Duration::from_millis(250);

/// Serves the tasks of this plan until the TaskManager says stop or goes away. `stream` has seen hello and start.
pub async fn serve(env: &Env, stream: BoxStream, start: Start, plan: Arc<Plan>) -> Result<(), String> {
    let mut socket = super::supervisor::framed(stream);
    if let Some(diff) = start.spec.graph.diff(plan.graph()) {
        let failure = TaskFailure::new(FailureKind::Incompatible, diff);
        return refuse(&mut socket, failure).await;
    }
    let ended = Shutdown::new();
    let engine = match open_engine(env, &start, plan, &ended).await {
        Ok(opened) => opened,
        Err(failure) => return refuse(&mut socket, failure).await,
    };
    let Opened { engine, data_address, mut reports } = engine;
    let say = |message: FromHost| bytes::Bytes::from(encode(&message));
    if socket.send(say(FromHost::Ready { data_address })).await.is_err() {
        engine.stop();
        return Ok(());
    }
    let mut next_metrics = env.clock.now() + METRICS_EVERY;
    loop {
        tokio::select! {
            frame = socket.next() => {
                let Some(Ok(bytes)) = frame else { break };
                match decode::<ToHost>(&bytes, MAX_HOST_FRAME) {
                    Ok(ToHost::Deploy(deploy)) => engine.deploy(*deploy),
                    Ok(ToHost::Cancel { regions }) => engine.cancel(&regions),
                    Ok(ToHost::Commit { subtask, attempt }) => engine.commit(subtask, attempt),
                    Ok(ToHost::Stop) => break,
                    Ok(ToHost::Start { .. } | ToHost::Unknown) => {}
                    Err(e) => {
                        tracing::error!("a message of the TaskManager is damaged: {e}");
                        break;
                    }
                }
            }
            report = reports.recv() => {
                let Some(report) = report else { break };
                if socket.feed(say(report)).await.is_err() {
                    break;
                }
                while let Ok(report) = reports.try_recv() {
                    if socket.feed(say(report)).await.is_err() {
                        break;
                    }
                }
                if SinkExt::<bytes::Bytes>::flush(&mut socket).await.is_err() {
                    break;
                }
            }
            () = env.clock.sleep_until(next_metrics) => {
                next_metrics = env.clock.now() + METRICS_EVERY;
                let (state, exchange) = engine.memory();
                let metrics =
                    FromHost::Metrics { subtasks: engine.metrics(), memory: HostMemory { state, exchange } };
                if socket.send(say(metrics)).await.is_err() {
                    break;
                }
            }
        }
    }
    let stopped = tokio::task::spawn_blocking(move || engine.stop()).await;
    ended.trigger();
    stopped.map_err(|e| e.to_string())
}

async fn refuse(
    socket: &mut tokio_util::codec::Framed<BoxStream, tokio_util::codec::LengthDelimitedCodec>,
    failure: TaskFailure,
) -> Result<(), String> {
    let text = failure.to_string();
    let frame = encode(&FromHost::Refused { failure });
    let _ = socket.send(bytes::Bytes::from(frame)).await;
    Err(text)
}

struct Opened {
    engine: Engine,
    data_address: Option<String>,
    reports: mpsc::UnboundedReceiver<FromHost>,
}

async fn open_engine(env: &Env, start: &Start, plan: Arc<Plan>, ended: &Shutdown) -> Result<Opened, TaskFailure> {
    let incompatible = |e: String| TaskFailure::new(FailureKind::Incompatible, e);
    let settings: ExchangeSettings =
        toml::from_str(&start.shuffle).map_err(|e| incompatible(format!("unreadable shuffle settings: {e}")))?;
    let plugin = Plugin::<kind::ShuffleKind>::find(&settings.shuffle).map_err(|e| {
        incompatible(format!(
            "the job was built without what the cluster needs: {}; add the feature shuffle-{} to thalweg",
            e.message(),
            settings.shuffle
        ))
    })?;
    let context = PluginContext {
        env: env.clone(),
        cluster: ClusterId::new(start.job.to_string()),
        cluster_dir: start.scratch.clone(),
        working_dir: start.scratch.clone(),
        secret: Secret::new(start.data_secret.clone()),
        configuration: String::new(),
        shutdown: ended.clone(),
    };
    let shuffle = plugin
        .open(toml::Value::Table(settings.options.clone()), context)
        .await
        .map_err(|e| incompatible(e.to_string()))?;
    let environment = shuffle
        .environment(EnvironmentSetup {
            job: start.job,
            bind: start.data_bind.clone(),
            secret: start.data_secret.clone(),
            memory: settings.memory as usize,
            max_parcel: (settings.max_record + (1 << 20)) as usize,
        })
        .map_err(|e| TaskFailure::new(FailureKind::Lost, e.to_string()))?;
    let (send, reports) = mpsc::unbounded_channel();
    let engine = Engine::new(EngineSetup {
        job: start.job,
        task_manager: start.task_manager.clone(),
        plan,
        env: env.clone(),
        shuffle: environment.clone(),
        listener: Arc::new(Reports(send)),
        exchange_memory: settings.memory as usize,
        max_record: settings.max_record as usize,
        buffer_timeout: Duration::from_millis(settings.buffer_timeout_ms),
        latency_interval: Some(Duration::from_millis(settings.latency_interval_ms)).filter(|every| !every.is_zero()),
        client_dir: start.spec.client_dir.clone().into(),
        scratch: start.scratch.clone(),
    });
    Ok(Opened { engine, data_address: environment.data_address(), reports })
}
