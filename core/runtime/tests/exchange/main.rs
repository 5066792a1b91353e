//! Exchanges of whole jobs between slots and between task hosts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod aligned_sources;
mod full_buffers;
mod hosts;
mod long_records;
