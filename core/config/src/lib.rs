//! Configuration: compiled-in defaults < file < environment < `-D` flags, checked as a whole before anything starts.
//!
//! ```text
//!  conf/default.toml ┐
//!  file              ├─ layers ─▶ known keys? forms? ─▶ merged ─▶ rules between options ─▶ Configuration
//!  THALWEG__A_B__C   │            (schema of the core's structs and of each linked plugin)
//!  -Da-b.c=value     ┘
//! ```
//!
//! Nothing here reads the process's environment or arguments: the caller passes them in. Nothing here opens a plugin,
//! except [`Configuration::open`] on request. All that is wrong is told at once, each with where it was written.

pub mod flink;
mod known;
mod layers;
mod linked;
mod load;
mod nearest;
pub mod options;
mod problem;
mod reference;
pub mod restart;
mod rules;
pub mod schema;
mod section;

pub use load::{Configuration, Sources};
pub use problem::{ConfigError, ConfigProblem, Source};
pub use reference::{plugins, reference};
pub use rules::is_loopback;
pub use section::PluginSection;

/// The defaults as they are compiled in.
pub const DEFAULTS: &str = include_str!("../../../conf/default.toml");
