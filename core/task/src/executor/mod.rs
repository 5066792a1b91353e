//! The TaskExecutor: slots, hosts and tasks of one TaskManager.
//!
//! `core.rs` and `core/` decide in the terms of `event.rs`, `driver.rs` does, `leader.rs` finds the leader and stays registered with it.

pub mod core;
pub mod driver;
pub mod event;
pub mod leader;
#[cfg(test)]
mod tests;

pub use core::{Effect, Event, Settings, TaskExecutor};
pub use driver::{ExecutorHandle, ExecutorServices};
