//! A job's life, a file for each state, in the order in which a job meets them.
//!
//! ```text
//! created ─▶ reconciling ─▶ executing, committing, restarting… (what an earlier leader deployed)
//!    └─────▶ waiting_for_slots ─▶ deploying ─▶ executing ─▶ committing ─▶ ended
//!                   ▲                 │            │            │          ▲
//!                   └── restarting ◀──┴────────────┴────────────┘          │
//!                            └──────▶ cancelling, failing ─────────────────┘
//! ```
//!
//! Only the transitions that are listed below, in `transitions!`, compile: `go` asks for one.

mod cancelling;
mod committing;
mod created;
mod deploying;
mod ended;
mod executing;
mod failing;
mod reconciling;
mod restarting;
mod suspended;
mod waiting_for_slots;

pub use cancelling::Cancelling;
pub use committing::Committing;
pub use created::Created;
pub use deploying::Deploying;
pub use ended::Ended;
pub use executing::Executing;
pub use failing::Failing;
pub use reconciling::Reconciling;
pub use restarting::Restarting;
pub use suspended::Suspended;
pub use waiting_for_slots::WaitingForSlots;

use super::{job::Job, restart::Verdict};
use crate::Now;
use thalweg_model::{Attempt, JobStatus, Moment, TaskFailure, TaskManagerId};
use thalweg_wire::Descriptor;

/// What a state has to know.
#[derive(Debug, Clone)]
pub enum Input {
    /// Begin.
    Start,
    /// A slot was taken, or is ready again.
    SlotsChanged,
    /// A subtask changed, without a failure.
    TaskChanged,
    /// A task that was needed failed, or what it ran on did.
    TaskFailed {
        /// Why.
        failure: TaskFailure,
        /// Where.
        id: Option<TaskManagerId>,
    },
    /// A host without needed tasks is gone or cannot start.
    HostFailed {
        /// Why.
        failure: TaskFailure,
        /// Where.
        id: TaskManagerId,
    },
    /// A TaskManager without needed tasks is gone.
    WorkerGone {
        /// Who.
        id: TaskManagerId,
    },
    /// Of the present attempt.
    PartitionsRegistered(Result<Vec<Descriptor>, TaskFailure>),
    /// Of the present attempt.
    DeploymentRecorded(Result<(), TaskFailure>),
    /// Of the present attempt.
    CommitRecorded(Result<(), TaskFailure>),
    /// A host was ended by force; `done` when that is certain.
    HostReset {
        /// When it was asked for.
        attempt: Attempt,
        /// Where.
        id: TaskManagerId,
        /// Certain?
        done: bool,
    },
    /// Nobody knows whether a host was told to stop what it shall.
    NotStopped {
        /// Where.
        id: TaskManagerId,
    },
    /// All that a TaskManager has of the job is known.
    Accounted {
        /// Whose.
        id: TaskManagerId,
    },
    /// A TaskManager of an earlier leader's deployment is gone.
    Vanished {
        /// Why.
        failure: TaskFailure,
        /// Who.
        id: TaskManagerId,
    },
    /// How the job ended is written down.
    ResultRecorded,
    /// End the job.
    Cancel,
    /// The JobManager stops.
    Suspend,
    /// Time passed.
    Tick,
}

/// A transition from the implementor to `Next` is written down.
pub trait TransitionTo<Next> {}

macro_rules! states {
    ($($state:ident = $name:literal, $status:expr;)*) => {
        /// The state of a job.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)]
        pub enum State { $($state($state),)* }

        $(
            impl From<$state> for State { fn from(state: $state) -> State { State::$state(state) } }
            impl Named for $state { const NAME: &'static str = $name; }
        )*

        impl State {
            /// What users see of it.
            pub fn status(&self) -> JobStatus {
                match self { $(State::$state(state) => { let f: fn(&$state) -> JobStatus = $status; f(state) })* }
            }

            /// Handles one input.
            pub(super) fn on_input(self, job: &mut Job, now: Now, input: Input) -> State {
                match self { $(State::$state(state) => state.on_input(job, now, input),)* }
            }
        }
    };
}

/// A state's name.
pub trait Named {
    /// As in the file's name.
    const NAME: &'static str;
}

states! {
    Created = "created", |_| JobStatus::Created;
    Reconciling = "reconciling", |_| JobStatus::Reconciling;
    WaitingForSlots = "waiting_for_slots", |s| s.status();
    Deploying = "deploying", |_| JobStatus::Running;
    Executing = "executing", |_| JobStatus::Running;
    Committing = "committing", |_| JobStatus::Running;
    Restarting = "restarting", |_| JobStatus::Restarting;
    Cancelling = "cancelling", |_| JobStatus::Cancelling;
    Failing = "failing", |_| JobStatus::Failing;
    Ended = "ended", |s| s.status();
    Suspended = "suspended", |_| JobStatus::Suspended;
}

macro_rules! transitions {
    ($($from:ident => $($to:ident),*;)*) => {
        $($(impl TransitionTo<$to> for $from {})*)*
        /// Every written transition, by name.
        pub const TRANSITIONS: &[(&str, &str)] = &[$($((<$from as Named>::NAME, <$to as Named>::NAME),)*)*];
    };
}

transitions! {
    Created => WaitingForSlots, Reconciling;
    Reconciling => Executing, Committing, Ended, Restarting, Failing, Cancelling, Suspended;
    WaitingForSlots => Deploying, Restarting, Failing, Cancelling, Suspended;
    Deploying => Executing, Restarting, Failing, Cancelling, Suspended;
    Executing => Committing, Ended, Restarting, Failing, Cancelling, Suspended;
    Committing => Ended, Restarting, Failing, Suspended;
    Restarting => Restarting, WaitingForSlots, Failing, Cancelling, Suspended;
    Cancelling => Ended, Suspended;
    Failing => Ended, Suspended;
}

/// Goes from one state to the next. Compiles only for a written transition.
pub(super) fn go<A: TransitionTo<B> + Named, B: Named + Into<State>>(job: &mut Job, _from: A, to: B) -> State {
    job.transitions.push((A::NAME, B::NAME));
    to.into()
}

impl State {
    /// Does it take new slots? As long as slots are required they must be taken: what is refused is granted again.
    pub(super) fn takes_slots(&self) -> bool {
        !matches!(self, State::Created(_) | State::Cancelling(_) | State::Failing(_)) && !self.is_over()
    }

    /// Nothing more happens.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, State::Ended(_) | State::Suspended(_))
    }

    /// It is over, and nobody has written that down yet.
    pub(super) fn is_unrecorded(&self) -> bool {
        matches!(self, State::Ended(ended) if !ended.is_recorded())
    }

    /// When it wants a tick.
    pub(super) fn deadline(&self, job: &Job) -> Option<Moment> {
        match self {
            State::Reconciling(s) => Some(s.deadline),
            State::WaitingForSlots(s) => Some(s.deadline(job)),
            State::Restarting(s) => s.deadline(job),
            State::Cancelling(s) => Some(s.deadline),
            State::Failing(s) => Some(s.deadline),
            _ => None,
        }
    }
}

/// A failure while tasks were (about to be) deployed: restarts or fails, as the strategy says.
pub(super) fn failed<A>(job: &mut Job, now: Now, from: A, failure: TaskFailure, id: Option<TaskManagerId>) -> State
where
    A: TransitionTo<Restarting> + TransitionTo<Failing> + Named,
{
    match job.policy.on_failure(now.at, failure.kind, job.random) {
        Verdict::RestartAt(at) => {
            let millis = at.since(now.at).as_millis();
            job.note_exception(now, failure, id.clone(), format!("starts again in {millis} ms"));
            let restarting = Restarting::begin(job, now, at, id.as_ref());
            let state = go(job, from, restarting);
            // There may be no host to wait for, and no delay.
            state.on_input(job, now, Input::Tick)
        }
        Verdict::Fail(why) => {
            job.note_exception(now, failure.clone(), id, why.clone());
            let failing = Failing::begin(job, now, failure, &why);
            let state = go(job, from, failing);
            // There may be nothing left to stop.
            state.on_input(job, now, Input::TaskChanged)
        }
    }
}

/// A cancel: stops the tasks.
pub(super) fn cancelled<A: TransitionTo<Cancelling> + Named>(job: &mut Job, now: Now, from: A) -> State {
    let cancelling = Cancelling::begin(job, now);
    let state = go(job, from, cancelling);
    state.on_input(job, now, Input::TaskChanged)
}

/// The JobManager stops: the job's tasks and slots are left as they are.
pub(super) fn suspended<A: TransitionTo<Suspended> + Named>(job: &mut Job, from: A) -> State {
    go(job, from, Suspended)
}

/// The job ends: slots and partitions are given back.
pub(super) fn ended<A: TransitionTo<Ended> + Named>(
    job: &mut Job,
    now: Now,
    from: A,
    status: JobStatus,
    failure: Option<TaskFailure>,
) -> State {
    let ended = Ended::begin(job, now, status, failure);
    go(job, from, ended)
}
