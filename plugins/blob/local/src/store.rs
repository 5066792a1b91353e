//! The store: names, puts and look-ups. Hashing while reading is in `reader`, files in progress in `upload`.

use crate::{reader::Verified, upload::Upload};
use async_trait::async_trait;
use sha2::{Digest, Sha256};
use std::{
    io::{ErrorKind as Io, SeekFrom},
    ops::Range,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use thalweg_env::Entropy;
use thalweg_model::BlobKey;
use thalweg_spi::{BlobCapabilities, BlobInfo, BlobReader, BlobService, ErrorKind, Result, ServiceError};
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

/// What is read, hashed and written at once.
const CHUNK: usize = 256 * 1024;

/// Blobs in a folder.
pub struct LocalBlobs {
    dir: PathBuf,
    uploads: PathBuf,
    entropy: Arc<dyn Entropy>,
}

impl LocalBlobs {
    /// Opens the folder, making it where it is not there, and removes uploads whose process is gone.
    pub async fn open(dir: PathBuf, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let uploads = dir.join("uploading");
        let error = |e| ServiceError::io("open blob folder", e).with("dir", dir.display());
        // Executables are inside, and arguments may be in their neighbours: nobody else's business.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&uploads).map_err(error)?;
        let mut found = fs::read_dir(&uploads).await.map_err(error)?;
        while let Some(entry) = found.next_entry().await.map_err(error)? {
            if Upload::remove_if_abandoned(&entry.path()).map_err(error)? {
                tracing::info!(file = %entry.path().display(), "removed an abandoned upload");
            }
        }
        Ok(Self { dir, uploads, entropy })
    }

    fn path(&self, key: BlobKey) -> PathBuf {
        self.dir.join(key.to_string())
    }

    async fn write(&self, key: BlobKey, mut content: BlobReader) -> Result<()> {
        let io = |e| ServiceError::io("put blob", e).with("key", key).with("dir", self.dir.display());
        let upload = Upload::begin(&self.uploads, &*self.entropy).map_err(io)?;
        let mut file = fs::File::from_std(upload.file().map_err(io)?);
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            let n = content.read(&mut chunk).await.map_err(io)?;
            if n == 0 {
                break;
            }
            hash.update(&chunk[..n]);
            file.write_all(&chunk[..n]).await.map_err(io)?;
        }
        file.flush().await.map_err(io)?;
        if BlobKey::from_bytes(hash.finalize().into()) != key {
            return Err(
                ServiceError::new(ErrorKind::Damaged, "put blob", "the content has another hash").with("key", key)
            );
        }
        file.sync_all().await.map_err(io)?;
        upload.finish(&self.path(key)).map_err(io)?;
        sync_dir(&self.dir).await.map_err(|e| io(e).maybe_happened())
    }
}

/// Makes a rename in this folder survive a crash of the machine.
async fn sync_dir(dir: &Path) -> std::io::Result<()> {
    fs::File::open(dir).await?.sync_all().await
}

#[async_trait]
impl BlobService for LocalBlobs {
    fn capabilities(&self) -> BlobCapabilities {
        BlobCapabilities { durable: true, shared: false }
    }

    async fn put(&self, key: BlobKey, content: BlobReader) -> Result<()> {
        // Its name is its content, so one that is there is the same.
        if self.head(key).await?.is_some() { Ok(()) } else { self.write(key, content).await }
    }

    async fn get(&self, key: BlobKey, range: Range<u64>) -> Result<BlobReader> {
        let io = |e| ServiceError::io("get blob", e).with("key", key);
        let mut file = fs::File::open(self.path(key)).await.map_err(|e| match e.kind() {
            Io::NotFound => ServiceError::new(ErrorKind::NotFound, "get blob", "no such blob").with("key", key),
            _ => io(e),
        })?;
        let size = file.metadata().await.map_err(io)?.len();
        let (start, end) = (range.start.min(size), range.end.min(size));
        if start > 0 {
            file.seek(SeekFrom::Start(start)).await.map_err(io)?;
        }
        let whole = start == 0 && range.end >= size;
        Ok(Box::pin(Verified::new(file, key, end.saturating_sub(start), whole)))
    }

    async fn head(&self, key: BlobKey) -> Result<Option<BlobInfo>> {
        match fs::metadata(self.path(key)).await {
            Ok(found) => Ok(Some(BlobInfo { size: found.len() })),
            Err(e) if e.kind() == Io::NotFound => Ok(None),
            Err(e) => Err(ServiceError::io("look up blob", e).with("key", key)),
        }
    }

    async fn delete(&self, key: BlobKey) -> Result<()> {
        match fs::remove_file(self.path(key)).await {
            Err(e) if e.kind() != Io::NotFound => Err(ServiceError::io("delete blob", e).with("key", key)),
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<BlobKey>> {
        let io = |e| ServiceError::io("list blobs", e).with("dir", self.dir.display());
        let mut keys = Vec::new();
        let mut found = fs::read_dir(&self.dir).await.map_err(io)?;
        while let Some(entry) = found.next_entry().await.map_err(io)? {
            // What is no key is somebody else's file, or our folder of uploads.
            keys.extend(entry.file_name().to_str().and_then(|name| name.parse::<BlobKey>().ok()));
        }
        keys.sort_unstable();
        Ok(keys)
    }
}
