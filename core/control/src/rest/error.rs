//! Errors as Flink's clients read them: a status and `{"errors": ["…"]}`.

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// What every JSON answer is sent as. Flink's clients want the character set.
pub(crate) const JSON: &str = "application/json; charset=UTF-8";

/// A refusal.
#[derive(Debug)]
pub struct RestError {
    status: StatusCode,
    message: String,
}

impl RestError {
    /// With any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503, in the words that Flink's clients retry on.
    pub fn no_leader() -> Self {
        let message = "Service temporarily unavailable due to an ongoing leader election. Please refresh.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [self.message] }).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, JSON)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // Seconds: about as long as it takes until there is a leader again, where a standby waits.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Longest text of a refusal that is not ours.
const MAX_REFUSAL: usize = 64 << 10;

/// Gives a refusal that axum made by itself (a query that does not parse, a body that is too large, a method that a route
/// does not have) the form of all others.
pub(super) async fn as_json(request: Request, next: Next) -> Response {
    let head = request.method() == Method::HEAD;
    let response = next.run(request).await;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    if head || !refused || kind.is_some_and(|kind| !kind.starts_with(b"text/plain")) {
        return response;
    }
    let text = to_bytes(response.into_body(), MAX_REFUSAL).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = status.canonical_reason().unwrap_or("refused");
    RestError::new(status, if text.is_empty() { reason } else { text.as_ref() }).into_response()
}

impl From<thalweg_spi::ServiceError> for RestError {
    fn from(error: thalweg_spi::ServiceError) -> Self {
        use thalweg_spi::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Damaged | Kind::InvalidConfig => StatusCode::BAD_REQUEST,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Unavailable | Kind::Timeout | Kind::Fenced => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
