//! Decisions of the core, event by event.

use super::core::{CancelAnswer, Dispatcher, Effect, Event, Settings, Step, Submitted};
use crate::Now;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use thalweg_model::{
    BlobKey, JobGraph, JobId, JobStatus, Moment, OperatorInfo, UnixMillis, Vertex, VertexId, VertexRole,
};
use thalweg_spi::{ClusterView, Decision, DeploymentMode};
use thalweg_wire::{ExecutionMode, JobRecord, JobResult, JobSpec, RestartStrategy, ResultRecord};

struct Session;

impl DeploymentMode for Session {
    fn accepts_submissions(&self) -> bool {
        true
    }
    fn derives_job_ids(&self) -> bool {
        false
    }
    fn decide(&self, _: &ClusterView) -> Decision {
        Decision::Continue
    }
}

const JOB: JobId = JobId::from_bytes([1; 16]);
const RETRY: Duration = Duration::from_millis(500);

fn at(millis: u64) -> Now {
    Now { at: Moment::from_start(Duration::from_millis(millis)), wall: UnixMillis(millis) }
}

fn spec(client_timeout: Option<Duration>) -> JobSpec {
    let operator = OperatorInfo { uid: "a".into(), name: "a".into(), kind: "map".into(), states: vec![] };
    let vertex = Vertex {
        id: VertexId::from_uid("a"),
        operators: vec![operator],
        parallelism: 1,
        max_parallelism: 128,
        role: VertexRole::Task,
        own_thread: false,
        slot_sharing_group: None,
    };
    JobSpec {
        name: "job".into(),
        graph: JobGraph { vertices: vec![vertex], edges: vec![], bounded: true },
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
        client_timeout,
        options: BTreeMap::new(),
        plugins: vec![],
        protocol: (1, 1),
    }
}

fn result(status: JobStatus) -> Box<JobResult> {
    Box::new(JobResult {
        job: JOB,
        name: "job".into(),
        status,
        failure: None,
        started: UnixMillis(0),
        ended: UnixMillis(9),
        attempt: 0,
        collected: BTreeMap::new(),
        source_records: BTreeMap::new(),
    })
}

fn recovered(jobs: Vec<JobRecord>, results: Vec<ResultRecord>) -> (Dispatcher, Vec<Effect>) {
    let settings = Settings { mode: Arc::new(Session), history: 2, retry: RETRY };
    let mut dispatcher = Dispatcher::new(settings, false);
    let cancelled = BTreeSet::new();
    let effects = dispatcher.on_event(at(0), Event::Recovered { jobs, cancelled, results });
    (dispatcher, effects)
}

fn submit(call: u64) -> Event {
    Event::Submit { call, job: JOB, spec: Box::new(spec(None)), from_main: false }
}

fn persisted(outcome: Option<Result<(), String>>) -> Event {
    Event::Persisted { job: JOB, outcome }
}

fn done(step: Step) -> Event {
    Event::StepDone { job: JOB, step, done: true }
}

fn answer(call: u64, answer: Submitted) -> Effect {
    Effect::Answer { call, answer }
}

#[test]
fn a_job_is_persisted_and_then_acknowledged_to_all_who_asked() {
    let (mut d, _) = recovered(vec![], vec![]);
    assert!(matches!(d.on_event(at(1), submit(7))[..], [Effect::Persist(_)]));
    assert_eq!(d.on_event(at(2), submit(8)), [], "a second submission waits with the first");
    let effects = d.on_event(at(3), persisted(Some(Ok(()))));
    assert!(matches!(effects[0], Effect::StartMaster(_)));
    assert_eq!(effects[1..], [answer(7, Submitted::Accepted), answer(8, Submitted::Accepted)]);
    assert_eq!(d.on_event(at(4), submit(9)), [answer(9, Submitted::Running)]);
}

#[test]
fn a_refused_write_refuses_the_job_unless_an_earlier_one_may_have_happened() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    let refused = d.on_event(at(2), persisted(Some(Err("full".into()))));
    assert!(matches!(&refused[..], [Effect::Answer { answer: Submitted::Refused(why), .. }] if why.contains("full")));

    d.on_event(at(3), submit(8));
    assert_eq!(d.on_event(at(4), persisted(None)), [], "nobody knows: not answered");
    assert_eq!(d.deadline(), Some(at(4).at + RETRY));
    assert!(matches!(d.on_event(at(504), Event::Tick)[..], [Effect::Persist(_)]));
    assert_eq!(d.on_event(at(505), persisted(Some(Err("full".into())))), [], "that says nothing of the first try");
    assert!(matches!(d.on_event(at(1005), Event::Tick)[..], [Effect::Persist(_)]));
    assert_eq!(d.on_event(at(1006), persisted(Some(Ok(()))))[1..], [answer(8, Submitted::Accepted)]);
}

#[test]
fn an_end_is_recorded_then_cleaned_up_then_marked_clean() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    let effects = d.on_event(at(3), Event::MasterEnded { result: result(JobStatus::Finished) });
    assert!(matches!(&effects[..], [Effect::RecordResult(r)] if r.dirty));
    assert_eq!(d.on_event(at(4), done(Step::Record)), [Effect::ReleaseMaster(JOB), Effect::CleanUp(JOB)]);
    let clean = d.on_event(at(5), done(Step::CleanUp));
    assert!(matches!(&clean[..], [Effect::MarkClean(r)] if !r.dirty));
    assert_eq!(d.on_event(at(6), done(Step::MarkClean)), []);
    assert_eq!(d.on_event(at(7), submit(8)), [answer(8, Submitted::Ended(result(JobStatus::Finished)))]);
}

#[test]
fn an_end_is_told_only_when_it_is_recorded() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    d.on_event(at(3), Event::MasterEnded { result: result(JobStatus::Finished) });
    let cancel = |call| Event::Cancel { call, job: JOB };
    assert_eq!(d.on_event(at(4), submit(8)), [answer(8, Submitted::Running)]);
    let accepted = Effect::AnswerCancel { call: 9, answer: CancelAnswer::Accepted };
    assert_eq!(d.on_event(at(4), cancel(9)), [accepted]);
    assert_eq!(d.entries()[0].result, None);
    d.on_event(at(5), done(Step::Record));
    let ended = Effect::AnswerCancel { call: 9, answer: CancelAnswer::Ended(JobStatus::Finished) };
    assert_eq!(d.on_event(at(6), cancel(9)), [ended]);
    assert!(d.entries()[0].result.is_some());
}

#[test]
fn a_step_that_fails_is_tried_again() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    d.on_event(at(3), Event::MasterEnded { result: result(JobStatus::Failed) });
    assert_eq!(d.on_event(at(4), Event::StepDone { job: JOB, step: Step::Record, done: false }), []);
    assert_eq!(d.on_event(at(100), Event::Tick), [], "not at once");
    assert!(matches!(d.on_event(at(504), Event::Tick)[..], [Effect::RecordResult(_)]));
    assert_eq!(d.on_event(at(505), done(Step::CleanUp)), [], "an answer to another step is none");
}

#[test]
fn a_new_leader_starts_jobs_without_a_result_and_cleans_up_after_the_others() {
    let record = |job| JobRecord { job, spec: spec(None), submitted: UnixMillis(1) };
    let other = JobId::from_bytes([2; 16]);
    let dirty = ResultRecord { result: *result(JobStatus::Finished), dirty: true };
    let (_, effects) = recovered(vec![record(JOB), record(other)], vec![dirty]);
    assert_eq!(effects[0], Effect::CleanUp(JOB), "a job with a result never runs again");
    assert!(matches!(&effects[1..], [Effect::StartMaster(r)] if r.job == other));
}

#[test]
fn a_client_that_is_gone_for_too_long_cancels_its_job_once() {
    let (mut d, _) = recovered(vec![], vec![]);
    let limit = Duration::from_secs(30);
    let attached = Box::new(spec(Some(limit)));
    d.on_event(at(1), Event::Submit { call: 7, job: JOB, spec: attached, from_main: false });
    d.on_event(at(2), persisted(Some(Ok(()))));
    d.on_event(at(20_000), Event::ClientSeen { job: JOB });
    assert_eq!(d.on_event(at(40_000), Event::Tick), []);
    assert_eq!(d.on_event(at(50_000), Event::Tick), [Effect::RecordCancel(JOB)]);
    let recorded = Event::CancelRecorded { job: JOB, done: true };
    assert_eq!(d.on_event(at(50_001), recorded), [Effect::CancelMaster(JOB)]);
    d.on_event(at(50_001), Event::Status { job: JOB, status: JobStatus::Cancelling });
    assert_eq!(d.deadline(), None);
}

#[test]
fn nothing_is_taken_before_the_past_is_read_nor_while_stopping() {
    let settings = Settings { mode: Arc::new(Session), history: 2, retry: RETRY };
    let mut d = Dispatcher::new(settings, false);
    let refused = |effects: Vec<Effect>| matches!(effects[..], [Effect::Answer { answer: Submitted::Refused(_), .. }]);
    assert!(refused(d.on_event(at(0), submit(1))));
    d.on_event(at(1), Event::Recovered { jobs: vec![], cancelled: BTreeSet::new(), results: vec![] });
    let ends = d.on_event(at(2), Event::Stop);
    assert!(matches!(ends[..], [Effect::End { .. }]));
    assert!(refused(d.on_event(at(3), submit(2))));
}

#[test]
fn old_results_are_forgotten() {
    let clean = |n| {
        let mut result = *result(JobStatus::Finished);
        result.job = JobId::from_bytes([n; 16]);
        ResultRecord { result, dirty: false }
    };
    let (mut d, _) = recovered(vec![], vec![clean(5), clean(6)]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    d.on_event(at(3), Event::MasterEnded { result: result(JobStatus::Finished) });
    d.on_event(at(4), done(Step::Record));
    d.on_event(at(5), done(Step::CleanUp));
    assert_eq!(d.on_event(at(6), done(Step::MarkClean)), [Effect::Forget(JobId::from_bytes([5; 16]))]);
}

#[test]
fn a_cancel_is_written_down_before_it_is_acknowledged_and_begun() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    let cancel = |call| Event::Cancel { call, job: JOB };
    let recorded = |done| Event::CancelRecorded { job: JOB, done };
    let accepted = |call| Effect::AnswerCancel { call, answer: CancelAnswer::Accepted };
    assert_eq!(d.on_event(at(3), cancel(8)), [Effect::RecordCancel(JOB)]);
    assert_eq!(d.on_event(at(4), cancel(9)), [], "it waits with the first");
    assert_eq!(d.on_event(at(5), recorded(false)), []);
    assert_eq!(d.deadline(), Some(at(5).at + RETRY));
    assert_eq!(d.on_event(at(505), Event::Tick), [Effect::RecordCancel(JOB)]);
    assert_eq!(d.on_event(at(506), recorded(true)), [accepted(8), accepted(9), Effect::CancelMaster(JOB)]);
    assert_eq!(d.on_event(at(507), cancel(10)), [accepted(10)]);
}

#[test]
fn a_new_leader_cancels_what_an_earlier_one_had_promised_to() {
    let settings = Settings { mode: Arc::new(Session), history: 2, retry: RETRY };
    let mut d = Dispatcher::new(settings, false);
    let jobs = vec![JobRecord { job: JOB, spec: spec(None), submitted: UnixMillis(1) }];
    let effects = d.on_event(at(0), Event::Recovered { jobs, cancelled: BTreeSet::from([JOB]), results: vec![] });
    assert!(matches!(&effects[..], [Effect::StartMaster(_), Effect::CancelMaster(JOB)]));
}

#[test]
fn clean_up_waits_for_a_cancel_that_is_being_written() {
    let (mut d, _) = recovered(vec![], vec![]);
    d.on_event(at(1), submit(7));
    d.on_event(at(2), persisted(Some(Ok(()))));
    d.on_event(at(3), Event::Cancel { call: 8, job: JOB });
    d.on_event(at(4), Event::MasterEnded { result: result(JobStatus::Finished) });
    assert_eq!(d.on_event(at(5), done(Step::Record)), [Effect::ReleaseMaster(JOB)]);
    let effects = d.on_event(at(6), Event::CancelRecorded { job: JOB, done: true });
    assert_eq!(effects[1..], [Effect::CleanUp(JOB)], "what comes after a clean-up stays for ever");
}
