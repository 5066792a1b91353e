//! Processes of this host: starting them so that they outlive their starter, recognising them later, and ending them
//! without ever hitting another that has got their number since. For the providers `standalone` and `process`; it
//! registers nothing.

pub mod identity;
pub mod launcher;
pub mod private;
pub mod record;
pub mod start;
pub mod stop;

pub use identity::Identity;
pub use launcher::LocalLauncher;
pub use record::Record;
