//! The services of one process, put together.

use crate::{StandaloneConfig, election::Election, files::Files, metadata::Metadata, retrieval::Retrieval};
use async_trait::async_trait;
use std::sync::Arc;
use thalweg_model::JobId;
use thalweg_spi::{
    HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderInfo, LeaderRetrieval, MetadataStore,
    PluginContext, Result,
};

/// One process's services.
pub(crate) struct Standalone {
    election: Arc<Election>,
    retrieval: Arc<Retrieval>,
    metadata: Arc<Metadata>,
}

impl Standalone {
    pub(crate) fn open(config: StandaloneConfig, context: PluginContext) -> Arc<Self> {
        let files = Files::new(&context.cluster_dir);
        let clock = context.env.clock.clone();
        let (env, shutdown) = (context.env, context.shutdown);
        let retrieval = match (config.rpc_address, config.rest_address) {
            (Some(rpc), Some(rest)) => Retrieval::fixed(LeaderInfo { epoch: None, rpc, rest }, env, shutdown),
            _ => Retrieval::folder(files.clone(), env, shutdown),
        };
        let election = Arc::new(Election::new(files, clock, retrieval.clone()));
        let metadata = Arc::new(Metadata::new(election.clone()));
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
        self.election.leave()
    }
}
