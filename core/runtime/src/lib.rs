//! Puts control, task and api together: what a job's executable is, in each of its roles.
//!
//! | started by | role | what `execute` does |
//! |---|---|---|
//! | hand | none | runs embedded: the same JobManager and TaskManager, in this process, over an in-memory transport |
//! | `thalweg run` | client | ships the executable, submits, waits |
//! | `thalweg info` | plan | tells the graph and ends |
//! | a TaskManager | host | serves tasks and never returns |
//!
//! The library reads no arguments, and sets no logger, panic hook, allocator or signal handler.

pub mod blocking;
pub mod client;
pub mod cluster_rest;
pub mod embedded;
pub mod environment;
pub mod host;
mod in_process;
mod own_folder;
pub mod plan;
pub mod role;
pub mod settings;
pub mod testing;

pub use environment::Environment;
