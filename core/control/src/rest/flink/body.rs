//! What a request brings: a JSON body that may be absent, and the right to write.

use super::super::{RestError, RestState};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use serde::{Deserialize, de::DeserializeOwned};

/// The caller showed the cluster's secret, or need not. It stands before a [`Body`], so that nothing is read for someone
/// who may not write.
pub struct MayWrite;

impl FromRequestParts<RestState> for MayWrite {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, state: &RestState) -> Result<Self, RestError> {
        state.may_write(&parts.headers).map(|()| MayWrite)
    }
}

/// A JSON body. None at all is `{}`, as Flink has it, and unknown fields are ignored.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = RestError;

    async fn from_request(request: Request, state: &S) -> Result<Self, RestError> {
        let read = Bytes::from_request(request, state).await;
        let bytes = read.map_err(|e| RestError::new(e.status(), e.body_text()))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let parsed = serde_json::from_slice(text);
        parsed.map(Body).map_err(|e| RestError::bad_request(format!("the body is not what this route takes: {e}")))
    }
}

/// The body of a route that takes none.
#[derive(Debug, Deserialize)]
pub struct Nothing {}
