//! Cached files of a job on a TaskManager: what the client sent along is fetched once, and each host finds it by name in
//! its scratch folder. What is fetched and when it is dropped is the blob cache's matter.

use crate::blob_cache::BlobCache;
use std::{collections::BTreeMap, io, path::Path, sync::Arc};
use thalweg_model::{BlobKey, JobId};
use thalweg_rpc::Connection;
use thalweg_wire::FILES_DIR;

/// The cache.
#[derive(Clone)]
pub struct FileCache {
    blobs: Arc<BlobCache>,
}

/// A host's cached files; released with this.
pub struct CachedFiles {
    blobs: Arc<BlobCache>,
    job: JobId,
    held: Vec<BlobKey>,
}

impl FileCache {
    /// A cache of names over one of contents.
    pub fn new(blobs: Arc<BlobCache>) -> Self {
        Self { blobs }
    }

    /// Fetches a job's files and names them in the host's scratch folder. They stay as long as the answer lives.
    pub async fn provide(
        &self,
        job: JobId,
        files: &BTreeMap<String, BlobKey>,
        scratch: &Path,
        from: Option<&Connection>,
    ) -> Result<CachedFiles, String> {
        let mut provided = CachedFiles { blobs: self.blobs.clone(), job, held: Vec::new() };
        if files.is_empty() {
            return Ok(provided);
        }
        let folder = scratch.join(FILES_DIR);
        let io = |e: io::Error| format!("{}: {e}", folder.display());
        tokio::fs::create_dir_all(&folder).await.map_err(io)?;
        for (name, key) in files {
            // The names come from a client: none of them may lead out of the folder.
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(format!("{name:?} is no plain file name"));
            }
            let content = self.blobs.get(job, *key, from).await.map_err(|e| format!("cached file {name:?}: {e}"))?;
            provided.held.push(*key);
            // A link, since one content may have several names, and takes its space once.
            tokio::fs::symlink(content, folder.join(name)).await.map_err(io)?;
        }
        Ok(provided)
    }
}

impl Drop for CachedFiles {
    fn drop(&mut self) {
        for key in self.held.drain(..) {
            self.blobs.release(self.job, key);
        }
    }
}
