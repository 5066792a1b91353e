//! The two shapes of a job: one element of a list, and all of it.

use super::{
    look::{Look, VertexLook},
    plan, states,
    subtasks::{IoMetrics, span},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use thalweg_model::ExecutionState;

/// All our jobs are scheduled alike; Flink's clients know this name.
const SCHEDULER: &str = "Default";

/// Flink's `JobDetails`: an element of `/jobs/overview`.
pub fn brief(look: &Look) -> Value {
    let view = &look.view;
    // Lower-case keys here, upper-case ones in the whole: the dashboard expects both.
    let mut tasks = states::counts(look.subtasks().map(|s| &s.state), str::to_lowercase);
    tasks.insert("total".into(), look.subtasks().count().into());
    json!({
        "jid": view.id,
        "name": view.name,
        "start-time": view.submitted,
        "end-time": view.ended.map_or(-1, |at| at.0 as i64),
        "duration": look.duration(),
        "state": view.status,
        "last-modification": look.last_modification(),
        "tasks": tasks,
        "pending-operators": 0,
        "jobType": look.kind(),
        "schedulerType": SCHEDULER,
    })
}

/// Flink's `JobDetailsInfo`: `/jobs/ID`.
pub fn whole(look: &Look) -> Value {
    let view = &look.view;
    let vertices: Vec<Vertex> = look.vertices().map(|v| Vertex::of(look, &v)).collect();
    json!({
        "jid": view.id,
        "name": view.name,
        "isStoppable": false,
        "state": view.status,
        "job-type": look.kind(),
        "start-time": view.submitted,
        "end-time": view.ended.map_or(-1, |at| at.0 as i64),
        "duration": look.duration(),
        // Only vertices have one; -1 is Flink's "not set" for the job.
        "maxParallelism": -1,
        "now": look.now,
        "timestamps": states::job_timestamps(&view.statuses),
        "status-counts": states::counts(vertices.iter().map(|v| &v.status), str::to_owned),
        "vertices": vertices,
        "plan": plan::plan(look),
        "pending-operators": 0,
        "schedulerType": SCHEDULER,
        // Ours: which attempt this is, and why the job waits.
        "attempt": view.attempt,
        "waiting": view.waiting,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Vertex {
    id: String,
    #[serde(rename = "slotSharingGroupId")]
    slot_sharing_group: String,
    name: String,
    #[serde(rename = "maxParallelism")]
    max_parallelism: u32,
    parallelism: u32,
    status: ExecutionState,
    start_time: i64,
    end_time: i64,
    duration: i64,
    tasks: Map<String, Value>,
    metrics: IoMetrics,
    role: &'static str,
}

impl Vertex {
    fn of(look: &Look, v: &VertexLook<'_>) -> Self {
        let time = span(v.subtasks.iter(), look.now);
        let status = |s: &'_ crate::job_master::view::SubtaskView| s.state;
        let all: Vec<ExecutionState> = v.subtasks.iter().map(status).collect();
        Self {
            id: v.vertex.id.to_string(),
            // One group for each job: all vertices share slots.
            slot_sharing_group: look.view.id.to_string(),
            name: v.vertex.name(),
            max_parallelism: v.vertex.max_parallelism,
            parallelism: v.vertex.parallelism,
            status: states::aggregated(all.iter()),
            start_time: time.start,
            end_time: time.end,
            duration: time.duration,
            tasks: states::counts(&all, str::to_owned),
            metrics: IoMetrics::sum(v.subtasks.iter()),
            role: v.role(),
        }
    }
}
