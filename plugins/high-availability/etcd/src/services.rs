//! The services of one process, put together.

use crate::{
    EtcdConfig, check, connect::Settings, election::Election, guard::Guard, keys::Keys, leader_watch::LeaderWatch,
    members::Members, metadata::Metadata, standing::Standing,
};
use async_trait::async_trait;
use std::sync::Arc;
use thalweg_model::JobId;
use thalweg_spi::{
    HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderRetrieval, MetadataStore,
    PluginContext, Result,
};

/// One process's services.
pub(crate) struct Etcd {
    election: Arc<Election>,
    watch: Arc<LeaderWatch>,
    metadata: Arc<Metadata>,
}

impl Etcd {
    pub(crate) async fn open(config: EtcdConfig, context: PluginContext) -> Result<Arc<Self>> {
        let keys = Keys::new(&config.prefix, &context.cluster);
        let settings = Settings { config: Arc::new(config), keys };
        let env = context.env;
        let members = Arc::new(Members::new(settings.clone(), env.clock.clone()));
        let first = check::first_look(&settings, &members, &*env.clock).await?;
        let standing = Standing::new();
        let guard = Arc::new(Guard::new(
            settings.clone(),
            members.clone(),
            standing.clone(),
            env.clock.clone(),
            env.entropy.clone(),
        ));
        let shutdown = context.shutdown.child();
        let watch = LeaderWatch::start(settings.clone(), &env, members.clone(), standing.clone(), first, shutdown);
        let metadata = Arc::new(Metadata::new(settings.clone(), members.clone(), guard.clone()));
        let election = Arc::new(Election::new(settings, env, members, standing, guard, watch.clone()));
        Ok(Arc::new(Self { election, watch, metadata }))
    }
}

#[async_trait]
impl HighAvailabilityServices for Etcd {
    fn capabilities(&self) -> HighAvailabilityCapabilities {
        HighAvailabilityCapabilities { durable: true, shared: true, standby: true }
    }

    fn leader_election(&self) -> Arc<dyn LeaderElection> {
        self.election.clone()
    }

    fn leader_retrieval(&self) -> Arc<dyn LeaderRetrieval> {
        self.watch.clone()
    }

    fn metadata(&self) -> Arc<dyn MetadataStore> {
        self.metadata.clone()
    }

    async fn clean_up(&self, _: JobId) -> Result<()> {
        // All that is kept for a job is metadata.
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        let left = self.election.leave().await;
        self.watch.stop();
        left
    }
}
