//! Windows fed by hand: what they give at which moment of either clock, and what they keep.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;
use thalweg_dataflow::{
    NO_TIME, OpCx, TaskFailure, Time,
    fold::Count,
    key::ByValue,
    pipe::Transform,
    side::Sides,
    state::ValueState,
    testing::{OperatorTester, TestRuntime},
    window::*,
};
use thalweg_model::FailureKind;

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

type Spec<W, G, S> = TriggeredSpec<u64, W, G, NoEvictor, Untimed<Count>, ByValue<S>, WithWindow>;

/// Counts of each key modulo this.
fn counts<W, G>(assigner: W, trigger: G, keys: u64) -> Spec<W, G, impl Fn(&u64) -> u64 + Clone + Send + 'static> {
    let key = ByValue(move |i: &u64| i % keys);
    let sides = Sides::default();
    TriggeredSpec {
        assigner,
        trigger,
        evictor: NoEvictor,
        lateness: 0,
        fold: Untimed(Count),
        key,
        result: WithWindow,
        late: None,
        sides,
    }
}

fn values(got: Vec<(Time, Windowed<u64, u64>)>) -> Vec<u64> {
    got.into_iter().map(|(_, w)| w.value).collect()
}

#[test]
fn a_continuous_trigger_by_the_clock_gives_the_last_result_at_the_windows_end() {
    let rt = TestRuntime::new().unwrap();
    // 25 ms are no multiple of 10.
    let spec = counts(TumblingProcessingTimeWindows::of(ms(25)), ContinuousProcessingTimeTrigger::of(ms(10)), 1);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    for step in 0..50 {
        assert_eq!(tester.processing_time(), step);
        tester.push(NO_TIME, 0).unwrap();
        tester.advance(ms(1)).unwrap();
    }
    // A time is over when the next one has begun: at 10 come eleven records, and at 24 those up to 24.
    assert_eq!(values(tester.take()), [11, 21, 25, 6, 16, 25]);
}

#[test]
fn windows_by_the_clock_fire_once_with_all_that_came_in_their_last_moment() {
    let rt = TestRuntime::new().unwrap();
    let spec = counts(TumblingProcessingTimeWindows::of(ms(10)), ProcessingTimeTrigger, 1);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    for _ in 0..30 {
        tester.push(NO_TIME, 0).unwrap();
        tester.push(NO_TIME, 0).unwrap();
        tester.advance(ms(1)).unwrap();
    }
    assert_eq!(values(tester.take()), [20, 20, 20]);
}

#[test]
fn continuous_triggers_lose_nothing_of_windows_by_the_other_clock() {
    let rt = TestRuntime::new().unwrap();
    let windows = TumblingEventTimeWindows::of(ms(100));
    let spec = TriggeredSpec { lateness: 50, ..counts(windows, ContinuousProcessingTimeTrigger::of(ms(10)), 1) };
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(1, 0).unwrap();
    tester.advance(ms(11)).unwrap();
    tester.push(2, 0).unwrap();
    assert_eq!(values(tester.take()), [1], "early, by the clock");
    tester.watermark(99).unwrap();
    assert_eq!(values(tester.take()), [2], "at the end, by the watermark");
    tester.push(3, 0).unwrap();
    assert_eq!(values(tester.take()), [3], "late and allowed");
    tester.advance(ms(1000)).unwrap();
    tester.end().unwrap();
    assert!(tester.take().is_empty(), "it has said all");

    let windows = TumblingProcessingTimeWindows::of(ms(100));
    let mut tester = OperatorTester::new(&rt.env, counts(windows, ContinuousEventTimeTrigger::of(ms(10)), 1)).unwrap();
    tester.push(1, 0).unwrap();
    tester.watermark(10).unwrap();
    tester.push(12, 0).unwrap();
    assert_eq!(values(tester.take()), [1], "early, by the watermark");
    tester.advance(ms(100)).unwrap();
    assert_eq!(values(tester.take()), [2], "at the end, by the clock");
}

/// Fires each ten milliseconds of either clock, and reckons as if there were always more time.
#[derive(Clone)]
struct Ticking {
    by_event: bool,
}

impl Trigger<u64> for Ticking {
    type State = ();
    fn on_element(&mut self, _: &u64, _: Time, _: &TimeWindow, (): &mut (), ctx: &mut TriggerContext) -> TriggerResult {
        self.ask(ctx);
        TriggerResult::Continue
    }
    fn on_event_time(&mut self, _: Time, _: &TimeWindow, (): &mut (), ctx: &mut TriggerContext) -> TriggerResult {
        self.ask(ctx);
        TriggerResult::Fire
    }
    fn on_processing_time(&mut self, _: Time, _: &TimeWindow, (): &mut (), ctx: &mut TriggerContext) -> TriggerResult {
        self.ask(ctx);
        TriggerResult::Fire
    }
    fn on_merge(&mut self, _: &TimeWindow, (): &mut (), (): (), _: &mut TriggerContext) {}
}

impl Ticking {
    fn ask(&self, ctx: &mut TriggerContext) {
        // As a release build adds.
        if self.by_event {
            ctx.register_event_time_timer(ctx.watermark().max(0).wrapping_add(10));
        } else {
            ctx.register_processing_time_timer(ctx.processing_time().wrapping_add(10));
        }
    }
}

#[test]
fn a_trigger_that_asks_for_the_next_time_each_time_comes_to_an_end_with_its_input() {
    let rt = TestRuntime::new().unwrap();
    let hour = Duration::from_secs(3600);
    let windows = TumblingProcessingTimeWindows::of(hour);
    let mut tester = OperatorTester::new(&rt.env, counts(windows, Ticking { by_event: false }, 1)).unwrap();
    tester.push(NO_TIME, 0).unwrap();
    tester.advance(ms(11)).unwrap();
    assert_eq!(values(tester.take()), [1]);
    tester.push(NO_TIME, 0).unwrap();
    tester.end().unwrap();
    // The time that it had asked for, and none of those that would have followed.
    assert_eq!(values(tester.take()), [2]);

    let windows = TumblingEventTimeWindows::of(hour);
    let mut tester = OperatorTester::new(&rt.env, counts(windows, Ticking { by_event: true }, 1)).unwrap();
    tester.push(5, 0).unwrap();
    tester.watermark(10).unwrap();
    assert_eq!(values(tester.take()), [1]);
    tester.push(15, 0).unwrap();
    tester.end().unwrap();
    assert_eq!(values(tester.take()), [2]);
}

#[test]
fn a_watermark_or_an_end_that_passes_many_times_gives_one_result_and_the_last() {
    let rt = TestRuntime::new().unwrap();
    let day = Duration::from_secs(86_400);
    let spec = counts(TumblingEventTimeWindows::of(day), ContinuousEventTimeTrigger::of(ms(1)), 1);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(5, 0).unwrap();
    tester.watermark(10_000_000).unwrap();
    assert_eq!(values(tester.take()), [1]);
    tester.push(10_000_001, 0).unwrap();
    tester.end().unwrap();
    assert_eq!(values(tester.take()), [2, 2]);
    let spec = counts(TumblingProcessingTimeWindows::of(day), ContinuousProcessingTimeTrigger::of(ms(1)), 1);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(NO_TIME, 0).unwrap();
    tester.end().unwrap();
    assert_eq!(values(tester.take()), [1, 1]);
}

/// Fires 10 ms after the last record of a window, by event time.
#[derive(Clone)]
struct Quiet;

impl Trigger<u64> for Quiet {
    type State = Option<Time>;
    fn on_element(
        &mut self,
        _: &u64,
        at: Time,
        _: &TimeWindow,
        due: &mut Option<Time>,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if let Some(before) = due.take() {
            ctx.delete_event_time_timer(before);
        }
        *due = Some(at + 10);
        ctx.register_event_time_timer(at + 10);
        ctx.register_processing_time_timer(77);
        ctx.delete_processing_time_timer(77);
        TriggerResult::Continue
    }
    fn on_event_time(
        &mut self,
        at: Time,
        _: &TimeWindow,
        due: &mut Option<Time>,
        _: &mut TriggerContext,
    ) -> TriggerResult {
        assert_eq!(due.take(), Some(at), "the others were taken back");
        TriggerResult::FireAndPurge
    }
    fn on_processing_time(
        &mut self,
        _: Time,
        _: &TimeWindow,
        _: &mut Option<Time>,
        _: &mut TriggerContext,
    ) -> TriggerResult {
        panic!("it was taken back");
    }
    fn is_fresh(&self, due: &Option<Time>) -> bool {
        due.is_none()
    }
    fn on_merge(&mut self, _: &TimeWindow, _: &mut Option<Time>, _: Option<Time>, _: &mut TriggerContext) {}
}

#[test]
fn a_trigger_of_ones_own_takes_timers_back_and_leaves_nothing() {
    let rt = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::new(&rt.env, counts(GlobalWindows, Quiet, 2)).unwrap();
    for at in [1, 5, 8] {
        tester.push(at, 0).unwrap();
    }
    tester.push(6, 1).unwrap();
    tester.advance(ms(100)).unwrap();
    tester.watermark(17).unwrap();
    assert_eq!(values(tester.take()), [1], "the other key");
    let mut again =
        OperatorTester::restored(&rt.env, counts(GlobalWindows, Quiet, 2), tester.snapshot().unwrap().unwrap())
            .unwrap();
    for tester in [&mut tester, &mut again] {
        tester.watermark(18).unwrap();
        assert_eq!(values(tester.take()), [3]);
    }
    let mut empty = OperatorTester::new(&rt.env, counts(GlobalWindows, Quiet, 2)).unwrap();
    empty.watermark(18).unwrap();
    assert_eq!(tester.snapshot().unwrap(), empty.snapshot().unwrap());
}

#[test]
fn nothing_is_kept_of_keys_whose_windows_are_purged() {
    let rt = TestRuntime::new().unwrap();
    let spec = counts(GlobalWindows, PurgingTrigger::of(CountTrigger::of(2)), 1 << 40);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    let empty = tester.snapshot().unwrap().unwrap().len();
    for i in (0..1000).chain(0..1000) {
        tester.push(NO_TIME, i).unwrap();
    }
    assert_eq!(values(tester.take()), [2; 1000]);
    assert_eq!(tester.snapshot().unwrap().unwrap().len(), empty);
}

#[test]
fn an_evictor_by_time_keeps_records_without_times() {
    let mut contents = vec![(NO_TIME, 1), (NO_TIME, 2)];
    TimeEvictor::of(ms(10)).evict(&mut contents, &TimeWindow { start: 0, end: 10 });
    assert_eq!(contents.len(), 2);
}

#[test]
fn a_window_for_all_time_with_a_continuous_trigger_ends_with_its_input() {
    let rt = TestRuntime::new().unwrap();
    let spec = counts(GlobalWindows, ContinuousEventTimeTrigger::of(ms(10)), 1);
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    tester.push(5, 0).unwrap();
    tester.push(7, 0).unwrap();
    tester.end().unwrap();
    assert_eq!(values(tester.take()), [2]);
}

/// Tells which firing it is of its window and of its key.
#[derive(Clone)]
struct Nth {
    of_window: ValueState<u64>,
    of_key: ValueState<u64>,
}

impl WindowFunction<u64, u64> for Nth {
    type Out = (TimeWindow, u64, u64, u64);
    type Results = std::option::IntoIter<Self::Out>;
    fn states(&mut self, states: &mut WindowStates<'_, u64>) {
        states.add_of_window(&mut self.of_window);
        states.add(&mut self.of_key);
    }
    fn apply(&mut self, n: u64, mut ctx: WindowContext<'_, u64>) -> Self::Results {
        if n > 1_000 {
            ctx.fail("more than a thousand: filter them before");
        }
        *ctx.state(&self.of_key).or_default() += 1;
        *ctx.window_state(&self.of_window).or_default() += 1;
        let of_window = *ctx.window_state(&self.of_window).or_default();
        let of_key = *ctx.state(&self.of_key).or_default();
        Some((ctx.window(), n, of_window, of_key)).into_iter()
    }
}

#[test]
fn a_window_function_opens_and_fails_in_words_of_its_own() {
    #[derive(Clone)]
    struct Closed;
    impl WindowFunction<u64, u64> for Closed {
        type Out = u64;
        type Results = std::option::IntoIter<u64>;
        fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
            Err(cx.failure(FailureKind::User, "no connection"))
        }
        fn apply(&mut self, n: u64, _: WindowContext<'_, u64>) -> Self::Results {
            Some(n).into_iter()
        }
    }
    let rt = TestRuntime::new().unwrap();
    let windows = TumblingEventTimeWindows::of(ms(10));
    let (sides, key) = (Sides::default(), ByValue(|i: &u64| i % 2));
    let spec = WindowSpec { windows, lateness: 0, fold: Count, key, result: Closed, late: None, sides };
    let failure = OperatorTester::<u64, _>::new(&rt.env, spec.clone()).err().unwrap();
    assert!(failure.message.contains("no connection"), "{failure}");

    let result = Nth { of_window: ValueState::new("of window"), of_key: ValueState::new("of key") };
    let spec = WindowSpec { windows, lateness: 0, fold: Count, key: spec.key, result, late: None, sides: spec.sides };
    let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
    (0..1_001).for_each(|_| tester.push(1, 0).unwrap());
    let failure = tester.watermark(9).unwrap_err();
    assert!(failure.message.contains("filter them before"), "{failure}");
    assert_eq!(failure.uid.as_deref(), Some("tested"));
}

/// Tests panes and lists of windows alike.
fn each_kind(test: impl Fn(&dyn Fn(Option<Vec<u8>>) -> Box<dyn Fed>)) {
    let rt = TestRuntime::new().unwrap();
    let windows = TumblingEventTimeWindows::of(ms(10));
    let (sides, key) = (Sides::default(), ByValue(|i: &u64| i % 2));
    let result = Nth { of_window: ValueState::new("of window"), of_key: ValueState::new("of key") };
    let spec = WindowSpec { windows, lateness: 20, fold: Count, key, result, late: None, sides };
    test(&|from| match from {
        Some(from) => Box::new(OperatorTester::restored(&rt.env, spec.clone(), from).unwrap()),
        None => Box::new(OperatorTester::new(&rt.env, spec.clone()).unwrap()),
    });
    let spec = TriggeredSpec {
        assigner: windows,
        trigger: EventTimeTrigger,
        evictor: NoEvictor,
        lateness: 20,
        fold: Untimed(Count),
        key: spec.key,
        result: spec.result,
        late: None,
        sides: spec.sides,
    };
    test(&|from| match from {
        Some(from) => Box::new(OperatorTester::restored(&rt.env, spec.clone(), from).unwrap()),
        None => Box::new(OperatorTester::new(&rt.env, spec.clone()).unwrap()),
    });
}

/// A tester whose operator's type is forgotten.
trait Fed {
    fn record(&mut self, at: Time, item: u64);
    fn passes(&mut self, at: Time);
    /// Of each firing: start of the window, what it has, which it is of its window and of its key.
    fn told(&mut self) -> Vec<(Time, u64, u64, u64)>;
    fn state(&mut self) -> Vec<u8>;
}

impl<X: Transform<u64, Out = (TimeWindow, u64, u64, u64)>> Fed for OperatorTester<u64, X> {
    fn record(&mut self, at: Time, item: u64) {
        self.push(at, item).unwrap();
    }
    fn passes(&mut self, at: Time) {
        self.watermark(at).unwrap();
    }
    fn told(&mut self) -> Vec<(Time, u64, u64, u64)> {
        let mut told: Vec<_> = self.take().into_iter().map(|(_, (w, n, a, b))| (w.start, n, a, b)).collect();
        told.sort_unstable();
        told
    }
    fn state(&mut self) -> Vec<u8> {
        self.snapshot().unwrap().unwrap()
    }
}

#[test]
fn states_of_windows_live_as_long_as_late_records_may_come() {
    each_kind(|begin| {
        let mut tester = begin(None);
        let empty = tester.state().len();
        tester.record(1, 0);
        tester.record(2, 0);
        tester.record(15, 1);
        tester.passes(9);
        assert_eq!(tester.told(), [(0, 2, 1, 1)]);
        tester.record(3, 0);
        assert_eq!(tester.told(), [(0, 3, 2, 2)]);
        let saved = tester.state();
        let mut tester = begin(Some(saved));
        tester.record(3, 0);
        tester.record(4, 1);
        assert_eq!(tester.told(), [(0, 1, 1, 1), (0, 4, 3, 3)], "each key has states of its own");
        tester.passes(28);
        assert_eq!(tester.told(), [(10, 1, 1, 2)]);
        tester.record(3, 0);
        assert_eq!(tester.told(), [(0, 5, 4, 4)]);
        tester.passes(29);
        tester.record(3, 0);
        assert_eq!(tester.told(), [], "it is too late now");
        let with_one = tester.state().len();
        tester.passes(100);
        let of_keys_alone = tester.state().len();
        assert!(of_keys_alone < with_one && with_one < empty + 100, "{empty} {with_one} {of_keys_alone}");
        let mut tester = begin(Some(tester.state()));
        tester.record(101, 0);
        tester.passes(110);
        assert_eq!(tester.told(), [(100, 1, 1, 5)], "states of keys stay");
        tester.passes(200);
        assert_eq!(tester.state().len(), of_keys_alone, "nothing is left of windows that are over");
    });
}

#[test]
fn states_of_windows_by_the_clock_go_with_them() {
    let rt = TestRuntime::new().unwrap();
    let spec = || TriggeredSpec {
        assigner: SlidingProcessingTimeWindows::of(ms(20), ms(10)),
        trigger: ContinuousProcessingTimeTrigger::of(ms(5)),
        evictor: NoEvictor,
        lateness: 0,
        fold: Untimed(Count),
        key: ByValue(|i: &u64| i % 2),
        result: Nth { of_window: ValueState::new("of window"), of_key: ValueState::new("of key") },
        late: None,
        sides: Sides::default(),
    };
    let mut tester = OperatorTester::new(&rt.env, spec()).unwrap();
    let mut turn = |from: Time| {
        for _ in 0..10 {
            tester.push(NO_TIME, 1).unwrap();
            tester.advance(ms(1)).unwrap();
        }
        tester.advance(ms(90)).unwrap();
        let mut told = tester.told();
        told.iter_mut().for_each(|t| t.0 -= from);
        (told, tester.state().len())
    };
    // At 5 both windows have six records. One ends at 10, the other at 20.
    let first = [(-10, 6, 1, 1), (-10, 10, 2, 3), (0, 6, 1, 2), (0, 10, 2, 4), (0, 10, 3, 5)];
    let (told, of_keys_alone) = turn(0);
    let mut sorted = told.clone();
    sorted.iter_mut().for_each(|t| t.3 = 0);
    assert_eq!(sorted, first.map(|t| (t.0, t.1, t.2, 0)), "{told:?}");
    let (told, again) = turn(100);
    assert_eq!(told.iter().map(|t| t.2).collect::<Vec<_>>(), [1, 2, 1, 2, 3], "a new window has a new state");
    assert_eq!(again, of_keys_alone, "nothing is left of windows that are over");
}

#[test]
fn a_session_that_grows_with_each_record_waits_for_its_last_end_alone() {
    fn check<W, G: Trigger<u64>>(assigner: W, trigger: G)
    where
        W: RecordAssigner<u64> + Clone + Send + 'static,
    {
        let rt = TestRuntime::new().unwrap();
        let spec = TriggeredSpec { lateness: 500, ..counts(assigner, trigger, 1) };
        let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
        let mut kept = Vec::new();
        for at in 0..300 {
            tester.push(at, 0).unwrap();
            tester.advance(ms(1)).unwrap();
            kept.push(tester.snapshot().unwrap().unwrap().len());
        }
        assert!(kept[299] < kept[10] + 16, "{kept:?}");
        tester.take();
        tester.watermark(100_000).unwrap();
        tester.advance(ms(100_000)).unwrap();
        assert!(values(tester.take()).iter().all(|n| *n == 300), "by the trigger's times, and at the end");
    }
    check(EventTimeSessionWindows::with_gap(ms(1000)), EventTimeTrigger);
    check(EventTimeSessionWindows::with_gap(ms(1000)), PurgingTrigger::of(EventTimeTrigger));
    check(EventTimeSessionWindows::with_gap(ms(1000)), ContinuousEventTimeTrigger::of(ms(700)));
    check(ProcessingTimeSessionWindows::with_gap(ms(1000)), ProcessingTimeTrigger);
}

#[test]
fn a_trigger_s_wish_for_a_time_within_a_session_outlives_a_merge_and_those_of_ends_do_not() {
    /// Asks for a time and the end with the first record, and does not care for merges.
    #[derive(Clone)]
    struct Once;
    impl Trigger<u64> for Once {
        type State = bool;
        fn on_element(
            &mut self,
            _: &u64,
            at: Time,
            window: &TimeWindow,
            asked: &mut bool,
            ctx: &mut TriggerContext,
        ) -> TriggerResult {
            if !std::mem::replace(asked, true) {
                ctx.register_event_time_timer(at + 3);
                ctx.register_event_time_timer(window.max_timestamp());
            }
            TriggerResult::Continue
        }
        fn on_event_time(&mut self, _: Time, _: &TimeWindow, _: &mut bool, _: &mut TriggerContext) -> TriggerResult {
            TriggerResult::Fire
        }
        fn on_merge(&mut self, _: &TimeWindow, asked: &mut bool, other: bool, _: &mut TriggerContext) {
            *asked |= other;
        }
    }
    let rt = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::new(&rt.env, counts(EventTimeSessionWindows::with_gap(ms(10)), Once, 1)).unwrap();
    for at in [0, 20, 9, 12] {
        tester.push(at, 0).unwrap();
    }
    tester.watermark(3).unwrap();
    assert_eq!(values(tester.take()), [4], "all are one session by now");
    tester.watermark(22).unwrap();
    assert!(values(tester.take()).is_empty(), "9 was the end of what is none any more");
    tester.watermark(23).unwrap();
    assert_eq!(values(tester.take()), [4]);
    // The second of the first ones had the end that the session has now.
    tester.watermark(29).unwrap();
    assert_eq!(values(tester.take()), [4]);
}
