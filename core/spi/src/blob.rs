//! Blobs: content-addressed files. Job executables travel this way, and what is too large for a message.

use crate::Result;
use async_trait::async_trait;
use std::{ops::Range, pin::Pin};
use thalweg_model::BlobKey;
use tokio::io::AsyncRead;

/// A blob's bytes as they come.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// What a blob plugin can do. The conformance suite and the check of combinations choose by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobCapabilities {
    /// What was put is there after a restart of every process.
    pub durable: bool,
    /// Processes on other hosts see the same blobs.
    pub shared: bool,
}

/// What is known of a blob without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its length in bytes.
    pub size: u64,
}

/// A store of blobs, each named by the SHA-256 of its content.
#[async_trait]
pub trait BlobService: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> BlobCapabilities;

    /// Stores the content under its key.
    ///
    /// - MUST hash what it reads and refuse content that is not `key`'s with [`crate::ErrorKind::Damaged`].
    /// - MUST keep a partial put invisible, and remove what an abandoned one left, at the latest when it is opened again.
    /// - MUST hold no more than a few chunks in memory, however large the blob is.
    /// - Two puts of one key at once MUST both succeed and leave one whole blob.
    /// - Putting a key that is there MUST succeed. May be dropped: then nothing was put.
    async fn put(&self, key: BlobKey, content: BlobReader) -> Result<()>;

    /// The bytes of `range`, cut to the blob's length; an empty range is an empty reader.
    ///
    /// A missing blob MUST be [`crate::ErrorKind::NotFound`], never `Unavailable`. A reader that is open while the blob
    /// is deleted MUST finish whole or fail; it MUST NOT end early as if it were whole.
    async fn get(&self, key: BlobKey, range: Range<u64>) -> Result<BlobReader>;

    /// Is it there, and how long is it?
    async fn head(&self, key: BlobKey) -> Result<Option<BlobInfo>>;

    /// Removes it. Deleting what is not there MUST succeed.
    async fn delete(&self, key: BlobKey) -> Result<()>;

    /// The keys of all whole blobs, in order.
    async fn list(&self) -> Result<Vec<BlobKey>>;
}
