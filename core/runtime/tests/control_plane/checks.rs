//! The invariants, under their names.

use crate::{
    kinds::Write,
    masters::Master,
    world::{Report, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thalweg_model::{Attempt, Epoch, JobId, JobStatus, Moment, RegionAttempt};
use thalweg_rpc::gateways::{SlotReport, SlotStatus};
use thalweg_task::executor::Effect;
use thalweg_testkit::harness::{Failure, NodeId};
use thalweg_wire::{CommitRecord, Deploy};

#[derive(Debug, Default)]
pub struct Checks {
    pub failure: Option<Failure>,
    pub acknowledged: BTreeSet<JobId>,
    /// The commit record of each job.
    pub commits: BTreeMap<JobId, CommitRecord>,
    /// Every manifest that was ever recorded.
    recorded: BTreeSet<(JobId, String)>,
    /// Live tasks by slot: job, region under its attempt, host.
    tasks: BTreeMap<(NodeId, u32), Vec<(JobId, RegionAttempt, NodeId)>>,
    waits: BTreeMap<JobId, Moment>,
    pub transitions: BTreeSet<(&'static str, &'static str)>,
    pub ended: BTreeMap<JobId, JobStatus>,
    pub restarts: u32,
    pub adoptions: u32,
    pub in_part: u32,
    /// An attempt that is not the master's, of a live task of the TaskManager that registers at this moment.
    pub stale: Option<Attempt>,
}

impl Checks {
    pub fn fail(&mut self, invariant: &'static str, seen: impl Into<String>) {
        self.failure.get_or_insert(Failure { invariant, seen: seen.into() });
    }

    pub fn answered_twice(&mut self, who: &str) {
        self.fail("each ask has one answer", format!("{who} answers a call that does not wait"));
    }

    /// A driver sleeps until its core's deadline: one that a tick leaves in the past makes it spin.
    pub fn does_not_spin(&mut self, who: &str, ticks: bool, now: Moment, deadline: Option<Moment>) {
        if ticks && deadline.is_some_and(|at| at <= now) {
            self.fail("liveness: no driver spins", format!("{who} has a deadline in the past after a tick"));
        }
    }

    pub fn master_ended(&mut self, master: &Master) {
        self.transitions.extend(master.core.transitions().iter().copied());
        self.restarts += master.core.transitions().iter().filter(|(_, to)| *to == "restarting").count() as u32;
    }

    pub fn task_starts(&mut self, task_manager: NodeId, slot: u32, job: JobId, of: RegionAttempt, host: NodeId) {
        let there = self.tasks.entry((task_manager, slot)).or_default();
        let other = |(j, a, _): &&(JobId, RegionAttempt, NodeId)| *j != job || a.region == of.region && *a != of;
        let other = there.iter().find(other).copied();
        there.push((job, of, host));
        if let Some((j, a, _)) = other {
            let seen = format!("slot {slot} runs tasks of {j} {a:?} and of {job} {of:?} at once");
            self.fail("SL-1: a slot has one owner", seen);
        }
    }

    pub fn task_ends(&mut self, task_manager: NodeId, slot: u32, job: JobId, of: RegionAttempt, host: NodeId) {
        if let Some(there) = self.tasks.get_mut(&(task_manager, slot))
            && let Some(at) = there.iter().position(|task| *task == (job, of, host))
        {
            there.swap_remove(at);
        }
    }

    pub fn old_epoch_is_not_obeyed(&mut self, call: &str, epoch: Epoch, seen: Epoch, effects: &[Effect]) {
        let obeyed = effects.iter().any(|e| {
            matches!(
                e,
                Effect::Answer { answer: Ok(_), .. }
                    | Effect::AnswerCancel { answer: Ok(_), .. }
                    | Effect::SendStatus { .. }
                    | Effect::SendSlotReport(_)
            )
        });
        if obeyed {
            let seen = format!("a {call} of epoch {epoch} is obeyed after one of epoch {seen}");
            self.fail("epochs: what is lower than seen is refused", seen);
        }
    }
}

impl World {
    /// After each event.
    pub fn look_at(&mut self, node: NodeId) {
        let Some(it) = self.managers.get(&node).filter(|it| it.masters.len() > 1) else { return };
        let mut owners = BTreeMap::new();
        for (job, master) in &it.masters {
            for slot in master.core.slots() {
                if let Some(other) = owners.insert(slot.clone(), *job) {
                    let seen = format!("{slot:?} belongs to {other} and to {job}");
                    return self.checks.fail("SL-1: a slot has one owner", seen);
                }
            }
        }
    }

    /// An answer to an offer frees what was not accepted, and nothing that was: who accepted a slot owns it.
    pub fn check_answered_offer(&mut self, node: NodeId, answered: JobId, before: &SlotReport) {
        let Some(tm) = self.task_managers.get(&node) else { return };
        let Some(leader) = tm.leader.and_then(|(_, epoch)| self.managers.values().find(|m| m.epoch == epoch)) else {
            return;
        };
        for (was, is) in before.slots.iter().zip(tm.core.slot_report().slots) {
            let SlotStatus::Taken { job, allocation, .. } = *was else { continue };
            // What else has come to its end by now, of other jobs, is not the answer's doing.
            if job != answered {
                continue;
            }
            let freed = !matches!(is, SlotStatus::Taken { .. });
            let owner = leader.masters.get(&job).filter(|m| m.core.slots().iter().any(|(_, _, a)| *a == allocation));
            if freed && owner.is_some() {
                let seen = format!("an answer takes {allocation} from {job}, which has accepted it");
                return self.checks.fail("SL-1: a slot has one owner", seen);
            }
        }
    }

    pub fn check_start(&mut self, node: NodeId, job: JobId) {
        let current = self.managers.get(&node).is_some_and(|m| m.epoch == self.store.granted);
        if current && self.store.results.contains_key(&job) {
            self.checks.fail("HA-2: a job with a result never runs again", format!("{job} is started"));
        }
    }

    pub fn check_deploy(&mut self, epoch: Epoch, job: JobId) {
        if epoch == self.store.granted && self.store.results.contains_key(&job) {
            self.checks.fail("HA-2: a job with a result never runs again", format!("tasks of {job} are deployed"));
        }
    }

    /// Tasks are about to be sent: what there was of their regions has ended, wherever that can be known.
    pub fn check_nothing_is_left(&mut self, node: NodeId, job: JobId, deploy: &Deploy) {
        let Some(it) = self.managers.get(&node).filter(|it| it.epoch == self.store.granted) else { return };
        let Some(master) = it.masters.get(&job) else { return };
        let known = master.core.task_managers();
        for (process, host) in self.hosts.iter().filter(|(_, h)| h.job == job) {
            let Some(tm) = self.task_managers.get(&host.task_manager) else { continue };
            // A host that its TaskManager is ending by itself has nothing any more that anybody is told of.
            let counted = tm.host_links.values().any(|whose| tm.hosts.get(whose) == Some(process));
            if !counted || !known.contains(&(tm.info.id.clone(), tm.info.instance)) {
                continue;
            }
            for new in &deploy.tasks {
                let region = host.region(new.subtask);
                if let Some((old, attempt)) = host.live_of(region).find(|(_, attempt)| *attempt < deploy.attempt) {
                    let seen = format!("{job} {} is deployed while {old} of {attempt} runs", deploy.attempt);
                    return self.checks.fail("EX-2: a region runs once", seen);
                }
            }
        }
    }

    /// The client holds the answer.
    pub fn check_acknowledged(&mut self, job: JobId) {
        let written = self.store.jobs.contains_key(&job) || self.store.results.contains_key(&job);
        if written {
            self.checks.acknowledged.insert(job);
        } else if self.plan.durable {
            let seen = format!("{job} is acknowledged and nothing is written of it");
            self.checks.fail("HA-3: no acknowledged job is lost", seen);
        }
    }

    /// A client was told that its job has ended.
    pub fn check_end_is_written(&mut self, job: JobId) {
        if self.plan.durable && !self.store.results.contains_key(&job) {
            let seen = format!("the end of {job} is told and not written down");
            self.checks.fail("HA-2: an end is told when it is written", seen);
        }
    }

    /// Before the store changes.
    pub fn check_write(&mut self, write: &Write) {
        match write {
            Write::Commit(job, record) => {
                let known = self.checks.commits.insert(*job, record.clone());
                if known.is_some_and(|k| k != *record) {
                    self.checks.fail("EX-1: output is published once", format!("{job} is committed twice"));
                }
                for manifest in record.manifests.values() {
                    self.checks.recorded.insert((*job, String::from_utf8_lossy(manifest).into_owned()));
                }
            }
            Write::Result(record) => {
                let job = record.result.job;
                if !record.dirty && self.store.jobs.contains_key(&job) {
                    let seen = format!("{job} is marked clean and its record is still there");
                    self.checks.fail("HA-2: clean-up comes before the clean mark", seen);
                }
                self.checks.ended.insert(job, record.result.status);
                if record.result.status != JobStatus::Finished {
                    return;
                }
                let plan = self.plan.jobs.iter().find(|j| j.job == job);
                let committers = plan.map_or(0, |p| {
                    let roles = p.spec.graph.vertices.iter().map(|v| v.role);
                    roles.filter(|r| *r == thalweg_model::VertexRole::Committer).count()
                });
                let manifests = self.checks.commits.get(&job).map(|c| c.manifests.clone()).unwrap_or_default();
                let whole = manifests.values().all(|m| {
                    let key = (job, String::from_utf8_lossy(m).into_owned());
                    self.output.published.get(&key) == Some(&(true, true))
                });
                if manifests.len() != committers || !whole {
                    let seen = format!("{job} is FINISHED and its output is not whole: {manifests:?}");
                    self.checks.fail("EX-1: output is published once", seen);
                }
            }
            _ => {}
        }
    }

    pub fn check_publish(&mut self, job: JobId, manifest: &str) {
        if !self.checks.recorded.contains(&(job, manifest.to_owned())) {
            let seen = format!("{manifest:?} of {job} is published and no record says so");
            self.checks.fail("EX-1: output is published once", seen);
        }
    }

    /// Does every job that the cluster took end?
    pub fn all_jobs_ended(&self) -> Result<(), String> {
        let it = self.leader.and_then(|(n, _)| self.managers.get(&n)).ok_or("nobody leads")?;
        for (node, client) in &self.clients {
            if self.sim.is_alive(*node) && !client.acknowledged && !client.done {
                return Err(format!("{} has no answer", self.sim.name(*node)));
            }
        }
        for entry in it.dispatcher.entries() {
            if entry.result.is_none() {
                let view = it.masters.get(&entry.id).map(|m| format!("{:?}", m.core.view().exceptions.last()));
                let slots = it.masters.get(&entry.id).map(|m| m.core.slots());
                return Err(format!("{} is {}, has {slots:?}, last exception {view:?}", entry.name, entry.status));
            }
        }
        if let Some((job, _)) = self.store.results.iter().find(|(_, r)| r.dirty) {
            return Err(format!("the result of {job} is not marked clean"));
        }
        for job in &self.checks.acknowledged {
            if !self.store.results.contains_key(job) {
                return Err(format!("HA-3: {job} was acknowledged and has no result"));
            }
        }
        Ok(())
    }

    /// A job that waits although there are slots enough is an error long before its time-out.
    pub fn no_job_waits_in_vain(&mut self) -> Result<(), Failure> {
        let now = self.sim.now();
        let Some(it) = self.leader.and_then(|(n, _)| self.managers.get(&n)) else { return Ok(()) };
        let mut waits = BTreeMap::new();
        for (job, master) in &it.masters {
            if !matches!(master.core.status(), JobStatus::Created | JobStatus::Restarting) {
                continue;
            }
            let needed = self.plan.jobs.iter().find(|p| p.job == *job).map_or(0, |p| p.spec.graph.slots());
            let mut there = 0;
            for (_, tm) in self.task_managers.iter().filter(|(n, _)| self.sim.is_alive(**n)) {
                for slot in tm.core.slot_report().slots {
                    let mine = matches!(slot, SlotStatus::Taken { job: of, .. } if of == *job);
                    there += u32::from(mine || slot == SlotStatus::Free);
                }
            }
            if there >= needed {
                let since = self.checks.waits.get(job).copied().unwrap_or(now);
                waits.insert(*job, since);
                if now.since(since) > Duration::from_secs(120) {
                    let (invariant, have) = ("liveness: no job waits in vain", master.core.slots());
                    let seen = format!("{job} waits with {have:?} while {there} slots are there and {needed} needed");
                    return Err(Failure { invariant, seen });
                }
            }
        }
        self.checks.waits = waits;
        Ok(())
    }

    /// Is every slot of every live TaskManager free, and does the ResourceManager know it?
    pub fn all_slots_free(&self) -> Result<(), String> {
        let it = self.leader.and_then(|(n, _)| self.managers.get(&n)).ok_or("nobody leads")?;
        let view = it.manager.view();
        for (node, tm) in self.task_managers.iter().filter(|(n, _)| self.sim.is_alive(**n)) {
            let slots = tm.core.slot_report().slots;
            if !tm.core.is_empty() || slots.iter().any(|s| *s != SlotStatus::Free) {
                return Err(format!("{} has {slots:?}", self.sim.name(*node)));
            }
            let known = view.iter().find(|w| w.info.instance == tm.info.instance);
            if known.map(|w| w.free) != Some(slots.len() as u32) {
                return Err(format!("{} is free and the ResourceManager believes {known:?}", self.sim.name(*node)));
            }
        }
        if let Some((node, _)) = self.hosts.iter().find(|(n, _)| self.sim.is_alive(**n)) {
            return Err(format!("{} still lives", self.sim.name(*node)));
        }
        if !it.manager.grants().is_empty() {
            return Err(format!("the ResourceManager believes in {:?}", it.manager.grants()));
        }
        if let Some((worker, _)) = self.provider.workers.first_key_value() {
            return Err(format!("RC-1: {worker} is left behind"));
        }
        Ok(())
    }

    /// Is there a moment at which nobody owes an answer?
    pub fn all_asks_answered(&self) -> Result<(), String> {
        let managers = self.managers.iter().map(|(n, it)| (n, &it.replies));
        let masters = self.managers.iter().flat_map(|(n, it)| it.masters.values().map(move |m| (n, &m.replies)));
        let task_managers = self.task_managers.iter().map(|(n, it)| (n, &it.replies));
        let mut owing =
            managers.chain(masters).chain(task_managers).filter(|(n, r)| self.sim.is_alive(**n) && !r.is_empty());
        owing.next().map_or(Ok(()), |(node, _)| Err(format!("{} owes some", self.sim.name(*node))))
    }

    /// Is nothing left of a job that has ended but its result?
    pub fn all_is_cleaned_up(&self) -> Result<(), String> {
        let left = self.store.jobs.keys().find(|job| self.store.results.contains_key(job));
        left.map_or(Ok(()), |job| Err(format!("{job} has ended and its record is still there")))
    }

    pub fn report(&mut self) -> Report {
        let count = |wanted: JobStatus| self.checks.ended.values().filter(|s| **s == wanted).count() as u32;
        Report {
            events: self.sim.happened(),
            virtual_seconds: self.sim.now().since_start().as_secs(),
            transitions: self.checks.transitions.clone(),
            finished: count(JobStatus::Finished),
            failed: count(JobStatus::Failed),
            cancelled: count(JobStatus::Canceled),
            restarts: self.checks.restarts,
            adoptions: self.checks.adoptions,
            in_part: self.checks.in_part,
            trace: String::new(),
        }
    }
}
