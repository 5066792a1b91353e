//! Windows.
//!
//! [`WindowSpec`] is the way most programs take: windows of one length, one result for each when the watermark passes
//! its end. It keeps one table a pane, so that a record is added once and a window is given up whole. [`TriggeredSpec`]
//! is for all others.

mod assigner;
mod combine;
mod context;
mod continuous;
mod evictor;
mod function;
mod gaps;
mod gather;
mod general;
mod panes;
mod trigger;
mod triggers;
mod turn;

pub use assigner::{
    EventTimeSessionWindows, GlobalWindows, ProcessingTimeSessionWindows, ProcessingTimeWindows, SessionWindows,
    SlidingEventTimeWindows, SlidingProcessingTimeWindows, TimeWindow, TimeWindows, TumblingEventTimeWindows,
    TumblingProcessingTimeWindows, WindowAssigner, WindowTime,
};
pub use combine::{WindowCombine, WindowCombineOp};
pub use context::{WindowContext, WindowStates};
pub use continuous::{ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger};
pub use evictor::{CountEvictor, DeltaEvictor, EvictAfter, Evictor, NoEvictor, TimeEvictor};
pub use function::{Aggregated, AggregatedWith, Apply, WindowFunction, Windowed, WithWindow};
pub use gaps::{DynamicSessionWindows, RecordAssigner};
pub use gather::{Gather, OfLeft, Untimed, WithTimes};
pub use general::{TriggeredOp, TriggeredSpec};
pub use panes::{WindowOp, WindowSpec};
pub use trigger::{Trigger, TriggerContext, TriggerResult};
pub use triggers::{CountTrigger, EventTimeTrigger, ProcessingTimeTrigger, PurgingTrigger};

/// What is told of a record without a time that comes to a window of event time.
const UNTIMED: &str = "a record without a time came to a window: give the stream its event time before, with \
                       assign_timestamps_and_watermarks, and mind that what a function gives out at its end has none \
                       where no record came to it";
