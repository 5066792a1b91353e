//! Blobs in memory, shared by every handle of one store.

use crate::suites::blob::BlobFixture;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, io, ops::Range, sync::Arc};
use thalweg_model::BlobKey;
use thalweg_spi::{BlobCapabilities, BlobInfo, BlobReader, BlobService, ErrorKind, Result, ServiceError};
use tokio::io::AsyncReadExt;

/// The store; each clone is another process's handle of it.
#[derive(Clone, Default)]
pub struct MemoryBlobs {
    blobs: Arc<Mutex<BTreeMap<BlobKey, Bytes>>>,
}

#[async_trait]
impl BlobService for MemoryBlobs {
    fn capabilities(&self) -> BlobCapabilities {
        BlobCapabilities { durable: false, shared: true }
    }

    async fn put(&self, key: BlobKey, mut content: BlobReader) -> Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).await.map_err(|e| ServiceError::io("put blob", e))?;
        if BlobKey::of(&bytes) != key {
            return Err(
                ServiceError::new(ErrorKind::Damaged, "put blob", "the content has another hash").with("key", key)
            );
        }
        self.blobs.lock().insert(key, bytes.into());
        Ok(())
    }

    async fn get(&self, key: BlobKey, range: Range<u64>) -> Result<BlobReader> {
        let missing = || ServiceError::new(ErrorKind::NotFound, "get blob", "no such blob").with("key", key);
        let blob = self.blobs.lock().get(&key).cloned().ok_or_else(missing)?;
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(blob.len());
        let (start, end) = (at(range.start), at(range.end));
        Ok(Box::pin(io::Cursor::new(blob.slice(start..end.max(start)))))
    }

    async fn head(&self, key: BlobKey) -> Result<Option<BlobInfo>> {
        Ok(self.blobs.lock().get(&key).map(|blob| BlobInfo { size: blob.len() as u64 }))
    }

    async fn delete(&self, key: BlobKey) -> Result<()> {
        self.blobs.lock().remove(&key);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BlobKey>> {
        Ok(self.blobs.lock().keys().copied().collect())
    }
}

#[async_trait]
impl BlobFixture for MemoryBlobs {
    async fn open(&self) -> Result<Arc<dyn BlobService>> {
        Ok(Arc::new(self.clone()))
    }
}
