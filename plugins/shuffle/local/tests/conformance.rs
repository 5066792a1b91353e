//! The plugin passes those cases of the shuffle suite that apply: it carries nothing, and says so.

use bytes::Bytes;
use std::sync::Arc;
use thalweg_model::JobId;
use thalweg_shuffle_local::LocalShuffle;
use thalweg_spi::{EnvironmentSetup, Result, Shuffle, ShuffleEnvironment};
use thalweg_testkit::suites::shuffle::ShuffleFixture;

struct Fixture;

#[async_trait::async_trait]
impl ShuffleFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn Shuffle>> {
        Ok(Arc::new(LocalShuffle))
    }

    fn setup(&self, memory: usize) -> EnvironmentSetup {
        let (job, bind, secret) =
            (JobId::from_bytes([1; 16]), "tcp://127.0.0.1:0".to_owned(), Bytes::from_static(b"s"));
        EnvironmentSetup { job, bind, secret, memory, max_parcel: 100_000 }
    }

    async fn crash(&self, _: Arc<dyn ShuffleEnvironment>) -> bool {
        false
    }
}

thalweg_testkit::shuffle_suite!(async || Fixture);
