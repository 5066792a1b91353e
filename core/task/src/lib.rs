//! What runs on a TaskManager: the TaskExecutor with its slot table, the supervision of task hosts, and the host's side.
//!
//! The TaskManager process never runs user code: that is in the hosts, which are the job's own executable.

pub mod blob_cache;
pub mod executor;
pub mod file_cache;
pub mod host;
pub mod logs;
pub mod task_manager;

pub use task_manager::{TaskManager, TaskManagerConfig, TaskManagerServices, platform};
