//! What a plugin author needs: one small trait for each kind of plugin, the registry, configuration, and errors.
//!
//! A plugin is its configuration struct. It implements [`PluginConfig`] for its kind, and one line registers it:
//!
//! ```ignore
//! inventory::submit! { Plugin::<kind::Blob>::of::<MemoryConfig>() }
//! ```
//!
//! The traits' docs carry MUST lines; the conformance suite of the kind (`thalweg_testkit::suites`) has a case for each.
//! Nothing here knows a plugin by name.

pub mod blob;
pub mod combinations;
pub mod context;
pub mod deployment;
pub mod error;
pub mod high_availability;
pub mod kind;
pub mod metrics;
pub mod registry;
pub mod resource_provider;
pub mod secret;
pub mod shuffle;
pub mod units;

pub use blob::{BlobCapabilities, BlobInfo, BlobReader, BlobService};
pub use context::PluginContext;
pub use deployment::{ApplicationStatus, ClusterView, Decision, DeploymentMode, MainState};
pub use error::{ErrorKind, Happened, Result, ServiceError};
pub use high_availability::{
    Expect, HighAvailabilityCapabilities, HighAvailabilityServices, LeaderElection, LeaderInfo, LeaderRetrieval,
    MetadataStore, Office, Versioned,
};
pub use inventory;
pub use metrics::{Gauge, MetricRegistry};
pub use registry::{LeftOut, Plugin, PluginConfig, PluginInfo, PluginKind};
pub use resource_provider::{
    ClusterHandle, ClusterLauncher, ClusterSpec, ClusterState, ProviderCapabilities, ProviderEvent, ResourceProvider,
    WorkerProfile,
};
pub use secret::Secret;
pub use shuffle::{
    ChannelId, ChannelReader, ChannelWriter, EnvironmentSetup, Parcel, ParcelKind, PartitionId, Shuffle,
    ShuffleCapabilities, ShuffleDescriptor, ShuffleEnvironment, ShuffleMaster, Waiting,
};
/// Part of a job's and of a cluster's configuration alike.
pub use thalweg_wire::RestartStrategy;
pub use units::{ByteSize, TimeSpan};
