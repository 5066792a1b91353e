//! What a plugin gets when it is opened: the seams to the outside world and where in the cluster it is.

use crate::Secret;
use std::path::PathBuf;
use thalweg_env::{Env, Shutdown};
use thalweg_model::ClusterId;

/// A plugin takes time, randomness, tasks and sockets from here alone.
#[derive(Clone)]
pub struct PluginContext {
    /// Clock, entropy, spawner, network.
    pub env: Env,
    /// The cluster's name: whatever a plugin keeps outside is under it, so that two clusters never meet.
    pub cluster: ClusterId,
    /// The cluster's folder on this machine. Exists; only this user can read it.
    pub cluster_dir: PathBuf,
    /// This process's own folder; gone with it.
    pub working_dir: PathBuf,
    /// The cluster's secret. It MUST NOT be put in an environment variable, an argument or a public object.
    pub secret: Secret,
    /// The effective configuration as TOML, which a provider hands to the workers it starts. Without secrets.
    pub configuration: String,
    /// Triggered when this process ends: background work of the plugin ends then.
    pub shutdown: Shutdown,
}
