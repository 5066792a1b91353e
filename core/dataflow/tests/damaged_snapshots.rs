//! Every operator with state, going on from a snapshot of which bytes have changed: it refuses it, or goes on with what it
//! can be taken for. It does not panic, hang or ask for memory without end. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use std::{collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};
use thalweg_dataflow::{
    Either, NO_TIME, Time,
    asynchronous::{AsyncMap, AsyncOptions},
    broadcast::{BroadcastProcessFunction, BroadcastSpec},
    either::{CoOf, EitherKey},
    fold::{FoldSpec, Merge, Pairs, ToList},
    interval::IntervalJoin,
    key::ByValue,
    keyed::{KeyedContext, KeyedProcess, ProcessSpec, TimeDomain},
    keyed_broadcast::{KeyedBroadcastProcessFunction, KeyedBroadcastSpec},
    pipe::Transform,
    process::ProcessContext,
    side::Sides,
    state::{KeyedStates, ListState, MapState, OperatorListState, OperatorStates, StateTtl, ValueState},
    testing::{OperatorTester, TestRuntime},
    top::Top,
    window::*,
};
use thalweg_model::FailureKind;

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().unwrap())
}

/// Where the number at a place ends: the form of snapshots has seven bits of one in a byte.
fn end_of(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).position(|b| b & 0x80 == 0).map_or(bytes.len(), |more| at + more + 1)
}

/// Changes some numbers, or bytes as they come.
fn damage(random: &mut SmallRng, bytes: &mut Vec<u8>) {
    let times = if random.random() { 1 } else { random.random_range(2..5) };
    for _ in 0..times {
        if bytes.is_empty() {
            return;
        }
        let (at, other) = (random.random_range(0..bytes.len()), random.random_range(0..bytes.len()));
        let from = (0..=at).rev().find(|i| *i == 0 || bytes[i - 1] & 0x80 == 0).unwrap_or(0);
        match random.random_range(0..12) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(from..end_of(bytes, from))),
            // An end of its kind, for times and for what is counted, or next to it.
            4 | 5 => {
                let mut number = vec![0xff; 9];
                number[0] = *[0xff, 0xfe, 0xfd, 0xfc].choose(random).unwrap();
                number.push(1);
                bytes.splice(from..end_of(bytes, from), number);
            }
            6 | 7 => drop(bytes.splice(from..end_of(bytes, from), [random.random_range(0..128)])),
            8 => {
                let number: Vec<u8> = bytes[from..end_of(bytes, from)].to_vec();
                bytes.splice(other..other, number);
            }
            // Of one length, so that the others stay where they are.
            9 => bytes.swap(at, other),
            _ => bytes[at] = bytes[at] & 0x80 | bytes[at].wrapping_add(random.random_range(1..9)) & 0x7f,
        }
    }
}

/// Some time, most of them near.
fn time(random: &mut SmallRng, from: i64) -> i64 {
    if random.random_ratio(1, 20) { NO_TIME } else { from + random.random_range(-20..60) }
}

/// Feeds an operator for a while. Failures that it tells are none of the test's business.
fn feed<T: 'static, X: Transform<T>>(
    random: &mut SmallRng,
    tester: &mut OperatorTester<T, X>,
    watermark: &mut i64,
    item: &impl Fn(&mut SmallRng) -> T,
) {
    for _ in 0..random.random_range(1..30) {
        let told = match random.random_range(0..10) {
            0 => {
                *watermark += random.random_range(0..40);
                tester.watermark(*watermark)
            }
            1 => tester.advance(ms(random.random_range(0..40))),
            2 => tester.idle(),
            _ => tester.push(time(random, *watermark), item(random)),
        };
        if told.is_err() {
            return;
        }
    }
}

/// Goes through the cases of one operator. Answers how many snapshots were taken although they were damaged.
fn check<T: 'static, X: Transform<T>>(name: &str, make: impl Fn() -> X, item: impl Fn(&mut SmallRng) -> T) {
    let cases = number("THALWEG_CASES").unwrap_or(60);
    let seeds = number("THALWEG_SEED").map_or(0..cases, |seed| seed..seed + 1);
    let rt = TestRuntime::new().unwrap();
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds {
        let random = &mut SmallRng::seed_from_u64(seed);
        let mut watermark = 0;
        let mut tester = OperatorTester::new(&rt.env, make()).unwrap();
        feed(random, &mut tester, &mut watermark, &item);
        let Ok(Some(whole)) = tester.snapshot() else { continue };
        drop(tester);
        for _ in 0..8 {
            let mut snapshot = whole.clone();
            damage(random, &mut snapshot);
            let goes_on = std::panic::catch_unwind(AssertUnwindSafe(|| {
                match OperatorTester::restored(&rt.env, make(), snapshot) {
                    Ok(mut tester) => {
                        feed(random, &mut tester, &mut watermark.clone(), &item);
                        let _ = tester.snapshot();
                        let _ = tester.end();
                        true
                    }
                    Err(e) => {
                        let told = matches!(e.kind, FailureKind::Storage | FailureKind::Incompatible);
                        assert!(told, "it is told as what it is: {e:?}");
                        false
                    }
                }
            }));
            match goes_on {
                Ok(true) => taken += 1,
                Ok(false) => refused += 1,
                Err(_) => panic!("{name}: THALWEG_SEED={seed}"),
            }
        }
    }
    println!("{name}: {taken} taken, {refused} refused");
    assert!(number("THALWEG_SEED").is_some() || taken > 0 && refused > 0, "{name}: {taken} taken, {refused} refused");
}

fn small(random: &mut SmallRng) -> u64 {
    random.random_range(0..12)
}

fn either(random: &mut SmallRng) -> Either<u64, u64> {
    if random.random() { Either::Left(small(random)) } else { Either::Right(small(random)) }
}

fn by_three() -> ByValue<impl Fn(&u64) -> u64 + Clone + Send + 'static> {
    ByValue(|i: &u64| i % 3)
}

fn triggered<W, G, V>(name: &str, assigner: W, trigger: G, evictor: V)
where
    W: RecordAssigner<u64>,
    G: Trigger<u64>,
    V: Evictor<Vec<(Time, u64)>>,
{
    for lateness in [0, 30] {
        let make = || TriggeredSpec {
            assigner: assigner.clone(),
            trigger: trigger.clone(),
            evictor: evictor.clone(),
            lateness,
            fold: WithTimes,
            key: by_three(),
            result: WithWindow,
            late: None,
            sides: Sides::default(),
        };
        check(name, make, small);
    }
}

#[test]
fn windows_of_one_length() {
    for windows in [TumblingEventTimeWindows::of(ms(10)), SlidingEventTimeWindows::of(ms(30), ms(7))] {
        for lateness in [0, 30] {
            let (key, sides) = (by_three, Sides::default);
            let make = || WindowSpec {
                windows,
                lateness,
                fold: ToList,
                key: key(),
                result: WithWindow,
                late: None,
                sides: sides(),
            };
            check("windows", make, small);
        }
        check(
            "windows before their exchange",
            || WindowCombine { windows, fold: ToList, key: by_three(), gathers: true },
            small,
        );
    }
}

#[test]
fn windows_of_every_kind() {
    let sliding = SlidingEventTimeWindows::of(ms(30), ms(7));
    triggered("sliding", sliding, EventTimeTrigger, NoEvictor);
    triggered("continuous", sliding, ContinuousEventTimeTrigger::of(ms(4)), NoEvictor);
    triggered("evicting", sliding, EventTimeTrigger, TimeEvictor::of(ms(5)));
    triggered(
        "by the clock",
        SlidingProcessingTimeWindows::of(ms(30), ms(7)),
        ProcessingTimeTrigger,
        CountEvictor::of(2),
    );
    let sessions = EventTimeSessionWindows::with_gap(ms(8));
    triggered("sessions", sessions, EventTimeTrigger, NoEvictor);
    triggered("sessions, continuous", sessions, ContinuousEventTimeTrigger::of(ms(4)), NoEvictor);
    triggered("sessions, counted", sessions, PurgingTrigger::of(CountTrigger::of(3)), NoEvictor);
    let clock = ProcessingTimeSessionWindows::with_gap(ms(8));
    triggered("sessions by the clock", clock, ContinuousProcessingTimeTrigger::of(ms(4)), NoEvictor);
    triggered("global", GlobalWindows, PurgingTrigger::of(CountTrigger::of(3)), CountEvictor::of(2));
}

#[test]
fn aggregates() {
    check("merge", || Merge::new(ToList, Pairs), |random| (small(random) % 3, vec![small(random)]));
    let add = |all: &mut Vec<u64>, i: u64| all.push(i);
    check("fold", || FoldSpec { f: add, init: Vec::new(), key: by_three() }, small);
    check("top", || Top::new(3, u64::cmp), small);
}

#[test]
fn joins_within_an_interval() {
    let make = || {
        let join = IntervalJoin::new(-10, 5, |a: &u64, b: &u64| (*a, *b));
        let key = EitherKey { left: by_three(), right: by_three() };
        ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() }
    };
    check("interval join", make, either);
}

#[test]
fn functions_that_wait() {
    let same = |i: u64| async move { Ok::<_, String>(i) };
    check("async", || AsyncMap::new(AsyncOptions::unordered(), same), small);
}

/// Has states of every kind, and timers of both clocks.
#[derive(Clone)]
struct Function {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, String>,
    ttl: Option<Duration>,
}

impl Function {
    fn new(ttl: Option<i64>) -> Self {
        let (value, list, map) = (ValueState::new("value"), ListState::new("list"), MapState::new("map"));
        match ttl.map(ms) {
            None => Self { value, list, map, ttl: None },
            Some(after) => {
                let ttl = StateTtl::of(after);
                Self { value: value.ttl(ttl), list: list.ttl(ttl), map: map.ttl(ttl), ttl: Some(after * 3) }
            }
        }
    }
}

impl KeyedProcess<u64> for Function {
    type Key = u64;
    type State = BTreeMap<u64, Option<String>>;
    type Out = u64;
    fn state_ttl(&self) -> Option<Duration> {
        self.ttl
    }
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.value);
        states.add(&mut self.list);
        states.add(&mut self.map);
    }
    fn process(&mut self, item: u64, own: &mut Self::State, ctx: &mut impl KeyedContext<u64, u64>) {
        own.insert(item, Some(item.to_string()));
        match item % 6 {
            0 => ctx.register_event_time_timer(ctx.time().saturating_add(10)),
            1 => ctx.register_processing_time_timer(ctx.processing_time().saturating_add(10)),
            2 => ctx.state(&self.list).add(item),
            3 => {
                ctx.state(&self.map).insert(item, item.to_string());
                ctx.state(&self.map).remove(&(item / 2));
            }
            4 => {
                let of_list = ctx.state(&self.list).iter().count();
                let of_map = ctx.state(&self.map).iter().count();
                ctx.emit((of_list + of_map) as u64);
            }
            _ => ctx.state(&self.value).set(item),
        }
    }
    fn on_timer(&mut self, _: TimeDomain, own: &mut Self::State, ctx: &mut impl KeyedContext<u64, u64>) {
        let value = ctx.state(&self.value).get().copied();
        ctx.emit(value.unwrap_or(own.len() as u64));
        if own.len() > 3 {
            ctx.clear_state();
        }
    }
}

#[test]
fn functions_with_state_and_timers() {
    for ttl in [None, Some(5)] {
        check("function", || ProcessSpec { f: Function::new(ttl), key: by_three(), sides: Sides::default() }, small);
    }
}

/// Remembers what it gave out, of a key and of a window.
#[derive(Clone)]
struct Remembers {
    of_key: ListState<u64>,
    of_window: ValueState<u64>,
}

impl Remembers {
    fn new() -> Self {
        Self { of_key: ListState::new("of key"), of_window: ValueState::new("of window") }
    }
}

impl WindowFunction<u64, Vec<u64>> for Remembers {
    type Out = (u64, usize);
    type Results = std::option::IntoIter<Self::Out>;
    fn states(&mut self, states: &mut WindowStates<'_, u64>) {
        states.add(&mut self.of_key);
        states.add_of_window(&mut self.of_window);
    }
    fn apply(&mut self, gathered: Vec<u64>, mut ctx: WindowContext<'_, u64>) -> Self::Results {
        ctx.state(&self.of_key).add(gathered.len() as u64);
        let fired = ctx.window_state(&self.of_window).get().map_or(1, |n| n.saturating_add(1));
        ctx.window_state(&self.of_window).set(fired);
        let of_key = ctx.state(&self.of_key).len();
        Some((fired, of_key)).into_iter()
    }
}

#[test]
fn windows_whose_functions_have_state() {
    let make = || WindowSpec {
        windows: SlidingEventTimeWindows::of(ms(30), ms(7)),
        lateness: 30,
        fold: ToList,
        key: by_three(),
        result: Remembers::new(),
        late: None,
        sides: Sides::default(),
    };
    check("windows with state", make, small);
}

/// Knows the latest rules, and has a list of what it saw.
#[derive(Clone)]
struct Rules(OperatorListState<u64>);

impl BroadcastProcessFunction<u64, u64> for Rules {
    type State = BTreeMap<u64, String>;
    type Out = String;
    fn states(&mut self, states: &mut OperatorStates) {
        states.add(&mut self.0);
    }
    fn process(&mut self, item: u64, known: &Self::State, ctx: &mut impl ProcessContext<String>) {
        ctx.list(&self.0).push(item);
        known.get(&item).into_iter().for_each(|rule| ctx.emit(rule.clone()));
    }
    fn process_broadcast(&mut self, rule: u64, known: &mut Self::State, _: &mut impl ProcessContext<String>) {
        known.insert(rule, rule.to_string());
    }
}

impl KeyedBroadcastProcessFunction<u64, u64> for Rules {
    type Key = u64;
    type State = Vec<u64>;
    type Broadcast = BTreeMap<u64, String>;
    type Out = String;
    fn process(
        &mut self,
        item: u64,
        own: &mut Vec<u64>,
        known: &Self::Broadcast,
        ctx: &mut impl KeyedContext<u64, String>,
    ) {
        own.push(item);
        ctx.register_event_time_timer(ctx.time().saturating_add(10));
        known.get(&item).into_iter().for_each(|rule| ctx.emit(rule.clone()));
    }
    fn process_broadcast(&mut self, rule: u64, known: &mut Self::Broadcast, _: &mut impl ProcessContext<String>) {
        known.insert(rule, rule.to_string());
    }
}

#[test]
fn functions_of_broadcast_streams() {
    let rules = || Rules(OperatorListState::union("seen"));
    check("broadcast", || BroadcastSpec::new(rules(), Sides::default()), either);
    check("keyed broadcast", || KeyedBroadcastSpec::new(rules(), by_three(), Sides::default()), either);
}
