//! Resource provider `standalone`: TaskManagers come by themselves, started by whoever runs the cluster. It is passive:
//! what is declared changes nothing. Its launcher starts the processes of a whole cluster on this host.

use async_trait::async_trait;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::TaskManagerId;
use thalweg_spi::{
    ApplicationStatus, ClusterLauncher, Plugin, PluginConfig, PluginContext, ProviderCapabilities, ProviderEvent,
    ResourceProvider, Result, TimeSpan, WorkerProfile, inventory, kind,
};
use thalweg_support_processes::LocalLauncher;
use tokio::sync::mpsc;

/// `[resource-provider.standalone]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StandaloneConfig {
    /// A launched JobManager that does not serve REST after this time failed to start.
    pub start_timeout: TimeSpan,
    /// A process that was asked to end is killed after this time.
    pub stop_timeout: TimeSpan,
}

impl Default for StandaloneConfig {
    fn default() -> Self {
        Self { start_timeout: TimeSpan::from_secs(30), stop_timeout: TimeSpan::from_secs(5) }
    }
}

const SUMMARY: &str = "TaskManagers come by themselves; launches clusters on this host.";

#[async_trait]
impl PluginConfig<kind::Resource> for StandaloneConfig {
    const NAME: &'static str = "standalone";
    const SUMMARY: &'static str = SUMMARY;

    async fn open(self, _: PluginContext) -> Result<Arc<dyn ResourceProvider>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok(Arc::new(Passive { _sender: sender, events: Mutex::new(Some(receiver)) }))
    }
}

#[async_trait]
impl PluginConfig<kind::Launcher> for StandaloneConfig {
    const NAME: &'static str = "standalone";
    const SUMMARY: &'static str = SUMMARY;

    async fn open(self, context: PluginContext) -> Result<Arc<dyn ClusterLauncher>> {
        let (start_timeout, stop_timeout) = (self.start_timeout.get(), self.stop_timeout.get());
        Ok(Arc::new(LocalLauncher { env: context.env, start_timeout, stop_timeout }))
    }
}

inventory::submit! { Plugin::<kind::Resource>::of::<StandaloneConfig>() }
inventory::submit! { Plugin::<kind::Launcher>::of::<StandaloneConfig>() }

/// Starts and ends nothing.
struct Passive {
    /// Kept, so that the events do not seem to have ended.
    _sender: mpsc::UnboundedSender<ProviderEvent>,
    events: Mutex<Option<mpsc::UnboundedReceiver<ProviderEvent>>>,
}

#[async_trait]
impl ResourceProvider for Passive {
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities { passive: true, quota: false, recovers: false }
    }

    async fn declare(&self, _: BTreeMap<WorkerProfile, u32>) -> Result<()> {
        Ok(())
    }

    async fn release(&self, _: &TaskManagerId) -> Result<()> {
        Ok(())
    }

    fn events(&self) -> Option<mpsc::UnboundedReceiver<ProviderEvent>> {
        self.events.lock().take()
    }

    async fn deregister(&self, _: ApplicationStatus, _: &str) -> Result<()> {
        Ok(())
    }
}
