//! `/` in a browser: one static page that reads the JSON routes. It is part of the executable and needs nothing from
//! elsewhere, so it works without a network.

use super::RestState;
use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

/// Nothing but our own script and style runs in the page, whatever a job is called.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/", get(|| async { file("text/html; charset=UTF-8", include_str!("index.html")) }))
        .route("/index.html", get(|| async { file("text/html; charset=UTF-8", include_str!("index.html")) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=UTF-8", include_str!("page.js")) }))
        .route("/page.css", get(|| async { file("text/css; charset=UTF-8", include_str!("page.css")) }))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Another version may be served on this port tomorrow.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
