//! Triggers by the end of a window and by counts, and one that drops what has fired.

use super::{TimeWindow, Trigger, TriggerContext, TriggerResult};
use crate::batch::Time;

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
        *count = count.saturating_add(1);
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
        *count = count.saturating_add(other);
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
