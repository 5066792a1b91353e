//! Slots of jobs: requested, offered to the JobMaster, accepted, given back.

use super::{Effect, Host, Job, OfferId, Slot, Task, TaskExecutor};
use std::collections::{BTreeMap, BTreeSet};
use thalweg_model::{AllocationId, Attempt, JobId, Moment, RegionAttempt, Regions, SubtaskId};
use thalweg_rpc::gateways::{JobRegistrationAnswer, SlotOffer, SlotRequest, TaskManagerStatus};
use thalweg_wire::ToHost;

impl TaskExecutor {
    pub(super) fn request_slot(&mut self, now: Moment, request: &SlotRequest) -> Result<(), String> {
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
                    told: Default::default(),
                    limited: Default::default(),
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

    pub(super) fn allocations(&self, job: JobId) -> Vec<AllocationId> {
        let mine = self.slots.iter().filter_map(|slot| match slot {
            Slot::Allocated { job: j, allocation, .. } | Slot::Active { job: j, allocation } if *j == job => {
                Some(*allocation)
            }
            _ => None,
        });
        mine.collect()
    }

    pub(super) fn register(&mut self, job: JobId) {
        if self.orphaned.is_some() {
            return;
        }
        let status = self.status(job);
        if let Some(j) = self.jobs.get_mut(&job) {
            j.registering = true;
        }
        self.effects.push(Effect::RegisterAtJobMaster { job, status });
    }

    pub(super) fn status(&self, job: JobId) -> TaskManagerStatus {
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

    pub(super) fn job_registered(&mut self, now: Moment, job: JobId, answer: JobRegistrationAnswer) {
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

    pub(super) fn offer(&mut self, now: Moment, job: JobId) {
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

    pub(super) fn offer_answered(
        &mut self,
        now: Moment,
        job: JobId,
        offer: OfferId,
        accepted: Option<Vec<AllocationId>>,
    ) {
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
    pub(super) fn free(&mut self, job: JobId, which: impl Fn(AllocationId) -> bool) {
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
    pub(super) fn live_tasks(&self, job: JobId) -> BTreeSet<(u32, RegionAttempt)> {
        let Some(j) = self.jobs.get(&job) else { return BTreeSet::new() };
        let live = j.tasks.iter().filter(|(_, t)| !t.state.is_terminal());
        let of = |s: &SubtaskId, t: &Task| RegionAttempt { region: j.regions.region(*s), attempt: t.attempt };
        live.map(|(s, t)| (t.slot, of(s, t))).collect()
    }

    /// Slots that were given up and have no task in them any more are free, unless the whole host is being ended.
    pub(super) fn free_emptied(&mut self, job: JobId) {
        if !self.jobs.get(&job).is_some_and(|j| matches!(j.host, Host::Ready { .. })) {
            return;
        }
        let live = self.live_tasks(job);
        self.free_released(job, |index| !live.iter().any(|(at, _)| *at as usize == index));
    }

    /// Those slots that the job has given up are free.
    pub(super) fn free_released(&mut self, job: JobId, which: impl Fn(usize) -> bool) {
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

    pub(super) fn forget(&mut self, job: JobId) {
        if self.jobs.remove(&job).is_some() {
            self.effects.push(Effect::ForgetJob(job));
        }
    }

    /// No offer is under way any more, and nobody has said what next. The JobMaster does not know of slots that it has not
    /// taken, so it may never say: they are freed in the end, and given again.
    pub(super) fn withdraw(&mut self, now: Moment, job: JobId) {
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

    pub(super) fn free_expired(&mut self, now: Moment, job: JobId) {
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
}
