//! Windows of every kind, with every trigger and evictor, against a naive model that knows no timers: random records,
//! watermarks, moments of the clock and restores. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thalweg_dataflow::{
    NO_TIME, OutputTag, Time,
    key::ByValue,
    side::Sides,
    testing::{OperatorTester, TestRuntime},
    window::*,
};

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

/// How long a session goes on after a record, where records say so.
fn gap(item: &u64) -> Time {
    1 + (*item as i64 * 7) % 23
}

fn gap_of(item: &u64) -> Duration {
    ms(gap(item))
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Event(Time, Time),
    Clock(Time, Time),
    EventSessions(Option<Time>),
    ClockSessions(Option<Time>),
    Global,
}

impl Kind {
    fn drawn(random: &mut SmallRng) -> Self {
        let size = random.random_range(1..60);
        let slide = if random.random() { size } else { random.random_range(1..60) };
        let gap = random.random::<bool>().then(|| random.random_range(1..25));
        match random.random_range(0..5) {
            0 => Self::Event(size, slide),
            1 => Self::Clock(size, slide),
            2 => Self::EventSessions(gap),
            3 => Self::ClockSessions(gap),
            _ => Self::Global,
        }
    }

    fn time(self) -> WindowTime {
        match self {
            Self::Event(..) | Self::EventSessions(_) => WindowTime::Event,
            Self::Clock(..) | Self::ClockSessions(_) => WindowTime::Processing,
            Self::Global => WindowTime::Never,
        }
    }

    fn merges(self) -> bool {
        matches!(self, Self::EventSessions(_) | Self::ClockSessions(_))
    }

    /// The windows of a record, said by their definition.
    fn windows(self, at: Time, wall: Time, item: u64) -> Vec<TimeWindow> {
        let at = if self.time() == WindowTime::Event { at } else { wall };
        match self {
            Self::Event(size, slide) | Self::Clock(size, slide) => {
                let starts = (at - size + 1..=at).filter(|s| s.rem_euclid(slide) == 0);
                starts.map(|start| TimeWindow { start, end: start + size }).collect()
            }
            Self::EventSessions(fixed) | Self::ClockSessions(fixed) => {
                vec![TimeWindow { start: at, end: at + fixed.unwrap_or(gap(&item)) }]
            }
            Self::Global => vec![TimeWindow { start: Time::MIN, end: Time::MAX }],
        }
    }
}

/// The real ones.
#[derive(Clone)]
enum Assigner {
    Event(TimeWindows),
    Clock(ProcessingTimeWindows),
    Sessions(SessionWindows),
    Dynamic(DynamicSessionWindows<fn(&u64) -> Duration>),
    Global(GlobalWindows),
}

impl Assigner {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Event(size, slide) => Self::Event(SlidingEventTimeWindows::of(ms(size), ms(slide))),
            Kind::Clock(size, slide) => Self::Clock(SlidingProcessingTimeWindows::of(ms(size), ms(slide))),
            Kind::EventSessions(Some(gap)) => Self::Sessions(EventTimeSessionWindows::with_gap(ms(gap))),
            Kind::ClockSessions(Some(gap)) => Self::Sessions(ProcessingTimeSessionWindows::with_gap(ms(gap))),
            Kind::EventSessions(None) => Self::Dynamic(EventTimeSessionWindows::with_dynamic_gap(gap_of)),
            Kind::ClockSessions(None) => Self::Dynamic(ProcessingTimeSessionWindows::with_dynamic_gap(gap_of)),
            Kind::Global => Self::Global(GlobalWindows),
        }
    }
}

macro_rules! each { ($self:expr, $of:ident, $($kind:ident),*; $what:expr) => {
    match $self { $(Self::$kind($of) => $what),* }
} }

impl RecordAssigner<u64> for Assigner {
    fn time(&self) -> WindowTime {
        each!(self, a, Event, Clock, Sessions, Dynamic, Global; RecordAssigner::<u64>::time(a))
    }
    fn merges(&self) -> bool {
        each!(self, a, Event, Clock, Sessions, Dynamic, Global; RecordAssigner::<u64>::merges(a))
    }
    fn assign_record(&self, item: &u64, at: Time, to: &mut Vec<TimeWindow>) -> Result<(), String> {
        each!(self, a, Event, Clock, Sessions, Dynamic, Global; a.assign_record(item, at, to))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fires {
    AtTheEnd,
    Count(u64),
    ByEventTime(Time),
    ByTheClock(Time),
    AsItemsSay,
}

/// What a trigger of one's own wants by this item.
fn says(item: u64) -> TriggerResult {
    match item % 10 {
        0 => TriggerResult::Fire,
        1 => TriggerResult::Purge,
        2 => TriggerResult::FireAndPurge,
        _ => TriggerResult::Continue,
    }
}

#[derive(Clone, Copy)]
struct AsItemsSay;

impl Trigger<u64> for AsItemsSay {
    type State = ();
    fn on_element(
        &mut self,
        item: &u64,
        _: Time,
        _: &TimeWindow,
        (): &mut (),
        _: &mut TriggerContext,
    ) -> TriggerResult {
        says(*item)
    }
    fn on_merge(&mut self, _: &TimeWindow, (): &mut (), (): (), _: &mut TriggerContext) {}
}

/// The real ones, with the states of all of them.
#[derive(Clone, Copy)]
enum Real {
    Event(EventTimeTrigger),
    Clock(ProcessingTimeTrigger),
    Count(CountTrigger),
    ByEvent(ContinuousEventTimeTrigger),
    ByClock(ContinuousProcessingTimeTrigger),
    Own(AsItemsSay),
}

type States = (u64, Option<Time>);

macro_rules! real {
    ($self:expr, $state:expr, $t:ident, $s:ident => $what:expr) => {
        match $self {
            Self::Event($t) => {
                let $s = &mut ();
                $what
            }
            Self::Clock($t) => {
                let $s = &mut ();
                $what
            }
            Self::Count($t) => {
                let $s = &mut $state.0;
                $what
            }
            Self::ByEvent($t) => {
                let $s = &mut $state.1;
                $what
            }
            Self::ByClock($t) => {
                let $s = &mut $state.1;
                $what
            }
            Self::Own($t) => {
                let $s = &mut ();
                $what
            }
        }
    };
}

impl Trigger<u64> for Real {
    type State = States;
    fn on_element(
        &mut self,
        item: &u64,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        real!(self, state, t, s => t.on_element(item, at, window, s, ctx))
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        real!(self, state, t, s => Trigger::<u64>::on_event_time(t, at, window, s, ctx))
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        real!(self, state, t, s => Trigger::<u64>::on_processing_time(t, at, window, s, ctx))
    }
    fn is_fresh(&self, state: &States) -> bool {
        let mut state = *state;
        real!(self, state, t, s => Trigger::<u64>::is_fresh(t, s))
    }
    fn on_merge(&mut self, window: &TimeWindow, state: &mut States, other: States, ctx: &mut TriggerContext) {
        match self {
            Self::Count(t) => Trigger::<u64>::on_merge(t, window, &mut state.0, other.0, ctx),
            Self::ByEvent(t) => Trigger::<u64>::on_merge(t, window, &mut state.1, other.1, ctx),
            Self::ByClock(t) => Trigger::<u64>::on_merge(t, window, &mut state.1, other.1, ctx),
            Self::Event(t) => Trigger::<u64>::on_merge(t, window, &mut (), (), ctx),
            Self::Clock(t) => Trigger::<u64>::on_merge(t, window, &mut (), (), ctx),
            Self::Own(t) => t.on_merge(window, &mut (), (), ctx),
        }
    }
}

/// One of them, that purges or not.
#[derive(Clone, Copy)]
enum AnyTrigger {
    Keeps(Real),
    Purges(PurgingTrigger<Real>),
}

impl Trigger<u64> for AnyTrigger {
    type State = States;
    fn on_element(
        &mut self,
        item: &u64,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        each!(self, t, Keeps, Purges; t.on_element(item, at, window, state, ctx))
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        each!(self, t, Keeps, Purges; Trigger::<u64>::on_event_time(t, at, window, state, ctx))
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut States,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        each!(self, t, Keeps, Purges; Trigger::<u64>::on_processing_time(t, at, window, state, ctx))
    }
    fn is_fresh(&self, state: &States) -> bool {
        each!(self, t, Keeps, Purges; Trigger::<u64>::is_fresh(t, state))
    }
    fn on_merge(&mut self, window: &TimeWindow, state: &mut States, other: States, ctx: &mut TriggerContext) {
        each!(self, t, Keeps, Purges; Trigger::<u64>::on_merge(t, window, state, other, ctx));
    }
}

impl AnyTrigger {
    fn of(fires: Fires, purges: bool, time: WindowTime) -> Self {
        let real = match fires {
            Fires::AtTheEnd if time == WindowTime::Event => Real::Event(EventTimeTrigger),
            Fires::AtTheEnd => Real::Clock(ProcessingTimeTrigger),
            Fires::Count(n) => Real::Count(CountTrigger::of(n)),
            Fires::ByEventTime(d) => Real::ByEvent(ContinuousEventTimeTrigger::of(ms(d))),
            Fires::ByTheClock(d) => Real::ByClock(ContinuousProcessingTimeTrigger::of(ms(d))),
            Fires::AsItemsSay => Real::Own(AsItemsSay),
        };
        if purges { Self::Purges(PurgingTrigger::of(real)) } else { Self::Keeps(real) }
    }
}

type Records = Vec<(Time, u64)>;

#[derive(Clone, Copy, Debug)]
enum Keeps {
    All,
    Last(usize),
    Young(Time),
    Near(f64),
    Even,
}

/// An evictor of one's own.
#[derive(Clone)]
struct Even;

impl Evictor<Records> for Even {
    fn evict(&mut self, contents: &mut Records, _: &TimeWindow) {
        contents.retain(|(_, item)| item % 2 == 0);
    }
}

fn difference(old: &u64, newest: &u64) -> f64 {
    old.abs_diff(*newest) as f64
}

#[derive(Clone)]
enum AnyEvictor {
    All(NoEvictor),
    Last(CountEvictor),
    Young(TimeEvictor),
    Near(DeltaEvictor<u64, fn(&u64, &u64) -> f64>),
    Own(Even),
}

impl AnyEvictor {
    fn of(keeps: Keeps) -> Self {
        match keeps {
            Keeps::All => Self::All(NoEvictor),
            Keeps::Last(n) => Self::Last(CountEvictor::of(n)),
            Keeps::Young(d) => Self::Young(TimeEvictor::of(ms(d))),
            Keeps::Near(d) => Self::Near(DeltaEvictor::of(d, difference)),
            Keeps::Even => Self::Own(Even),
        }
    }
}

impl Evictor<Records> for AnyEvictor {
    fn evict(&mut self, contents: &mut Records, window: &TimeWindow) {
        each!(self, e, All, Last, Young, Near, Own; e.evict(contents, window));
    }
}

/// One of them, before or after firing.
#[derive(Clone)]
enum When {
    Before(AnyEvictor),
    After(EvictAfter<AnyEvictor>),
}

impl Evictor<Records> for When {
    fn evict(&mut self, contents: &mut Records, window: &TimeWindow) {
        each!(self, e, Before, After; e.evict(contents, window));
    }
    fn evict_after(&mut self, contents: &mut Records, window: &TimeWindow) {
        each!(self, e, Before, After; e.evict_after(contents, window));
    }
}

/// What is left, said by its definition.
fn left(keeps: Keeps, all: &Records) -> Records {
    let n = all.len();
    let newest = all.iter().map(|r| r.0).max();
    let keep = |(i, (at, item)): &(usize, &(Time, u64))| match keeps {
        Keeps::All => true,
        Keeps::Last(last) => i + last >= n,
        Keeps::Young(span) => newest == Some(NO_TIME) || (*at != NO_TIME && newest.unwrap() - at < span),
        Keeps::Near(d) => i + 1 == n || difference(item, &all[n - 1].1) < d,
        Keeps::Even => *item % 2 == 0,
    };
    all.iter().enumerate().filter(keep).map(|(_, r)| *r).collect()
}

struct Window {
    key: u64,
    window: TimeWindow,
    contents: Option<Records>,
    count: u64,
    next: Option<Time>,
}

type Fired = (u64, TimeWindow, Records);

/// What windows are, without timers: at each event all windows are looked at.
struct Model {
    kind: Kind,
    fires: Fires,
    purges: bool,
    keeps: Keeps,
    /// Evicts after firing.
    after: bool,
    lateness: Time,
    open: Vec<Window>,
    watermark: Time,
    clock: Time,
    fired: Vec<Fired>,
    late: Records,
}

fn after(at: Time, step: Time) -> Time {
    (at.div_euclid(step) + 1) * step
}

impl Model {
    fn end(&self, window: &TimeWindow) -> Time {
        window.end - 1
    }

    fn fire(&mut self, i: usize, purge: bool) {
        let open = &mut self.open[i];
        if let Some(contents) = &mut open.contents {
            let kept = left(self.keeps, contents);
            let of = if self.after { &*contents } else { &kept };
            self.fired.push((open.key, open.window, of.clone()));
            *contents = kept;
        }
        if purge || self.purges {
            open.contents = None;
        }
    }

    fn record(&mut self, at: Time, item: u64) {
        let key = item % 3;
        let mut late = 0;
        let windows = self.kind.windows(at, self.clock, item);
        for window in &windows {
            let mut window = *window;
            let mut joined: Vec<usize> = Vec::new();
            if self.kind.merges() {
                // The sessions of the key that it touches; what they cover together.
                joined = (0..self.open.len())
                    .filter(|i| self.open[*i].key == key)
                    .filter(|i| self.open[*i].window.start < window.end && window.start < self.open[*i].window.end)
                    .collect();
                // One after the other.
                joined.sort_by_key(|i| self.open[*i].window);
                let own = window;
                for i in &joined {
                    let other = self.open[*i].window;
                    window = TimeWindow { start: window.start.min(other.start), end: window.end.max(other.end) };
                }
                assert!(window.start <= own.start && own.end <= window.end);
            } else if let Some(i) = self.open.iter().position(|o| o.key == key && o.window == window) {
                joined.push(i);
            }
            if self.kind.time() == WindowTime::Event && self.end(&window) + self.lateness <= self.watermark {
                late += 1;
                continue;
            }
            let i = match joined[..] {
                [i] if self.open[i].window == window => i,
                _ => {
                    let mut new = Window { key, window, contents: None, count: 0, next: None };
                    for i in &joined {
                        let other = &mut self.open[*i];
                        if let Some(more) = other.contents.take() {
                            new.contents.get_or_insert_default().extend(more);
                        }
                        new.count += other.count;
                        new.next = new.next.into_iter().chain(other.next).min();
                    }
                    let mut place = 0..self.open.len();
                    self.open.retain(|_| !joined.contains(&place.next().unwrap()));
                    self.open.push(new);
                    self.open.len() - 1
                }
            };
            self.open[i].contents.get_or_insert_default().push((at, item));
            self.added(i, at, item);
        }
        if !windows.is_empty() && late == windows.len() {
            self.late.push((at, item));
        }
    }

    /// A record was added to a window: does that fire?
    fn added(&mut self, i: usize, at: Time, item: u64) {
        let time = self.kind.time();
        let end = self.end(&self.open[i].window);
        let over = time == WindowTime::Event && end <= self.watermark;
        match self.fires {
            Fires::Count(n) => {
                self.open[i].count += 1;
                if self.open[i].count >= n {
                    self.open[i].count = 0;
                    self.fire(i, false);
                }
            }
            Fires::AsItemsSay => match says(item) {
                TriggerResult::Continue => {}
                TriggerResult::Fire => self.fire(i, false),
                TriggerResult::FireAndPurge => self.fire(i, true),
                TriggerResult::Purge => self.open[i].contents = None,
            },
            _ if over => self.fire(i, false),
            Fires::AtTheEnd => {}
            Fires::ByEventTime(d) if self.open[i].next.is_none() => {
                let next = after(at.max(self.watermark), d);
                self.open[i].next = (time != WindowTime::Event || next < end).then_some(next);
            }
            Fires::ByTheClock(d) if self.open[i].next.is_none() => {
                let next = after(self.clock, d);
                self.open[i].next = (time != WindowTime::Processing || next < end).then_some(next);
            }
            Fires::ByEventTime(_) | Fires::ByTheClock(_) => {}
        }
    }

    fn ends(&self) -> bool {
        matches!(self.fires, Fires::AtTheEnd | Fires::ByEventTime(_) | Fires::ByTheClock(_))
    }

    fn watermark(&mut self, at: Time) {
        let before = std::mem::replace(&mut self.watermark, at);
        for i in 0..self.open.len() {
            let (end, next) = (self.end(&self.open[i].window), self.open[i].next);
            if let (Fires::ByEventTime(d), Some(next)) = (self.fires, next)
                && next <= at
            {
                self.fire(i, false);
                let next = (at < Time::MAX).then(|| after(at, d));
                self.open[i].next = next.filter(|n| self.kind.time() != WindowTime::Event || *n < end);
            }
            if self.kind.time() == WindowTime::Event && self.ends() && before < end && end <= at {
                self.fire(i, false);
                if let Fires::ByEventTime(_) = self.fires {
                    self.open[i].next = None;
                }
            }
        }
        if self.kind.time() == WindowTime::Event {
            let lateness = self.lateness;
            self.open.retain(|o| (o.window.end - 1).saturating_add(lateness) > at);
        }
    }

    /// The clock shows this; or the input has ended, and windows by the clock with it.
    fn clock(&mut self, now: Time) {
        self.clock = now;
        for i in 0..self.open.len() {
            let (end, next) = (self.end(&self.open[i].window), self.open[i].next);
            let over = self.kind.time() == WindowTime::Event && end <= self.watermark;
            if let (Fires::ByTheClock(d), Some(next)) = (self.fires, next)
                && next < now
            {
                self.open[i].next = None;
                if !over {
                    self.fire(i, false);
                    let next = (now < Time::MAX).then(|| after(now, d));
                    self.open[i].next = next.filter(|n| self.kind.time() != WindowTime::Processing || *n < end);
                }
            }
            if self.kind.time() == WindowTime::Processing && self.ends() && end < now {
                self.fire(i, false);
            }
        }
        if self.kind.time() == WindowTime::Processing {
            self.open.retain(|o| o.window.end > now);
        }
    }
}

fn case(rt: &TestRuntime, seed: u64) -> (Kind, Fires, Keeps, usize) {
    let random = &mut SmallRng::seed_from_u64(seed);
    let kind = Kind::drawn(random);
    let lateness = if random.random() { 0 } else { random.random_range(0..80) };
    let fires = match random.random_range(0..5) {
        0 if kind.time() != WindowTime::Never => Fires::AtTheEnd,
        0 | 1 => Fires::Count(random.random_range(1..6)),
        2 => Fires::ByEventTime(random.random_range(1..30)),
        3 => Fires::ByTheClock(random.random_range(1..30)),
        _ => Fires::AsItemsSay,
    };
    let purges = random.random_range(0..3) == 0;
    let keeps = match random.random_range(0..5) {
        0 => Keeps::All,
        1 => Keeps::Last(random.random_range(0..6)),
        2 => Keeps::Young(random.random_range(1..60)),
        3 => Keeps::Near(random.random_range(1.0..40.0)),
        _ => Keeps::Even,
    };
    let after = random.random_range(0..4) == 0;
    let tag = OutputTag::new("late");
    let spec = || TriggeredSpec {
        assigner: Assigner::of(kind),
        trigger: AnyTrigger::of(fires, purges, kind.time()),
        evictor: if after {
            When::After(EvictAfter::of(AnyEvictor::of(keeps)))
        } else {
            When::Before(AnyEvictor::of(keeps))
        },
        lateness,
        fold: WithTimes,
        key: ByValue(|i: &u64| i % 3),
        result: Apply::new(|key: u64, window: TimeWindow, all: Records| Some((key, window, all))),
        late: Some(tag.clone()),
        sides: Sides::default(),
    };
    let mut tester = OperatorTester::new(&rt.env, spec()).unwrap();
    let mut model = Model {
        kind,
        fires,
        purges,
        keeps,
        after,
        lateness,
        open: Vec::new(),
        watermark: NO_TIME,
        clock: 0,
        fired: Vec::new(),
        late: Vec::new(),
    };
    // By the clock streams may well be without times.
    let timed = kind.time() == WindowTime::Event || matches!(fires, Fires::ByEventTime(_)) || random.random();
    let mut latest = random.random_range(-200..200);
    let disorder = random.random_range(1..60);
    let mut results = 0;
    let steps = random.random_range(1..150);
    let mut compare = |(came, late): (Vec<(Time, Fired)>, Vec<(Time, u64)>), model: &mut Model, what: &str| {
        let mut got: Vec<Fired> = Vec::new();
        for (at, fired) in came {
            assert_eq!(at, fired.1.max_timestamp(), "a result's time is its window's last moment");
            got.push(fired);
        }
        assert_eq!(late, std::mem::take(&mut model.late), "what is late");
        let mut wanted = std::mem::take(&mut model.fired);
        results += wanted.len();
        // Which key and window is first does not matter, but the order in which one window fires does.
        got.sort_by_key(|f| (f.0, f.1));
        wanted.sort_by_key(|f| (f.0, f.1));
        let set = (kind, fires, purges, keeps, after, lateness);
        assert_eq!(got, wanted, "{what}: {set:?}, watermark {}, clock {}", model.watermark, model.clock);
    };
    for _ in 0..steps {
        match random.random_range(0..12) {
            0 => {
                let at = (latest - random.random_range(0..disorder)).max(model.watermark);
                tester.watermark(at).unwrap();
                model.watermark(at);
                compare((tester.take(), tester.take_side(&tag)), &mut model, "watermark");
            }
            1 => {
                let by = random.random_range(0..40);
                tester.advance(ms(by)).unwrap();
                model.clock(model.clock + by);
                compare((tester.take(), tester.take_side(&tag)), &mut model, "clock");
            }
            2 => {
                let state = tester.snapshot().unwrap().unwrap();
                tester = OperatorTester::restored(&rt.env, spec(), state).unwrap();
                // Its clock begins at 0.
                tester.advance(ms(model.clock)).unwrap();
                compare((tester.take(), tester.take_side(&tag)), &mut model, "restored");
            }
            _ => {
                latest += random.random_range(0..20);
                let at = if timed { latest - random.random_range(0..disorder) } else { NO_TIME };
                let item = random.random_range(0..100);
                tester.push(at, item).unwrap();
                model.record(at, item);
                compare((tester.take(), tester.take_side(&tag)), &mut model, "record");
            }
        }
    }
    tester.end().unwrap();
    model.watermark(Time::MAX);
    if kind.time() == WindowTime::Processing {
        model.clock(Time::MAX);
    }
    compare((tester.take(), tester.take_side(&tag)), &mut model, "end");
    if kind.time() != WindowTime::Never {
        assert!(model.open.is_empty());
        let mut empty = OperatorTester::new(&rt.env, spec()).unwrap();
        empty.end().unwrap();
        assert_eq!(tester.snapshot().unwrap(), empty.snapshot().unwrap(), "nothing is left: {kind:?} {fires:?}");
    }
    (kind, fires, keeps, results)
}

#[test]
fn windows_of_every_kind_fire_as_a_naive_model_says() {
    let rt = TestRuntime::new().unwrap();
    let seeds = match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
            (0..n).collect::<Vec<u64>>()
        }
    };
    let all = seeds.len() >= 2_000;
    let (mut met, mut results) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| case(&rt, seed));
        let Ok((kind, fires, keeps, n)) = std::panic::catch_unwind(run) else { panic!("THALWEG_SEED={seed}") };
        let name = |debug: String| debug.split('(').next().unwrap().to_owned();
        let (kind, fires, keeps) = (name(format!("{kind:?}")), name(format!("{fires:?}")), name(format!("{keeps:?}")));
        *results.entry(format!("{kind} {fires}")).or_default() += n;
        met.insert((kind, fires, keeps));
    }
    // Windows for all time have no end.
    assert!(!all || met.len() == 5 * 5 * 5 - 5, "{} of the combinations were met", met.len());
    assert!(!all || results.len() == 24 && results.values().all(|n| *n > 60), "{results:?}");
}
