//! The plugin passes the blob suite, and what is damaged on disk is not handed out.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::{path::PathBuf, sync::Arc};
use thalweg_blob_local::LocalConfig;
use thalweg_model::BlobKey;
use thalweg_spi::{BlobService, PluginConfig, Result, kind};
use thalweg_testkit::{Place, suites::blob::BlobFixture};
use tokio::io::AsyncReadExt;

#[derive(Default)]
struct Fixture(Place);

impl Fixture {
    fn uploads(&self) -> PathBuf {
        self.0.dir().join("blobs/uploading")
    }
}

#[async_trait::async_trait]
impl BlobFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn BlobService>> {
        PluginConfig::<kind::Blob>::open(LocalConfig::default(), self.0.context()).await
    }

    async fn abandon_an_upload(&self) -> bool {
        std::fs::write(self.uploads().join("00ff"), "half a blob").is_ok()
    }

    async fn leftovers(&self) -> Option<usize> {
        Some(std::fs::read_dir(self.uploads()).unwrap().count())
    }
}

thalweg_testkit::blob_suite!(async || Fixture::default());

#[test]
fn a_blob_that_is_damaged_on_disk_is_an_error() {
    thalweg_testkit::run("damaged", async {
        let fixture = Fixture::default();
        let store = fixture.open().await.unwrap();
        let whole = vec![7; 100_000];
        let key = BlobKey::of(&whole);
        store.put(key, Box::pin(std::io::Cursor::new(whole.clone()))).await.unwrap();
        let file = fixture.0.dir().join("blobs").join(key.to_string());
        let read = async |range| {
            let mut reader = store.get(key, range).await.unwrap();
            reader.read_to_end(&mut Vec::new()).await.map_err(|e| e.to_string())
        };
        let mut bad = whole.clone();
        bad[50_000] = 8;
        std::fs::write(&file, bad).unwrap();
        assert_eq!(read(0..u64::MAX).await, Err(format!("blob {key} is damaged on disk")));
        assert_eq!(read(0..100).await, Ok(100), "a part has no hash");
    });
}

#[test]
fn the_folder_is_private_and_a_relative_one_is_refused() {
    thalweg_testkit::run("private", async {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::default();
        fixture.open().await.unwrap();
        let mode = std::fs::metadata(fixture.0.dir().join("blobs")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        let relative = LocalConfig { dir: Some("here".into()) };
        assert!(PluginConfig::<kind::Blob>::validate(&relative).unwrap_err().contains("absolute"));
    });
}
