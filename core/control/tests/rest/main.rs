//! REST of a real JobManager, driven over HTTP. Its TaskManagers are played by the tests, so that what REST tells of a
//! running job can be compared with what was reported.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code: a failed expectation is a failed test")]

mod cancel;
mod cluster;
mod failures;
mod leaders;
mod logs;
mod page;
mod proxy;
mod refusals;
mod running_job;
mod shapes;
mod worker;
