//! The ResourceManager: TaskManagers register with it, JobMasters tell it what they need, and it brings them together.
//!
//! `core.rs` decides, `driver.rs` does.

pub mod core;
pub mod driver;
#[cfg(test)]
mod tests;

pub use core::{Effect, Event, ResourceManager, Settings, WorkerView};
pub use driver::{ResourceManagerHandle, ResourceManagerServices};
