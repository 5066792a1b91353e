//! What a trigger is: it decides when a window gives out what it has. Those that are there are in `triggers` and
//! `continuous`.

use super::{TimeWindow, WindowTime, context::wall};
use crate::{batch::Time, key::Data};
use serde::{Deserialize, Serialize};
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
    // The time that has come, where its clock has come to its end: one before would come at once, and again and again.
    after: Option<Time>,
}

impl<'a> Wishes<'a> {
    pub(super) fn of(all: &'a mut Vec<Time>, after: Option<Time>) -> Self {
        let old = all.len();
        Self { all, old, after }
    }

    fn add(&mut self, at: Time) {
        if self.after.is_none_or(|after| at > after) && !self.all.contains(&at) {
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
    /// No record with this time or an earlier one is expected any more; `Time::MAX` when the input has ended.
    pub fn watermark(&self) -> Time {
        self.watermark
    }
    /// The machine's clock, ms since 1970 UTC; `Time::MAX` when the input has ended and windows by the machine's clock
    /// fire for the last time.
    pub fn processing_time(&self) -> Time {
        self.wall.unwrap_or_else(|| wall(self.clock))
    }
    /// Calls `on_event_time` when the watermark has reached `at`. Asked for again, it changes nothing. When the input has
    /// ended, a time before the one that has come is passed over: it would come again and again.
    pub fn register_event_time_timer(&mut self, at: Time) {
        self.event.add(at);
    }
    /// Takes that back.
    pub fn delete_event_time_timer(&mut self, at: Time) {
        self.event.delete(at);
    }
    /// Calls `on_processing_time` when the machine's clock has passed `at`: all that comes in that millisecond is
    /// there. Asked for again, it changes nothing. When the input has ended the same holds as for event time.
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
    /// Another window has become part of this one, which is `window` now. What both have asked for is there, but for the
    /// ends they had: who fires at the end asks for the new one.
    fn on_merge(&mut self, window: &TimeWindow, state: &mut Self::State, other: Self::State, ctx: &mut TriggerContext);
}

/// A trigger's times of one window, as they are kept.
#[derive(Serialize, Deserialize, Default, Debug)]
pub(super) struct Asked {
    pub(super) event: Vec<Time>,
    pub(super) processing: Vec<Time>,
}
