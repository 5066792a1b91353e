//! Blobs over RPC: how a TaskManager gets a job's executable from the JobManager.

use bytes::Bytes;
use thalweg_model::BlobKey;

/// Most bytes of one answer.
pub const MAX_CHUNK: u32 = 4 << 20;

crate::gateway! {
    /// Reads the JobManager's blobs.
    pub gateway BlobGateway, BlobMessage {
        ask {
            /// Its length, or `None` when there is no such blob.
            Head = head(key: BlobKey) -> Option<u64>;
            /// At most [`MAX_CHUNK`] bytes from `offset`.
            Get = get(key: BlobKey, offset: u64, length: u32) -> Bytes;
        }
        tell {}
    }
}
