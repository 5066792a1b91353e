//! Shuffle `local`: for clusters of one process. Queues within a process are the core's own, so there is nothing left to
//! do but to refuse, by name, every edge that leaves the process.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, task::Waker};
use thalweg_model::{HostPlace, JobId, RegionAttempt};
use thalweg_spi::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, ErrorKind, PartitionId, Plugin, PluginConfig,
    PluginContext, Result, ServiceError, Shuffle, ShuffleCapabilities, ShuffleDescriptor, ShuffleEnvironment,
    ShuffleMaster, inventory, kind,
};

/// It has nothing to set.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LocalConfig {}

/// Both sides.
#[derive(Debug, Clone, Copy)]
pub struct LocalShuffle;

fn refused<T>(operation: &'static str) -> Result<T> {
    let message = "shuffle \"local\" carries nothing between processes: set shuffle.type = \"network\"";
    Err(ServiceError::new(ErrorKind::Unsupported, operation, message))
}

impl Shuffle for LocalShuffle {
    fn capabilities(&self) -> ShuffleCapabilities {
        ShuffleCapabilities { between_processes: false, between_hosts: false }
    }

    fn master(&self) -> Arc<dyn ShuffleMaster> {
        Arc::new(*self)
    }

    fn environment(&self, _: EnvironmentSetup) -> Result<Arc<dyn ShuffleEnvironment>> {
        Ok(Arc::new(*self))
    }
}

#[async_trait]
impl ShuffleMaster for LocalShuffle {
    async fn register(&self, partition: PartitionId, producer: &HostPlace) -> Result<ShuffleDescriptor> {
        let at = &producer.task_manager;
        refused("register partition").map_err(|e: ServiceError| e.with("edge", partition.edge).with("producer", at))
    }

    async fn release(&self, _: JobId, _: RegionAttempt) -> Result<()> {
        Ok(())
    }
}

impl ShuffleEnvironment for LocalShuffle {
    fn data_address(&self) -> Option<String> {
        None
    }

    fn open_writer(&self, _: ChannelId, _: Waker) -> Result<Box<dyn ChannelWriter>> {
        refused("open writer")
    }

    fn open_reader(&self, _: ChannelId, _: &ShuffleDescriptor, _: Waker) -> Result<Box<dyn ChannelReader>> {
        refused("open reader")
    }

    fn release(&self, _: JobId, _: RegionAttempt) {}

    fn traffic(&self) -> (u64, u64) {
        (0, 0)
    }

    fn memory_in_use(&self) -> usize {
        0
    }
}

#[async_trait]
impl PluginConfig<kind::ShuffleKind> for LocalConfig {
    const NAME: &'static str = "local";
    const SUMMARY: &'static str = "For clusters of one process; refuses edges between processes.";

    async fn open(self, _: PluginContext) -> Result<Arc<dyn Shuffle>> {
        Ok(Arc::new(LocalShuffle))
    }
}

inventory::submit! { Plugin::<kind::ShuffleKind>::of::<LocalConfig>() }
