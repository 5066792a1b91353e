//! Triggers that fire each so often, by the records' times or by the machine's clock.

use super::{TimeWindow, Trigger, TriggerContext, TriggerResult, WindowTime};
use crate::batch::Time;
use std::time::Duration;

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
