//! Who is refused while it still sends may never read why: a connection that closes with bytes unread is cut off. Whatever
//! part of this server refuses a request, and however early, what is left of its body is read and dropped here, up to a
//! bound, before the refusal goes out.
//!
//! A client that asked first (`Expect: 100-continue`) has sent nothing and is refused at once.

use super::RestState;
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use futures::TryStreamExt;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// So much of a refused body is read,
const MOST: usize = 64 << 20;
/// and for so long.
const LONGEST: Duration = Duration::from_secs(10);

/// A body that two hold; one of them at a time reads it.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// See the module.
pub(super) async fn read_to_the_end(State(state): State<RestState>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let rest = Shared(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(head, Body::new(rest.clone()))).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        // A body that breaks off has nobody left to tell.
        let _ = thalweg_env::timeout(&*state.env.clock, LONGEST, drop_all(Body::new(rest))).await;
    }
    response
}

async fn drop_all(body: Body) {
    let (mut stream, mut left) = (body.into_data_stream(), MOST);
    while let Ok(Some(piece)) = stream.try_next().await {
        left = left.saturating_sub(piece.len());
        if left == 0 {
            return;
        }
    }
}
