//! One look at a job: what its JobMaster tells, or what is left of it, made whole so that the routes need no cases.

use super::super::{Leader, RestError, RestState, api::job_id};
use crate::{
    dispatcher::Entry,
    job_master::view::{JobView, SubtaskView},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use thalweg_model::{
    ExecutionState, JobGraph, JobStatus, SubtaskMetrics, TaskManagerId, UnixMillis, Vertex, VertexId, VertexRole,
};
use thalweg_wire::{ExecutionMode, JobResult, RestartStrategy};

/// Flink's word for a task that is nowhere yet.
pub const UNASSIGNED: &str = "(unassigned)";

/// How long TaskManagers of a running job have to tell what they counted; who is slower is shown as it was last heard.
const ANSWERED: Duration = Duration::from_millis(10);

/// A job at this moment.
pub struct Look {
    /// Its JobMaster's view. Every vertex has its subtasks, also before the first deployment.
    pub view: JobView,
    /// Written down: the job is over for good.
    pub result: Option<JobResult>,
    /// Wall-clock time of the look, milliseconds.
    pub now: u64,
}

/// The vertex of a look that a request names.
pub struct VertexLook<'a> {
    /// The vertex.
    pub vertex: &'a Vertex,
    /// Its subtasks.
    pub subtasks: &'a [SubtaskView],
}

impl Look {
    fn new(view: JobView, result: Option<JobResult>, now: u64) -> Self {
        let mut view = view;
        if view.subtasks.is_empty() {
            let created = not_deployed(view.submitted);
            let vertices = view.graph.vertices.iter();
            view.subtasks = vertices.map(|v| vec![created.clone(); v.parallelism as usize]).collect();
        }
        Self { view, result, now }
    }

    /// The job that a path names: 400 when it is no id, 404 when nobody knows it.
    pub async fn at(state: &RestState, leader: &Leader, job: &str) -> Result<Self, RestError> {
        let job = job_id(job)?;
        let entry = leader.dispatcher.entries().await.into_iter().find(|e| e.id == job);
        let entry = entry.ok_or_else(|| RestError::not_found(format!("Job {job} not found")))?;
        // The first look makes the JobMaster ask its TaskManagers, the second has what they answered.
        if leader.dispatcher.view(job).await.is_some_and(|view| view.status == JobStatus::Running) {
            state.env.clock.sleep(ANSWERED).await;
        }
        Ok(Self::of(state, leader, entry).await)
    }

    /// The job of an entry.
    pub async fn of(state: &RestState, leader: &Leader, entry: Entry) -> Self {
        let view = leader.dispatcher.view(entry.id).await.map(Arc::unwrap_or_clone);
        let now = state.env.clock.wall().0;
        Self::new(view.unwrap_or_else(|| remembered(&entry)), entry.result, now)
    }

    /// Every job that is known, in order of submission.
    pub async fn all(state: &RestState, leader: &Leader) -> Vec<Self> {
        let mut looks = Vec::new();
        for entry in leader.dispatcher.entries().await {
            looks.push(Self::of(state, leader, entry).await);
        }
        looks
    }

    /// All vertices. Coordinators and committers are vertices of their own with one subtask: they take slots' time, fail
    /// and restart as tasks do, so they are shown as such.
    pub fn vertices(&self) -> impl Iterator<Item = VertexLook<'_>> {
        let subtasks = self.view.subtasks.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        self.view.graph.vertices.iter().zip(subtasks).map(|(vertex, subtasks)| VertexLook { vertex, subtasks })
    }

    /// The vertex that a path names.
    pub fn vertex(&self, id: &str) -> Result<VertexLook<'_>, RestError> {
        let id: VertexId =
            id.parse().map_err(|e: thalweg_model::ParseIdError| RestError::bad_request(e.to_string()))?;
        let unknown = || RestError::not_found(format!("job {} has no vertex {id}", self.view.id));
        self.vertices().find(|v| v.vertex.id == id).ok_or_else(unknown)
    }

    /// All subtasks.
    pub fn subtasks(&self) -> impl Iterator<Item = &SubtaskView> {
        self.view.subtasks.iter().flatten()
    }

    /// Milliseconds from its submission to its end, or to now.
    pub fn duration(&self) -> u64 {
        self.view.ended.map_or(self.now, |at| at.0).saturating_sub(self.view.submitted.0)
    }

    /// The newest time at which anything of it changed its state.
    pub fn last_modification(&self) -> u64 {
        let tasks = self.subtasks().flat_map(|s| s.since).flatten();
        tasks.chain(self.view.statuses.iter().map(|(_, at)| *at)).max().unwrap_or(self.view.submitted).0
    }

    /// `BATCH` or `STREAMING`.
    pub fn kind(&self) -> &'static str {
        match self.view.mode {
            ExecutionMode::Batch => "BATCH",
            ExecutionMode::Automatic if self.view.graph.bounded => "BATCH",
            ExecutionMode::Automatic | ExecutionMode::Streaming => "STREAMING",
        }
    }
}

impl VertexLook<'_> {
    /// The subtask that a path names.
    pub fn subtask(&self, index: &str) -> Result<(u32, &SubtaskView), RestError> {
        let bad = |_| RestError::bad_request(format!("{index:?} is not the index of a subtask"));
        let i: u32 = index.parse().map_err(bad)?;
        let subtask = self.subtasks.get(i as usize);
        let subtask = subtask.ok_or_else(|| {
            RestError::not_found(format!("vertex {} has no subtask {i}, but {}", self.vertex.id, self.subtasks.len()))
        });
        Ok((i, subtask?))
    }

    /// Its role as an extra field of ours.
    pub fn role(&self) -> &'static str {
        match self.vertex.role {
            VertexRole::Task => "task",
            VertexRole::Coordinator => "coordinator",
            VertexRole::Committer => "committer",
        }
    }
}

fn not_deployed(submitted: UnixMillis) -> SubtaskView {
    let mut since = [None; ExecutionState::ALL.len()];
    since[0] = Some(submitted);
    SubtaskView {
        state: ExecutionState::Created,
        task_manager: None,
        since,
        metrics: SubtaskMetrics::default(),
        rates: None,
        attempt: 0,
    }
}

/// A job that ended under an earlier leader: its result is all that was kept, so its graph is shown as empty.
fn remembered(entry: &Entry) -> JobView {
    let result = entry.result.as_ref();
    let mut statuses = vec![(JobStatus::Created, entry.submitted)];
    statuses.extend(result.map(|r| (r.status, r.ended)));
    let exception = result.and_then(|r| {
        Some(crate::job_master::ExceptionEntry {
            at: r.ended,
            failure: r.failure.clone()?,
            task_manager: None,
            attempt: r.attempt,
            decision: "the job failed".into(),
        })
    });
    JobView {
        id: entry.id,
        name: entry.name.clone(),
        status: entry.status,
        submitted: entry.submitted,
        ended: result.map(|r| r.ended),
        attempt: result.map_or(0, |r| r.attempt),
        graph: JobGraph::default(),
        mode: ExecutionMode::default(),
        restart: RestartStrategy::default(),
        parallelism: 0,
        options: Default::default(),
        subtasks: Vec::new(),
        statuses,
        exceptions: exception.into_iter().collect(),
        waiting: None,
    }
}

/// Where TaskManagers are, by name.
pub struct Endpoints(HashMap<TaskManagerId, String>);

impl Endpoints {
    /// Of those that are registered.
    pub async fn of(leader: &Leader) -> Self {
        let workers = leader.resources.view().await.into_iter();
        Self(workers.map(|w| (w.info.id, host_and_port(&w.info.rpc))).collect())
    }

    /// `host:port`. One that is gone goes by its name, which begins with the same unless an operator chose it.
    pub fn at(&self, id: Option<&TaskManagerId>) -> String {
        match id {
            None => UNASSIGNED.to_owned(),
            Some(id) => self.0.get(id).cloned().unwrap_or_else(|| id.to_string()),
        }
    }
}

/// Without the transport's name.
fn host_and_port(rpc: &str) -> String {
    rpc.strip_prefix("tcp://").unwrap_or(rpc).to_owned()
}
