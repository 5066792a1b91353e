//! The services of one process, put together.

use crate::{StandaloneConfig, epoch::EpochFile, metadata::Metadata};
use async_trait::async_trait;
use std::sync::Arc;
use thalweg_model::JobId;
use thalweg_spi::{
    HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderInfo, LeaderRetrieval, MetadataStore,
    PluginContext, Result,
};
use thalweg_support_cluster_folder::{Election, Folder, Retrieval};

/// One process's services.
pub(crate) struct Standalone {
    election: Arc<Election<EpochFile>>,
    retrieval: Arc<Retrieval>,
    metadata: Arc<Metadata>,
}

impl Standalone {
    pub(crate) fn open(config: StandaloneConfig, context: PluginContext) -> Arc<Self> {
        let folder = Folder::new(&context.cluster_dir);
        let clock = context.env.clock.clone();
        let (env, shutdown) = (context.env, context.shutdown);
        let retrieval = match (config.rpc_address, config.rest_address) {
            (Some(rpc), Some(rest)) => Retrieval::fixed(LeaderInfo { epoch: None, rpc, rest }, env, shutdown),
            _ => Retrieval::folder(folder.clone(), env, shutdown),
        };
        let election = Arc::new(Election::new(EpochFile, folder, clock, retrieval.clone()));
        let metadata = Arc::new(Metadata::new(election.desk()));
        Arc::new(Self { election, retrieval, metadata })
    }
}

#[async_trait]
impl HighAvailabilityServices for Standalone {
    fn capabilities(&self) -> HighAvailabilityCapabilities {
        HighAvailabilityCapabilities { durable: false, shared: false, standby: false }
    }

    fn leader_election(&self) -> Arc<dyn LeaderElection> {
        self.election.clone()
    }

    fn leader_retrieval(&self) -> Arc<dyn LeaderRetrieval> {
        self.retrieval.clone()
    }

    fn metadata(&self) -> Arc<dyn MetadataStore> {
        self.metadata.clone()
    }

    async fn clean_up(&self, _: JobId) -> Result<()> {
        // All that is kept for a job is metadata.
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.election.leave().await
    }
}
