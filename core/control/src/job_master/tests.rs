//! Decisions of the core, event by event.

use super::{Effect, Event, JobMaster, Left, Settings, states::TRANSITIONS};
use crate::Now;
use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{
    AllocationId, Attempt, BlobKey, Edge, Epoch, ExecutionState, FailureKind, InstanceId, JobGraph, JobId, JobStatus,
    Moment, OperatorInfo, Partitioner, RegionAttempt, SubtaskId, SubtaskMetrics, TaskFailure, TaskManagerId,
    UnixMillis, Vertex, VertexId, VertexRole,
};
use thalweg_rpc::{
    Fault, Fence, HeartbeatSettings, Origin,
    gateways::{HostFailure, JobRegistration, JobRegistrationAnswer, SlotOffer, TaskManagerStatus},
};
use thalweg_wire::{CommitRecord, ExecutionMode, JobRecord, JobSpec, RestartStrategy, TaskReport};

const EPOCH: Epoch = Epoch(3);
const JOB: JobId = JobId::from_bytes([1; 16]);
const LIFE: InstanceId = InstanceId::from_bytes([7; 16]);

fn at(millis: u64) -> Now {
    Now { at: Moment::from_start(Duration::from_millis(millis)), wall: UnixMillis(millis) }
}

fn vertex(uid: &str, parallelism: u32, role: VertexRole) -> Vertex {
    let operator = OperatorInfo { uid: uid.into(), name: uid.into(), kind: "map".into(), states: vec![] };
    Vertex {
        id: VertexId::from_uid(uid),
        operators: vec![operator],
        parallelism,
        max_parallelism: 128,
        role,
        own_thread: false,
        slot_sharing_group: None,
    }
}

/// One source, one committer, in one slot.
fn job(restart: RestartStrategy) -> JobMaster {
    job_with(restart, EPOCH, Left::default())
}

fn job_with(restart: RestartStrategy, epoch: Epoch, left: Left) -> JobMaster {
    let edge = Edge { from: 0, to: 1, partitioner: Partitioner::Hash, item: "u64".into(), feedback: false };
    let graph = JobGraph {
        vertices: vec![vertex("sink", 1, VertexRole::Task), vertex("sink/committer", 1, VertexRole::Committer)],
        edges: vec![edge],
        bounded: true,
    };
    master_of(graph, restart, epoch, left)
}

/// A master of a job that is this graph, and otherwise like any other.
pub(super) fn master_of(graph: JobGraph, restart: RestartStrategy, epoch: Epoch, left: Left) -> JobMaster {
    let spec = JobSpec {
        name: "job".into(),
        graph,
        executable: BlobKey::of(b""),
        args: vec![],
        files: BTreeMap::new(),
        env: BTreeMap::new(),
        client_dir: String::new(),
        ordinal: 0,
        earlier: vec![],
        default_parallelism: 1,
        mode: ExecutionMode::Automatic,
        restart,
        client_timeout: None,
        options: BTreeMap::new(),
        plugins: vec![],
        protocol: (1, 1),
    };
    let settings = Settings {
        epoch,
        heartbeat: HeartbeatSettings::default(),
        reconcile_timeout: Duration::from_secs(15),
        slot_request_timeout: Duration::from_secs(300),
        cancel_timeout: Duration::from_secs(30),
    };
    JobMaster::new(JobRecord { job: JOB, spec, submitted: UnixMillis(0) }, left, settings)
}

fn tm() -> TaskManagerId {
    TaskManagerId::new("a")
}

fn from() -> Origin {
    Fence::job(JOB, EPOCH).into()
}

fn grant(n: u8) -> AllocationId {
    AllocationId::from_bytes([n; 16])
}

fn attempt(n: u32) -> Attempt {
    Attempt { epoch: EPOCH, n }
}

fn register(status: TaskManagerStatus) -> Event {
    let registration = JobRegistration { id: tm(), instance: LIFE, rpc: String::new(), status };
    Event::Register { call: 1, from: from(), registration }
}

fn offer(n: u8, slot: u32, host: u64) -> Event {
    let offers = vec![SlotOffer { allocation: grant(n), slot, host, data_address: None }];
    Event::Offer { call: 2, from: from(), id: tm(), instance: LIFE, offers }
}

fn report(vertex: u32, n: u32, state: ExecutionState, prepared: Option<&'static [u8]>) -> Event {
    let report = TaskReport {
        subtask: SubtaskId { vertex, index: 0 },
        attempt: attempt(n),
        state,
        failure: None,
        prepared: prepared.map(Into::into),
        collected: BTreeMap::new(),
        metrics: SubtaskMetrics::default(),
    };
    Event::Report { call: 3, from: from(), id: tm(), instance: LIFE, report }
}

fn lost() -> TaskFailure {
    TaskFailure::new(FailureKind::Lost, "gone")
}

fn host_failed(host: u64) -> Event {
    let failed = HostFailure { host, failure: lost() };
    Event::HostFailed { call: 4, from: from(), id: tm(), instance: LIFE, failed }
}

fn worker_gone() -> Event {
    Event::WorkerGone { id: tm(), instance: LIFE, cause: "test".into() }
}

fn reset(n: u32, done: bool) -> Event {
    Event::HostReset { attempt: attempt(n), id: tm(), done }
}

fn accepted(effects: &[Effect]) -> Option<Vec<AllocationId>> {
    effects.iter().find_map(|e| match e {
        Effect::AnswerOffer { answer: Ok(accepted), .. } => Some(accepted.clone()),
        _ => None,
    })
}

fn ended(effects: &[Effect]) -> Option<JobStatus> {
    effects.iter().find_map(|e| match e {
        Effect::Ended(result) => Some(result.status),
        _ => None,
    })
}

/// A job that has its slot and whose deployment is being written down.
fn deploying(restart: RestartStrategy) -> JobMaster {
    let mut jm = job(restart);
    assert_eq!(jm.on_event(at(0), Event::Start), [Effect::Require(1)]);
    let welcome = jm.on_event(at(1), register(TaskManagerStatus::default()));
    assert!(matches!(&welcome[..], [Effect::AnswerRegister { answer: Ok(JobRegistrationAnswer::Accepted(_)), .. }]));
    let effects = jm.on_event(at(2), offer(1, 0, 1));
    assert_eq!(accepted(&effects), Some(vec![grant(1)]));
    assert!(effects.iter().any(|e| matches!(e, Effect::RecordDeployment(_))));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Deploy { .. })), "not before it is written down");
    jm
}

fn executing(restart: RestartStrategy) -> JobMaster {
    let mut jm = deploying(restart);
    let effects = jm.on_event(at(3), Event::DeploymentRecorded { attempt: attempt(0), outcome: Ok(()) });
    assert!(matches!(&effects[..], [Effect::Deploy { deploy, .. }] if deploy.tasks.len() == 2));
    jm.on_event(at(4), Event::DeployAnswered { attempt: attempt(0), id: tm(), outcome: Ok(()) });
    jm
}

/// Everything is written, the committer has prepared, and the commit is being written down.
fn committing(restart: RestartStrategy) -> JobMaster {
    let mut jm = executing(restart);
    jm.on_event(at(5), report(0, 0, ExecutionState::Finished, None));
    let effects = jm.on_event(at(6), report(1, 0, ExecutionState::Running, Some(b"parts")));
    assert!(effects.iter().any(|e| matches!(e, Effect::RecordCommit(_))));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Commit { .. })), "nothing is published before the record");
    jm
}

fn commit_recorded(outcome: Result<(), TaskFailure>) -> Event {
    Event::CommitRecorded { attempt: attempt(0), outcome }
}

#[test]
fn a_commit_is_recorded_before_it_is_published_and_then_the_job_ends() {
    let mut jm = committing(RestartStrategy::ByKind);
    let publish = jm.on_event(at(7), commit_recorded(Ok(())));
    assert!(matches!(&publish[..], [Effect::Require(1), Effect::Commit { subtask, .. }] if subtask.vertex == 1));
    let effects = jm.on_event(at(8), report(1, 0, ExecutionState::Finished, None));
    assert!(effects.contains(&Effect::Require(0)));
    assert_eq!(ended(&effects), Some(JobStatus::Finished));
    let freed = |e: &Effect| matches!(e, Effect::FreeSlot { allocation, .. } if *allocation == grant(1));
    assert!(!effects.iter().any(freed), "until it is written down, the next leader may need to find it");
    let effects = jm.on_event(at(9), Event::ResultRecorded);
    assert!(freed(&effects[0]) && effects[1] == Effect::Over);
}

#[test]
fn a_failure_while_the_commit_is_being_written_is_decided_when_its_fate_is_known() {
    let mut jm = committing(RestartStrategy::ByKind);
    jm.on_event(at(7), host_failed(1));
    assert_eq!(jm.status(), JobStatus::Running, "nobody knows yet whether a restart publishes or runs again");
    jm.on_event(at(8), commit_recorded(Ok(())));
    assert_eq!(jm.status(), JobStatus::Restarting);
    jm.on_event(at(200), reset(0, true));
    assert_eq!(accepted(&jm.on_event(at(201), offer(1, 0, 2))), Some(vec![grant(1)]));
    let effects = jm.on_event(at(202), Event::DeploymentRecorded { attempt: attempt(1), outcome: Ok(()) });
    let deployed = effects.iter().find_map(|e| match e {
        Effect::Deploy { deploy, .. } => Some(deploy.tasks.clone()),
        _ => None,
    });
    let tasks = deployed.unwrap();
    assert_eq!(tasks.len(), 1, "only the committer runs again");
    assert_eq!(tasks[0].publish.as_deref(), Some(&b"parts"[..]), "and publishes what was recorded");
}

#[test]
fn a_commit_that_was_certainly_not_written_runs_the_job_again() {
    let mut jm = committing(RestartStrategy::ByKind);
    jm.on_event(at(7), commit_recorded(Err(TaskFailure::new(FailureKind::Storage, "full"))));
    assert_eq!(jm.status(), JobStatus::Restarting);
    // Whoever waits for it is told.
    assert_eq!(jm.view().waiting.as_deref(), Some("for its next attempt, after storage: full"));
}

#[test]
fn a_cancel_comes_too_late_for_a_commit() {
    let mut jm = committing(RestartStrategy::ByKind);
    assert_eq!(jm.on_event(at(7), Event::Cancel), []);
    assert_eq!(jm.status(), JobStatus::Running);
}

#[test]
fn a_restart_waits_for_the_old_hosts_and_for_fresh_ones() {
    let mut jm = executing(RestartStrategy::ByKind);
    let effects = jm.on_event(at(10), host_failed(1));
    assert!(effects.contains(&Effect::ResetHost { id: tm(), attempt: attempt(0) }));
    assert_eq!(jm.on_event(at(150), reset(0, false))[0], Effect::ResetHost { id: tm(), attempt: attempt(0) });
    jm.on_event(at(151), Event::Tick { random: 0 });
    assert!(jm.deadline() > Some(at(151).at), "nothing to do but to wait for the answer: {:?}", jm.deadline());
    jm.on_event(at(160), Event::DeployAnswered { attempt: attempt(0), id: tm(), outcome: Err("closed".into()) });
    assert_eq!(jm.attempt(), attempt(0), "that says nothing about the host");
    jm.on_event(at(170), reset(0, true));
    assert_eq!(jm.attempt(), attempt(1));
    assert_eq!(accepted(&jm.on_event(at(171), offer(1, 0, 1))), Some(vec![grant(1)]));
    assert_eq!(jm.status(), JobStatus::Restarting, "the offer of the host that was ended is late");
    jm.on_event(at(172), offer(1, 0, 2));
    assert_eq!(jm.status(), JobStatus::Running);
}

#[test]
fn the_late_word_of_an_old_hosts_end_does_not_touch_the_fresh_one() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(10), host_failed(1));
    jm.on_event(at(170), reset(0, true));
    jm.on_event(at(171), host_failed(1));
    assert_eq!(jm.attempt(), attempt(1), "told again: no second failure");
    jm.on_event(at(172), offer(1, 0, 2));
    assert_eq!(jm.status(), JobStatus::Running);
    jm.on_event(at(173), host_failed(1));
    assert_eq!(jm.status(), JobStatus::Running);
}

#[test]
fn the_late_offer_of_an_old_host_does_not_touch_the_fresh_ones() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(10), host_failed(1));
    jm.on_event(at(11), offer(1, 0, 2));
    assert_eq!(accepted(&jm.on_event(at(12), offer(1, 0, 1))), Some(vec![grant(1)]), "the slot is the job's");
    jm.on_event(at(170), reset(0, true));
    assert_eq!(jm.status(), JobStatus::Running, "and its fresh host is ready");
}

#[test]
fn a_fresh_host_that_fails_before_the_reset_is_answered_is_told_by_the_next_heartbeat() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(10), host_failed(1));
    jm.on_event(at(50), host_failed(2));
    jm.on_event(at(170), reset(0, true));
    let status = TaskManagerStatus {
        allocations: vec![grant(1)],
        host_failure: Some(HostFailure { host: 2, failure: lost() }),
        ..Default::default()
    };
    let heartbeat = Event::Heartbeat { from: from(), id: tm(), instance: LIFE, status };
    let effects = jm.on_event(at(180), heartbeat);
    assert!(effects.contains(&Effect::ResetHost { id: tm(), attempt: attempt(1) }));
}

/// The same on another connection of the process.
fn on(number: u64, mut event: Event) -> Event {
    match &mut event {
        Event::Register { from, .. }
        | Event::Offer { from, .. }
        | Event::Report { from, .. }
        | Event::HostFailed { from, .. }
        | Event::Heartbeat { from, .. }
        | Event::Left { from, .. } => from.connection = number,
        _ => {}
    }
    event
}

#[test]
fn what_comes_late_on_an_earlier_connection_is_no_news() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(5), on(2, register(running())));
    let view = format!("{:?}", jm.view());
    let empty = TaskManagerStatus { allocations: vec![grant(1)], ..Default::default() };
    let heartbeat = |status| Event::Heartbeat { from: from(), id: tm(), instance: LIFE, status };
    assert_eq!(jm.on_event(at(6), on(1, heartbeat(empty.clone()))), [], "they were not there yet when it was said");
    let left = Event::Left { from: from(), id: tm(), instance: LIFE, cause: "test".into() };
    assert_eq!(jm.on_event(at(6), on(1, left)), []);
    let refused = |effects: &[Effect]| {
        matches!(
            effects,
            [Effect::AnswerRegister { answer: Err(Fault::Refused(_)), .. }
                | Effect::AnswerOffer { answer: Err(Fault::Refused(_)), .. }
                | Effect::Acknowledge { answer: Err(Fault::Refused(_)), .. }]
        )
    };
    for late in [register(empty.clone()), offer(1, 0, 1), report(0, 0, ExecutionState::Failed, None), host_failed(1)] {
        let effects = jm.on_event(at(6), on(1, late));
        assert!(refused(&effects), "{effects:?}");
    }
    assert_eq!(format!("{:?}", jm.view()), view);
    let effects = jm.on_event(at(7), on(2, heartbeat(empty)));
    assert!(effects.contains(&Effect::Status(JobStatus::Restarting)), "on the latest it is true");
}

#[test]
fn a_host_that_fails_before_its_slots_are_offered_is_replaced() {
    let mut jm = job(RestartStrategy::ByKind);
    jm.on_event(at(0), Event::Start);
    jm.on_event(at(1), register(TaskManagerStatus::default()));
    let effects = jm.on_event(at(2), host_failed(1));
    assert!(effects.contains(&Effect::ResetHost { id: tm(), attempt: attempt(0) }));
    jm.on_event(at(200), Event::Tick { random: 0 });
    assert_eq!(jm.attempt(), attempt(1), "nothing ran there: it is not waited for");
}

#[test]
fn a_lost_task_manager_restarts_the_job_and_its_slots_are_gone() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(10), worker_gone());
    assert_eq!((jm.status(), jm.slots().len()), (JobStatus::Restarting, 0));
    jm.on_event(at(200), Event::Tick { random: 0 });
    assert_eq!(jm.attempt(), attempt(1));
}

#[test]
fn a_task_manager_that_was_given_up_comes_back_in_vain() {
    let mut jm = executing(RestartStrategy::ByKind);
    jm.on_event(at(10), worker_gone());
    let running = (SubtaskId { vertex: 0, index: 0 }, attempt(0), ExecutionState::Running);
    let effects = jm.on_event(at(11), register(TaskManagerStatus { tasks: vec![running], ..Default::default() }));
    assert!(matches!(
        &effects[0],
        Effect::AnswerRegister { answer: Ok(JobRegistrationAnswer::Rejected(why)), .. } if why.contains("given up")
    ));
    let effects = jm.on_event(at(12), register(TaskManagerStatus::default()));
    assert!(matches!(&effects[0], Effect::AnswerRegister { answer: Ok(JobRegistrationAnswer::Accepted(_)), .. }));
}

#[test]
fn slots_are_taken_up_to_the_need_and_a_later_grant_replaces_an_earlier_one() {
    let mut jm = job(RestartStrategy::ByKind);
    jm.on_event(at(0), Event::Start);
    assert_eq!(accepted(&jm.on_event(at(1), offer(2, 0, 1))), Some(vec![]), "not registered");
    jm.on_event(at(1), register(TaskManagerStatus::default()));
    assert_eq!(accepted(&jm.on_event(at(2), offer(2, 0, 1))), Some(vec![grant(2)]));
    assert_eq!(accepted(&jm.on_event(at(3), offer(3, 1, 1))), Some(vec![]), "one slot is enough");
    assert_eq!(accepted(&jm.on_event(at(4), offer(1, 0, 1))), Some(vec![]), "an earlier grant of the slot has ended");
    assert_eq!(accepted(&jm.on_event(at(5), offer(4, 0, 1))), Some(vec![grant(4)]));
    assert_eq!(jm.slots(), [(tm(), 0, grant(4))]);
}

#[test]
fn a_new_attempt_is_measured_anew() {
    let mut jm = executing(RestartStrategy::ByKind);
    let tell = |jm: &mut JobMaster, n: u32, host_ms: u64, records_in: u64| {
        let subtask = SubtaskId { vertex: 0, index: 0 };
        let read_at = Some(Moment::from_start(Duration::from_millis(host_ms)));
        let tasks = [0, 1].map(|vertex| (SubtaskId { vertex, index: 0 }, attempt(n), ExecutionState::Running));
        let metrics = SubtaskMetrics { records_in, read_at, ..SubtaskMetrics::default() };
        let status = TaskManagerStatus {
            allocations: vec![grant(1)],
            tasks: tasks.to_vec(),
            metrics: vec![(subtask, metrics)],
            host_failure: None,
        };
        jm.on_event(at(5), Event::Heartbeat { from: from(), id: tm(), instance: LIFE, status });
        let seen = &jm.view().subtasks[0][0];
        (seen.metrics.records_in, seen.rates.map(|r| r.records_in))
    };
    assert_eq!(tell(&mut jm, 0, 1000, 100), (100, None));
    assert_eq!(tell(&mut jm, 0, 2000, 150), (150, Some(50.0)));
    jm.on_event(at(10), host_failed(1));
    jm.on_event(at(170), reset(0, true));
    jm.on_event(at(171), offer(1, 0, 2));
    jm.on_event(at(172), Event::DeploymentRecorded { attempt: attempt(1), outcome: Ok(()) });
    assert_eq!(tell(&mut jm, 0, 3000, 250), (0, None), "the word of an attempt that is over");
    jm.on_event(at(173), Event::DeployAnswered { attempt: attempt(1), id: tm(), outcome: Ok(()) });
    assert_eq!(tell(&mut jm, 1, 500, 10), (10, None), "another host's clock, and counters from the beginning");
    assert_eq!(tell(&mut jm, 1, 1500, 40), (40, Some(30.0)));
}

#[test]
fn groups_of_vertices_share_no_slot() {
    let apart = Some("apart".to_owned());
    let graph = JobGraph {
        vertices: vec![
            vertex("source", 1, VertexRole::Task),
            Vertex { slot_sharing_group: apart.clone(), ..vertex("sink", 2, VertexRole::Task) },
            Vertex { slot_sharing_group: apart, ..vertex("sink/committer", 1, VertexRole::Committer) },
        ],
        edges: vec![],
        bounded: true,
    };
    let mut jm = master_of(graph, RestartStrategy::ByKind, EPOCH, Left::default());
    let started = jm.on_event(at(0), Event::Start);
    assert!(started.contains(&Effect::Require(3)), "{started:?}");
    jm.on_event(at(1), register(TaskManagerStatus::default()));
    let mut effects = Vec::new();
    for slot in 0..3 {
        effects = jm.on_event(at(2), offer(slot as u8 + 1, slot, 1));
    }
    let record = effects.iter().find_map(|e| if let Effect::RecordDeployment(r) = e { Some(r) } else { None });
    let places = |v: usize| record.map(|r| r.placement.subtasks[v].iter().map(|p| p.slot).collect::<Vec<_>>());
    assert_eq!((places(0), places(1), places(2)), (Some(vec![0]), Some(vec![1, 2]), Some(vec![1])), "{effects:?}");
}

#[test]
fn a_job_that_is_ending_needs_no_more_slots() {
    let mut jm = executing(RestartStrategy::ByKind);
    let effects = jm.on_event(at(10), Event::Cancel);
    assert_eq!(effects[0], Effect::Require(0));
    let regions = vec![RegionAttempt { region: 0, attempt: attempt(0) }];
    assert!(effects.contains(&Effect::Cancel { id: tm(), regions }));
    assert_eq!(accepted(&jm.on_event(at(11), offer(5, 1, 1))), Some(vec![]));
    let forced = jm.on_event(at(30_010), Event::Tick { random: 0 });
    assert!(forced.contains(&Effect::ResetHost { id: tm(), attempt: attempt(0) }), "tasks that do not end are ended");
    assert_eq!(ended(&forced), Some(JobStatus::Canceled));
}

#[test]
fn no_slots_in_time_fails_the_job_with_the_reason() {
    let mut jm = job(RestartStrategy::ByKind);
    jm.on_event(at(0), Event::Start);
    jm.on_event(at(1), Event::Waiting(Some("needs 1 more slots, 0 free".into())));
    let effects = jm.on_event(at(300_000), Event::Tick { random: 0 });
    let told = |e: &Effect| matches!(e, Effect::Ended(r) if r.failure.as_ref().unwrap().message.contains("0 free"));
    assert!(effects.iter().any(told), "{effects:?}");
}

#[test]
fn what_believes_in_another_epoch_is_refused() {
    let mut jm = executing(RestartStrategy::ByKind);
    let Event::Report { call, id, instance, report, .. } = report(0, 0, ExecutionState::Finished, None) else { return };
    let event = Event::Report { call, from: Fence::job(JOB, Epoch(2)).into(), id, instance, report };
    let fault = Fault::Fenced { called: 2, present: 3 };
    assert_eq!(jm.on_event(at(10), event), [Effect::Acknowledge { call: 3, answer: Err(fault) }]);
}

#[test]
fn transitions_are_written_once() {
    let mut seen = TRANSITIONS.to_vec();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), TRANSITIONS.len());
}

// ---- an earlier leader's deployment ----

const NEXT: Epoch = Epoch(EPOCH.0 + 1);

fn next_from() -> Origin {
    Fence::job(JOB, NEXT).into()
}

/// What a leader before this one has written down of [`executing`].
fn left() -> Left {
    let mut jm = job(RestartStrategy::ByKind);
    jm.on_event(at(0), Event::Start);
    jm.on_event(at(1), register(TaskManagerStatus::default()));
    let effects = jm.on_event(at(2), offer(1, 0, 1));
    let deployment = effects.into_iter().find_map(|e| match e {
        Effect::RecordDeployment(record) => Some(record),
        _ => None,
    });
    Left { deployment, ..Left::default() }
}

fn running() -> TaskManagerStatus {
    let task = |vertex, state| (SubtaskId { vertex, index: 0 }, attempt(0), state);
    TaskManagerStatus {
        allocations: vec![grant(1)],
        tasks: vec![task(0, ExecutionState::Finished), task(1, ExecutionState::Running)],
        ..Default::default()
    }
}

fn reconciling(left: Left) -> JobMaster {
    let mut jm = job_with(RestartStrategy::ByKind, NEXT, left);
    let effects = jm.on_event(at(0), Event::Start);
    assert!(
        matches!(&effects[..], [Effect::LookFor(there), Effect::Status(JobStatus::Reconciling)] if there.id == tm())
    );
    jm
}

fn comes_back(status: TaskManagerStatus) -> Event {
    let registration = JobRegistration { id: tm(), instance: LIFE, rpc: String::new(), status };
    Event::Register { call: 1, from: next_from(), registration }
}

fn report_to_next(vertex: u32, state: ExecutionState, prepared: Option<&'static [u8]>) -> Event {
    match report(vertex, 0, state, prepared) {
        Event::Report { call, id, instance, report, .. } => {
            Event::Report { call, from: next_from(), id, instance, report }
        }
        other => other,
    }
}

#[test]
fn tasks_of_an_earlier_leader_are_adopted_as_they_are() {
    let mut jm = reconciling(left());
    let effects = jm.on_event(at(5), comes_back(running()));
    assert!(effects.contains(&Effect::Adopted) && effects.contains(&Effect::Status(JobStatus::Running)), "{effects:?}");
    assert!(!effects.iter().any(|e| matches!(e, Effect::ResetHost { .. } | Effect::RecordDeployment(_))));
    assert_eq!(jm.attempt(), attempt(0), "it is the same attempt");
    let heartbeat = jm.on_event(at(5), Event::Tick { random: 0 });
    let named = |e: &Effect| matches!(e, Effect::Heartbeat { report, .. } if report.allocations == [grant(1)]);
    assert!(heartbeat.iter().any(named), "a slot that was not offered yet is not given up: {heartbeat:?}");
    let effects = jm.on_event(at(6), report_to_next(1, ExecutionState::Running, Some(b"parts")));
    assert!(effects.iter().any(|e| matches!(e, Effect::RecordCommit(r) if r.attempt == attempt(0))));
}

#[test]
fn what_was_committed_is_published_and_not_run_again() {
    let commit = CommitRecord { attempt: attempt(0), manifests: BTreeMap::new(), collected: BTreeMap::new() };
    let mut jm = reconciling(Left { commit: Some(commit), ..left() });
    let effects = jm.on_event(at(5), comes_back(running()));
    assert!(effects.iter().any(|e| matches!(e, Effect::Commit { attempt: a, .. } if *a == attempt(0))), "{effects:?}");
    let effects = jm.on_event(at(6), report_to_next(1, ExecutionState::Finished, None));
    assert_eq!(ended(&effects), Some(JobStatus::Finished));
}

#[test]
fn a_job_that_had_finished_but_for_the_word_of_it_is_not_run_again() {
    let mut jm = reconciling(left());
    let mut status = running();
    status.tasks[1].2 = ExecutionState::Finished;
    let effects = jm.on_event(at(5), comes_back(status));
    assert_eq!(ended(&effects), Some(JobStatus::Finished));
}

#[test]
fn an_attempt_of_which_a_part_is_missing_starts_again_under_the_new_leader() {
    let mut jm = reconciling(left());
    let mut status = running();
    status.tasks.pop();
    let effects = jm.on_event(at(5), comes_back(status));
    assert!(!effects.contains(&Effect::Adopted));
    assert_eq!(jm.status(), JobStatus::Restarting);
    // Whatever earlier leaders deployed ends, even if the last of it was not found written down.
    let up_to = Attempt { epoch: NEXT, n: 0 };
    assert!(effects.contains(&Effect::ResetHost { id: tm(), attempt: up_to }), "{effects:?}");
    jm.on_event(at(6), Event::HostReset { attempt: up_to, id: tm(), done: true });
    jm.on_event(at(200), Event::Tick { random: 0 });
    assert_eq!(jm.attempt(), Attempt { epoch: NEXT, n: 1 });

    let mut jm = reconciling(left());
    let gone = Event::Vanished { id: tm(), instance: LIFE, cause: "its process is gone".into() };
    jm.on_event(at(1), gone);
    assert_eq!(jm.status(), JobStatus::Restarting, "what is known to be lost is not waited for");

    let mut jm = reconciling(left());
    jm.on_event(at(14_999), Event::Tick { random: 0 });
    assert_eq!(jm.status(), JobStatus::Reconciling);
    jm.on_event(at(15_000), Event::Tick { random: 0 });
    assert_eq!(jm.status(), JobStatus::Restarting);

    let mut jm = reconciling(left());
    jm.on_event(at(1), Event::Present { id: tm(), instance: LIFE, holds: false });
    assert_eq!(jm.status(), JobStatus::Restarting, "it is there and has nothing");
}

#[test]
fn tasks_of_another_attempt_are_not_adopted() {
    let mut jm = reconciling(left());
    let mut status = running();
    status.tasks[1].1 = Attempt { epoch: Epoch(EPOCH.0 - 1), n: 0 };
    let effects = jm.on_event(at(5), comes_back(status));
    assert!(matches!(&effects[0], Effect::AnswerRegister { answer: Ok(JobRegistrationAnswer::Rejected(_)), .. }));
    assert_eq!(jm.status(), JobStatus::Restarting);
}

#[test]
fn a_failure_that_no_leader_acted_upon_comes_as_a_report_with_its_cause() {
    let mut jm = reconciling(left());
    let mut status = running();
    status.tasks[1].2 = ExecutionState::Failed;
    jm.on_event(at(5), comes_back(status));
    let failed = match report_to_next(1, ExecutionState::Failed, None) {
        Event::Report { call, from, id, instance, mut report } => {
            report.failure = Some(TaskFailure::new(FailureKind::User, "not this one"));
            Event::Report { call, from, id, instance, report }
        }
        other => other,
    };
    let effects = jm.on_event(at(6), failed);
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Failed { failure, .. } if failure.message.contains("not this one")))
    );
    assert!(matches!(jm.status(), JobStatus::Failing | JobStatus::Failed));
}

#[test]
fn tasks_that_an_earlier_leader_has_stopped_are_not_adopted() {
    let mut jm = reconciling(left());
    let mut status = running();
    status.tasks[1].2 = ExecutionState::Canceled;
    let effects = jm.on_event(at(5), comes_back(status));
    assert!(!effects.contains(&Effect::Adopted));
    assert_eq!(jm.status(), JobStatus::Restarting);
}

#[test]
fn a_cancel_waits_for_what_can_be_found_and_stops_it() {
    let mut jm = reconciling(left());
    assert!(jm.on_event(at(1), Event::Cancel).is_empty());
    let effects = jm.on_event(at(5), comes_back(running()));
    assert!(effects.iter().any(|e| matches!(e, Effect::Cancel { .. })), "{effects:?}");
    let offers = Event::Offer {
        call: 2,
        from: next_from(),
        id: tm(),
        instance: LIFE,
        offers: vec![SlotOffer { allocation: grant(1), slot: 0, host: 1, data_address: None }],
    };
    assert_eq!(accepted(&jm.on_event(at(6), offers)), Some(vec![grant(1)]), "its tasks still run there");
    let effects = jm.on_event(at(7), report_to_next(1, ExecutionState::Canceled, None));
    assert_eq!(ended(&effects), Some(JobStatus::Canceled));
}

#[test]
fn a_report_of_a_stranger_is_not_acknowledged() {
    let mut jm = reconciling(left());
    let effects = jm.on_event(at(1), report_to_next(1, ExecutionState::Failed, None));
    assert!(matches!(&effects[..], [Effect::Acknowledge { answer: Err(_), .. }]), "it would never be told again");
}

#[test]
fn slots_that_were_only_reserved_do_not_push_tasks_out_of_theirs() {
    let mut jm = reconciling(left());
    let other = TaskManagerId::new("b");
    let held = TaskManagerStatus { allocations: vec![grant(9)], ..Default::default() };
    let registration = JobRegistration { id: other.clone(), instance: LIFE, rpc: String::new(), status: held };
    jm.on_event(at(1), Event::Register { call: 1, from: next_from(), registration });
    let offer_of = |id: TaskManagerId, n, host| {
        let offers = vec![SlotOffer { allocation: grant(n), slot: 0, host, data_address: None }];
        Event::Offer { call: 2, from: next_from(), id, instance: LIFE, offers }
    };
    assert_eq!(accepted(&jm.on_event(at(2), offer_of(other, 9, 1))), Some(vec![]));
    jm.on_event(at(3), comes_back(running()));
    assert_eq!(accepted(&jm.on_event(at(4), offer_of(tm(), 1, 1))), Some(vec![grant(1)]));
}

#[test]
fn a_task_that_an_earlier_leaders_word_stops_after_its_adoption_is_a_loss() {
    let mut jm = reconciling(left());
    jm.on_event(at(5), comes_back(running()));
    assert_eq!(jm.status(), JobStatus::Running);
    jm.on_event(at(6), report_to_next(1, ExecutionState::Canceled, None));
    assert_eq!(jm.status(), JobStatus::Restarting);
}

#[test]
fn a_slot_with_tasks_on_their_way_is_taken_under_a_later_grant() {
    let mut jm = deploying(RestartStrategy::ByKind);
    // The grant has ended there, and another TaskManager has filled the gap, before the slot is offered again.
    let status = TaskManagerStatus::default();
    jm.on_event(at(3), Event::Heartbeat { from: from(), id: tm(), instance: LIFE, status });
    let other = TaskManagerId::new("b");
    let registration =
        JobRegistration { id: other.clone(), instance: LIFE, rpc: String::new(), status: TaskManagerStatus::default() };
    jm.on_event(at(4), Event::Register { call: 1, from: from(), registration });
    let offers = vec![SlotOffer { allocation: grant(5), slot: 0, host: 1, data_address: None }];
    jm.on_event(at(5), Event::Offer { call: 2, from: from(), id: other, instance: LIFE, offers });
    let effects = jm.on_event(at(6), offer(6, 0, 1));
    assert_eq!(accepted(&effects), Some(vec![grant(6)]));
    let freed = |e: &Effect| matches!(e, Effect::FreeSlot { allocation, .. } if *allocation == grant(5));
    assert!(effects.iter().any(freed), "one is enough: {effects:?}");
}
