//! The plugin passes those cases of the resource-provider suite that apply to one that is passive.

use std::{collections::BTreeSet, sync::Arc};
use thalweg_model::TaskManagerId;
use thalweg_resource_provider_standalone::StandaloneConfig;
use thalweg_spi::{PluginConfig, ResourceProvider, Result, kind};
use thalweg_testkit::{Place, suites::resource_provider::ResourceProviderFixture};

#[derive(Default)]
struct Fixture(Place);

#[async_trait::async_trait]
impl ResourceProviderFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn ResourceProvider>> {
        PluginConfig::<kind::Resource>::open(StandaloneConfig::default(), self.0.context()).await
    }

    async fn shut_down(&self, _: Arc<dyn ResourceProvider>) {}

    async fn alive(&self) -> BTreeSet<TaskManagerId> {
        BTreeSet::new()
    }
}

thalweg_testkit::resource_provider_suite!(async || Fixture::default());
