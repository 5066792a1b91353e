//! What to start and whom to end: a function of what is declared and who is there. No I/O; time is told.

use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{Moment, TaskManagerId};
use thalweg_spi::WorkerProfile;

/// A worker that ends by itself so soon after its start was never of use: the next start waits.
const YOUNG: Duration = Duration::from_secs(10);
/// The first such wait; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Slots that one TaskManager can have.
const MAX_SLOTS: u32 = 1024;

/// What the provider does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start one worker.
    Start(WorkerProfile),
    /// End this worker.
    End(TaskManagerId),
    /// Tell that one worker cannot be started now.
    Refuse { profile: WorkerProfile, cause: String, retry: bool },
    /// Ask again at this moment.
    Later(Moment),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Worker {
    profile: WorkerProfile,
    started: Moment,
    registered: bool,
    /// It was told to end and counts no more.
    ending: bool,
}

/// Declared and present workers.
#[derive(Debug)]
pub(crate) struct Plan {
    max_workers: usize,
    host_memory: u64,
    declared: BTreeMap<WorkerProfile, u32>,
    workers: BTreeMap<TaskManagerId, Worker>,
    /// Refusals that were told since the last change, by profile: one is not told twice.
    refused: BTreeMap<WorkerProfile, u32>,
    /// Somebody tells of registrations, so a worker of which none was told has none.
    informed: bool,
    young_ends: u32,
    pause_until: Moment,
    closed: bool,
}

impl Plan {
    pub(crate) fn new(max_workers: Option<u32>, host_memory: u64) -> Self {
        Self {
            max_workers: max_workers.map_or(usize::MAX, |n| n as usize),
            host_memory,
            declared: BTreeMap::new(),
            workers: BTreeMap::new(),
            refused: BTreeMap::new(),
            informed: false,
            young_ends: 0,
            pause_until: Moment::default(),
            closed: false,
        }
    }

    /// A worker is there: started, or left by an earlier JobManager.
    pub(crate) fn present(&mut self, id: TaskManagerId, profile: WorkerProfile, now: Moment) {
        self.workers.insert(id, Worker { profile, started: now, registered: false, ending: false });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// So many of each are wanted.
    pub(crate) fn declare(&mut self, declared: BTreeMap<WorkerProfile, u32>, now: Moment) -> Vec<Action> {
        if self.declared != declared {
            self.declared = declared;
            self.refused.clear();
        }
        self.reconcile(now)
    }

    /// The worker has registered.
    pub(crate) fn registered(&mut self, id: &TaskManagerId) {
        self.informed = true;
        if let Some(worker) = self.workers.get_mut(id) {
            worker.registered = true;
            self.young_ends = 0;
        }
    }

    /// The worker is not wanted any more.
    pub(crate) fn release(&mut self, id: &TaskManagerId, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(worker) = self.workers.get_mut(id).filter(|w| !w.ending) {
            worker.ending = true;
            actions.push(Action::End(id.clone()));
        }
        actions.extend(self.reconcile(now));
        actions
    }

    /// The worker is gone. `None` when it was not there; else, was it told to end?
    pub(crate) fn lost(&mut self, id: &TaskManagerId, now: Moment) -> Option<bool> {
        let worker = self.workers.remove(id)?;
        if !worker.ending && !worker.registered && now.since(worker.started) < YOUNG {
            let pause = FIRST_PAUSE.saturating_mul(1 << self.young_ends.min(10)).min(LONGEST_PAUSE);
            self.young_ends += 1;
            self.pause_until = now + pause;
        }
        // There is room again.
        self.refused.clear();
        Some(worker.ending)
    }

    /// A start failed; it is not tried again before a while has passed.
    pub(crate) fn start_failed(&mut self, profile: &WorkerProfile, now: Moment) {
        *self.refused.entry(profile.clone()).or_default() += 1;
        self.pause_until = now + LONGEST_PAUSE;
    }

    /// The cluster ends: answers all workers.
    pub(crate) fn close(&mut self) -> Vec<TaskManagerId> {
        self.closed = true;
        self.declared.clear();
        self.workers.values_mut().for_each(|w| w.ending = true);
        self.workers.keys().cloned().collect()
    }

    /// What is to be done so that what is there becomes what is declared. Each `Start` is answered by
    /// [`Plan::present`] or [`Plan::start_failed`] before the next question.
    pub(crate) fn reconcile(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.closed {
            return actions;
        }
        self.end_surplus(&mut actions);
        let mut room = self.max_workers.saturating_sub(self.workers.len());
        for (profile, wanted) in self.declared.clone() {
            let present = self.workers.values().filter(|w| !w.ending && w.profile == profile).count();
            let missing = (wanted as usize).saturating_sub(present);
            if let Some(cause) = self.impossible(&profile) {
                self.refuse(profile, missing, &cause, false, &mut actions);
                continue;
            }
            if missing > 0 && now < self.pause_until {
                actions.push(Action::Later(self.pause_until));
                continue;
            }
            let starts = missing.min(room);
            room -= starts;
            actions.extend((0..starts).map(|_| Action::Start(profile.clone())));
            let cause = format!("max-workers is {}", self.max_workers);
            self.refuse(profile, missing - starts, &cause, true, &mut actions);
        }
        actions
    }

    fn end_surplus(&mut self, actions: &mut Vec<Action>) {
        if !self.informed {
            return;
        }
        let mut here: BTreeMap<WorkerProfile, u32> = BTreeMap::new();
        for worker in self.workers.values().filter(|w| !w.ending) {
            *here.entry(worker.profile.clone()).or_default() += 1;
        }
        for (id, worker) in self.workers.iter_mut().filter(|(_, w)| !w.ending && !w.registered) {
            let Some(here) = here.get_mut(&worker.profile) else { continue };
            if *here > self.declared.get(&worker.profile).copied().unwrap_or(0) {
                *here -= 1;
                worker.ending = true;
                actions.push(Action::End(id.clone()));
            }
        }
    }

    fn impossible(&self, profile: &WorkerProfile) -> Option<String> {
        if profile.slots == 0 || profile.slots > MAX_SLOTS {
            return Some(format!("a TaskManager has 1 to {MAX_SLOTS} slots, and not {}", profile.slots));
        }
        let memory = profile.memory.filter(|m| *m > self.host_memory)?;
        Some(format!("a TaskManager of {memory} bytes does not fit into this host's {}", self.host_memory))
    }

    fn refuse(&mut self, profile: WorkerProfile, missing: usize, cause: &str, retry: bool, actions: &mut Vec<Action>) {
        let told = self.refused.entry(profile.clone()).or_default();
        let untold = (missing as u32).saturating_sub(*told);
        *told += untold;
        let refusal = || Action::Refuse { profile: profile.clone(), cause: cause.to_owned(), retry };
        actions.extend((0..untold).map(|_| refusal()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 1000;

    fn profile(slots: u32) -> WorkerProfile {
        WorkerProfile { slots, memory: None }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_start(Duration::from_millis(millis))
    }

    fn id(n: u32) -> TaskManagerId {
        TaskManagerId::new(format!("w{n}"))
    }

    fn want(slots: u32, n: u32) -> BTreeMap<WorkerProfile, u32> {
        BTreeMap::from([(profile(slots), n)])
    }

    /// A plan with `n` workers of one slot, declared and present.
    fn running(n: u32) -> Plan {
        let mut plan = Plan::new(None, MEMORY);
        assert_eq!(plan.declare(want(1, n), at(0)).len(), n as usize);
        (0..n).for_each(|i| plan.present(id(i), profile(1), at(0)));
        plan
    }

    #[test]
    fn declaring_is_absolute_and_idempotent() {
        let mut plan = running(2);
        assert_eq!(plan.declare(want(1, 2), at(1)), []);
        assert_eq!(plan.declare(want(1, 3), at(1)), [Action::Start(profile(1))]);
    }

    #[test]
    fn less_ends_only_those_that_are_known_not_to_be_registered() {
        let mut plan = running(3);
        assert_eq!(plan.declare(want(1, 1), at(1)), [], "nobody has told of a registration yet");
        plan.registered(&id(0));
        assert_eq!(plan.declare(want(1, 1), at(1)), [Action::End(id(1)), Action::End(id(2))]);
        assert_eq!(plan.declare(BTreeMap::new(), at(1)), [], "the registered one is only released");
        assert_eq!(plan.release(&id(0), at(1)), [Action::End(id(0))]);
        assert_eq!(plan.release(&id(0), at(1)), []);
    }

    #[test]
    fn one_that_is_released_or_lost_is_replaced_while_the_declaration_stands() {
        let mut plan = running(1);
        assert_eq!(plan.release(&id(0), at(1)), [Action::End(id(0)), Action::Start(profile(1))]);
        plan.present(id(1), profile(1), at(1));
        assert_eq!(plan.lost(&id(0), at(2)), Some(true));
        assert_eq!(plan.lost(&id(0), at(2)), None, "once");
        plan.registered(&id(1));
        assert_eq!(plan.lost(&id(1), at(3)), Some(false));
        assert_eq!(plan.reconcile(at(3)), [Action::Start(profile(1))]);
    }

    #[test]
    fn workers_that_end_at_once_are_started_ever_more_slowly() {
        let mut plan = running(1);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for n in 0..12 {
            plan.lost(&id(n), now);
            let later = plan.reconcile(now);
            let [Action::Later(until)] = later[..] else { panic!("{later:?}") };
            pauses.push((until - now).as_millis());
            now = until;
            assert_eq!(plan.reconcile(now), [Action::Start(profile(1))]);
            plan.present(id(n + 1), profile(1), now);
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 10_000);
    }

    #[test]
    fn beyond_the_limit_is_refused_once_and_started_when_there_is_room() {
        let mut plan = Plan::new(Some(1), MEMORY);
        let actions = plan.declare(want(1, 3), at(0));
        assert_eq!(actions[0], Action::Start(profile(1)));
        let refused = Action::Refuse { profile: profile(1), cause: "max-workers is 1".into(), retry: true };
        assert_eq!(actions[1..], [refused.clone(), refused.clone()]);
        plan.present(id(0), profile(1), at(0));
        assert_eq!(plan.declare(want(1, 3), at(1)), []);
        plan.registered(&id(0));
        plan.lost(&id(0), at(2));
        assert_eq!(plan.reconcile(at(2))[0], Action::Start(profile(1)));
    }

    #[test]
    fn an_impossible_size_is_refused_for_good() {
        let mut plan = Plan::new(None, MEMORY);
        let giant = WorkerProfile { slots: 1, memory: Some(MEMORY + 1) };
        let actions = plan.declare(BTreeMap::from([(giant.clone(), 1), (profile(0), 1)]), at(0));
        let refusals: Vec<_> = actions
            .iter()
            .map(|a| match a {
                Action::Refuse { cause, retry: false, .. } => cause.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(refusals[0].contains("1 to 1024 slots") && refusals[1].contains("does not fit"), "{refusals:?}");
    }

    #[test]
    fn after_the_end_nothing_is_started() {
        let mut plan = running(2);
        assert_eq!(plan.close(), [id(0), id(1)]);
        assert_eq!(plan.lost(&id(0), at(1)), Some(true));
        assert_eq!(plan.declare(want(1, 5), at(1)), []);
    }
}
