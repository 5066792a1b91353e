//! Blob plugin `local`: one file for each blob in a folder of this host.
//!
//! ```text
//!  <dir>/<sha-256 in hex>      a whole blob; never changed, only renamed to here and removed from here
//!  <dir>/uploading/<random>    a put in progress, locked by its process while it lasts
//! ```
//!
//! A put writes a temporary file, syncs it, and renames it to its name: what is visible is whole. The lock tells an
//! upload of a live process from what a killed one left, which the next `open` removes.

mod reader;
mod store;
mod upload;

pub use store::LocalBlobs;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc};
use thalweg_spi::{BlobService, Plugin, PluginConfig, PluginContext, Result, inventory, kind};

/// `[blob.local]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LocalConfig {
    /// Folder of the blobs; left out it is `blobs` in the cluster's folder.
    pub dir: Option<PathBuf>,
}

#[async_trait]
impl PluginConfig<kind::Blob> for LocalConfig {
    const NAME: &'static str = "local";
    const SUMMARY: &'static str = "Files of one host.";

    fn validate(&self) -> Result<(), String> {
        match &self.dir {
            Some(dir) if !dir.is_absolute() => {
                Err(format!("dir must be an absolute path, and {:?} is not: processes have different folders", dir))
            }
            _ => Ok(()),
        }
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn BlobService>> {
        let dir = self.dir.unwrap_or_else(|| context.cluster_dir.join("blobs"));
        Ok(Arc::new(LocalBlobs::open(dir, context.env.entropy).await?))
    }
}

inventory::submit! { Plugin::<kind::Blob>::of::<LocalConfig>() }
