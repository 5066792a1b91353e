//! TaskManagers: who is registered, what they have, and their logs.

use super::{
    super::{
        Leader, RestError,
        api::{executor, unreachable},
    },
    Answer, json,
};
use crate::{resource_manager::WorkerView, rest::RestState};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::header,
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use std::io;
use thalweg_rpc::gateways::{LogFile, TaskExecutorGateway};

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/taskmanagers", get(list))
        .route("/taskmanagers/{id}", get(details))
        .route("/taskmanagers/{id}/logs", get(logs))
        .route("/taskmanagers/{id}/logs/{*name}", get(log))
        .route("/taskmanagers/{id}/log", get(own_log))
        .route("/taskmanagers/{id}/stdout", get(own_output))
}

/// Flink counts these in MiB.
const MIB: u64 = 1 << 20;

async fn list(State(state): State<RestState>) -> Answer {
    let workers = state.leader()?.resources.view().await;
    let all: Vec<Value> = workers.iter().map(|w| info(&state, w)).collect();
    json(&json!({ "taskmanagers": all }))
}

async fn details(State(state): State<RestState>, Path(id): Path<String>) -> Answer {
    let workers = state.leader()?.resources.view().await;
    let worker = workers.iter().find(|w| w.info.id.as_str() == id);
    let worker = worker.ok_or_else(|| RestError::not_found(format!("no TaskManager {id} is registered")))?;
    let mut whole = info(&state, worker);
    let taken = worker.slots.iter().flatten();
    // How many tasks share a slot is the job's business and not the ResourceManager's: every slot counts as one.
    let slot = |job| json!({ "jobId": job, "resource": resource(worker, 1), "assignedTasks": 1 });
    whole["allocatedSlots"] = taken.map(slot).collect();
    whole["metrics"] = no_jvm();
    json(&whole)
}

/// Flink's `TaskManagerInfo`.
fn info(state: &RestState, w: &WorkerView) -> Value {
    let (clock, slots) = (&state.env.clock, w.slots.len() as u64);
    let silence = w.heard.map_or(0, |heard| clock.now().since(heard).as_millis() as u64);
    json!({
        "id": w.info.id,
        "path": w.info.rpc,
        // Data connections belong to task hosts, one port for each job's; -1 is "none".
        "dataPort": -1,
        "jmxPort": -1,
        // In spite of its name the time of the last one.
        "timeSinceLastHeartbeat": clock.wall().0.saturating_sub(silence),
        "slotsNumber": slots,
        "freeSlots": w.free,
        "assignedTasks": w.slots.iter().flatten().count(),
        "totalResource": resource(w, slots),
        "freeResource": resource(w, u64::from(w.free)),
        "hardware": {
            "cpuCores": w.info.cores,
            // The machine's is not told; below 0 is what the dashboard shows as "–".
            "physicalMemory": -1,
            "freeMemory": -1,
            "managedMemory": 0,
        },
        // A Java process has its memory divided; ours has one number for all.
        "memoryConfiguration": {
            "frameworkHeap": null, "taskHeap": null, "frameworkOffHeap": null, "taskOffHeap": w.info.memory,
            "networkMemory": null, "managedMemory": null, "jvmMetaspace": null, "jvmOverhead": null,
            "totalFlinkMemory": w.info.memory, "totalProcessMemory": w.info.memory,
        },
        // Ours.
        "pid": w.info.pid,
        "platform": w.info.platform,
    })
}

/// What so many of its slots have.
fn resource(w: &WorkerView, slots: u64) -> Value {
    let all = (w.slots.len() as u64).max(1);
    json!({
        "cpuCores": f64::from(w.info.cores) * slots as f64 / all as f64,
        "taskHeapMemory": 0,
        "taskOffHeapMemory": w.info.memory / MIB * slots / all,
        "managedMemory": 0,
        "networkMemory": 0,
        "extendedResources": {},
    })
}

/// The dashboard reckons with all of these, so they must be there; a process without a JVM has none of what they count.
fn no_jvm() -> Value {
    json!({
        "heapUsed": 0, "heapCommitted": 0, "heapMax": 0,
        "nonHeapUsed": 0, "nonHeapCommitted": 0, "nonHeapMax": 0,
        "directCount": 0, "directUsed": 0, "directMax": 0,
        "mappedCount": 0, "mappedUsed": 0, "mappedMax": 0,
        "nettyShuffleMemorySegmentsAvailable": 0, "nettyShuffleMemorySegmentsUsed": 0,
        "nettyShuffleMemorySegmentsTotal": 0, "nettyShuffleMemoryAvailable": 0, "nettyShuffleMemoryUsed": 0,
        "nettyShuffleMemoryTotal": 0,
        "garbageCollectors": [],
    })
}

async fn files(leader: &Leader, id: &str) -> Result<(TaskExecutorGateway, Vec<LogFile>), RestError> {
    let executor = executor(leader, id).await?;
    let files = executor.list_logs().await.map_err(unreachable)?;
    Ok((executor, files))
}

async fn logs(State(state): State<RestState>, Path(id): Path<String>) -> Answer {
    let (_, files) = files(&state.leader()?, &id).await?;
    let all = files.iter().map(|f| json!({ "name": f.name, "size": f.size, "mtime": f.modified }));
    json(&json!({ "logs": all.collect::<Vec<_>>() }))
}

async fn log(State(state): State<RestState>, Path((id, name)): Path<(String, String)>) -> Answer {
    let (executor, files) = files(&state.leader()?, &id).await?;
    let file = files.into_iter().find(|f| f.name == name);
    let file = file.ok_or_else(|| RestError::not_found(format!("TaskManager {id} has no log {name}")))?;
    Ok(text(executor, file))
}

/// A process whose lines go to one file with what it prints has no `.log` beside it.
async fn own_log(State(state): State<RestState>, Path(id): Path<String>) -> Answer {
    own(&state, &id, &[".log", ".out"]).await
}

async fn own_output(State(state): State<RestState>, Path(id): Path<String>) -> Answer {
    own(&state, &id, &[".out"]).await
}

/// The TaskManager's own file, with the first of these endings that there is one for; those of its jobs' hosts are in
/// folders.
async fn own(state: &RestState, id: &str, endings: &[&str]) -> Answer {
    let (executor, files) = files(&state.leader()?, id).await?;
    let with = |ending: &&str| files.iter().find(|f| !f.name.contains('/') && f.name.ends_with(*ending)).cloned();
    let file = endings.iter().find_map(with);
    let file = file.ok_or_else(|| RestError::not_found(format!("TaskManager {id} has no such file")))?;
    Ok(text(executor, file))
}

/// Most bytes of one call: well below the smallest sensible `rpc.max-frame`.
const PIECE: u64 = 256 << 10;

/// The file as it was when it was listed, read piece by piece; what is written meanwhile is for the next request.
fn text(executor: TaskExecutorGateway, file: LogFile) -> axum::response::Response {
    let size = file.size;
    let pieces = futures::stream::try_unfold((executor, file.name, 0u64), move |(executor, name, at)| async move {
        if at >= size {
            return Ok(None);
        }
        let length = PIECE.min(size - at) as u32;
        let read = executor.read_log(name.clone(), at, length).await.map_err(io::Error::other)?;
        match read.filter(|piece| !piece.is_empty()) {
            Some(piece) => {
                let at = at + piece.len() as u64;
                Ok(Some((piece, (executor, name, at))))
            }
            // The client sees a broken transfer and not a whole file that is short.
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log became shorter while it was read")),
        }
    });
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=UTF-8".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
    (headers, Body::from_stream(pieces)).into_response()
}
