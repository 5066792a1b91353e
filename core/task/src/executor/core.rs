//! The slot table and what belongs to it: a pure function of (state, now, event). `driver.rs` carries out what it decides.
//!
//! ```text
//! free ──request──▶ allocated ──offer accepted, or tasks arrive──▶ active ──free──▶ releasing ──host gone──▶ free
//! ```
//!
//! A job's host is started with its first slot, before any task, so that its data address is known when slots are
//! offered; it ends with the last. Every call is admitted by its epoch first. Terminal states of tasks are kept and told
//! again until a leader has acknowledged them.

use std::collections::{BTreeMap, BTreeSet};
use thalweg_model::{
    AllocationId, Attempt, Epoch, ExecutionState, FailureKind, JobId, Moment, Regions, SubtaskId, SubtaskMetrics,
    TaskFailure,
};
use thalweg_rpc::{
    Fault, Fence, Fences,
    gateways::{HostFailure, SlotReport, SlotStatus},
};
use thalweg_wire::{HostMemory, JobSpec, TaskReport, ToHost};

mod hosts;
mod slots;
mod tasks;

pub use super::event::{Answer, CallId, Counts, Effect, Event, HostId, OfferId, Settings};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Free,
    /// Reserved. The deadline runs once it was offered.
    Allocated {
        job: JobId,
        allocation: AllocationId,
        deadline: Option<Moment>,
    },
    Active {
        job: JobId,
        allocation: AllocationId,
    },
    /// Its host is being ended.
    Releasing {
        job: JobId,
        allocation: AllocationId,
    },
}

#[derive(Debug, Clone)]
enum Host {
    /// None yet, or the last one failed and the JobMaster has not said what next.
    None,
    Starting {
        host: HostId,
    },
    Ready {
        host: HostId,
        data_address: Option<String>,
        heard: Moment,
    },
    /// Being ended by force.
    Ending {
        host: HostId,
        again: bool,
        calls: Vec<CallId>,
    },
}

#[derive(Debug, Clone)]
struct Task {
    attempt: Attempt,
    slot: u32,
    state: ExecutionState,
    metrics: SubtaskMetrics,
    /// The report that must not get lost: a terminal state, or what was prepared. Kept as long as the task, for a leader
    /// that comes after the one that has acknowledged it.
    report: Option<Box<TaskReport>>,
    /// The present leader has it.
    acknowledged: bool,
}

impl Task {
    fn unacknowledged(&self) -> Option<&TaskReport> {
        self.report.as_deref().filter(|_| !self.acknowledged)
    }
}

#[derive(Debug, Clone)]
struct Job {
    registered: bool,
    /// A registration is under way.
    registering: bool,
    /// When its JobMaster was last heard.
    heard: Moment,
    spec: Option<Box<JobSpec>>,
    host: Host,
    regions: Regions,
    /// The highest attempt that was deployed here, of any region.
    attempt: Attempt,
    /// By region: the highest attempt that was deployed here.
    deployed: BTreeMap<u32, Attempt>,
    /// By region: up to this attempt it was cancelled, and what is still sent of it is late.
    cancelled: BTreeMap<u32, Attempt>,
    /// Up to this attempt hosts were reset: what is still sent of it is late.
    reset: Option<Attempt>,
    tasks: BTreeMap<SubtaskId, Task>,
    /// The latest offer: an answer to another one is of no interest.
    offer: Option<(OfferId, BTreeSet<AllocationId>)>,
    /// A failure of the host that the JobMaster has not acknowledged.
    host_failure: Option<HostFailure>,
    /// What a host last said that its memory is used for.
    told: (HostId, HostMemory),
    /// What a host was last told that it may have.
    limited: (HostId, u64),
}

/// The state.
#[derive(Debug, Clone)]
pub struct TaskExecutor {
    settings: Settings,
    fences: Fences,
    slots: Vec<Slot>,
    jobs: BTreeMap<JobId, Job>,
    next: u64,
    /// The latest leader.
    leader: Option<Epoch>,
    /// When the leader was lost.
    orphaned: Option<Moment>,
    stopping: bool,
    effects: Vec<Effect>,
    #[cfg(feature = "planted-bugs")]
    planted: Option<Planted>,
}

/// Mistakes that the seeded harness must find.
#[cfg(feature = "planted-bugs")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Calls of any epoch are obeyed.
    FenceNotChecked,
    /// The answer to any offer is taken for the answer to the latest.
    OldOfferAccepted,
    /// What one leader has acknowledged is not told to the next.
    AcknowledgedForEver,
}

impl TaskExecutor {
    /// All slots are free.
    pub fn new(settings: Settings) -> Self {
        Self {
            slots: vec![Slot::Free; settings.slots as usize],
            settings,
            fences: Fences::default(),
            jobs: BTreeMap::new(),
            next: 0,
            leader: None,
            orphaned: None,
            stopping: false,
            effects: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// From here on it makes this mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, bug: Planted) {
        self.planted = Some(bug);
    }

    /// Is the caller the leader, as far as is known here?
    fn admit(&mut self, fence: Fence) -> Result<(), Fault> {
        #[cfg(feature = "planted-bugs")]
        if self.planted == Some(Planted::FenceNotChecked) {
            return Ok(());
        }
        self.fences.admit(fence)
    }

    fn is_forgetful(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted == Some(Planted::AcknowledgedForEver);
        #[cfg(not(feature = "planted-bugs"))]
        false
    }

    fn is_latest(&self, offer: OfferId, latest: OfferId) -> bool {
        #[cfg(feature = "planted-bugs")]
        if self.planted == Some(Planted::OldOfferAccepted) {
            return true;
        }
        offer == latest
    }

    /// Decides.
    pub fn on_event(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        match event {
            Event::RequestSlot { call, fence, request } => {
                let answer = self.admit(fence).map(|()| self.request_slot(now, &request));
                self.answer(call, answer);
            }
            Event::JobRegistered { job, answer } => self.job_registered(now, job, answer),
            Event::HostReady { job, host, data_address } => {
                if let Some(j) = self.jobs.get_mut(&job)
                    && matches!(j.host, Host::Starting { host: h } if h == host)
                {
                    j.host = Host::Ready { host, data_address, heard: now };
                    self.offer(now, job);
                }
            }
            Event::HostGone { job, host, failure } => self.host_gone(now, job, host, failure),
            Event::TaskReported { job, host, report } => self.task_reported(now, job, host, report),
            Event::HostMetrics { job, host, metrics, memory } => {
                if let Some(j) = self.jobs.get_mut(&job)
                    && let Host::Ready { host: h, heard, .. } = &mut j.host
                    && *h == host
                {
                    *heard = now;
                    j.told = (host, memory);
                    for (subtask, attempt, metrics) in metrics {
                        if let Some(task) = j.tasks.get_mut(&subtask).filter(|t| t.attempt == attempt) {
                            task.metrics = metrics;
                        }
                    }
                }
            }
            Event::HostMemory { job, host, bytes } => self.look_at_memory(job, host, bytes),
            Event::OfferAnswered { job, offer, accepted } => self.offer_answered(now, job, offer, accepted),
            Event::ReportAcknowledged { job, subtask, attempt, state, prepared } => {
                if let Some(j) = self.jobs.get_mut(&job)
                    && let Some(task) = j.tasks.get_mut(&subtask)
                {
                    // A committer is running before it has prepared and after: the state alone does not say which.
                    let same =
                        |r: &TaskReport| r.attempt == attempt && r.state == state && r.prepared.is_some() == prepared;
                    task.acknowledged |= task.report.as_deref().is_some_and(same);
                }
            }
            Event::ReportTooLarge { job, report, size, limit } => self.report_too_large(job, &report, size, limit),
            Event::Deploy { call, fence, job, deploy } => {
                let answer = self.admit(fence).map(|()| self.deploy(job, *deploy));
                self.answer(call, answer);
            }
            Event::Cancel { call, fence, job, regions } => {
                let answer = self.admit(fence).map(|()| self.cancel(job, regions));
                self.effects.push(Effect::AnswerCancel { call, answer });
            }
            Event::Commit { call, fence, job, subtask, attempt } => {
                let answer = self.admit(fence).map(|()| {
                    self.send_host(job, ToHost::Commit { subtask, attempt });
                    Ok(())
                });
                self.answer(call, answer);
            }
            Event::ResetHost { call, fence, job, attempt } => match self.admit(fence) {
                Ok(()) => self.reset_host(call, job, attempt),
                Err(fault) => self.answer(call, Err(fault)),
            },
            Event::FreeSlot { call, fence, job, allocation } => {
                let admitted = self.admit(fence);
                if admitted.is_ok() {
                    self.free(job, |a| a == allocation);
                }
                self.answer(call, admitted.map(Ok));
            }
            Event::ResourceManagerHeartbeat { fence } => {
                if self.admit(fence).is_ok() {
                    let report = self.slot_report();
                    self.effects.push(Effect::SendSlotReport(report));
                }
            }
            Event::JobMasterHeartbeat { fence, job, report } => self.job_master_heartbeat(now, fence, job, &report),
            Event::LeaderFound { epoch } => {
                self.orphaned = None;
                if self.leader.replace(epoch) != Some(epoch) && !self.is_forgetful() {
                    // What an earlier leader was told may have died with it.
                    self.jobs.values_mut().flat_map(|j| j.tasks.values_mut()).for_each(|t| t.acknowledged = false);
                }
                for job in self.jobs.keys().copied().collect::<Vec<_>>() {
                    self.register(job);
                }
            }
            Event::LeaderLost => {
                self.orphaned = self.orphaned.or(Some(now));
                for job in self.jobs.values_mut() {
                    (job.registered, job.registering) = (false, false);
                }
                for job in self.jobs.keys().copied().collect::<Vec<_>>() {
                    self.withdraw(now, job);
                }
            }
            Event::Tick => {}
            Event::Stop => {
                self.stopping = true;
                for job in self.jobs.keys().copied().collect::<Vec<_>>() {
                    self.free(job, |_| true);
                }
            }
        }
        self.time_outs(now);
        self.limit_hosts();
        std::mem::take(&mut self.effects)
    }

    /// When to send a tick at the latest.
    pub fn deadline(&self) -> Option<Moment> {
        let slots = self.slots.iter().filter_map(|s| match s {
            Slot::Allocated { job, allocation, deadline } if !self.is_offered(*job, *allocation) => *deadline,
            _ => None,
        });
        let hosts = self.jobs.values().filter_map(|j| match &j.host {
            Host::Ready { heard, .. } => Some(*heard + self.settings.host_silence),
            _ => None,
        });
        // Slots whose host is being ended are no longer waited for: their deadline would lie in the past.
        let held = self.slots.iter().any(|s| matches!(s, Slot::Allocated { .. } | Slot::Active { .. }));
        let orphans = self.orphaned.filter(|_| held).map(|at| at + self.settings.orphan_timeout);
        let masters = self.jobs.values().filter(|j| j.registered).map(|j| j.heard + self.settings.master_silence);
        slots.chain(hosts).chain(orphans).chain(masters).min()
    }

    /// Is there an offer of it that was not answered? One always is, if only by the end of its connection, and who stood still
    /// for a while may have the answer without having read it.
    fn is_offered(&self, job: JobId, allocation: AllocationId) -> bool {
        let offer = self.jobs.get(&job).and_then(|j| j.offer.as_ref());
        offer.is_some_and(|(_, offered)| offered.contains(&allocation))
    }

    /// Does the job have a slot here by this grant?
    pub fn has(&self, job: JobId, allocation: AllocationId) -> bool {
        self.slots.iter().any(|slot| match *slot {
            Slot::Allocated { job: j, allocation: a, .. } | Slot::Active { job: j, allocation: a } => {
                (j, a) == (job, allocation)
            }
            Slot::Free | Slot::Releasing { .. } => false,
        })
    }

    /// How much of everything is here.
    pub fn counts(&self) -> Counts {
        let running = |j: &Job| j.tasks.values().filter(|t| !t.state.is_terminal()).count() as u64;
        Counts {
            free_slots: self.slots.iter().filter(|s| matches!(s, Slot::Free)).count() as u64,
            hosts: self.jobs.values().filter(|j| !matches!(j.host, Host::None)).count() as u64,
            tasks: self.jobs.values().map(running).sum(),
        }
    }

    /// All slots, by index.
    pub fn slot_report(&self) -> SlotReport {
        let status = |slot: &Slot| match *slot {
            Slot::Free => SlotStatus::Free,
            Slot::Allocated { job, allocation, .. } => SlotStatus::Taken { job, allocation, active: false },
            Slot::Active { job, allocation } => SlotStatus::Taken { job, allocation, active: true },
            Slot::Releasing { job, .. } => SlotStatus::Releasing { job },
        };
        SlotReport { slots: self.slots.iter().map(status).collect() }
    }

    /// Is nothing of any job here?
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The jobs that hold something here.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.effects.push(Effect::Answer { call, answer });
    }

    fn time_outs(&mut self, now: Moment) {
        for job in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.free_expired(now, job);
            if let Some(Job { host: Host::Ready { host, heard, .. }, .. }) = self.jobs.get(&job)
                && now.since(*heard) >= self.settings.host_silence
            {
                let host = *host;
                let silence = self.settings.host_silence.as_secs_f64();
                let message =
                    format!("the job's host on {} said nothing for {silence}s and was ended", self.settings.id);
                self.end_host(job, host, TaskFailure::new(FailureKind::Lost, message));
            }
        }
        let silent = |j: &Job| j.registered && now.since(j.heard) >= self.settings.master_silence;
        for job in self.jobs.iter().filter(|(_, j)| silent(j)).map(|(id, _)| *id).collect::<Vec<_>>() {
            // It has ended, or has given this TaskManager up, and the word was lost: it is asked.
            if let Some(j) = self.jobs.get_mut(&job) {
                j.registered = false;
            }
            self.withdraw(now, job);
            self.register(job);
        }
        if self.orphaned.is_some_and(|since| now.since(since) >= self.settings.orphan_timeout) {
            for job in self.jobs.keys().copied().collect::<Vec<_>>() {
                self.free(job, |_| true);
            }
        }
    }
}
