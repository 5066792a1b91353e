//! The JobMaster: one for each running job. It gets slots, deploys tasks, watches them, and decides what a failure means.
//!
//! `core.rs` and `states/` decide, `driver.rs` does.

pub mod core;
pub mod driver;
pub mod job;
#[cfg(test)]
mod region_tests;
pub mod restart;
pub mod states;
#[cfg(test)]
mod tests;
pub mod view;

pub use core::{Effect, Event, JobMaster};
pub use job::{ExceptionEntry, Left, Partition, Rates, Settings};
pub use view::{JobView, SubtaskView};
