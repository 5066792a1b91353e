//! One vertex: its subtasks, their times, and where they run.

use super::{
    super::RestError,
    Answer, json,
    look::{Endpoints, Look, VertexLook},
    states, subtasks,
};
use crate::{job_master::view::SubtaskView, rest::RestState};
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn routes() -> Router<RestState> {
    let at = |rest: &str| format!("/jobs/{{job}}/vertices/{{vertex}}{rest}");
    Router::new()
        .route(&at(""), get(details))
        .route(&at("/subtasktimes"), get(subtask_times))
        .route(&at("/taskmanagers"), get(task_managers))
        .route(&at("/accumulators"), get(accumulators))
        .route(&at("/subtasks/accumulators"), get(subtask_accumulators))
        .route(&at("/subtasks/{subtask}"), get(subtask))
        .route(&at("/subtasks/{subtask}/attempts/{attempt}"), get(attempt))
        .route(&at("/subtasks/{subtask}/attempts/{attempt}/accumulators"), get(attempt_accumulators))
}

/// The subtasks with their indices.
fn numbered<'a>(v: &VertexLook<'a>) -> impl Iterator<Item = (u32, &'a SubtaskView)> {
    (0..).zip(v.subtasks)
}

async fn details(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let all: Vec<Value> = numbered(&v).map(|(i, s)| subtasks::details(i, s, &endpoints, look.now)).collect();
    json(&json!({
        "id": v.vertex.id,
        "name": v.vertex.name(),
        "parallelism": v.vertex.parallelism,
        "maxParallelism": v.vertex.max_parallelism,
        "now": look.now,
        "subtasks": all,
        "aggregated": subtasks::aggregated(v.subtasks.iter(), look.now),
        "role": v.role(),
    }))
}

async fn subtask_times(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let times = numbered(&v).map(|(i, s)| {
        json!({
            "subtask": i,
            "endpoint": endpoints.at(s.task_manager.as_ref()),
            "duration": subtasks::span(std::iter::once(s), look.now).duration,
            "timestamps": states::timestamps(s),
        })
    });
    let times: Vec<Value> = times.collect();
    json(&json!({ "id": v.vertex.id, "name": v.vertex.name(), "now": look.now, "subtasks": times }))
}

async fn task_managers(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let mut by_place: BTreeMap<_, Vec<&SubtaskView>> = BTreeMap::new();
    for s in v.subtasks {
        by_place.entry(s.task_manager.as_ref()).or_default().push(s);
    }
    let places = by_place.into_iter().map(|(id, there)| {
        let time = subtasks::span(there.iter().copied(), look.now);
        json!({
            "endpoint": endpoints.at(id),
            "status": states::aggregated(there.iter().map(|s| &s.state)),
            "start-time": time.start,
            "end-time": time.end,
            "duration": time.duration,
            "metrics": subtasks::IoMetrics::sum(there.iter().copied()),
            "status-counts": states::counts(there.iter().map(|s| &s.state), str::to_owned),
            "taskmanager-id": id.map_or(super::look::UNASSIGNED, |id| id.as_str()),
            "aggregated": subtasks::aggregated(there.iter().copied(), look.now),
        })
    });
    let places: Vec<Value> = places.collect();
    json(&json!({ "id": v.vertex.id, "name": v.vertex.name(), "now": look.now, "taskmanagers": places }))
}

async fn subtask(
    State(state): State<RestState>,
    Path((job, vertex, subtask)): Path<(String, String, String)>,
) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let (index, s) = v.subtask(&subtask)?;
    json(&subtasks::details(index, s, &endpoints, look.now))
}

/// The subtask under this attempt. Only the newest one's numbers are kept: with a restart every task starts afresh.
fn under_attempt<'a>(v: &'a VertexLook<'_>, subtask: &str, attempt: &str) -> Result<(u32, &'a SubtaskView), RestError> {
    let bad = |_| RestError::bad_request(format!("{attempt:?} is not the number of an attempt"));
    let wanted: u32 = attempt.parse().map_err(bad)?;
    let (index, s) = v.subtask(subtask)?;
    if s.attempt != wanted {
        let message = format!("attempt {wanted} of subtask {index} is not kept: the present one is {}", s.attempt);
        return Err(RestError::not_found(message));
    }
    Ok((index, s))
}

async fn attempt(
    State(state): State<RestState>,
    Path((job, vertex, subtask, attempt)): Path<(String, String, String, String)>,
) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let (index, s) = under_attempt(&v, &subtask, &attempt)?;
    json(&subtasks::details(index, s, &endpoints, look.now))
}

/// There are no accumulators, as in `jobs.rs`.
async fn accumulators(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    json(&json!({ "id": look.vertex(&vertex)?.vertex.id, "user-accumulators": [] }))
}

async fn subtask_accumulators(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let v = look.vertex(&vertex)?;
    let all = numbered(&v).map(|(i, s)| {
        let endpoint = endpoints.at(s.task_manager.as_ref());
        json!({ "subtask": i, "attempt": s.attempt, "endpoint": endpoint, "user-accumulators": [] })
    });
    let all: Vec<Value> = all.collect();
    json(&json!({ "id": v.vertex.id, "parallelism": v.vertex.parallelism, "subtasks": all }))
}

async fn attempt_accumulators(
    State(state): State<RestState>,
    Path((job, vertex, subtask, attempt)): Path<(String, String, String, String)>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let (index, s) = under_attempt(&v, &subtask, &attempt)?;
    // Flink names an execution by an id of its own; ours is the vertex, the subtask and the attempt.
    let id = format!("{}_{index}_{}", v.vertex.id, s.attempt);
    json(&json!({ "subtask": index, "attempt": s.attempt, "id": id, "user-accumulators": [] }))
}
