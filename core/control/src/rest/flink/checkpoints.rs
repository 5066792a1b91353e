//! Checkpoints: there are none yet, and Flink has words for a job that takes none.

use super::{super::RestError, Answer, look::Look};
use crate::rest::RestState;
use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};

pub(super) fn routes() -> Router<RestState> {
    Router::new().route("/jobs/{job}/checkpoints", get(none)).route("/jobs/{job}/checkpoints/config", get(none))
}

async fn none(State(state): State<RestState>, Path(job): Path<String>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?;
    Err(RestError::not_found("Checkpointing has not been enabled."))
}
