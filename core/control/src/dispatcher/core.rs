//! Which jobs there are, from acceptance to the clean mark. A pure function of (state, now, event).
//!
//! ```text
//! submit ─▶ persisting ─▶ (acknowledged) running ─▶ recording the result ─▶ cleaning ─▶ marking clean ─▶ done
//! ```
//!
//! A job is acknowledged after it is persisted, and never before. A job with a result entry never runs again: a second
//! submission of its id gets the result. Clean-up comes before the clean mark, so that a new leader repeats what was
//! not done.

use crate::Now;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use thalweg_model::{JobId, JobStatus, Moment, TaskFailure, UnixMillis};
use thalweg_spi::{ApplicationStatus, ClusterView, Decision, DeploymentMode, MainState};
use thalweg_wire::{JobRecord, JobResult, JobSpec, ResultRecord};

/// Token of a call that waits for an answer; the driver keeps the reply.
pub type CallId = u64;

/// What it is told once.
#[derive(Clone)]
pub struct Settings {
    /// What the cluster is for.
    pub mode: Arc<dyn DeploymentMode>,
    /// Ended jobs that are remembered.
    pub history: usize,
    /// How long to wait before a failed write is tried again.
    pub retry: Duration,
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// Accepted, and persisted.
    Accepted,
    /// This job runs already: the caller attaches to it.
    Running,
    /// This job has ended.
    Ended(Box<JobResult>),
    /// Not accepted: why, and what to do.
    Refused(String),
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// First event: what an earlier leader left.
    Recovered {
        /// Accepted jobs.
        jobs: Vec<JobRecord>,
        /// Those of them whose cancel was acknowledged.
        cancelled: BTreeSet<JobId>,
        /// Results.
        results: Vec<ResultRecord>,
    },
    /// A job is submitted.
    Submit {
        /// Waits for [`Effect::Answer`].
        call: CallId,
        /// Its id.
        job: JobId,
        /// What it is.
        spec: Box<JobSpec>,
        /// From a `main` that this cluster runs.
        from_main: bool,
    },
    /// The answer to [`Effect::Persist`]. `None`: nobody knows whether it was written.
    Persisted {
        /// Which job.
        job: JobId,
        /// Written, or why not.
        outcome: Option<Result<(), String>>,
    },
    /// A JobMaster says what its job does.
    Status {
        /// Which job.
        job: JobId,
        /// What.
        status: JobStatus,
    },
    /// A JobMaster has ended.
    MasterEnded {
        /// How.
        result: Box<JobResult>,
    },
    /// The answer to [`Effect::RecordCancel`].
    CancelRecorded {
        /// Which job.
        job: JobId,
        /// Done, or to be tried again.
        done: bool,
    },
    /// The answer to [`Effect::RecordResult`], [`Effect::CleanUp`] or [`Effect::MarkClean`].
    StepDone {
        /// Which job.
        job: JobId,
        /// Which step.
        step: Step,
        /// Done, or to be tried again.
        done: bool,
    },
    /// A job shall be cancelled.
    Cancel {
        /// Waits for [`Effect::AnswerCancel`].
        call: CallId,
        /// Which job.
        job: JobId,
    },
    /// An attached client was heard.
    ClientSeen {
        /// Whose job.
        job: JobId,
    },
    /// The job's `main` has changed.
    Main(MainState),
    /// The cluster shall end: jobs are cancelled first.
    Stop,
    /// Time passed.
    Tick,
}

/// Steps of a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The result is written, dirty.
    Record,
    /// Everything else of the job is removed.
    CleanUp,
    /// The result is marked clean.
    MarkClean,
}

/// Why a job was not cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It is being cancelled.
    Accepted,
    /// There is no such job.
    Unknown,
    /// It has ended already.
    Ended(JobStatus),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer a submission.
    Answer {
        /// Which call.
        call: CallId,
        /// With what.
        answer: Submitted,
    },
    /// Answer a cancel.
    AnswerCancel {
        /// Which call.
        call: CallId,
        /// With what.
        answer: CancelAnswer,
    },
    /// Write an accepted job down.
    Persist(Box<JobRecord>),
    /// Start its JobMaster.
    StartMaster(Box<JobRecord>),
    /// Write down that it shall be cancelled: whoever leads next does it, too.
    RecordCancel(JobId),
    /// Tell its JobMaster to cancel.
    CancelMaster(JobId),
    /// Tell its JobMaster that the result is written down.
    ReleaseMaster(JobId),
    /// Write its result down, dirty.
    RecordResult(Box<ResultRecord>),
    /// Remove all that is kept for it but the result.
    CleanUp(JobId),
    /// Write its result down, clean.
    MarkClean(Box<ResultRecord>),
    /// Forget an old result.
    Forget(JobId),
    /// Start the job's `main` as a client of this cluster.
    StartMain,
    /// The cluster ends.
    End {
        /// How.
        status: ApplicationStatus,
        /// Why, for people.
        diagnostics: String,
    },
}

#[derive(Debug, Clone)]
enum Phase {
    /// Not acknowledged yet.
    Persisting {
        record: Box<JobRecord>,
        callers: Vec<CallId>,
        retry: Option<Moment>,
        /// A write of it may have happened.
        maybe: bool,
    },
    Running {
        status: JobStatus,
        timeout: Option<Duration>,
        heard: Moment,
    },
    Ending {
        result: Box<JobResult>,
        step: Step,
        retry: Option<Moment>,
    },
    Done {
        result: Box<JobResult>,
    },
}

/// One job as lists show it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: JobStatus,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// Its result when it has ended.
    pub result: Option<JobResult>,
}

#[derive(Debug, Clone)]
struct Known {
    name: String,
    submitted: UnixMillis,
    phase: Phase,
    cancel: Cancel,
}

/// A cancel is written down before it is acknowledged and begun, so that no leader forgets it.
#[derive(Debug, Clone)]
enum Cancel {
    No,
    Writing { callers: Vec<CallId>, retry: Option<Moment> },
    Written,
}

/// The state.
#[derive(Clone)]
pub struct Dispatcher {
    settings: Settings,
    recovered: bool,
    jobs: BTreeMap<JobId, Known>,
    /// In order of submission.
    order: Vec<JobId>,
    /// In order of their end.
    ended: VecDeque<JobId>,
    main: MainState,
    main_asked: bool,
    stopping: bool,
    over: bool,
    effects: Vec<Effect>,
    /// The mistake that the seeded harness must find: a job is acknowledged before it is persisted.
    #[cfg(feature = "planted-bugs")]
    hasty: bool,
    /// Another one: a result is marked clean before anything was cleaned up.
    #[cfg(feature = "planted-bugs")]
    sloppy: bool,
}

impl Dispatcher {
    /// Knows no job.
    pub fn new(settings: Settings, has_main: bool) -> Self {
        Self {
            settings,
            recovered: false,
            jobs: BTreeMap::new(),
            order: Vec::new(),
            ended: VecDeque::new(),
            main: if has_main { MainState::Waiting } else { MainState::None },
            main_asked: false,
            stopping: false,
            over: false,
            effects: Vec::new(),
            #[cfg(feature = "planted-bugs")]
            hasty: false,
            #[cfg(feature = "planted-bugs")]
            sloppy: false,
        }
    }

    /// From here on it makes its mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn plant_hasty_answers(&mut self) {
        self.hasty = true;
    }

    /// From here on it makes its other mistake.
    #[cfg(feature = "planted-bugs")]
    pub fn plant_early_clean_marks(&mut self) {
        self.sloppy = true;
    }

    fn after_record(&self) -> Step {
        #[cfg(feature = "planted-bugs")]
        if self.sloppy {
            return Step::MarkClean;
        }
        Step::CleanUp
    }

    /// Those who are told once the job is persisted.
    fn callers(&mut self, call: CallId) -> Vec<CallId> {
        #[cfg(feature = "planted-bugs")]
        if self.hasty {
            self.effects.push(Effect::Answer { call, answer: Submitted::Accepted });
            return Vec::new();
        }
        vec![call]
    }

    /// Decides.
    pub fn on_event(&mut self, now: Now, event: Event) -> Vec<Effect> {
        match event {
            Event::Recovered { jobs, cancelled, results } => self.recover(now, jobs, &cancelled, results),
            Event::Submit { call, job, spec, from_main } => self.submit(now, call, job, spec, from_main),
            Event::Persisted { job, outcome } => self.persisted(now, job, outcome),
            Event::Status { job, status } => {
                if let Some(Phase::Running { status: known, .. }) = self.phase(job) {
                    *known = status;
                }
            }
            Event::MasterEnded { result } => {
                let job = result.job;
                if let Some(phase @ Phase::Running { .. }) = self.phase(job) {
                    *phase = Phase::Ending { result, step: Step::Record, retry: None };
                    self.do_step(job);
                }
            }
            Event::StepDone { job, step, done } => self.step_done(now, job, step, done),
            Event::Cancel { call, job } => self.cancel(job, Some(call)),
            Event::CancelRecorded { job, done } => self.cancel_recorded(now, job, done),
            Event::ClientSeen { job } => {
                if let Some(Phase::Running { heard, .. }) = self.phase(job) {
                    *heard = now.at;
                }
            }
            Event::Main(main) => self.main = main,
            Event::Stop => {
                self.stopping = true;
                for job in self.order.clone() {
                    self.cancel(job, None);
                }
            }
            Event::Tick => self.tick(now),
        }
        self.decide();
        std::mem::take(&mut self.effects)
    }

    /// When to send a tick at the latest.
    pub fn deadline(&self) -> Option<Moment> {
        let wants = self.jobs.values().flat_map(|known| {
            let phase = match &known.phase {
                Phase::Persisting { retry, .. } | Phase::Ending { retry, .. } => *retry,
                Phase::Running { timeout, heard, .. } if matches!(known.cancel, Cancel::No) => {
                    timeout.map(|t| *heard + t)
                }
                Phase::Running { .. } | Phase::Done { .. } => None,
            };
            let cancel = match &known.cancel {
                Cancel::Writing { retry, .. } => *retry,
                Cancel::No | Cancel::Written => None,
            };
            phase.into_iter().chain(cancel)
        });
        wants.min()
    }

    /// All jobs that are known, in order of submission.
    pub fn entries(&self) -> Vec<Entry> {
        let known = self.order.iter().filter_map(|id| Some((*id, self.jobs.get(id)?)));
        known
            .filter(|(_, k)| !matches!(k.phase, Phase::Persisting { .. }))
            .map(|(id, k)| Entry {
                id,
                name: k.name.clone(),
                status: k.phase.status(),
                submitted: k.submitted,
                result: match &k.phase {
                    Phase::Ending { result, step, .. } if *step > Step::Record => Some((**result).clone()),
                    Phase::Done { result } => Some((**result).clone()),
                    _ => None,
                },
            })
            .collect()
    }

    fn phase(&mut self, job: JobId) -> Option<&mut Phase> {
        self.jobs.get_mut(&job).map(|k| &mut k.phase)
    }

    fn recover(&mut self, now: Now, jobs: Vec<JobRecord>, cancelled: &BTreeSet<JobId>, results: Vec<ResultRecord>) {
        self.recovered = true;
        for record in results {
            let job = record.result.job;
            let (name, submitted) = (record.result.name.clone(), record.result.started);
            let result = Box::new(record.result);
            let phase = if record.dirty {
                Phase::Ending { result, step: Step::CleanUp, retry: None }
            } else {
                self.ended.push_back(job);
                Phase::Done { result }
            };
            self.order.push(job);
            self.jobs.insert(job, Known { name, submitted, phase, cancel: Cancel::No });
            if record.dirty {
                self.do_step(job);
            }
        }
        for record in jobs {
            // A job with a result never runs again, whatever else is still written of it.
            if !self.jobs.contains_key(&record.job) {
                let job = record.job;
                self.start(now, Box::new(record));
                if cancelled.contains(&job)
                    && let Some(known) = self.jobs.get_mut(&job)
                {
                    known.cancel = Cancel::Written;
                    self.effects.push(Effect::CancelMaster(job));
                }
            }
        }
    }

    fn start(&mut self, now: Now, record: Box<JobRecord>) {
        let phase = Phase::Running { status: JobStatus::Created, timeout: record.spec.client_timeout, heard: now.at };
        let (name, submitted) = (record.spec.name.clone(), record.submitted);
        let known = Known { name, submitted, phase, cancel: Cancel::No };
        if self.jobs.insert(record.job, known).is_none() {
            self.order.push(record.job);
        }
        self.effects.push(Effect::StartMaster(record));
    }

    fn submit(&mut self, now: Now, call: CallId, job: JobId, spec: Box<JobSpec>, from_main: bool) {
        let answer = match self.jobs.get_mut(&job).map(|k| &mut k.phase) {
            Some(Phase::Persisting { callers, .. }) => {
                callers.push(call);
                return;
            }
            // An end that is not written down may still turn out otherwise, under another leader.
            Some(Phase::Running { .. } | Phase::Ending { step: Step::Record, .. }) => Submitted::Running,
            Some(Phase::Ending { result, .. } | Phase::Done { result }) => Submitted::Ended(result.clone()),
            None => match self.refusal(&spec, from_main) {
                Some(why) => Submitted::Refused(why),
                None => {
                    let record = Box::new(JobRecord { job, spec: *spec, submitted: now.wall });
                    let known = Known {
                        name: record.spec.name.clone(),
                        submitted: now.wall,
                        phase: Phase::Persisting {
                            record: record.clone(),
                            callers: self.callers(call),
                            retry: None,
                            maybe: false,
                        },
                        cancel: Cancel::No,
                    };
                    self.jobs.insert(job, known);
                    self.order.push(job);
                    self.effects.push(Effect::Persist(record));
                    return;
                }
            },
        };
        self.effects.push(Effect::Answer { call, answer });
    }

    fn refusal(&self, spec: &JobSpec, from_main: bool) -> Option<String> {
        if !self.recovered {
            return Some("the JobManager is still reading what an earlier one left: try again".into());
        }
        if self.stopping || self.over {
            return Some("the cluster is stopping".into());
        }
        if !from_main && !self.settings.mode.accepts_submissions() {
            return Some(
                "this cluster runs one job's main and takes no other jobs: submit to a session cluster".into(),
            );
        }
        spec.graph.validate().err().map(|wrong| format!("the job graph is not valid: {wrong}"))
    }

    fn persisted(&mut self, now: Now, job: JobId, outcome: Option<Result<(), String>>) {
        let again = now.at + self.settings.retry;
        let Some(Phase::Persisting { record, callers, retry, maybe }) = self.phase(job) else { return };
        *maybe |= outcome.is_none();
        // It must not be forgotten if it was written: written again until that is known. A refusal of a later try says
        // nothing about an earlier one.
        if *maybe && !matches!(outcome, Some(Ok(()))) {
            *retry = Some(again);
            return;
        }
        let (record, callers) = (record.clone(), callers.clone());
        let answer = match outcome {
            None => return,
            Some(Ok(())) => {
                self.start(now, record);
                if self.stopping {
                    self.cancel(job, None);
                }
                Submitted::Accepted
            }
            Some(Err(why)) => {
                self.jobs.remove(&job);
                self.order.retain(|j| *j != job);
                Submitted::Refused(format!("the job could not be written down: {why}"))
            }
        };
        for call in callers {
            self.effects.push(Effect::Answer { call, answer: answer.clone() });
        }
    }

    fn do_step(&mut self, job: JobId) {
        // What is being written of it would come back after it was cleaned up.
        let known = self.jobs.get(&job);
        if known.is_some_and(|k| {
            matches!((&k.phase, &k.cancel), (Phase::Ending { step: Step::CleanUp, .. }, Cancel::Writing { .. }))
        }) {
            return;
        }
        let Some(Phase::Ending { result, step, retry }) = self.phase(job) else { return };
        *retry = None;
        let (result, step) = (result.clone(), *step);
        self.effects.push(match step {
            Step::Record => Effect::RecordResult(Box::new(ResultRecord { result: *result, dirty: true })),
            Step::CleanUp => Effect::CleanUp(job),
            Step::MarkClean => Effect::MarkClean(Box::new(ResultRecord { result: *result, dirty: false })),
        });
    }

    fn step_done(&mut self, now: Now, job: JobId, done_step: Step, done: bool) {
        let again = now.at + self.settings.retry;
        let after_record = self.after_record();
        let Some(phase) = self.phase(job) else { return };
        let Phase::Ending { result, step, retry } = phase else { return };
        if *step != done_step {
            return;
        }
        if !done {
            *retry = Some(again);
            return;
        }
        match step {
            Step::Record => {
                *step = after_record;
                self.effects.push(Effect::ReleaseMaster(job));
            }
            Step::CleanUp => *step = Step::MarkClean,
            Step::MarkClean => {
                let result = result.clone();
                *phase = Phase::Done { result };
                self.ended.push_back(job);
                while self.ended.len() > self.settings.history.max(1) {
                    let Some(oldest) = self.ended.pop_front() else { break };
                    self.jobs.remove(&oldest);
                    self.order.retain(|j| *j != oldest);
                    self.effects.push(Effect::Forget(oldest));
                }
                return;
            }
        }
        self.do_step(job);
    }

    fn cancel(&mut self, job: JobId, call: Option<CallId>) {
        let answer = match self.jobs.get_mut(&job).map(|k| (&k.phase, &mut k.cancel)) {
            None => CancelAnswer::Unknown,
            // It ends; how is told once it is written down.
            Some((Phase::Ending { step: Step::Record, .. }, _)) => CancelAnswer::Accepted,
            Some((Phase::Ending { result, .. } | Phase::Done { result }, _)) => CancelAnswer::Ended(result.status),
            // Not acknowledged: whoever submitted it does not know of it yet.
            Some((Phase::Persisting { .. }, _)) => CancelAnswer::Unknown,
            Some((Phase::Running { .. }, Cancel::Written)) => CancelAnswer::Accepted,
            Some((Phase::Running { .. }, Cancel::Writing { callers, .. })) => return callers.extend(call),
            Some((Phase::Running { .. }, cancel @ Cancel::No)) => {
                *cancel = Cancel::Writing { callers: call.into_iter().collect(), retry: None };
                return self.effects.push(Effect::RecordCancel(job));
            }
        };
        if let Some(call) = call {
            self.effects.push(Effect::AnswerCancel { call, answer });
        }
    }

    fn cancel_recorded(&mut self, now: Now, job: JobId, done: bool) {
        let again = now.at + self.settings.retry;
        let Some(known) = self.jobs.get_mut(&job) else { return };
        let Cancel::Writing { callers, retry } = &mut known.cancel else { return };
        let ended = !matches!(known.phase, Phase::Running { .. });
        if !done && !ended {
            *retry = Some(again);
            return;
        }
        for call in std::mem::take(callers) {
            self.effects.push(Effect::AnswerCancel { call, answer: CancelAnswer::Accepted });
        }
        known.cancel = Cancel::Written;
        if ended {
            // Its clean-up has waited for this.
            if matches!(known.phase, Phase::Ending { step: Step::CleanUp, .. }) {
                self.do_step(job);
            }
        } else {
            self.effects.push(Effect::CancelMaster(job));
        }
    }

    fn tick(&mut self, now: Now) {
        for job in self.order.clone() {
            if let Some(Known { cancel: Cancel::Writing { retry, .. }, .. }) = self.jobs.get_mut(&job)
                && retry.is_some_and(|at| at <= now.at)
            {
                *retry = None;
                self.effects.push(Effect::RecordCancel(job));
            }
            match self.phase(job) {
                Some(Phase::Persisting { record, retry, .. }) if retry.is_some_and(|at| at <= now.at) => {
                    *retry = None;
                    let record = record.clone();
                    self.effects.push(Effect::Persist(record));
                }
                Some(Phase::Ending { retry, .. }) if retry.is_some_and(|at| at <= now.at) => self.do_step(job),
                Some(Phase::Running { timeout: Some(limit), heard, .. }) if now.at.since(*heard) >= *limit => {
                    // Nobody is left who wants it. Once is enough; if the client comes back it sees it cancelled.
                    *heard = now.at;
                    self.cancel(job, None);
                }
                _ => {}
            }
        }
    }

    fn decide(&mut self) {
        if !self.recovered || self.over {
            return;
        }
        let jobs = self.order.iter().filter_map(|id| Some((*id, self.jobs.get(id)?.phase.settled_status())));
        let view = ClusterView { main: self.main.clone(), jobs: jobs.collect() };
        if self.stopping && view.jobs.iter().all(|(_, s)| s.is_terminal()) {
            self.end(ApplicationStatus::Canceled, "stopped on request".into());
            return;
        }
        match self.settings.mode.decide(&view) {
            Decision::Continue => {}
            Decision::StartMain => {
                if !std::mem::replace(&mut self.main_asked, true) {
                    self.effects.push(Effect::StartMain);
                }
            }
            Decision::Cancel(jobs) => {
                for job in jobs {
                    if let Some(Phase::Running { status, .. }) = self.phase(job)
                        && *status != JobStatus::Cancelling
                    {
                        *status = JobStatus::Cancelling;
                        self.cancel(job, None);
                    }
                }
            }
            Decision::End(status) => {
                let diagnostics = self.diagnostics();
                self.end(status, diagnostics);
            }
        }
    }

    fn end(&mut self, status: ApplicationStatus, diagnostics: String) {
        self.over = true;
        self.effects.push(Effect::End { status, diagnostics });
    }

    fn diagnostics(&self) -> String {
        let failure = |k: &Known| -> Option<TaskFailure> {
            match &k.phase {
                Phase::Ending { result, .. } | Phase::Done { result } => result.failure.clone(),
                _ => None,
            }
        };
        let failed = self.order.iter().filter_map(|id| self.jobs.get(id)).find_map(failure);
        match (failed, &self.main) {
            (Some(failure), _) => failure.to_string(),
            (None, MainState::Ended(Some(0))) => String::new(),
            (None, MainState::Ended(Some(code))) => format!("the job's main ended with exit code {code}"),
            (None, MainState::Ended(None)) => "the job's main was ended by a signal".into(),
            (None, _) => String::new(),
        }
    }
}

impl Phase {
    fn status(&self) -> JobStatus {
        match self {
            Phase::Persisting { .. } => JobStatus::Created,
            Phase::Running { status, .. } => *status,
            Phase::Ending { result, .. } | Phase::Done { result } => result.status,
        }
    }

    /// As a deployment mode sees it: a job counts as ended when its result is recorded and cleaned up after.
    fn settled_status(&self) -> JobStatus {
        match self {
            Phase::Ending { .. } => JobStatus::Running,
            other => other.status(),
        }
    }
}
