//! The JobManager itself: its configuration, its surroundings, its logs.

use super::{super::RestError, Answer, json};
use crate::rest::RestState;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::header,
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use std::path::{Component, Path as FilePath, PathBuf};
use tokio::{fs, io::AsyncReadExt};
use tokio_util::io::ReaderStream;

pub(super) fn routes() -> Router<RestState> {
    Router::new()
        .route("/jobmanager/config", get(config))
        .route("/jobmanager/environment", get(environment))
        .route("/jobmanager/logs", get(logs))
        .route("/jobmanager/logs/{name}", get(log))
        .route("/jobmanager/log", get(own_log))
        .route("/jobmanager/stdout", get(own_output))
}

/// What hides behind a key with one of these parts is not shown. Flink's list.
const SECRET_PARTS: [&str; 11] = [
    "password",
    "secret",
    "fs.azure.account.key",
    "apikey",
    "api-key",
    "auth-params",
    "service-key",
    "token",
    "basic-auth",
    "jaas.config",
    "http-headers",
];

/// The value as it may be shown.
pub fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    let key = key.to_ascii_lowercase();
    if SECRET_PARTS.iter().any(|part| key.contains(part)) { "******" } else { value }
}

/// A bare array, as Flink has it.
async fn config(State(state): State<RestState>) -> Answer {
    let all = state.shown_configuration.iter();
    json(&all.map(|(key, value)| json!({ "key": key, "value": shown(key, value) })).collect::<Vec<_>>())
}

/// In the place of a JVM's version is ours.
async fn environment() -> Answer {
    json(&json!({
        "jvm": {
            "version": concat!("none: Thalweg ", env!("CARGO_PKG_VERSION")),
            "arch": std::env::consts::ARCH,
            "options": [],
        },
        "classpath": [],
    }))
}

/// One file of the log folder.
struct LogFile {
    name: String,
    size: u64,
    modified: u64,
}

fn log_dir(state: &RestState) -> Result<PathBuf, RestError> {
    let dir = state.log_dir.as_deref().cloned();
    dir.ok_or_else(|| RestError::not_found("this JobManager writes no logs"))
}

/// The files of the folder itself, newest first. Folders below it belong to jobs, and are asked of TaskManagers.
async fn list(dir: &FilePath) -> Vec<LogFile> {
    let mut files = Vec::new();
    let Ok(mut entries) = fs::read_dir(dir).await else { return files };
    while let Ok(Some(entry)) = entries.next_entry().await {
        // Not of what a link names: that may be outside.
        let Ok(meta) = entry.metadata().await else { continue };
        if meta.is_file() {
            let since = meta.modified().ok().and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
            let modified = since.map_or(0, |d| d.as_millis() as u64);
            files.push(LogFile { name: entry.file_name().to_string_lossy().into_owned(), size: meta.len(), modified });
        }
    }
    files.sort_by(|a, b| b.modified.cmp(&a.modified).then(a.name.cmp(&b.name)));
    files
}

async fn logs(State(state): State<RestState>) -> Answer {
    let files = list(&log_dir(&state)?).await;
    let all: Vec<Value> =
        files.iter().map(|f| json!({ "name": f.name, "size": f.size, "mtime": f.modified })).collect();
    json(&json!({ "logs": all }))
}

async fn log(State(state): State<RestState>, Path(name): Path<String>) -> Answer {
    text(&log_dir(&state)?, &name).await
}

/// A process whose lines go to one file with what it prints has no `.log` beside it.
async fn own_log(State(state): State<RestState>) -> Answer {
    own(&state, &[("jobmanager", ".log"), ("jobmanager", ".out")]).await
}

/// Of a per-job cluster's JobManager, what the job's `main` printed is what people look for.
async fn own_output(State(state): State<RestState>) -> Answer {
    own(&state, &[("jobmanager", ".out"), ("main", ".out")]).await
}

/// The newest file with the first of these beginnings and endings that there is one for: TaskManagers of this machine
/// may write into the same folder.
async fn own(state: &RestState, wanted: &[(&str, &str)]) -> Answer {
    let dir = log_dir(state)?;
    let files = list(&dir).await;
    for (role, ending) in wanted {
        if let Some(file) = files.iter().find(|f| f.name.starts_with(role) && f.name.ends_with(ending)) {
            return text(&dir, &file.name).await;
        }
    }
    Err(RestError::not_found("this JobManager writes no such file: its output went where it was started"))
}

/// The file as long as it is now.
async fn text(dir: &FilePath, name: &str) -> Answer {
    let missing = || RestError::not_found(format!("the JobManager has no log {name}"));
    let mut parts = FilePath::new(name).components();
    // One name and nothing else: not `..`, not a path, not the folder.
    let (Some(Component::Normal(part)), None) = (parts.next(), parts.next()) else { return Err(missing()) };
    let path = dir.join(part);
    let is_file = fs::symlink_metadata(&path).await.is_ok_and(|m| m.is_file());
    if !is_file {
        return Err(missing());
    }
    let file = fs::File::open(&path).await.map_err(|_| missing())?;
    let size = file.metadata().await.map_err(|e| RestError::internal(e.to_string()))?.len();
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=UTF-8".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
    Ok((headers, Body::from_stream(ReaderStream::new(file.take(size)))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown("rest.port", "1"), "1");
        for key in ["security.secret-file", "s3.PASSWORD", "x.token"] {
            assert_eq!(shown(key, "v"), "******", "{key}");
        }
    }

    #[tokio::test]
    async fn nothing_outside_the_folder_is_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("log");
        std::fs::create_dir_all(dir.join("jobs")).unwrap();
        std::fs::write(root.path().join("secret"), "x").unwrap();
        std::fs::write(dir.join("jobmanager-1.log"), "hello").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), dir.join("link.log")).unwrap();
        assert_eq!(list(&dir).await.len(), 1);
        for bad in ["../secret", "..", ".", "", "/etc/passwd", "jobs", "link.log", "absent", "./../secret"] {
            assert!(text(&dir, bad).await.is_err(), "{bad}");
        }
        assert!(text(&dir, "jobmanager-1.log").await.is_ok());
    }
}
