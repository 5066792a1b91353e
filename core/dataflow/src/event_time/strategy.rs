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
    pub(crate) alignment: Option<Alignment>,
}

/// How far ahead of the others a reader may be.
#[derive(Clone, Debug)]
pub(crate) struct Alignment {
    pub(crate) group: String,
    pub(crate) drift: Time,
    pub(crate) interval: Duration,
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
        Self { generator, idleness: None, alignment: None }
    }

    /// A subtask without records for so long does not hold the others' watermark back; nor does a split, where a reader
    /// reads several at once.
    pub fn with_idleness(self, after: Duration) -> Self {
        Self { idleness: Some(after), ..self }
    }

    /// A reader of the source waits while its watermark is more than `max_drift` (ms precision) ahead of the lowest of the
    /// group, so that what is kept for the slow ones stays bounded. Of several splits those wait that are too far ahead, if
    /// the source can read them in any order. Watermarks are exchanged at most each `update_interval`, more than 0.
    ///
    /// All sources of a job that name one group wait for each other; each keeps to its own drift and interval,
    /// whatever the others have. They become one region: they start again together.
    ///
    /// Readers that are idle, have nothing to read, or no watermark yet hold nobody back; one that merely has no records for a
    /// while does, unless [`with_idleness`](WatermarkStrategy::with_idleness) is given too. The strategy must come right
    /// behind a source, and all strategies of one source name the same group. Batch mode has no watermarks, and aligns
    /// nothing.
    pub fn with_alignment(self, group: impl Into<String>, max_drift: Duration, update_interval: Duration) -> Self {
        let drift = Time::try_from(max_drift.as_millis()).unwrap_or(Time::MAX);
        let alignment = Alignment { group: group.into(), drift, interval: update_interval };
        Self { alignment: Some(alignment), ..self }
    }

    /// The group of [`with_alignment`](WatermarkStrategy::with_alignment), if one was given.
    pub fn alignment_group(&self) -> Option<&str> {
        self.alignment.as_ref().map(|alignment| &*alignment.group)
    }

    /// What is wrong with it, if something is.
    pub fn check(&self) -> Result<(), String> {
        match &self.alignment {
            Some(alignment) if alignment.interval.is_zero() => Err(format!(
                "watermark alignment of group {:?} has an update interval of nothing: give one of some milliseconds or more",
                alignment.group
            )),
            _ => Ok(()),
        }
    }
}
