//! What travels in the simulated cluster: the gateways' calls and answers, and what each process tells itself.

use std::{collections::BTreeSet, time::Duration};
use thalweg_control::{
    dispatcher::{self, core::CancelAnswer, core::Submitted},
    job_master, resource_manager,
};
use thalweg_model::{
    AllocationId, Attempt, Epoch, InstanceId, JobId, Moment, RegionAttempt, SubtaskId, TaskFailure, TaskManagerId,
};
use thalweg_rpc::{
    Fault, Fence,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistration, JobRegistrationAnswer, RegistrationAnswer, SlotOffer,
        SlotReport, SlotRequest, TaskManagerInfo, TaskManagerStatus,
    },
};
use thalweg_task::executor;
use thalweg_testkit::harness::{Kinds, LinkId, NodeId};
use thalweg_wire::{
    CommitRecord, Deploy, DeployedOn, DeploymentRecord, FromHost, JobRecord, JobSpec, ResultRecord, TaskReport, ToHost,
};

/// See the module.
#[derive(Debug)]
pub struct Net;

impl Kinds for Net {
    type Message = Message;
    type Answer = Answer;
    type Ticket = Ticket;
    type Local = Local;
}

/// Calls, as the gateways have them.
#[derive(Debug)]
pub enum Message {
    // to the ResourceManager
    RegisterTaskManager { fence: Fence, info: TaskManagerInfo, report: SlotReport },
    Heartbeat { fence: Fence, id: TaskManagerId, instance: InstanceId, report: SlotReport },
    SlotFreed { fence: Fence, id: TaskManagerId, instance: InstanceId, allocation: AllocationId },
    // to a JobMaster
    Master { job: JobId, fence: Fence, call: MasterCall },
    // to a TaskExecutor
    Executor { fence: Fence, call: ExecutorCall },
    // to REST
    Submit { job: JobId, spec: Box<JobSpec> },
    Cancel { job: JobId },
    ClientSeen { job: JobId },
    // between TaskManager and host
    ToHost(Box<ToHost>),
    FromHost(Box<FromHost>),
}

#[derive(Debug)]
pub enum MasterCall {
    Register(JobRegistration),
    Offer { id: TaskManagerId, instance: InstanceId, offers: Vec<SlotOffer> },
    Report { id: TaskManagerId, instance: InstanceId, report: Box<TaskReport> },
    HostFailed { id: TaskManagerId, instance: InstanceId, failed: HostFailure },
    Disconnect { id: TaskManagerId, instance: InstanceId },
    Heartbeat { id: TaskManagerId, instance: InstanceId, status: TaskManagerStatus },
}

#[derive(Debug)]
pub enum ExecutorCall {
    RequestSlot(SlotRequest),
    Deploy { job: JobId, deploy: Box<Deploy> },
    Cancel { job: JobId, regions: Vec<RegionAttempt> },
    Commit { job: JobId, subtask: SubtaskId, attempt: Attempt },
    ResetHost { job: JobId, attempt: Attempt },
    FreeSlot { job: JobId, allocation: AllocationId },
    HeartbeatFromResourceManager,
    HeartbeatFromJobMaster { job: JobId, report: AllocatedSlotReport },
}

#[derive(Debug, Clone)]
pub enum Answer {
    Registered(Result<RegistrationAnswer, Fault>),
    JobRegistered(Result<JobRegistrationAnswer, Fault>),
    Offered(Result<Vec<AllocationId>, Fault>),
    Done(Result<Result<(), String>, Fault>),
    Ending(Result<Vec<SubtaskId>, Fault>),
    Submitted(Submitted),
    Cancelled(CancelAnswer),
    /// REST of a JobManager that does not lead.
    NotLeading,
}

/// What a caller goes on with when its call has ended.
#[derive(Debug)]
pub enum Ticket {
    // of a JobManager
    Slot { id: TaskManagerId, instance: InstanceId, allocation: AllocationId },
    Deploy { job: JobId, attempt: Attempt, id: TaskManagerId },
    Commit { job: JobId, attempt: Attempt, id: TaskManagerId },
    Reset { job: JobId, attempt: Attempt, id: TaskManagerId },
    Stop { job: JobId, regions: Vec<RegionAttempt>, id: TaskManagerId },
    // of a TaskManager
    Registration { turn: u64 },
    JobRegistration { job: JobId, link: LinkId, epoch: Epoch, began: Moment, status: TaskManagerStatus },
    Offer { job: JobId, offer: executor::core::OfferId },
    Report { reporter: u64 },
    HostFailed { job: JobId, link: LinkId, epoch: Epoch, failed: HostFailure },
    // of a client
    Submit,
    Cancel,
    Nothing,
}

/// Who was found at an address.
#[derive(Debug, Clone, Copy)]
pub enum Dialled {
    Connected { link: LinkId, peer: NodeId },
    Refused,
    Unreachable,
}

/// What a store is asked to do.
#[derive(Debug, Clone)]
pub enum Write {
    Job(Box<JobRecord>),
    Deployment(JobId, DeploymentRecord),
    Commit(JobId, CommitRecord),
    Cancel(JobId),
    /// Dirty, or the clean mark.
    Result(Box<ResultRecord>),
    CleanUp(JobId),
    Forget(JobId),
}

/// Is it known whether a write happened?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Yes,
    No,
    Unknown,
}

/// What a process tells itself.
#[derive(Debug)]
pub enum Local {
    // JobManager
    Lead,
    Exit,
    HeartbeatAll,
    ManagerTick,
    DispatcherTick,
    MasterTick(JobId),
    Manager(resource_manager::Event),
    Dispatcher(Box<dispatcher::core::Event>),
    WorkerGone(TaskManagerId, InstanceId, String),
    WorkerPresent(TaskManagerId, InstanceId, BTreeSet<JobId>),
    /// A TaskManager of an earlier leader's deployment was dialled.
    LookedFor {
        job: JobId,
        there: DeployedOn,
        until: Moment,
        found: Dialled,
    },
    LookAgainFor {
        job: JobId,
        there: DeployedOn,
        until: Moment,
    },
    Waiting(JobId, Option<String>),
    Master(JobId, Box<job_master::Event>),
    Written(Write, Written),
    DialledBack {
        id: TaskManagerId,
        instance: InstanceId,
        found: Dialled,
    },
    ResetAgain {
        job: JobId,
        attempt: Attempt,
        id: TaskManagerId,
    },
    StopAgain {
        job: JobId,
        regions: Vec<RegionAttempt>,
        id: TaskManagerId,
    },
    // TaskManager
    LeaderChanged,
    LinkStep(u64, LinkStep),
    Executor(Box<executor::Event>),
    LeaderFound(LinkId, Epoch),
    LeaderLost,
    ExecutorTick,
    JobRegisterAgain {
        job: JobId,
        link: LinkId,
        epoch: Epoch,
        began: Moment,
        status: TaskManagerStatus,
    },
    ReportAgain(u64),
    HostFailedAgain {
        job: JobId,
        link: LinkId,
        epoch: Epoch,
        failed: HostFailure,
    },
    Forked(JobId, u64),
    KillHost(NodeId),
    /// Its process is waited for: told behind all that it said.
    HostReaped {
        job: JobId,
        host: u64,
        failure: TaskFailure,
    },
    HostGone {
        job: JobId,
        host: u64,
        failure: TaskFailure,
    },
    // host
    Ready,
    Refuse(TaskFailure),
    Metrics,
    Task(SubtaskId, Attempt, TaskStep),
    PeerLost(RegionAttempt),
    // client
    ClientStep,
    ClientDialled(Dialled),
    // outside
    Chaos,
    Apply {
        life: u32,
        epoch: Epoch,
        manager: NodeId,
        write: Write,
        written: Written,
        answer_after: Duration,
    },
    /// This JobManager dies, another is started, and whoever was cut off is not any longer.
    Replace(NodeId),
    HostDies(NodeId),
    Boot(usize),
    BootManager,
    Heal,
    Provider(ProviderOrder),
}

/// The leader link of a TaskManager goes on.
#[derive(Debug)]
pub enum LinkStep {
    Poll,
    Dialled(Dialled),
    Report,
    Again,
    Silence,
    Looked(Dialled),
    LookAgain,
}

/// A task goes on.
#[derive(Debug, Clone, Copy)]
pub enum TaskStep {
    Initializing,
    Running,
    Finished,
    Failed,
    Gathered,
    PublishFirst,
    PublishLast,
    Cancelled,
}

/// What the provider hears.
#[derive(Debug)]
pub enum ProviderOrder {
    Declare(NodeId, u32),
    Release(NodeId, TaskManagerId),
    Registered(NodeId, TaskManagerId),
    Reconcile,
    WorkerBoots(TaskManagerId),
    WorkerDied(TaskManagerId),
}
