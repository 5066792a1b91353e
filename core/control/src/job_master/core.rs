//! One job's master: a pure function of (state, now, event). `driver.rs` carries out what it decides.
//!
//! What belongs to every state (TaskManagers that register, slots that are offered, reports) is handled here and in
//! `job/`; what differs by state is in `states/`, one file each.

use super::{
    job::{Job, Left, Settings},
    states::{self, Input, State},
    view::JobView,
};
use crate::Now;
use bytes::Bytes;
use thalweg_model::{
    AllocationId, Attempt, ExecutionState, InstanceId, JobId, JobStatus, Moment, RegionAttempt, SubtaskId, TaskFailure,
    TaskManagerId,
};
use thalweg_rpc::{
    Fault, Origin,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistration, JobRegistrationAnswer, SlotOffer, TaskManagerStatus,
    },
    is_for,
};
use thalweg_wire::{CommitRecord, Deploy, DeployedOn, DeploymentRecord, Descriptor, JobRecord, JobResult, TaskReport};

/// Token of a call that waits for an answer; the driver keeps the reply.
pub type CallId = u64;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// First event: begin.
    Start,
    /// A TaskManager that holds slots for the job presents itself.
    Register {
        /// Waits for [`Effect::AnswerRegister`].
        call: CallId,
        /// On which connection, and the epoch that it believes in.
        from: Origin,
        /// Itself.
        registration: JobRegistration,
    },
    /// Slots are offered.
    Offer {
        /// Waits for [`Effect::AnswerOffer`].
        call: CallId,
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// What.
        offers: Vec<SlotOffer>,
    },
    /// A subtask changed.
    Report {
        /// Waits for [`Effect::Acknowledge`].
        call: CallId,
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// What.
        report: TaskReport,
    },
    /// The job's host on a TaskManager is gone or cannot start.
    HostFailed {
        /// Waits for [`Effect::Acknowledge`].
        call: CallId,
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Where.
        id: TaskManagerId,
        /// Which life of the TaskManager.
        instance: InstanceId,
        /// Which life of the host, and why.
        failed: HostFailure,
    },
    /// The answer to a heartbeat.
    Heartbeat {
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// What it holds and runs.
        status: TaskManagerStatus,
    },
    /// A TaskManager gives up what it held for the job.
    Left {
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// A TaskManager is gone.
    WorkerGone {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// The answer to [`Effect::RegisterPartitions`].
    PartitionsRegistered {
        /// Of which attempt.
        attempt: Attempt,
        /// The descriptors, or why not.
        outcome: Result<Vec<Descriptor>, TaskFailure>,
    },
    /// The answer to [`Effect::RecordDeployment`].
    DeploymentRecorded {
        /// Of which attempt.
        attempt: Attempt,
        /// Written, or why not.
        outcome: Result<(), TaskFailure>,
    },
    /// The answer to [`Effect::RecordCommit`].
    CommitRecorded {
        /// Of which attempt.
        attempt: Attempt,
        /// Written, or why it certainly was not: the driver asks again until one of them is known.
        outcome: Result<(), TaskFailure>,
    },
    /// The answer to [`Effect::Deploy`].
    DeployAnswered {
        /// Of which attempt.
        attempt: Attempt,
        /// Where.
        id: TaskManagerId,
        /// Handed to the host, or why not.
        outcome: Result<(), String>,
    },
    /// The answer to [`Effect::ResetHost`].
    HostReset {
        /// Of which attempt.
        attempt: Attempt,
        /// Where.
        id: TaskManagerId,
        /// Is the old host certainly gone?
        done: bool,
    },
    /// The answer to [`Effect::Cancel`].
    Stopped {
        /// Where.
        id: TaskManagerId,
        /// What was to stop.
        regions: Vec<RegionAttempt>,
        /// What has yet to end; `None` when nobody knows whether it was told.
        ending: Option<Vec<SubtaskId>>,
    },
    /// A TaskManager of an earlier leader's deployment is certainly gone.
    Vanished {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// A TaskManager is registered with this leader.
    Present {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// It holds slots of the job, and will present itself.
        holds: bool,
    },
    /// The job's result is written down.
    ResultRecorded,
    /// The ResourceManager says what the job waits for; `None` when it waits no longer.
    Waiting(Option<String>),
    /// Somebody looks at the job: its counters are asked for.
    Looked,
    /// End the job.
    Cancel,
    /// The JobManager stops; the job does not.
    Suspend,
    /// Time passed.
    Tick {
        /// Any number: it varies delays that have jitter.
        random: u64,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a registration.
    AnswerRegister {
        /// Which call.
        call: CallId,
        /// With what.
        answer: Result<JobRegistrationAnswer, Fault>,
    },
    /// Answer an offer.
    AnswerOffer {
        /// Which call.
        call: CallId,
        /// The accepted ones.
        answer: Result<Vec<AllocationId>, Fault>,
    },
    /// Answer a report.
    Acknowledge {
        /// Which call.
        call: CallId,
        /// With what.
        answer: Result<(), Fault>,
    },
    /// Tell the ResourceManager how many slots the job needs in all.
    Require(u32),
    /// Register every partition of what is started that leaves a host.
    RegisterPartitions {
        /// Of which attempt.
        attempt: Attempt,
    },
    /// Write down the deployment.
    RecordDeployment(DeploymentRecord),
    /// Write down that the output is complete.
    RecordCommit(CommitRecord),
    /// Send tasks.
    Deploy {
        /// Where.
        id: TaskManagerId,
        /// What.
        deploy: Box<Deploy>,
    },
    /// Stop tasks. The answer is [`Event::Stopped`].
    Cancel {
        /// Where.
        id: TaskManagerId,
        /// Of these regions, under these attempts and lower ones.
        regions: Vec<RegionAttempt>,
    },
    /// Publish.
    Commit {
        /// Where.
        id: TaskManagerId,
        /// Which committer.
        subtask: SubtaskId,
        /// Of which attempt.
        attempt: Attempt,
    },
    /// End the host by force and start a fresh one.
    ResetHost {
        /// Where.
        id: TaskManagerId,
        /// Of this attempt and lower ones.
        attempt: Attempt,
    },
    /// Give a slot back.
    FreeSlot {
        /// Where.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Which grant.
        allocation: AllocationId,
        /// Why.
        cause: String,
    },
    /// Send a heartbeat.
    Heartbeat {
        /// To whom.
        id: TaskManagerId,
        /// What the job believes.
        report: AllocatedSlotReport,
    },
    /// A TaskManager was silent for too long: close the connection, so that it notices.
    Disconnect {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
    },
    /// Partitions of these regions, under these attempts and lower ones, are over.
    ReleasePartitions {
        /// Which.
        regions: Vec<RegionAttempt>,
    },
    /// Something went wrong, and this is what was decided: for the log.
    Failed {
        /// What.
        failure: TaskFailure,
        /// The decision, in words.
        decision: String,
    },
    /// The tasks of an earlier leader are this one's, as they are: for the log.
    Adopted,
    /// Look whether this TaskManager lives, until it is known or it has registered.
    LookFor(DeployedOn),
    /// The job's status changed.
    Status(JobStatus),
    /// The job ended. Its slots are held, with what its tasks ended with, until that is written down.
    Ended(Box<JobResult>),
    /// Nothing is left of the job here. Nothing follows.
    Over,
}

/// The state of one job.
#[derive(Debug, Clone)]
pub struct JobMaster {
    job: Job,
    /// Taken out only while it handles an event.
    state: Option<State>,
}

impl JobMaster {
    /// A job that was accepted, and what an earlier leader left of it.
    pub fn new(record: JobRecord, left: Left, settings: Settings) -> Self {
        Self { job: Job::new(record, left, settings), state: Some(State::Created(states::Created)) }
    }

    /// From here on it makes its mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn plant_credulity(&mut self) {
        self.job.credulous = true;
    }

    /// From here on what is told to stop is taken for stopped.
    #[cfg(feature = "planted-bugs")]
    pub fn plant_haste(&mut self) {
        self.job.hasty = true;
    }

    /// Decides.
    pub fn on_event(&mut self, now: Now, event: Event) -> Vec<Effect> {
        if let Some(input) = self.common(now, event) {
            self.step(now, input);
        }
        std::mem::take(&mut self.job.effects)
    }

    fn step(&mut self, now: Now, input: Input) {
        let Some(state) = self.state.take() else { return };
        let before = state.status();
        let next = state.on_input(&mut self.job, now, input);
        let after = next.status();
        self.state = Some(next);
        if before != after {
            self.job.status_changed(now, after);
        }
    }

    /// Handles what is the same in every state; answers what the state has to know.
    fn common(&mut self, now: Now, event: Event) -> Option<Input> {
        let epoch = self.job.settings.epoch;
        match event {
            Event::Start => Some(Input::Start),
            Event::Register { call, from, registration } => {
                let over = self.is_over() && !self.state.as_ref().is_some_and(State::is_unrecorded);
                let id = registration.id.clone();
                let admitted =
                    is_for(epoch, from.fence).and_then(|()| self.job.is_latest(from, &id, registration.instance));
                let answer = admitted.map(|()| self.job.register(now, from, registration, over));
                let answered = answer.is_ok();
                self.job.effects.push(Effect::AnswerRegister { call, answer });
                // Whatever it was answered, all that it has of the job is known now.
                answered.then_some(Input::Accounted { id })
            }
            Event::Offer { call, from, id, instance, offers } => {
                let wanted = self.state.as_ref().is_some_and(State::takes_slots);
                // What ended there is needed by whoever leads next, until this leader has decided or written it down.
                let all = self.job.left.is_some() || self.state.as_ref().is_some_and(State::is_unrecorded);
                let answer = is_for(epoch, from.fence).and_then(|()| self.job.is_latest(from, &id, instance));
                let answer = answer.map(|()| self.job.offered(&id, instance, offers, wanted, all));
                let any = answer.as_ref().is_ok_and(|a| !a.is_empty());
                self.job.effects.push(Effect::AnswerOffer { call, answer });
                any.then_some(Input::SlotsChanged)
            }
            Event::Report { call, from, id, instance, report } => {
                // Who has not presented itself (yet) tells it again when it has.
                let admitted = is_for(epoch, from.fence).and_then(|()| match self.job.is_current(&id, instance) {
                    true => self.job.is_latest(from, &id, instance),
                    false => Err(Fault::Refused("this TaskManager is not registered with the job".into())),
                });
                let subtask = report.subtask;
                let stopping = self.job.is_stopping(subtask);
                let applied = admitted.is_ok() && self.job.report(now, &id, instance, &report);
                self.job.effects.push(Effect::Acknowledge { call, answer: admitted });
                if !applied {
                    return None;
                }
                // However a task ends that is to end, it has.
                let failure = match report.failure {
                    _ if stopping => None,
                    // An earlier leader's word may have been under way.
                    None if report.state == ExecutionState::Canceled => {
                        let why = "the task was stopped by an earlier JobManager";
                        Some(TaskFailure::new(thalweg_model::FailureKind::Lost, why))
                    }
                    failure => failure.filter(|_| report.state.is_terminal()),
                };
                Some(match failure {
                    Some(failure) => {
                        self.job.breaks(subtask);
                        Input::TaskFailed { failure: failure.at(subtask), id: Some(id) }
                    }
                    None => Input::TaskChanged,
                })
            }
            Event::HostFailed { call, from, id, instance, failed } => {
                let admitted = is_for(epoch, from.fence).and_then(|()| self.job.is_latest(from, &id, instance));
                let known = admitted.is_ok() && self.job.is_news(&id, instance, &failed);
                let failure = failed.failure;
                self.job.effects.push(Effect::Acknowledge { call, answer: admitted });
                if !known {
                    return None;
                }
                self.job.host_gone(&id);
                let running = self.job.end_tasks_on(now, &id);
                Some(if running {
                    Input::TaskFailed { failure, id: Some(id) }
                } else {
                    Input::HostFailed { failure, id }
                })
            }
            Event::Heartbeat { from, id, instance, status } => {
                let known = is_for(epoch, from.fence).is_ok() && self.job.is_current(&id, instance);
                if !known || self.job.is_latest(from, &id, instance).is_err() {
                    return None;
                }
                let (missing, stopped) = self.job.heard(now, &id, instance, &status);
                // Told before, but perhaps when it did not matter yet.
                let failed = status.host_failure.filter(|failed| self.job.is_news(&id, instance, failed));
                match (missing, failed) {
                    (Some(failure), _) => Some(Input::TaskFailed { failure, id: Some(id) }),
                    (None, Some(failed)) => Some(Input::HostFailed { failure: failed.failure, id }),
                    (None, None) => stopped.then_some(Input::TaskChanged),
                }
            }
            Event::Left { from, id, instance, cause } => {
                let admitted = is_for(epoch, from.fence).and_then(|()| self.job.is_latest(from, &id, instance));
                admitted.ok().and_then(|()| self.worker_gone(now, &id, instance, &cause))
            }
            Event::WorkerGone { id, instance, cause } => self.worker_gone(now, &id, instance, &cause),
            Event::Vanished { id, instance, cause } => {
                let expected = self
                    .job
                    .left
                    .as_ref()
                    .is_some_and(|l| l.task_managers.iter().any(|t| t.id == id && t.instance == instance));
                let failure = TaskFailure::new(
                    thalweg_model::FailureKind::Lost,
                    format!("TaskManager {id} was lost with the JobManager: {cause}"),
                );
                (expected && !self.job.is_current(&id, instance)).then_some(Input::Vanished { failure, id })
            }
            Event::Present { id, instance, holds } => {
                let same = |t: &DeployedOn| t.id == id && t.instance == instance;
                let expected = self.job.left.as_ref().is_some_and(|l| l.task_managers.iter().any(same));
                // Another life of it has nothing either.
                (self.job.left.is_some() && (!expected || !holds)).then_some(Input::Accounted { id })
            }
            Event::ResultRecorded => Some(Input::ResultRecorded),
            Event::PartitionsRegistered { attempt, outcome } if attempt == self.job.attempt => {
                Some(Input::PartitionsRegistered(outcome))
            }
            Event::DeploymentRecorded { attempt, outcome } if attempt == self.job.attempt => {
                Some(Input::DeploymentRecorded(outcome))
            }
            Event::CommitRecorded { attempt, outcome } if attempt == self.job.attempt => {
                Some(Input::CommitRecorded(outcome))
            }
            Event::DeployAnswered { attempt, id, outcome } if self.job.is_under(attempt) => match outcome {
                Ok(()) => {
                    self.job.deployed(&id, attempt);
                    None
                }
                Err(cause) => {
                    if !self.job.not_deployed(&id, attempt) {
                        return None;
                    }
                    let failure = TaskFailure::new(
                        thalweg_model::FailureKind::Lost,
                        format!("tasks could not be handed to TaskManager {id}: {cause}"),
                    );
                    Some(Input::TaskFailed { failure, id: Some(id) })
                }
            },
            Event::HostReset { attempt, id, done } => Some(Input::HostReset { attempt, id, done }),
            Event::Stopped { id, regions, ending } => match ending {
                Some(ending) => self.job.stopped(now, &id, &regions, &ending).then_some(Input::TaskChanged),
                None => Some(Input::NotStopped { id }),
            },
            // Answers of an attempt that is over.
            Event::PartitionsRegistered { .. }
            | Event::DeploymentRecorded { .. }
            | Event::CommitRecorded { .. }
            | Event::DeployAnswered { .. } => None,
            Event::Waiting(why) => {
                self.job.waiting = why;
                None
            }
            Event::Looked => {
                if !self.is_over() {
                    self.job.looked(now);
                }
                None
            }
            Event::Cancel => Some(Input::Cancel),
            Event::Suspend => Some(Input::Suspend),
            Event::Tick { random } => {
                self.job.random = random;
                for (id, instance) in self.job.heartbeats.expired(now.at) {
                    self.job.effects.push(Effect::Disconnect { id: id.clone(), instance });
                    let limit = self.job.settings.heartbeat.timeout.as_secs_f64();
                    let lost = self.worker_gone(now, &id, instance, &format!("no heartbeat for {limit}s"));
                    if let Some(input) = lost {
                        self.step(now, input);
                    }
                }
                self.job.send_heartbeats(now);
                Some(Input::Tick)
            }
        }
    }

    fn worker_gone(&mut self, now: Now, id: &TaskManagerId, instance: InstanceId, cause: &str) -> Option<Input> {
        if !self.job.is_current(id, instance) {
            return None;
        }
        let failure = TaskFailure::new(thalweg_model::FailureKind::Lost, format!("TaskManager {id} was lost: {cause}"));
        let running = self.job.end_tasks_on(now, id);
        if !running && self.status() == JobStatus::Restarting && self.job.had_tasks_on(id) {
            // Its peers missed it before we did, and what they said names only them.
            self.job.note_exception(now, failure.clone(), Some(id.clone()), "the job was restarting already".into());
        }
        self.job.forget_worker(id);
        Some(if running {
            Input::TaskFailed { failure, id: Some(id.clone()) }
        } else {
            Input::WorkerGone { id: id.clone() }
        })
    }

    fn is_over(&self) -> bool {
        self.state.as_ref().is_none_or(State::is_over)
    }

    /// When to send a tick at the latest; `None` when only other events matter.
    pub fn deadline(&self) -> Option<Moment> {
        if self.is_over() {
            return None;
        }
        let state = self.state.as_ref().and_then(|s| s.deadline(&self.job));
        state.into_iter().chain(self.job.heartbeats.next_deadline()).chain(self.job.next_heartbeat()).min()
    }

    /// Which job.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// Its status.
    pub fn status(&self) -> JobStatus {
        self.state.as_ref().map_or(JobStatus::Suspended, State::status)
    }

    /// The latest attempt, of whatever was started last.
    pub fn attempt(&self) -> Attempt {
        self.job.attempt
    }

    /// Under which attempt the subtask's region is.
    pub fn attempt_of(&self, subtask: SubtaskId) -> Attempt {
        self.job.attempt_of(subtask)
    }

    /// All that REST shows.
    pub fn view(&self) -> JobView {
        JobView::of(&self.job, self.status())
    }

    /// Which partitions leave a host, for [`Effect::RegisterPartitions`].
    pub fn partitions(&self) -> Vec<super::job::Partition> {
        self.job.partitions()
    }

    /// Transitions that were taken, by name: the tests want each written one to be seen.
    pub fn transitions(&self) -> &[(&'static str, &'static str)] {
        &self.job.transitions
    }

    /// The TaskManagers that are registered: what the invariants are checked by.
    pub fn task_managers(&self) -> Vec<(TaskManagerId, InstanceId)> {
        self.job.registered().collect()
    }

    /// The slots that it believes it has: what the invariants are checked by.
    pub fn slots(&self) -> Vec<(TaskManagerId, u32, AllocationId)> {
        self.job.pool.iter().map(|(a, s)| (s.id.clone(), s.index, *a)).collect()
    }
}

/// What a committer prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Its manifest.
    pub manifest: Bytes,
    /// What `collect` gathered.
    pub collected: std::collections::BTreeMap<String, Bytes>,
}
