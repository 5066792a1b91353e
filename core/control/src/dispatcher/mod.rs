//! The Dispatcher: takes jobs, starts a JobMaster for each, and sees to it that each ends exactly once.
//!
//! `core.rs` decides, `driver.rs` does.

pub mod core;
pub mod driver;
#[cfg(test)]
mod tests;

pub use core::{CancelAnswer, Dispatcher, Effect, Entry, Event, Settings, Step, Submitted};
pub use driver::{DispatcherHandle, DispatcherServices};
