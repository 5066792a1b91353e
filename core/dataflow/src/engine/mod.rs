//! What a task host runs: the tasks of one job in this process, each region of it under one attempt after another.
//!
//! Regions start and end each for itself, but share slots: a slot is a thread, whoever's tasks are in it.
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
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
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
    Attempt, ExecutionState, FailureKind, JobId, Partitioner, Placement, RegionAttempt, Regions, SubtaskId,
    SubtaskMetrics, TaskFailure, TaskManagerId,
};
use thalweg_spi::ShuffleEnvironment;
use thalweg_wire::{Deploy, Descriptor, TaskDeployment, TaskReport};

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
    /// `metrics.latency-interval`; sources send no markers where there is none.
    pub latency_interval: Option<Duration>,
    /// Where relative paths of the program begin.
    pub client_dir: PathBuf,
    /// For files that may go when the host ends.
    pub scratch: PathBuf,
}

/// The tasks of one job in this process.
pub struct Engine {
    setup: EngineSetup,
    regions: Regions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By region: the highest attempt that was deployed.
    runs: BTreeMap<u32, Run>,
    /// By region: everything up to here was cancelled.
    cancelled: BTreeMap<u32, Attempt>,
    slots: BTreeMap<SlotKey, SlotHandle>,
    threads: Vec<JoinHandle<()>>,
}

impl State {
    /// Ends what runs of this region.
    fn cancel(&self, run: &Run) {
        run.cx.cancelled.store(true, Ordering::SeqCst);
        let slots: BTreeSet<_> = run.tasks.values().map(|(_, key)| *key).collect();
        slots.iter().filter_map(|key| self.slots.get(key)).for_each(|s| s.signal.wake());
    }
}

/// Where a task runs: with the others of its slot, or alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SlotKey {
    Shared(u32),
    Own(SubtaskId),
}

struct Run {
    cx: Arc<AttemptCx>,
    tasks: HashMap<SubtaskId, (Arc<TaskShared>, SlotKey)>,
}

struct SlotHandle {
    signal: Arc<Signal>,
    inbox: Arc<Mutex<Inbox>>,
}

impl Engine {
    /// An engine without tasks.
    pub fn new(setup: EngineSetup) -> Engine {
        let regions = Regions::of(setup.plan.graph());
        Engine { setup, regions, state: Mutex::default() }
    }

    /// Runs these tasks. Tasks of their regions under lower attempts are cancelled first; those that run already are left
    /// alone.
    pub fn deploy(&self, deploy: Deploy) {
        let Deploy { attempt, tasks, placement, descriptors } = deploy;
        let placement = Arc::new(placement);
        let mut by_region = BTreeMap::<u32, Vec<TaskDeployment>>::new();
        for task in tasks {
            by_region.entry(self.regions.region(task.subtask)).or_default().push(task);
        }
        // Told when the lock is free.
        let mut ends = Vec::new();
        let mut by_slot = BTreeMap::<SlotKey, Vec<Wanted>>::new();
        let mut state = self.state.lock();
        for (region, tasks) in by_region {
            let newest = state.runs.get(&region).map(|r| r.cx.attempt);
            if state.cancelled.get(&region).is_some_and(|c| attempt <= *c) || newest.is_some_and(|n| attempt < n) {
                ends.extend(tasks.iter().map(|t| (t.subtask, ExecutionState::Canceled, None)));
                continue;
            }
            if newest.is_some_and(|n| n < attempt)
                && let Some(lower) = state.runs.remove(&region)
            {
                state.cancel(&lower);
                self.release(region, lower.cx.attempt);
            }
            let run = match state.runs.entry(region) {
                Entry::Occupied(run) => run.into_mut(),
                Entry::Vacant(place) => match self.open(region, attempt, placement.clone()) {
                    Ok(cx) => place.insert(Run { cx, tasks: HashMap::new() }),
                    Err(failure) => {
                        let refused = |t: &TaskDeployment| (t.subtask, ExecutionState::Failed, Some(failure.clone()));
                        ends.extend(tasks.iter().map(refused));
                        continue;
                    }
                },
            };
            let edges = &run.cx.plan.graph().edges;
            let of_this = |d: &&Descriptor| {
                let from = edges.get(d.edge as usize).map(|e| SubtaskId { vertex: e.from, index: d.producer });
                from.is_some_and(|from| self.regions.region(from) == region)
            };
            let mine = descriptors.iter().filter(of_this).map(|d| ((d.edge, d.producer), d.bytes.clone()));
            run.cx.descriptors.lock().extend(mine);
            let refused = sort(run, tasks, &mut by_slot);
            ends.extend(refused.into_iter().map(|(subtask, f)| (subtask, ExecutionState::Failed, Some(f))));
        }
        let State { slots, threads, .. } = &mut *state;
        threads.retain(|t| !t.is_finished());
        for (key, wanted) in by_slot {
            threads.extend(self.give(slots, key, wanted));
        }
        drop(state);
        for (subtask, end, failure) in ends {
            self.report(subtask, attempt, end, failure.map(|f| f.at(subtask)));
        }
    }

    fn release(&self, region: u32, attempt: Attempt) {
        self.setup.shuffle.release(self.setup.job, RegionAttempt { region, attempt });
    }

    /// Gives tasks to a slot's thread, which is started where there is none.
    fn give(
        &self,
        slots: &mut BTreeMap<SlotKey, SlotHandle>,
        key: SlotKey,
        mut wanted: Vec<Wanted>,
    ) -> Option<JoinHandle<()>> {
        if let Some(slot) = slots.get(&key) {
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
            clock: self.setup.env.clock.clone(),
            inbox: handle.inbox.clone(),
            signal: handle.signal.clone(),
            listener: self.setup.listener.clone(),
        };
        let name = match key {
            SlotKey::Shared(slot) => format!("slot-{slot}"),
            SlotKey::Own(subtask) => format!("task-{}-{}", subtask.vertex, subtask.index),
        };
        slots.insert(key, handle);
        match self.setup.env.spawner.thread(name, Box::new(move || thread.run())) {
            Ok(thread) => Some(thread),
            Err(e) => {
                // The next attempt's tasks are not for a thread that is not there.
                slots.remove(&key);
                let failure = TaskFailure::new(FailureKind::Lost, format!("no thread could be started: {e}"));
                for task in tasks {
                    let now = self.setup.env.clock.now();
                    slot::report_end(&*self.setup.listener, &task, ExecutionState::Failed, Some(failure.clone()), now);
                }
                None
            }
        }
    }

    fn open(&self, region: u32, attempt: Attempt, placement: Arc<Placement>) -> Result<Arc<AttemptCx>, TaskFailure> {
        let setup = &self.setup;
        let host = placement.host(&setup.task_manager).ok_or_else(|| {
            let message = format!("the placement does not know TaskManager {}", setup.task_manager);
            TaskFailure::new(FailureKind::Incompatible, message)
        })?;
        let channels = channels_of(&setup.plan, &placement, host);
        Ok(Arc::new(AttemptCx {
            job: setup.job,
            region,
            attempt,
            plan: setup.plan.clone(),
            placement,
            host,
            env: setup.env.clone(),
            shuffle: setup.shuffle.clone(),
            sizes: ExchangeSizes::of(setup.exchange_memory, channels, setup.max_record),
            buffer_timeout: setup.buffer_timeout,
            latency_interval: setup.latency_interval,
            client_dir: setup.client_dir.clone(),
            scratch: setup.scratch.clone(),
            descriptors: Mutex::default(),
            wiring: Wiring::default(),
            checkpoints: Arc::new(Checkpoints::default()),
            restore: Arc::new(Snapshot::new()),
            cancelled: AtomicBool::new(false),
        }))
    }

    /// Ends the tasks of these regions under these attempts and lower ones; each reports its end.
    pub fn cancel(&self, regions: &[RegionAttempt]) {
        let mut state = self.state.lock();
        for RegionAttempt { region, attempt } in regions {
            let cancelled = state.cancelled.entry(*region).or_insert(*attempt);
            *cancelled = *attempt.max(cancelled);
            if let Some(run) = state.runs.get(region).filter(|r| r.cx.attempt <= *attempt) {
                state.cancel(run);
                self.release(*region, run.cx.attempt);
            }
        }
    }

    /// The JobMaster has recorded what this committer prepared. Ignored unless it is the one that prepared.
    pub fn commit(&self, subtask: SubtaskId, attempt: Attempt) {
        let state = self.state.lock();
        let region = self.regions.region(subtask);
        let Some(run) = state.runs.get(&region).filter(|r| r.cx.attempt == attempt) else { return };
        let Some((task, key)) = run.tasks.get(&subtask) else { return };
        if task.prepared.load(Ordering::Acquire) {
            task.committed.store(true, Ordering::Release);
            if let Some(slot) = state.slots.get(key) {
                slot.signal.wake();
            }
        }
    }

    /// Counters of all tasks, each under the newest attempt of its region. Times go on while a task runs or is parked.
    pub fn metrics(&self) -> Vec<(SubtaskId, Attempt, SubtaskMetrics)> {
        let state = self.state.lock();
        let now = self.setup.env.clock.now();
        let of_run = |run: &Run| {
            let attempt = run.cx.attempt;
            let tasks = run.tasks.iter().inspect(|(id, (task, _))| {
                let Some(took) = task.metrics.times.long_step(now) else { return };
                let (chain, took) = (chain_of(&run.cx.plan, **id), took.as_secs());
                tracing::warn!(
                    "one step of {chain}, subtask {}, has not returned for {took} s, and all tasks of its slot wait for \
                     it: work that waits belongs into map_async or map_blocking",
                    id.index
                );
            });
            tasks.map(|(id, (task, _))| (*id, attempt, task.metrics.read(now))).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = state.runs.values().flat_map(of_run).collect();
        all.sort_unstable_by_key(|(id, ..)| *id);
        all
    }

    /// What its memory is used for, bytes: tables of keyed state, of the whole process, and records on their way
    /// between hosts.
    pub fn memory(&self) -> (u64, u64) {
        (crate::state::table_bytes() as u64, self.setup.shuffle.memory_in_use() as u64)
    }

    /// How often the slots have parked: an idle job parks and costs nothing.
    pub fn parks(&self) -> u64 {
        self.state.lock().slots.values().map(|s| s.signal.parks()).sum()
    }

    /// Cancels everything and waits for the slots' threads.
    pub fn stop(&self) {
        let threads = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            for (region, run) in &state.runs {
                state.cancel(run);
                self.release(*region, run.cx.attempt);
            }
            let ended: Vec<_> = state.runs.iter().map(|(region, run)| (*region, run.cx.attempt)).collect();
            state.cancelled.extend(ended);
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            // A slot's thread catches what its tasks do; what it says was reported.
            let _ = thread.join();
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

/// Puts the new tasks to their slots; what cannot run is answered with the reason.
fn sort(
    run: &mut Run,
    tasks: Vec<TaskDeployment>,
    by_slot: &mut BTreeMap<SlotKey, Vec<Wanted>>,
) -> Vec<(SubtaskId, TaskFailure)> {
    let mut refused = Vec::new();
    let cx = run.cx.clone();
    let ranks = ranks(&cx.plan);
    for task in tasks {
        let subtask = task.subtask;
        let wrong = |what: String| (subtask, TaskFailure::new(FailureKind::Incompatible, what));
        if run.tasks.contains_key(&subtask) {
            continue;
        }
        let vertex = cx.plan.graph().vertices.get(subtask.vertex as usize).filter(|v| subtask.index < v.parallelism);
        let Some(vertex) = vertex else {
            refused.push(wrong(format!("the deployment names subtask {subtask}, which the graph has not")));
            continue;
        };
        let place = match cx.placement.of(subtask) {
            Some(place) if place.host == cx.host => place,
            _ => {
                refused.push(wrong(format!("the placement does not put subtask {subtask} on this host")));
                continue;
            }
        };
        let key = if vertex.own_thread { SlotKey::Own(subtask) } else { SlotKey::Shared(place.slot) };
        let shared = Arc::new(TaskShared::new(subtask, cx.attempt));
        run.tasks.insert(subtask, (shared.clone(), key));
        let uid = vertex.operators.first().map_or("", |o| o.uid.as_str()).into();
        let rank = ranks[subtask.vertex as usize];
        let wanted = Wanted { cx: cx.clone(), shared, uid, rank, publish: task.publish };
        by_slot.entry(key).or_default().push(wanted);
    }
    refused
}

/// The operators of a task, by uid.
fn chain_of(plan: &Plan, subtask: SubtaskId) -> String {
    let vertex = plan.graph().vertices.get(subtask.vertex as usize);
    let uids = vertex.into_iter().flat_map(|v| &v.operators).map(|o| o.uid.as_str());
    uids.collect::<Vec<_>>().join(" -> ")
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
            Partitioner::Forward | Partitioner::Rescale => from_here.max(to_here),
            _ => from_here * to + from * to_here - from_here * to_here,
        }
    };
    plan.graph().edges.iter().map(of_edge).sum()
}
