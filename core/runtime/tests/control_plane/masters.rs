//! The JobMasters of a JobManager process, driven as their driver drives them.

use crate::{
    job_manager::{DISPATCHER, MANAGER, Replies},
    kinds::{Answer, ExecutorCall, Local, MasterCall, Message, Ticket, Write},
    plan::{RECONCILE, RPC},
    world::World,
};
use std::{collections::BTreeMap, time::Duration};
use thalweg_control::{
    dispatcher::core as dispatcher,
    job_master::{self, JobMaster},
    resource_manager,
};
use thalweg_model::{ExecutionState, FailureKind, InstanceId, JobId, Moment, TaskFailure, TaskManagerId};
use thalweg_rpc::{Fault, Fence, Origin, gateways::JobRegistrationAnswer};
use thalweg_testkit::harness::{CallId, LinkId, NodeId, Outcome};
use thalweg_wire::Descriptor;

pub struct Master {
    pub core: JobMaster,
    pub links: BTreeMap<TaskManagerId, (InstanceId, LinkId)>,
    pub replies: Replies,
    pub tick: Option<Moment>,
}

impl World {
    pub fn master_called(&mut self, node: NodeId, job: JobId, from: Origin, call: Option<CallId>, what: MasterCall) {
        let Some(it) = self.managers.get_mut(&node) else { return };
        let Some(master) = it.masters.get_mut(&job) else {
            if let Some(call) = call {
                let none = Fault::NoEndpoint("job-master".into());
                let answer = match what {
                    MasterCall::Register(_) => Answer::JobRegistered(Err(none)),
                    MasterCall::Offer { .. } => Answer::Offered(Err(none)),
                    _ => Answer::Done(Err(none)),
                };
                self.sim.answer(call, node, answer);
            }
            return;
        };
        let mut kept = 0;
        if let Some(call) = call {
            if let MasterCall::Register(registration) = &what {
                let known = master.links.get(&registration.id).filter(|(life, _)| *life == registration.instance);
                if known.is_none_or(|(_, known)| *known < call.link()) {
                    master.links.insert(registration.id.clone(), (registration.instance, call.link()));
                }
            }
            if let MasterCall::Disconnect { .. } = what {
                self.sim.answer(call, node, Answer::Done(Ok(Ok(()))));
            } else {
                kept = master.replies.keep(call);
            }
        }
        // Read before it is decided: an answer that welcomes them would be a mistake.
        let core = &master.core;
        self.checks.stale = match &what {
            MasterCall::Register(r) => {
                let stale = |(t, a, s): &&(_, _, ExecutionState)| !s.is_terminal() && *a != core.attempt_of(*t);
                r.status.tasks.iter().find(stale).map(|(_, a, _)| *a)
            }
            _ => None,
        };
        let call = kept;
        let event = match what {
            MasterCall::Register(registration) => job_master::Event::Register { call, from, registration },
            MasterCall::Offer { id, instance, offers } => job_master::Event::Offer { call, from, id, instance, offers },
            MasterCall::Report { id, instance, report } => {
                job_master::Event::Report { call, from, id, instance, report: *report }
            }
            MasterCall::HostFailed { id, instance, failed } => {
                job_master::Event::HostFailed { call, from, id, instance, failed }
            }
            MasterCall::Disconnect { id, instance } => {
                job_master::Event::Left { from, id, instance, cause: "it holds no slot of the job".into() }
            }
            MasterCall::Heartbeat { id, instance, status } => {
                job_master::Event::Heartbeat { from, id, instance, status }
            }
        };
        self.feed_master(node, job, event);
    }

    pub fn feed_master(&mut self, node: NodeId, job: JobId, event: job_master::Event) {
        let now = self.now();
        let Some(master) = self.managers.get_mut(&node).and_then(|it| it.masters.get_mut(&job)) else { return };
        let ticks = matches!(event, job_master::Event::Tick { .. });
        let effects = master.core.on_event(now, event);
        self.checks.does_not_spin("JobMaster", ticks, now.at, master.core.deadline());
        let mut over = false;
        for effect in effects {
            over |= matches!(effect, job_master::Effect::Over);
            self.master_performs(node, job, effect);
        }
        if over {
            self.endpoint_ends(node, job);
            return;
        }
        let Some(master) = self.managers.get_mut(&node).and_then(|it| it.masters.get_mut(&job)) else { return };
        if let Some(at) = master.core.deadline().filter(|at| master.tick.is_none_or(|t| *at < t)) {
            master.tick = Some(at);
            self.sim.post(node, at.since(now.at), Local::MasterTick(job));
        }
    }

    /// The driver ends: what is called now finds no endpoint, and calls that wait are told.
    fn endpoint_ends(&mut self, node: NodeId, job: JobId) {
        let Some(master) = self.managers.get_mut(&node).and_then(|it| it.masters.remove(&job)) else { return };
        self.checks.master_ended(&master);
        for call in master.replies.all() {
            self.sim.answer(call, node, Answer::Done(Err(Fault::Ended)));
        }
    }

    fn ask_executor(&mut self, node: NodeId, job: JobId, id: &TaskManagerId, ticket: Ticket, call: ExecutorCall) {
        let Some(it) = self.managers.get(&node) else { return };
        let fence = Fence::job(job, it.epoch);
        match it.masters.get(&job).and_then(|m| m.links.get(id)) {
            Some((_, link)) => self.sim.ask(*link, node, RPC, ticket, Message::Executor { fence, call }),
            None => self.manager_answered(node, ticket, Outcome::Closed),
        }
    }

    fn master_performs(&mut self, node: NodeId, job: JobId, effect: job_master::Effect) {
        use job_master::Effect;
        let Some(it) = self.managers.get_mut(&node) else { return };
        let epoch = it.epoch;
        let Some(master) = it.masters.get_mut(&job) else { return };
        let answer = |world: &mut Self, call, answer| {
            let Some(master) = world.managers.get_mut(&node).and_then(|it| it.masters.get_mut(&job)) else { return };
            match master.replies.take(call) {
                Some(call) => world.sim.answer(call, node, answer),
                None => world.checks.answered_twice("JobMaster"),
            }
        };
        match effect {
            Effect::AnswerRegister { call, answer: a } => {
                if let (Some(stale), Ok(JobRegistrationAnswer::Accepted(_))) = (self.checks.stale.take(), &a) {
                    let seen = format!("{job} welcomes live tasks of attempt {stale}");
                    self.checks.fail("HA: tasks of another attempt are not adopted", seen);
                }
                answer(self, call, Answer::JobRegistered(a));
            }
            Effect::AnswerOffer { call, answer: a } => answer(self, call, Answer::Offered(a)),
            Effect::Acknowledge { call, answer: a } => answer(self, call, Answer::Done(a.map(Ok))),
            Effect::Require(slots) => {
                let event = resource_manager::Event::Require { job, slots };
                self.sim.post_in_order(node, MANAGER, Local::Manager(event));
            }
            Effect::RegisterPartitions { attempt } => {
                let partitions = master.core.partitions();
                let fails = self.chaos && self.sim.chance(20);
                let outcome = if fails {
                    Err(TaskFailure::new(FailureKind::Lost, "the shuffle does not answer"))
                } else {
                    let describe = |p: &job_master::Partition| Descriptor {
                        edge: p.edge,
                        producer: p.producer,
                        bytes: bytes::Bytes::new(),
                    };
                    Ok(partitions.iter().map(describe).collect())
                };
                let event = job_master::Event::PartitionsRegistered { attempt, outcome };
                let after = self.sim.between(Duration::ZERO, self.plan.store_delay);
                self.sim.post(node, after, Local::Master(job, Box::new(event)));
            }
            Effect::RecordDeployment(record) => {
                self.checks.in_part += u32::from(record.regions.iter().any(|a| *a != record.attempt));
                self.write(node, Write::Deployment(job, record));
            }
            Effect::RecordCommit(record) => self.write(node, Write::Commit(job, record)),
            Effect::Deploy { id, deploy } => {
                self.check_deploy(epoch, job);
                self.check_nothing_is_left(node, job, &deploy);
                let ticket = Ticket::Deploy { job, attempt: deploy.attempt, id: id.clone() };
                self.ask_executor(node, job, &id, ticket, ExecutorCall::Deploy { job, deploy });
            }
            Effect::Cancel { id, regions } => {
                let ticket = Ticket::Stop { job, regions: regions.clone(), id: id.clone() };
                self.ask_executor(node, job, &id, ticket, ExecutorCall::Cancel { job, regions });
            }
            Effect::Commit { id, subtask, attempt } => {
                let ticket = Ticket::Commit { job, attempt, id: id.clone() };
                self.ask_executor(node, job, &id, ticket, ExecutorCall::Commit { job, subtask, attempt });
            }
            Effect::ResetHost { id, attempt } => {
                let ticket = Ticket::Reset { job, attempt, id: id.clone() };
                self.ask_executor(node, job, &id, ticket, ExecutorCall::ResetHost { job, attempt });
            }
            Effect::FreeSlot { id, allocation, .. } => {
                self.ask_executor(node, job, &id, Ticket::Nothing, ExecutorCall::FreeSlot { job, allocation });
            }
            Effect::Heartbeat { id, report } => {
                if let Some((_, link)) = master.links.get(&id) {
                    let (link, fence) = (*link, Fence::job(job, epoch));
                    let call = ExecutorCall::HeartbeatFromJobMaster { job, report };
                    self.send(node, link, Message::Executor { fence, call });
                }
            }
            Effect::Disconnect { id, instance } => {
                if let Some((_, link)) = master.links.get(&id).filter(|(i, _)| *i == instance) {
                    let link = *link;
                    self.sim.close(link, node);
                }
            }
            Effect::ReleasePartitions { .. } | Effect::Failed { .. } => {}
            Effect::Status(status) => {
                let event = Box::new(dispatcher::Event::Status { job, status });
                self.sim.post_in_order(node, DISPATCHER, Local::Dispatcher(event));
            }
            Effect::Adopted => self.checks.adoptions += 1,
            Effect::LookFor(there) => {
                let until = self.sim.now() + RECONCILE;
                self.look_for(node, job, there, until);
            }
            Effect::Over => {
                let over = resource_manager::Event::Over { job };
                self.sim.post_in_order(node, MANAGER, Local::Manager(over));
            }
            Effect::Ended(result) => {
                let event = Box::new(dispatcher::Event::MasterEnded { result });
                self.sim.post_in_order(node, DISPATCHER, Local::Dispatcher(event));
            }
        }
    }
}
