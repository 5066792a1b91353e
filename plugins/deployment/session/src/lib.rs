//! Deployment mode `session`: a cluster that takes jobs from clients and ends when somebody ends it. It runs no `main`.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thalweg_spi::{
    ClusterView, Decision, DeploymentMode, Plugin, PluginConfig, PluginContext, Result, inventory, kind,
};

/// It has nothing to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SessionConfig {}

/// The mode.
#[derive(Debug, Clone, Copy)]
pub struct Session;

impl DeploymentMode for Session {
    fn accepts_submissions(&self) -> bool {
        true
    }

    fn derives_job_ids(&self) -> bool {
        // Clients come and go, and two of them may submit the same program at once.
        false
    }

    fn decide(&self, _: &ClusterView) -> Decision {
        Decision::Continue
    }
}

#[async_trait]
impl PluginConfig<kind::Deployment> for SessionConfig {
    const NAME: &'static str = "session";
    const SUMMARY: &'static str = "Takes jobs from clients; ends when it is stopped.";

    async fn open(self, _: PluginContext) -> Result<Arc<dyn DeploymentMode>> {
        Ok(Arc::new(Session))
    }
}

inventory::submit! { Plugin::<kind::Deployment>::of::<SessionConfig>() }
