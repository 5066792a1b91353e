//! How far the watermark trails the records.

use crate::batch::{NO_TIME, Time};
use std::time::Duration;

/// Makes watermarks from the times of one subtask's records, or of one split's; see [`WatermarkStrategy`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make watermarks for `{T}`",
    note = "use `WatermarkStrategy::for_monotonous_timestamps()`, `for_bounded_out_of_orderness(..)`, or implement `WatermarkGenerator` for a type of your own"
)]
pub trait WatermarkGenerator<T>: Clone + Send + 'static {
    /// One more record, and its time.
    fn on_event(&mut self, at: Time, item: &T);
    /// No record with this time or an earlier one is expected any more; `NO_TIME` while nothing can be said. Asked
    /// after every few hundred records, and when the input pauses. A value that is lower than one before has no effect.
    fn watermark(&mut self) -> Time;
}

/// Times never fall within one subtask's input, or one split's.
#[derive(Clone, Debug)]
pub struct MonotonousTimestamps {
    max: Time,
}

impl<T> WatermarkGenerator<T> for MonotonousTimestamps {
    #[inline(always)]
    fn on_event(&mut self, at: Time, _: &T) {
        self.max = self.max.max(at);
    }
    fn watermark(&mut self) -> Time {
        // Another record may have the same time.
        self.max.saturating_sub(1)
    }
}

/// A record comes at most so much later than one with a later time.
#[derive(Clone, Debug)]
pub struct BoundedOutOfOrderness {
    max: Time,
    bound: Time,
}

impl<T> WatermarkGenerator<T> for BoundedOutOfOrderness {
    #[inline(always)]
    fn on_event(&mut self, at: Time, _: &T) {
        self.max = self.max.max(at);
    }
    fn watermark(&mut self) -> Time {
        self.max.saturating_sub(self.bound).saturating_sub(1)
    }
}

/// Times without watermarks: windows and timers wait for the end of the input.
#[derive(Clone, Copy, Debug)]
pub struct NoWatermarks;

impl<T> WatermarkGenerator<T> for NoWatermarks {
    #[inline(always)]
    fn on_event(&mut self, _: Time, _: &T) {}
    fn watermark(&mut self) -> Time {
        NO_TIME
    }
}

/// How a stream's watermarks are made.
///
/// A stream that comes from a source, with nothing between but functions of single records in the same task (`map`,
/// `filter`, `flat_map`, `parse_json`…), has a generator for each split that a subtask reads; the lowest watermark of its
/// open splits counts, and each one's goes with it through a restore. Any other stream has one for each subtask.
///
/// In batch mode none are made before the end of the input: all of it is there before anything is final, so nothing is
/// late.
#[derive(Clone, Debug)]
pub struct WatermarkStrategy<G> {
    pub(crate) generator: G,
    pub(crate) idleness: Option<Duration>,
}

impl WatermarkStrategy<MonotonousTimestamps> {
    /// For times that never fall within the input of one subtask, or of one split.
    pub fn for_monotonous_timestamps() -> Self {
        Self::for_generator(MonotonousTimestamps { max: NO_TIME })
    }
}

impl WatermarkStrategy<BoundedOutOfOrderness> {
    /// For records that come at most `bound` later than ones with later times. What comes later still is late.
    pub fn for_bounded_out_of_orderness(bound: Duration) -> Self {
        let bound = Time::try_from(bound.as_millis()).unwrap_or(Time::MAX);
        Self::for_generator(BoundedOutOfOrderness { max: NO_TIME, bound })
    }
}

impl WatermarkStrategy<NoWatermarks> {
    /// Times without watermarks.
    pub fn no_watermarks() -> Self {
        Self::for_generator(NoWatermarks)
    }
}

impl<G> WatermarkStrategy<G> {
    /// A generator of your own; each subtask, or split, has a clone.
    pub fn for_generator(generator: G) -> Self {
        Self { generator, idleness: None }
    }

    /// A subtask without records for so long does not hold the others' watermark back; nor does a split, where a reader
    /// reads several at once.
    pub fn with_idleness(self, after: Duration) -> Self {
        Self { idleness: Some(after), ..self }
    }
}
