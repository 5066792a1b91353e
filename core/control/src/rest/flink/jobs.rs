//! Jobs: lists, and what a client asks of one.

use super::{Answer, details, json, look::Look};
use crate::rest::{RestState, flink::job_manager::shown};
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use serde_json::{Value, json};
use thalweg_model::JobStatus;
use thalweg_wire::{JobResult, RestartStrategy};

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/overview", get(overview))
        .route("/jobs/{job}", get(whole))
        .route("/jobs/{job}/status", get(status))
        .route("/jobs/{job}/config", get(config))
        .route("/jobs/{job}/execution-result", get(execution_result))
        .route("/jobs/{job}/accumulators", get(accumulators))
}

async fn list(State(state): State<RestState>) -> Answer {
    let looks = Look::all(&state, &state.leader()?).await;
    let jobs = looks.iter().map(|l| json!({ "id": l.view.id, "status": l.view.status }));
    json(&json!({ "jobs": jobs.collect::<Vec<_>>() }))
}

async fn overview(State(state): State<RestState>) -> Answer {
    let looks = Look::all(&state, &state.leader()?).await;
    json(&json!({ "jobs": looks.iter().map(details::brief).collect::<Vec<_>>() }))
}

async fn whole(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    json(&details::whole(&Look::at(&state, &state.leader()?, &job).await?))
}

async fn status(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    json(&json!({ "status": look.view.status }))
}

async fn config(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    let view = Look::at(&state, &state.leader()?, &job).await?.view;
    json(&json!({
        "jid": view.id,
        "name": view.name,
        "execution-config": {
            "restart-strategy": in_words(&view.restart),
            "job-parallelism": view.parallelism,
            // A question of Java: whether operators may see an object that others hold.
            "object-reuse-mode": false,
            "user-config": view.options.iter().map(|(k, v)| (k.clone(), shown(k, v).into())).collect::<serde_json::Map<_, _>>(),
        },
    }))
}

fn in_words(restart: &RestartStrategy) -> String {
    match restart {
        RestartStrategy::ByKind => "By kind of failure: what was lost restarts, what user code did does not".into(),
        RestartStrategy::None => "Restart deactivated".into(),
        RestartStrategy::FixedDelay { attempts, delay } => {
            format!("Restart with fixed delay ({} ms), at most {attempts} times", delay.as_millis())
        }
        RestartStrategy::FailureRate { max_failures, interval, delay } => format!(
            "Restart after {} ms, unless more than {max_failures} failures happen within {} ms",
            delay.as_millis(),
            interval.as_millis()
        ),
        RestartStrategy::ExponentialDelay { initial, max, multiplier, attempts, .. } => format!(
            "Restart with a delay that grows from {} ms to {} ms by {multiplier}, {}",
            initial.as_millis(),
            max.as_millis(),
            attempts.map_or_else(|| "for ever".to_owned(), |n| format!("at most {n} times")),
        ),
    }
}

async fn execution_result(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    json(&match &look.result {
        None => json!({ "status": { "id": "IN_PROGRESS" } }),
        Some(result) => json!({ "status": { "id": "COMPLETED" }, "job-execution-result": job_result(result) }),
    })
}

/// Flink's `JobResult`. Its `failure-cause` is a Java object stream, which a client that is sent anything else cannot
/// read past; it may be left out, and `/exceptions` has the cause in words.
fn job_result(result: &JobResult) -> Value {
    json!({
        "id": result.job,
        "name": result.name,
        "application-status": match result.status {
            JobStatus::Finished => "SUCCEEDED",
            JobStatus::Failed => "FAILED",
            JobStatus::Canceled => "CANCELED",
            _ => "UNKNOWN",
        },
        "accumulator-results": {},
        "net-runtime": result.ended.0.saturating_sub(result.started.0),
        "start-time": result.started,
        "end-time": result.ended,
    })
}

/// There are no accumulators: Flink's are Java objects that user code registers.
async fn accumulators(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?;
    json(&json!({
        "job-accumulators": [], "user-task-accumulators": [], "serialized-user-task-accumulators": {},
    }))
}
