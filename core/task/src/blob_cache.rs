//! Executables on a TaskManager: fetched once from the JobManager, checked, and counted by the jobs that use them.

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use thalweg_model::{BlobKey, Epoch, JobId};
use thalweg_rpc::{
    Connection, Fence, Target,
    gateways::{BlobGateway, blob::MAX_CHUNK, endpoint},
};
use tokio::io::AsyncWriteExt;

/// Unused executables that stay on disk.
const KEPT_UNUSED: usize = 4;

#[derive(Default)]
struct Entry {
    /// How often each job uses it: one host may still be ending while the next starts.
    users: HashMap<JobId, u32>,
    /// One fetch at a time.
    fetch: Arc<tokio::sync::Mutex<()>>,
    /// Counts up with each release, to find the oldest.
    released: u64,
}

/// The cache.
pub struct BlobCache {
    dir: PathBuf,
    entries: Mutex<(HashMap<BlobKey, Entry>, u64)>,
}

impl BlobCache {
    /// A cache in this folder, which is emptied: only what this process has checked is trusted.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, entries: Mutex::default() })
    }

    /// The file with this content, which stays until it is released by this job.
    pub async fn get(&self, job: JobId, key: BlobKey, from: Option<&Connection>) -> Result<PathBuf, String> {
        let fetch = {
            let mut entries = self.entries.lock();
            let entry = entries.0.entry(key).or_default();
            *entry.users.entry(job).or_default() += 1;
            entry.fetch.clone()
        };
        let fetched = async {
            let _one = fetch.lock().await;
            let path = self.dir.join(key.to_string());
            if !path.exists() {
                let from = from.ok_or("there is no JobManager to fetch it from")?;
                self.fetch(key, &path, from).await?;
            }
            Ok(path)
        };
        let outcome = fetched.await;
        if outcome.is_err() {
            self.release(job, key);
        }
        outcome
    }

    async fn fetch(&self, key: BlobKey, path: &Path, from: &Connection) -> Result<(), String> {
        let fence = Fence::cluster(from.peer().epoch.unwrap_or(Epoch(0)));
        let blobs = BlobGateway::new(Target::remote(from.clone(), endpoint::BLOB, fence));
        let size = blobs.head(key).await.map_err(|e| e.to_string())?;
        let size = size.ok_or_else(|| format!("the JobManager has no blob {key}"))?;
        // With some words around them.
        let most = u32::try_from(from.max_frame().saturating_sub(4096)).unwrap_or(u32::MAX).min(MAX_CHUNK);
        let partial = path.with_extension("partial");
        let write = async {
            let mut file = tokio::fs::File::create(&partial).await.map_err(|e| e.to_string())?;
            let mut hash = Sha256::new();
            let mut offset = 0;
            while offset < size {
                let piece = blobs.get(key, offset, most).await.map_err(|e| e.to_string())?;
                if piece.is_empty() {
                    return Err("the blob became shorter while it was read".to_owned());
                }
                offset += piece.len() as u64;
                hash.update(&piece);
                file.write_all(&piece).await.map_err(|e| e.to_string())?;
            }
            if BlobKey::from_bytes(hash.finalize().into()) != key {
                return Err("its content is not what its name says".to_owned());
            }
            file.sync_all().await.map_err(|e| e.to_string())?;
            // Closed before it is started: a file that is open for writing cannot be executed.
            drop(file.into_std().await);
            let mode = std::fs::Permissions::from_mode(0o500);
            tokio::fs::set_permissions(&partial, mode).await.map_err(|e| e.to_string())?;
            tokio::fs::rename(&partial, path).await.map_err(|e| e.to_string())
        };
        let outcome = write.await;
        if outcome.is_err() {
            let _ = tokio::fs::remove_file(&partial).await;
        }
        outcome
    }

    /// One host of this job no longer uses it. Some unused files stay, for the next job.
    pub fn release(&self, job: JobId, key: BlobKey) {
        let mut entries = self.entries.lock();
        entries.1 += 1;
        let count = entries.1;
        if let Some(entry) = entries.0.get_mut(&key) {
            entry.released = count;
            if let Some(uses) = entry.users.get_mut(&job) {
                *uses -= 1;
                if *uses == 0 {
                    entry.users.remove(&job);
                }
            }
        }
        let unused = entries.0.iter().filter(|(_, e)| e.users.is_empty());
        let mut unused: Vec<_> = unused.map(|(k, e)| (e.released, *k)).collect();
        unused.sort();
        let drop_count = unused.len().saturating_sub(KEPT_UNUSED);
        for (_, key) in unused.into_iter().take(drop_count) {
            entries.0.remove(&key);
            let _ = std::fs::remove_file(self.dir.join(key.to_string()));
        }
    }
}
