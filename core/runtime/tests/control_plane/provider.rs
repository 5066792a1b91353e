//! An active resource provider: starts workers as they are declared, tells what becomes of them.

use crate::{
    job_manager::MANAGER,
    kinds::{Local, ProviderOrder},
    world::World,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thalweg_control::resource_manager;
use thalweg_model::TaskManagerId;
use thalweg_spi::{ProviderEvent, WorkerProfile};
use thalweg_testkit::harness::NodeId;

#[derive(Debug, Default)]
pub struct Provider {
    /// The JobManager that is told.
    pub listener: Option<NodeId>,
    pub declared: u32,
    /// Live or being started.
    pub workers: BTreeMap<TaskManagerId, Option<NodeId>>,
    registered: BTreeSet<TaskManagerId>,
    refused: bool,
    next: u32,
}

impl World {
    fn profile(&self) -> WorkerProfile {
        WorkerProfile { slots: self.plan.slots, memory: None }
    }

    fn provider_tells(&mut self, event: ProviderEvent) {
        let Some(listener) = self.provider.listener.filter(|l| self.managers.contains_key(l)) else { return };
        self.sim.post_in_order(listener, MANAGER, Local::Manager(resource_manager::Event::Provider(event)));
    }

    /// A JobManager opens the provider: workers of the one before are found, or ended.
    pub fn provider_greets(&mut self, manager: NodeId) {
        if !self.plan.active {
            return;
        }
        let there: Vec<_> = self.provider.workers.keys().cloned().collect();
        self.provider.registered.clear();
        for worker in there {
            if self.plan.recovers {
                let event = ProviderEvent::Recovered { worker, profile: self.profile() };
                self.sim.post_in_order(manager, MANAGER, Local::Manager(resource_manager::Event::Provider(event)));
            } else {
                self.worker_ends(&worker);
            }
        }
    }

    fn worker_ends(&mut self, worker: &TaskManagerId) {
        if let Some(Some(node)) = self.provider.workers.remove(worker) {
            self.task_manager_dies(node);
        }
        self.provider.registered.remove(worker);
    }

    fn worker_is_lost(&mut self, worker: TaskManagerId, cause: &str) {
        if self.provider.workers.contains_key(&worker) {
            self.worker_ends(&worker);
            self.provider_tells(ProviderEvent::Lost { worker, cause: cause.into() });
            self.provider.refused = false;
            self.reconcile();
        }
    }

    pub fn provider_hears(&mut self, order: ProviderOrder) {
        let of = |manager: NodeId, world: &World| world.provider.listener == Some(manager);
        match order {
            ProviderOrder::Declare(manager, workers) if of(manager, self) => {
                self.provider.declared = workers;
                self.provider.refused = false;
                self.reconcile();
            }
            ProviderOrder::Release(manager, worker) if of(manager, self) => self.worker_is_lost(worker, "released"),
            ProviderOrder::Registered(manager, worker)
                if of(manager, self) && self.provider.workers.contains_key(&worker) =>
            {
                self.provider.registered.insert(worker);
            }
            ProviderOrder::Reconcile => {
                self.provider.refused = false;
                self.reconcile();
            }
            ProviderOrder::WorkerBoots(worker) if self.provider.workers.get(&worker) == Some(&None) => {
                if self.chaos && self.sim.chance(50) {
                    return self.worker_is_lost(worker, "it could not start");
                }
                let node = self.task_manager_starts(worker.as_str(), worker.clone());
                self.provider.workers.insert(worker, Some(node));
            }
            ProviderOrder::WorkerDied(worker) => self.worker_is_lost(worker, "its process ended"),
            _ => {}
        }
    }

    /// Starts what is missing; ends what is too much and was never told as registered.
    fn reconcile(&mut self) {
        while (self.provider.workers.len() as u32) < self.provider.declared {
            if self.provider.workers.len() as u32 >= self.plan.quota {
                if !std::mem::replace(&mut self.provider.refused, true) {
                    let (profile, cause) = (self.profile(), "the quota is used up".to_owned());
                    self.provider_tells(ProviderEvent::Refused { profile, cause, retry: true });
                    self.sim.post(self.outside, Duration::from_secs(5), Local::Provider(ProviderOrder::Reconcile));
                }
                return;
            }
            self.provider.next += 1;
            let worker = TaskManagerId::new(format!("worker-{}", self.provider.next));
            self.provider.workers.insert(worker.clone(), None);
            self.provider_tells(ProviderEvent::Started { worker: worker.clone(), profile: self.profile() });
            let after = self.sim.between(Duration::from_millis(10), Duration::from_secs(2));
            self.sim.post(self.outside, after, Local::Provider(ProviderOrder::WorkerBoots(worker)));
        }
        let mut over = (self.provider.workers.len() as u32).saturating_sub(self.provider.declared);
        if self.provider.registered.is_empty() {
            return;
        }
        for worker in self.provider.workers.keys().cloned().collect::<Vec<_>>() {
            if over > 0 && !self.provider.registered.contains(&worker) {
                over -= 1;
                self.worker_is_lost(worker, "not needed any more");
            }
        }
    }

    /// A TaskManager process is gone: whoever started it is told.
    pub fn task_manager_is_gone(&mut self, node: NodeId) {
        let worker = self.provider.workers.iter().find(|(_, n)| **n == Some(node)).map(|(w, _)| w.clone());
        if let Some(worker) = worker {
            let after = self.sim.between(Duration::from_micros(10), Duration::from_millis(100));
            self.sim.post(self.outside, after, Local::Provider(ProviderOrder::WorkerDied(worker)));
        }
    }
}
