//! The mode passes the deployment suite.

use std::sync::Arc;
use thalweg_spi::{DeploymentMode, Result};
use thalweg_testkit::suites::deployment::DeploymentFixture;

struct Fixture;

#[async_trait::async_trait]
impl DeploymentFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn DeploymentMode>> {
        Ok(Arc::new(thalweg_deployment_session::Session))
    }
}

thalweg_testkit::deployment_suite!(async || Fixture);
