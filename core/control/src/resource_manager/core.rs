//! Who gets which slot. A pure function of (state, now, event); `driver.rs` carries out what it decides.
//!
//! It knows workers by what they report: a slot report is absolute, and replaces what was believed, except for a slot
//! whose request is still under way. A job gets all the slots that it misses or none, so that two jobs cannot each hold
//! half of what both need.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use thalweg_model::{AllocationId, Epoch, InstanceId, JobId, Moment, TaskManagerId};
use thalweg_rpc::{
    Fault, HeartbeatMonitor, HeartbeatSettings, Origin,
    gateways::{RegistrationAnswer, SlotReport, SlotRequest, SlotStatus, TaskManagerInfo},
    is_for,
};
use thalweg_spi::{ProviderEvent, WorkerProfile};

/// What it is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of this leader.
    pub epoch: Epoch,
    /// Of TaskManagers.
    pub heartbeat: HeartbeatSettings,
    /// A slot request without a clear answer is repeated after this.
    pub request_again: Duration,
    /// A started worker without slots in use is ended after this.
    pub idle_timeout: Duration,
    /// What a declared worker is like; `None` when workers come by themselves.
    pub profile: Option<WorkerProfile>,
}

/// Token of a call that waits for an answer; the driver keeps the reply.
pub type CallId = u64;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A TaskManager presents itself.
    Register {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// On which connection, and the epoch that it believes in.
        from: Origin,
        /// Itself.
        info: TaskManagerInfo,
        /// Its slots.
        report: SlotReport,
    },
    /// It answered a heartbeat.
    Heartbeat {
        /// On which connection, and the epoch that it believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Its slots.
        report: SlotReport,
    },
    /// It says goodbye, or it is certainly gone.
    Gone {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// One slot became free.
    SlotFreed {
        /// On which connection, and the epoch that the TaskManager believes in.
        from: Origin,
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Which grant ended.
        allocation: AllocationId,
    },
    /// The answer to [`Effect::RequestSlot`].
    SlotAnswered {
        /// Whose slot.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Which grant.
        allocation: AllocationId,
        /// `Some(true)` granted, `Some(false)` refused, `None` not known.
        granted: Option<bool>,
    },
    /// A job needs so many slots in all.
    Require {
        /// Which job.
        job: JobId,
        /// How many; 0 forgets it.
        slots: u32,
    },
    /// A job is over: whatever is still held for it is freed.
    Over {
        /// Which job.
        job: JobId,
    },
    /// Of the resource provider.
    Provider(ProviderEvent),
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a registration.
    Answer {
        /// Which call.
        call: CallId,
        /// With what.
        answer: Result<RegistrationAnswer, Fault>,
    },
    /// Ask a TaskManager for a slot.
    RequestSlot {
        /// Whom.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// For what.
        request: SlotRequest,
    },
    /// A slot is held for a job that is over: free it.
    FreeSlot {
        /// Where.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Whose it was.
        job: JobId,
        /// Which grant.
        allocation: AllocationId,
    },
    /// A TaskManager is lost: tell the JobMasters, close the connection.
    WorkerLost {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Why.
        cause: String,
    },
    /// Tell the provider how many workers there shall be.
    Declare(BTreeMap<WorkerProfile, u32>),
    /// Let the provider end this one.
    Release(TaskManagerId),
    /// Tell the provider and the jobs that this one has registered.
    Registered {
        /// Who.
        id: TaskManagerId,
        /// Which life.
        instance: InstanceId,
        /// Jobs that it holds slots of.
        jobs: BTreeSet<JobId>,
    },
    /// A job waits: it needs so many more slots, so many are free.
    Shortage {
        /// Which job.
        job: JobId,
        /// Slots that it misses.
        missing: u32,
        /// Slots that are free.
        free: u32,
        /// Why no worker could be started, when that was tried.
        refused: Option<String>,
    },
}

/// How many jobs that are over are remembered: a slot report that shows an older one is a TaskManager's that was away,
/// and it frees the slot itself when it finds no JobMaster.
const REMEMBERED: usize = 256;

/// A slot that comes back sooner than this was not wanted: its job waits as long for the next.
const UNWANTED: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    Free,
    /// Asked for; `since` is the last time.
    Pending {
        job: JobId,
        allocation: AllocationId,
        since: Moment,
    },
    Taken {
        job: JobId,
        allocation: AllocationId,
    },
    Releasing,
}

#[derive(Debug, Clone)]
struct Worker {
    info: TaskManagerInfo,
    /// On which it registered last.
    connection: u64,
    slots: Vec<Slot>,
    /// Since when no slot is in use.
    idle_since: Option<Moment>,
}

/// One TaskManager as REST shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// As it presented itself.
    pub info: TaskManagerInfo,
    /// Slots that are free.
    pub free: u32,
    /// Last heartbeat.
    pub heard: Option<Moment>,
    /// Which job has each slot.
    pub slots: Vec<Option<JobId>>,
}

/// The state.
#[derive(Debug, Clone)]
pub struct ResourceManager {
    settings: Settings,
    workers: BTreeMap<TaskManagerId, Worker>,
    heartbeats: HeartbeatMonitor<(TaskManagerId, InstanceId)>,
    heard: BTreeMap<TaskManagerId, Moment>,
    /// In the order in which they first asked.
    jobs: Vec<(JobId, u32)>,
    /// Jobs that needed slots under this leader and are over; the latest ones.
    over: VecDeque<JobId>,
    /// Grants of the last moments.
    fresh: BTreeMap<AllocationId, Moment>,
    /// Jobs that gave a fresh grant back get no other before this. A JobMaster may for a while believe in slots that it
    /// has lost, and refuse what it is given in their place.
    rests: BTreeMap<JobId, Moment>,
    /// Workers that the provider started or found, registered or not.
    provided: BTreeSet<TaskManagerId>,
    declared: Option<u32>,
    refused: Option<String>,
    shortages: BTreeMap<JobId, (u32, u32, Option<String>)>,
    next_allocation: u64,
}

impl ResourceManager {
    /// Nobody is registered.
    pub fn new(settings: Settings) -> Self {
        Self {
            heartbeats: HeartbeatMonitor::new(settings.heartbeat),
            settings,
            workers: BTreeMap::new(),
            heard: BTreeMap::new(),
            jobs: Vec::new(),
            over: VecDeque::new(),
            fresh: BTreeMap::new(),
            rests: BTreeMap::new(),
            provided: BTreeSet::new(),
            declared: None,
            refused: None,
            shortages: BTreeMap::new(),
            next_allocation: 0,
        }
    }

    /// Decides.
    pub fn on_event(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.rests.retain(|_, until| now < *until);
        match event {
            Event::Register { call, from, info, report } => self.register(now, call, from, info, report, &mut effects),
            Event::Heartbeat { from, id, instance, report } => {
                if self.is_admitted(from, &id, instance) {
                    self.heartbeats.heard(&(id.clone(), instance), now);
                    self.heard.insert(id.clone(), now);
                    self.reconcile(now, &id, &report);
                    self.free_leftovers(Some(&id), &mut effects);
                }
            }
            Event::Gone { id, instance, cause } => self.lose(&id, instance, cause, &mut effects),
            Event::SlotFreed { from, id, instance, allocation } => {
                if self.is_admitted(from, &id, instance) {
                    self.note_unwanted(now, &id, allocation);
                    self.set_slot(now, &id, allocation, |slot| *slot = Slot::Free);
                }
            }
            Event::SlotAnswered { id, instance, allocation, granted } => {
                if self.is_current(&id, instance) {
                    self.set_slot(now, &id, allocation, |slot| {
                        if let Slot::Pending { job, allocation, .. } = *slot {
                            match granted {
                                Some(true) => *slot = Slot::Taken { job, allocation },
                                // What it is instead, the next report says; asking again at once would only repeat it.
                                Some(false) => *slot = Slot::Releasing,
                                // Asked again when the time has come: the same request is fine twice.
                                None => {}
                            }
                        }
                    });
                }
            }
            Event::Require { job, slots } => self.require(job, slots),
            Event::Over { job } => {
                self.require(job, 0);
                if self.over.len() == REMEMBERED {
                    self.over.pop_front();
                }
                self.over.push_back(job);
                self.free_leftovers(None, &mut effects);
            }
            Event::Provider(event) => self.provider(event, &mut effects),
            Event::Tick => {
                for (id, instance) in self.heartbeats.expired(now) {
                    let limit = self.settings.heartbeat.timeout;
                    self.lose(&id, instance, format!("no heartbeat for {}", show(limit)), &mut effects);
                }
            }
        }
        self.repeat_requests(now, &mut effects);
        self.allocate(now, &mut effects);
        self.scale(now, &mut effects);
        effects
    }

    /// When to send a tick at the latest.
    pub fn deadline(&self) -> Option<Moment> {
        let pending = self.workers.values().flat_map(|w| &w.slots).filter_map(|s| match s {
            Slot::Pending { since, .. } => Some(*since + self.settings.request_again),
            _ => None,
        });
        // An idle worker that is needed all the same is not waited for: its deadline would lie in the past.
        let surplus = self.needed_workers().is_some_and(|needed| self.provided_workers() > needed);
        let idle = self.workers.iter().filter(|(id, _)| surplus && self.provided.contains(id));
        let idle = idle.filter_map(|(_, w)| Some(w.idle_since? + self.settings.idle_timeout));
        pending.chain(idle).chain(self.rests.values().copied()).chain(self.heartbeats.next_deadline()).min()
    }

    /// The registered workers: whom to send heartbeats, and what REST shows.
    pub fn view(&self) -> Vec<WorkerView> {
        let views = self.workers.iter().map(|(id, w)| WorkerView {
            info: w.info.clone(),
            free: w.slots.iter().filter(|s| **s == Slot::Free).count() as u32,
            heard: self.heard.get(id).copied(),
            slots: w
                .slots
                .iter()
                .map(|s| match s {
                    Slot::Pending { job, .. } | Slot::Taken { job, .. } => Some(*job),
                    Slot::Free | Slot::Releasing => None,
                })
                .collect(),
        });
        views.collect()
    }

    /// Which grants it believes in, by (worker, slot): what the invariants are checked by.
    pub fn grants(&self) -> Vec<(TaskManagerId, u32, JobId, AllocationId)> {
        let mut grants = Vec::new();
        for (id, worker) in &self.workers {
            for (index, slot) in worker.slots.iter().enumerate() {
                if let Slot::Pending { job, allocation, .. } | Slot::Taken { job, allocation } = slot {
                    grants.push((id.clone(), index as u32, *job, *allocation));
                }
            }
        }
        grants
    }

    fn is_current(&self, id: &TaskManagerId, instance: InstanceId) -> bool {
        self.workers.get(id).is_some_and(|w| w.info.instance == instance)
    }

    /// Is it the word of a registered process? What came on an earlier connection than its latest is out of date.
    fn is_admitted(&self, from: Origin, id: &TaskManagerId, instance: InstanceId) -> bool {
        let latest = |w: &Worker| w.info.instance == instance && from.is_not_before(w.connection).is_ok();
        is_for(self.settings.epoch, from.fence).is_ok() && self.workers.get(id).is_some_and(latest)
    }

    fn register(
        &mut self,
        now: Moment,
        call: CallId,
        from: Origin,
        info: TaskManagerInfo,
        report: SlotReport,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.workers.get(&info.id).filter(|w| w.info.instance == info.instance);
        let admitted = is_for(self.settings.epoch, from.fence)
            .and_then(|()| known.map_or(Ok(()), |w| from.is_not_before(w.connection)));
        if let Err(fault) = admitted {
            effects.push(Effect::Answer { call, answer: Err(fault) });
            return;
        }
        if let Some(old) = self.workers.get(&info.id).map(|w| w.info.instance).filter(|i| *i != info.instance) {
            // Two lives of one name: the later one is the right one, since the earlier one cannot have told us of it.
            self.lose(&info.id, old, "replaced by another process of the same name".into(), effects);
        }
        let (id, instance) = (info.id.clone(), info.instance);
        let worker = self.workers.entry(id.clone()).or_insert_with(|| Worker {
            slots: vec![Slot::Free; report.slots.len()],
            info: info.clone(),
            connection: from.connection,
            idle_since: Some(now),
        });
        (worker.info, worker.connection) = (info, from.connection);
        self.refused = None;
        worker.slots.resize(report.slots.len(), Slot::Free);
        self.heartbeats.watch((id.clone(), instance), now);
        self.heard.insert(id.clone(), now);
        self.reconcile(now, &id, &report);
        self.free_leftovers(Some(&id), effects);
        let jobs = report.slots.iter().filter_map(|s| match s {
            SlotStatus::Taken { job, .. } | SlotStatus::Releasing { job } => Some(*job),
            SlotStatus::Free => None,
        });
        effects.push(Effect::Registered { id, instance, jobs: jobs.collect() });
        effects.push(Effect::Answer { call, answer: Ok(RegistrationAnswer::Accepted) });
    }

    fn reconcile(&mut self, now: Moment, id: &TaskManagerId, report: &SlotReport) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        for (slot, status) in worker.slots.iter_mut().zip(&report.slots) {
            match (&*slot, *status) {
                // Our request and this report crossed.
                (Slot::Pending { .. }, SlotStatus::Free | SlotStatus::Releasing { .. }) => {}
                (_, SlotStatus::Free) => *slot = Slot::Free,
                (_, SlotStatus::Releasing { .. }) => *slot = Slot::Releasing,
                (_, SlotStatus::Taken { job, allocation, .. }) => *slot = Slot::Taken { job, allocation },
            }
        }
        worker.note_idle(now);
    }

    fn note_unwanted(&mut self, now: Moment, id: &TaskManagerId, allocation: AllocationId) {
        if self.fresh.remove(&allocation).is_none_or(|at| now.since(at) >= UNWANTED) {
            return;
        }
        let slots = self.workers.get(id).into_iter().flat_map(|w| &w.slots);
        let mut whose = slots.filter_map(|s| match s {
            Slot::Pending { job, allocation: a, .. } | Slot::Taken { job, allocation: a } if *a == allocation => {
                Some(*job)
            }
            _ => None,
        });
        if let Some(job) = whose.next() {
            self.rests.insert(job, now + UNWANTED);
        }
    }

    fn set_slot(&mut self, now: Moment, id: &TaskManagerId, allocation: AllocationId, change: impl FnOnce(&mut Slot)) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let slot = worker.slots.iter_mut().find(|s| match s {
            Slot::Pending { allocation: a, .. } | Slot::Taken { allocation: a, .. } => *a == allocation,
            Slot::Free | Slot::Releasing => false,
        });
        if let Some(slot) = slot {
            change(slot);
        }
        worker.note_idle(now);
    }

    fn lose(&mut self, id: &TaskManagerId, instance: InstanceId, cause: String, effects: &mut Vec<Effect>) {
        if !self.is_current(id, instance) {
            return;
        }
        self.workers.remove(id);
        self.heard.remove(id);
        self.heartbeats.forget(&(id.clone(), instance));
        if self.settings.profile.is_some() && self.provided.contains(id) {
            // It may live on behind a cut: the provider makes an end of it.
            effects.push(Effect::Release(id.clone()));
        }
        effects.push(Effect::WorkerLost { id: id.clone(), instance, cause });
    }

    fn require(&mut self, job: JobId, slots: u32) {
        self.jobs.retain(|(j, _)| slots > 0 || *j != job);
        match self.jobs.iter_mut().find(|(j, _)| *j == job) {
            Some(known) => known.1 = slots,
            None if slots > 0 => self.jobs.push((job, slots)),
            None => {}
        }
        if slots == 0 {
            self.shortages.remove(&job);
            self.rests.remove(&job);
        } else {
            self.over.retain(|j| *j != job);
        }
    }

    /// Slots that are still held for a job that is over: its JobMaster may have ended before they were offered to it.
    fn free_leftovers(&self, only: Option<&TaskManagerId>, effects: &mut Vec<Effect>) {
        for (id, worker) in self.workers.iter().filter(|(id, _)| only.is_none_or(|only| *id == only)) {
            for slot in &worker.slots {
                if let Slot::Taken { job, allocation } | Slot::Pending { job, allocation, .. } = slot
                    && self.over.contains(job)
                {
                    let (id, instance) = (id.clone(), worker.info.instance);
                    effects.push(Effect::FreeSlot { id, instance, job: *job, allocation: *allocation });
                }
            }
        }
    }

    fn provider(&mut self, event: ProviderEvent, effects: &mut Vec<Effect>) {
        match event {
            ProviderEvent::Started { worker, .. } | ProviderEvent::Recovered { worker, .. } => {
                self.provided.insert(worker);
            }
            ProviderEvent::Lost { worker, cause } => {
                self.provided.remove(&worker);
                match self.workers.get(&worker).map(|w| w.info.instance) {
                    Some(instance) => self.lose(&worker, instance, cause, effects),
                    // It ended before it could register: whoever waits for it should know why.
                    None => self.refused = Some(cause),
                }
            }
            ProviderEvent::Refused { cause, .. } => self.refused = Some(cause),
        }
    }

    fn repeat_requests(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for (id, worker) in &mut self.workers {
            for (index, slot) in worker.slots.iter_mut().enumerate() {
                if let Slot::Pending { job, allocation, since } = slot
                    && now.since(*since) >= self.settings.request_again
                {
                    *since = now;
                    let request = SlotRequest { job: *job, allocation: *allocation, slot: index as u32 };
                    effects.push(Effect::RequestSlot { id: id.clone(), instance: worker.info.instance, request });
                }
            }
        }
    }

    fn held_by(&self, job: JobId) -> u32 {
        let slots = self.workers.values().flat_map(|w| &w.slots);
        slots.filter(|s| matches!(s, Slot::Pending { job: j, .. } | Slot::Taken { job: j, .. } if *j == job)).count()
            as u32
    }

    fn free(&self) -> u32 {
        self.workers.values().flat_map(|w| &w.slots).filter(|s| **s == Slot::Free).count() as u32
    }

    fn allocate(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for (job, needed) in self.jobs.clone() {
            let missing = needed.saturating_sub(self.held_by(job));
            let free = self.free();
            if missing > 0 && self.rests.contains_key(&job) {
                continue;
            }
            if missing > free {
                let shortage = (missing, free, self.refused.clone());
                if self.shortages.get(&job) != Some(&shortage) {
                    self.shortages.insert(job, shortage);
                    effects.push(Effect::Shortage { job, missing, free, refused: self.refused.clone() });
                }
                continue;
            }
            if self.shortages.remove(&job).is_some() {
                effects.push(Effect::Shortage { job, missing: 0, free, refused: None });
            }
            for _ in 0..missing {
                self.request_one(now, job, effects);
            }
        }
    }

    /// Takes the slot from the worker with the most slots of this job, else with the fewest free ones: a job's tasks stay
    /// together, and whole workers stay free to be ended.
    fn request_one(&mut self, now: Moment, job: JobId, effects: &mut Vec<Effect>) {
        let has_free = self.workers.iter().filter(|(_, w)| w.slots.contains(&Slot::Free));
        let best = has_free.max_by_key(|(_, w)| {
            let own = w
                .slots
                .iter()
                .filter(|s| matches!(s, Slot::Pending { job: j, .. } | Slot::Taken { job: j, .. } if *j == job));
            let free = w.slots.iter().filter(|s| **s == Slot::Free).count();
            (own.count(), usize::MAX - free)
        });
        let Some(id) = best.map(|(id, _)| id.clone()) else { return };
        self.next_allocation += 1;
        let allocation = allocation_id(self.settings.epoch, self.next_allocation);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(index) = worker.slots.iter().position(|s| *s == Slot::Free) else { return };
        worker.slots[index] = Slot::Pending { job, allocation, since: now };
        self.fresh.retain(|_, at| now.since(*at) < UNWANTED);
        self.fresh.insert(allocation, now);
        worker.idle_since = None;
        let request = SlotRequest { job, allocation, slot: index as u32 };
        effects.push(Effect::RequestSlot { id, instance: worker.info.instance, request });
    }

    /// How many started workers the jobs need; `None` when workers come by themselves.
    fn needed_workers(&self) -> Option<u32> {
        let profile = self.settings.profile.as_ref()?;
        let slots: u32 = self.jobs.iter().map(|(_, n)| n).sum();
        Some(slots.div_ceil(profile.slots.max(1)))
    }

    fn provided_workers(&self) -> u32 {
        self.workers.keys().filter(|id| self.provided.contains(id)).count() as u32
    }

    fn scale(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let (Some(profile), Some(needed)) = (self.settings.profile.clone(), self.needed_workers()) else { return };
        let idle: Vec<TaskManagerId> = self
            .workers
            .iter()
            .filter(|(id, w)| {
                self.provided.contains(id)
                    && w.idle_since.is_some_and(|since| now.since(since) >= self.settings.idle_timeout)
            })
            .map(|(id, _)| id.clone())
            .collect();
        let mut kept = self.provided_workers();
        let mut ended = Vec::new();
        for id in idle {
            if kept <= needed {
                break;
            }
            kept -= 1;
            ended.push(id);
        }
        let wanted = needed.max(kept);
        // Fewer are declared first, so that the provider does not replace what is released.
        if self.declared != Some(wanted) {
            self.declared = Some(wanted);
            effects.push(Effect::Declare(BTreeMap::from([(profile, wanted)])));
        }
        for id in ended {
            let Some(worker) = self.workers.remove(&id) else { continue };
            self.heard.remove(&id);
            self.heartbeats.forget(&(id.clone(), worker.info.instance));
            self.provided.remove(&id);
            effects.push(Effect::WorkerLost { id: id.clone(), instance: worker.info.instance, cause: "idle".into() });
            effects.push(Effect::Release(id));
        }
    }
}

impl Worker {
    fn note_idle(&mut self, now: Moment) {
        let idle = self.slots.iter().all(|s| *s == Slot::Free);
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
    }
}

/// Unique over all leaders, since epochs are; needs no randomness.
fn allocation_id(epoch: Epoch, n: u64) -> AllocationId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&epoch.0.to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    AllocationId::from_bytes(bytes)
}

fn show(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
