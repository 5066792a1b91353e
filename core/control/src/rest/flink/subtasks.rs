//! Shapes of subtasks: their counters, their times, and both of many at once.

use super::{look::Endpoints, states, statistics};
use crate::job_master::view::SubtaskView;
use serde::Serialize;
use serde_json::{Map, Value, json};
use thalweg_model::ExecutionState;

/// The states whose length Flink tells.
const TIMED: [ExecutionState; 5] = [
    ExecutionState::Created,
    ExecutionState::Scheduled,
    ExecutionState::Deploying,
    ExecutionState::Initializing,
    ExecutionState::Running,
];

/// Flink's `IOMetricsInfo`. Records are those from inputs and to outputs; a source's `read-records` are what it read from
/// outside. Bytes are those between hosts: what stays in a process is never serialised, and so has none. Times are
/// milliseconds of all these subtasks together, each since its attempt began.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct IoMetrics {
    read_bytes: u64,
    read_bytes_complete: bool,
    write_bytes: u64,
    write_bytes_complete: bool,
    read_records: u64,
    read_records_complete: bool,
    write_records: u64,
    write_records_complete: bool,
    accumulated_backpressured_time: u64,
    accumulated_idle_time: u64,
    accumulated_busy_time: f64,
}

impl IoMetrics {
    /// The sum of these subtasks'.
    pub fn sum<'a>(subtasks: impl Iterator<Item = &'a SubtaskView>) -> Self {
        // What a task counted comes with each of its reports, its last one too; only one that was lost may have counted
        // more than anybody heard of.
        let mut sum = Self {
            read_bytes: 0,
            read_bytes_complete: true,
            write_bytes: 0,
            write_bytes_complete: true,
            read_records: 0,
            read_records_complete: true,
            write_records: 0,
            write_records_complete: true,
            accumulated_backpressured_time: 0,
            accumulated_idle_time: 0,
            // Flink's is no whole number.
            accumulated_busy_time: 0.0,
        };
        for s in subtasks {
            sum.read_bytes += s.metrics.bytes_in;
            sum.write_bytes += s.metrics.bytes_out;
            sum.read_records += s.metrics.records_in;
            sum.write_records += s.metrics.records_out;
            sum.accumulated_backpressured_time += s.metrics.back_pressured_ms;
            sum.accumulated_idle_time += s.metrics.idle_ms;
            sum.accumulated_busy_time += s.metrics.busy_ms as f64;
            let complete = s.state != ExecutionState::Failed;
            sum.read_bytes_complete &= complete;
            sum.write_bytes_complete &= complete;
            sum.read_records_complete &= complete;
            sum.write_records_complete &= complete;
        }
        sum
    }
}

/// Milliseconds, -1 where there is none yet.
pub struct Span {
    /// The first was deployed.
    pub start: i64,
    /// The last ended.
    pub end: i64,
    /// From the one to the other, or to now.
    pub duration: i64,
}

/// From when the first of these subtasks was deployed to when the last ended.
pub fn span<'a>(subtasks: impl Iterator<Item = &'a SubtaskView> + Clone, now: u64) -> Span {
    let start = subtasks.clone().filter_map(|s| states::entered(s, ExecutionState::Deploying)).min();
    let Some(start) = start else { return Span { start: -1, end: -1, duration: -1 } };
    let over = subtasks.clone().all(|s| s.state.is_terminal());
    let end = subtasks.filter_map(|s| states::entered(s, s.state)).max().filter(|_| over);
    Span {
        start: start as i64,
        end: end.map_or(-1, |at| at as i64),
        duration: end.unwrap_or(now).saturating_sub(start) as i64,
    }
}

/// How long the subtask was in a state: to its next one, or to now; -1 when it never was.
fn time_in(subtask: &SubtaskView, state: ExecutionState, now: u64) -> i64 {
    let Some(since) = states::entered(subtask, state) else { return -1 };
    let all = ExecutionState::ALL.iter().filter(|s| **s > state);
    let next = all.filter_map(|s| states::entered(subtask, *s)).min();
    next.unwrap_or(now).saturating_sub(since) as i64
}

fn times_in(subtask: &SubtaskView, now: u64) -> Map<String, Value> {
    TIMED.iter().map(|s| (s.as_str().to_owned(), time_in(subtask, *s, now).into())).collect()
}

/// Flink's `SubtaskExecutionAttemptDetailsInfo`.
pub fn details(index: u32, subtask: &SubtaskView, endpoints: &Endpoints, now: u64) -> Value {
    let time = span(std::iter::once(subtask), now);
    let id = subtask.task_manager.as_ref();
    json!({
        "subtask": index,
        "status": subtask.state,
        "attempt": subtask.attempt,
        "endpoint": endpoints.at(id),
        // Both: the dashboard reads the one with the underscore.
        "start-time": time.start,
        "start_time": time.start,
        "end-time": time.end,
        "duration": time.duration,
        "metrics": IoMetrics::sum(std::iter::once(subtask)),
        "taskmanager-id": id.map_or(super::look::UNASSIGNED, |id| id.as_str()),
        "status-duration": times_in(subtask, now),
    })
}

/// Statistics over subtasks: Flink's `AggregatedTaskDetailsInfo`.
pub fn aggregated<'a>(subtasks: impl Iterator<Item = &'a SubtaskView> + Clone, now: u64) -> Value {
    let of = |number: fn(&SubtaskView) -> u64| {
        statistics::summary(subtasks.clone().map(|s| i64::try_from(number(s)).unwrap_or(i64::MAX)).collect())
    };
    let time = |state: ExecutionState| {
        let spent = subtasks.clone().map(|s| time_in(s, state, now)).filter(|t| *t >= 0);
        (state.as_str().to_owned(), statistics::summary(spent.collect()))
    };
    json!({
        "metrics": {
            "read-bytes": of(|s| s.metrics.bytes_in),
            "write-bytes": of(|s| s.metrics.bytes_out),
            "read-records": of(|s| s.metrics.records_in),
            "write-records": of(|s| s.metrics.records_out),
            "accumulated-backpressured-time": of(|s| s.metrics.back_pressured_ms),
            "accumulated-idle-time": of(|s| s.metrics.idle_ms),
            "accumulated-busy-time": of(|s| s.metrics.busy_ms),
        },
        "status-duration": TIMED.iter().map(|s| time(*s)).collect::<Map<_, _>>(),
    })
}
