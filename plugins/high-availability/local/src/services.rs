//! The services of one process, put together.

use crate::{metadata::Metadata, store::Store};
use async_trait::async_trait;
use std::sync::Arc;
use thalweg_model::{Epoch, JobId, UnixMillis};
use thalweg_spi::{
    HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderRetrieval, MetadataStore,
    PluginContext, Result,
};
use thalweg_support_cluster_folder::{Election, Folder, Keep, Retrieval};

/// Office with the records open: the epoch is one of them.
pub(crate) struct Office;

impl Keep for Office {
    type Open = Store;

    fn take_office(&self, folder: &Folder, now: UnixMillis) -> Result<(Epoch, Store)> {
        let store = Store::open(folder)?;
        Ok((store.grant(now)?, store))
    }

    fn highest(&self, _: &Folder, store: &Store) -> Result<Epoch> {
        store.highest()
    }
}

/// One process's services.
pub(crate) struct Local {
    election: Arc<Election<Office>>,
    retrieval: Arc<Retrieval>,
    metadata: Arc<Metadata>,
}

impl Local {
    pub(crate) fn open(context: PluginContext) -> Arc<Self> {
        let folder = Folder::new(&context.cluster_dir);
        let clock = context.env.clock.clone();
        let retrieval = Retrieval::folder(folder.clone(), context.env, context.shutdown);
        let election = Arc::new(Election::new(Office, folder, clock, retrieval.clone()));
        let metadata = Arc::new(Metadata::new(election.desk()));
        Arc::new(Self { election, retrieval, metadata })
    }
}

#[async_trait]
impl HighAvailabilityServices for Local {
    fn capabilities(&self) -> HighAvailabilityCapabilities {
        HighAvailabilityCapabilities { durable: true, shared: false, standby: false }
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
