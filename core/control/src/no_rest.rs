//! REST in a build without it, such as a job's executable: nobody can have a server, and who asks for one is told so. It
//! spares every job the build of a web server that it never starts. The real one is `rest/`.

use crate::{dispatcher::DispatcherHandle, job_manager::JobManagerConfig, resource_manager::ResourceManagerHandle};
use std::{convert::Infallible, io, sync::Arc};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::Epoch;
use thalweg_spi::{BlobService, LeaderInfo, Secret};
use tokio::sync::watch;

/// There is none.
pub struct RestServer(Infallible);

/// What a server would be told when this process leads.
pub struct Leader {
    /// Jobs.
    pub dispatcher: DispatcherHandle,
    /// TaskManagers.
    pub resources: ResourceManagerHandle,
    /// Under which it leads.
    pub epoch: Epoch,
}

/// What a server would be told of who leads.
pub struct Whereabouts {
    /// This process's REST.
    pub rest: String,
    /// Where it takes RPC.
    pub rpc: String,
    /// The present leader, and each later one.
    pub leader: watch::Receiver<Option<LeaderInfo>>,
}

impl RestServer {
    /// Refuses.
    pub async fn bind(
        _: &Env,
        _: &Address,
        _: &JobManagerConfig,
        _: Secret,
        _: Arc<dyn BlobService>,
        _: Shutdown,
    ) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this executable was built without REST"))
    }

    /// Never called.
    pub fn follow(&self, _: Whereabouts) {
        match self.0 {}
    }

    /// Never called.
    pub fn lead(&self, _: Leader) {
        match self.0 {}
    }

    /// Never called.
    pub fn url(&self) -> String {
        match self.0 {}
    }

    /// Never called.
    pub fn advertised(&self, _: Option<&Address>) -> String {
        match self.0 {}
    }

    /// Never called.
    pub fn stop_accepting(&self) {
        match self.0 {}
    }
}
