//! Everything that decides: Dispatcher, ResourceManager, a JobMaster for each job, and the REST endpoint in front.
//!
//! Each component is a pure core (`core.rs`: state, time and event in, effects out) and a thin driver (`driver.rs`) that
//! owns the tasks, timers and connections. User code never runs here, and `thalweg-dataflow` is not even linked.

pub mod blob_server;
pub mod calls;
pub mod dispatcher;
pub mod job_manager;
pub mod job_master;
#[cfg(feature = "rest")]
pub mod portability;
pub mod resource_manager;
#[cfg(feature = "rest")]
pub mod rest;
#[cfg(not(feature = "rest"))]
#[path = "no_rest.rs"]
pub mod rest;
pub mod stores;
pub mod submission;

pub use job_manager::{Bound, JobManager, JobManagerConfig, JobManagerEnd, JobManagerServices, MainRunner};

use thalweg_model::{Moment, UnixMillis};

/// The time, as a decision is told it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// To decide by.
    pub at: Moment,
    /// To show to people.
    pub wall: UnixMillis,
}

impl Now {
    /// What a clock says.
    pub fn of(clock: &dyn thalweg_env::Clock) -> Self {
        Self { at: clock.now(), wall: clock.wall() }
    }
}
