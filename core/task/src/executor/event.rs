//! What the TaskExecutor's core is told, and what it decides: plain data between `core.rs` and `driver.rs`.

use std::time::Duration;
use thalweg_model::{
    AllocationId, Attempt, Epoch, ExecutionState, JobId, RegionAttempt, SubtaskId, SubtaskMetrics, TaskFailure,
    TaskManagerId,
};
use thalweg_rpc::{
    Fault, Fence,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistrationAnswer, SlotOffer, SlotReport, SlotRequest, TaskManagerStatus,
    },
};
use thalweg_wire::{Deploy, HostMemory, JobSpec, TaskReport, ToHost};

/// Token of a call that waits for an answer; the driver keeps the reply.
pub type CallId = u64;
/// One life of one job's host.
pub type HostId = u64;
/// One offer of slots.
pub type OfferId = u64;

/// What it is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This TaskManager.
    pub id: TaskManagerId,
    /// Number of slots.
    pub slots: u32,
    /// Bytes of memory for the hosts in all slots; a host has the share of its job's slots.
    pub memory: u64,
    /// An offered slot that nobody takes is freed after this.
    pub slot_timeout: Duration,
    /// A host that says nothing for so long is ended by force.
    pub host_silence: Duration,
    /// A JobMaster that says nothing for so long is asked whether it still wants what is held for it.
    pub master_silence: Duration,
    /// Tasks whose leader is lost go on for so long.
    pub orphan_timeout: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The ResourceManager wants a slot.
    RequestSlot {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// What.
        request: SlotRequest,
    },
    /// The answer to [`Effect::RegisterAtJobMaster`].
    JobRegistered {
        /// Which job.
        job: JobId,
        /// The JobMaster's word.
        answer: JobRegistrationAnswer,
    },
    /// A host is ready for tasks.
    HostReady {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// Where other hosts reach it.
        data_address: Option<String>,
    },
    /// A host has ended, was refused, or could not be started. Always the last word of a life.
    HostGone {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// Why.
        failure: TaskFailure,
    },
    /// A host tells of a task.
    TaskReported {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// What.
        report: Box<TaskReport>,
    },
    /// A host tells counters, which also says that it lives.
    HostMetrics {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// By subtask, each under its attempt.
        metrics: Vec<(SubtaskId, Attempt, SubtaskMetrics)>,
        /// What its memory is used for.
        memory: HostMemory,
    },
    /// How much memory a host's process has for itself.
    HostMemory {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// So many.
        bytes: u64,
    },
    /// The answer to [`Effect::Offer`].
    OfferAnswered {
        /// Which job.
        job: JobId,
        /// Which offer.
        offer: OfferId,
        /// The accepted ones; `None` when there was no answer.
        accepted: Option<Vec<AllocationId>>,
    },
    /// The JobMaster has acknowledged a report.
    ReportAcknowledged {
        /// Which job.
        job: JobId,
        /// Which task.
        subtask: SubtaskId,
        /// Under which attempt.
        attempt: Attempt,
        /// The state that was told.
        state: ExecutionState,
        /// It told what a committer has prepared.
        prepared: bool,
    },
    /// A report is larger than a message to the JobMaster may be, and was not sent.
    ReportTooLarge {
        /// Which job.
        job: JobId,
        /// What.
        report: Box<TaskReport>,
        /// Its bytes.
        size: usize,
        /// `rpc.max-frame`.
        limit: usize,
    },
    /// A JobMaster sends tasks.
    Deploy {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// What.
        deploy: Box<Deploy>,
    },
    /// A JobMaster stops tasks.
    Cancel {
        /// Waits for [`Effect::AnswerCancel`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// Under these attempts and lower ones.
        regions: Vec<RegionAttempt>,
    },
    /// A JobMaster has recorded what a committer prepared.
    Commit {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// Which committer.
        subtask: SubtaskId,
        /// Of which attempt.
        attempt: Attempt,
    },
    /// A JobMaster wants a fresh host.
    ResetHost {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// Tasks of this attempt and lower ones shall be gone.
        attempt: Attempt,
    },
    /// A JobMaster gives a slot back.
    FreeSlot {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// Which grant.
        allocation: AllocationId,
    },
    /// The ResourceManager asks for a slot report.
    ResourceManagerHeartbeat {
        /// Whose call.
        fence: Fence,
    },
    /// A JobMaster tells which slots it believes it has.
    JobMasterHeartbeat {
        /// Whose call.
        fence: Fence,
        /// Which job.
        job: JobId,
        /// Its belief.
        report: AllocatedSlotReport,
    },
    /// The connection to a leader is there: jobs register again.
    LeaderFound {
        /// Under which it leads.
        epoch: Epoch,
    },
    /// The leader is certainly gone, or was silent for too long.
    LeaderLost,
    /// Time passed.
    Tick,
    /// The TaskManager ends.
    Stop,
}

/// What an answered call gets.
pub type Answer = Result<Result<(), String>, Fault>;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a call.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        answer: Answer,
    },
    /// Answer a cancel.
    AnswerCancel {
        /// Which.
        call: CallId,
        /// The tasks that have yet to end.
        answer: Result<Vec<SubtaskId>, Fault>,
    },
    /// Present this TaskManager to the job's JobMaster, until it answers.
    RegisterAtJobMaster {
        /// Which job.
        job: JobId,
        /// What is held and run.
        status: TaskManagerStatus,
    },
    /// Start a host.
    StartHost {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// What it is started with.
        spec: Box<JobSpec>,
    },
    /// A host may have so many bytes of memory from now on.
    LimitHost {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// So many.
        bytes: u64,
    },
    /// End a host by force; [`Event::HostGone`] follows.
    KillHost {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
    },
    /// Send a message to a host.
    SendHost {
        /// Whose.
        job: JobId,
        /// Which life.
        host: HostId,
        /// What.
        message: Box<ToHost>,
    },
    /// Offer slots.
    Offer {
        /// To which job.
        job: JobId,
        /// Which offer.
        offer: OfferId,
        /// What.
        slots: Vec<SlotOffer>,
    },
    /// Tell the JobMaster of a task.
    Report {
        /// Which job.
        job: JobId,
        /// What.
        report: Box<TaskReport>,
    },
    /// Tell the JobMaster that its host here is gone.
    ReportHostFailed {
        /// Which job.
        job: JobId,
        /// Which life, and why.
        failed: HostFailure,
    },
    /// Tell the ResourceManager that a slot is free.
    SlotFreed {
        /// Which grant ended.
        allocation: AllocationId,
    },
    /// Answer a heartbeat of the ResourceManager.
    SendSlotReport(SlotReport),
    /// Answer a heartbeat of a JobMaster.
    SendStatus {
        /// Which job.
        job: JobId,
        /// What is held and run.
        status: TaskManagerStatus,
    },
    /// Nothing of the job is left here.
    ForgetJob(JobId),
}

/// How much of everything is on a TaskManager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots that nobody has.
    pub free_slots: u64,
    /// Task hosts.
    pub hosts: u64,
    /// Tasks that have not ended.
    pub tasks: u64,
}
