//! The plugin against real etcd: the suite on one node and on three, and what only a real one shows.
//!
//! Where etcd is not installed each test says that it was skipped; with `THALWEG_TEST_REQUIRE=etcd` it fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod access;
mod conformance;
mod faults;
mod office;
mod process;
mod proxy;
mod server;
mod writes;
