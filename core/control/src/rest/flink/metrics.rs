//! Metrics by name. Without `get` the names that there are, with `get=a,b` their values; unknown names are left out.
//!
//! A name that Flink's tools ask for and that is not counted here (rates, busy and back-pressured time) is not in the
//! lists.

use super::{
    super::{
        RestError,
        api::{executor, unreachable},
    },
    Answer, json,
    look::{Look, VertexLook},
    statistics,
};
use crate::{job_master::view::SubtaskView, rest::RestState};
use axum::{
    Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use thalweg_model::SubtaskMetrics;

type Counter = fn(&SubtaskMetrics) -> u64;

/// Of each subtask: Flink's names first, then ours.
const COUNTERS: [(&str, Counter); 7] = [
    ("numRecordsIn", |m| m.records_in),
    ("numRecordsOut", |m| m.records_out),
    ("numBytesIn", |m| m.bytes_in),
    ("numBytesOut", |m| m.bytes_out),
    ("numSourceBytes", |m| m.source_bytes),
    ("numSourceBytesTotal", |m| m.source_bytes_total),
    ("numSlowSteps", |m| m.slow_steps),
];

pub(super) fn routes() -> Router<RestState> {
    let at = |rest: &str| format!("/jobs/{{job}}/vertices/{{vertex}}{rest}");
    Router::new()
        .route("/jobs/metrics", get(all_jobs))
        .route("/jobs/{job}/metrics", get(of_job))
        .route("/jobmanager/metrics", get(of_job_manager))
        .route("/taskmanagers/metrics", get(all_task_managers))
        .route("/taskmanagers/{id}/metrics", get(of_task_manager))
        .route(&at("/metrics"), get(of_vertex))
        .route(&at("/jm-operator-metrics"), get(none_of_vertex))
        .route(&at("/watermarks"), get(none_of_vertex))
        .route(&at("/backpressure"), get(back_pressure))
        .route(&at("/flamegraph"), get(flame_graph))
        .route(&at("/subtasks/metrics"), get(of_subtasks))
        .route(&at("/subtasks/{subtask}/metrics"), get(of_subtask))
}

#[derive(Deserialize)]
struct Wanted {
    /// Names, with commas.
    get: Option<String>,
    /// Ways to aggregate, with commas; all when absent.
    agg: Option<String>,
    /// `0,3-5`; all when absent.
    subtasks: Option<String>,
}

impl Wanted {
    /// The list of names, or the values of those that are wanted.
    fn of(&self, all: impl Iterator<Item = (String, u64)>) -> Answer {
        let list: Vec<Value> = match &self.get {
            None => all.map(|(id, _)| json!({ "id": id })).collect(),
            Some(get) => {
                let names: Vec<&str> = get.split(',').collect();
                let found = all.filter(|(id, _)| names.contains(&id.as_str()));
                found.map(|(id, value)| json!({ "id": id, "value": value.to_string() })).collect()
            }
        };
        json(&list)
    }
}

fn counters(subtask: &SubtaskView) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    let metrics = subtask.metrics;
    COUNTERS.iter().map(move |(name, counter)| (*name, counter(&metrics)))
}

async fn of_vertex(
    State(state): State<RestState>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let all = v.subtasks.iter().enumerate();
    wanted.of(all.flat_map(|(i, s)| counters(s).map(move |(name, value)| (format!("{i}.{name}"), value))))
}

async fn of_subtask(
    State(state): State<RestState>,
    Path((job, vertex, subtask)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let (_, s) = v.subtask(&subtask)?;
    wanted.of(counters(s).map(|(name, value)| (name.to_owned(), value)))
}

async fn of_subtasks(
    State(state): State<RestState>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let Some(get) = &wanted.get else {
        return json(&COUNTERS.iter().map(|(name, _)| json!({ "id": name })).collect::<Vec<_>>());
    };
    let chosen = chosen(&v, wanted.subtasks.as_deref())?;
    let ways = ways(wanted.agg.as_deref())?;
    let found = COUNTERS.iter().filter(|(name, _)| get.split(',').any(|wanted| wanted == *name));
    let list = found.filter(|_| !chosen.is_empty()).map(|(name, counter)| {
        let values: Vec<f64> = chosen.iter().map(|s| counter(&s.metrics) as f64).collect();
        aggregated(name, &values, &ways)
    });
    json(&list.collect::<Vec<_>>())
}

fn aggregated(name: &str, values: &[f64], ways: &[&'static str]) -> Value {
    let mut entry = Map::from_iter([("id".to_owned(), json!(name))]);
    entry.extend(ways.iter().map(|way| ((*way).to_owned(), aggregate(way, values).into())));
    Value::from(entry)
}

const WAYS: [&str; 5] = ["min", "max", "avg", "sum", "skew"];

fn ways(wanted: Option<&str>) -> Result<Vec<&'static str>, RestError> {
    let Some(wanted) = wanted else { return Ok(WAYS.to_vec()) };
    let known = |way: &str| {
        let found = WAYS.into_iter().find(|w| w.eq_ignore_ascii_case(way));
        found.ok_or_else(|| RestError::bad_request(format!("agg is some of {}, not {way:?}", WAYS.join(", "))))
    };
    wanted.split(',').map(known).collect()
}

fn aggregate(way: &str, values: &[f64]) -> f64 {
    let sum = values.iter().sum::<f64>();
    match way {
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(0.0, f64::max),
        "avg" => sum / values.len().max(1) as f64,
        "skew" => statistics::skew(values),
        _ => sum,
    }
}

/// The subtasks that `0,3-5` names; those that the vertex does not have are left out.
fn chosen<'a>(v: &VertexLook<'a>, ranges: Option<&str>) -> Result<Vec<&'a SubtaskView>, RestError> {
    let Some(ranges) = ranges else { return Ok(v.subtasks.iter().collect()) };
    let number = |text: &str| {
        let parsed = text.trim().parse::<usize>();
        parsed.map_err(|_| RestError::bad_request(format!("subtasks is like 0,3-5, and not {ranges:?}")))
    };
    let mut chosen = Vec::new();
    for range in ranges.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (number(from)?, number(to)?);
        let there = v.subtasks.iter().enumerate().filter(|(i, _)| (from..=to).contains(i));
        chosen.extend(there.map(|(_, s)| s));
    }
    Ok(chosen)
}

async fn of_job(State(state): State<RestState>, Path(job): Path<String>, Query(wanted): Query<Wanted>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    wanted.of(std::iter::once(("numRestarts".to_owned(), u64::from(look.view.attempt))))
}

async fn all_jobs(State(state): State<RestState>) -> Answer {
    state.leader()?;
    json::<[(); 0]>(&[])
}

async fn of_job_manager(State(state): State<RestState>, Query(wanted): Query<Wanted>) -> Answer {
    let mut all = state.metrics.read();
    if let Ok(leader) = state.leader() {
        let (workers, jobs) = (leader.resources.view().await, leader.dispatcher.entries().await);
        let slots = workers.iter().map(|w| w.slots.len() as u64).sum();
        let free = workers.iter().map(|w| u64::from(w.free)).sum();
        let running = jobs.iter().filter(|j| j.result.is_none()).count() as u64;
        let counts = [
            ("numRegisteredTaskManagers", workers.len() as u64),
            ("numRunningJobs", running),
            ("taskSlotsAvailable", free),
            ("taskSlotsTotal", slots),
        ];
        all.extend(counts.map(|(name, value)| (name.to_owned(), value)));
    }
    wanted.of(all.into_iter())
}

/// Aggregated over the TaskManagers that answer.
async fn all_task_managers(State(state): State<RestState>, Query(wanted): Query<Wanted>) -> Answer {
    let leader = state.leader()?;
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for worker in leader.resources.view().await {
        let Ok(gateway) = executor(&leader, worker.info.id.as_str()).await else { continue };
        for (name, value) in gateway.metrics().await.unwrap_or_default() {
            values.entry(name).or_default().push(value as f64);
        }
    }
    let Some(get) = &wanted.get else {
        return json(&values.keys().map(|name| json!({ "id": name })).collect::<Vec<_>>());
    };
    let ways = ways(wanted.agg.as_deref())?;
    let found = values.iter().filter(|(name, _)| get.split(',').any(|wanted| wanted == name.as_str()));
    json(&found.map(|(name, values)| aggregated(name, values, &ways)).collect::<Vec<_>>())
}

async fn of_task_manager(
    State(state): State<RestState>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let metrics = executor(&state.leader()?, &id).await?.metrics().await.map_err(unreachable)?;
    wanted.of(metrics.into_iter())
}

/// Watermarks, and what coordinators count of themselves: neither is told to the JobManager yet.
async fn none_of_vertex(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?.vertex(&vertex)?;
    json::<[(); 0]>(&[])
}

/// Flink's word for "no sample yet": busy and back-pressured time are not measured yet.
async fn back_pressure(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?.vertex(&vertex)?;
    json(&json!({ "status": "deprecated" }))
}

/// Flink's code for a cluster that has them switched off.
async fn flame_graph(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?.vertex(&vertex)?;
    json(&json!({ "endTimestamp": -2, "data": null }))
}
