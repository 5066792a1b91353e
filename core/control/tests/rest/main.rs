//! REST of a real JobManager, driven over HTTP. Its TaskManagers are played by the tests, so that what REST tells of a
//! running job can be compared with what was reported.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "test code: a failed expectation is a failed test, and real sockets are what is tested"
)]

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
