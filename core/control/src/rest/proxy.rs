//! What a JobManager that does not lead answers: whatever the leader answers. The request goes on to the leader as it
//! is, headers and secret with it, and both bodies are streamed; so any JobManager's address will do for a client.
//!
//! A request is sent on once. A process that is taken for the leader and is not answers 503, like one that knows of no
//! leader. `GET /api/jobmanager` is about this very process and never sent on:
//! `{cluster, leads, epoch?, pid, rest, rpc, leader: {rest, rpc, epoch}?}`.

use super::{RestError, RestState};
use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use thalweg_env::{Address, timeout};
use thalweg_spi::LeaderInfo;
use tokio::sync::watch;

/// Where this process is, and where it learns who leads.
pub struct Whereabouts {
    /// This process's REST: `http://host:port`.
    pub rest: String,
    /// Where it takes RPC.
    pub rpc: String,
    /// The present leader, and each later one.
    pub leader: watch::Receiver<Option<LeaderInfo>>,
}

/// The route about this process.
const OWN: &str = "/api/jobmanager";
/// On a request that was sent on.
const FORWARDED: HeaderName = HeaderName::from_static("x-thalweg-forwarded");
/// A leader that takes no connection for so long does not answer.
const CONNECT: Duration = Duration::from_secs(2);
/// Headers of one connection, which mean nothing on the next.
const OF_THE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

pub(super) fn routes() -> Router<RestState> {
    Router::new().route(OWN, get(job_manager))
}

async fn job_manager(State(state): State<RestState>) -> Json<Value> {
    let leads = state.leader().ok().map(|leader| leader.epoch);
    let whereabouts = state.whereabouts.get();
    let named = whereabouts.and_then(|w| w.leader.borrow().clone());
    let leader = named.map(|l| json!({ "rest": l.rest, "rpc": l.rpc, "epoch": l.epoch }));
    let mut answer = json!({
        "cluster": state.cluster, "leads": leads.is_some(), "pid": std::process::id(),
        "rest": whereabouts.map(|w| &w.rest), "rpc": whereabouts.map(|w| &w.rpc), "leader": leader,
    });
    if let Some(epoch) = leads {
        answer["epoch"] = json!(epoch);
    }
    Json(answer)
}

/// Answers a request itself while this process leads, and has the leader answer it otherwise.
pub(super) async fn forward(State(state): State<RestState>, request: Request, next: Next) -> Response {
    if state.leader().is_ok() || request.uri().path() == OWN {
        return next.run(request).await;
    }
    if request.headers().contains_key(FORWARDED) {
        return RestError::no_leader().into_response();
    }
    let leader = match state.whereabouts.get().map_or(Ok(None), other_leader) {
        Ok(leader) => leader,
        Err(refusal) => return refusal.into_response(),
    };
    let Some(leader) = leader else {
        // What depends on no leader (the page, the configuration) can be told, and the rest refuses by itself.
        let read = matches!(*request.method(), Method::GET | Method::OPTIONS);
        if read && !request.uri().path().starts_with("/api/") {
            return next.run(request).await;
        }
        return RestError::no_leader().into_response();
    };
    // An upload that would be refused is refused before its bytes have crossed the network twice.
    if *request.method() == Method::PUT
        && let Err(refusal) = state.may_write(request.headers())
    {
        return refusal.into_response();
    }
    send_on(&state, leader, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// The leader, unless it is this process: then it was named before it is ready, or is named no longer.
fn other_leader(whereabouts: &Whereabouts) -> Result<Option<LeaderInfo>, RestError> {
    let named = whereabouts.leader.borrow().clone();
    match named {
        // Another process by its RPC, on another host: asking it would be asking oneself for ever.
        Some(leader) if leader.rest == whereabouts.rest && leader.rpc != whereabouts.rpc => {
            let message = format!(
                "the leader announces its REST as {}, which is this process's own: set rest.bind, and job-manager.address where it is 0.0.0.0, so that other hosts reach it",
                leader.rest
            );
            Err(RestError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        named => Ok(named.filter(|leader| leader.rest != whereabouts.rest)),
    }
}

async fn send_on(state: &RestState, leader: LeaderInfo, request: Request) -> Result<Response, RestError> {
    let away = |why: &dyn std::fmt::Display| {
        let message = format!("the leader at {} does not answer: {why}; try again", leader.rest);
        RestError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    };
    let authority = leader.rest.strip_prefix("http://").unwrap_or(&leader.rest).trim_end_matches('/');
    let host = HeaderValue::from_str(authority).map_err(|e| away(&e))?;
    let address = Address::Tcp(authority.to_owned());
    let connected = timeout(&*state.env.clock, CONNECT, state.env.network.connect(&address)).await;
    let stream =
        connected.map_err(|_| away(&format!("no connection within {}s", CONNECT.as_secs())))?.map_err(|e| away(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| away(&e))?;
    // It ends with the answer's last byte, or when the answer is dropped.
    state.env.spawner.spawn("rest-forward", async move {
        if let Err(e) = connection.await {
            tracing::debug!("a request that was sent on to the leader was cut short: {e}");
        }
    });
    let request = prepared(request, host).map_err(|e| RestError::bad_request(e.to_string()))?;
    let broken = |why: &dyn std::fmt::Display| {
        let message = format!("{why}; what was asked may have happened, try again");
        RestError::new(StatusCode::BAD_GATEWAY, message)
    };
    let answer = tokio::select! {
        answer = sender.send_request(request) => {
            answer.map_err(|e| broken(&format!("the leader at {} did not answer: {e}", leader.rest)))?
        }
        // A leader that hangs holds its connections until somebody else leads, and perhaps longer.
        () = replaced(state, &leader) => {
            return Err(broken(&format!("the leader at {} was replaced before it answered", leader.rest)));
        }
    };
    let mut answer = answer.map(Body::new);
    strip(answer.headers_mut());
    Ok(answer)
}

/// Resolves when somebody else leads, or nobody.
async fn replaced(state: &RestState, leader: &LeaderInfo) {
    if let Some(mut named) = state.whereabouts.get().map(|w| w.leader.clone())
        && named.wait_for(|now| now.as_ref() != Some(leader)).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The request as the leader gets it.
fn prepared(request: Request, host: HeaderValue) -> Result<Request, axum::http::Error> {
    let (mut head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
    head.uri = target.parse::<Uri>()?;
    head.version = Version::HTTP_11;
    strip(&mut head.headers);
    head.headers.insert(header::HOST, host);
    head.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    Ok(Request::from_parts(head, body))
}

/// Takes away what belongs to the connection, and what `Connection` says belongs to it.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}
