//! What befalls the cluster: the beginning, one misfortune after the other, and the calm after them.

use crate::{
    checks::Checks,
    kinds::Local,
    plan::{Fault, heartbeat},
    world::{Place, World},
};
use rand::{Rng, seq::IndexedRandom};
use std::time::Duration;
use thalweg_control::job_master;
use thalweg_model::TaskManagerId;
use thalweg_testkit::harness::{NodeId, Weather};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl World {
    pub fn set_up(&mut self) {
        self.sim.weather = self.plan.weather;
        self.boot_manager();
        if !self.plan.active {
            for n in 0..self.plan.task_managers {
                self.places.push(Place { name: format!("place-{n}"), node: None, booting: true });
                let after = self.sim.between(Duration::ZERO, secs(5));
                self.sim.post(self.outside, after, Local::Boot(n));
            }
        }
        for plan in self.plan.jobs.clone() {
            self.client(plan);
        }
        let first = self.sim.between(secs(1), secs(15));
        self.sim.post(self.outside, first, Local::Chaos);
    }

    pub fn boot(&mut self, place: usize) {
        if self.places[place].node.is_some_and(|n| self.sim.is_alive(n)) {
            return;
        }
        let name = self.places[place].name.clone();
        let id = if self.plan.fixed_names { name.clone() } else { format!("{name}-{}", self.lives) };
        let node = self.task_manager_starts(&name, TaskManagerId::new(id));
        let place = &mut self.places[place];
        (place.node, place.booting) = (Some(node), false);
    }

    /// A JobManager process is born; it will be granted office.
    pub fn boot_manager(&mut self) {
        if self.candidate.is_some_and(|n| self.sim.is_alive(n)) {
            return;
        }
        // Who leads stays in office; but one that is stopped loses it to another, where there is a store to tell.
        if self.leader.is_some_and(|(n, _)| self.sim.is_alive(n) && !(self.plan.durable && self.sim.is_stopped(n))) {
            return;
        }
        self.lives += 1;
        let name = format!("jm-{}", self.lives);
        let node = self.sim.node(name.clone());
        self.listening.insert("jm".into(), node);
        self.listening.insert(format!("jm/{name}"), node);
        if !self.plan.durable && self.leader.is_some() {
            self.store.jobs.clear();
            self.store.deployments.clear();
            self.store.commits.clear();
            self.store.cancelled.clear();
            self.store.results.clear();
            self.life += 1;
            self.checks.store_is_lost();
        }
        self.candidate = Some(node);
        let after = self.sim.between(Duration::from_millis(1), secs(2));
        self.sim.post(node, after, Local::Lead);
    }

    pub fn manager_dies(&mut self, node: NodeId) {
        self.sim.kill(node);
        if let Some(it) = self.managers.remove(&node) {
            it.masters.values().for_each(|m| self.checks.master_ended(m));
        }
    }

    /// An orderly stop: jobs are suspended first.
    fn manager_stops(&mut self, node: NodeId) {
        let Some(it) = self.managers.get(&node) else { return };
        for job in it.masters.keys().copied().collect::<Vec<_>>() {
            self.feed_master(node, job, job_master::Event::Suspend);
        }
        self.manager_dies(node);
    }

    pub fn live_leader(&self) -> Option<NodeId> {
        self.leader.map(|(n, _)| n).filter(|n| self.sim.is_alive(*n) && self.candidate.is_none())
    }

    fn live_task_managers(&self) -> Vec<NodeId> {
        self.task_managers.keys().copied().filter(|n| self.sim.is_alive(*n)).collect()
    }

    fn live_hosts(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().filter(|n| self.sim.is_alive(*n)).collect()
    }

    fn pick(&mut self, from: &[NodeId]) -> Option<NodeId> {
        from.choose(self.sim.rng()).copied()
    }

    /// Links between TaskManagers or clients and JobManagers: a socket within a machine does not break.
    fn network_links(&self, of: Option<NodeId>) -> Vec<thalweg_testkit::harness::LinkId> {
        let links = self.sim.open_links().into_iter();
        let manager = |n: NodeId| self.managers.contains_key(&n);
        links
            .filter(|l| {
                let (a, b) = self.sim.ends(*l);
                (manager(a) || manager(b)) && of.is_none_or(|n| n == a || n == b)
            })
            .collect()
    }

    pub fn misfortune(&mut self) {
        if !self.chaos {
            return;
        }
        let most = self.plan.fault_every * 2;
        let next = self.sim.between(Duration::from_millis(1), most);
        self.sim.post(self.outside, next, Local::Chaos);
        let faults = self.plan.faults.clone();
        let Some(fault) = faults.choose(self.sim.rng()).copied() else { return };
        self.sim.note(|| format!("--- {fault:?}"));
        let short = self.sim.between(Duration::from_millis(10), secs(10));
        let long = self.sim.between(secs(1), secs(100));
        let length = if self.sim.chance(500) { short } else { long };
        match fault {
            Fault::KillTaskManager => {
                let all = self.live_task_managers();
                if let Some(node) = self.pick(&all) {
                    self.task_manager_dies(node);
                    if let Some(place) = self.places.iter().position(|p| p.node == Some(node)) {
                        self.places[place].booting = true;
                        self.sim.post(self.outside, length, Local::Boot(place));
                    }
                }
            }
            Fault::StopTaskManager => {
                let all = self.live_task_managers();
                if let Some(node) = self.pick(&all) {
                    self.sim.stop(node, length);
                }
            }
            Fault::KillHost => {
                let all = self.live_hosts();
                if let Some(node) = self.pick(&all) {
                    self.host_dies(node);
                }
            }
            Fault::StopHost => {
                let all = self.live_hosts();
                if let Some(node) = self.pick(&all) {
                    self.sim.stop(node, length);
                }
            }
            Fault::StopBoth => {
                let all = self.live_hosts();
                if let Some(node) = self.pick(&all) {
                    self.sim.stop(node, length);
                    let task_manager = self.hosts[&node].task_manager;
                    self.sim.stop(task_manager, length);
                }
            }
            Fault::BreakLink => {
                let all = self.network_links(None);
                if let Some(link) = all.choose(self.sim.rng()).copied() {
                    self.sim.break_link(link);
                }
            }
            Fault::CutOff => {
                let all = self.live_task_managers();
                if let Some(node) = self.pick(&all) {
                    self.cut_off.insert(node);
                    for link in self.network_links(Some(node)) {
                        self.sim.break_link(link);
                    }
                    self.sim.post(self.outside, length, Local::Heal);
                }
            }
            Fault::KillJobManager => {
                if let Some(node) = self.live_leader() {
                    if self.sim.chance(500) {
                        self.manager_stops(node);
                    } else {
                        self.manager_dies(node);
                    }
                    self.sim.post(self.outside, length.min(secs(30)), Local::BootManager);
                }
            }
            Fault::StopJobManager => {
                if let Some(node) = self.live_leader() {
                    self.sim.stop(node, length);
                }
            }
            Fault::Depose => {
                if let Some(node) = self.live_leader().filter(|n| !self.sim.is_stopped(*n)) {
                    self.sim.stop(node, length);
                    let last_words = self.sim.between(Duration::from_micros(100), Duration::from_millis(500));
                    self.sim.post(node, length + last_words, Local::Exit);
                    let after = self.sim.between(Duration::from_millis(10), length);
                    self.sim.post(self.outside, after, Local::BootManager);
                }
            }
            Fault::MissTheChange => {
                let all = self.live_task_managers();
                if let (Some(node), Some(leader)) = (self.pick(&all), self.live_leader()) {
                    self.cut_off.insert(node);
                    for link in self.network_links(Some(node)) {
                        self.sim.break_link(link);
                    }
                    // Longer than a heartbeat's time-out: its tasks start elsewhere meanwhile.
                    let given_up = heartbeat().timeout + secs(self.sim.rng().random_range(5..30));
                    self.sim.post(self.outside, given_up, Local::Replace(leader));
                }
            }
            Fault::Storms => {
                self.sim.weather.jam = 100;
                self.sim.weather.jam_for = secs(self.sim.rng().random_range(1..15));
                self.sim.post(self.outside, length, Local::Heal);
            }
            Fault::StoreTrouble => {
                self.store_trouble = true;
                self.sim.post(self.outside, length, Local::Heal);
            }
            Fault::ClientDies => {
                let all: Vec<NodeId> = self.clients.keys().copied().filter(|n| self.sim.is_alive(*n)).collect();
                if let Some(node) = self.pick(&all) {
                    self.sim.kill(node);
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut_off.clear();
        self.store_trouble = false;
        if self.chaos {
            self.sim.weather = self.plan.weather;
        }
    }

    /// The faults stop; from here on all must be well within a bound.
    pub fn calm_down(&mut self) {
        self.sim.note(|| "--- the faults stop".into());
        self.chaos = false;
        self.sim.weather = Weather::calm();
        self.heal();
        let deposed: Vec<NodeId> =
            self.managers.keys().copied().filter(|n| self.leader.is_none_or(|(l, _)| l != *n)).collect();
        deposed.into_iter().for_each(|n| self.manager_dies(n));
        let stopped: Vec<NodeId> = self.all_nodes().filter(|n| self.sim.is_stopped(*n)).collect();
        stopped.into_iter().for_each(|n| self.sim.go_on(n));
        if self.live_leader().is_none() {
            self.boot_manager();
        }
        for place in 0..self.places.len() {
            self.boot(place);
        }
        let left: Vec<_> = self.clients.iter().map(|(n, c)| (*n, c.plan.clone(), c.acknowledged)).collect();
        for (node, plan, acknowledged) in left {
            let unbounded = !plan.spec.graph.bounded;
            if !self.sim.is_alive(node) && unbounded {
                let again = self.client_again(plan);
                self.sim.post(again, secs(1), Local::ClientStep);
            } else if let Some(client) = self.clients.get_mut(&node).filter(|_| unbounded) {
                client.cancels = true;
                let _ = acknowledged;
                self.sim.post(node, secs(1), Local::ClientStep);
            }
        }
    }

    fn all_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let clients = self.clients.keys();
        self.managers.keys().chain(self.task_managers.keys()).chain(self.hosts.keys()).chain(clients).copied()
    }
}

impl Checks {
    /// Everything that was acknowledged and written is lost with the store.
    pub fn store_is_lost(&mut self) {
        self.acknowledged.clear();
        self.commits.clear();
    }
}
