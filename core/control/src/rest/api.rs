//! Our own routes, under `/api`: blobs, submission, results, the end of a cluster.
//!
//! | route | what |
//! |---|---|
//! | `HEAD /api/blobs/KEY` | is it there? 200 or 404 |
//! | `PUT /api/blobs/KEY` | the content, zstd when `Content-Encoding: zstd`; 201 |
//! | `POST /api/jobs` | MessagePack of [`Submission`]; answers a [`SubmissionAnswer`] |
//! | `GET /api/jobs/ID/result` | MessagePack of a [`ResultAnswer`]; `?attached=true` counts as a sign of life, `?wait=ms` waits for the end |
//! | `GET /api/jobs/ID/progress` | bytes that its sources read, of all, records, tasks, attempt; JSON |
//! | `GET /api/overview` | TaskManagers and jobs, JSON |
//! | `GET /api/jobs/ID/logs` | which TaskManager has which log of the job, JSON |
//! | `GET /api/taskmanagers/ID/logs/NAME?offset=N` | a piece of one; empty at its end |
//! | `GET /api/main?offset=N` | a piece of what the `main` of a per-job cluster printed |
//! | `POST /api/end-read` | the attached client knows how the cluster ended: it need not wait |
//! | `POST /api/stop` | the cluster ends |
//! | `GET /api/jobmanager` | whether this very process leads, and who does; JSON, see [`super::proxy`] |

use super::{RestError, RestState};
pub use crate::submission::{ResultAnswer, Submission, SubmissionAnswer};
use crate::{
    dispatcher::Submitted,
    portability::{self, Platform},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thalweg_model::{BlobKey, JobId, TaskManagerId};
use thalweg_rpc::{
    Fence, Target,
    gateways::{TaskExecutorGateway, endpoint},
};
use thalweg_wire::{RestartStrategy, decode, encode};
use tokio::io::AsyncReadExt;
use tokio_util::io::StreamReader;

/// Longest submission: a graph, arguments and earlier results.
const MAX_SUBMISSION: usize = 64 << 20;
/// Most of an executable that is looked at for portability.
const MAX_INSPECTED: u64 = 2 << 30;

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/api/blobs/{key}", head(has_blob).put(put_blob))
        .route("/api/jobs", post(submit))
        .route("/api/jobs/{job}/progress", get(progress))
        .route("/api/overview", get(overview))
        .route("/api/jobs/{job}/logs", get(job_logs))
        .route("/api/taskmanagers/{id}/logs/{*name}", get(task_manager_log))
        .route("/api/main", get(main_output))
        .route("/api/jobs/{job}/result", get(result))
        .route("/api/end-read", post(end_read))
        .route("/api/stop", post(stop))
        // Blobs are streamed, and everything else has a limit of its own.
        .layer(axum::extract::DefaultBodyLimit::disable())
}

pub(crate) fn job_id(text: &str) -> Result<JobId, RestError> {
    text.parse().map_err(|e: thalweg_model::ParseIdError| RestError::bad_request(e.to_string()))
}

fn blob_key(text: &str) -> Result<BlobKey, RestError> {
    text.parse().map_err(|e: thalweg_model::ParseIdError| RestError::bad_request(e.to_string()))
}

async fn has_blob(State(state): State<RestState>, Path(key): Path<String>) -> Result<StatusCode, RestError> {
    let info = state.blobs.head(blob_key(&key)?).await?;
    Ok(if info.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

async fn put_blob(
    State(state): State<RestState>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, RestError> {
    state.may_write(&headers)?;
    let key = blob_key(&key)?;
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let raw = StreamReader::new(stream);
    match headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes()) {
        None => state.blobs.put(key, Box::pin(raw)).await?,
        Some(b"zstd") => {
            let plain = async_compression::tokio::bufread::ZstdDecoder::new(raw);
            state.blobs.put(key, Box::pin(plain)).await?;
        }
        Some(_) => return Err(RestError::bad_request("Content-Encoding may be zstd or absent")),
    }
    Ok(StatusCode::CREATED)
}

fn packed<T: Serialize>(status: StatusCode, value: &T) -> Response {
    (status, [(header::CONTENT_TYPE, "application/msgpack")], encode(value)).into_response()
}

async fn limited(body: Body) -> Result<Bytes, RestError> {
    axum::body::to_bytes(body, MAX_SUBMISSION).await.map_err(|_| {
        RestError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a submission may have {MAX_SUBMISSION} bytes at most"))
    })
}

async fn submit(State(state): State<RestState>, headers: HeaderMap, body: Body) -> Result<Response, RestError> {
    state.may_write(&headers)?;
    let leader = state.leader()?;
    let body = limited(body).await?;
    let mut submission: Submission =
        decode(&body, MAX_SUBMISSION).map_err(|e| RestError::bad_request(format!("not a submission: {e}")))?;
    if submission.spec.restart == RestartStrategy::ByKind {
        submission.spec.restart = state.restart.clone();
    }
    check_portable(&state, &leader, submission.spec.executable).await?;
    let linked = &submission.spec.plugins;
    if let Some(missing) = state.job_plugins.iter().find(|needed| !linked.contains(needed)) {
        let feature = missing.replace('/', "-");
        return Err(RestError::bad_request(format!(
            "the job is built without {missing}, which this cluster uses: build it with the feature {feature} of the crate thalweg"
        )));
    }
    for (name, key) in &submission.spec.files {
        if state.blobs.head(*key).await?.is_none() {
            return Err(RestError::bad_request(format!(
                "cached file {name:?} was not uploaded: PUT it to /api/blobs first"
            )));
        }
    }
    let job = submission.job.unwrap_or_else(|| JobId::from_bytes(state.env.entropy.id()));
    let answer = leader.dispatcher.submit(job, Box::new(submission.spec), submission.from_main).await;
    match answer.ok_or_else(RestError::no_leader)? {
        Submitted::Accepted | Submitted::Running => {
            Ok(packed(StatusCode::ACCEPTED, &SubmissionAnswer::Running { job }))
        }
        Submitted::Ended(result) => Ok(packed(StatusCode::OK, &SubmissionAnswer::Ended(result))),
        Submitted::Refused(why) => Err(RestError::conflict(why)),
    }
}

/// Refuses an executable that none of the registered TaskManagers can run, before a slot is taken for it.
async fn check_portable(state: &RestState, leader: &super::Leader, key: BlobKey) -> Result<(), RestError> {
    let Some(info) = state.blobs.head(key).await? else {
        return Err(RestError::bad_request("the executable was not uploaded: PUT it to /api/blobs first"));
    };
    let mut bytes = Vec::new();
    let mut reader = state.blobs.get(key, 0..info.size.min(MAX_INSPECTED)).await?;
    reader.read_to_end(&mut bytes).await.map_err(|e| RestError::internal(e.to_string()))?;
    let looked = tokio::task::spawn_blocking(move || portability::inspect(&bytes)).await;
    let needs = looked.map_err(|e| RestError::internal(e.to_string()))?.map_err(RestError::bad_request)?;
    let workers = leader.resources.view().await;
    let mut refusals = workers.iter().map(|w| needs.check(&Platform::parse(&w.info.platform)));
    match refusals.next() {
        Some(Err(first)) if refusals.all(|r| r.is_err()) => {
            Err(RestError::bad_request(format!("incompatible: {first}")))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct ResultQuery {
    #[serde(default)]
    attached: bool,
    /// Milliseconds to wait for the end.
    #[serde(default)]
    wait: u64,
}

/// Longest wait that a request may ask for.
const MAX_WAIT: Duration = Duration::from_secs(10);

async fn result(
    State(state): State<RestState>,
    Path(job): Path<String>,
    Query(query): Query<ResultQuery>,
) -> Result<Response, RestError> {
    let leader = state.leader()?;
    let job = job_id(&job)?;
    if query.attached {
        leader.dispatcher.client_seen(job);
    }
    if query.wait > 0 {
        let limit = Duration::from_millis(query.wait).min(MAX_WAIT);
        // Whether it ended in this time is looked at below.
        let _ = thalweg_env::timeout(&*state.env.clock, limit, leader.dispatcher.result(job)).await;
    }
    let entries = leader.dispatcher.entries().await;
    let entry = entries.into_iter().find(|e| e.id == job);
    let entry = entry.ok_or_else(|| RestError::not_found(format!("job {job} is not known here")))?;
    let view = leader.dispatcher.view(job).await;
    let mut answer = ResultAnswer {
        status: entry.status,
        result: entry.result,
        waiting: None,
        tasks: (0, 0),
        records: 0,
        source_bytes: (0, 0),
        attempt: 0,
    };
    if let Some(view) = view {
        let subtasks = || view.subtasks.iter().flatten();
        let running = subtasks().filter(|s| s.state == thalweg_model::ExecutionState::Running).count();
        answer.tasks = (running as u32, subtasks().count() as u32);
        answer.waiting = view.waiting.clone();
        answer.attempt = view.attempt;
        for s in subtasks() {
            answer.source_bytes.0 += s.metrics.source_bytes;
            answer.source_bytes.1 += s.metrics.source_bytes_total;
        }
        answer.records = view.source_records();
    }
    if query.attached && answer.result.is_some() {
        state.read_results.send_modify(|read| read.push(job));
    }
    Ok(packed(StatusCode::OK, &answer))
}

async fn stop(State(state): State<RestState>, headers: HeaderMap) -> Result<StatusCode, RestError> {
    state.may_write(&headers)?;
    state.leader()?.dispatcher.stop();
    Ok(StatusCode::ACCEPTED)
}

async fn overview(State(state): State<RestState>) -> Result<axum::Json<serde_json::Value>, RestError> {
    let leader = state.leader()?;
    let workers = leader.resources.view().await;
    let workers = workers.iter().map(|w| {
        serde_json::json!({
            "id": w.info.id, "pid": w.info.pid, "rpc": w.info.rpc, "slots": w.info.slots, "free": w.free,
            "platform": w.info.platform,
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut jobs = Vec::new();
    for entry in leader.dispatcher.entries().await {
        let view = leader.dispatcher.view(entry.id).await;
        jobs.push(serde_json::json!({
            "id": entry.id, "name": entry.name, "status": entry.status, "submitted": entry.submitted,
            "waiting": view.as_ref().and_then(|v| v.waiting.clone()),
            "attempt": view.as_ref().map_or(0, |v| v.attempt),
        }));
    }
    Ok(axum::Json(serde_json::json!({
        "cluster": state.cluster, "epoch": leader.epoch, "pid": std::process::id(), "taskmanagers": workers, "jobs": jobs,
    })))
}

/// A TaskManager's executor, by its name.
pub(crate) async fn executor(leader: &super::Leader, id: &str) -> Result<TaskExecutorGateway, RestError> {
    let connection = leader.resources.connection(TaskManagerId::new(id)).await;
    let connection = connection.ok_or_else(|| RestError::not_found(format!("no TaskManager {id} is registered")))?;
    Ok(TaskExecutorGateway::new(Target::remote(connection, endpoint::TASK_EXECUTOR, Fence::cluster(leader.epoch))))
}

pub(crate) fn unreachable(e: thalweg_rpc::RpcError) -> RestError {
    RestError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the TaskManager does not answer: {e}"))
}

async fn job_logs(
    State(state): State<RestState>,
    Path(job): Path<String>,
) -> Result<axum::Json<serde_json::Value>, RestError> {
    let leader = state.leader()?;
    let folder = format!("jobs/{}/", job_id(&job)?);
    let mut found = Vec::new();
    for worker in leader.resources.view().await {
        let files = executor(&leader, worker.info.id.as_str()).await?.list_logs().await.map_err(unreachable)?;
        for file in files.into_iter().filter(|f| f.name.starts_with(&folder)) {
            let id = &worker.info.id;
            found.push(serde_json::json!({ "taskmanager": id, "name": file.name, "size": file.size }));
        }
    }
    Ok(axum::Json(serde_json::json!({ "logs": found })))
}

#[derive(Deserialize)]
struct Piece {
    #[serde(default)]
    offset: u64,
}

/// Most bytes of one answer.
const MAX_PIECE: u32 = 1 << 20;

async fn task_manager_log(
    State(state): State<RestState>,
    Path((id, name)): Path<(String, String)>,
    Query(piece): Query<Piece>,
) -> Result<Response, RestError> {
    let leader = state.leader()?;
    let read = executor(&leader, &id).await?.read_log(name.clone(), piece.offset, MAX_PIECE).await;
    let bytes = read.map_err(unreachable)?;
    let bytes = bytes.ok_or_else(|| RestError::not_found(format!("TaskManager {id} has no log {name}")))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], bytes).into_response())
}

async fn main_output(State(state): State<RestState>, Query(piece): Query<Piece>) -> Result<Response, RestError> {
    use tokio::io::AsyncSeekExt;
    let dir = state.log_dir.as_ref().ok_or_else(|| RestError::not_found("this JobManager writes no logs"))?;
    let mut bytes = Vec::new();
    // Not there yet is the same as nothing written yet.
    if let Ok(mut file) = tokio::fs::File::open(dir.join("main.out")).await {
        let read = async {
            file.seek(std::io::SeekFrom::Start(piece.offset)).await?;
            file.take(u64::from(MAX_PIECE)).read_to_end(&mut bytes).await
        };
        read.await.map_err(|e| RestError::internal(e.to_string()))?;
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], bytes).into_response())
}

async fn end_read(State(state): State<RestState>, headers: HeaderMap) -> Result<StatusCode, RestError> {
    state.may_write(&headers)?;
    state.end_read.trigger();
    Ok(StatusCode::OK)
}

async fn progress(
    State(state): State<RestState>,
    Path(job): Path<String>,
) -> Result<axum::Json<serde_json::Value>, RestError> {
    let job = job_id(&job)?;
    let view = state.leader()?.dispatcher.view(job).await;
    let view = view.ok_or_else(|| RestError::not_found(format!("job {job} is not known here")))?;
    let subtasks = || view.subtasks.iter().flatten();
    let running = subtasks().filter(|s| s.state == thalweg_model::ExecutionState::Running).count();
    Ok(axum::Json(serde_json::json!({
        "status": view.status,
        "attempt": view.attempt,
        "read": subtasks().map(|s| s.metrics.source_bytes).sum::<u64>(),
        "all": subtasks().map(|s| s.metrics.source_bytes_total).sum::<u64>(),
        "records": view.source_records(),
        "tasks": subtasks().count(),
        "running": running,
        "waiting": view.waiting,
    })))
}
