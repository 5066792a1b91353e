//! What a TaskExecutor takes: slot requests of the ResourceManager, tasks of JobMasters.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thalweg_model::{AllocationId, Attempt, JobId, RegionAttempt, SubtaskId};
use thalweg_wire::Deploy;

/// A slot is wanted for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRequest {
    /// For whom.
    pub job: JobId,
    /// The grant's id. The same request again is fine.
    pub allocation: AllocationId,
    /// Which slot.
    pub slot: u32,
}

/// The slots that a JobMaster believes it has on a TaskManager. The TaskExecutor frees active ones that are not named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatedSlotReport {
    /// Their grants.
    pub allocations: Vec<AllocationId>,
}

/// A log file that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Its name, to ask for it.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last written, Unix milliseconds.
    pub modified: u64,
}

crate::gateway! {
    /// Calls on a TaskExecutor. A call's fence carries the calling leader's epoch; lower ones than seen are refused.
    pub gateway TaskExecutorGateway, TaskExecutorMessage {
        ask {
            /// Reserves a slot; the TaskExecutor then offers it to the job's JobMaster. `Err` when it is taken.
            RequestSlot = request_slot(request: SlotRequest) -> Result<(), String>;
            /// Runs tasks. The answer means that they were handed to the host; how they fare comes as task reports.
            Deploy = deploy(job: JobId, deploy: Deploy) -> Result<(), String>;
            /// Stops the tasks of these regions, under these attempts and lower ones. Answers those that have yet to end: how
            /// they do comes as task reports. What of these attempts arrives later is refused.
            Cancel = cancel(job: JobId, regions: Vec<RegionAttempt>) -> Vec<SubtaskId>;
            /// What this committer prepared is recorded: publish it.
            Commit = commit(job: JobId, subtask: SubtaskId, attempt: Attempt) -> ();
            /// Ends the job's host, by force, and starts a fresh one; the slots are offered again when it is ready. Tasks of
            /// `attempt` and lower ones are gone when this is answered.
            ResetHost = reset_host(job: JobId, attempt: Attempt) -> ();
            /// The slot is no longer the job's.
            FreeSlot = free_slot(job: JobId, allocation: AllocationId, cause: String) -> ();
            /// What the process counts of itself, by name.
            Metrics = metrics() -> Vec<(String, u64)>;
            /// Log files: of the TaskManager itself, and of its jobs' hosts.
            ListLogs = list_logs() -> Vec<LogFile>;
            /// A piece of one; empty at its end. `None` when there is no such file.
            ReadLog = read_log(name: String, offset: u64, length: u32) -> Option<Bytes>;
        }
        tell {
            /// The ResourceManager asks for a slot report.
            HeartbeatFromResourceManager = heartbeat_from_resource_manager();
            /// A JobMaster tells what it believes, and asks for the same.
            HeartbeatFromJobMaster = heartbeat_from_job_master(job: JobId, report: AllocatedSlotReport);
        }
    }
}
