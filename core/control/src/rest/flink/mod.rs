//! Flink's v1 routes and JSON, for what exists now: its dashboard, its command line and the tools around them work.
//!
//! Every route is registered twice, with and without `/v1`: the command line calls one, the dashboard the other. Names of
//! fields are Flink's, in all their styles; a number that Thalweg does not count yet is sent as what Flink's clients
//! accept as "none" (-1, 0, an empty list), with a comment where it is made. Extra fields are ours: clients
//! ignore them.
//!
//! | file | routes |
//! |---|---|
//! | [`cluster`] | `/config`, `/overview`, `DELETE /cluster` |
//! | [`jobs`] | `/jobs`, `/jobs/overview`, `/jobs/ID`, status, config, result, accumulators |
//! | [`cancel`] | `PATCH /jobs/ID?mode=cancel`, `yarn-cancel` |
//! | [`plan`] | `/jobs/ID/plan` |
//! | [`exceptions`] | `/jobs/ID/exceptions` |
//! | [`checkpoints`] | `/jobs/ID/checkpoints…`: says that there are none |
//! | [`vertices`] | `/jobs/ID/vertices/VID`, its subtasks, times, TaskManagers |
//! | [`metrics`] | `…/metrics`, `…/watermarks`, `…/backpressure` |
//! | [`task_managers`] | `/taskmanagers…` |
//! | [`job_manager`] | `/jobmanager…` |

pub mod body;
pub mod cancel;
pub mod checkpoints;
pub mod cluster;
pub mod details;
pub mod exceptions;
pub mod job_manager;
pub mod jobs;
pub mod look;
pub mod metrics;
pub mod plan;
pub mod states;
pub mod statistics;
pub mod subtasks;
pub mod task_managers;
pub mod vertices;

use super::{RestError, RestState, error::JSON};
use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// What a handler answers.
pub(super) type Answer = Result<Response, RestError>;

/// 200 with this as JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Answer {
    json_with(StatusCode::OK, value)
}

/// This status with this as JSON.
pub(super) fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Answer {
    let text = serde_json::to_vec(value).map_err(|e| RestError::internal(e.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, JSON)], text).into_response())
}

/// All of them, twice.
pub(super) fn routes() -> Router<RestState> {
    Router::new().merge(once()).nest("/v1", once())
}

fn once() -> Router<RestState> {
    Router::new()
        .merge(cluster::routes())
        .merge(jobs::routes())
        .merge(cancel::routes())
        .merge(plan::routes())
        .merge(exceptions::routes())
        .merge(checkpoints::routes())
        .merge(vertices::routes())
        .merge(metrics::routes())
        .merge(task_managers::routes())
        .merge(job_manager::routes())
}
