//! A place where a plugin can be opened: folders of its own that go away with it, and the real world's seams.

use std::path::Path;
use tempfile::TempDir;
use thalweg_env::{Entropy, Env, Shutdown, SystemEntropy};
use thalweg_model::ClusterId;
use thalweg_spi::{PluginContext, Secret};

/// One cluster's folder and name. Two places never meet.
pub struct Place {
    dir: TempDir,
    cluster: ClusterId,
    secret: Secret,
    /// Ends what was opened here.
    pub shutdown: Shutdown,
}

impl Place {
    /// A fresh one.
    pub fn new() -> Self {
        let cluster = ClusterId::new(format!("test-{:016x}", SystemEntropy.next_u64()));
        let secret = Secret::new(SystemEntropy.id().to_vec());
        Self { dir: TempDir::new().expect("a temporary folder"), cluster, secret, shutdown: Shutdown::new() }
    }

    /// The cluster's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a plugin opened here gets: as another process of the same cluster, each time. Needs a tokio runtime.
    pub fn context(&self) -> PluginContext {
        self.context_with(Env::system(tokio::runtime::Handle::current()))
    }

    /// The same with other seams.
    pub fn context_with(&self, env: Env) -> PluginContext {
        let working_dir = self.dir.path().join(format!("process-{:016x}", SystemEntropy.next_u64()));
        std::fs::create_dir_all(&working_dir).expect("a folder for the process");
        PluginContext {
            env,
            cluster: self.cluster.clone(),
            cluster_dir: self.dir.path().to_owned(),
            working_dir,
            secret: self.secret.clone(),
            configuration: String::new(),
            shutdown: self.shutdown.child(),
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
