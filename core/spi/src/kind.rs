//! The kinds of plugin. A kind's key is its section in the configuration: `[key] type = "name"`, `[key.name] option = …`.

use crate::{
    BlobService, ClusterLauncher, DeploymentMode, HighAvailabilityServices, Plugin, PluginKind, ResourceProvider,
    Shuffle,
};

macro_rules! kinds { ($($(#[$doc:meta])* $kind:ident, $key:literal, $service:ty;)*) => { $(
    $(#[$doc])*
    pub enum $kind {}
    impl PluginKind for $kind {
        const KEY: &'static str = $key;
        type Service = $service;
    }
    inventory::collect!(Plugin<$kind>);
)* } }

kinds! {
    /// Who leads, and what a leader writes down.
    HighAvailability, "high-availability", dyn HighAvailabilityServices;
    /// Bytes between task hosts.
    ShuffleKind, "shuffle", dyn Shuffle;
    /// Content-addressed files.
    Blob, "blob", dyn BlobService;
    /// Workers, on the JobManager's side.
    Resource, "resource-provider", dyn ResourceProvider;
    /// Whole clusters, on the client's side. It shares section and options with [`Resource`].
    Launcher, "resource-provider", dyn ClusterLauncher;
    /// What a cluster is for and when it ends.
    Deployment, "deployment", dyn DeploymentMode;
}
