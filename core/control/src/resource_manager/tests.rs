//! Decisions of the core, event by event.

use super::core::{Effect, Event, ResourceManager, Settings};
use std::time::Duration;
use thalweg_model::{AllocationId, Epoch, InstanceId, JobId, Moment, TaskManagerId};
use thalweg_rpc::{
    Fault, Fence, HeartbeatSettings,
    gateways::{RegistrationAnswer, SlotReport, SlotRequest, SlotStatus, TaskManagerInfo},
};
use thalweg_spi::{ProviderEvent, WorkerProfile};

const EPOCH: Epoch = Epoch(3);
const JOB: JobId = JobId::from_bytes([1; 16]);
const OTHER: JobId = JobId::from_bytes([2; 16]);

fn at(seconds: u64) -> Moment {
    Moment::from_start(Duration::from_secs(seconds))
}

fn id(name: &str) -> TaskManagerId {
    TaskManagerId::new(name)
}

fn life(n: u8) -> InstanceId {
    InstanceId::from_bytes([n; 16])
}

fn manager(active: bool) -> ResourceManager {
    ResourceManager::new(Settings {
        epoch: EPOCH,
        heartbeat: HeartbeatSettings::default(),
        request_again: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(30),
        profile: active.then_some(WorkerProfile { slots: 2, memory: None }),
    })
}

fn register(name: &str, n: u8, slots: Vec<SlotStatus>) -> Event {
    let info = TaskManagerInfo {
        id: id(name),
        instance: life(n),
        rpc: format!("tcp://{name}"),
        pid: 1,
        slots: slots.len() as u32,
        memory: 0,
        cores: 1,
        platform: String::new(),
    };
    Event::Register { call: 1, from: Fence::cluster(EPOCH).into(), info, report: SlotReport { slots } }
}

fn heartbeat(name: &str, n: u8, slots: Vec<SlotStatus>) -> Event {
    let report = SlotReport { slots };
    Event::Heartbeat { from: Fence::cluster(EPOCH).into(), id: id(name), instance: life(n), report }
}

fn requests(effects: &[Effect]) -> Vec<(TaskManagerId, SlotRequest)> {
    let requests = effects.iter().filter_map(|e| match e {
        Effect::RequestSlot { id, request, .. } => Some((id.clone(), request.clone())),
        _ => None,
    });
    requests.collect()
}

fn answered(name: &str, allocation: AllocationId, granted: Option<bool>) -> Event {
    Event::SlotAnswered { id: id(name), instance: life(1), allocation, granted }
}

fn freed(name: &str, allocation: AllocationId) -> Event {
    Event::SlotFreed { from: Fence::cluster(EPOCH).into(), id: id(name), instance: life(1), allocation }
}

fn shortages(effects: &[Effect]) -> Vec<(u32, u32)> {
    let told = effects.iter().filter_map(|e| match e {
        Effect::Shortage { missing, free, .. } => Some((*missing, *free)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_job_gets_all_its_slots_or_none_and_a_shortage_is_told_once() {
    let mut rm = manager(false);
    assert_eq!(shortages(&rm.on_event(at(0), Event::Require { job: JOB, slots: 3 })), [(3, 0)]);
    let first = rm.on_event(at(1), register("a", 1, vec![SlotStatus::Free; 2]));
    assert_eq!((requests(&first).len(), shortages(&first)), (0, vec![(3, 2)]));
    assert_eq!(rm.on_event(at(2), Event::Tick), [], "nothing has changed");
    let second = rm.on_event(at(3), register("b", 1, vec![SlotStatus::Free; 2]));
    assert_eq!((requests(&second).len(), shortages(&second)), (3, vec![(0, 4)]));
}

#[test]
fn a_slot_is_requested_taken_freed_and_given_to_the_next() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    let (_, request) = requests(&rm.on_event(at(1), Event::Require { job: JOB, slots: 1 })).remove(0);
    rm.on_event(at(1), Event::Require { job: OTHER, slots: 1 });
    rm.on_event(at(2), answered("a", request.allocation, Some(true)));
    assert_eq!(rm.grants(), [(id("a"), 0, JOB, request.allocation)]);
    rm.on_event(at(3), Event::Require { job: JOB, slots: 0 });
    let next = requests(&rm.on_event(at(4), freed("a", request.allocation)));
    assert_eq!(next[0].1.job, OTHER);
    assert_ne!(next[0].1.allocation, request.allocation, "another grant has another id");
    let late = rm.on_event(at(5), freed("a", request.allocation));
    assert_eq!(late, [], "an old grant's end changes nothing");
}

#[test]
fn a_request_without_an_answer_is_repeated_and_a_refused_one_waits_for_a_report() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    let first = requests(&rm.on_event(at(1), Event::Require { job: JOB, slots: 1 }));
    assert_eq!(rm.on_event(at(5), answered("a", first[0].1.allocation, None)), []);
    assert_eq!(requests(&rm.on_event(at(11), Event::Tick)), first, "the same request");
    let refused = rm.on_event(at(12), answered("a", first[0].1.allocation, Some(false)));
    assert_eq!(requests(&refused), []);
    let again = requests(&rm.on_event(at(20), heartbeat("a", 1, vec![SlotStatus::Free])));
    assert_ne!(again[0].1.allocation, first[0].1.allocation);
}

#[test]
fn a_report_replaces_what_was_believed_but_not_what_is_under_way() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free; 2]));
    let (_, request) = requests(&rm.on_event(at(1), Event::Require { job: JOB, slots: 1 })).remove(0);
    let taken = SlotStatus::Taken { job: OTHER, allocation: AllocationId::from_bytes([9; 16]), active: true };
    rm.on_event(at(2), heartbeat("a", 1, vec![SlotStatus::Free, taken]));
    let grants = rm.grants();
    assert_eq!(grants[0], (id("a"), 0, JOB, request.allocation), "request and report crossed");
    assert_eq!(grants[1].2, OTHER);
}

#[test]
fn a_job_that_gives_a_fresh_grant_back_waits_for_the_next() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    let (_, request) = requests(&rm.on_event(at(1), Event::Require { job: JOB, slots: 1 })).remove(0);
    assert_eq!(rm.on_event(at(1), freed("a", request.allocation)), [], "it was not wanted");
    assert_eq!(rm.deadline(), Some(at(2)));
    let (_, request) = requests(&rm.on_event(at(2), Event::Tick)).remove(0);
    let later = requests(&rm.on_event(at(9), freed("a", request.allocation)));
    assert_eq!(later.len(), 1, "one that was in use for a while is replaced at once");
}

#[test]
fn a_silent_worker_is_lost_and_its_slots_are_given_elsewhere() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    rm.on_event(at(1), Event::Require { job: JOB, slots: 1 });
    rm.on_event(at(40), register("b", 1, vec![SlotStatus::Free]));
    let lost = rm.on_event(at(50), Event::Tick);
    assert!(lost.iter().any(|e| matches!(e, Effect::WorkerLost { id: lost, .. } if *lost == id("a"))));
    assert_eq!(requests(&lost)[0].0, id("b"));
}

#[test]
fn a_second_life_of_one_name_replaces_the_first() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    let effects = rm.on_event(at(1), register("a", 2, vec![SlotStatus::Free]));
    assert!(matches!(&effects[0], Effect::WorkerLost { instance, .. } if *instance == life(1)));
    let gone = Event::Gone { id: id("a"), instance: life(1), cause: String::new() };
    assert_eq!(rm.on_event(at(2), gone), [], "the first one's end is no news");
    assert_eq!(rm.view()[0].info.instance, life(2));
}

/// The same on another connection of the process.
fn on(connection: u64, mut event: Event) -> Event {
    if let Event::Register { from, .. } | Event::Heartbeat { from, .. } | Event::SlotFreed { from, .. } = &mut event {
        from.connection = connection;
    }
    event
}

#[test]
fn what_comes_late_on_an_earlier_connection_is_no_news() {
    let mut rm = manager(false);
    let taken = |n| SlotStatus::Taken { job: JOB, allocation: AllocationId::from_bytes([n; 16]), active: true };
    rm.on_event(at(0), on(1, register("a", 1, vec![SlotStatus::Free])));
    rm.on_event(at(1), on(2, register("a", 1, vec![taken(1)])));
    let grants = rm.grants();
    let refused = rm.on_event(at(2), on(1, register("a", 1, vec![SlotStatus::Free])));
    assert!(matches!(&refused[..], [Effect::Answer { answer: Err(Fault::Refused(_)), .. }]));
    rm.on_event(at(3), on(1, heartbeat("a", 1, vec![SlotStatus::Free])));
    rm.on_event(at(4), on(1, freed("a", AllocationId::from_bytes([1; 16]))));
    assert_eq!(rm.grants(), grants, "the slot is in use");
    rm.on_event(at(5), on(2, heartbeat("a", 1, vec![SlotStatus::Free])));
    assert_eq!(rm.grants(), []);
}

#[test]
fn a_registration_with_another_epoch_is_refused() {
    let mut rm = manager(false);
    let Event::Register { call, info, report, .. } = register("a", 1, vec![SlotStatus::Free]) else { return };
    let event = Event::Register { call, from: Fence::cluster(Epoch(2)).into(), info, report };
    let fault = Fault::Fenced { called: 2, present: 3 };
    assert_eq!(rm.on_event(at(0), event), [Effect::Answer { call: 1, answer: Err(fault) }]);
    let good = rm.on_event(at(1), register("a", 1, vec![SlotStatus::Free]));
    assert!(good.contains(&Effect::Answer { call: 1, answer: Ok(RegistrationAnswer::Accepted) }));
}

#[test]
fn what_is_still_held_for_a_job_that_is_over_is_freed() {
    let mut rm = manager(false);
    rm.on_event(at(0), register("a", 1, vec![SlotStatus::Free]));
    let (_, request) = requests(&rm.on_event(at(1), Event::Require { job: JOB, slots: 1 })).remove(0);
    rm.on_event(at(2), answered("a", request.allocation, Some(true)));
    let allocation = request.allocation;
    let free = Effect::FreeSlot { id: id("a"), instance: life(1), job: JOB, allocation };
    assert_eq!(rm.on_event(at(3), Event::Over { job: JOB }), [free]);
}

fn declared(effects: &[Effect]) -> Vec<u32> {
    let sums = effects.iter().filter_map(|e| match e {
        Effect::Declare(workers) => Some(workers.values().sum()),
        _ => None,
    });
    sums.collect()
}

fn started(name: &str) -> Event {
    let profile = WorkerProfile { slots: 2, memory: None };
    Event::Provider(ProviderEvent::Started { worker: id(name), profile })
}

#[test]
fn workers_are_declared_as_jobs_need_them_and_idle_ones_are_ended() {
    let mut rm = manager(true);
    assert_eq!(declared(&rm.on_event(at(0), Event::Require { job: JOB, slots: 3 })), [2]);
    for name in ["a", "b"] {
        rm.on_event(at(1), started(name));
        rm.on_event(at(2), register(name, 1, vec![SlotStatus::Free; 2]));
    }
    assert_eq!(rm.grants().len(), 3);
    let over = rm.on_event(at(10), Event::Require { job: JOB, slots: 0 });
    assert!(declared(&over).is_empty(), "they stay for a while");
    rm.on_event(at(10), heartbeat("a", 1, vec![SlotStatus::Free; 2]));
    rm.on_event(at(10), heartbeat("b", 1, vec![SlotStatus::Free; 2]));
    for (_, _, _, allocation) in rm.grants() {
        for name in ["a", "b"] {
            rm.on_event(at(11), answered(name, allocation, Some(true)));
            rm.on_event(at(11), freed(name, allocation));
        }
    }
    assert_eq!(rm.deadline(), Some(at(41)));
    let idle = rm.on_event(at(41), Event::Tick);
    assert_eq!(declared(&idle), [0], "less is declared before they are released");
    let released = |e: &Effect| matches!(e, Effect::Release(_));
    assert_eq!(idle.iter().filter(|e| released(e)).count(), 2);
    assert!(rm.view().is_empty());
}

#[test]
fn an_idle_worker_that_is_needed_is_not_waited_for() {
    let mut rm = manager(true);
    rm.on_event(at(0), Event::Require { job: JOB, slots: 3 });
    rm.on_event(at(1), started("a"));
    rm.on_event(at(2), register("a", 1, vec![SlotStatus::Free; 2]));
    rm.on_event(at(45), heartbeat("a", 1, vec![SlotStatus::Free; 2]));
    assert_eq!(rm.on_event(at(60), Event::Tick), []);
    assert!(rm.deadline() > Some(at(60)), "the driver would spin: {:?}", rm.deadline());
}

#[test]
fn a_refusal_of_the_provider_is_told_with_the_shortage() {
    let mut rm = manager(true);
    rm.on_event(at(0), Event::Require { job: JOB, slots: 1 });
    let profile = WorkerProfile { slots: 2, memory: None };
    let refused = ProviderEvent::Refused { profile, cause: "quota".into(), retry: true };
    let told = rm.on_event(at(1), Event::Provider(refused));
    assert!(matches!(&told[..], [Effect::Shortage { refused: Some(why), .. }] if why == "quota"));
}
