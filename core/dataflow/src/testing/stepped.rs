//! A whole job on one thread, each step drawn from a seed: tasks that stall, tiny budgets, tiny channels. The same seed
//! gives the same run. Time stands still, and jumps when nobody can work before a later moment.

use super::{FIRST, NoShuffle};
use crate::{
    build::{AttemptCx, BuildCx, SlotLocal},
    exchange::{ExchangeSizes, Signal, wiring::Wiring},
    plan::Plan,
    push::CheckpointId,
    task::{Checkpoints, SlotCx, Snapshot, Step, Task, TaskCell, TaskShared},
};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use thalweg_env::{Clock, Env, ManualClock};
use thalweg_model::{
    Epoch, FailureKind, HostPlace, JobId, Moment, Placement, SubtaskId, SubtaskMetrics, SubtaskPlace, TaskFailure,
    TaskManagerId, Vertex, VertexRole,
};

/// Rounds in which nobody does anything, with no time to wait for, before the job counts as hanging. Tasks are drawn by
/// chance, and stall by chance.
const QUIET: u32 = 1000;
/// Quiet rounds before time jumps: what crosses threads of an operator's own needs a moment of the real clock.
const STILL: u32 = 50;

struct Stepped {
    cell: Rc<TaskCell>,
    name: String,
    task: Option<Box<dyn Task>>,
    is_committer: bool,
    /// When it wanted to be stepped again, in its last step.
    wish: Option<Moment>,
}

/// How a run of a [`SteppedJob`] ended.
#[derive(Debug, PartialEq)]
pub enum SteppedEnd {
    /// All tasks have finished.
    Finished,
    /// The checkpoint that was asked for is complete.
    Checkpoint(Snapshot),
}

/// One run of a plan.
pub struct SteppedJob {
    tasks: Vec<Stepped>,
    slot: SlotCx,
    clock: Arc<ManualClock>,
    random: SmallRng,
    checkpoints: Arc<Checkpoints>,
    collected: BTreeMap<String, Bytes>,
    trace: Vec<(usize, Step)>,
}

impl SteppedJob {
    /// Builds all tasks. `env` lends what is not the clock. Tasks begin with what the snapshot has, at any parallelism.
    pub fn start(plan: &Arc<Plan>, env: &Env, seed: u64, snapshot: Snapshot, dir: &Path) -> Result<Self, TaskFailure> {
        let mut random = SmallRng::seed_from_u64(seed);
        let clock = Arc::new(ManualClock::default());
        let env = Env { clock: clock.clone(), ..env.clone() };
        let slots = random.random_range(1..4u32);
        let checkpoints = Arc::new(Checkpoints::default());
        let mut place = |_| SubtaskPlace { host: 0, slot: random.random_range(0..slots) };
        let subtasks = plan.graph().vertices.iter().map(|v| (0..v.parallelism).map(&mut place).collect()).collect();
        let host = HostPlace { task_manager: TaskManagerId::new("one"), data_address: None };
        let placement = Placement { hosts: vec![host], subtasks };
        let attempt = Arc::new(AttemptCx {
            job: JobId::from_bytes([0; 16]),
            region: 0,
            attempt: FIRST,
            plan: plan.clone(),
            placement: Arc::new(placement.clone()),
            host: 0,
            env: env.clone(),
            shuffle: Arc::new(NoShuffle),
            sizes: ExchangeSizes {
                batch: random.random_range(8..200),
                depth: random.random_range(1..4),
                max_record: 1 << 20,
            },
            buffer_timeout: Duration::from_millis(random.random_range(0..2)),
            // Markers among the records change nothing of them.
            latency_interval: random.random_bool(0.5).then_some(Duration::ZERO),
            client_dir: dir.to_owned(),
            scratch: std::env::temp_dir(),
            descriptors: Mutex::default(),
            wiring: Wiring::default(),
            checkpoints: checkpoints.clone(),
            restore: Arc::new(snapshot),
            cancelled: AtomicBool::new(false),
        });
        let locals: Vec<_> = (0..slots).map(|_| SlotLocal::new(Arc::new(Signal::default()))).collect();
        let mut tasks = Vec::new();
        for (subtask, place) in placement.subtasks_of(0) {
            let cell = TaskCell::new(Arc::new(TaskShared::new(subtask, FIRST)), checkpoints.clone());
            let slot = locals[place.slot as usize].clone();
            let cx =
                BuildCx { attempt: attempt.clone(), slot, subtask, cell: cell.clone(), publish: None, sides: None };
            let task = Some(plan.build(&cx)?);
            let vertex = plan.graph().vertices.get(subtask.vertex as usize);
            let is_committer = vertex.is_some_and(|v| v.role == VertexRole::Committer);
            let name = vertex.map(Vertex::name).unwrap_or_default();
            tasks.push(Stepped { cell, name, task, is_committer, wish: None });
        }
        let slot = SlotCx::new(clock.clone());
        Ok(Self { tasks, slot, clock, random, checkpoints, collected: BTreeMap::new(), trace: Vec::new() })
    }

    /// One round: as many steps as there are tasks, of tasks by chance, but not of those that are stalled.
    fn round(&mut self, stalled: &[bool]) -> Result<bool, TaskFailure> {
        let mut progress = false;
        self.slot.begin();
        for _ in 0..self.tasks.len() {
            let i = self.random.random_range(0..self.tasks.len());
            let t = &mut self.tasks[i];
            let (false, Some(task)) = (stalled[i], &mut t.task) else { continue };
            let began = self.clock.now();
            t.cell.metrics().times.begins(began);
            let step = task.step(self.random.random_range(1..300), &mut self.slot);
            let ended = self.clock.now();
            t.cell.metrics().times.ends(began, ended, t.cell.take_waits(Some(step), ended));
            if let Some(at) = t.cell.take_wish() {
                self.slot.wake_at(at);
            }
            t.wish = self.slot.take_wake_at();
            if let Some(failure) = t.cell.take_failure() {
                return Err(failure);
            }
            self.trace.push((i, step));
            progress |= step != Step::Blocked;
            if step == Step::Finished {
                t.task = None;
            }
        }
        Ok(progress)
    }

    fn hangs(&self, round: u64) -> TaskFailure {
        let left = self.tasks.iter().filter(|t| t.task.is_some());
        let left: Vec<_> = left.map(|t| format!("{}, subtask {}", t.name, t.cell.shared.subtask.index)).collect();
        let message = format!(
            "the job hangs in round {round}: nothing has come for a second, nobody has done anything, and nobody waits for a \
             later time. Left are {}",
            left.join("; ")
        );
        TaskFailure::new(FailureKind::Incompatible, message)
    }

    /// Runs to the end; or, with a round at which a checkpoint is asked for, until that is complete if it still can be.
    pub fn run(&mut self, checkpoint_at: Option<u64>) -> Result<SteppedEnd, TaskFailure> {
        let (mut states, mut acknowledged) = (Snapshot::new(), 0);
        let mut quiet = 0;
        for round in 0u64.. {
            if Some(round) == checkpoint_at {
                self.checkpoints.request(CheckpointId { n: 1, epoch: Epoch(1) });
            }
            let stalled: Vec<bool> = self.tasks.iter().map(|_| self.random.random_range(0..3) == 0).collect();
            quiet = if self.round(&stalled)? { 0 } else { quiet + 1 };
            // Not every task is stepped in each round.
            let wish = self.tasks.iter().filter(|t| t.task.is_some()).filter_map(|t| t.wish).min();
            match wish {
                Some(at) if quiet > STILL => {
                    self.clock.advance(at.since(self.clock.now()).max(Duration::from_millis(1)));
                    quiet = 0;
                }
                // What an operator waits for may be under way on other threads.
                None if quiet > STILL && quiet <= QUIET => std::thread::sleep(Duration::from_millis(1)),
                // If it does not come, a limit of that may be over at a later time.
                None if quiet > QUIET => match self.clock.next_sleeper() {
                    Some(at) => {
                        self.clock.advance(at.since(self.clock.now()));
                        quiet = 0;
                    }
                    None => return Err(self.hangs(round)),
                },
                _ => {}
            }
            for (_, subtask, parts) in self.checkpoints.take_acknowledged() {
                acknowledged += 1;
                states.extend(parts.into_iter().map(|(uid, state)| ((uid, subtask.index), state)));
            }
            if acknowledged == self.tasks.len() {
                return Ok(SteppedEnd::Checkpoint(states));
            }
            let mut waiting = self.tasks.iter().filter(|t| t.task.is_some()).peekable();
            if waiting.peek().is_none() {
                break;
            }
            if waiting.all(|t| t.is_committer && t.cell.prepared.borrow().is_some()) {
                for t in &self.tasks {
                    if let Some(prepared) = t.cell.prepared.borrow().as_ref() {
                        self.collected.extend(prepared.collected.iter().cloned());
                    }
                    t.cell.shared.committed.store(true, Ordering::Release);
                }
            }
        }
        Ok(SteppedEnd::Finished)
    }

    /// What `collect` gathered, by uid, once the run has finished.
    pub fn collected(&self) -> &BTreeMap<String, Bytes> {
        &self.collected
    }

    /// Which task did what, in order: two runs of one seed are the same.
    pub fn trace(&self) -> &[(usize, Step)] {
        &self.trace
    }

    /// Counters of all tasks. Times are the simulated clock's, which stands still while a task works.
    pub fn metrics(&self) -> Vec<(SubtaskId, SubtaskMetrics)> {
        let now = self.clock.now();
        self.tasks.iter().map(|t| (t.cell.shared.subtask, t.cell.metrics().read(now))).collect()
    }
}
