//! In-memory doubles, one for each kind. They pass the same suites as the plugins, so a test that uses one learns
//! nothing that is not true of a plugin.

pub mod blob;
pub mod deployment;
pub mod faults;
pub mod high_availability;
pub mod resource_provider;
pub mod shuffle;
