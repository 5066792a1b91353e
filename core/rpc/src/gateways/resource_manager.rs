//! What the ResourceManager takes: registrations and slot reports of TaskManagers, requirements of JobMasters.

use serde::{Deserialize, Serialize};
use thalweg_model::{AllocationId, InstanceId, JobId, TaskManagerId};

/// A TaskManager, as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskManagerInfo {
    /// Its name.
    pub id: TaskManagerId,
    /// This life of it.
    pub instance: InstanceId,
    /// Where it takes RPC.
    pub rpc: String,
    /// Its process.
    pub pid: u32,
    /// Number of slots.
    pub slots: u32,
    /// Memory for all slots, bytes.
    pub memory: u64,
    /// Cores of its machine.
    pub cores: u32,
    /// What executables can run there: `x86_64 glibc-2.36`.
    pub platform: String,
}

/// What one slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotStatus {
    /// Nobody's.
    Free,
    /// Given to a job.
    Taken {
        /// Whose.
        job: JobId,
        /// By which grant.
        allocation: AllocationId,
        /// The job has taken it over (it is not only reserved).
        active: bool,
    },
    /// Being freed; not to be given yet.
    Releasing {
        /// Whose it was.
        job: JobId,
    },
}

/// All slots of a TaskManager, by index. Absolute: it replaces what was known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// By index.
    pub slots: Vec<SlotStatus>,
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegistrationAnswer {
    /// Welcome.
    Accepted,
    /// Not wanted; trying again does not help.
    Rejected(String),
}

/// The cause with which a TaskManager that ends in peace says goodbye.
pub const GOODBYE: &str = "it was stopped";

crate::gateway! {
    /// Calls on the ResourceManager. A call's fence carries the epoch that the caller believes in.
    pub gateway ResourceManagerGateway, ResourceManagerMessage {
        ask {
            /// A TaskManager presents itself with its slots. The same instance again is fine; a new instance under the same
            /// id replaces the old one, whose slots are gone.
            RegisterTaskManager = register_task_manager(info: TaskManagerInfo, report: SlotReport) -> RegistrationAnswer;
            /// A TaskManager says goodbye.
            DisconnectTaskManager = disconnect_task_manager(id: TaskManagerId, instance: InstanceId, cause: String) -> ();
        }
        tell {
            /// The answer to a heartbeat.
            Heartbeat = heartbeat(id: TaskManagerId, instance: InstanceId, report: SlotReport);
            /// A slot became free.
            SlotFreed = slot_freed(id: TaskManagerId, instance: InstanceId, allocation: AllocationId);
            /// A job needs so many slots in all. Absolute: it replaces what was declared; 0 forgets the job.
            DeclareRequirements = declare_requirements(job: JobId, slots: u32);
        }
    }
}
