//! A TaskManager's way to the leader: find, register, stay registered, notice the loss.

use crate::{
    kinds::{Answer, Dialled, LinkStep, Local, Message, Ticket},
    plan::{RPC, heartbeat, registration},
    world::World,
};
use std::time::Duration;
use thalweg_model::{Epoch, Moment};
use thalweg_rpc::{Fence, RegistrationRetry, gateways::RegistrationAnswer, registration::Outcome as Tried};
use thalweg_testkit::harness::{LinkId, NodeId, Outcome};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Known {
    Waiting,
    Dialling,
    Registering { link: LinkId, epoch: Epoch },
    Registered { link: LinkId, peer: NodeId, epoch: Epoch, since: Moment },
    Looking { was: NodeId, heard: Moment },
}

pub struct Link {
    /// Steps of an earlier turn are of no interest.
    pub turn: u64,
    pub state: Known,
    /// The connection that is open, and to whom.
    pub dialled: Option<(LinkId, NodeId)>,
    pub retry: RegistrationRetry,
    pub unregistered_since: Moment,
}

impl World {
    fn link_step(&mut self, node: NodeId, after: Duration, step: LinkStep) {
        let Some(it) = self.task_managers.get(&node) else { return };
        let turn = it.link.turn;
        self.sim.post(node, after, Local::LinkStep(turn, step));
    }

    fn link_is(&mut self, node: NodeId, state: Known) {
        if let Some(it) = self.task_managers.get_mut(&node) {
            it.link.turn += 1;
            it.link.state = state;
        }
    }

    /// Looks whether there is a leader.
    pub fn link_polls(&mut self, node: NodeId) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        it.link.retry = RegistrationRetry::new(registration());
        self.link_is(node, Known::Waiting);
        self.link_step(node, Duration::from_micros(10), LinkStep::Poll);
    }

    pub fn leader_changed(&mut self, node: NodeId) {
        let Some(it) = self.task_managers.get(&node) else { return };
        match it.link.state {
            Known::Registered { link, epoch, .. } => {
                // Only a store that is shared says who leads; else the address is all that is known.
                if self.plan.durable && self.leader.is_some_and(|(_, e)| e > epoch) {
                    self.sim.close(link, node);
                    self.leader_is_lost(node);
                }
            }
            Known::Waiting | Known::Dialling | Known::Registering { .. } => self.link_polls(node),
            Known::Looking { .. } => {}
        }
    }

    fn leader_is_lost(&mut self, node: NodeId) {
        let now = self.sim.now();
        if let Some(it) = self.task_managers.get_mut(&node) {
            it.link.unregistered_since = now;
        }
        self.executor_hears(node, Local::LeaderLost);
        self.link_polls(node);
    }

    fn dials_leader(&mut self, node: NodeId, looking: bool) {
        let Some(it) = self.task_managers.get(&node) else { return };
        let turn = it.link.turn;
        let make = move |found| {
            Local::LinkStep(turn, if looking { LinkStep::Looked(found) } else { LinkStep::Dialled(found) })
        };
        let Some((leader, _)) = self.leader else { return };
        if let Some((link, peer)) = it.link.dialled
            && peer == leader
            && !self.sim.is_closed(link, node)
        {
            self.sim.post(node, Duration::from_micros(10), make(Dialled::Connected { link, peer }));
            return;
        }
        let address = self.leader_address();
        self.dial(node, &address, make);
    }

    /// Where the leader is, as it is announced. A standalone one has the same address in each life.
    pub fn leader_address(&self) -> String {
        match self.leader {
            Some((node, _)) if self.plan.durable => format!("jm/{}", self.sim.name(node)),
            _ => "jm".into(),
        }
    }

    pub fn link_steps(&mut self, node: NodeId, turn: u64, step: LinkStep) {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        if it.link.turn != turn {
            return;
        }
        match (step, it.link.state) {
            (LinkStep::Poll | LinkStep::Again, Known::Waiting) => {
                if self.has_waited_too_long(node) {
                    self.task_manager_dies(node);
                    return;
                }
                if self.leader.is_none() {
                    self.link_step(node, Duration::from_secs(1), LinkStep::Poll);
                    return;
                }
                self.link_is(node, Known::Dialling);
                self.dials_leader(node, false);
            }
            (LinkStep::Dialled(Dialled::Connected { link, peer }), Known::Dialling) => {
                it.link.dialled = Some((link, peer));
                match self.managers.get(&peer).map(|m| m.epoch) {
                    Some(epoch) => {
                        self.link_is(node, Known::Registering { link, epoch });
                        let turn = turn + 1;
                        self.executor_hears(node, Local::LinkStep(turn, LinkStep::Report));
                    }
                    None => {
                        self.sim.close(link, node);
                        self.tries_again(node, Tried::Failed);
                    }
                }
            }
            (LinkStep::Dialled(Dialled::Refused), Known::Dialling) => self.tries_again(node, Tried::Refused),
            (LinkStep::Dialled(Dialled::Unreachable), Known::Dialling) => self.tries_again(node, Tried::Failed),
            (LinkStep::Report, Known::Registering { link, epoch }) => {
                let limit = it.link.retry.timeout().min(RPC);
                let (info, report) = (it.info.clone(), it.core.slot_report());
                let message = Message::RegisterTaskManager { fence: Fence::cluster(epoch), info, report };
                self.sim.ask(link, node, limit, Ticket::Registration { turn }, message);
            }
            (LinkStep::Silence, Known::Registered { link, since, .. }) => {
                let heard = it.heard.max(since);
                let timeout = heartbeat().timeout;
                if now.since(heard) >= timeout {
                    self.sim.close(link, node);
                    self.leader_is_lost(node);
                } else {
                    self.link_step(node, timeout - now.since(heard), LinkStep::Silence);
                }
            }
            (LinkStep::LookAgain, Known::Looking { .. }) => self.dials_leader(node, true),
            (LinkStep::Looked(found), Known::Looking { was, heard }) => match found {
                Dialled::Connected { link, peer } if peer == was => {
                    it.link.dialled = Some((link, peer));
                    it.link.unregistered_since = now;
                    self.link_polls(node);
                }
                Dialled::Connected { link, peer } => {
                    it.link.dialled = Some((link, peer));
                    self.leader_is_lost(node);
                }
                Dialled::Refused => self.leader_is_lost(node),
                Dialled::Unreachable if now.since(heard) >= heartbeat().timeout => self.leader_is_lost(node),
                Dialled::Unreachable => self.link_step(node, Duration::from_millis(200), LinkStep::LookAgain),
            },
            _ => {}
        }
    }

    fn tries_again(&mut self, node: NodeId, tried: Tried) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let wait = it.link.retry.after(tried);
        self.link_is(node, Known::Waiting);
        self.link_step(node, wait, LinkStep::Again);
    }

    pub fn registration_answered(&mut self, node: NodeId, turn: u64, outcome: Outcome<Answer>) {
        let now = self.sim.now();
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let Known::Registering { link, epoch } = it.link.state else { return };
        if it.link.turn != turn {
            return;
        }
        match outcome {
            Outcome::Answer(Answer::Registered(Ok(RegistrationAnswer::Accepted))) => {
                let peer = self.sim.peer(link, node);
                self.link_is(node, Known::Registered { link, peer, epoch, since: now });
                self.executor_hears(node, Local::LeaderFound(link, epoch));
                self.link_step(node, heartbeat().timeout, LinkStep::Silence);
                if self.sim.is_closed(link, node) {
                    self.link_closed(node, link);
                }
            }
            Outcome::TimedOut => self.tries_again(node, Tried::TimedOut),
            _ => self.tries_again(node, Tried::Failed),
        }
    }

    pub fn link_closed(&mut self, node: NodeId, closed: LinkId) {
        let Some(it) = self.task_managers.get_mut(&node) else { return };
        let Known::Registered { link, peer, since, .. } = it.link.state else { return };
        if link == closed {
            let heard = it.heard.max(since);
            self.link_is(node, Known::Looking { was: peer, heard });
            self.dials_leader(node, true);
        }
    }
}
