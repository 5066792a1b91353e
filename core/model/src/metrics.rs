//! What one subtask tells of itself: counters and times, as its host reads them. Rates are made of two of these, elsewhere.

use crate::Moment;
use serde::{Deserialize, Serialize};

/// What one subtask has done so far. Counters only grow within one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubtaskMetrics {
    /// Records taken from inputs.
    pub records_in: u64,
    /// Records given to outputs.
    pub records_out: u64,
    /// Bytes taken from other hosts.
    pub bytes_in: u64,
    /// Bytes given to other hosts.
    pub bytes_out: u64,
    /// Bytes a source has read from the outside.
    pub source_bytes: u64,
    /// Bytes a source will read in all, where that is known.
    pub source_bytes_total: u64,
    /// Steps that took more than 100 ms.
    pub slow_steps: u64,
    /// Records that came after their windows were over and went nowhere. Those that were combined before they travelled
    /// are one.
    pub late_dropped: u64,
    /// Lines that could not be read, and were left out as the program wants it.
    pub skipped: u64,
    /// Milliseconds in which it worked. The three times are all there is but for what it waited for its slot's thread,
    /// which worked for others.
    pub busy_ms: u64,
    /// Milliseconds in which it had nothing to do.
    pub idle_ms: u64,
    /// Milliseconds in which it could not go on since there was no room behind it.
    pub back_pressured_ms: u64,
    /// Event time that its inputs have reached, milliseconds since 1970 UTC; none before the first watermark. No counter,
    /// though it does not go back either.
    pub watermark: Option<i64>,
    /// Batches that wait before it: they have arrived, and it has yet to take them. No counter.
    pub input_queue: u64,
    /// Batches that wait behind it: they have yet to leave it, or its process. No counter.
    pub output_queue: u64,
    /// How old the latency markers were that it got lately; none where there are no markers.
    pub latency: Option<LatencyMillis>,
    /// What its functions count by themselves.
    pub user: Vec<UserMetric>,
    /// When all of this was read, by the clock of the process that counts. A host of an earlier version tells none.
    pub read_at: Option<Moment>,
}

/// One number that a user's function tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserMetric {
    /// Of which operator: its place in the vertex.
    pub operator: u32,
    /// Its name within the operator.
    pub name: String,
    /// The number; of a rate, events in a thousand seconds.
    pub value: i64,
    /// It is shown as events in a second.
    pub is_rate: bool,
}

/// Ages of latency markers, milliseconds from the source to the task: the greatest of those that came lately, and those
/// that a half, 95 and 99 of a hundred do not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyMillis {
    /// Of a half.
    pub p50: u64,
    /// Of 95 in a hundred.
    pub p95: u64,
    /// Of 99 in a hundred.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}
