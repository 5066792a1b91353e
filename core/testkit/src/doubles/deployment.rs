//! A deployment mode for tests: a cluster that only takes jobs.

use crate::suites::deployment::DeploymentFixture;
use async_trait::async_trait;
use std::sync::Arc;
use thalweg_spi::{ClusterView, Decision, DeploymentMode, Result};

/// Takes jobs and never ends by itself.
#[derive(Clone, Copy, Default)]
pub struct OpenHouse;

impl DeploymentMode for OpenHouse {
    fn accepts_submissions(&self) -> bool {
        true
    }

    fn derives_job_ids(&self) -> bool {
        false
    }

    fn decide(&self, _: &ClusterView) -> Decision {
        Decision::Continue
    }
}

#[async_trait]
impl DeploymentFixture for OpenHouse {
    async fn open(&self) -> Result<Arc<dyn DeploymentMode>> {
        Ok(Arc::new(*self))
    }
}
