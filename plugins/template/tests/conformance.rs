//! The plugin passes the blob suite. This file is all that it takes.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;
use thalweg_spi::{BlobService, ErrorKind, PluginConfig, Result, kind};
use thalweg_template::MemoryConfig;
use thalweg_testkit::{Place, suites::blob::BlobFixture};

struct Fixture(Arc<dyn BlobService>);

impl Fixture {
    async fn new() -> Self {
        let open = PluginConfig::<kind::Blob>::open(MemoryConfig::default(), Place::new().context());
        Self(open.await.unwrap())
    }
}

#[async_trait::async_trait]
impl BlobFixture for Fixture {
    // Memory is seen through one handle. A plugin with a store outside opens it anew each time.
    async fn open(&self) -> Result<Arc<dyn BlobService>> {
        Ok(self.0.clone())
    }
}

thalweg_testkit::blob_suite!(async || Fixture::new().await);

#[test]
fn a_blob_that_is_too_long_is_refused_by_name() {
    thalweg_testkit::run("too long", async {
        let config = MemoryConfig { max_size: thalweg_spi::ByteSize::from_bytes(3) };
        let store = PluginConfig::<kind::Blob>::open(config, Place::new().context()).await.unwrap();
        let key = thalweg_model::BlobKey::of(b"four");
        let error = store.put(key, Box::pin(&b"four"[..])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("max-size, which is 3B"), "{error}");
    });
}
