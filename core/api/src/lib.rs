//! The DataStream API: what a job author writes against.
//!
//! A program is `source → transformations → sink → execute`. Nothing runs before `execute`: the methods write a plan
//! down, and each subtask of the job, wherever it runs, is built from it.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let env = thalweg_api::testing::environment(2, std::env::temp_dir())?;
//! use thalweg_api::prelude::*;
//!
//! let lines = env.from_collection(["to be or", "not to be"]);
//! let counts = lines
//!     .flat_map(|line| line.split(' '))
//!     .map(str::to_owned)
//!     .key_by_ref(|word| word.as_str())
//!     .count()
//!     .uid("counts")
//!     .collect();
//! let result = env.execute("word count")?;
//!
//! let mut counts = result.collected(&counts)?;
//! counts.sort();
//! assert_eq!(counts, [("be", 2), ("not", 1), ("or", 1), ("to", 2)].map(|(w, n)| (w.to_owned(), n)));
//! # Ok(()) }
//! ```
//!
//! Who executes is behind [`Executor`]; this crate knows neither clusters nor processes.

mod chaining;
pub mod connected;
pub mod custom_windows;
pub mod environment;
pub mod error;
pub mod evicted;
pub mod executor;
pub mod job;
pub mod joined;
pub mod keyed;
pub mod nexmark;
pub mod operator;
pub mod parsed;
pub mod sinks;
pub mod stream;
pub mod testing;
mod timed;
pub mod triggered;
pub mod windowed;

pub use connected::{
    BroadcastConnectedStreams, ConnectedStreams, KeyedBroadcastConnectedStreams, KeyedConnectedStreams,
};
pub use custom_windows::CustomWindows;
pub use environment::Environment;
pub use error::JobError;
pub use evicted::EvictedStream;
pub use executor::{Executor, Ordinals, Program, ProgramDefaults, RunningJob};
pub use job::{JobHandle, JobResult};
pub use joined::{JoinWindows, JoinedStreams, JoinedTriggered, JoinedWindows};
pub use keyed::{IntervalJoined, KeyedKeys, KeyedStream};
pub use sinks::{Collected, SinkRef, TextOutput};
pub use stream::DataStream;
pub use thalweg_dataflow::{
    ByteStr, Data, Either, Key, NO_TIME, OutputTag, OwnedKey, Str, Time,
    asynchronous::AsyncOptions,
    broadcast::BroadcastProcessFunction,
    either::KeyedCoProcess,
    event_time::{BoundedOutOfOrderness, MonotonousTimestamps, NoWatermarks, WatermarkGenerator, WatermarkStrategy},
    fold::AggregateFunction,
    formats::{BadRecord, CsvOptions, ErrorPolicy},
    keyed::{KeyedContext, KeyedProcess, TimeDomain},
    keyed_broadcast::KeyedBroadcastProcessFunction,
    metrics::{Counter, Gauge, Histogram, Meter, Metric, Metrics},
    process::{ProcessContext, ProcessFunction},
    sink::{
        BucketAssigner, Committable, Committer, FileSink, LineFormat, Manifest, RollingPolicy, Sink, SinkWriter,
        SocketSink, TimeBuckets,
    },
    source::{
        Assignment, Collection, Enumerator, Generator, InvalidUtf8, Polled, Reader, ReaderCx, Sequence, SocketText,
        Source, TextBlock, TextBlocks, TextLines,
    },
    state::{
        AggregatingState, AggregatingView, KeyedState, KeyedStates, ListState, ListView, MapState, MapView,
        OperatorListState, OperatorStates, ReducingState, ReducingView, StateAt, StateTtl, ValueState, ValueView,
    },
    window::{
        ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountEvictor, CountTrigger, DeltaEvictor,
        DynamicSessionWindows, EventTimeSessionWindows, EventTimeTrigger, EvictAfter, Evictor, GlobalWindows,
        ProcessingTimeSessionWindows, ProcessingTimeTrigger, ProcessingTimeWindows, PurgingTrigger, RecordAssigner,
        SessionWindows, SlidingEventTimeWindows, SlidingProcessingTimeWindows, TimeEvictor, TimeWindow, TimeWindows,
        Trigger, TriggerContext, TriggerResult, TumblingEventTimeWindows, TumblingProcessingTimeWindows,
        WindowAssigner, WindowContext, WindowFunction, WindowStates, WindowTime, Windowed,
    },
};
pub use thalweg_model::{FailureKind, TaskFailure};
pub use thalweg_wire::{ExecutionMode, RestartStrategy};
pub use triggered::{DefaultTrigger, TriggeredStream, Windows};
pub use windowed::{LateAware, WindowedStream};

/// What most programs need. Of windows it holds all kinds and triggers: where a name is missing, the compiler suggests
/// one like it, of the other time.
pub mod prelude {
    pub use crate::{
        AggregateFunction, ByteStr, ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountTrigger,
        CustomWindows, DataStream, Environment, EventTimeSessionWindows, EventTimeTrigger, ExecutionMode,
        GlobalWindows, JobError, Key, KeyedContext, KeyedProcess, OutputTag, ProcessContext, ProcessFunction,
        ProcessingTimeSessionWindows, ProcessingTimeTrigger, PurgingTrigger, Sequence, SlidingEventTimeWindows,
        SlidingProcessingTimeWindows, Str, TextBlock, TimeDomain, TimeWindow, TumblingEventTimeWindows,
        TumblingProcessingTimeWindows, WatermarkStrategy, Windowed,
    };
}
