//! The cluster as a whole, and its end.

use super::{
    Answer,
    body::{Body, MayWrite, Nothing},
    json,
};
use crate::rest::RestState;
use axum::{
    Router,
    extract::State,
    routing::{delete, get},
};
use serde_json::json;
use thalweg_model::JobStatus;

/// Flink's own words for a build that does not know its commit.
const UNKNOWN: &str = "<unknown>";

pub(super) fn routes() -> Router<RestState> {
    Router::new().route("/config", get(config)).route("/overview", get(overview)).route("/cluster", delete(shut_down))
}

/// Known without a leader: a dashboard can start before there is one.
async fn config(State(state): State<RestState>) -> Answer {
    json(&json!({
        "refresh-interval": 3000,
        // All times that we send are UTC.
        "timezone-name": "UTC",
        "timezone-offset": 0,
        // The version of Thalweg: tools show it and do not reckon with it.
        "flink-version": env!("CARGO_PKG_VERSION"),
        "flink-revision": "unknown revision",
        "features": {
            "web-submit": false,
            // The dashboard cannot send the secret.
            "web-cancel": !state.writes_need_secret,
            "web-rescale": false,
            "web-history": false,
        },
    }))
}

async fn overview(State(state): State<RestState>) -> Answer {
    let leader = state.leader()?;
    let workers = leader.resources.view().await;
    let jobs = leader.dispatcher.entries().await;
    let count = |wanted: fn(JobStatus) -> bool| jobs.iter().filter(|e| wanted(e.status)).count();
    json(&json!({
        "taskmanagers": workers.len(),
        "slots-total": workers.iter().map(|w| w.slots.len()).sum::<usize>(),
        "slots-available": workers.iter().map(|w| w.free).sum::<u32>(),
        "jobs-running": count(|s| !s.is_terminal()),
        "jobs-finished": count(|s| s == JobStatus::Finished),
        "jobs-cancelled": count(|s| s == JobStatus::Canceled),
        "jobs-failed": count(|s| s == JobStatus::Failed),
        "flink-version": env!("CARGO_PKG_VERSION"),
        "flink-commit": UNKNOWN,
    }))
}

async fn shut_down(_: MayWrite, State(state): State<RestState>, Body(Nothing {}): Body<Nothing>) -> Answer {
    state.leader()?.dispatcher.stop();
    json(&json!({}))
}
