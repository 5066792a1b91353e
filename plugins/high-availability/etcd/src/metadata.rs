//! The records of a cluster: read as they are, written through the [`Guard`].

use crate::{connect::Settings, failure::Cause, guard::Guard, keys::range_end, members::Members, record};
use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Client, GetOptions, GetResponse, KeyValue};
use std::sync::Arc;
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, Expect, Happened, MetadataStore, Result, ServiceError, Versioned};

/// A page of a list is to be about so large.
const PAGE_BYTES: usize = 4 << 20;
/// The first page has so many records: nothing is known of their size yet, and one may be 1.5 MiB.
const FIRST_PAGE: usize = 16;
const LARGEST_PAGE: usize = 1000;
/// The client refuses a larger answer; a first page of the largest records fits.
const LARGEST_ANSWER: usize = 64 << 20;

/// See the head of the file.
pub(crate) struct Metadata {
    settings: Settings,
    members: Arc<Members>,
    guard: Arc<Guard>,
}

impl Metadata {
    pub(crate) fn new(settings: Settings, members: Arc<Members>, guard: Arc<Guard>) -> Self {
        Self { settings, members, guard }
    }

    async fn read(&self, key: &str, options: Option<GetOptions>) -> Result<GetResponse, crate::failure::Failure> {
        let read = |client: Client| {
            let (key, options) = (key.to_owned(), options.clone());
            async move { client.kv_client().max_decoding_message_size(LARGEST_ANSWER).get(key, options).await }
        };
        // A read that may have happened did no harm.
        let answer = self.members.call(self.members.until(), read).await;
        answer.map_err(|failure| crate::failure::Failure { happened: Happened::No, ..failure })
    }

    /// All records from `prefix` on, as they were at one moment.
    async fn pages(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, Listing> {
        let end = range_end(prefix);
        let (mut from, mut limit, mut revision) = (prefix.to_owned(), FIRST_PAGE, 0);
        let (mut all, mut bytes) = (Vec::new(), 0);
        loop {
            // With a limit etcd answers in key order.
            let options = GetOptions::new().with_range(end.clone()).with_limit(limit as i64).with_revision(revision);
            let mut page = self.read(&from, Some(options)).await.map_err(Listing::Failed)?;
            if revision == 0 {
                revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            let more = page.more();
            for kv in page.take_kvs() {
                let Some(key) = self.settings.keys.key_of(kv.key()) else { continue };
                bytes += kv.value().len() + kv.key().len();
                all.push((key.to_owned(), versioned(&kv, "list records").map_err(Listing::Damaged)?));
                // The next key after this one.
                from = String::from_utf8_lossy(kv.key()).into_owned() + "\0";
            }
            if !more || all.is_empty() {
                return Ok(all);
            }
            limit = (PAGE_BYTES / (bytes / all.len()).max(1)).clamp(1, LARGEST_PAGE);
        }
    }
}

enum Listing {
    Failed(crate::failure::Failure),
    Damaged(ServiceError),
}

fn versioned(kv: &KeyValue, operation: &'static str) -> Result<Versioned> {
    match record::decode(kv.value()) {
        Ok((_, value)) => {
            Ok(Versioned { value: Bytes::copy_from_slice(value), version: kv.mod_revision().unsigned_abs() })
        }
        Err(why) => {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            Err(ServiceError::new(ErrorKind::Damaged, operation, format!("this is not a record of Thalweg: {why}"))
                .with("etcd-key", key))
        }
    }
}

#[async_trait]
impl MetadataStore for Metadata {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.guard.clear_own_doubts("get record").await?;
        let answer = self.read(&self.settings.keys.record(key), None).await;
        let answer = answer.map_err(|f| f.error("get record").with("key", key))?;
        answer.kvs().first().map(|kv| versioned(kv, "get record")).transpose()
    }

    async fn put(&self, epoch: Epoch, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        self.guard.put(epoch, key, &value, expect).await
    }

    async fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        self.guard.delete(epoch, key, expect).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        self.guard.clear_own_doubts("list records").await?;
        let full = self.settings.keys.record(prefix);
        let mut again = 3;
        loop {
            match self.pages(&full).await {
                Ok(all) => return Ok(all),
                // The history was compacted between two pages: from the start, at a newer revision.
                Err(Listing::Failed(f)) if f.cause == Cause::Compacted && again > 0 => again -= 1,
                Err(Listing::Failed(f)) => return Err(f.error("list records").with("prefix", prefix)),
                Err(Listing::Damaged(e)) => return Err(e),
            }
        }
    }
}
