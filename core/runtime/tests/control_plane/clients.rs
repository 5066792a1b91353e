//! Clients: they submit, submit again when the answer was lost, cancel, and some of them die.

use crate::{
    kinds::{Answer, Dialled, Local, Message, Net, Ticket},
    plan::{JobPlan, RPC},
    world::World,
};
use std::time::Duration;
use thalweg_control::dispatcher::core::{CancelAnswer, Submitted};
use thalweg_testkit::harness::{Happening, LinkId, NodeId, Outcome};

pub struct Client {
    pub plan: JobPlan,
    /// The answer came: the job is the cluster's now.
    pub acknowledged: bool,
    /// It will not try again.
    pub done: bool,
    pub cancels: bool,
    refusals: u32,
    link: Option<LinkId>,
}

impl World {
    pub fn client(&mut self, plan: JobPlan) {
        let node = self.sim.node(format!("client-{}", plan.job.as_bytes()[0]));
        if let Some(at) = plan.cancel_at {
            self.sim.post(node, plan.submit_at + at, Local::ClientStep);
        }
        self.sim.post(node, plan.submit_at, Local::ClientStep);
        let new = Client { plan, acknowledged: false, done: false, cancels: false, refusals: 0, link: None };
        self.clients.insert(node, new);
    }

    /// Somebody else takes care of a job whose client is dead.
    pub fn client_again(&mut self, plan: JobPlan) -> NodeId {
        let node = self.sim.node(format!("operator-{}", plan.job.as_bytes()[0]));
        let new = Client { plan, acknowledged: true, done: false, cancels: true, refusals: 0, link: None };
        self.clients.insert(node, new);
        node
    }

    pub fn client_handles(&mut self, node: NodeId, happening: Happening<Net>) {
        let Some(client) = self.clients.get_mut(&node) else { return };
        match happening {
            Happening::Local(Local::ClientStep) => self.client_goes_on(node),
            Happening::Local(Local::ClientDialled(found)) => match found {
                Dialled::Connected { link, .. } => {
                    client.link = Some(link);
                    self.client_speaks(node, link);
                }
                _ => self.client_waits(node),
            },
            Happening::Closed { link } if client.link == Some(link) => client.link = None,
            Happening::Answered { ticket, outcome } => self.client_answered(node, ticket, outcome),
            _ => {}
        }
    }

    fn client_waits(&mut self, node: NodeId) {
        let after = self.sim.between(Duration::from_millis(100), Duration::from_secs(3));
        self.sim.post(node, after, Local::ClientStep);
    }

    fn client_goes_on(&mut self, node: NodeId) {
        let now = self.sim.now().since_start();
        let Some(client) = self.clients.get_mut(&node) else { return };
        if client.done {
            return;
        }
        let due = client.plan.cancel_at.is_some_and(|at| now >= client.plan.submit_at + at);
        client.cancels |= due;
        match client.link {
            Some(link) if !self.sim.is_closed(link, node) => self.client_speaks(node, link),
            _ => {
                let address = self.leader_address();
                self.dial(node, &address, Local::ClientDialled);
            }
        }
    }

    fn client_speaks(&mut self, node: NodeId, link: LinkId) {
        let Some(client) = self.clients.get(&node) else { return };
        let job = client.plan.job;
        if !client.acknowledged {
            let message = Message::Submit { job, spec: Box::new(client.plan.spec.clone()) };
            self.sim.ask(link, node, RPC, Ticket::Submit, message);
        } else if client.cancels {
            self.sim.ask(link, node, RPC, Ticket::Cancel, Message::Cancel { job });
        } else if client.plan.spec.client_timeout.is_some() {
            self.send(node, link, Message::ClientSeen { job });
            self.sim.post(node, Duration::from_secs(5), Local::ClientStep);
        } else {
            // Unbounded work is cancelled in the end, whenever that is.
            self.sim.post(node, Duration::from_secs(10), Local::ClientStep);
        }
    }

    fn client_answered(&mut self, node: NodeId, ticket: Ticket, outcome: Outcome<Answer>) {
        let Some(client) = self.clients.get_mut(&node) else { return };
        let job = client.plan.job;
        match (ticket, outcome) {
            (Ticket::Submit, Outcome::Answer(Answer::Submitted(answer))) => match answer {
                Submitted::Accepted | Submitted::Running => {
                    client.acknowledged = true;
                    self.check_acknowledged(job);
                    self.sim.post(node, Duration::from_millis(10), Local::ClientStep);
                }
                Submitted::Ended(_) => {
                    (client.acknowledged, client.done) = (true, true);
                    self.check_acknowledged(job);
                    self.check_end_is_written(job);
                }
                Submitted::Refused(_) => {
                    client.refusals += 1;
                    if client.refusals > 5 {
                        client.done = true;
                    } else {
                        self.client_waits(node);
                    }
                }
            },
            (Ticket::Cancel, Outcome::Answer(Answer::Cancelled(answer))) => {
                if matches!(answer, CancelAnswer::Ended(_)) {
                    self.check_end_is_written(job);
                }
                let Some(client) = self.clients.get_mut(&node) else { return };
                // A submission may still be on its way: whoever is not told of an end asks again.
                client.done |= matches!(answer, CancelAnswer::Ended(_));
                // A cancel is answered before it is done: whoever wants to be sure asks again.
                self.sim.post(node, Duration::from_secs(10), Local::ClientStep);
            }
            // Nobody knows whether it happened: again.
            _ => self.client_waits(node),
        }
    }
}
