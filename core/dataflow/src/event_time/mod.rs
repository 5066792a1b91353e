//! Event time: where records get their times, and how the watermark follows them.
//!
//! A watermark of `t` says that no record with a time of `t` or earlier follows. Streams have event time from
//! [`Stamp`] on; what an exchange carries is the time of each record and, behind a batch, the newest watermark.

mod splits;
mod stamp;
mod strategy;
mod timers;

pub(crate) use stamp::{LIMIT, LOOKS};
pub use stamp::{Stamp, StampOp};
pub(crate) use strategy::Alignment;
pub use strategy::{BoundedOutOfOrderness, MonotonousTimestamps, NoWatermarks, WatermarkGenerator, WatermarkStrategy};
pub use timers::{Due, Timers};
