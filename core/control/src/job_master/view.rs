//! What REST shows of a job: a copy, made when somebody asks.

use super::job::{ExceptionEntry, Job, Rates};
use std::collections::BTreeMap;
use thalweg_model::{ExecutionState, JobGraph, JobId, JobStatus, SubtaskMetrics, TaskManagerId, UnixMillis};
use thalweg_wire::{ExecutionMode, RestartStrategy};

/// One subtask.
#[derive(Debug, Clone)]
pub struct SubtaskView {
    /// What it is doing.
    pub state: ExecutionState,
    /// Where.
    pub task_manager: Option<TaskManagerId>,
    /// When it entered each state, by position in [`ExecutionState::ALL`].
    pub since: [Option<UnixMillis>; 9],
    /// Counters.
    pub metrics: SubtaskMetrics,
    /// What it does in a second; none before there were two samples of it, and of one that has ended.
    pub rates: Option<Rates>,
    /// Under which attempt: until the next one is placed, this is the last one.
    pub attempt: u32,
}

/// One job.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Which.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: JobStatus,
    /// When it was accepted.
    pub submitted: UnixMillis,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// The present attempt's number.
    pub attempt: u32,
    /// Its graph.
    pub graph: JobGraph,
    /// Batch or streaming, as it was asked for.
    pub mode: ExecutionMode,
    /// When it starts again.
    pub restart: RestartStrategy,
    /// Parallelism of what the program left open.
    pub parallelism: u32,
    /// Options that it brought along.
    pub options: BTreeMap<String, String>,
    /// Subtasks by vertex; empty before the first deployment.
    pub subtasks: Vec<Vec<SubtaskView>>,
    /// When it entered each status, oldest first.
    pub statuses: Vec<(JobStatus, UnixMillis)>,
    /// What went wrong, oldest first.
    pub exceptions: Vec<ExceptionEntry>,
    /// Why it waits.
    pub waiting: Option<String>,
}

impl JobView {
    /// Records that all sources gave so far.
    pub fn source_records(&self) -> u64 {
        let sources = self.graph.sources();
        let subtasks = sources.iter().filter_map(|v| self.subtasks.get(*v)).flatten();
        subtasks.map(|s| s.metrics.records_in).sum()
    }

    pub(super) fn of(job: &Job, status: JobStatus) -> Self {
        let subtask = |t: &super::job::Task| SubtaskView {
            state: t.state,
            task_manager: t.at.clone(),
            since: t.since,
            metrics: t.metrics.clone(),
            rates: t.rates(),
            attempt: t.attempt,
        };
        Self {
            id: job.id,
            name: job.spec.name.clone(),
            status,
            submitted: job.submitted,
            ended: job.statuses.last().filter(|(s, _)| s.is_terminal()).map(|(_, at)| *at),
            attempt: job.attempt.n,
            graph: job.spec.graph.clone(),
            mode: job.spec.mode,
            restart: job.spec.restart.clone(),
            parallelism: job.spec.default_parallelism,
            options: job.spec.options.clone(),
            subtasks: job.tasks.iter().map(|tasks| tasks.iter().map(subtask).collect()).collect(),
            statuses: job.statuses.clone(),
            exceptions: job.exceptions.iter().cloned().collect(),
            waiting: job.waiting.clone().or_else(|| job.starts_again_after(status)),
        }
    }
}
