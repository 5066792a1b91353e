//! High availability `standalone`: one fixed leader for each cluster folder, and no standby.
//!
//! ```text
//!  <cluster_dir>/jobmanager.lock   locked while a JobManager leads; holds its pid
//!  <cluster_dir>/epoch             the highest epoch that was granted
//!  <cluster_dir>/leader.json       where the leader is; only true while the lock is held
//! ```
//!
//! The epoch is the larger of the stored one + 1 and the time in Unix milliseconds, written and synced before it is used:
//! so it grows even where the folder was lost and made anew. Metadata is in memory and ends with the process: nothing
//! outlives this leader, and that is what `durable: false` says. Lock and leader file are `thalweg_support_cluster_folder`.

mod epoch;
mod metadata;
mod services;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_env::Address;
use thalweg_spi::{HighAvailabilityServices, Plugin, PluginConfig, PluginContext, Result, inventory, kind};

/// `[high-availability.standalone]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StandaloneConfig {
    /// Where the JobManager takes RPC, like `tcp://jm:6123`, for processes that do not share the cluster's folder.
    pub rpc_address: Option<String>,
    /// Where the JobManager serves REST, like `http://jm:8081`; goes with `rpc-address`.
    pub rest_address: Option<String>,
}

#[async_trait]
impl PluginConfig<kind::HighAvailability> for StandaloneConfig {
    const NAME: &'static str = "standalone";
    const SUMMARY: &'static str = "One fixed JobManager; jobs end with it.";

    fn validate(&self) -> Result<(), String> {
        match (&self.rpc_address, &self.rest_address) {
            (None, None) => Ok(()),
            (Some(rpc), Some(rest)) => {
                rpc.parse::<Address>().map_err(|e| format!("rpc-address: {e}"))?;
                if rest.starts_with("http://") || rest.starts_with("https://") {
                    Ok(())
                } else {
                    Err(format!("rest-address: {rest:?} is not http://HOST:PORT"))
                }
            }
            _ => Err("rpc-address and rest-address are given together or not at all".into()),
        }
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn HighAvailabilityServices>> {
        Ok(services::Standalone::open(self, context))
    }
}

inventory::submit! { Plugin::<kind::HighAvailability>::of::<StandaloneConfig>() }
