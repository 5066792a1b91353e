//! Starts, watches and ends the worker processes that the plan asks for, and tells what became of them.

use crate::{
    ProcessConfig,
    plan::{Action, Plan},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};
use thalweg_env::{Env, Shutdown};
use thalweg_model::{Moment, TaskManagerId};
use thalweg_spi::{
    ApplicationStatus, ErrorKind, PluginContext, ProviderCapabilities, ProviderEvent, ResourceProvider, Result,
    ServiceError, WorkerProfile,
};
use thalweg_support_processes::{
    Identity, Record, private,
    start::{Start, ending, tail},
    stop::stop,
};
use tokio::{process::Child, sync::mpsc};

const ROLE: &str = "taskmanager";
/// A worker of an earlier JobManager is nobody's child here, so it is looked at so often.
const LOOK: Duration = Duration::from_millis(100);

/// The provider. It ends with the JobManager; its workers do not.
pub(crate) struct ProcessProvider {
    thalweg: PathBuf,
    stop_timeout: Duration,
    limited: bool,
    cluster_dir: PathBuf,
    env: Env,
    shutdown: Shutdown,
    state: Mutex<State>,
    events: mpsc::UnboundedSender<ProviderEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<ProviderEvent>>>,
    me: Weak<ProcessProvider>,
}

struct State {
    plan: Plan,
    records: BTreeMap<TaskManagerId, Record>,
    /// When the plan is asked again; so that one timer is enough.
    later: Option<Moment>,
}

/// Memory of this host in bytes; without limit where it cannot be told.
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib << 10)
}

impl ProcessProvider {
    pub(crate) fn open(config: ProcessConfig, context: PluginContext) -> Result<Arc<Self>> {
        let error = |e| ServiceError::io("open resource provider", e).with("dir", context.cluster_dir.display());
        let thalweg = match config.thalweg {
            Some(path) => path,
            None => std::env::current_exe().map_err(error)?,
        };
        let folder = context.cluster_dir.join("workers");
        private::create_dir(&folder).map_err(error)?;
        private::write(&folder.join("secret"), context.secret.to_file_text().as_bytes()).map_err(error)?;
        private::write(&folder.join("configuration.toml"), context.configuration.as_bytes()).map_err(error)?;
        let (events, receiver) = mpsc::unbounded_channel();
        let plan = Plan::new(config.max_workers, host_memory());
        let provider = Arc::new_cyclic(|me| Self {
            thalweg,
            stop_timeout: config.stop_timeout.get(),
            limited: config.max_workers.is_some(),
            cluster_dir: context.cluster_dir.clone(),
            env: context.env.clone(),
            shutdown: context.shutdown.clone(),
            state: Mutex::new(State { plan, records: BTreeMap::new(), later: None }),
            events,
            receiver: Mutex::new(Some(receiver)),
            me: me.clone(),
        });
        for record in Record::read_all(&folder).map_err(error)? {
            provider.recover(record);
        }
        Ok(provider)
    }

    fn folder(&self) -> PathBuf {
        self.cluster_dir.join("workers")
    }

    fn tell(&self, event: ProviderEvent) {
        // Nobody listening means that the JobManager is ending.
        let _ = self.events.send(event);
    }

    /// Takes a worker of an earlier JobManager over, or removes what is left of it.
    fn recover(&self, record: Record) {
        let Some(profile) = record.profile.clone().filter(|_| record.identity.is_alive()) else {
            let _ = record.remove(&self.folder());
            return;
        };
        let worker = TaskManagerId::new(record.id.as_str());
        tracing::info!(%worker, pid = record.identity.pid, "recovered a worker of an earlier JobManager");
        let identity = record.identity;
        let mut state = self.state.lock();
        state.plan.present(worker.clone(), profile.clone(), self.env.clock.now());
        state.records.insert(worker.clone(), record);
        drop(state);
        self.tell(ProviderEvent::Recovered { worker: worker.clone(), profile });
        let (me, clock, shutdown) = (self.me.clone(), self.env.clock.clone(), self.shutdown.clone());
        self.env.spawner.spawn("worker-recovered", async move {
            while identity.is_alive() {
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = clock.sleep(LOOK) => {}
                }
            }
            if let Some(provider) = me.upgrade() {
                provider.gone(&worker, "it has ended");
            }
        });
    }

    /// Does what the plan says. The lock is held meanwhile, so that two callers do not start twice; starting a process
    /// takes about a millisecond.
    fn act(&self, state: &mut State, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(profile) => self.start(state, profile),
                Action::End(worker) => {
                    if let Some(record) = state.records.get(&worker) {
                        self.end(record.identity);
                    }
                }
                Action::Refuse { profile, cause, retry } => {
                    self.tell(ProviderEvent::Refused { profile, cause, retry });
                }
                Action::Later(moment) => self.later(state, moment),
            }
        }
    }

    fn start(&self, state: &mut State, profile: WorkerProfile) {
        let now = self.env.clock.now();
        let worker = TaskManagerId::new(format!("worker-{:010x}", self.env.entropy.next_u64() & 0xff_ffff_ffff));
        match self.start_process(&worker, &profile) {
            Ok((record, child, output)) => {
                tracing::info!(%worker, pid = record.identity.pid, "started");
                state.records.insert(worker.clone(), record);
                state.plan.present(worker.clone(), profile.clone(), now);
                self.tell(ProviderEvent::Started { worker: worker.clone(), profile });
                self.watch(worker, child, output);
            }
            Err(e) => {
                tracing::warn!("a worker cannot be started: {e}");
                // An executable that is not there does not come by itself.
                let retry = !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
                state.plan.start_failed(&profile, now);
                self.tell(ProviderEvent::Refused { profile, cause: e.to_string(), retry });
                if retry {
                    self.later(state, now + Duration::from_secs(10));
                }
            }
        }
    }

    fn start_process(&self, worker: &TaskManagerId, profile: &WorkerProfile) -> Result<(Record, Child, PathBuf)> {
        let folder = self.folder();
        let mut arguments: Vec<OsString> = vec![ROLE.into(), "--dir".into(), self.cluster_dir.clone().into()];
        arguments.extend(["-c".into(), folder.join("configuration.toml").into()]);
        arguments.extend(["--secret-file".into(), folder.join("secret").into()]);
        arguments.push(format!("-Dtask-manager.id={worker}").into());
        arguments.push(format!("-Dtask-manager.slots={}", profile.slots).into());
        arguments.extend(profile.memory.map(|memory| format!("-Dtask-manager.memory={memory}B").into()));
        let output = self.cluster_dir.join("log").join(format!("{ROLE}-{worker}.log"));
        let (program, dir) = (self.thalweg.clone(), self.cluster_dir.clone());
        let started = Start { program, arguments, dir, output }.start()?;
        let (id, identity) = (worker.as_str().to_owned(), started.identity);
        let record = Record { role: ROLE.into(), id, identity, profile: Some(profile.clone()) };
        if let Err(e) = record.write(&folder) {
            // The next JobManager would not find it.
            let _ = identity.kill();
            return Err(ServiceError::io("start worker", e).with("worker", worker));
        }
        Ok((record, started.child, started.output))
    }

    /// Waits for the child, so that its end is told at once.
    fn watch(&self, worker: TaskManagerId, mut child: Child, output: PathBuf) {
        let me = self.me.clone();
        self.env.spawner.spawn("worker-child", async move {
            let how = ending(child.wait().await);
            let last = tail(&output, 1);
            let said = if last.is_empty() { String::new() } else { format!("; its last words: {last}") };
            if let Some(provider) = me.upgrade() {
                provider.gone(&worker, &format!("{how}{said}"));
            }
        });
    }

    fn end(&self, identity: Identity) {
        let (clock, patience) = (self.env.clock.clone(), self.stop_timeout);
        self.env.spawner.spawn("worker-end", async move {
            stop(&*clock, &[identity], patience).await;
        });
    }

    fn gone(&self, worker: &TaskManagerId, how: &str) {
        let now = self.env.clock.now();
        let mut state = self.state.lock();
        if let Some(record) = state.records.remove(worker) {
            let _ = record.remove(&self.folder());
        }
        let Some(asked) = state.plan.lost(worker, now) else { return };
        let cause = if asked { format!("it was ended: {how}") } else { how.to_owned() };
        self.tell(ProviderEvent::Lost { worker: worker.clone(), cause });
        let actions = state.plan.reconcile(now);
        self.act(&mut state, actions);
    }

    fn later(&self, state: &mut State, moment: Moment) {
        if state.later.is_some_and(|at| at <= moment) {
            return;
        }
        state.later = Some(moment);
        let (me, clock, shutdown) = (self.me.clone(), self.env.clock.clone(), self.shutdown.clone());
        self.env.spawner.spawn("worker-later", async move {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = clock.sleep_until(moment) => {}
            }
            let Some(provider) = me.upgrade() else { return };
            let mut state = provider.state.lock();
            if state.later == Some(moment) {
                state.later = None;
                let actions = state.plan.reconcile(provider.env.clock.now());
                provider.act(&mut state, actions);
            }
        });
    }
}

#[async_trait]
impl ResourceProvider for ProcessProvider {
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { passive: false, quota: self.limited, recovers: true }
    }

    async fn declare(&self, workers: BTreeMap<WorkerProfile, u32>) -> Result<()> {
        let mut state = self.state.lock();
        if state.plan.is_closed() {
            return Err(ServiceError::new(ErrorKind::Closed, "declare workers", "the cluster has ended"));
        }
        let actions = state.plan.declare(workers, self.env.clock.now());
        self.act(&mut state, actions);
        Ok(())
    }

    async fn registered(&self, worker: &TaskManagerId) {
        self.state.lock().plan.registered(worker);
    }

    async fn release(&self, worker: &TaskManagerId) -> Result<()> {
        let mut state = self.state.lock();
        let actions = state.plan.release(worker, self.env.clock.now());
        self.act(&mut state, actions);
        Ok(())
    }

    fn events(&self) -> Option<mpsc::UnboundedReceiver<ProviderEvent>> {
        self.receiver.lock().take()
    }

    async fn deregister(&self, status: ApplicationStatus, diagnostics: &str) -> Result<()> {
        let identities: Vec<_> = {
            let mut state = self.state.lock();
            let all = state.plan.close();
            all.iter().filter_map(|id| state.records.get(id)).map(|r| r.identity).collect()
        };
        tracing::info!(%status, workers = identities.len(), "ends its workers: {diagnostics}");
        let left = stop(&*self.env.clock, &identities, self.stop_timeout).await;
        if !left.is_empty() {
            let pids: Vec<_> = left.iter().map(|p| p.pid.to_string()).collect();
            let text = format!("these workers cannot be ended: {}", pids.join(", "));
            return Err(ServiceError::new(ErrorKind::Internal, "deregister", text));
        }
        match std::fs::remove_dir_all(self.folder()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ServiceError::io("deregister", e)),
            _ => Ok(()),
        }
    }
}
