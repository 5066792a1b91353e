//! Office in a cluster's folder: the lock that makes one process the leader, the file that tells others where it is, and
//! how they learn of it. For the high-availability plugins `standalone` and `local`; it registers nothing, and keeps no
//! records.
//!
//! ```text
//!  <cluster_dir>/jobmanager.lock   locked while a JobManager leads; holds its pid
//!  <cluster_dir>/leader.json       where the leader is; only true while the lock is held
//! ```
//!
//! Where the highest epoch is kept is the plugin's business: see [`Keep`].

mod blocking;
mod changes;
mod election;
mod folder;
mod retrieval;

pub use blocking::blocking;
pub use election::{Desk, Election, Keep, next_epoch};
pub use folder::{Folder, Lock};
pub use retrieval::Retrieval;
