//! What a task host runs: the tasks of one job in this process, under one attempt after another.
//!
//! Nothing here waits except [`Engine::stop`]; every call may come from any thread. Whatever is wrong with a deployment
//! is told as a failed task.

mod slot;

use crate::{
    build::AttemptCx,
    exchange::{ExchangeSizes, Signal, wiring::Wiring},
    plan::Plan,
    task::{Checkpoints, Snapshot, TaskShared},
};
use parking_lot::Mutex;
use slot::{Inbox, SlotThread, Wanted};
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use thalweg_env::Env;
use thalweg_model::{
    Attempt, ExecutionState, FailureKind, JobId, Partitioner, Placement, SubtaskId, SubtaskMetrics, TaskFailure,
    TaskManagerId,
};
use thalweg_spi::ShuffleEnvironment;
use thalweg_wire::{Deploy, TaskDeployment, TaskReport};

/// Hears what becomes of tasks. Called on slot threads: it must not wait.
pub trait TaskListener: Send + Sync + 'static {
    /// A subtask changed. The terminal report of each comes exactly once.
    fn on_report(&self, report: TaskReport);
}

/// What an engine begins with.
pub struct EngineSetup {
    /// The job.
    pub job: JobId,
    /// Name of this host in placements.
    pub task_manager: TaskManagerId,
    /// What runs.
    pub plan: Arc<Plan>,
    /// Clock, threads, sockets.
    pub env: Env,
    /// Carries what leaves the process.
    pub shuffle: Arc<dyn ShuffleEnvironment>,
    /// Hears of tasks.
    pub listener: Arc<dyn TaskListener>,
    /// `exchange.memory`.
    pub exchange_memory: usize,
    /// `exchange.max-record`.
    pub max_record: usize,
    /// `exchange.buffer-timeout`.
    pub buffer_timeout: Duration,
    /// Where relative paths of the program begin.
    pub client_dir: PathBuf,
    /// For files that may go when the host ends.
    pub scratch: PathBuf,
}

/// The tasks of one job in this process.
pub struct Engine {
    setup: EngineSetup,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The highest attempt that was deployed.
    run: Option<Run>,
    /// Everything up to here was cancelled.
    cancelled: Option<Attempt>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a task runs: with the others of its slot, or alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SlotKey {
    Shared(u32),
    Own(SubtaskId),
}

struct Run {
    cx: Arc<AttemptCx>,
    slots: BTreeMap<SlotKey, SlotHandle>,
    tasks: HashMap<SubtaskId, (Arc<TaskShared>, SlotKey)>,
}

struct SlotHandle {
    signal: Arc<Signal>,
    inbox: Arc<Mutex<Inbox>>,
}

impl Run {
    fn cancel(&self) {
        self.cx.cancelled.store(true, Ordering::SeqCst);
        self.slots.values().for_each(|s| s.signal.wake());
    }
}

impl Engine {
    /// An engine without tasks.
    pub fn new(setup: EngineSetup) -> Engine {
        Engine { setup, state: Mutex::default() }
    }

    /// Runs these tasks. Tasks of lower attempts are cancelled first; those that run already are left alone.
    pub fn deploy(&self, deploy: Deploy) {
        let attempt = deploy.attempt;
        let mut state = self.state.lock();
        let newest = state.run.as_ref().map(|r| r.cx.attempt);
        if state.cancelled.is_some_and(|c| attempt <= c) || newest.is_some_and(|n| attempt < n) {
            drop(state);
            deploy.tasks.iter().for_each(|t| self.report(t.subtask, attempt, ExecutionState::Canceled, None));
            return;
        }
        if newest.is_some_and(|n| n < attempt)
            && let Some(lower) = state.run.take()
        {
            lower.cancel();
            self.setup.shuffle.release(self.setup.job, lower.cx.attempt);
        }
        if state.run.is_none() {
            match self.open(attempt, deploy.placement) {
                Ok(cx) => state.run = Some(Run { cx, slots: BTreeMap::new(), tasks: HashMap::new() }),
                Err(failure) => {
                    drop(state);
                    self.refuse(&deploy.tasks, attempt, &failure);
                    return;
                }
            }
        }
        let State { run, threads, .. } = &mut *state;
        let Some(run) = run else { return };
        run.cx.descriptors.lock().extend(deploy.descriptors.into_iter().map(|d| ((d.edge, d.producer), d.bytes)));
        threads.retain(|t| !t.is_finished());
        let (by_slot, refused) = self.sort(run, deploy.tasks);
        for (key, wanted) in by_slot {
            threads.extend(self.give(run, key, wanted));
        }
        drop(state);
        for (subtask, failure) in refused {
            self.report(subtask, attempt, ExecutionState::Failed, Some(failure.at(subtask)));
        }
    }

    /// Puts the new tasks to their slots; what cannot run is answered with the reason.
    fn sort(
        &self,
        run: &mut Run,
        tasks: Vec<TaskDeployment>,
    ) -> (BTreeMap<SlotKey, Vec<Wanted>>, Vec<(SubtaskId, TaskFailure)>) {
        let (mut by_slot, mut refused) = (BTreeMap::<_, Vec<Wanted>>::new(), Vec::new());
        let vertices = &run.cx.plan.graph().vertices;
        let ranks = ranks(&run.cx.plan);
        for task in tasks {
            let subtask = task.subtask;
            let wrong = |what: String| (subtask, TaskFailure::new(FailureKind::Incompatible, what));
            if run.tasks.contains_key(&subtask) {
                continue;
            }
            let vertex = vertices.get(subtask.vertex as usize).filter(|v| subtask.index < v.parallelism);
            let Some(vertex) = vertex else {
                refused.push(wrong(format!("the deployment names subtask {subtask}, which the graph has not")));
                continue;
            };
            let place = match run.cx.placement.of(subtask) {
                Some(place) if place.host == run.cx.host => place,
                _ => {
                    refused.push(wrong(format!("the placement does not put subtask {subtask} on this host")));
                    continue;
                }
            };
            let key = if vertex.own_thread { SlotKey::Own(subtask) } else { SlotKey::Shared(place.slot) };
            let shared = Arc::new(TaskShared::new(subtask, run.cx.attempt));
            run.tasks.insert(subtask, (shared.clone(), key));
            let uid = vertex.operators.first().map_or("", |o| o.uid.as_str()).into();
            let rank = ranks[subtask.vertex as usize];
            by_slot.entry(key).or_default().push(Wanted { shared, uid, rank, publish: task.publish });
        }
        (by_slot, refused)
    }

    /// Gives tasks to a slot's thread, which is started where there is none.
    fn give(&self, run: &mut Run, key: SlotKey, mut wanted: Vec<Wanted>) -> Option<JoinHandle<()>> {
        if let Some(slot) = run.slots.get(&key) {
            let mut inbox = slot.inbox.lock();
            if !inbox.closed {
                inbox.new.append(&mut wanted);
                drop(inbox);
                slot.signal.wake();
                return None;
            }
        }
        let tasks: Vec<_> = wanted.iter().map(|w| w.shared.clone()).collect();
        let handle =
            SlotHandle { signal: Arc::default(), inbox: Arc::new(Mutex::new(Inbox { closed: false, new: wanted })) };
        let thread = SlotThread {
            attempt: run.cx.clone(),
            inbox: handle.inbox.clone(),
            signal: handle.signal.clone(),
            listener: self.setup.listener.clone(),
        };
        let name = match key {
            SlotKey::Shared(slot) => format!("slot-{slot}"),
            SlotKey::Own(subtask) => format!("task-{}-{}", subtask.vertex, subtask.index),
        };
        run.slots.insert(key, handle);
        match self.setup.env.spawner.thread(name, Box::new(move || thread.run())) {
            Ok(thread) => Some(thread),
            Err(e) => {
                let failure = TaskFailure::new(FailureKind::Lost, format!("no thread could be started: {e}"));
                for task in tasks {
                    slot::report_end(&*self.setup.listener, &task, ExecutionState::Failed, Some(failure.clone()));
                }
                None
            }
        }
    }

    fn open(&self, attempt: Attempt, placement: Placement) -> Result<Arc<AttemptCx>, TaskFailure> {
        let setup = &self.setup;
        let host = placement.host(&setup.task_manager).ok_or_else(|| {
            let message = format!("the placement does not know TaskManager {}", setup.task_manager);
            TaskFailure::new(FailureKind::Incompatible, message)
        })?;
        let channels = channels_of(&setup.plan, &placement, host);
        Ok(Arc::new(AttemptCx {
            job: setup.job,
            attempt,
            plan: setup.plan.clone(),
            placement,
            host,
            env: setup.env.clone(),
            shuffle: setup.shuffle.clone(),
            sizes: ExchangeSizes::of(setup.exchange_memory, channels, setup.max_record),
            buffer_timeout: setup.buffer_timeout,
            client_dir: setup.client_dir.clone(),
            scratch: setup.scratch.clone(),
            descriptors: Mutex::default(),
            wiring: Wiring::default(),
            checkpoints: Arc::new(Checkpoints::default()),
            restore: Arc::new(Snapshot::new()),
            cancelled: AtomicBool::new(false),
        }))
    }

    /// Ends the tasks of this attempt and lower ones; each reports its end.
    pub fn cancel(&self, attempt: Attempt) {
        let mut state = self.state.lock();
        state.cancelled = state.cancelled.max(Some(attempt));
        if let Some(run) = state.run.as_ref().filter(|r| r.cx.attempt <= attempt) {
            run.cancel();
            self.setup.shuffle.release(self.setup.job, run.cx.attempt);
        }
    }

    /// The JobMaster has recorded what this committer prepared. Ignored unless it is the one that prepared.
    pub fn commit(&self, subtask: SubtaskId, attempt: Attempt) {
        let state = self.state.lock();
        let Some(run) = state.run.as_ref().filter(|r| r.cx.attempt == attempt) else { return };
        let Some((task, key)) = run.tasks.get(&subtask) else { return };
        if task.prepared.load(Ordering::Acquire) {
            task.committed.store(true, Ordering::Release);
            if let Some(slot) = run.slots.get(key) {
                slot.signal.wake();
            }
        }
    }

    /// Counters of all tasks of the newest attempt.
    pub fn metrics(&self) -> Option<(Attempt, Vec<(SubtaskId, SubtaskMetrics)>)> {
        let state = self.state.lock();
        let run = state.run.as_ref()?;
        let mut all: Vec<_> = run.tasks.iter().map(|(id, (task, _))| (*id, task.metrics.read())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        Some((run.cx.attempt, all))
    }

    /// How often the slots of the newest attempt have parked: an idle job parks and costs nothing.
    pub fn parks(&self) -> u64 {
        let state = self.state.lock();
        state.run.iter().flat_map(|r| r.slots.values()).map(|s| s.signal.parks()).sum()
    }

    /// Cancels everything and waits for the slots' threads.
    pub fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            if let Some(run) = &state.run {
                let attempt = run.cx.attempt;
                run.cancel();
                state.cancelled = state.cancelled.max(Some(attempt));
                self.setup.shuffle.release(self.setup.job, attempt);
            }
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            // A slot's thread catches what its tasks do; what it says was reported.
            let _ = thread.join();
        }
    }

    fn refuse(&self, tasks: &[TaskDeployment], attempt: Attempt, failure: &TaskFailure) {
        for task in tasks {
            self.report(task.subtask, attempt, ExecutionState::Failed, Some(failure.clone().at(task.subtask)));
        }
    }

    fn report(&self, subtask: SubtaskId, attempt: Attempt, state: ExecutionState, failure: Option<TaskFailure>) {
        self.setup.listener.on_report(TaskReport {
            subtask,
            attempt,
            state,
            failure,
            prepared: None,
            collected: BTreeMap::new(),
            metrics: SubtaskMetrics::default(),
        });
    }
}

/// Distance from the sources: a slot steps what is furthest first, so that room is made before it is filled.
fn ranks(plan: &Plan) -> Vec<u32> {
    let graph = plan.graph();
    let mut ranks = vec![0u32; graph.vertices.len()];
    // As many rounds as there are vertices are enough, since a graph without feedback edges has no circle.
    for _ in 0..graph.vertices.len() {
        let mut changed = false;
        for e in graph.edges.iter().filter(|e| !e.feedback) {
            let rank = ranks[e.from as usize] + 1;
            if ranks[e.to as usize] < rank {
                ranks[e.to as usize] = rank;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    ranks
}

/// Channels that begin or end in a host.
fn channels_of(plan: &Plan, placement: &Placement, host: u32) -> usize {
    let count = |v: u32| {
        let places = placement.subtasks.get(v as usize).map_or(&[][..], Vec::as_slice);
        (places.iter().filter(|p| p.host == host).count(), places.len())
    };
    let of_edge = |e: &thalweg_model::Edge| {
        let ((from_here, from), (to_here, to)) = (count(e.from), count(e.to));
        match e.partitioner {
            Partitioner::Forward => from_here.max(to_here),
            _ => from_here * to + from * to_here - from_here * to_here,
        }
    };
    plan.graph().edges.iter().map(of_edge).sum()
}
