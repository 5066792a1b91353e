//! One slot's thread: builds its tasks, steps them in turn, and parks when none has anything to do.

use crate::{
    build::{AttemptCx, BuildCx, SlotLocal},
    exchange::Signal,
    panics,
    task::{SLOW, SlotCx, Step, Task, TaskCell, TaskShared, add},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};
use thalweg_env::Clock;
use thalweg_model::{ExecutionState, FailureKind, Moment, TaskFailure};
use thalweg_wire::TaskReport;

use super::TaskListener;

/// Records of one step: long enough that stepping costs nothing, short enough that others get their turn.
const BUDGET: usize = 8192;

/// A task that a slot is to build.
pub(super) struct Wanted {
    /// Of its region.
    pub(super) cx: Arc<AttemptCx>,
    pub(super) shared: Arc<TaskShared>,
    /// Of its head.
    pub(super) uid: Arc<str>,
    pub(super) rank: u32,
    pub(super) publish: Option<Bytes>,
}

/// New tasks for a slot.
pub(super) struct Inbox {
    /// The thread has ended, or is about to.
    pub(super) closed: bool,
    pub(super) new: Vec<Wanted>,
}

/// What a slot's thread begins with.
pub(super) struct SlotThread {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inbox: Arc<Mutex<Inbox>>,
    pub(super) signal: Arc<Signal>,
    pub(super) listener: Arc<dyn TaskListener>,
}

struct Live {
    wanted: Wanted,
    slot: Rc<SlotLocal>,
    cell: Rc<TaskCell>,
    task: Box<dyn Task>,
}

/// A task that is being built.
struct Begun {
    wanted: Wanted,
    cx: BuildCx,
}

/// In the place of a task that could not be built.
struct Unbuilt;

impl Task for Unbuilt {
    fn step(&mut self, _: usize, _: &mut SlotCx) -> Step {
        Step::Blocked
    }
}

impl Wanted {
    fn is_cancelled(&self) -> bool {
        self.cx.cancelled.load(Ordering::SeqCst)
    }
}

/// Reports a task's end, once.
pub(super) fn report_end(
    listener: &dyn TaskListener,
    task: &TaskShared,
    state: ExecutionState,
    failure: Option<TaskFailure>,
    now: Moment,
) {
    if !task.reported.swap(true, Ordering::AcqRel) {
        let failure = failure.map(|f| f.at(task.subtask));
        listener.on_report(TaskReport { failure, ..report(task, state, now) });
    }
}

fn report(task: &TaskShared, state: ExecutionState, now: Moment) -> TaskReport {
    TaskReport {
        subtask: task.subtask,
        attempt: task.attempt,
        state,
        failure: None,
        prepared: None,
        collected: Default::default(),
        metrics: task.metrics.read(now),
    }
}

impl SlotThread {
    pub(super) fn run(self) {
        self.signal.adopt();
        let mut cx = SlotCx::new(self.clock.clone());
        let mut tasks: Vec<Live> = Vec::new();
        // Failed tasks are kept, unstepped, until their region is cancelled: if their channels closed, tasks on other
        // hosts would fail too, and theirs might be the failure that is told first.
        let mut failed: Vec<Live> = Vec::new();
        let mut armed = false;
        loop {
            let new = {
                let mut inbox = self.inbox.lock();
                if inbox.new.is_empty() && tasks.is_empty() && failed.is_empty() {
                    inbox.closed = true;
                    return;
                }
                std::mem::take(&mut inbox.new)
            };
            let mut progress = !new.is_empty();
            for live in tasks
                .extract_if(.., |t| t.wanted.is_cancelled())
                .chain(failed.extract_if(.., |t| t.wanted.is_cancelled()))
            {
                progress = true;
                live.wanted.shared.metrics.times.over(self.clock.now());
                let Live { wanted, slot, task, .. } = live;
                self.drop_task((task, slot));
                self.report_end(&wanted.shared, ExecutionState::Canceled, None);
            }
            let mut begun: Vec<Begun> = Vec::new();
            for wanted in new {
                if wanted.is_cancelled() {
                    self.report_end(&wanted.shared, ExecutionState::Canceled, None);
                    continue;
                }
                let of_this = |cx: &Arc<AttemptCx>| Arc::ptr_eq(cx, &wanted.cx);
                let live = tasks.iter().chain(&failed).find(|t| of_this(&t.wanted.cx)).map(|t| t.slot.clone());
                let slot = live.or_else(|| begun.iter().find(|t| of_this(&t.wanted.cx)).map(|t| t.cx.slot.clone()));
                let slot = slot.unwrap_or_else(|| SlotLocal::new(self.signal.clone()));
                begun.extend(self.begin(wanted, slot));
            }
            for begun in begun {
                match self.build(begun) {
                    Ok(live) => tasks.push(live),
                    Err(live) => failed.push(live),
                }
            }
            tasks.sort_by_key(|t| t.wanted.rank);
            for i in (0..tasks.len()).rev() {
                match self.step(&mut tasks[i], &mut cx) {
                    Ok(Step::Progress) => progress = true,
                    Ok(Step::Blocked) => {}
                    Ok(Step::Finished) => {
                        progress = true;
                        let Live { wanted, slot, task, .. } = tasks.remove(i);
                        self.drop_task((task, slot));
                        self.report_end(&wanted.shared, ExecutionState::Finished, None);
                    }
                    Err(failure) => {
                        progress = true;
                        let ended = tasks.remove(i);
                        ended.wanted.shared.metrics.times.over(self.clock.now());
                        if !ended.wanted.is_cancelled() {
                            let task = &ended.wanted.shared;
                            self.report_end(task, ExecutionState::Failed, Some(failure));
                        }
                        failed.push(ended);
                    }
                }
            }
            let wake_at = cx.take_wake_at();
            match (progress, armed) {
                (true, true) => {
                    self.signal.disarm();
                    armed = false;
                }
                (true, false) => {}
                (false, false) => {
                    self.signal.arm();
                    armed = true;
                }
                (false, true) => {
                    let limit = wake_at.map(|at| at.since(self.clock.now()));
                    self.signal.park(limit);
                    armed = false;
                }
            }
        }
    }

    /// Offers what the task has for other hosts, before any task of the slot is built.
    fn begin(&self, wanted: Wanted, slot: Rc<SlotLocal>) -> Option<Begun> {
        self.listener.on_report(report(&wanted.shared, ExecutionState::Initializing, self.clock.now()));
        let cell = TaskCell::new(wanted.shared.clone(), wanted.cx.checkpoints.clone());
        let cx = BuildCx {
            attempt: wanted.cx.clone(),
            slot,
            subtask: wanted.shared.subtask,
            cell,
            publish: wanted.publish.clone(),
            sides: None,
        };
        match cx.offer() {
            Ok(()) => Some(Begun { wanted, cx }),
            Err(failure) => {
                self.report_end(&wanted.shared, ExecutionState::Failed, Some(failure));
                None
            }
        }
    }

    /// What could not be built is kept as one that has failed, for what it has offered.
    fn build(&self, Begun { wanted, cx }: Begun) -> Result<Live, Live> {
        let built = panics::catch(&wanted.uid, || wanted.cx.plan.build(&cx)).and_then(|built| built);
        match built {
            Ok(task) => {
                self.listener.on_report(report(&wanted.shared, ExecutionState::Running, self.clock.now()));
                Ok(Live { wanted, slot: cx.slot, cell: cx.cell, task })
            }
            Err(mut failure) => {
                failure.uid.get_or_insert_with(|| wanted.uid.to_string());
                self.report_end(&wanted.shared, ExecutionState::Failed, Some(failure));
                Err(Live { wanted, slot: cx.slot, cell: cx.cell, task: Box::new(Unbuilt) })
            }
        }
    }

    fn step(&self, live: &mut Live, cx: &mut SlotCx) -> Result<Step, TaskFailure> {
        cx.begin();
        let (began, task, metrics) = (cx.now, &mut live.task, &live.wanted.shared.metrics);
        metrics.times.begins(began);
        let step = panics::catch(&live.wanted.uid, || task.step(BUDGET, cx));
        let ended = self.clock.now();
        metrics.times.ends(began, ended, live.cell.take_waits(step.as_ref().ok().copied(), ended));
        let step = step?;
        if ended.since(began) > SLOW {
            add(&metrics.slow_steps, 1);
        }
        if let Some(at) = live.cell.take_wish() {
            cx.wake_at(at);
        }
        if live.cell.has_failed() {
            let failure = live.cell.take_failure();
            let unknown = || TaskFailure::new(FailureKind::User, "the task failed without saying why");
            let mut failure = failure.unwrap_or_else(unknown);
            failure.uid.get_or_insert_with(|| live.wanted.uid.to_string());
            return Err(failure);
        }
        if let Some(prepared) = live.cell.prepared.take() {
            let shared = &live.wanted.shared;
            shared.prepared.store(true, Ordering::Release);
            self.listener.on_report(TaskReport {
                prepared: Some(prepared.manifest),
                collected: prepared.collected.into_iter().collect(),
                ..report(shared, ExecutionState::Running, ended)
            });
        }
        Ok(step)
    }

    fn report_end(&self, task: &TaskShared, state: ExecutionState, failure: Option<TaskFailure>) {
        report_end(&*self.listener, task, state, failure, self.clock.now());
    }

    /// Drops user values, those in queues too, whose `drop` may panic, and the slot's other tasks have nothing to do with that.
    fn drop_task(&self, task: (Box<dyn Task>, Rc<SlotLocal>)) {
        if let Err(failure) = panics::catch(&"".into(), || drop(task)) {
            tracing::warn!("a value of a task that has ended: {failure}");
        }
    }
}
