//! Log files of a TaskManager and of its jobs' hosts, listed and read in pieces.

use bytes::Bytes;
use std::path::{Component, Path, PathBuf};
use thalweg_model::JobId;
use thalweg_rpc::gateways::LogFile;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Most bytes of one piece.
const MAX_PIECE: u32 = 1 << 20;

/// The log folder.
#[derive(Debug, Clone)]
pub struct Logs {
    dir: Option<PathBuf>,
    id: String,
}

impl Logs {
    /// Logs below `dir`; `None` for a TaskManager that writes none. `id` is this TaskManager's name in file names.
    pub fn new(dir: Option<PathBuf>, id: &str) -> Self {
        Self { dir, id: id.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "_") }
    }

    /// Where a job's host writes: `jobs/<job>/<TaskManager>.<ending>`.
    pub fn job_file(&self, job: JobId, ending: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join("jobs").join(job.to_string()).join(format!("{}.{ending}", self.id)))
    }

    /// All files of this TaskManager, newest first.
    pub async fn list(&self) -> Vec<LogFile> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let mut files = Vec::new();
        let mut folders = vec![dir.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(mut entries) = tokio::fs::read_dir(&folder).await else { continue };
            while let Ok(Some(entry)) = entries.next_entry().await {
                let Ok(meta) = entry.metadata().await else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().contains(&self.id)
                    && let Ok(name) = entry.path().strip_prefix(dir)
                {
                    let since = meta.modified().ok().and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
                    files.push(LogFile {
                        name: name.to_string_lossy().into_owned(),
                        size: meta.len(),
                        modified: since.map_or(0, |d| d.as_millis() as u64),
                    });
                }
            }
        }
        files.sort_by(|a, b| b.modified.cmp(&a.modified).then(a.name.cmp(&b.name)));
        files
    }

    /// A piece of a file; empty at its end. `None` for a name that is not one of its files.
    pub async fn read(&self, name: &str, offset: u64, length: u32) -> Option<Bytes> {
        let path = Path::new(name);
        // Nothing outside the folder, whatever the name says.
        if !path.components().all(|c| matches!(c, Component::Normal(_))) || !name.contains(&self.id) {
            return None;
        }
        let mut file = tokio::fs::File::open(self.dir.as_ref()?.join(path)).await.ok()?;
        file.seek(std::io::SeekFrom::Start(offset)).await.ok()?;
        let mut bytes = Vec::new();
        file.take(u64::from(length.min(MAX_PIECE))).read_to_end(&mut bytes).await.ok()?;
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_own_files_are_listed_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(Some(dir.path().join("log")), "host:1-ab");
        let job = JobId::from_bytes([1; 16]);
        let file = logs.job_file(job, "out").unwrap();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "hello").unwrap();
        std::fs::write(dir.path().join("log/other.log"), "x").unwrap();
        std::fs::write(dir.path().join("secret-host_1-ab"), "x").unwrap();
        let names: Vec<_> = logs.list().await.into_iter().map(|f| f.name).collect();
        assert_eq!(names, [format!("jobs/{job}/host_1-ab.out")]);
        assert_eq!(logs.read(&names[0], 1, 3).await.unwrap(), "ell");
        assert_eq!(logs.read(&names[0], 9, 3).await.unwrap(), "");
        for bad in ["other.log", "../secret-host_1-ab", "/etc/passwd", "jobs/../../secret-host_1-ab"] {
            assert_eq!(logs.read(bad, 0, 9).await, None, "{bad}");
        }
    }
}
