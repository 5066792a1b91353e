//! When a window gives out what it has.

use super::{TimeWindow, WindowTime, context::wall};
use crate::{batch::Time, key::Data};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thalweg_env::Clock;

/// What a trigger wants of its window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TriggerResult {
    /// Nothing.
    Continue,
    /// Its result.
    Fire,
    /// Its contents are dropped.
    Purge,
    /// Its result, and then its contents are dropped.
    FireAndPurge,
}

impl TriggerResult {
    pub(super) fn fires(self) -> bool {
        matches!(self, Self::Fire | Self::FireAndPurge)
    }
    pub(super) fn purges(self) -> bool {
        matches!(self, Self::Purge | Self::FireAndPurge)
    }
}

/// What a trigger may ask and do.
pub struct TriggerContext<'a> {
    pub(super) time: WindowTime,
    pub(super) watermark: Time,
    pub(super) wall: Option<Time>,
    pub(super) clock: &'a dyn Clock,
    pub(super) event: Wishes<'a>,
    pub(super) processing: Wishes<'a>,
}

/// The times that are asked for; the last ones are new.
pub(super) struct Wishes<'a> {
    all: &'a mut Vec<Time>,
    old: usize,
}

impl<'a> Wishes<'a> {
    pub(super) fn of(all: &'a mut Vec<Time>) -> Self {
        let old = all.len();
        Self { all, old }
    }

    fn add(&mut self, at: Time) {
        if !self.all.contains(&at) {
            self.all.push(at);
        }
    }

    fn delete(&mut self, at: Time) {
        if let Some(i) = self.all.iter().position(|t| *t == at) {
            self.all.remove(i);
            self.old -= usize::from(i < self.old);
        }
    }

    pub(super) fn new_ones(&self) -> &[Time] {
        self.all.get(self.old..).unwrap_or_default()
    }
}

impl TriggerContext<'_> {
    /// Whose time the windows are of: the watermark passes their end, the machine's clock does, or they have none.
    pub fn window_time(&self) -> WindowTime {
        self.time
    }
    /// No record with this time or an earlier one is expected any more.
    pub fn watermark(&self) -> Time {
        self.watermark
    }
    /// The machine's clock, ms since 1970 UTC; `Time::MAX` when the input has ended and windows by the machine's clock
    /// fire for the last time.
    pub fn processing_time(&self) -> Time {
        self.wall.unwrap_or_else(|| wall(self.clock))
    }
    /// Calls `on_event_time` when the watermark has reached `at`. Asked for again, it changes nothing.
    pub fn register_event_time_timer(&mut self, at: Time) {
        self.event.add(at);
    }
    /// Takes that back.
    pub fn delete_event_time_timer(&mut self, at: Time) {
        self.event.delete(at);
    }
    /// Calls `on_processing_time` when the machine's clock has passed `at`: all that comes in that millisecond is
    /// there. Asked for again, it changes nothing.
    pub fn register_processing_time_timer(&mut self, at: Time) {
        self.processing.add(at);
    }
    /// Takes that back.
    pub fn delete_processing_time_timer(&mut self, at: Time) {
        self.processing.delete(at);
    }
}

/// Decides when windows fire. Each window of each key has a state of its own.
pub trait Trigger<T>: Clone + Send + 'static {
    /// What is kept for a window.
    type State: Default + Data;
    /// What is wrong with it, if something is: the program is refused.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
    /// A record was added to the window.
    fn on_element(
        &mut self,
        item: &T,
        at: Time,
        window: &TimeWindow,
        state: &mut Self::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult;
    /// A time that was asked for has come for the watermark.
    fn on_event_time(
        &mut self,
        _at: Time,
        _window: &TimeWindow,
        _state: &mut Self::State,
        _ctx: &mut TriggerContext,
    ) -> TriggerResult {
        TriggerResult::Continue
    }
    /// A time that was asked for has come for the machine's clock.
    fn on_processing_time(
        &mut self,
        _at: Time,
        _window: &TimeWindow,
        _state: &mut Self::State,
        _ctx: &mut TriggerContext,
    ) -> TriggerResult {
        TriggerResult::Continue
    }
    /// Has this state nothing that a new one has not? If so, nothing is kept of a purged window for all time: else its
    /// key is kept for ever.
    fn is_fresh(&self, _state: &Self::State) -> bool {
        size_of::<Self::State>() == 0
    }
    /// Another window has become part of this one, which is `window` now. Timers of both are there.
    fn on_merge(&mut self, window: &TimeWindow, state: &mut Self::State, other: Self::State, ctx: &mut TriggerContext);
}

/// Fires when the watermark passes the window's end, and again for each record that is late but allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventTimeTrigger;

impl<T> Trigger<T> for EventTimeTrigger {
    type State = ();
    fn on_element(
        &mut self,
        _: &T,
        _: Time,
        window: &TimeWindow,
        (): &mut (),
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if window.max_timestamp() <= ctx.watermark() {
            return TriggerResult::Fire;
        }
        ctx.register_event_time_timer(window.max_timestamp());
        TriggerResult::Continue
    }
    fn on_event_time(&mut self, at: Time, window: &TimeWindow, (): &mut (), _: &mut TriggerContext) -> TriggerResult {
        if at == window.max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
    }
    fn on_merge(&mut self, window: &TimeWindow, (): &mut (), (): (), ctx: &mut TriggerContext) {
        if window.max_timestamp() > ctx.watermark() {
            ctx.register_event_time_timer(window.max_timestamp());
        }
    }
}

/// Fires when the machine's clock passes the window's end.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessingTimeTrigger;

impl<T> Trigger<T> for ProcessingTimeTrigger {
    type State = ();
    fn on_element(
        &mut self,
        _: &T,
        _: Time,
        window: &TimeWindow,
        (): &mut (),
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        ctx.register_processing_time_timer(window.max_timestamp());
        TriggerResult::Continue
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        (): &mut (),
        _: &mut TriggerContext,
    ) -> TriggerResult {
        if at == window.max_timestamp() { TriggerResult::Fire } else { TriggerResult::Continue }
    }
    fn on_merge(&mut self, window: &TimeWindow, (): &mut (), (): (), ctx: &mut TriggerContext) {
        ctx.register_processing_time_timer(window.max_timestamp());
    }
}

/// Fires with each so-manieth record of a window.
#[derive(Clone, Copy, Debug)]
pub struct CountTrigger(u64);

impl CountTrigger {
    /// Of so many records; at least 1.
    pub fn of(records: u64) -> Self {
        Self(records)
    }
}

impl<T> Trigger<T> for CountTrigger {
    type State = u64;
    fn check(&self) -> Result<(), String> {
        if self.0 > 0 { Ok(()) } else { Err("a count of 0 records never fires: it is at least 1".to_owned()) }
    }
    fn on_element(&mut self, _: &T, _: Time, _: &TimeWindow, count: &mut u64, _: &mut TriggerContext) -> TriggerResult {
        *count += 1;
        if *count < self.0 {
            return TriggerResult::Continue;
        }
        *count = 0;
        TriggerResult::Fire
    }
    fn is_fresh(&self, count: &u64) -> bool {
        *count == 0
    }
    fn on_merge(&mut self, _: &TimeWindow, count: &mut u64, other: u64, _: &mut TriggerContext) {
        *count += other;
    }
}

/// How often a continuous trigger fires.
#[derive(Clone, Copy, Debug)]
struct Interval {
    ms: Time,
    /// It was given in whole milliseconds, and not as 0.
    right: bool,
}

impl Interval {
    fn of(interval: Duration) -> Self {
        let ms = super::assigner::ms(interval);
        Self { ms: ms.max(1), right: ms > 0 && super::assigner::is_whole(interval) }
    }

    /// The first multiple of it after a time.
    fn next(self, at: Time) -> Time {
        at.saturating_sub(at.rem_euclid(self.ms)).saturating_add(self.ms)
    }

    fn check(self) -> Result<(), String> {
        let why = "a continuous trigger's interval is whole milliseconds, and at least 1";
        if self.right { Ok(()) } else { Err(why.to_owned()) }
    }
}

/// Asks for the window's end, by whose time the windows are. Answers whether that has passed already, so that what came
/// is late but allowed.
fn ask_for_end(window: &TimeWindow, ctx: &mut TriggerContext) -> bool {
    let end = window.max_timestamp();
    match ctx.window_time() {
        WindowTime::Event if end <= ctx.watermark() => return true,
        WindowTime::Event => ctx.register_event_time_timer(end),
        WindowTime::Processing => ctx.register_processing_time_timer(end),
        WindowTime::Never => {}
    }
    false
}

/// When a continuous trigger fires next, if that is known. The window's end is asked for beside it.
type Next = Option<Time>;

/// The earlier one of two windows that have become one.
fn earlier(a: Next, b: Next) -> Next {
    a.into_iter().chain(b).min()
}

/// Fires each so often by the records' times, and at the window's end. A watermark that passes several of these times
/// at once gives one result: nothing came between them.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousEventTimeTrigger(Interval);

impl ContinuousEventTimeTrigger {
    /// Each so often, in whole milliseconds; at least 1.
    pub fn of(interval: Duration) -> Self {
        Self(Interval::of(interval))
    }

    /// Asks for the first of its times after `at`, where the window is not over by then.
    fn ask(self, at: Time, window: &TimeWindow, ctx: &mut TriggerContext) -> Next {
        let due = self.0.next(at);
        let ends = ctx.window_time() == WindowTime::Event && due >= window.max_timestamp();
        // After the last watermark there are no times.
        let next = (!ends && ctx.watermark() != Time::MAX).then_some(due);
        if let Some(due) = next {
            ctx.register_event_time_timer(due);
        }
        next
    }
}

impl<T> Trigger<T> for ContinuousEventTimeTrigger {
    type State = Next;
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
    fn on_element(
        &mut self,
        _: &T,
        at: Time,
        window: &TimeWindow,
        next: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if ask_for_end(window, ctx) {
            return TriggerResult::Fire;
        }
        if next.is_none() {
            *next = self.ask(at.max(ctx.watermark()), window, ctx);
        }
        TriggerResult::Continue
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        next: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if ctx.window_time() == WindowTime::Event && at == window.max_timestamp() {
            *next = None;
            return TriggerResult::Fire;
        }
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        *next = self.ask(at.max(ctx.watermark()), window, ctx);
        TriggerResult::Fire
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        _: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        let ends = ctx.window_time() == WindowTime::Processing && at == window.max_timestamp();
        if ends { TriggerResult::Fire } else { TriggerResult::Continue }
    }
    fn is_fresh(&self, next: &Next) -> bool {
        next.is_none()
    }
    fn on_merge(&mut self, window: &TimeWindow, next: &mut Next, other: Next, ctx: &mut TriggerContext) {
        *next = earlier(*next, other);
        ask_for_end(window, ctx);
    }
}

/// Fires each so often by the machine's clock, and at the window's end: by the watermark, where the windows are by
/// event time.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousProcessingTimeTrigger(Interval);

impl ContinuousProcessingTimeTrigger {
    /// Each so often, in whole milliseconds; at least 1.
    pub fn of(interval: Duration) -> Self {
        Self(Interval::of(interval))
    }

    /// Asks for the next of its times, where the window is not over by then.
    fn ask(self, window: &TimeWindow, ctx: &mut TriggerContext) -> Next {
        let due = self.0.next(ctx.processing_time());
        let ends = ctx.window_time() == WindowTime::Processing && due >= window.max_timestamp();
        let next = (!ends && ctx.processing_time() != Time::MAX).then_some(due);
        if let Some(due) = next {
            ctx.register_processing_time_timer(due);
        }
        next
    }
}

impl<T> Trigger<T> for ContinuousProcessingTimeTrigger {
    type State = Next;
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
    fn on_element(
        &mut self,
        _: &T,
        _: Time,
        window: &TimeWindow,
        next: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if ask_for_end(window, ctx) {
            return TriggerResult::Fire;
        }
        if next.is_none() {
            *next = self.ask(window, ctx);
        }
        TriggerResult::Continue
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        _: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        let ends = ctx.window_time() == WindowTime::Event && at == window.max_timestamp();
        if ends { TriggerResult::Fire } else { TriggerResult::Continue }
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        next: &mut Next,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if ctx.window_time() == WindowTime::Processing && at == window.max_timestamp() {
            *next = None;
            return TriggerResult::Fire;
        }
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        *next = None;
        if ctx.window_time() == WindowTime::Event && window.max_timestamp() <= ctx.watermark() {
            // It has given its last result; what is late fires by itself.
            return TriggerResult::Continue;
        }
        *next = self.ask(window, ctx);
        TriggerResult::Fire
    }
    fn is_fresh(&self, next: &Next) -> bool {
        next.is_none()
    }
    fn on_merge(&mut self, window: &TimeWindow, next: &mut Next, other: Next, ctx: &mut TriggerContext) {
        *next = earlier(*next, other);
        ask_for_end(window, ctx);
    }
}

/// Another trigger; what has fired is dropped, so that each result has only what is new.
#[derive(Clone, Copy, Debug)]
pub struct PurgingTrigger<G>(G);

impl<G> PurgingTrigger<G> {
    /// Of this one.
    pub fn of(trigger: G) -> Self {
        Self(trigger)
    }
}

fn purging(result: TriggerResult) -> TriggerResult {
    if result.fires() { TriggerResult::FireAndPurge } else { result }
}

impl<T, G: Trigger<T>> Trigger<T> for PurgingTrigger<G> {
    type State = G::State;
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
    fn on_element(
        &mut self,
        item: &T,
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        purging(self.0.on_element(item, at, window, state, ctx))
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        purging(self.0.on_event_time(at, window, state, ctx))
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        state: &mut G::State,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        purging(self.0.on_processing_time(at, window, state, ctx))
    }
    fn is_fresh(&self, state: &G::State) -> bool {
        self.0.is_fresh(state)
    }
    fn on_merge(&mut self, window: &TimeWindow, state: &mut G::State, other: G::State, ctx: &mut TriggerContext) {
        self.0.on_merge(window, state, other, ctx);
    }
}

/// A trigger's times of one window, as they are kept.
#[derive(Serialize, Deserialize, Default, Debug)]
pub(super) struct Asked {
    pub(super) event: Vec<Time>,
    pub(super) processing: Vec<Time>,
}
