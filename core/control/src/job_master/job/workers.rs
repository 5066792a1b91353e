//! The job's TaskManagers, their hosts and their slots, and what is told to them and by them.

use super::{Job, LOOK_AGAIN, PoolSlot, Task, Worker};
use crate::Now;
use crate::job_master::core::Effect;
use std::collections::BTreeSet;
use thalweg_model::{
    AllocationId, ExecutionState, FailureKind, InstanceId, Moment, SubtaskId, TaskFailure, TaskManagerId,
};
use thalweg_rpc::{
    Fault, Origin,
    gateways::{
        AllocatedSlotReport, HostFailure, JobRegistration, JobRegistrationAnswer, SlotOffer, TaskManagerStatus,
    },
};

impl Job {
    pub(in crate::job_master) fn is_current(&self, id: &TaskManagerId, instance: InstanceId) -> bool {
        self.workers.get(id).is_some_and(|w| w.instance == instance)
    }

    pub(in crate::job_master) fn is_registered(&self, id: &TaskManagerId) -> bool {
        self.workers.contains_key(id)
    }

    pub(in crate::job_master) fn registered(&self) -> impl Iterator<Item = (TaskManagerId, InstanceId)> {
        self.workers.iter().map(|(id, w)| (id.clone(), w.instance))
    }

    /// What came on an earlier connection of the process than its latest is older than what is known of it.
    pub(in crate::job_master) fn is_latest(
        &self,
        from: Origin,
        id: &TaskManagerId,
        instance: InstanceId,
    ) -> Result<(), Fault> {
        let known = self.workers.get(id).filter(|w| w.instance == instance);
        known.map_or(Ok(()), |w| from.is_not_before(w.connection))
    }

    pub(in crate::job_master) fn register(
        &mut self,
        now: Now,
        from: Origin,
        who: JobRegistration,
        over: bool,
    ) -> JobRegistrationAnswer {
        if over {
            return JobRegistrationAnswer::Rejected("the job is over".into());
        }
        let known = self.is_current(&who.id, who.instance);
        // Someone who was given up comes back with tasks that nobody counts on any more.
        let stale = who.status.tasks.iter().any(|(subtask, attempt, state)| {
            let ours = (known || self.left.is_some()) && self.is_here(*subtask, *attempt, &who.id);
            !state.is_terminal() && !ours
        });
        if stale {
            return JobRegistrationAnswer::Rejected("its tasks were given up and are started elsewhere".into());
        }
        if !known && self.workers.contains_key(&who.id) {
            // Another life under the same name: what the first one held is gone, and its tasks are told as lost by the
            // one who watches the connection. Until then the newcomer waits.
            return JobRegistrationAnswer::Rejected("another process of the same name is still registered".into());
        }
        let (host, over, dead) = self.workers.get(&who.id).map_or((0, 0, false), |w| (w.host, w.over, w.dead));
        let held = if self.left.is_some() { who.status.allocations.clone() } else { Vec::new() };
        let (instance, rpc) = (who.instance, who.rpc);
        let connection = from.connection;
        let worker = Worker { instance, connection, rpc, held, next_heartbeat: now.at, host, over, dead };
        self.workers.insert(who.id.clone(), worker);
        if self.left.is_some() {
            self.find(now, &who.id, &who.status);
        }
        self.heartbeats.watch((who.id, who.instance), now.at);
        JobRegistrationAnswer::Accepted(Box::new(self.spec.clone()))
    }

    pub(in crate::job_master) fn forget_worker(&mut self, id: &TaskManagerId) {
        if let Some(worker) = self.workers.remove(id) {
            self.heartbeats.forget(&(id.clone(), worker.instance));
        }
        self.pool.retain(|_, slot| slot.id != *id);
    }

    pub(in crate::job_master) fn next_heartbeat(&self) -> Option<Moment> {
        self.workers.values().map(|w| w.next_heartbeat).min()
    }

    pub(in crate::job_master) fn send_heartbeats(&mut self, now: Now) {
        for (id, worker) in &mut self.workers {
            if worker.next_heartbeat <= now.at {
                worker.next_heartbeat = now.at + self.settings.heartbeat.interval;
                let mine = self.pool.iter().filter(|(_, s)| s.id == *id && s.instance == worker.instance);
                let mine: BTreeSet<_> = mine.map(|(a, _)| *a).chain(worker.held.iter().copied()).collect();
                let report = AllocatedSlotReport { allocations: mine.into_iter().collect() };
                self.effects.push(Effect::Heartbeat { id: id.clone(), report });
            }
        }
    }

    /// Somebody looks at the job: the heartbeats whose answers bring its counters go out now, unless they just did.
    pub(in crate::job_master) fn looked(&mut self, now: Now) {
        let interval = self.settings.heartbeat.interval;
        for worker in self.workers.values_mut().filter(|w| w.next_heartbeat + LOOK_AGAIN <= now.at + interval) {
            worker.next_heartbeat = now.at;
        }
        self.send_heartbeats(now);
    }

    /// Takes counters over; answers a failure when a task that was handed over is not there any more, and whether one is not
    /// there that was to stop.
    pub(in crate::job_master) fn heard(
        &mut self,
        now: Now,
        id: &TaskManagerId,
        instance: InstanceId,
        status: &TaskManagerStatus,
    ) -> (Option<TaskFailure>, bool) {
        self.heartbeats.heard(&(id.clone(), instance), now.at);
        // What was offered and accepted is in every status that follows: a slot that is not was freed there.
        self.pool.retain(|allocation, slot| {
            slot.id != *id || slot.instance != instance || status.allocations.contains(allocation)
        });
        let here = status.tasks.iter().filter(|(s, attempt, _)| *attempt == self.attempt_of(*s)).map(|(s, ..)| *s);
        let there: BTreeSet<SubtaskId> = here.collect();
        // Counters name no attempt: those of one that is over must not be taken for the present one's.
        for (subtask, metrics) in status.metrics.iter().filter(|(subtask, _)| there.contains(subtask)) {
            if self.task_manager_of(*subtask) == Some(id)
                && let Some(task) = self.task_mut(*subtask)
                && !task.state.is_terminal()
            {
                task.counted(metrics);
            }
        }
        let missing = |(subtask, task): &(SubtaskId, &Task)| {
            task.at.as_ref() == Some(id) && task.handed_over && !task.state.is_terminal() && !there.contains(subtask)
        };
        let missing: Vec<_> = self.subtasks().filter(missing).map(|(s, task)| (s, task.state)).collect();
        let (stopped, lost): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(_, state)| *state == ExecutionState::Canceling);
        for (subtask, _) in &stopped {
            if let Some(task) = self.task_mut(*subtask) {
                task.enter(now, ExecutionState::Canceled);
            }
        }
        lost.iter().for_each(|(subtask, _)| self.breaks(*subtask));
        let failure = lost.first().map(|(subtask, _)| {
            TaskFailure::new(FailureKind::Lost, format!("TaskManager {id} no longer knows the task")).at(*subtask)
        });
        (failure, !stopped.is_empty())
    }

    /// Takes those offers that it needs; answers their grants.
    pub(in crate::job_master) fn offered(
        &mut self,
        id: &TaskManagerId,
        instance: InstanceId,
        offers: Vec<SlotOffer>,
        wanted: bool,
        all_in_use: bool,
    ) -> Vec<AllocationId> {
        // No task is torn out of its slot: neither while it is being stopped, nor because others were offered before.
        let in_use: BTreeSet<u32> = offers.iter().map(|o| o.slot).filter(|s| self.in_use(id, *s, all_in_use)).collect();
        // Until it is known what an earlier leader left, no other slot is wanted.
        let wanted = wanted && self.left.is_none();
        let most = self.slots_needed();
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.instance == instance) else { return Vec::new() };
        let newest = offers.iter().map(|o| o.host).fold(worker.host, u64::max);
        worker.dead &= newest == worker.host;
        worker.host = newest;
        let (latest, over) = (worker.host, worker.over);
        worker.held.clear();
        let mut accepted = Vec::new();
        for offer in offers {
            let known = self.pool.contains_key(&offer.allocation);
            // Of a host that another has followed: its own offer says all that is true of the slot.
            if offer.host < latest {
                accepted.extend(known.then_some(offer.allocation));
                continue;
            }
            // A slot has one grant at a time, and one leader's grants are in order: a later one means that the earlier
            // has ended, and an offer under an earlier one is late.
            let same = |slot: &PoolSlot| slot.id == *id && slot.instance == instance && slot.index == offer.slot;
            if self.pool.iter().any(|(allocation, slot)| *allocation > offer.allocation && same(slot)) {
                continue;
            }
            self.pool.retain(|allocation, slot| *allocation >= offer.allocation || !same(slot));
            if !known && !in_use.contains(&offer.slot) && (!wanted || self.pool.len() as u32 >= most) {
                continue;
            }
            accepted.push(offer.allocation);
            // The word of a host that is being ended may be late.
            let ready = offer.host > over;
            let slot =
                PoolSlot { id: id.clone(), instance, index: offer.slot, data_address: offer.data_address, ready };
            self.pool.insert(offer.allocation, slot);
        }
        self.free_unused(most, all_in_use, "another slot has the task");
        accepted
    }

    /// Gives back what is more than needed and has no task in it.
    pub(in crate::job_master) fn free_unused(&mut self, keep: u32, all: bool, cause: &str) {
        let over = self.pool.len().saturating_sub(keep as usize);
        let unused = self.pool.iter().filter(|(_, s)| over > 0 && !self.in_use(&s.id, s.index, all)).map(|(a, _)| *a);
        for allocation in unused.take(over).collect::<Vec<_>>() {
            if let Some(slot) = self.pool.remove(&allocation) {
                let cause = cause.to_owned();
                self.effects.push(Effect::FreeSlot { id: slot.id, instance: slot.instance, allocation, cause });
            }
        }
    }

    /// Is it the first that is heard of this host's end, or was it not yet acted upon? A later host may be there already.
    pub(in crate::job_master) fn is_news(
        &mut self,
        id: &TaskManagerId,
        instance: InstanceId,
        failed: &HostFailure,
    ) -> bool {
        let Some(worker) = self.workers.get_mut(id).filter(|w| w.instance == instance) else { return false };
        if failed.host < worker.host || failed.host <= worker.over {
            return false;
        }
        (worker.host, worker.dead) = (failed.host, true);
        true
    }

    /// Every host there that was heard of is over, or about to be: what is still told of it is late.
    pub(in crate::job_master) fn host_is_over(&mut self, id: &TaskManagerId) {
        if let Some(worker) = self.workers.get_mut(id) {
            (worker.over, worker.dead) = (worker.host, false);
        }
        self.host_gone(id);
    }

    /// The host on this TaskManager is gone: its slots are not ready until they are offered again.
    pub(in crate::job_master) fn host_gone(&mut self, id: &TaskManagerId) {
        for slot in self.pool.values_mut().filter(|s| s.id == *id) {
            slot.ready = false;
        }
    }

    pub(in crate::job_master) fn all_slots_ready(&self) -> bool {
        let ready = self.pool.values().filter(|s| s.ready).count() as u32;
        ready >= self.slots_needed() && self.pool.values().all(|s| s.ready)
    }

    /// The hosts that are gone, and nobody has asked for others.
    pub(in crate::job_master) fn dead_hosts(&self) -> Vec<TaskManagerId> {
        self.workers.iter().filter(|(_, w)| w.dead).map(|(id, _)| id.clone()).collect()
    }

    /// With its TaskManager a host is certainly gone.
    pub(in crate::job_master) fn forget_ended_hosts(&mut self) {
        let Self { ending, workers, .. } = self;
        ending.retain(|id| workers.contains_key(id));
    }

    /// Gives back every slot: the job is over.
    pub(in crate::job_master) fn free_all(&mut self, cause: &str) {
        while let Some((allocation, slot)) = self.pool.pop_last() {
            let (id, instance, cause) = (slot.id, slot.instance, cause.to_owned());
            self.effects.push(Effect::FreeSlot { id, instance, allocation, cause });
        }
    }

    /// The TaskManagers that hold slots, or still run tasks: after a change of leaders those may not have been offered yet,
    /// and what an earlier leader sent may have arrived after they told what they have.
    pub(in crate::job_master) fn holders(&self) -> BTreeSet<TaskManagerId> {
        let taken_over = self.attempt.epoch < self.settings.epoch;
        let unsure = self.workers.keys().filter(|_| taken_over).cloned();
        let running = self.tasks.iter().flatten().filter(|t| t.handed_over && !t.state.is_terminal());
        let running = running.filter_map(|t| t.at.clone()).filter(|id| self.is_registered(id));
        self.pool.values().map(|s| s.id.clone()).chain(running).chain(unsure).collect()
    }
}
