//! The step-able task: what a slot's thread drives, and so does a test on one thread.

use crate::{
    batch::{NO_TIME, Time},
    exchange::waiting::Queues,
    latency::Latency,
    metrics::Registry,
    push::{Barrier, CheckpointId, Control, Flow, Mark, Ready},
    source::{Place, SplitBoard},
    times::{Times, Waits},
};
use parking_lot::Mutex;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use thalweg_env::Clock;
use thalweg_model::{Attempt, FailureKind, Moment, SubtaskId, SubtaskMetrics, TaskFailure};

/// What one step did.
#[derive(PartialEq, Eq, Clone, Copy, Debug)]
#[must_use]
pub enum Step {
    /// Something; call again.
    Progress,
    /// Nothing, and there is nothing to do until the slot's signal or a timer says so.
    Blocked,
    /// The task is over; everything that it produced has left.
    Finished,
}

/// One subtask of one vertex, on the thread of its slot.
pub trait Task {
    /// Works for about `budget` records and never waits.
    fn step(&mut self, budget: usize, slot: &mut SlotCx) -> Step;
}

/// A step ends after so long even with budget left.
const LONG: Duration = Duration::from_millis(5);

/// A look at the clock costs as much as a few dozen light records: after a short time it is left out a few times.
const SHORT: Duration = Duration::from_micros(100);

/// What a slot tells its tasks in a step, and they it.
pub struct SlotCx {
    clock: Arc<dyn Clock>,
    /// When this step began.
    pub now: Moment,
    wake_at: Option<Moment>,
    /// Times that the clock need not be looked at, since the last strides were short.
    unasked: u8,
    asked: Moment,
}

impl SlotCx {
    /// At the clock's present time.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self { clock, now, wake_at: None, unasked: 0, asked: now }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        self.now = self.clock.now();
        (self.unasked, self.asked) = (0, self.now);
    }

    /// Step this slot again at `at`, also when nothing else wakes it.
    pub fn wake_at(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |other| other.min(at)));
    }

    /// The earliest wish since the last call.
    pub(crate) fn take_wake_at(&mut self) -> Option<Moment> {
        self.wake_at.take()
    }

    /// Has this step taken its time? Asked once a stride, so that heavy records do not make long steps.
    #[inline]
    pub(crate) fn is_long(&mut self) -> bool {
        if self.unasked > 0 {
            self.unasked -= 1;
            return false;
        }
        let now = self.clock.now();
        if now.since(self.asked) < SHORT {
            self.unasked = 3;
        }
        self.asked = now;
        now.since(self.now) > LONG
    }

    /// The present time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

/// A step that takes longer is counted.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// Counters of one task, readable from any thread.
pub struct TaskMetrics {
    pub(crate) records_in: AtomicU64,
    pub(crate) records_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) source_bytes: AtomicU64,
    pub(crate) source_bytes_total: AtomicU64,
    pub(crate) slow_steps: AtomicU64,
    pub(crate) late_dropped: AtomicU64,
    pub(crate) skipped: AtomicU64,
    // `NO_TIME` before the first.
    watermark: AtomicI64,
    pub(crate) times: Times,
    pub(crate) inputs: Queues,
    /// Those that a plugin holds; what has not left the task at all is the overdraft.
    pub(crate) outputs: Queues,
    overdraft: AtomicU64,
    pub(crate) latency: Latency,
    pub(crate) user: Registry,
}

impl Default for TaskMetrics {
    fn default() -> Self {
        Self {
            records_in: AtomicU64::default(),
            records_out: AtomicU64::default(),
            bytes_in: AtomicU64::default(),
            bytes_out: AtomicU64::default(),
            source_bytes: AtomicU64::default(),
            source_bytes_total: AtomicU64::default(),
            slow_steps: AtomicU64::default(),
            late_dropped: AtomicU64::default(),
            skipped: AtomicU64::default(),
            watermark: AtomicI64::new(NO_TIME),
            times: Times::default(),
            inputs: Queues::default(),
            outputs: Queues::default(),
            overdraft: AtomicU64::default(),
            latency: Latency::default(),
            user: Registry::default(),
        }
    }
}

impl TaskMetrics {
    /// The counters at `now`, which is the present time of the slots' clock.
    pub fn read(&self, now: Moment) -> SubtaskMetrics {
        let of = |a: &AtomicU64| a.load(Relaxed);
        let times = self.times.read(now);
        SubtaskMetrics {
            records_in: of(&self.records_in),
            records_out: of(&self.records_out),
            bytes_in: of(&self.bytes_in),
            bytes_out: of(&self.bytes_out),
            source_bytes: of(&self.source_bytes),
            source_bytes_total: of(&self.source_bytes_total),
            // One that is under way counts already: it may never end.
            slow_steps: of(&self.slow_steps) + u64::from(self.times.present_step(now) > SLOW),
            late_dropped: of(&self.late_dropped),
            skipped: of(&self.skipped),
            busy_ms: times.busy,
            idle_ms: times.idle,
            back_pressured_ms: times.back_pressured,
            watermark: Some(self.watermark.load(Relaxed)).filter(|at| *at != NO_TIME),
            input_queue: self.inputs.waiting(),
            output_queue: self.outputs.waiting() + of(&self.overdraft),
            latency: self.latency.read(),
            user: self.user.read(now),
            read_at: Some(now),
        }
    }

    /// A channel's overdraft has changed.
    pub(crate) fn overdraft(&self, before: usize, after: usize) {
        let others = self.overdraft.load(Relaxed).saturating_sub(before as u64);
        self.overdraft.store(others + after as u64, Relaxed);
    }

    /// A watermark goes into the chain. The one before the end is no time that anybody has reached: the last real one
    /// stays.
    fn reached(&self, mark: Mark) {
        if let Mark::At(at) = mark
            && at != Time::MAX
        {
            self.watermark.store(at, Relaxed);
        }
    }
}

/// Adds to a counter that this thread alone writes: a load and a store, not a locked instruction.
#[inline]
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// The part of a task that other threads see.
pub struct TaskShared {
    /// Which.
    pub subtask: SubtaskId,
    /// Under which attempt.
    pub attempt: Attempt,
    /// Counters.
    pub metrics: TaskMetrics,
    /// The JobMaster has recorded what this committer prepared.
    pub(crate) committed: AtomicBool,
    /// This committer has told what it will publish.
    pub(crate) prepared: AtomicBool,
    /// A terminal report was sent.
    pub(crate) reported: AtomicBool,
}

impl TaskShared {
    pub(crate) fn new(subtask: SubtaskId, attempt: Attempt) -> Self {
        Self {
            subtask,
            attempt,
            metrics: TaskMetrics::default(),
            committed: AtomicBool::new(false),
            prepared: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        }
    }
}

/// What a committer has prepared.
pub(crate) struct Prepared {
    pub(crate) manifest: bytes::Bytes,
    pub(crate) collected: Vec<(String, bytes::Bytes)>,
}

/// The part of a task that its own thread sees: where its operators leave a failure. The slot looks after each step.
pub struct TaskCell {
    pub(crate) shared: Arc<TaskShared>,
    failed: Cell<bool>,
    failure: RefCell<Option<TaskFailure>>,
    pub(crate) prepared: RefCell<Option<Prepared>>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Of a task that begins with a source.
    pub(crate) splits: SplitBoard,
    pub(crate) place: Place,
    wish: Cell<Option<Moment>>,
    held: Cell<bool>,
    /// Since when it has been held, and for how long it was before that.
    held_since: Cell<Option<Moment>>,
    held_for: Cell<Duration>,
    /// How often its head looked for something to do, and did it.
    looks: Cell<u64>,
}

impl TaskCell {
    pub(crate) fn new(shared: Arc<TaskShared>, checkpoints: Arc<Checkpoints>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            failed: Cell::new(false),
            failure: RefCell::new(None),
            prepared: RefCell::new(None),
            checkpoints,
            splits: SplitBoard::default(),
            place: Place::default(),
            wish: Cell::new(None),
            held: Cell::new(false),
            held_since: Cell::new(None),
            held_for: Cell::default(),
            looks: Cell::default(),
        })
    }

    /// The task has failed. The first failure stands.
    pub fn fail(&self, failure: TaskFailure) {
        if !self.failed.replace(true) {
            *self.failure.borrow_mut() = Some(failure);
        }
    }

    /// The operator of this uid has failed.
    pub fn fail_in(&self, uid: &str, kind: FailureKind, message: impl Into<String>) {
        self.fail(TaskFailure { uid: Some(uid.to_owned()), ..TaskFailure::new(kind, message) });
    }

    /// So many records came too late and are dropped. The first time it is told: nothing else shows it in a job whose metrics
    /// nobody looks at.
    #[cold]
    pub(crate) fn drops_late(&self, uid: &str, records: u64) {
        let dropped = &self.metrics().late_dropped;
        if dropped.load(Relaxed) == 0 {
            tracing::warn!(
                "operator {uid:?}, subtask {}, drops records that come too late; numLateRecordsDropped counts them. Where they \
                 matter: more out-of-orderness in the watermark strategy, allowed_lateness, or side_output_late_data",
                self.shared.subtask.index
            );
        }
        add(dropped, records);
    }

    /// Has it failed?
    #[inline]
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Step this task again at `at`, also when nothing wakes it. It holds for one step: who still waits says it in each.
    pub fn wake_at(&self, at: Moment) {
        self.wish.set(Some(self.wish.get().map_or(at, |other| other.min(at))));
    }

    /// Something is given out by the task itself: the slot goes round once more, for whoever gets it may be there.
    pub(crate) fn goes_on(&self) {
        self.wake_at(Moment::default());
    }

    pub(crate) fn take_wish(&self) -> Option<Moment> {
        self.wish.take()
    }

    /// There is no room behind this task. It holds for one step, as a wish does.
    pub(crate) fn hold(&self) {
        self.held.set(true);
    }

    /// What the task waits for after a step that ended so; `None` when it does not wait.
    pub(crate) fn take_waits(&self, step: Option<Step>, now: Moment) -> Option<Waits> {
        let held = self.held.take();
        match self.held_since.get() {
            None if held => self.held_since.set(Some(now)),
            Some(since) if !held => {
                self.held_for.set(self.held_for.get() + now.since(since));
                self.held_since.set(None);
            }
            _ => {}
        }
        (step == Some(Step::Blocked)).then_some(if held { Waits::Room } else { Waits::Input })
    }

    /// For so long in all there was no room behind this task, so that it read nothing, whatever there was to read.
    pub(crate) fn held_for(&self, now: Moment) -> Duration {
        self.held_for.get() + self.held_since.get().map_or(Duration::ZERO, |since| now.since(since))
    }

    /// What there was to read has been through the chain, or there was nothing.
    pub(crate) fn looked(&self) {
        self.looks.set(self.looks.get() + 1);
    }

    /// How often that was so.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.get()
    }

    pub(crate) fn take_failure(&self) -> Option<TaskFailure> {
        self.failure.borrow_mut().take()
    }

    /// Counters.
    pub fn metrics(&self) -> &TaskMetrics {
        &self.shared.metrics
    }
}

/// States of all operators by uid and subtask: what a checkpoint holds.
pub type Snapshot = std::collections::BTreeMap<(String, u32), Vec<u8>>;

/// Where this process hears of checkpoints and answers. Coordinators put barriers into the stream, everything else
/// passes them on.
#[derive(Default)]
pub struct Checkpoints {
    wanted: Mutex<Option<CheckpointId>>,
    // Rises with each request, so that a task looks into the lock only when there is something new.
    rounds: AtomicU64,
    acknowledged: Mutex<Vec<(CheckpointId, SubtaskId, Vec<(String, Vec<u8>)>)>>,
}

impl Checkpoints {
    /// Asks for a checkpoint. The slots must be woken after it.
    pub fn request(&self, id: CheckpointId) {
        *self.wanted.lock() = Some(id);
        self.rounds.fetch_add(1, Relaxed);
    }

    pub(crate) fn news(&self, seen: &mut u64) -> Option<CheckpointId> {
        let round = self.rounds.load(Relaxed);
        if round == *seen {
            return None;
        }
        *seen = round;
        *self.wanted.lock()
    }

    /// What tasks have answered since the last call.
    pub fn take_acknowledged(&self) -> Vec<(CheckpointId, SubtaskId, Vec<(String, Vec<u8>)>)> {
        std::mem::take(&mut *self.acknowledged.lock())
    }
}

/// Something that a head has begun to say to its chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Saying {
    Mark(Mark),
    Barrier(CheckpointId),
    End,
}

/// What every head does: says marks and ends piece by piece, flushes in time, and waits until all has left.
pub(crate) struct Head {
    cell: Rc<TaskCell>,
    saying: Option<Saying>,
    // The end is said after the last watermark.
    ending: bool,
    ended: bool,
    flushed: Moment,
    timeout: Duration,
    // Something may have been pushed since then.
    gathers: bool,
    // The head's own states, which belong to the barrier it is about to say.
    pub(crate) own: Vec<(Arc<str>, Vec<u8>)>,
    epoch: CheckpointId,
}

impl Head {
    pub(crate) fn new(cell: Rc<TaskCell>, timeout: Duration) -> Self {
        let epoch = CheckpointId { n: 0, epoch: cell.shared.attempt.epoch };
        Self {
            cell,
            saying: None,
            ending: false,
            ended: false,
            flushed: Moment::default(),
            timeout,
            gathers: false,
            own: Vec::new(),
            epoch,
        }
    }

    /// Says this next. Only when [`Head::advance`] answered `None`.
    ///
    /// Before an end comes the last watermark: whoever waits for time has waited long enough.
    pub(crate) fn say(&mut self, saying: Saying) {
        self.ending = saying == Saying::End;
        self.saying = Some(if self.ending { Saying::Mark(Mark::At(Time::MAX)) } else { saying });
    }

    /// Nothing was begun that is not done.
    pub(crate) fn is_free(&self) -> bool {
        self.saying.is_none() && !self.ended
    }

    /// Goes on with what was begun; `None` when there is nothing and the chain takes records.
    pub(crate) fn advance(
        &mut self,
        chain: &mut (impl Control + ?Sized),
        budget: &mut usize,
        slot: &SlotCx,
    ) -> Option<Step> {
        let step = self.go_on(chain, budget);
        self.gathers |= step == Some(Step::Progress);
        step.map(|step| self.waits(chain, slot, step))
    }

    /// The chain takes nothing now, or has something to do by itself. What was gathered goes out in time also then.
    pub(crate) fn waits(&mut self, chain: &mut (impl Control + ?Sized), slot: &SlotCx, step: Step) -> Step {
        if !self.gathers || self.ended {
            return step;
        }
        let due = self.flushed + self.timeout;
        if slot.now < due {
            self.cell.wake_at(due);
            return step;
        }
        if self.flush(chain, slot) == Step::Progress { Step::Progress } else { step }
    }

    /// Records were pushed, or somebody in the chain gives some out.
    pub(crate) fn gathers(&mut self) {
        self.gathers = true;
    }

    /// What is sent to a task of the same slot wakes nobody: the slot goes round once more where something may have been.
    fn flush(&mut self, chain: &mut (impl Control + ?Sized), slot: &SlotCx) -> Step {
        self.flushed = slot.now;
        chain.flush();
        if std::mem::take(&mut self.gathers) { Step::Progress } else { Step::Blocked }
    }

    /// [`Self::advance`] where nothing is gathered.
    pub(crate) fn go_on(&mut self, chain: &mut (impl Control + ?Sized), budget: &mut usize) -> Option<Step> {
        if self.ended {
            return Some(match chain.ready() {
                Ready::Busy => Step::Progress,
                Ready::Yes if chain.drained() => Step::Finished,
                // What it gave has yet to be taken.
                Ready::Blocked | Ready::Yes => self.held(),
            });
        }
        loop {
            match chain.ready() {
                Ready::Yes => {}
                Ready::Busy => return Some(Step::Progress),
                Ready::Blocked => return Some(self.held()),
            }
            match self.saying? {
                Saying::Mark(mark) => {
                    self.cell.metrics().reached(mark);
                    match chain.mark(mark, budget) {
                        Flow::Done => self.saying = self.ending.then_some(Saying::End),
                        Flow::More => return Some(Step::Progress),
                    }
                }
                Saying::Barrier(id) => {
                    self.saying = None;
                    self.barrier(id, chain);
                }
                Saying::End => {
                    if chain.end(budget) == Flow::Done {
                        self.saying = None;
                        self.ended = true;
                        chain.flush();
                    }
                    return Some(Step::Progress);
                }
            }
        }
    }

    fn held(&self) -> Step {
        self.cell.hold();
        Step::Blocked
    }

    fn barrier(&mut self, id: CheckpointId, chain: &mut (impl Control + ?Sized)) {
        let mut barrier = Barrier { id, states: std::mem::take(&mut self.own) };
        // One of a leader that is no more, or one that was seen: it would overtake what a newer one fixed.
        if id.epoch < self.epoch.epoch || id.n <= self.epoch.n {
            return;
        }
        self.epoch = id;
        chain.barrier(&mut barrier);
        let states = barrier.states.into_iter().map(|(uid, s)| (uid.to_string(), s)).collect();
        self.cell.checkpoints.acknowledged.lock().push((id, self.cell.shared.subtask, states));
    }

    /// Nothing was to be done in this step: send what was gathered.
    pub(crate) fn pause(&mut self, chain: &mut (impl Control + ?Sized), slot: &SlotCx) -> Step {
        self.cell.looked();
        self.flush(chain, slot)
    }

    /// Something was done. Sends what was gathered when it has waited for `buffer-timeout`.
    pub(crate) fn worked(&mut self, chain: &mut (impl Control + ?Sized), slot: &SlotCx) -> Step {
        self.gathers = true;
        if slot.now.since(self.flushed) >= self.timeout {
            let _ = self.flush(chain, slot);
        }
        Step::Progress
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod head_tests;
