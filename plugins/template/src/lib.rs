//! A plugin to copy. It works: it keeps blobs in the memory of one process and passes its suite. It is in no bundle.
//!
//! To make your own blob plugin:
//!
//! 1. Copy this folder to `plugins/blob/<name>`; the workspace finds it there. Change the package's name in `Cargo.toml`
//!    to `thalweg-blob-<name>`, and `NAME`, `SUMMARY` and the struct's options below.
//! 2. Fill in [`BlobService`]. Its MUST lines are the contract; `cargo test -p thalweg-blob-<name>` checks each.
//! 3. Name the crate in `plugins/bundle`: a feature in `Cargo.toml`, a `use … as _;` in `src/lib.rs`.
//! 4. Write the reference anew with `UPDATE=1 cargo test -p thalweg-bundle`.
//!
//! Another kind goes the same way, with its own trait and suite.

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::Cursor,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use thalweg_model::BlobKey;
use thalweg_spi::{
    BlobCapabilities, BlobInfo, BlobReader, BlobService, ByteSize, ErrorKind, Plugin, PluginConfig, PluginContext,
    Result, ServiceError, inventory, kind,
};
use tokio::io::AsyncReadExt;

/// The plugin's options: `[blob.memory]` in the configuration. Doc comments become the reference.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MemoryConfig {
    /// Longest blob; a longer one is refused.
    pub max_size: ByteSize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_size: ByteSize::from_mib(1024) }
    }
}

#[async_trait]
impl PluginConfig<kind::Blob> for MemoryConfig {
    const NAME: &'static str = "memory";
    const SUMMARY: &'static str = "Keeps blobs in the memory of one process; gone with it.";

    fn validate(&self) -> Result<(), String> {
        if self.max_size.get() == 0 { Err("max-size must be at least 1B".into()) } else { Ok(()) }
    }

    async fn open(self, _context: PluginContext) -> Result<Arc<dyn BlobService>> {
        // A plugin that needs time, tasks or sockets takes them from `_context.env`, and its folder and the cluster's
        // name from `_context` too.
        Ok(Arc::new(MemoryBlobs { max_size: self.max_size.get(), blobs: Mutex::default() }))
    }
}

inventory::submit! { Plugin::<kind::Blob>::of::<MemoryConfig>() }

/// Blobs in memory.
pub struct MemoryBlobs {
    max_size: u64,
    // A plain mutex: it is held for a look-up and never over an await.
    blobs: Mutex<BTreeMap<BlobKey, Bytes>>,
}

impl MemoryBlobs {
    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<BlobKey, Bytes>) -> T) -> T {
        // Nothing that runs under the lock panics half-way, so a poisoned map is whole.
        change(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl BlobService for MemoryBlobs {
    fn capabilities(&self) -> BlobCapabilities {
        BlobCapabilities { durable: false, shared: false }
    }

    async fn put(&self, key: BlobKey, content: BlobReader) -> Result<()> {
        let error = |kind, text: String| ServiceError::new(kind, "put blob", text).with("key", key);
        let mut bytes = Vec::new();
        // One byte more than allowed, so that a longer blob is told from one that just fits.
        let mut content = content.take(self.max_size.saturating_add(1));
        content.read_to_end(&mut bytes).await.map_err(|e| ServiceError::io("put blob", e).with("key", key))?;
        if bytes.len() as u64 > self.max_size {
            let limit = ByteSize::from_bytes(self.max_size);
            return Err(error(ErrorKind::TooLarge, format!("longer than max-size, which is {limit}")));
        }
        if BlobKey::of(&bytes) != key {
            return Err(error(ErrorKind::Damaged, "the content has another hash".into()));
        }
        // Only now is it visible, and as a whole.
        self.with(|blobs| blobs.insert(key, bytes.into()));
        Ok(())
    }

    async fn get(&self, key: BlobKey, range: Range<u64>) -> Result<BlobReader> {
        let Some(blob) = self.with(|blobs| blobs.get(&key).cloned()) else {
            return Err(ServiceError::new(ErrorKind::NotFound, "get blob", "no such blob").with("key", key));
        };
        let cut = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(blob.len());
        let (start, end) = (cut(range.start), cut(range.end));
        // The reader has its own reference, so a delete does not touch it.
        Ok(Box::pin(Cursor::new(blob.slice(start..end.max(start)))))
    }

    async fn head(&self, key: BlobKey) -> Result<Option<BlobInfo>> {
        Ok(self.with(|blobs| blobs.get(&key).map(|blob| BlobInfo { size: blob.len() as u64 })))
    }

    async fn delete(&self, key: BlobKey) -> Result<()> {
        self.with(|blobs| blobs.remove(&key));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BlobKey>> {
        Ok(self.with(|blobs| blobs.keys().copied().collect()))
    }
}
