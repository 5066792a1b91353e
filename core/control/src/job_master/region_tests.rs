//! Decisions of the core about a job of two regions: what breaks one leaves the other alone.

use super::{Effect, Event, JobMaster, Left, tests::master_of};
use crate::Now;
use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{
    AllocationId, Attempt, Edge, Epoch, ExecutionState, FailureKind, InstanceId, JobGraph, JobId, JobStatus, Moment,
    OperatorInfo, Partitioner, RegionAttempt, SubtaskId, SubtaskMetrics, TaskFailure, TaskManagerId, UnixMillis,
    Vertex, VertexId, VertexRole,
};
use thalweg_rpc::{
    Fence, Origin,
    gateways::{HostFailure, JobRegistration, SlotOffer, TaskManagerStatus},
};
use thalweg_wire::{Deploy, DeploymentRecord, RestartStrategy, TaskReport};

const JOB: JobId = JobId::from_bytes([1; 16]);
const LIFE: InstanceId = InstanceId::from_bytes([7; 16]);

fn at(millis: u64) -> Now {
    Now { at: Moment::from_start(Duration::from_millis(millis)), wall: UnixMillis(millis) }
}

fn vertex(uid: &str) -> Vertex {
    Vertex {
        id: VertexId::from_uid(uid),
        operators: vec![OperatorInfo { uid: uid.into(), name: uid.into(), kind: "map".into(), states: vec![] }],
        parallelism: 2,
        max_parallelism: 128,
        role: VertexRole::Task,
        own_thread: false,
        slot_sharing_group: None,
    }
}

/// Two sources, each with its sink: subtasks 0 are region 0, subtasks 1 are region 1.
fn job(epoch: Epoch, left: Left) -> JobMaster {
    let edge = Edge { from: 0, to: 1, partitioner: Partitioner::Forward, item: "u64".into(), feedback: false };
    let graph = JobGraph { vertices: vec![vertex("source"), vertex("sink")], edges: vec![edge], bounded: false };
    let restart = RestartStrategy::FixedDelay { attempts: 9, delay: Duration::ZERO };
    master_of(graph, restart, epoch, left)
}

/// A job and what stands around it.
struct World {
    jm: JobMaster,
    epoch: Epoch,
    now: u64,
    recorded: Option<DeploymentRecord>,
}

fn tm(name: &str) -> TaskManagerId {
    TaskManagerId::new(name)
}

fn attempt(n: u32) -> Attempt {
    Attempt { epoch: Epoch(3), n }
}

fn subtask(vertex: u32, index: u32) -> SubtaskId {
    SubtaskId { vertex, index }
}

fn deploys(effects: &[Effect]) -> Vec<(&TaskManagerId, &Deploy)> {
    effects
        .iter()
        .filter_map(|e| if let Effect::Deploy { id, deploy } = e { Some((id, &**deploy)) } else { None })
        .collect()
}

fn cancels(effects: &[Effect]) -> Vec<(TaskManagerId, Vec<RegionAttempt>)> {
    let cancel = |e: &Effect| match e {
        Effect::Cancel { id, regions } => Some((id.clone(), regions.clone())),
        _ => None,
    };
    effects.iter().filter_map(cancel).collect()
}

fn resets(effects: &[Effect]) -> Vec<TaskManagerId> {
    let reset = |e: &Effect| match e {
        Effect::ResetHost { id, .. } => Some(id.clone()),
        _ => None,
    };
    effects.iter().filter_map(reset).collect()
}

impl World {
    fn new(epoch: u64, left: Left) -> Self {
        let epoch = Epoch(epoch);
        let mut world = Self { jm: job(epoch, left), epoch, now: 0, recorded: None };
        world.feed(Event::Start);
        world
    }

    /// Both regions run, region 0 in slot 0 of one TaskManager and region 1 in that of the other.
    fn running(of_region_1: &str) -> Self {
        let mut world = Self::new(3, Left::default());
        world.joins("a");
        if of_region_1 != "a" {
            world.joins(of_region_1);
        }
        world.offers("a", 1, 0, 1);
        let slot = u32::from(of_region_1 == "a");
        world.offers(of_region_1, 2, slot, 1);
        let effects = world.feed(Event::DeploymentRecorded { attempt: attempt(0), outcome: Ok(()) });
        assert_eq!(deploys(&effects).iter().map(|(_, d)| d.tasks.len()).sum::<usize>(), 4);
        for id in ["a", of_region_1] {
            world.feed(Event::DeployAnswered { attempt: attempt(0), id: tm(id), outcome: Ok(()) });
        }
        for (index, id) in [(0, "a"), (1, of_region_1)] {
            (0..2).for_each(|vertex| drop(world.reports(id, vertex, index, 0, ExecutionState::Running)));
        }
        assert_eq!(world.jm.status(), JobStatus::Running);
        world
    }

    fn feed(&mut self, event: Event) -> Vec<Effect> {
        self.now += 1;
        let effects = self.jm.on_event(at(self.now), event);
        for e in &effects {
            if let Effect::RecordDeployment(record) = e {
                self.recorded = Some(record.clone());
            }
        }
        effects
    }

    fn from(&self) -> Origin {
        Fence::job(JOB, self.epoch).into()
    }

    fn joins(&mut self, name: &str) -> Vec<Effect> {
        self.comes_back(name, TaskManagerStatus::default())
    }

    fn comes_back(&mut self, name: &str, status: TaskManagerStatus) -> Vec<Effect> {
        let registration = JobRegistration { id: tm(name), instance: LIFE, rpc: String::new(), status };
        let from = self.from();
        self.feed(Event::Register { call: 1, from, registration })
    }

    fn offers(&mut self, name: &str, grant: u8, slot: u32, host: u64) -> Vec<Effect> {
        let allocation = AllocationId::from_bytes([grant; 16]);
        let offers = vec![SlotOffer { allocation, slot, host, data_address: None }];
        let from = self.from();
        self.feed(Event::Offer { call: 2, from, id: tm(name), instance: LIFE, offers })
    }

    fn reports(&mut self, name: &str, vertex: u32, index: u32, n: u32, state: ExecutionState) -> Vec<Effect> {
        let failure = (state == ExecutionState::Failed).then(|| TaskFailure::new(FailureKind::Lost, "gone"));
        let report = TaskReport {
            subtask: subtask(vertex, index),
            attempt: attempt(n),
            state,
            failure,
            prepared: None,
            collected: BTreeMap::new(),
            metrics: SubtaskMetrics::default(),
        };
        let from = self.from();
        self.feed(Event::Report { call: 3, from, id: tm(name), instance: LIFE, report })
    }

    fn recorded(&mut self, n: u32) -> Vec<Effect> {
        let record = self.recorded.clone().unwrap();
        assert_eq!(record.attempt.n, n);
        self.feed(Event::DeploymentRecorded { attempt: record.attempt, outcome: Ok(()) })
    }

    fn state(&self, vertex: usize, index: usize) -> (ExecutionState, u32) {
        let view = self.jm.view();
        let task = &view.subtasks[vertex][index];
        (task.state, task.attempt)
    }
}

#[test]
fn the_loss_of_a_task_manager_restarts_what_was_there() {
    let mut world = World::running("b");
    let effects = world.feed(Event::WorkerGone { id: tm("b"), instance: LIFE, cause: "test".into() });
    assert_eq!((resets(&effects), cancels(&effects)), (vec![], vec![]), "nothing is left of it, and the other goes on");
    assert_eq!(world.jm.status(), JobStatus::Restarting);
    let effects = world.reports("a", 0, 0, 0, ExecutionState::Running);
    assert!(matches!(&effects[..], [Effect::Acknowledge { answer: Ok(()), .. }]), "{effects:?}");
    world.joins("c");
    world.offers("c", 3, 0, 1);
    let record = world.recorded.clone().unwrap();
    assert_eq!(record.regions, [attempt(0), attempt(1)]);
    let effects = world.recorded(1);
    let deployed = deploys(&effects);
    let [(id, deploy)] = &deployed[..] else { panic!("{effects:?}") };
    assert_eq!((*id, deploy.attempt), (&tm("c"), attempt(1)));
    assert_eq!(deploy.tasks.iter().map(|t| t.subtask).collect::<Vec<_>>(), [subtask(0, 1), subtask(1, 1)]);
    let host_of = |index| &deploy.placement.hosts[deploy.placement.of(subtask(0, index)).unwrap().host as usize];
    assert_eq!((&host_of(0).task_manager, &host_of(1).task_manager), (&tm("a"), &tm("c")));
    assert_eq!((world.state(0, 0), world.jm.status()), ((ExecutionState::Running, 0), JobStatus::Running));
    // Each region's reports count under its own attempt.
    world.reports("c", 0, 1, 1, ExecutionState::Running);
    world.reports("a", 0, 0, 1, ExecutionState::Failed);
    assert_eq!((world.state(0, 0), world.state(0, 1)), ((ExecutionState::Running, 0), (ExecutionState::Running, 1)));
}

#[test]
fn a_region_that_failed_is_stopped_everywhere_and_starts_again_in_its_slot() {
    let mut world = World::running("a");
    let effects = world.reports("a", 1, 1, 0, ExecutionState::Failed);
    let region = RegionAttempt { region: 1, attempt: attempt(0) };
    assert_eq!(cancels(&effects), [(tm("a"), vec![region])]);
    assert!(effects.contains(&Effect::ReleasePartitions { regions: vec![region] }));
    assert_eq!(resets(&effects), [], "the host lives on for the other region");
    let ending = Some(vec![subtask(0, 1)]);
    world.feed(Event::Stopped { id: tm("a"), regions: vec![region], ending });
    assert_eq!(world.recorded.as_ref().map(|r| r.attempt), Some(attempt(0)), "what ends has not ended");
    // However it ends.
    world.reports("a", 0, 1, 0, ExecutionState::Failed);
    let effects = world.recorded(1);
    let deployed = deploys(&effects);
    let [(_, deploy)] = &deployed[..] else { panic!("{effects:?}") };
    assert_eq!(deploy.placement.of(subtask(0, 1)).map(|p| p.slot), Some(1));
    assert_eq!(world.jm.view().exceptions.len(), 1, "an end that was asked for is no failure");
}

#[test]
fn a_host_that_dies_is_started_again_for_what_was_in_it_alone() {
    let mut world = World::running("b");
    let failed = HostFailure { host: 1, failure: TaskFailure::new(FailureKind::Lost, "gone") };
    let from = world.from();
    let effects = world.feed(Event::HostFailed { call: 4, from, id: tm("b"), instance: LIFE, failed });
    assert_eq!((resets(&effects), cancels(&effects)), (vec![tm("b")], vec![]));
    world.feed(Event::HostReset { attempt: attempt(0), id: tm("b"), done: true });
    world.offers("b", 2, 0, 2);
    assert_eq!(deploys(&world.recorded(1)).len(), 1);
}

#[test]
fn what_may_have_been_deployed_is_stopped_before_it_is_deployed_again() {
    let mut world = World::running("b");
    world.feed(Event::WorkerGone { id: tm("b"), instance: LIFE, cause: "test".into() });
    world.joins("c");
    world.offers("c", 3, 0, 1);
    world.recorded(1);
    let outcome = Err("timed out".into());
    let effects = world.feed(Event::DeployAnswered { attempt: attempt(1), id: tm("c"), outcome });
    let region = RegionAttempt { region: 1, attempt: attempt(1) };
    assert_eq!(cancels(&effects), [(tm("c"), vec![region])]);
    // Nobody knows whether it was told: it is told again.
    let effects = world.feed(Event::Stopped { id: tm("c"), regions: vec![region], ending: None });
    assert_eq!(cancels(&effects), [(tm("c"), vec![region])]);
    world.feed(Event::Stopped { id: tm("c"), regions: vec![region], ending: Some(vec![]) });
    assert_eq!(deploys(&world.recorded(2)).len(), 1);
    assert_eq!(world.recorded.as_ref().map(|r| r.regions.clone()), Some(vec![attempt(0), attempt(2)]));
}

#[test]
fn what_does_not_stop_is_ended_with_its_host_and_all_that_is_in_it() {
    let mut world = World::running("a");
    world.reports("a", 1, 1, 0, ExecutionState::Failed);
    world.now = 31_000;
    let effects = world.feed(Event::Tick { random: 0 });
    assert_eq!(resets(&effects), [tm("a")]);
    world.feed(Event::HostReset { attempt: attempt(0), id: tm("a"), done: true });
    world.offers("a", 1, 0, 2);
    world.offers("a", 2, 1, 2);
    let effects = world.recorded(1);
    assert_eq!(deploys(&effects).iter().map(|(_, d)| d.tasks.len()).sum::<usize>(), 4, "both were in it");
}

#[test]
fn a_second_region_that_breaks_while_the_first_restarts_makes_it_an_affair_of_the_whole_job() {
    let mut world = World::running("a");
    world.reports("a", 1, 1, 0, ExecutionState::Failed);
    let effects = world.reports("a", 1, 0, 0, ExecutionState::Failed);
    assert_eq!(resets(&effects), [tm("a")], "nothing can go on, so a fresh host is the surest");
    assert_eq!(world.jm.view().exceptions.len(), 2);
}

#[test]
fn a_new_leader_adopts_what_is_there_and_restarts_the_region_that_is_lost() {
    let left = Left { deployment: World::running("b").recorded, ..Left::default() };
    let mut world = World::new(4, left);
    world.feed(Event::Vanished { id: tm("b"), instance: LIFE, cause: "its process is gone".into() });
    assert_eq!(world.jm.status(), JobStatus::Reconciling, "the other may still have what goes on");
    let tasks = (0..2).map(|vertex| (subtask(vertex, 0), attempt(0), ExecutionState::Running)).collect();
    let allocations = vec![AllocationId::from_bytes([1; 16])];
    let effects = world.comes_back("a", TaskManagerStatus { allocations, tasks, ..Default::default() });
    assert!(effects.contains(&Effect::Adopted), "{effects:?}");
    assert!(effects.contains(&Effect::Require(2)));
    assert_eq!((resets(&effects), cancels(&effects)), (vec![], vec![]));
    world.offers("a", 1, 0, 1);
    world.joins("c");
    world.offers("c", 3, 0, 1);
    let next = Attempt { epoch: Epoch(4), n: 1 };
    assert_eq!(world.recorded.as_ref().map(|r| r.regions.clone()), Some(vec![attempt(0), next]));
    let effects = world.recorded(1);
    assert!(matches!(&deploys(&effects)[..], [(id, deploy)] if **id == tm("c") && deploy.attempt == next));
    assert_eq!(world.state(0, 0), (ExecutionState::Running, 0));
}
