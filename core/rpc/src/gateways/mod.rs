//! The gateways between the components of a cluster, and the plain data that they carry.

pub mod blob;
pub mod job_master;
pub mod resource_manager;
pub mod task_executor;

pub use blob::{BlobGateway, BlobMessage};
pub use job_master::{
    HostFailure, JobMasterGateway, JobMasterMessage, JobRegistration, JobRegistrationAnswer, SlotOffer,
    TaskManagerStatus,
};
pub use resource_manager::{
    RegistrationAnswer, ResourceManagerGateway, ResourceManagerMessage, SlotReport, SlotStatus, TaskManagerInfo,
};
pub use task_executor::{AllocatedSlotReport, LogFile, SlotRequest, TaskExecutorGateway, TaskExecutorMessage};

/// Names of endpoints.
pub mod endpoint {
    use thalweg_model::JobId;

    /// On the JobManager.
    pub const RESOURCE_MANAGER: &str = "resource-manager";
    /// On the JobManager.
    pub const BLOB: &str = "blob";
    /// On a TaskManager.
    pub const TASK_EXECUTOR: &str = "task-executor";

    /// On the JobManager, one for each running job.
    pub fn job_master(job: JobId) -> String {
        format!("job-master/{job}")
    }
}
