//! What went wrong with a job, newest first.

use super::{
    Answer, json,
    look::{Endpoints, Look},
};
use crate::{job_master::ExceptionEntry, rest::RestState};
use axum::{
    Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How many are told when the request does not say.
const DEFAULT_ENTRIES: usize = 20;

pub(super) fn routes() -> Router<RestState> {
    Router::new().route("/jobs/{job}/exceptions", get(exceptions))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(rename = "maxExceptions")]
    most: Option<usize>,
    /// `key:value`, several with commas: all must be there.
    #[serde(rename = "failureLabelFilter")]
    labels: Option<String>,
}

async fn exceptions(State(state): State<RestState>, Path(job): Path<String>, Query(wanted): Query<Wanted>) -> Answer {
    let leader = state.leader()?;
    let look = Look::at(&state, &leader, &job).await?;
    let endpoints = Endpoints::of(&leader).await;
    let wanted_labels: Vec<(&str, &str)> =
        wanted.labels.iter().flat_map(|l| l.split(',')).filter_map(|pair| pair.split_once(':')).collect();
    let fits = |e: &&ExceptionEntry| {
        let has = labels(e);
        wanted_labels.iter().all(|(k, v)| has.get(*k).and_then(Value::as_str) == Some(*v))
    };
    let most = wanted.most.unwrap_or(DEFAULT_ENTRIES);
    let newest_first: Vec<&ExceptionEntry> = look.view.exceptions.iter().rev().filter(fits).collect();
    let entries: Vec<Value> = newest_first.iter().take(most).map(|e| entry(&look, e, &endpoints)).collect();
    json(&json!({ "exceptionHistory": { "truncated": newest_first.len() > most, "entries": entries } }))
}

/// What operators sort failures by.
fn labels(e: &ExceptionEntry) -> Map<String, Value> {
    let mut labels = Map::new();
    labels.insert("kind".into(), format!("{:?}", e.failure.kind).into());
    labels.insert("attempt".into(), e.attempt.to_string().into());
    if let Some(uid) = &e.failure.uid {
        labels.insert("operator".into(), uid.clone().into());
    }
    labels
}

/// Flink's `RootExceptionInfo`. The name is our kind of failure, where Flink has a Java class.
fn entry(look: &Look, e: &ExceptionEntry, endpoints: &Endpoints) -> Value {
    let mut trace = format!("{}\n{}", e.failure, e.decision);
    if let Some(detail) = &e.failure.detail {
        trace.push_str("\n\n");
        trace.push_str(detail);
    }
    let mut entry = json!({
        "exceptionName": format!("{:?}", e.failure.kind),
        "stacktrace": trace,
        "timestamp": e.at,
        "failureLabels": labels(e),
        "concurrentExceptions": [],
    });
    // Absent for a failure that is of no task or TaskManager.
    if let Some(subtask) = e.failure.subtask
        && let Some(vertex) = look.view.graph.vertices.get(subtask.vertex as usize)
    {
        let (name, of) = (vertex.name(), vertex.parallelism);
        entry["taskName"] = format!("{name} ({}/{of}) - execution #{}", subtask.index + 1, e.attempt).into();
    }
    if let Some(id) = &e.task_manager {
        entry["endpoint"] = endpoints.at(Some(id)).into();
        entry["taskManagerId"] = id.as_str().into();
    }
    entry
}
