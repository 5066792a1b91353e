//! Task hosts: the processes that run user code, one for each (job, TaskManager).
//!
//! `supervisor.rs` is the TaskManager's side of the protocol, `process.rs` starts real processes, `side.rs` is the host's
//! side. An embedded job has its host in the same process, over the same protocol.

pub mod cgroup;
mod memory;
pub mod process;
pub mod side;
pub mod supervisor;

use crate::executor::core::HostId;
use std::sync::Arc;
use thalweg_env::Shutdown;
use thalweg_model::{JobId, TaskFailure};
use thalweg_rpc::Connection;
use thalweg_wire::{FromHost, JobSpec, ToHost};
use tokio::sync::{mpsc, watch};

/// A host to start.
pub struct HostRequest {
    /// Whose.
    pub job: JobId,
    /// Which life.
    pub host: HostId,
    /// What it is started with.
    pub spec: Box<JobSpec>,
    /// The JobManager, to get the executable from.
    pub leader: Option<Connection>,
}

/// What a host does.
#[derive(Debug)]
pub enum HostEvent {
    /// It says something.
    Message(FromHost),
    /// Its process has so many bytes of memory for itself, or had when the kernel ended it for want of more. Told now
    /// and then, and not where it has no process of its own.
    Memory(u64),
    /// It is gone, or never came to be. Always the last event.
    Gone(TaskFailure),
}

/// Takes a host's events.
pub type HostEvents = Arc<dyn Fn(HostEvent) + Send + Sync>;

/// A started host.
pub struct HostHandle {
    /// Goes to the host, in order.
    pub messages: mpsc::UnboundedSender<ToHost>,
    /// Ends it by force; [`HostEvent::Gone`] follows.
    pub kill: Shutdown,
    /// Bytes of memory that it may have, 0 before they are known.
    pub memory: watch::Sender<u64>,
}

/// Starts hosts.
pub trait HostLauncher: Send + Sync {
    /// Starts one. Never waits; whatever goes wrong is told as [`HostEvent::Gone`].
    fn launch(&self, request: HostRequest, events: HostEvents) -> HostHandle;
}
