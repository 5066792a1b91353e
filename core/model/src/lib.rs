//! Plain data that every part of Thalweg speaks: ids, epochs, the job graph, states, failures and counters.
//!
//! It has no I/O, no runtime and no dependency on another crate of ours. Forms that must be read by
//! another version of Thalweg are in `thalweg-wire`; what is here is free to change with the code.

pub mod failure;
pub mod graph;
pub mod ids;
pub mod metrics;
pub mod placement;
pub mod regions;
pub mod status;
pub mod time;

pub use failure::{FailureKind, TaskFailure};
pub use graph::{Edge, JobGraph, OperatorInfo, Partitioner, Vertex, VertexRole};
pub use ids::{
    AllocationId, Attempt, BlobKey, ClusterId, Epoch, InstanceId, JobId, ParseIdError, SubtaskId, TaskManagerId,
    VertexId,
};
pub use metrics::{LatencyMillis, SubtaskMetrics, UserMetric};
pub use placement::{HostPlace, Placement, SubtaskPlace};
pub use regions::{RegionAttempt, Regions};
pub use status::{ExecutionState, JobStatus};
pub use time::{Moment, UnixMillis};
