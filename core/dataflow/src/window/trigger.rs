//! When a window gives out what it has.

use super::TimeWindow;
use crate::{batch::Time, key::Data};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, time::Duration};

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
    pub(super) watermark: Time,
    pub(super) wall: Time,
    pub(super) event: &'a mut Vec<Time>,
    pub(super) processing: &'a mut Vec<Time>,
}

impl TriggerContext<'_> {
    /// No record with this time or an earlier one is expected any more.
    pub fn watermark(&self) -> Time {
        self.watermark
    }
    /// The machine's clock, ms since 1970 UTC.
    pub fn processing_time(&self) -> Time {
        self.wall
    }
    /// Calls `on_event_time` when the watermark has reached `at`.
    pub fn register_event_time_timer(&mut self, at: Time) {
        if !self.event.contains(&at) {
            self.event.push(at);
        }
    }
    /// Calls `on_processing_time` when the machine's clock has reached `at`.
    pub fn register_processing_time_timer(&mut self, at: Time) {
        if !self.processing.contains(&at) {
            self.processing.push(at);
        }
    }
}

/// Decides when windows fire. Each window of each key has a state of its own.
pub trait Trigger<T>: Clone + Send + 'static {
    /// What is kept for a window.
    type State: Default + Data;
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
        Self(records.max(1))
    }
}

impl<T> Trigger<T> for CountTrigger {
    type State = u64;
    fn on_element(&mut self, _: &T, _: Time, _: &TimeWindow, count: &mut u64, _: &mut TriggerContext) -> TriggerResult {
        *count += 1;
        if *count < self.0 {
            return TriggerResult::Continue;
        }
        *count = 0;
        TriggerResult::Fire
    }
    fn on_merge(&mut self, _: &TimeWindow, count: &mut u64, other: u64, _: &mut TriggerContext) {
        *count += other;
    }
}

/// Fires each so often by the records' times, and at the window's end.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousEventTimeTrigger(Time);

impl ContinuousEventTimeTrigger {
    /// Each so often; ms precision, at least 1 ms.
    pub fn of(interval: Duration) -> Self {
        Self(super::assigner::ms(interval).max(1))
    }

    fn next(&self, at: Time) -> Time {
        at.saturating_sub(at.rem_euclid(self.0)).saturating_add(self.0)
    }
}

impl<T> Trigger<T> for ContinuousEventTimeTrigger {
    /// When it fires next, if that is known.
    type State = Option<Time>;
    fn on_element(
        &mut self,
        _: &T,
        at: Time,
        window: &TimeWindow,
        next: &mut Option<Time>,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if window.max_timestamp() <= ctx.watermark() {
            return TriggerResult::Fire;
        }
        ctx.register_event_time_timer(window.max_timestamp());
        if next.is_none() {
            let due = self.next(at.max(ctx.watermark()));
            *next = Some(due);
            ctx.register_event_time_timer(due);
        }
        TriggerResult::Continue
    }
    fn on_event_time(
        &mut self,
        at: Time,
        window: &TimeWindow,
        next: &mut Option<Time>,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if at == window.max_timestamp() {
            return TriggerResult::Fire;
        }
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        let due = at.saturating_add(self.0);
        *next = (due < window.max_timestamp()).then_some(due);
        if due < window.max_timestamp() {
            ctx.register_event_time_timer(due);
        }
        TriggerResult::Fire
    }
    fn on_merge(
        &mut self,
        window: &TimeWindow,
        next: &mut Option<Time>,
        other: Option<Time>,
        ctx: &mut TriggerContext,
    ) {
        *next = match (*next, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(due) = *next {
            ctx.register_event_time_timer(due);
        }
        if window.max_timestamp() > ctx.watermark() {
            ctx.register_event_time_timer(window.max_timestamp());
        }
    }
}

/// Fires each so often by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousProcessingTimeTrigger(Time);

impl ContinuousProcessingTimeTrigger {
    /// Each so often; ms precision, at least 1 ms.
    pub fn of(interval: Duration) -> Self {
        Self(super::assigner::ms(interval).max(1))
    }
}

impl<T> Trigger<T> for ContinuousProcessingTimeTrigger {
    type State = Option<Time>;
    fn on_element(
        &mut self,
        _: &T,
        _: Time,
        _: &TimeWindow,
        next: &mut Option<Time>,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if next.is_none() {
            let now = ctx.processing_time();
            let due = now.saturating_sub(now.rem_euclid(self.0)).saturating_add(self.0);
            *next = Some(due);
            ctx.register_processing_time_timer(due);
        }
        TriggerResult::Continue
    }
    fn on_processing_time(
        &mut self,
        at: Time,
        _: &TimeWindow,
        next: &mut Option<Time>,
        ctx: &mut TriggerContext,
    ) -> TriggerResult {
        if *next != Some(at) {
            return TriggerResult::Continue;
        }
        let due = at.saturating_add(self.0);
        *next = Some(due);
        ctx.register_processing_time_timer(due);
        TriggerResult::Fire
    }
    fn on_merge(&mut self, _: &TimeWindow, next: &mut Option<Time>, other: Option<Time>, ctx: &mut TriggerContext) {
        *next = match (*next, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(due) = *next {
            ctx.register_processing_time_timer(due);
        }
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
    fn on_merge(&mut self, window: &TimeWindow, state: &mut G::State, other: G::State, ctx: &mut TriggerContext) {
        self.0.on_merge(window, state, other, ctx);
    }
}

/// Drops records of a window before it fires.
pub trait Evictor<A>: Clone + Send + 'static {
    /// What is dropped does not come back when the window fires again.
    fn evict(&mut self, contents: &mut A, window: &TimeWindow);
}

/// Drops nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoEvictor;

impl<A> Evictor<A> for NoEvictor {
    #[inline(always)]
    fn evict(&mut self, _: &mut A, _: &TimeWindow) {}
}

/// Keeps the last so many records.
#[derive(Clone, Copy, Debug)]
pub struct CountEvictor(usize);

impl CountEvictor {
    /// So many.
    pub fn of(records: usize) -> Self {
        Self(records)
    }
}

impl<T: 'static> Evictor<Vec<(Time, T)>> for CountEvictor {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        contents.drain(..contents.len().saturating_sub(self.0));
    }
}

/// Keeps the records of the last stretch of time before the newest.
#[derive(Clone, Copy, Debug)]
pub struct TimeEvictor(Time);

impl TimeEvictor {
    /// Of this length; ms precision.
    pub fn of(span: Duration) -> Self {
        Self(super::assigner::ms(span))
    }
}

impl<T: 'static> Evictor<Vec<(Time, T)>> for TimeEvictor {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        let newest = contents.iter().map(|(at, _)| *at).max().unwrap_or(Time::MIN);
        let limit = newest.saturating_sub(self.0);
        contents.retain(|(at, _)| *at > limit);
    }
}

/// Keeps the records that differ from the newest by less than a threshold.
pub struct DeltaEvictor<T, F> {
    threshold: f64,
    delta: F,
    _t: PhantomData<fn(T)>,
}

impl<T, F: FnMut(&T, &T) -> f64> DeltaEvictor<T, F> {
    /// By this measure of an old record and the newest one.
    pub fn of(threshold: f64, delta: F) -> Self {
        Self { threshold, delta, _t: PhantomData }
    }
}

impl<T, F: Clone> Clone for DeltaEvictor<T, F> {
    fn clone(&self) -> Self {
        Self { threshold: self.threshold, delta: self.delta.clone(), _t: PhantomData }
    }
}

impl<T: 'static, F: FnMut(&T, &T) -> f64 + Clone + Send + 'static> Evictor<Vec<(Time, T)>> for DeltaEvictor<T, F> {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        let Some((at, newest)) = contents.pop() else { return };
        contents.retain(|(_, item)| (self.delta)(item, &newest) < self.threshold);
        contents.push((at, newest));
    }
}

/// A trigger's times of one window, as they are kept.
#[derive(Serialize, Deserialize, Default, Debug)]
pub(super) struct Asked {
    pub(super) event: Vec<Time>,
    pub(super) processing: Vec<Time>,
}
