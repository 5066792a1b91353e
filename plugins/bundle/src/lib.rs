//! Names each plugin, so that the linker keeps it: a crate that nobody names may vanish, and its registration with it.
//!
//! One line and one feature for each plugin, nothing else. Use it with `use thalweg_bundle as _;`.

#[cfg(feature = "blob-local")]
use thalweg_blob_local as _;
#[cfg(feature = "deployment-per-job")]
use thalweg_deployment_per_job as _;
#[cfg(feature = "deployment-session")]
use thalweg_deployment_session as _;
#[cfg(feature = "high-availability-etcd")]
use thalweg_high_availability_etcd as _;
#[cfg(feature = "high-availability-local")]
use thalweg_high_availability_local as _;
#[cfg(feature = "high-availability-standalone")]
use thalweg_high_availability_standalone as _;
#[cfg(feature = "resource-provider-process")]
use thalweg_resource_provider_process as _;
#[cfg(feature = "resource-provider-standalone")]
use thalweg_resource_provider_standalone as _;
#[cfg(feature = "shuffle-local")]
use thalweg_shuffle_local as _;
#[cfg(feature = "shuffle-network")]
use thalweg_shuffle_network as _;
