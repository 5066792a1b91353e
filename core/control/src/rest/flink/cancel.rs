//! Cancelling a job, in the two ways that Flink's tools do it.

use super::{
    super::{RestError, api::job_id},
    Answer,
    body::{Body, MayWrite, Nothing},
    json_with,
};
use crate::{dispatcher::CancelAnswer, rest::RestState};
use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, patch},
};
use serde::Deserialize;
use serde_json::json;
use thalweg_model::JobStatus;

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/jobs/{job}", patch(terminate))
        // With GET, since YARN's proxy forwards nothing else; the dashboard's button calls it. A write all the same.
        .route("/jobs/{job}/yarn-cancel", get(yarn_cancel))
        .route("/jobs/{job}/yarn-stop", get(yarn_stop))
}

#[derive(Deserialize)]
struct Mode {
    mode: Option<String>,
}

async fn terminate(
    _: MayWrite,
    State(state): State<RestState>,
    Path(job): Path<String>,
    Query(mode): Query<Mode>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer {
    match mode.mode.as_deref() {
        None | Some("cancel") => cancel(&state, &job).await,
        Some("stop") => Err(stop()),
        Some(other) => Err(RestError::bad_request(format!("mode is cancel or stop, not {other:?}"))),
    }
}

async fn yarn_cancel(_: MayWrite, State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    cancel(&state, &job).await
}

async fn yarn_stop(_: MayWrite) -> Answer {
    Err(stop())
}

/// The status that Flink answers.
fn stop() -> RestError {
    let message = "mode=stop is gone, here as in Flink: cancel the job instead";
    RestError::new(StatusCode::PERMANENT_REDIRECT, message)
}

async fn cancel(state: &RestState, job: &str) -> Answer {
    let job = job_id(job)?;
    let answer = state.leader()?.dispatcher.cancel(job).await;
    match answer.ok_or_else(RestError::no_leader)? {
        CancelAnswer::Accepted | CancelAnswer::Ended(JobStatus::Canceled) => {
            json_with(StatusCode::ACCEPTED, &json!({}))
        }
        CancelAnswer::Unknown => Err(RestError::not_found(format!("Job {job} not found"))),
        CancelAnswer::Ended(status) => {
            Err(RestError::conflict(format!("job {job} has already ended: it is {status}, and cannot be cancelled")))
        }
    }
}
