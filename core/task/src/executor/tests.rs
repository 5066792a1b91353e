//! Decisions of the slot table, event by event.

use super::core::{Effect, Event, Settings, TaskExecutor};
use std::{collections::BTreeMap, time::Duration};
use thalweg_model::{
    AllocationId, Attempt, BlobKey, Epoch, ExecutionState, FailureKind, HostPlace, JobGraph, JobId, Moment,
    OperatorInfo, Placement, RegionAttempt, SubtaskId, SubtaskMetrics, SubtaskPlace, TaskFailure, TaskManagerId,
    Vertex, VertexId, VertexRole,
};
use thalweg_rpc::{
    Fault, Fence,
    gateways::{AllocatedSlotReport, HostFailure, JobRegistrationAnswer, SlotOffer, SlotRequest, SlotStatus},
};
use thalweg_wire::{Deploy, ExecutionMode, HostMemory, JobSpec, RestartStrategy, TaskDeployment, TaskReport, ToHost};

const JOB: JobId = JobId::from_bytes([1; 16]);
const OTHER: JobId = JobId::from_bytes([2; 16]);
const EPOCH: Epoch = Epoch(3);

fn at(seconds: u64) -> Moment {
    Moment::from_start(Duration::from_secs(seconds))
}

fn executor(orphan_timeout: u64) -> TaskExecutor {
    TaskExecutor::new(Settings {
        id: TaskManagerId::new("a"),
        slots: 2,
        memory: 200 << 20,
        slot_timeout: Duration::from_secs(10),
        host_silence: Duration::from_secs(50),
        master_silence: Duration::from_secs(60),
        orphan_timeout: Duration::from_secs(orphan_timeout),
    })
}

fn grant(n: u8) -> AllocationId {
    AllocationId::from_bytes([n; 16])
}

fn attempt(n: u32) -> Attempt {
    Attempt { epoch: EPOCH, n }
}

fn fence() -> Fence {
    Fence::job(JOB, EPOCH)
}

fn request(n: u8, slot: u32) -> Event {
    let request = SlotRequest { job: JOB, allocation: grant(n), slot };
    Event::RequestSlot { call: 1, fence: Fence::cluster(EPOCH), request }
}

fn spec() -> Box<JobSpec> {
    Box::new(JobSpec {
        name: "job".into(),
        graph: JobGraph::default(),
        executable: BlobKey::of(b""),
        args: vec![],
        files: BTreeMap::new(),
        env: BTreeMap::new(),
        client_dir: String::new(),
        ordinal: 0,
        earlier: vec![],
        default_parallelism: 1,
        mode: ExecutionMode::Automatic,
        restart: RestartStrategy::None,
        client_timeout: None,
        options: BTreeMap::new(),
        plugins: vec![],
        protocol: (1, 1),
    })
}

fn welcome() -> Event {
    Event::JobRegistered { job: JOB, answer: JobRegistrationAnswer::Accepted(spec()) }
}

fn rejected() -> Event {
    Event::JobRegistered { job: JOB, answer: JobRegistrationAnswer::Rejected("over".into()) }
}

fn ready(host: u64) -> Event {
    Event::HostReady { job: JOB, host, data_address: None }
}

fn gone(host: u64) -> Event {
    Event::HostGone { job: JOB, host, failure: TaskFailure::new(FailureKind::Lost, "gone") }
}

fn free(n: u8) -> Event {
    Event::FreeSlot { call: 5, fence: fence(), job: JOB, allocation: grant(n) }
}

fn subtask() -> SubtaskId {
    SubtaskId { vertex: 0, index: 0 }
}

fn deploy(fence: Fence, n: u32, slot: u32) -> Event {
    let hosts = vec![HostPlace { task_manager: TaskManagerId::new("a"), data_address: None }];
    let placement = Placement { hosts, subtasks: vec![vec![SubtaskPlace { host: 0, slot }]] };
    let tasks = vec![TaskDeployment { subtask: subtask(), publish: None }];
    let deploy = Deploy { attempt: attempt(n), tasks, placement, descriptors: vec![] };
    Event::Deploy { call: 6, fence, job: JOB, deploy: Box::new(deploy) }
}

/// A job of two subtasks without an edge between them: two regions.
fn two_regions() -> Event {
    let operator = OperatorInfo { uid: "map".into(), name: "map".into(), kind: "map".into(), states: vec![] };
    let vertex = Vertex {
        id: VertexId::from_uid("map"),
        operators: vec![operator],
        parallelism: 2,
        max_parallelism: 128,
        role: VertexRole::Task,
        own_thread: false,
        slot_sharing_group: None,
    };
    let graph = JobGraph { vertices: vec![vertex], edges: vec![], bounded: false };
    let spec = Box::new(JobSpec { graph, ..*spec() });
    Event::JobRegistered { job: JOB, answer: JobRegistrationAnswer::Accepted(spec) }
}

fn deploy_region(region: u32, n: u32) -> Event {
    let hosts = vec![HostPlace { task_manager: TaskManagerId::new("a"), data_address: None }];
    let place = SubtaskPlace { host: 0, slot: 0 };
    let placement = Placement { hosts, subtasks: vec![vec![place; 2]] };
    let tasks = vec![TaskDeployment { subtask: SubtaskId { vertex: 0, index: region }, publish: None }];
    let deploy = Deploy { attempt: attempt(n), tasks, placement, descriptors: vec![] };
    Event::Deploy { call: 6, fence: fence(), job: JOB, deploy: Box::new(deploy) }
}

fn cancel_region(region: u32, n: u32) -> Event {
    let regions = vec![RegionAttempt { region, attempt: attempt(n) }];
    Event::Cancel { call: 8, fence: fence(), job: JOB, regions }
}

fn reset(n: u32) -> Event {
    Event::ResetHost { call: 7, fence: fence(), job: JOB, attempt: attempt(n) }
}

fn report(state: ExecutionState, prepared: bool) -> TaskReport {
    TaskReport {
        subtask: subtask(),
        attempt: attempt(0),
        state,
        failure: None,
        prepared: prepared.then(|| "parts".into()),
        collected: BTreeMap::new(),
        metrics: SubtaskMetrics::default(),
    }
}

fn reported(host: u64, state: ExecutionState, prepared: bool) -> Event {
    Event::TaskReported { job: JOB, host, report: Box::new(report(state, prepared)) }
}

fn started(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|e| match e {
        Effect::StartHost { host, .. } => Some(*host),
        _ => None,
    })
}

fn offered(effects: &[Effect]) -> Option<(u64, Vec<SlotOffer>)> {
    effects.iter().find_map(|e| match e {
        Effect::Offer { offer, slots, .. } => Some((*offer, slots.clone())),
        _ => None,
    })
}

fn offer_answered(offer: u64, accepted: Option<Vec<AllocationId>>) -> Event {
    Event::OfferAnswered { job: JOB, offer, accepted }
}

fn done(call: u64) -> Effect {
    Effect::Answer { call, answer: Ok(Ok(())) }
}

/// One slot is active and its host ready; answers the host.
fn active(te: &mut TaskExecutor) -> u64 {
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let (offer, _) = offered(&te.on_event(at(0), ready(host))).unwrap();
    te.on_event(at(0), offer_answered(offer, Some(vec![grant(1)])));
    host
}

#[test]
fn a_slot_is_not_given_up_while_the_answer_to_its_offer_is_to_come() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let (offer, _) = offered(&te.on_event(at(1), ready(host))).unwrap();
    // Whoever stood still for so long reads what has come meanwhile one after another, and the answer may be the last.
    te.on_event(at(40), Event::Tick);
    assert!(te.has(JOB, grant(1)));
    te.on_event(at(40), offer_answered(offer, Some(vec![grant(1)])));
    assert!(matches!(te.slot_report().slots[0], SlotStatus::Taken { active: true, .. }));
}

#[test]
fn a_slot_is_reserved_offered_active_released_and_free() {
    let mut te = executor(0);
    let effects = te.on_event(at(0), request(1, 0));
    assert!(matches!(&effects[..], [Effect::RegisterAtJobMaster { .. }, Effect::Answer { answer: Ok(Ok(())), .. }]));
    assert_eq!(te.on_event(at(0), request(1, 0)), [done(1)], "the same request again is fine");
    let host = started(&te.on_event(at(1), welcome())).unwrap();
    let (offer, slots) = offered(&te.on_event(at(2), ready(host))).unwrap();
    assert_eq!(slots, [SlotOffer { allocation: grant(1), slot: 0, host, data_address: None }]);
    assert_eq!(te.on_event(at(3), offer_answered(offer, Some(vec![grant(1)]))), []);
    let taken = SlotStatus::Taken { job: JOB, allocation: grant(1), active: true };
    assert_eq!(te.slot_report().slots, [taken, SlotStatus::Free]);
    assert_eq!(te.on_event(at(4), free(1)), [Effect::KillHost { job: JOB, host }, done(5)]);
    assert_eq!(te.slot_report().slots[0], SlotStatus::Releasing { job: JOB }, "its host may still live");
    assert_eq!(te.on_event(at(5), gone(host)), [Effect::SlotFreed { allocation: grant(1) }, Effect::ForgetJob(JOB)]);
    assert!(te.is_empty());
}

#[test]
fn a_taken_slot_is_not_given_twice() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let request = SlotRequest { job: OTHER, allocation: grant(2), slot: 0 };
    let effects = te.on_event(at(1), Event::RequestSlot { call: 2, fence: Fence::cluster(EPOCH), request });
    assert!(matches!(&effects[..], [Effect::Answer { answer: Ok(Err(why)), .. }] if why.contains("taken")));
}

#[test]
fn an_answer_to_an_old_offer_is_of_no_interest() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let (first, _) = offered(&te.on_event(at(0), ready(host))).unwrap();
    let (second, slots) = offered(&te.on_event(at(1), request(2, 1))).unwrap();
    assert_eq!(slots.len(), 2);
    assert_eq!(te.on_event(at(2), offer_answered(first, Some(vec![grant(1)]))), []);
    te.on_event(at(3), offer_answered(second, Some(vec![grant(1), grant(2)])));
    let both = te.slot_report().slots.iter().all(|s| matches!(s, SlotStatus::Taken { active: true, .. }));
    assert!(both, "{:?}", te.slot_report());
}

#[test]
fn what_is_not_accepted_is_freed_and_an_offer_without_an_answer_is_repeated() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    te.on_event(at(0), request(2, 1));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let (first, _) = offered(&te.on_event(at(0), ready(host))).unwrap();
    let (second, slots) = offered(&te.on_event(at(9), offer_answered(first, None))).unwrap();
    assert_eq!(slots.len(), 2);
    let effects = te.on_event(at(10), offer_answered(second, Some(vec![grant(1)])));
    let limit = Effect::LimitHost { job: JOB, host, bytes: 100 << 20 };
    assert_eq!(effects, [Effect::SlotFreed { allocation: grant(2) }, limit]);
}

#[test]
fn a_host_has_the_memory_of_its_jobs_slots_and_is_ended_when_it_takes_more() {
    let mut te = executor(0);
    let host = active(&mut te);
    let takes =
        |te: &mut TaskExecutor, mib: u64| te.on_event(at(1), Event::HostMemory { job: JOB, host, bytes: mib << 20 });
    assert_eq!(takes(&mut te, 100), []);
    let effects = te.on_event(at(1), request(2, 1));
    let limit = Effect::LimitHost { job: JOB, host, bytes: 200 << 20 };
    assert!(effects.contains(&limit), "{effects:?}");
    assert!(!te.on_event(at(1), request(2, 1)).contains(&limit), "it knows");
    assert_eq!(takes(&mut te, 200), [], "two slots' shares");
    let memory = HostMemory { state: 120 << 20, exchange: 30 << 20 };
    te.on_event(at(1), Event::HostMetrics { job: JOB, host, metrics: vec![], memory });
    let effects = takes(&mut te, 201);
    let [Effect::KillHost { .. }, Effect::ReportHostFailed { failed, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((failed.host, failed.failure.kind), (host, FailureKind::OutOfMemory));
    for part in [
        "took 201 MiB of memory or wanted more",
        "share is 200 MiB",
        "2 of 2 slots",
        "task-manager.memory",
        "state 120 MiB",
        "hosts 30 MiB",
        "other 51 MiB",
    ] {
        assert!(failed.failure.message.contains(part), "{part}: {}", failed.failure.message);
    }
    assert_eq!(takes(&mut te, 300), [], "it is being ended");
}

#[test]
fn a_slot_that_may_have_been_taken_is_offered_until_the_job_is_known_to_be_over() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let (offer, _) = offered(&te.on_event(at(1), ready(host))).unwrap();
    let (offer, _) = offered(&te.on_event(at(5), offer_answered(offer, None))).unwrap();
    assert_eq!(te.on_event(at(15), Event::Tick), []);
    assert!(offered(&te.on_event(at(16), offer_answered(offer, None))).is_some());
    te.on_event(at(49), Event::HostMetrics { job: JOB, host, metrics: Vec::new(), memory: HostMemory::default() });
    let effects = te.on_event(at(60), Event::Tick);
    assert!(
        matches!(&effects[..], [Effect::RegisterAtJobMaster { .. }]),
        "a JobMaster that says nothing is asked: {effects:?}"
    );
    let over = Event::JobRegistered { job: JOB, answer: JobRegistrationAnswer::Rejected("the job is over".into()) };
    assert!(te.on_event(at(60), over).contains(&Effect::KillHost { job: JOB, host }));
}

#[test]
fn slots_of_a_host_that_could_not_start_are_freed_in_the_end() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    let effects = te.on_event(at(1), gone(host));
    let failed = HostFailure { host, failure: TaskFailure::new(FailureKind::Lost, "gone") };
    assert_eq!(effects, [Effect::ReportHostFailed { job: JOB, failed }]);
    let effects = te.on_event(at(11), Event::Tick);
    assert_eq!(effects, [Effect::SlotFreed { allocation: grant(1) }, Effect::ForgetJob(JOB)]);
}

#[test]
fn a_slot_granted_after_the_host_has_failed_does_not_wait_for_ever_either() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    te.on_event(at(1), gone(host));
    te.on_event(at(5), request(2, 1));
    assert!(te.on_event(at(15), Event::Tick).contains(&Effect::ForgetJob(JOB)));
}

#[test]
fn a_reset_is_answered_when_the_old_host_is_gone_and_a_fresh_one_starts() {
    let mut te = executor(0);
    let host = active(&mut te);
    te.on_event(at(1), deploy(fence(), 0, 0));
    assert_eq!(te.on_event(at(2), reset(0)), [Effect::KillHost { job: JOB, host }]);
    let effects = te.on_event(at(3), gone(host));
    assert_eq!(effects[0], done(7));
    let fresh = started(&effects).unwrap();
    assert!(fresh > host);
    assert!(offered(&te.on_event(at(4), ready(fresh))).is_some(), "its slots are offered again");
    te.on_event(at(5), deploy(fence(), 1, 0));
    assert_eq!(te.on_event(at(6), reset(0)), [done(7)], "a late reset does not end what was deployed since");
}

#[test]
fn tasks_of_an_attempt_that_was_reset_come_too_late() {
    let mut te = executor(0);
    let host = active(&mut te);
    te.on_event(at(1), reset(0));
    let fresh = started(&te.on_event(at(2), gone(host))).unwrap();
    te.on_event(at(3), ready(fresh));
    let effects = te.on_event(at(4), deploy(fence(), 0, 0));
    assert!(matches!(&effects[..], [Effect::Answer { answer: Ok(Err(why)), .. }] if why.contains("given up")));
    assert!(te.on_event(at(5), deploy(fence(), 1, 0)).contains(&done(6)));
}

#[test]
fn slots_freed_while_the_host_is_ending_are_free_when_it_is_gone() {
    let mut te = executor(0);
    let host = active(&mut te);
    let (offer, _) = offered(&te.on_event(at(1), request(2, 1))).unwrap();
    te.on_event(at(1), offer_answered(offer, Some(vec![grant(1), grant(2)])));
    te.on_event(at(2), reset(0));
    assert_eq!(te.on_event(at(3), free(2)), [done(5)]);
    assert_eq!(te.slot_report().slots[1], SlotStatus::Releasing { job: JOB }, "its tasks may still be there");
    assert!(te.on_event(at(4), gone(host)).contains(&Effect::SlotFreed { allocation: grant(2) }));
}

#[test]
fn a_call_of_a_lower_epoch_is_refused_whoever_it_was_that_showed_the_higher_one() {
    let mut te = executor(0);
    active(&mut te);
    te.on_event(at(1), Event::ResourceManagerHeartbeat { fence: Fence::cluster(Epoch(4)) });
    let fault = Fault::Fenced { called: 3, present: 4 };
    assert_eq!(te.on_event(at(2), deploy(fence(), 0, 0)), [Effect::Answer { call: 6, answer: Err(fault) }]);
}

#[test]
fn tasks_that_arrive_before_the_answer_to_the_offer_make_the_slot_active() {
    let mut te = executor(0);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), welcome())).unwrap();
    te.on_event(at(0), ready(host));
    let effects = te.on_event(at(1), deploy(fence(), 0, 0));
    assert!(matches!(&effects[0], Effect::SendHost { message, .. } if matches!(**message, ToHost::Deploy(_))));
    assert_eq!(te.on_event(at(2), deploy(fence(), 0, 0)), [done(6)], "doubled");
    assert!(matches!(te.slot_report().slots[0], SlotStatus::Taken { active: true, .. }));
    let wrong = te.on_event(at(3), deploy(fence(), 1, 1));
    assert!(matches!(&wrong[..], [Effect::Answer { answer: Ok(Err(why)), .. }] if why.contains("not the job's")));
}

#[test]
fn what_must_not_get_lost_is_told_until_that_very_report_is_acknowledged() {
    let mut te = executor(60);
    let host = active(&mut te);
    te.on_event(at(1), deploy(fence(), 0, 0));
    te.on_event(at(2), reported(host, ExecutionState::Running, false));
    te.on_event(at(3), reported(host, ExecutionState::Running, true));
    let acknowledged = |prepared| {
        let (subtask, attempt, state) = (subtask(), attempt(0), ExecutionState::Running);
        Event::ReportAcknowledged { job: JOB, subtask, attempt, state, prepared }
    };
    te.on_event(at(4), acknowledged(false));
    let again = |te: &mut TaskExecutor| {
        te.on_event(at(5), Event::LeaderLost);
        te.on_event(at(6), Event::LeaderFound { epoch: Epoch(1) });
        te.on_event(at(7), welcome()).iter().any(|e| matches!(e, Effect::Report { .. }))
    };
    assert!(again(&mut te), "the first report's answer is not the second's");
    te.on_event(at(8), acknowledged(true));
    assert!(!again(&mut te));
    te.on_event(at(9), Event::LeaderLost);
    te.on_event(at(10), Event::LeaderFound { epoch: Epoch(2) });
    let told = te.on_event(at(11), welcome());
    assert!(told.iter().any(|e| matches!(e, Effect::Report { .. })), "who had acknowledged it may have told nobody");
}

#[test]
fn a_report_that_is_too_large_to_be_sent_fails_its_task() {
    let mut te = executor(60);
    let host = active(&mut te);
    te.on_event(at(1), deploy(fence(), 0, 0));
    let mut large = report(ExecutionState::Running, true);
    large.collected.insert("answers".into(), vec![0; 100_000].into());
    let sent = |effects: &[Effect]| match effects {
        [Effect::Report { report, .. }] => (**report).clone(),
        other => panic!("{other:?}"),
    };
    let told = te.on_event(at(2), Event::TaskReported { job: JOB, host, report: Box::new(large) });
    let (report, size, limit) = (Box::new(sent(&told)), 100_123, 65_536);
    let told = te.on_event(at(3), Event::ReportTooLarge { job: JOB, report, size, limit });
    let failed = sent(&told);
    let failure = failed.failure.clone().unwrap();
    assert_eq!((failed.state, failure.kind), (ExecutionState::Failed, FailureKind::User));
    assert_eq!((failed.prepared.clone(), failed.collected.len(), failure.uid.as_deref()), (None, 0, Some("answers")));
    for part in ["100123 bytes", "may have 65536", "collect less", "rpc.max-frame"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    // Whoever leads next is told the same; and the task is there until it is cancelled.
    te.on_event(at(5), Event::LeaderLost);
    te.on_event(at(6), Event::LeaderFound { epoch: Epoch(1) });
    let again = te.on_event(at(7), welcome());
    assert!(again.iter().any(|e| matches!(e, Effect::Report { report, .. } if **report == failed)), "{again:?}");
    // The graph of this job is empty: no region is known.
    let told = te.on_event(at(8), cancel_region(u32::MAX, 0));
    let ending = |e: &Effect| matches!(e, Effect::AnswerCancel { answer: Ok(ending), .. } if *ending == [subtask()]);
    assert!(told.iter().any(ending), "{told:?}");
}

#[test]
fn a_failure_of_very_many_words_is_told_in_some_of_them() {
    let mut te = executor(60);
    let host = active(&mut te);
    te.on_event(at(1), deploy(fence(), 0, 0));
    let failure = TaskFailure::new(FailureKind::UserPanic, "no ".repeat(100_000));
    let large = TaskReport { failure: Some(failure), ..report(ExecutionState::Failed, false) };
    te.on_event(at(2), Event::TaskReported { job: JOB, host, report: Box::new(large.clone()) });
    let (report, size, limit) = (Box::new(large), 300_100, 65_536);
    let told = te.on_event(at(3), Event::ReportTooLarge { job: JOB, report, size, limit });
    let [Effect::Report { report, .. }] = &told[..] else { panic!("{told:?}") };
    let failure = report.failure.as_ref().unwrap();
    assert_eq!((report.state, failure.kind), (ExecutionState::Failed, FailureKind::UserPanic));
    assert!(failure.message.starts_with("no no ") && failure.message.len() < 3000, "{failure}");
}

#[test]
fn a_committer_that_had_prepared_is_gone_with_its_host() {
    let mut te = executor(0);
    let host = active(&mut te);
    te.on_event(at(1), deploy(fence(), 0, 0));
    te.on_event(at(2), reported(host, ExecutionState::Running, true));
    te.on_event(at(3), gone(host));
    let report = AllocatedSlotReport { allocations: vec![grant(1)] };
    let effects = te.on_event(at(4), Event::JobMasterHeartbeat { fence: fence(), job: JOB, report });
    assert!(matches!(&effects[..], [Effect::SendStatus { status, .. }] if status.tasks.is_empty()));
}

#[test]
fn a_job_master_that_falls_silent_is_asked_and_if_it_is_gone_all_is_freed() {
    let mut te = executor(0);
    let host = active(&mut te);
    let metrics = |te: &mut TaskExecutor, s| {
        te.on_event(at(s), Event::HostMetrics { job: JOB, host, metrics: vec![], memory: HostMemory::default() })
    };
    metrics(&mut te, 30);
    metrics(&mut te, 59);
    let asked = te.on_event(at(60), Event::Tick);
    assert!(matches!(&asked[..], [Effect::RegisterAtJobMaster { .. }]));
    assert_eq!(te.on_event(at(61), rejected()), [Effect::KillHost { job: JOB, host }]);
}

#[test]
fn a_slot_granted_while_a_refused_jobs_host_is_ending_is_offered() {
    let mut te = executor(0);
    let host = active(&mut te);
    te.on_event(at(1), rejected());
    let effects = te.on_event(at(2), request(2, 1));
    assert!(effects.iter().any(|e| matches!(e, Effect::RegisterAtJobMaster { .. })));
    te.on_event(at(3), welcome());
    let fresh = started(&te.on_event(at(4), gone(host))).unwrap();
    let (_, slots) = offered(&te.on_event(at(5), ready(fresh))).unwrap();
    assert_eq!(slots[0].allocation, grant(2));
}

#[test]
fn active_slots_that_the_job_master_does_not_name_are_freed_and_offered_ones_are_not() {
    let mut te = executor(0);
    active(&mut te);
    te.on_event(at(1), request(2, 1));
    let report = AllocatedSlotReport { allocations: vec![] };
    let effects = te.on_event(at(2), Event::JobMasterHeartbeat { fence: fence(), job: JOB, report });
    assert_eq!(effects[0], Effect::SlotFreed { allocation: grant(1) });
    assert!(matches!(te.slot_report().slots[1], SlotStatus::Taken { active: false, .. }), "it is on its way");
}

#[test]
fn tasks_of_a_lost_leader_go_on_for_the_orphan_timeout() {
    let mut te = executor(20);
    let host = active(&mut te);
    assert_eq!(te.on_event(at(5), Event::LeaderLost), []);
    assert_eq!(te.deadline(), Some(at(25)));
    assert_eq!(te.on_event(at(25), Event::Tick), [Effect::KillHost { job: JOB, host }]);
    assert_eq!(te.deadline(), None, "nothing to do until the host is gone");
    let mut te = executor(0);
    let host = active(&mut te);
    assert_eq!(te.on_event(at(5), Event::LeaderLost), [Effect::KillHost { job: JOB, host }]);
}

#[test]
fn a_silent_host_is_ended() {
    let mut te = executor(0);
    let host = active(&mut te);
    let report = AllocatedSlotReport { allocations: vec![grant(1)] };
    te.on_event(at(40), Event::JobMasterHeartbeat { fence: fence(), job: JOB, report });
    let effects = te.on_event(at(50), Event::Tick);
    assert_eq!(effects[0], Effect::KillHost { job: JOB, host });
    assert!(matches!(&effects[1], Effect::ReportHostFailed { failed, .. } if failed.host == host));
}

#[test]
fn what_was_cancelled_is_refused_when_it_comes_late_and_other_regions_are_not() {
    let mut te = executor(100);
    te.on_event(at(0), request(1, 0));
    let host = started(&te.on_event(at(0), two_regions())).unwrap();
    te.on_event(at(0), ready(host));
    let answer = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        })
    };
    let ending = |effects: &[Effect]| {
        effects.iter().find_map(|e| match e {
            Effect::AnswerCancel { answer: Ok(ending), .. } => Some(ending.clone()),
            _ => None,
        })
    };
    assert_eq!(ending(&te.on_event(at(1), cancel_region(0, 1))), Some(vec![]), "nothing of it has arrived");
    let refused = answer(&te.on_event(at(2), deploy_region(0, 1))).unwrap().unwrap().unwrap_err();
    assert!(refused.contains("cancelled"), "{refused}");
    assert_eq!(answer(&te.on_event(at(3), deploy_region(0, 2))), Some(Ok(Ok(()))));
    assert_eq!(
        answer(&te.on_event(at(4), deploy_region(1, 1))),
        Some(Ok(Ok(()))),
        "regions have attempts of their own"
    );
    let other = SubtaskId { vertex: 0, index: 1 };
    let effects = te.on_event(at(5), cancel_region(1, 1));
    assert_eq!(ending(&effects), Some(vec![other]));
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::SendHost { message, .. } if matches!(**message, ToHost::Cancel { .. })))
    );
    // What goes on is there for a new leader, under its attempt, beside what ended.
    let mut ended = report(ExecutionState::Canceled, false);
    (ended.subtask, ended.attempt) = (other, attempt(1));
    te.on_event(at(6), Event::TaskReported { job: JOB, host, report: Box::new(ended) });
    te.on_event(at(7), Event::LeaderLost);
    let effects = te.on_event(at(7), Event::LeaderFound { epoch: Epoch(4) });
    let tasks = effects.iter().find_map(|e| match e {
        Effect::RegisterAtJobMaster { status, .. } => Some(status.tasks.clone()),
        _ => None,
    });
    let expected = [(subtask(), attempt(2), ExecutionState::Deploying), (other, attempt(1), ExecutionState::Canceled)];
    assert_eq!(tasks.unwrap(), expected);
}

#[test]
fn a_slot_that_is_given_up_with_tasks_in_it_is_free_when_they_have_ended() {
    let mut te = executor(100);
    te.on_event(at(0), request(1, 0));
    te.on_event(at(0), request(2, 1));
    let host = started(&te.on_event(at(0), two_regions())).unwrap();
    let (offer, _) = offered(&te.on_event(at(0), ready(host))).unwrap();
    te.on_event(at(0), offer_answered(offer, Some(vec![grant(1), grant(2)])));
    te.on_event(at(1), deploy_region(0, 1));
    let effects = te.on_event(at(2), free(1));
    let stops =
        |e: &Effect| matches!(e, Effect::SendHost { message, .. } if matches!(**message, ToHost::Cancel { .. }));
    assert!(effects.iter().any(stops), "{effects:?}");
    let freed = |effects: &[Effect]| effects.contains(&Effect::SlotFreed { allocation: grant(1) });
    assert!(!freed(&effects) && te.slot_report().slots[0] == SlotStatus::Releasing { job: JOB });
    let mut ended = report(ExecutionState::Canceled, false);
    ended.attempt = attempt(1);
    assert!(freed(&te.on_event(at(3), Event::TaskReported { job: JOB, host, report: Box::new(ended) })));
    assert_eq!(te.slot_report().slots[0], SlotStatus::Free);
}
