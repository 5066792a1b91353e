//! High availability `local`: records that survive the JobManager, on one host, and no standby.
//!
//! ```text
//!  <cluster_dir>/metadata.redb     the records, their versions and the highest epoch that was granted
//!  <cluster_dir>/jobmanager.lock   locked while a JobManager leads; holds its pid
//!  <cluster_dir>/leader.json       where the leader is; only true while the lock is held
//! ```
//!
//! A write is on the disk before it is acknowledged. Epoch and records are in one file, so that a write and the look at
//! the epoch that lets it pass are one transaction. The file is open in one process at a time: in the one that leads, from
//! its campaign to its leaving; others may read it while nobody leads. Lock and leader file are
//! `thalweg_support_cluster_folder`. Nothing here reaches another host: `shared: false` says so.

mod backend;
mod failure;
mod metadata;
mod services;
mod store;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_spi::{HighAvailabilityServices, Plugin, PluginConfig, PluginContext, Result, inventory, kind};

/// `[high-availability.local]`. It has no options: everything is in the cluster's folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LocalConfig {}

#[async_trait]
impl PluginConfig<kind::HighAvailability> for LocalConfig {
    const NAME: &'static str = "local";
    const SUMMARY: &'static str = "One JobManager on this host; a restarted one knows its jobs and results.";

    async fn open(self, context: PluginContext) -> Result<Arc<dyn HighAvailabilityServices>> {
        Ok(services::Local::open(context))
    }
}

inventory::submit! { Plugin::<kind::HighAvailability>::of::<LocalConfig>() }
