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
    AllocationId, Attempt, Epoch, ExecutionState, FailureKind, JobId, Moment, RegionAttempt, Regions, SubtaskId,
    SubtaskMetrics, TaskFailure,
};
use thalweg_rpc::{
    Fault, Fence, Fences,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistrationAnswer, SlotOffer, SlotReport, SlotRequest, SlotStatus,
        TaskManagerStatus,
    },
};
use thalweg_wire::{Deploy, JobSpec, TaskDeployment, TaskReport, ToHost};

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
            Event::HostMetrics { job, host, metrics } => {
                if let Some(j) = self.jobs.get_mut(&job)
                    && let Host::Ready { host: h, heard, .. } = &mut j.host
                    && *h == host
                {
                    *heard = now;
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

    // ---- slots ----

    fn request_slot(&mut self, now: Moment, request: &SlotRequest) -> Result<(), String> {
        if self.stopping {
            return Err("the TaskManager is stopping".into());
        }
        let Some(slot) = self.slots.get_mut(request.slot as usize) else {
            return Err(format!("there is no slot {}", request.slot));
        };
        match slot {
            Slot::Allocated { allocation, .. } | Slot::Active { allocation, .. }
                if *allocation == request.allocation =>
            {
                return Ok(());
            }
            Slot::Free => {
                *slot = Slot::Allocated { job: request.job, allocation: request.allocation, deadline: None };
            }
            Slot::Allocated { job, .. } | Slot::Active { job, .. } | Slot::Releasing { job, .. } => {
                return Err(format!("slot {} is taken by job {job}", request.slot));
            }
        }
        let job = request.job;
        match self.jobs.get(&job) {
            None => {
                let new = Job {
                    registered: false,
                    registering: false,
                    heard: now,
                    spec: None,
                    host: Host::None,
                    regions: Regions::default(),
                    attempt: Attempt::default(),
                    deployed: BTreeMap::new(),
                    cancelled: BTreeMap::new(),
                    reset: None,
                    tasks: BTreeMap::new(),
                    offer: None,
                    host_failure: None,
                };
                self.jobs.insert(job, new);
                self.register(job);
            }
            Some(j) => {
                // Its JobMaster may have refused this TaskManager, and wants it again.
                if !j.registered && !j.registering {
                    self.register(job);
                }
                // A host that is being ended because nothing was left starts again when it is gone.
                match self.jobs.get_mut(&job) {
                    Some(Job { host: Host::Ending { again, .. }, .. }) => *again = true,
                    Some(Job { host: Host::None, host_failure: Some(_), .. }) => self.withdraw(now, job),
                    _ => {}
                }
                self.offer(now, job);
            }
        }
        Ok(())
    }

    fn allocations(&self, job: JobId) -> Vec<AllocationId> {
        let mine = self.slots.iter().filter_map(|slot| match slot {
            Slot::Allocated { job: j, allocation, .. } | Slot::Active { job: j, allocation } if *j == job => {
                Some(*allocation)
            }
            _ => None,
        });
        mine.collect()
    }

    fn register(&mut self, job: JobId) {
        if self.orphaned.is_some() {
            return;
        }
        let status = self.status(job);
        if let Some(j) = self.jobs.get_mut(&job) {
            j.registering = true;
        }
        self.effects.push(Effect::RegisterAtJobMaster { job, status });
    }

    fn status(&self, job: JobId) -> TaskManagerStatus {
        let mut status = TaskManagerStatus { allocations: self.allocations(job), ..Default::default() };
        if let Some(j) = self.jobs.get(&job) {
            status.host_failure = j.host_failure.clone();
            for (subtask, task) in &j.tasks {
                status.tasks.push((*subtask, task.attempt, task.state));
                status.metrics.push((*subtask, task.metrics.clone()));
            }
        }
        status
    }

    fn job_registered(&mut self, now: Moment, job: JobId, answer: JobRegistrationAnswer) {
        match answer {
            JobRegistrationAnswer::Rejected(_) => {
                // Nobody will acknowledge what is left of it.
                if let Some(j) = self.jobs.get_mut(&job) {
                    (j.registered, j.registering) = (false, false);
                    j.tasks.clear();
                }
                self.free(job, |_| true);
            }
            JobRegistrationAnswer::Accepted(spec) => {
                let Some(j) = self.jobs.get_mut(&job) else { return };
                (j.registered, j.registering, j.heard) = (true, false, now);
                if j.spec.is_none() {
                    (j.regions, j.spec) = (Regions::of(&spec.graph), Some(spec));
                }
                let again: Vec<_> = j.tasks.values().filter_map(Task::unacknowledged).cloned().map(Box::new).collect();
                let failed = j.host_failure.clone();
                self.effects.extend(again.into_iter().map(|report| Effect::Report { job, report }));
                if let Some(failed) = failed {
                    self.effects.push(Effect::ReportHostFailed { job, failed });
                } else {
                    self.start_host(job);
                }
                self.offer(now, job);
            }
        }
    }

    fn start_host(&mut self, job: JobId) {
        let host = self.next + 1;
        let Some(j) = self.jobs.get_mut(&job) else { return };
        if let (Host::None, Some(spec)) = (&j.host, &j.spec) {
            let spec = spec.clone();
            j.host = Host::Starting { host };
            j.host_failure = None;
            self.next = host;
            self.effects.push(Effect::StartHost { job, host, spec });
        }
    }

    fn offer(&mut self, now: Moment, job: JobId) {
        let id = self.next + 1;
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let Host::Ready { host, data_address, .. } = &j.host else { return };
        let host = *host;
        if !j.registered {
            return;
        }
        let mut slots = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let allocation = match slot {
                Slot::Allocated { job: of, allocation, deadline } if *of == job => {
                    *deadline = Some(now + self.settings.slot_timeout);
                    *allocation
                }
                // Told again after a fresh host or a new leader: the address may be another one.
                Slot::Active { job: of, allocation } if *of == job => *allocation,
                _ => continue,
            };
            slots.push(SlotOffer { allocation, slot: index as u32, host, data_address: data_address.clone() });
        }
        if slots.is_empty() {
            return;
        }
        self.next = id;
        j.offer = Some((id, slots.iter().map(|s| s.allocation).collect()));
        self.effects.push(Effect::Offer { job, offer: id, slots });
    }

    fn offer_answered(&mut self, now: Moment, job: JobId, offer: OfferId, accepted: Option<Vec<AllocationId>>) {
        let Some((latest, offered)) = self.jobs.get(&job).and_then(|j| j.offer.clone()) else { return };
        if !self.is_latest(offer, latest) {
            return;
        }
        self.withdraw(now, job);
        let Some(accepted) = accepted else {
            // No answer: whatever became of it, offering again is fine.
            self.offer(now, job);
            return;
        };
        for slot in &mut self.slots {
            if let Slot::Allocated { job: of, allocation, .. } = *slot
                && of == job
                && accepted.contains(&allocation)
            {
                *slot = Slot::Active { job, allocation };
            }
        }
        self.free(job, |a| offered.contains(&a) && !accepted.contains(&a));
    }

    /// Frees those slots of the job; with the last one its host is ended first. Tasks that are still in one of the others are
    /// stopped, and it is free when they have.
    fn free(&mut self, job: JobId, which: impl Fn(AllocationId) -> bool) {
        let held = self.allocations(job);
        let freed: Vec<_> = held.iter().copied().filter(|a| which(*a)).collect();
        let last = freed.len() == held.len();
        let host = match self.jobs.get(&job).map(|j| &j.host) {
            Some(Host::Starting { host } | Host::Ready { host, .. } | Host::Ending { host, .. }) => Some(*host),
            _ => None,
        };
        // Tasks of a host that is being ended are still there until it is gone, in whichever slot.
        let ending = self.jobs.get(&job).is_some_and(|j| matches!(j.host, Host::Ending { .. }));
        let busy = ending || (last && host.is_some());
        let live = self.live_tasks(job);
        let mut stop = BTreeSet::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let (of, allocation) = match *slot {
                Slot::Allocated { job, allocation, .. } | Slot::Active { job, allocation } => (job, allocation),
                _ => continue,
            };
            if of != job || !freed.contains(&allocation) {
                continue;
            }
            let occupied = live.iter().filter(|(at, _)| *at as usize == index).map(|(_, of)| *of);
            let known = stop.len();
            stop.extend(occupied);
            if busy || stop.len() > known {
                *slot = Slot::Releasing { job, allocation };
            } else {
                *slot = Slot::Free;
                self.effects.push(Effect::SlotFreed { allocation });
            }
        }
        if !last {
            if !busy && !stop.is_empty() {
                self.send_host(job, ToHost::Cancel { regions: stop.into_iter().collect() });
            }
            return;
        }
        match host {
            Some(host) => self.kill_host(job, host, false, None),
            None => self.forget(job),
        }
    }

    /// The slots that have tasks of the job which have not ended, and the regions of those.
    fn live_tasks(&self, job: JobId) -> BTreeSet<(u32, RegionAttempt)> {
        let Some(j) = self.jobs.get(&job) else { return BTreeSet::new() };
        let live = j.tasks.iter().filter(|(_, t)| !t.state.is_terminal());
        let of = |s: &SubtaskId, t: &Task| RegionAttempt { region: j.regions.region(*s), attempt: t.attempt };
        live.map(|(s, t)| (t.slot, of(s, t))).collect()
    }

    /// Slots that were given up and have no task in them any more are free, unless the whole host is being ended.
    fn free_emptied(&mut self, job: JobId) {
        if !self.jobs.get(&job).is_some_and(|j| matches!(j.host, Host::Ready { .. })) {
            return;
        }
        let live = self.live_tasks(job);
        self.free_released(job, |index| !live.iter().any(|(at, _)| *at as usize == index));
    }

    /// Those slots that the job has given up are free.
    fn free_released(&mut self, job: JobId, which: impl Fn(usize) -> bool) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Releasing { job: of, allocation } = *slot
                && of == job
                && which(index)
            {
                *slot = Slot::Free;
                self.effects.push(Effect::SlotFreed { allocation });
            }
        }
    }

    fn forget(&mut self, job: JobId) {
        if self.jobs.remove(&job).is_some() {
            self.effects.push(Effect::ForgetJob(job));
        }
    }

    // ---- host ----

    fn send_host(&mut self, job: JobId, message: ToHost) {
        if let Some(Job { host: Host::Ready { host, .. }, .. }) = self.jobs.get(&job) {
            self.effects.push(Effect::SendHost { job, host: *host, message: Box::new(message) });
        }
    }

    fn kill_host(&mut self, job: JobId, host: HostId, again: bool, call: Option<CallId>) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        match &mut j.host {
            Host::Ending { again: a, calls, .. } => {
                *a = again;
                calls.extend(call);
            }
            other => {
                *other = Host::Ending { host, again, calls: call.into_iter().collect() };
                j.tasks.retain(|_, t| t.state.is_terminal());
                self.effects.push(Effect::KillHost { job, host });
            }
        }
    }

    /// Ends a host that takes more than the share of its job's slots: its neighbours have a right to theirs.
    fn look_at_memory(&mut self, job: JobId, host: HostId, bytes: u64) {
        let slots = self.slots.len().max(1) as u64;
        let held = self.allocations(job).len() as u64;
        let share = self.settings.memory / slots * held;
        let theirs = |h: &Host| matches!(h, Host::Starting { host: h } | Host::Ready { host: h, .. } if *h == host);
        if bytes <= share || held == 0 || !self.jobs.get(&job).is_some_and(|j| theirs(&j.host)) {
            return;
        }
        let mib = |bytes: u64| bytes >> 20;
        let message = format!(
            "the job's host on {} took {} MiB of memory, more than the {} MiB that are its share: {held} of {slots} slots of \
             task-manager.memory ({} MiB). What it holds are its operators' state, what user code keeps, and records on \
             their way (exchange.memory at most): raise task-manager.memory, or spread the job over more slots",
            self.settings.id,
            mib(bytes),
            mib(share),
            mib(self.settings.memory),
        );
        self.end_host(job, host, TaskFailure::new(FailureKind::OutOfMemory, message));
    }

    /// Ends a host by force, and tells why.
    fn end_host(&mut self, job: JobId, host: HostId, failure: TaskFailure) {
        self.kill_host(job, host, false, None);
        let failed = HostFailure { host, failure };
        if let Some(j) = self.jobs.get_mut(&job) {
            j.host_failure = Some(failed.clone());
        }
        self.effects.push(Effect::ReportHostFailed { job, failed });
    }

    fn reset_host(&mut self, call: CallId, job: JobId, attempt: Attempt) {
        let Some(j) = self.jobs.get_mut(&job) else { return self.answer(call, Ok(Ok(()))) };
        j.reset = j.reset.max(Some(attempt));
        // A late or doubled call must not end what was deployed since.
        if j.attempt > attempt {
            return self.answer(call, Ok(Ok(())));
        }
        match j.host {
            Host::Starting { host } | Host::Ready { host, .. } | Host::Ending { host, .. } => {
                self.kill_host(job, host, true, Some(call));
            }
            Host::None => {
                self.answer(call, Ok(Ok(())));
                if let Some(j) = self.jobs.get_mut(&job) {
                    j.host_failure = None;
                }
                self.start_host(job);
            }
        }
    }

    fn host_gone(&mut self, now: Moment, job: JobId, gone: HostId, failure: TaskFailure) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        match &mut j.host {
            Host::Starting { host } | Host::Ready { host, .. } if *host == gone => {
                j.host = Host::None;
                j.tasks.retain(|_, t| t.state.is_terminal());
                let failed = HostFailure { host: gone, failure };
                j.host_failure = Some(failed.clone());
                self.effects.push(Effect::ReportHostFailed { job, failed });
                self.free_released(job, |_| true);
                self.withdraw(now, job);
            }
            Host::Ending { host, again, calls } if *host == gone => {
                let (again, calls) = (*again, std::mem::take(calls));
                j.host = Host::None;
                for call in calls {
                    self.answer(call, Ok(Ok(())));
                }
                self.withdraw(now, job);
                self.free_released(job, |_| true);
                if self.allocations(job).is_empty() {
                    self.forget(job);
                } else if again {
                    self.start_host(job);
                }
            }
            _ => {}
        }
    }

    /// No offer is under way any more, and nobody has said what next. The JobMaster does not know of slots that it has not
    /// taken, so it may never say: they are freed in the end, and given again.
    fn withdraw(&mut self, now: Moment, job: JobId) {
        if let Some(j) = self.jobs.get_mut(&job) {
            j.offer = None;
        }
        for slot in &mut self.slots {
            if let Slot::Allocated { job: of, deadline, .. } = slot
                && *of == job
            {
                *deadline = Some(now + self.settings.slot_timeout);
            }
        }
    }

    // ---- tasks ----

    fn deploy(&mut self, job: JobId, deploy: Deploy) -> Result<(), String> {
        let Some(j) = self.jobs.get_mut(&job) else { return Err("the job has no slot here".into()) };
        let Host::Ready { host, .. } = j.host else { return Err("the job's host is not ready".into()) };
        if j.reset.is_some_and(|reset| deploy.attempt <= reset) {
            return Err(format!("attempt {} was given up", deploy.attempt));
        }
        let regions: BTreeSet<u32> = deploy.tasks.iter().map(|t| j.regions.region(t.subtask)).collect();
        for region in &regions {
            if j.cancelled.get(region).is_some_and(|cancelled| deploy.attempt <= *cancelled) {
                return Err(format!("attempt {} was cancelled", deploy.attempt));
            }
            if let Some(later) = j.deployed.get(region).filter(|deployed| deploy.attempt < **deployed) {
                return Err(format!("attempt {} is older than {later}", deploy.attempt));
            }
        }
        let slots: BTreeSet<u32> =
            deploy.tasks.iter().filter_map(|t| deploy.placement.of(t.subtask)).map(|p| p.slot).collect();
        for index in &slots {
            match self.slots.get(*index as usize) {
                Some(Slot::Allocated { job: of, .. } | Slot::Active { job: of, .. }) if *of == job => {}
                _ => return Err(format!("slot {index} is not the job's")),
            }
        }
        for index in slots {
            // Tasks may arrive before the answer to the offer.
            if let Some(slot) = self.slots.get_mut(index as usize)
                && let Slot::Allocated { job, allocation, .. } = *slot
            {
                *slot = Slot::Active { job, allocation };
            }
        }
        let same = |t: &TaskDeployment| j.tasks.get(&t.subtask).is_some_and(|task| task.attempt == deploy.attempt);
        if !deploy.tasks.is_empty() && deploy.tasks.iter().all(same) {
            return Ok(());
        }
        j.attempt = j.attempt.max(deploy.attempt);
        let Job { regions: all, tasks, deployed, .. } = j;
        tasks.retain(|subtask, task| task.attempt == deploy.attempt || !regions.contains(&all.region(*subtask)));
        deployed.extend(regions.into_iter().map(|region| (region, deploy.attempt)));
        for task in &deploy.tasks {
            let new = Task {
                attempt: deploy.attempt,
                slot: deploy.placement.of(task.subtask).map_or(0, |p| p.slot),
                state: ExecutionState::Deploying,
                metrics: SubtaskMetrics::default(),
                report: None,
                acknowledged: false,
            };
            tasks.insert(task.subtask, new);
        }
        self.effects.push(Effect::SendHost { job, host, message: Box::new(ToHost::Deploy(Box::new(deploy))) });
        Ok(())
    }

    /// Answers what is there of these regions and has yet to end. What of them is still sent is refused from here on.
    fn cancel(&mut self, job: JobId, regions: Vec<RegionAttempt>) -> Vec<SubtaskId> {
        let Some(j) = self.jobs.get_mut(&job) else { return Vec::new() };
        for RegionAttempt { region, attempt } in &regions {
            let cancelled = j.cancelled.entry(*region).or_insert(*attempt);
            *cancelled = *attempt.max(cancelled);
        }
        let ending = |subtask: &SubtaskId, task: &Task| {
            let region = j.regions.region(*subtask);
            let of_it = |r: &RegionAttempt| r.region == region && task.attempt <= r.attempt;
            !task.state.is_terminal() && regions.iter().any(of_it)
        };
        let ending = j.tasks.iter().filter(|(subtask, task)| ending(subtask, task)).map(|(s, _)| *s).collect();
        self.send_host(job, ToHost::Cancel { regions });
        ending
    }

    fn task_reported(&mut self, now: Moment, job: JobId, host: HostId, report: Box<TaskReport>) {
        let Some(j) = self.jobs.get_mut(&job) else { return };
        let Host::Ready { host: h, heard, .. } = &mut j.host else { return };
        if *h != host {
            return;
        }
        *heard = now;
        let Some(task) = j.tasks.get_mut(&report.subtask) else { return };
        if task.attempt != report.attempt || task.state.is_terminal() {
            return;
        }
        task.state = report.state;
        task.metrics = report.metrics.clone();
        if report.state.is_terminal() || report.prepared.is_some() {
            (task.report, task.acknowledged) = (Some(report.clone()), false);
        }
        let ended = report.state.is_terminal();
        self.effects.push(Effect::Report { job, report });
        if ended {
            self.free_emptied(job);
        }
    }

    fn job_master_heartbeat(&mut self, now: Moment, fence: Fence, job: JobId, report: &AllocatedSlotReport) {
        if self.admit(fence).is_err() {
            return;
        }
        let Some(j) = self.jobs.get_mut(&job) else { return };
        j.heard = now;
        let active: Vec<_> = self
            .slots
            .iter()
            .filter_map(|s| match s {
                Slot::Active { job: of, allocation } if *of == job => Some(*allocation),
                _ => None,
            })
            .collect();
        // What is only allocated may be on its way to the JobMaster in an offer.
        self.free(job, |a| active.contains(&a) && !report.allocations.contains(&a));
        let status = self.status(job);
        self.effects.push(Effect::SendStatus { job, status });
    }

    // ---- time ----

    fn free_expired(&mut self, now: Moment, job: JobId) {
        let expired = self.slots.iter().filter_map(|s| match s {
            Slot::Allocated { job: of, allocation, deadline: Some(at) } if *of == job && *at <= now => {
                Some(*allocation)
            }
            _ => None,
        });
        let expired: Vec<_> = expired.filter(|allocation| !self.is_offered(job, *allocation)).collect();
        if !expired.is_empty() {
            self.free(job, |a| expired.contains(&a));
        }
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
