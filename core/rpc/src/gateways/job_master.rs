//! What a JobMaster takes: slots and task reports of TaskManagers.

use serde::{Deserialize, Serialize};
use thalweg_model::{
    AllocationId, Attempt, ExecutionState, InstanceId, SubtaskId, SubtaskMetrics, TaskFailure, TaskManagerId,
};
use thalweg_wire::{JobSpec, TaskReport};

/// A TaskManager that holds slots for the job, with what it already runs of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRegistration {
    /// Its name.
    pub id: TaskManagerId,
    /// This life of it.
    pub instance: InstanceId,
    /// Where it takes RPC.
    pub rpc: String,
    /// What it holds and runs.
    pub status: TaskManagerStatus,
}

/// One life of the job's host on a TaskManager is over, or never began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFailure {
    /// Which life: they are numbered by the TaskManager, later ones higher. A word about an earlier one is late.
    pub host: u64,
    /// Why.
    pub failure: TaskFailure,
}

/// What a TaskManager holds and runs of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskManagerStatus {
    /// Its grants.
    pub allocations: Vec<AllocationId>,
    /// The tasks that are in its host, and the ended ones that no leader has acknowledged.
    pub tasks: Vec<(SubtaskId, Attempt, ExecutionState)>,
    /// Counters of those tasks.
    pub metrics: Vec<(SubtaskId, SubtaskMetrics)>,
    /// Why there is no host, when the last one failed and nobody has said what next.
    pub host_failure: Option<HostFailure>,
}

/// The answer to a job registration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JobRegistrationAnswer {
    /// Welcome: the job that the host is started with.
    Accepted(Box<JobSpec>),
    /// The job is over, or does not want this TaskManager: free all that is held for it.
    Rejected(String),
}

/// A slot whose host is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotOffer {
    /// The grant.
    pub allocation: AllocationId,
    /// Index in the TaskManager.
    pub slot: u32,
    /// Which life of the host is ready.
    pub host: u64,
    /// Where the job's other hosts reach this one.
    pub data_address: Option<String>,
}

crate::gateway! {
    /// Calls on a JobMaster. A call's fence carries the epoch that the caller believes in.
    pub gateway JobMasterGateway, JobMasterMessage {
        ask {
            /// A TaskManager that holds slots for the job presents itself.
            RegisterTaskManager = register_task_manager(registration: JobRegistration) -> JobRegistrationAnswer;
            /// Slots whose host is ready; answers those that the job takes. The others are to be freed.
            OfferSlots = offer_slots(id: TaskManagerId, instance: InstanceId, offers: Vec<SlotOffer>) -> Vec<AllocationId>;
            /// A subtask changed. Terminal states are repeated until this is answered.
            Report = report(id: TaskManagerId, instance: InstanceId, report: TaskReport) -> ();
            /// The job's host there is gone or cannot start; its tasks with it.
            HostFailed = host_failed(id: TaskManagerId, instance: InstanceId, failed: HostFailure) -> ();
            /// A TaskManager gives up what it held for the job.
            DisconnectTaskManager = disconnect_task_manager(id: TaskManagerId, instance: InstanceId, cause: String) -> ();
        }
        tell {
            /// The answer to a heartbeat.
            Heartbeat = heartbeat(id: TaskManagerId, instance: InstanceId, status: TaskManagerStatus);
        }
    }
}
