//! Resource provider `process`: starts TaskManagers as child processes of the JobManager, as many as are declared.
//!
//! ```text
//!  <cluster_dir>/workers/taskmanager-<id>.json   pid and start time of each worker: the next JobManager finds it
//!  <cluster_dir>/workers/configuration.toml      the effective configuration, which workers read
//!  <cluster_dir>/workers/secret                  the cluster's secret, for this user alone
//!  <cluster_dir>/log/taskmanager-<id>.log        a worker's output
//! ```
//!
//! What to start and whom to end is decided in `plan`, which is pure; `provider` starts, watches and ends processes.

mod plan;
mod provider;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc};
use thalweg_spi::{
    ClusterLauncher, Plugin, PluginConfig, PluginContext, ResourceProvider, Result, TimeSpan, inventory, kind,
};
use thalweg_support_processes::LocalLauncher;

/// `[resource-provider.process]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ProcessConfig {
    /// The `thalweg` executable; left out it is the JobManager's own.
    pub thalweg: Option<PathBuf>,
    /// The most TaskManagers at a time; left out there is no limit.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_workers: Option<u32>,
    /// A launched JobManager that does not serve REST after this time failed to start.
    pub start_timeout: TimeSpan,
    /// A process that was asked to end is killed after this time.
    pub stop_timeout: TimeSpan,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        let (start_timeout, stop_timeout) = (TimeSpan::from_secs(30), TimeSpan::from_secs(5));
        Self { thalweg: None, max_workers: None, start_timeout, stop_timeout }
    }
}

impl ProcessConfig {
    fn check(&self) -> Result<(), String> {
        match &self.thalweg {
            Some(path) if !path.is_absolute() => Err(format!("thalweg must be an absolute path, and {path:?} is not")),
            _ => Ok(()),
        }
    }
}

const SUMMARY: &str = "Starts TaskManagers on this host as jobs need them; launches clusters on this host.";

#[async_trait]
impl PluginConfig<kind::Resource> for ProcessConfig {
    const NAME: &'static str = "process";
    const SUMMARY: &'static str = SUMMARY;

    fn validate(&self) -> Result<(), String> {
        self.check()
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn ResourceProvider>> {
        Ok(provider::ProcessProvider::open(self, context)?)
    }
}

#[async_trait]
impl PluginConfig<kind::Launcher> for ProcessConfig {
    const NAME: &'static str = "process";
    const SUMMARY: &'static str = SUMMARY;

    fn validate(&self) -> Result<(), String> {
        self.check()
    }

    async fn open(self, context: PluginContext) -> Result<Arc<dyn ClusterLauncher>> {
        let (start_timeout, stop_timeout) = (self.start_timeout.get(), self.stop_timeout.get());
        Ok(Arc::new(LocalLauncher { env: context.env, start_timeout, stop_timeout }))
    }
}

inventory::submit! { Plugin::<kind::Resource>::of::<ProcessConfig>() }
inventory::submit! { Plugin::<kind::Launcher>::of::<ProcessConfig>() }
