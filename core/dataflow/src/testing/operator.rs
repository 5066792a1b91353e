//! One operator, fed by hand: records, watermarks, time and the end as the test says, without a job around it.
//!
//! It is for functions and operators. Whole programs run with [`SteppedJob`](super::SteppedJob) or on an engine.

use super::{FIRST, NoShuffle};
use crate::{
    batch::{Batch, NO_TIME, Time},
    build::{AttemptCx, BuildCx, SlotLocal},
    event_time::LOOKS,
    exchange::{ExchangeSizes, Signal, wiring::Wiring},
    key::{ByValue, OwnedKey},
    keyed::{KeyedProcess, ProcessSpec},
    ops::ClonedToSubtasks,
    pipe::{Inlet, Transform},
    plan::{Freeze, PlanBuilder},
    push::{Barrier, Chained, CheckpointId, Control, Flow, Mark, Push, Ready},
    side::{GatheredSides, OutputTag, Sides},
    sink::{Discard, add_sink},
    task::{Checkpoints, Snapshot, TaskCell, TaskShared},
};
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use thalweg_env::{Clock, Env, ManualClock};
use thalweg_model::{
    Epoch, FailureKind, HostPlace, JobId, Placement, SubtaskId, SubtaskPlace, TaskFailure, TaskManagerId, VertexRole,
};
use thalweg_wire::ExecutionMode;

/// What came out, each with its time.
type Out<O> = Rc<RefCell<Vec<(Time, O)>>>;

struct Gather<O> {
    out: Out<O>,
    passed: Rc<RefCell<Vec<Mark>>>,
}

impl<O> Control for Gather<O> {
    fn ready(&mut self) -> Ready {
        Ready::Yes
    }
    fn mark(&mut self, mark: Mark, _: &mut usize) -> Flow {
        self.passed.borrow_mut().push(mark);
        Flow::Done
    }
    fn barrier(&mut self, _: &mut Barrier) {}
    fn latency(&mut self, _: Time) {}
    fn flush(&mut self) {}
    fn end(&mut self, _: &mut usize) -> Flow {
        Flow::Done
    }
    fn drained(&mut self) -> bool {
        true
    }
}

impl<O> Push<O> for Gather<O> {
    fn push(&mut self, at: Time, item: O) {
        self.out.borrow_mut().push((at, item));
    }
    fn push_batch(&mut self, batch: &mut Batch<O>, limit: usize) {
        batch.each(limit, |_, at, item| self.push(at, item));
    }
}

/// What an operator is opened with where there is no job.
struct Stage {
    build: BuildCx,
    clock: Arc<ManualClock>,
    cell: Rc<TaskCell>,
    sides: GatheredSides,
}

impl Stage {
    fn new(env: &Env, snapshot: &[Vec<u8>]) -> Result<Self, TaskFailure> {
        let wrong = |e: Vec<String>| TaskFailure::new(FailureKind::Incompatible, e.join("\n"));
        // A plan of this operator alone gives it a uid and key groups; its tasks are never built.
        let b = PlanBuilder::default();
        let vertex = b.vertex(VertexRole::Task, Some(1));
        let id = b.operator(vertex, "tested", &[]);
        b.set_uid(id, "tested".into());
        let inlet = Inlet::<()>::default();
        add_sink(&b, vertex, inlet.clone(), Discard);
        b.install(vertex, Box::new(|| Box::new(|_| Err(TaskFailure::new(FailureKind::Incompatible, "a test's plan")))));
        let with = Freeze { parallelism: 1, max_parallelism: None, mode: ExecutionMode::Streaming };
        let plan = Arc::new(b.freeze(&with).map_err(wrong)?);
        let clock = Arc::new(ManualClock::default());
        let env = Env { clock: clock.clone(), ..env.clone() };
        let checkpoints = Arc::new(Checkpoints::default());
        let host = HostPlace { task_manager: TaskManagerId::new("one"), data_address: None };
        let placement = Placement { hosts: vec![host], subtasks: vec![vec![SubtaskPlace { host: 0, slot: 0 }]] };
        let writers = (0..).zip(snapshot);
        let restore: Snapshot = writers.map(|(n, state)| (("tested".to_owned(), n), state.clone())).collect();
        let attempt = Arc::new(AttemptCx {
            job: JobId::from_bytes([0; 16]),
            region: 0,
            attempt: FIRST,
            plan,
            placement: Arc::new(placement),
            host: 0,
            env,
            shuffle: Arc::new(NoShuffle),
            sizes: ExchangeSizes { batch: 1 << 10, depth: 4, max_record: 1 << 20 },
            buffer_timeout: Duration::ZERO,
            latency_interval: None,
            client_dir: std::env::temp_dir(),
            scratch: std::env::temp_dir(),
            descriptors: Mutex::default(),
            wiring: Wiring::default(),
            checkpoints: checkpoints.clone(),
            restore: Arc::new(restore),
            cancelled: AtomicBool::new(false),
        });
        let subtask = SubtaskId { vertex: 0, index: 0 };
        let cell = TaskCell::new(Arc::new(TaskShared::new(subtask, FIRST)), checkpoints);
        let slot = SlotLocal::new(Arc::new(Signal::default()));
        let sides = GatheredSides::default();
        let build = BuildCx { attempt, slot, subtask, cell: cell.clone(), publish: None, sides: Some(sides.clone()) };
        Ok(Self { build, clock, cell, sides })
    }
}

/// Feeds one operator.
///
/// Its clock stands still until it is moved on, and begins at 0.
pub struct OperatorTester<T: 'static, X: Transform<T>> {
    op: Chained<T, X::Op, Gather<X::Out>>,
    out: Out<X::Out>,
    sides: GatheredSides,
    passed: Rc<RefCell<Vec<Mark>>>,
    clock: Arc<ManualClock>,
    cell: Rc<TaskCell>,
    watermark: Time,
}

impl<T: 'static, F, S> OperatorTester<T, ProcessSpec<F, ByValue<S>>>
where
    F: KeyedProcess<T>,
    F::Key: OwnedKey,
    S: Fn(&T) -> F::Key + ClonedToSubtasks,
{
    /// A keyed function, and how the key is found.
    pub fn keyed(env: &Env, f: F, key: S) -> Result<Self, TaskFailure> {
        Self::new(env, ProcessSpec { f, key: ByValue(key), sides: Sides::default() })
    }

    /// The same, going on from a snapshot.
    pub fn keyed_restored(env: &Env, f: F, key: S, snapshot: Vec<u8>) -> Result<Self, TaskFailure> {
        Self::restored(env, ProcessSpec { f, key: ByValue(key), sides: Sides::default() }, snapshot)
    }
}

impl<T: 'static, X: Transform<T>> OperatorTester<T, X> {
    /// An operator in streaming mode. `env` lends what is not the clock.
    pub fn new(env: &Env, operator: X) -> Result<Self, TaskFailure> {
        Self::from(env, operator, &[])
    }

    /// One that goes on from a snapshot.
    pub fn restored(env: &Env, operator: X, snapshot: Vec<u8>) -> Result<Self, TaskFailure> {
        Self::from(env, operator, &[snapshot])
    }

    /// One of what so many subtasks had.
    pub(crate) fn from(env: &Env, operator: X, snapshot: &[Vec<u8>]) -> Result<Self, TaskFailure> {
        let Stage { build, clock, cell, sides } = Stage::new(env, snapshot)?;
        let cx = build.op(0)?;
        let (out, passed) = (Out::default(), Rc::default());
        let op = operator.open(&cx)?;
        let gather = Gather { out: Rc::clone(&out), passed: Rc::clone(&passed) };
        Ok(Self { op: Chained::new(op, cx.uid.clone(), gather), out, sides, passed, clock, cell, watermark: NO_TIME })
    }

    /// The failure that the operator told, if it did.
    fn settle(&mut self) -> Result<(), TaskFailure> {
        // Waits for what other threads do, at most some seconds.
        let mut patience = 0;
        loop {
            match self.op.ready() {
                Ready::Yes => break,
                Ready::Busy => {}
                Ready::Blocked if self.cell.has_failed() => break,
                Ready::Blocked if patience < 5000 => {
                    patience += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ready::Blocked => {
                    let message = "the operator waits for something that does not come";
                    return Err(TaskFailure::new(FailureKind::Incompatible, message));
                }
            }
        }
        self.cell.take_failure().map_or(Ok(()), Err)
    }

    /// One record with this time.
    pub fn push(&mut self, at: Time, item: T) -> Result<(), TaskFailure> {
        self.settle()?;
        self.op.push(at, item);
        self.settle()
    }

    /// One record, and how many have come out before the operator was asked for more.
    #[cfg(test)]
    pub(crate) fn at_once(&mut self, at: Time, item: T) -> Result<usize, TaskFailure> {
        self.settle()?;
        let before = self.out.borrow().len();
        self.push_now(at, item);
        let at_once = self.out.borrow().len() - before;
        Ok(at_once)
    }

    /// One record, of a stride that comes without asking in between.
    #[cfg(test)]
    pub(crate) fn push_now(&mut self, at: Time, item: T) {
        self.op.push(at, item);
    }

    /// A watermark, as far as the operator comes at once with this budget.
    #[cfg(test)]
    pub(crate) fn mark_now(&mut self, at: Time, mut budget: usize) -> Flow {
        self.op.mark(Mark::At(at), &mut budget)
    }

    /// One record without a time.
    pub fn push_untimed(&mut self, item: T) -> Result<(), TaskFailure> {
        self.push(NO_TIME, item)
    }

    /// A watermark: no record with this time or an earlier one follows. One that falls is an error: no job has that.
    pub fn watermark(&mut self, at: Time) -> Result<(), TaskFailure> {
        if at < self.watermark {
            let message = format!(
                "the test's watermark falls from {} to {at}, which it never does in a job: for a record that is late push \
                 one with an earlier time",
                self.watermark
            );
            return Err(TaskFailure::new(FailureKind::User, message));
        }
        self.watermark = at;
        self.mark(Mark::At(at))
    }

    /// The input is idle: it brings nothing for a while, and holds nobody back.
    pub fn idle(&mut self) -> Result<(), TaskFailure> {
        self.mark(Mark::Idle)
    }

    fn mark(&mut self, mark: Mark) -> Result<(), TaskFailure> {
        self.settle()?;
        while self.op.mark(mark, &mut 256) == Flow::More {
            self.settle()?;
        }
        self.settle()
    }

    /// The input pauses.
    #[cfg(test)]
    pub(crate) fn flush(&mut self) -> Result<(), TaskFailure> {
        self.op.flush();
        self.cell.take_failure().map_or(Ok(()), Err)
    }

    /// The machine's clock moves on.
    pub fn advance(&mut self, by: Duration) -> Result<(), TaskFailure> {
        self.clock.advance(by);
        self.settle()?;
        // There is nothing to read.
        for _ in 0..=LOOKS {
            self.cell.looked();
            self.settle()?;
        }
        Ok(())
    }

    /// The machine's clock, ms.
    pub fn processing_time(&self) -> Time {
        Time::try_from(self.clock.wall().0).unwrap_or(Time::MAX)
    }

    /// The input ends.
    pub fn end(&mut self) -> Result<(), TaskFailure> {
        self.watermark(Time::MAX)?;
        while self.op.end(&mut 256) == Flow::More {
            self.settle()?;
        }
        self.settle()
    }

    /// The operator's state, for [`OperatorTester::restored`].
    pub fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        self.settle()?;
        let mut barrier = Barrier { id: CheckpointId { n: 1, epoch: Epoch(1) }, states: Vec::new() };
        self.op.barrier(&mut barrier);
        self.settle()?;
        Ok(barrier.states.pop().map(|(_, state)| state))
    }

    /// What has come out since the last call, each with its time.
    pub fn take(&mut self) -> Vec<(Time, X::Out)> {
        std::mem::take(&mut *self.out.borrow_mut())
    }

    /// What has come out by the side since the last call, each with its time.
    pub fn take_side<U: 'static>(&mut self, tag: &OutputTag<U>) -> Vec<(Time, U)> {
        self.sides.take(tag)
    }

    /// What the operator tells under this name, as REST shows it behind the operator's: `seen` of a counter or a gauge,
    /// `ms_p99` of a histogram. A meter has a rate once it was asked for twice, with a second of the tester's clock between.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let all = self.cell.metrics().user.read(self.clock.now());
        let found = all.iter().find(|m| m.name == name)?;
        Some(if found.is_rate { found.value as f64 / 1000.0 } else { found.value as f64 })
    }

    /// The last watermark that has come out.
    pub fn passed(&self) -> Option<Mark> {
        self.passed.borrow().last().copied()
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all_passed(&self) -> Vec<Mark> {
        self.passed.borrow().clone()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what is waited for is not the tester's clock's")]
mod tests {
    use super::*;
    use crate::{
        asynchronous::{AsyncMap, AsyncOptions},
        event_time::{Stamp, WatermarkStrategy},
        filter::Filter,
        keyed::{KeyedContext, TimeDomain},
        testing::TestRuntime,
    };

    /// Tells a key's number of records 10 ms after the first, by either clock.
    #[derive(Clone)]
    struct Counts;

    impl KeyedProcess<(u8, TimeDomain)> for Counts {
        type Key = u8;
        type State = u64;
        type Out = (u8, u64);
        fn process(&mut self, item: (u8, TimeDomain), n: &mut u64, ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
            *n += 1;
            match item.1 {
                TimeDomain::EventTime => ctx.register_event_time_timer(ctx.time() + 10),
                TimeDomain::ProcessingTime => ctx.register_processing_time_timer(ctx.processing_time() + 10),
            }
        }
        fn on_timer(&mut self, _: TimeDomain, n: &mut u64, ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
            ctx.emit((*ctx.key(), *n));
            ctx.clear_state();
        }
    }

    #[test]
    fn records_watermarks_and_time_come_as_the_test_says() {
        let rt = TestRuntime::new().unwrap();
        let mut tester = OperatorTester::keyed(&rt.env, Counts, |item: &(u8, TimeDomain)| item.0).unwrap();
        tester.push(5, (1, TimeDomain::EventTime)).unwrap();
        tester.push(5, (1, TimeDomain::EventTime)).unwrap();
        tester.watermark(14).unwrap();
        assert_eq!((tester.take(), tester.passed()), (vec![], Some(Mark::At(14))));
        let state = tester.snapshot().unwrap().unwrap();
        tester.watermark(15).unwrap();
        assert_eq!(tester.take(), [(15, (1, 2))]);
        tester.push_untimed((2, TimeDomain::ProcessingTime)).unwrap();
        tester.advance(Duration::from_millis(9)).unwrap();
        assert_eq!(tester.take(), []);
        tester.advance(Duration::from_millis(1)).unwrap();
        assert_eq!((tester.take(), tester.processing_time()), (vec![(10, (2, 1))], 10));

        let mut again = OperatorTester::restored(
            &rt.env,
            ProcessSpec { f: Counts, key: ByValue(|item: &(u8, TimeDomain)| item.0), sides: Sides::default() },
            state,
        )
        .unwrap();
        again.end().unwrap();
        assert_eq!(again.take(), [(15, (1, 2))]);
    }

    /// Counts a key's records for as long as one comes at least each 100 ms.
    #[derive(Clone)]
    struct Forgetful;

    impl KeyedProcess<u8> for Forgetful {
        type Key = u8;
        type State = u64;
        type Out = (u8, u64);
        fn state_ttl(&self) -> Option<Duration> {
            Some(Duration::from_millis(100))
        }
        fn process(&mut self, item: u8, n: &mut u64, ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
            *n += 1;
            ctx.emit((item, *n));
        }
    }

    #[test]
    fn state_that_nobody_uses_is_forgotten_also_after_a_restore() {
        let rt = TestRuntime::new().unwrap();
        let spec = || ProcessSpec { f: Forgetful, key: ByValue(|k: &u8| *k), sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec()).unwrap();
        let ms = Duration::from_millis;
        tester.push_untimed(1).unwrap();
        tester.push_untimed(2).unwrap();
        tester.advance(ms(99)).unwrap();
        tester.push_untimed(1).unwrap();
        tester.advance(ms(99)).unwrap();
        tester.push_untimed(1).unwrap();
        tester.push_untimed(2).unwrap();
        let counts = |t: &mut OperatorTester<u8, _>| t.take().into_iter().map(|(_, c)| c).collect::<Vec<(u8, u64)>>();
        assert_eq!(counts(&mut tester), [(1, 1), (2, 1), (1, 2), (1, 3), (2, 1)], "2 was silent for too long");
        let with_both = tester.snapshot().unwrap().unwrap();
        tester.advance(ms(100)).unwrap();
        let with_none = tester.snapshot().unwrap().unwrap();
        assert!(with_none.len() < with_both.len(), "nothing is kept of keys that are forgotten");
        // The tester's clock begins at 0 again: what was used at 198 ms is too old at 298 ms.
        let mut again = OperatorTester::restored(&rt.env, spec(), with_both).unwrap();
        again.advance(ms(297)).unwrap();
        again.push_untimed(1).unwrap();
        again.advance(ms(1)).unwrap();
        again.push_untimed(2).unwrap();
        assert_eq!(counts(&mut again), [(1, 4), (2, 1)]);
    }

    /// Has a timer behind each record whose state is gone when it is due, and may keep something then.
    #[derive(Clone)]
    struct Reminded;

    impl KeyedProcess<(u8, bool)> for Reminded {
        type Key = u8;
        type State = (u64, bool);
        type Out = (u8, u64);
        fn state_ttl(&self) -> Option<Duration> {
            Some(Duration::from_millis(100))
        }
        fn process(&mut self, item: (u8, bool), _: &mut (u64, bool), ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
            ctx.register_event_time_timer(ctx.time() + 10);
            if item.1 {
                ctx.register_event_time_timer(ctx.time() + 20);
            }
            ctx.clear_state();
        }
        fn on_timer(&mut self, _: TimeDomain, s: &mut (u64, bool), ctx: &mut impl KeyedContext<u8, (u8, u64)>) {
            ctx.emit((*ctx.key(), s.0));
            // The second timer of a key finds what the first one kept.
            if ctx.time() % 20 == 10 && *ctx.key() > 100 {
                s.0 += 1;
            }
            if ctx.time() % 20 == 0 {
                ctx.drop_late();
            }
        }
    }

    #[test]
    fn a_timer_leaves_no_row_of_a_key_that_has_nothing_and_what_it_keeps_is_forgotten_too() {
        let rt = TestRuntime::new().unwrap();
        let spec = || ProcessSpec { f: Reminded, key: ByValue(|k: &(u8, bool)| k.0), sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec()).unwrap();
        // How far it is takes one byte from here on.
        tester.watermark(-10).unwrap();
        let empty = tester.snapshot().unwrap().unwrap().len();
        (1..100).for_each(|key| tester.push(0, (key, false)).unwrap());
        tester.advance(Duration::from_millis(100)).unwrap();
        tester.watermark(10).unwrap();
        assert_eq!(tester.take().len(), 99);
        assert_eq!(tester.snapshot().unwrap().unwrap().len(), empty, "nobody has state");
        tester.push(20, (101, true)).unwrap();
        tester.watermark(30).unwrap();
        let kept = tester.snapshot().unwrap().unwrap().len();
        assert!(kept > empty);
        tester.watermark(40).unwrap();
        assert_eq!(tester.take(), [(30, (101, 0)), (40, (101, 1))]);
        assert_eq!(
            tester.cell.metrics().late_dropped.load(std::sync::atomic::Ordering::Relaxed),
            1,
            "dropped in a timer"
        );
        tester.advance(Duration::from_millis(100)).unwrap();
        assert_eq!(tester.snapshot().unwrap().unwrap().len(), empty);
    }

    #[test]
    fn a_stream_is_idle_only_when_there_was_nothing_to_read() {
        let rt = TestRuntime::new().unwrap();
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(Duration::from_secs(1));
        let mut tester = OperatorTester::new(&rt.env, Stamp::new(|i: &i64| *i, strategy)).unwrap();
        tester.push_untimed(7).unwrap();
        // A slow step of somebody else in the slot: it comes to the reader late, and there is something to read.
        tester.clock.advance(Duration::from_secs(5));
        tester.push_untimed(8).unwrap();
        assert_eq!(tester.all_passed(), [Mark::At(6), Mark::At(7)]);
        // There is no room behind it, and then there is: what waited comes only now.
        let now = tester.clock.now();
        tester.cell.hold();
        let _ = tester.cell.take_waits(None, now);
        tester.clock.advance(Duration::from_secs(5));
        tester.settle().unwrap();
        tester.cell.looked();
        tester.settle().unwrap();
        let _ = tester.cell.take_waits(None, tester.clock.now());
        assert_eq!(tester.all_passed(), [Mark::At(6), Mark::At(7)]);
        tester.advance(Duration::from_millis(999)).unwrap();
        assert_eq!(tester.passed(), Some(Mark::At(7)), "the time before it counts, and that behind it");
        tester.advance(Duration::from_millis(1)).unwrap();
        assert_eq!(tester.passed(), Some(Mark::Idle));
    }

    #[test]
    fn a_stream_is_idle_also_where_all_that_is_read_stays_before_it() {
        let rt = TestRuntime::new().unwrap();
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(Duration::from_secs(1));
        let mut tester = OperatorTester::new(&rt.env, Stamp::new(|i: &i64| *i, strategy)).unwrap();
        tester.push_untimed(7).unwrap();
        // A filter in front drops all, and the reader never rests.
        for _ in 0..12 {
            tester.clock.advance(Duration::from_millis(600));
            tester.settle().unwrap();
            tester.cell.looked();
        }
        tester.settle().unwrap();
        assert_eq!(tester.passed(), Some(Mark::Idle));
    }

    /// Rounds of a task, each of which may read a record and then takes so long, ms, and what is told of its time: three
    /// filters that keep small records until they are asked again, the last of which drops negative ones, in front of
    /// watermarks that are idle after a second.
    fn rounds(all: impl IntoIterator<Item = (Option<i64>, u64)>) -> Vec<Mark> {
        let rt = TestRuntime::new().unwrap();
        let Stage { build, clock, cell, .. } = Stage::new(&rt.env, &[]).unwrap();
        let cx = build.op(0).unwrap();
        let gather = Gather { out: Out::default(), passed: Rc::default() };
        let passed = Rc::clone(&gather.passed);
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(Duration::from_secs(1));
        let stamp = Stamp::new(|i: &i64| *i, strategy).open(&cx).unwrap();
        let keeps = || Filter(|_: &i64| true).open(&cx).unwrap();
        let drops = Filter(|i: &i64| *i >= 0).open(&cx).unwrap();
        let uid = || cx.uid.clone();
        let chain = Chained::new(drops, uid(), Chained::new(stamp, uid(), gather));
        let mut chain = Chained::new(keeps(), uid(), Chained::new(keeps(), uid(), chain));
        for (record, takes) in all {
            // As a source's task does it: asks for room, reads, and says that it has looked.
            while chain.ready() != Ready::Yes {}
            record.into_iter().for_each(|record| chain.push(NO_TIME, record));
            cell.looked();
            clock.advance(Duration::from_millis(takes));
        }
        passed.take()
    }

    #[test]
    fn a_slow_task_is_not_idle_while_what_it_read_is_with_filters() {
        let expected = |n: i64| (0..n).map(|i| Mark::At(i - 1)).collect::<Vec<_>>();
        // What the last round read is not told yet.
        assert_eq!(rounds((0..100).map(|i| (Some(i), 1500))), expected(99), "slow with each record");
        let now_and_then = (0..100).flat_map(|i| [(Some(i), 0), (None, 1500)]);
        assert_eq!(rounds(now_and_then), expected(100), "slow where there was nothing: at the next look there is");
    }

    #[test]
    fn a_task_is_idle_where_filters_drop_all_that_it_reads() {
        let read = (0..3).chain([-1; 30]).chain(3..10).map(|i| (Some(i), 1500));
        let marks = rounds(read);
        let idle: Vec<usize> = (0..marks.len()).filter(|i| marks[*i] == Mark::Idle).collect();
        assert_eq!(idle, [3], "once, behind the first three: {marks:?}");
        assert_eq!(marks[4..], (3..9).map(|i| Mark::At(i - 1)).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_comes_behind_the_end() {
        let rt = TestRuntime::new().unwrap();
        let mut tester = OperatorTester::keyed(&rt.env, Counts, |item: &(u8, TimeDomain)| item.0).unwrap();
        tester.push(5, (1, TimeDomain::ProcessingTime)).unwrap();
        tester.end().unwrap();
        tester.advance(Duration::from_secs(1)).unwrap();
        assert_eq!(tester.take(), [], "a timer whose time had not come is dropped");
    }

    #[test]
    fn an_idle_stream_says_so_and_wakes_up() {
        let rt = TestRuntime::new().unwrap();
        let strategy = WatermarkStrategy::for_monotonous_timestamps().with_idleness(Duration::from_secs(1));
        let mut tester = OperatorTester::new(&rt.env, Stamp::new(|i: &i64| *i, strategy)).unwrap();
        tester.push_untimed(7).unwrap();
        assert_eq!(tester.passed(), Some(Mark::At(6)));
        tester.advance(Duration::from_millis(999)).unwrap();
        assert_eq!(tester.passed(), Some(Mark::At(6)));
        tester.advance(Duration::from_millis(1)).unwrap();
        assert_eq!(tester.passed(), Some(Mark::Idle));
        tester.push_untimed(7).unwrap();
        assert_eq!(tester.passed(), Some(Mark::At(6)), "its clock counts again, also where it has not moved");
        assert!(tester.push_untimed(i64::MIN).is_err(), "a record whose time is none");
    }

    #[test]
    fn what_waits_holds_watermarks_back() {
        let rt = TestRuntime::new().unwrap();
        let slow = |i: u64| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, String>(i)
        };
        let mut tester = OperatorTester::new(&rt.env, AsyncMap::new(AsyncOptions::unordered(), slow)).unwrap();
        tester.push(1, 1).unwrap();
        tester.watermark(1).unwrap();
        assert_eq!((tester.take(), tester.passed()), (vec![], None), "it is still under way");
        tester.end().unwrap();
        assert_eq!((tester.take(), tester.passed()), (vec![(1, 1)], Some(Mark::At(Time::MAX))));
    }
}
