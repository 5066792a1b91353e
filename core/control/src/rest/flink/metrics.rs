//! Metrics by name. Without `get` the names that there are, with `get=a,b` their values; unknown names are left out.
//!
//! What a function counts by itself is shown behind its operator's name.
//!
//! A name that has no value (yet) is not in the lists: a rate before there were two samples, or of a task that has ended.

use super::{
    super::{
        RestError,
        api::{executor, unreachable},
    },
    Answer, json,
    look::{Look, VertexLook},
    statistics,
};
use crate::{
    job_master::{Rates, view::SubtaskView},
    rest::RestState,
};
use axum::{
    Router,
    extract::{Path, Query, State},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
};
use thalweg_model::Vertex;

/// A value, as it is shown.
#[derive(Clone, Copy)]
enum Number {
    /// Signed, since times before 1970 are.
    Whole(i64),
    Real(f64),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Real(n) => n,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(n) => n.fmt(f),
            // `12.0`, as Java writes a double.
            Self::Real(n) => write!(f, "{n:?}"),
        }
    }
}

/// `None` when there is no value.
type Metric = fn(&SubtaskView) -> Option<Number>;

const WATERMARK: &str = "currentInputWatermark";

/// Of each subtask: Flink's names first, then ours. Times in milliseconds.
const METRICS: [(&str, Metric); 26] = [
    ("numRecordsIn", |s| count(s.metrics.records_in)),
    ("numRecordsOut", |s| count(s.metrics.records_out)),
    ("numBytesIn", |s| count(s.metrics.bytes_in)),
    ("numBytesOut", |s| count(s.metrics.bytes_out)),
    ("numRecordsInPerSecond", |s| rate(s, |r| r.records_in)),
    ("numRecordsOutPerSecond", |s| rate(s, |r| r.records_out)),
    ("numBytesInPerSecond", |s| rate(s, |r| r.bytes_in)),
    ("numBytesOutPerSecond", |s| rate(s, |r| r.bytes_out)),
    ("busyTimeMsPerSecond", |s| time(s, |r| r.busy_ms)),
    ("idleTimeMsPerSecond", |s| time(s, |r| r.idle_ms)),
    ("backPressuredTimeMsPerSecond", |s| time(s, |r| r.back_pressured_ms)),
    ("accumulateBusyTimeMs", |s| count(s.metrics.busy_ms)),
    ("accumulateIdleTimeMs", |s| count(s.metrics.idle_ms)),
    ("accumulateBackPressuredTimeMs", |s| count(s.metrics.back_pressured_ms)),
    ("buffers.inputQueueLength", |s| lately(s, s.metrics.input_queue)),
    ("buffers.outputQueueLength", |s| lately(s, s.metrics.output_queue)),
    ("latency.p50", |s| lately(s, s.metrics.latency?.p50)),
    ("latency.p95", |s| lately(s, s.metrics.latency?.p95)),
    ("latency.p99", |s| lately(s, s.metrics.latency?.p99)),
    ("latency.max", |s| lately(s, s.metrics.latency?.max)),
    ("numLateRecordsDropped", |s| count(s.metrics.late_dropped)),
    ("numRecordsSkipped", |s| count(s.metrics.skipped)),
    (WATERMARK, |s| s.metrics.watermark.map(Number::Whole)),
    ("numSourceBytes", |s| count(s.metrics.source_bytes)),
    ("numSourceBytesTotal", |s| count(s.metrics.source_bytes_total)),
    ("numSlowSteps", |s| count(s.metrics.slow_steps)),
];

fn count(n: u64) -> Option<Number> {
    Some(Number::Whole(i64::try_from(n).unwrap_or(i64::MAX)))
}

/// Of one that has ended there is no present.
fn lately(s: &SubtaskView, n: u64) -> Option<Number> {
    count(n).filter(|_| !s.state.is_terminal())
}

fn rate(s: &SubtaskView, of: fn(&Rates) -> f64) -> Option<Number> {
    s.rates.as_ref().map(|rates| Number::Real((of(rates) * 1000.0).round() / 1000.0))
}

fn time(s: &SubtaskView, of: fn(&Rates) -> f64) -> Option<Number> {
    s.rates.as_ref().map(|rates| Number::Whole(of(rates).round() as i64))
}

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
        .route(&at("/watermarks"), get(watermarks))
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
    fn of(&self, all: impl Iterator<Item = (String, impl ToString)>) -> Answer {
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

/// All of one subtask: its own first, then those of its functions.
fn metrics<'a>(vertex: &'a Vertex, subtask: &'a SubtaskView) -> impl Iterator<Item = (Cow<'static, str>, Number)> + 'a {
    let own = METRICS.iter().filter_map(|(name, metric)| Some((Cow::Borrowed(*name), metric(subtask)?)));
    let users = subtask.metrics.user.iter().filter_map(|metric| {
        let operator = vertex.operators.get(metric.operator as usize)?;
        let value = if !metric.is_rate {
            Number::Whole(metric.value)
        } else if !subtask.state.is_terminal() {
            Number::Real(metric.value as f64 / 1000.0)
        } else {
            return None;
        };
        Some((Cow::Owned(format!("{}.{}", asked(&operator.name), metric.name)), value))
    });
    own.chain(users)
}

/// An operator's name as it can be asked for: as Flink does, what parts names in a request is replaced.
fn asked(operator: &str) -> String {
    operator.replace([' ', '.', ':', ','], "_")
}

async fn of_vertex(
    State(state): State<RestState>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let all = v.subtasks.iter().enumerate();
    wanted.of(all.flat_map(|(i, s)| metrics(v.vertex, s).map(move |(name, value)| (format!("{i}.{name}"), value))))
}

async fn of_subtask(
    State(state): State<RestState>,
    Path((job, vertex, subtask)): Path<(String, String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let (_, s) = v.subtask(&subtask)?;
    wanted.of(metrics(v.vertex, s).map(|(name, value)| (name.into_owned(), value)))
}

async fn of_subtasks(
    State(state): State<RestState>,
    Path((job, vertex)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let v = look.vertex(&vertex)?;
    let chosen = chosen(&v, wanted.subtasks.as_deref())?;
    let ways = ways(wanted.agg.as_deref())?;
    // In the order in which they are told, which is that of the table and then of the functions.
    let mut found: Vec<(Cow<'static, str>, Vec<f64>)> = Vec::new();
    let mut places: HashMap<Cow<'static, str>, usize> = HashMap::new();
    for (name, value) in chosen.iter().flat_map(|s| metrics(v.vertex, s)) {
        let place = *places.entry(name.clone()).or_insert(found.len());
        if place == found.len() {
            found.push((name, Vec::new()));
        }
        found[place].1.push(value.as_f64());
    }
    let Some(get) = &wanted.get else {
        return json(&found.iter().map(|(name, _)| json!({ "id": name })).collect::<Vec<_>>());
    };
    let found = found.iter().filter(|(name, _)| get.split(',').any(|wanted| wanted == name));
    json(&found.map(|(name, values)| aggregated(name, values, &ways)).collect::<Vec<_>>())
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
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
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

/// What coordinators count of themselves: they are vertices of their own here, and have the metrics of those.
async fn none_of_vertex(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?.vertex(&vertex)?;
    json::<[(); 0]>(&[])
}

/// Of those subtasks that have one.
async fn watermarks(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let all = look.vertex(&vertex)?.subtasks.iter().enumerate();
    let told = all.filter_map(|(i, s)| {
        Some(json!({ "id": format!("{i}.{WATERMARK}"), "value": s.metrics.watermark?.to_string() }))
    });
    json(&told.collect::<Vec<_>>())
}

/// Shares of busy, idle and back-pressured time of lately; `None` before there were two samples, and when a task did
/// nothing at all: its slot's thread worked for others.
fn shares(rates: &Rates) -> Option<[f64; 3]> {
    let times = [rates.busy_ms, rates.idle_ms, rates.back_pressured_ms];
    let all: f64 = times.iter().sum();
    // To a thousandth: Flink divides whole milliseconds of a second.
    (all > 0.0).then(|| times.map(|ms| (1000.0 * ms / all).round() / 1000.0))
}

/// Flink's bounds.
fn level(back_pressured: f64) -> &'static str {
    match back_pressured {
        share if share <= 0.1 => "ok",
        share if share <= 0.5 => "low",
        _ => "high",
    }
}

/// Flink's `JobVertexBackPressureInfo`. Each level twice: the dashboard reads the name that is deprecated.
async fn back_pressure(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    let look = Look::at(&state, &state.leader()?, &job).await?;
    let all = look.vertex(&vertex)?.subtasks.iter().enumerate();
    let measured: Vec<_> = all.filter_map(|(i, s)| Some((i, s.attempt, shares(s.rates.as_ref()?)?))).collect();
    if measured.is_empty() {
        // Flink's word for "no sample yet".
        return json(&json!({ "status": "deprecated" }));
    }
    let most = measured.iter().map(|(.., [_, _, held])| *held).fold(0.0, f64::max);
    let subtask = |(i, attempt, [busy, idle, held]): &(usize, u32, [f64; 3])| {
        json!({
            "subtask": i,
            "attempt-number": attempt,
            "backpressureLevel": level(*held),
            "backpressure-level": level(*held),
            "ratio": held,
            "idleRatio": idle,
            "busyRatio": busy,
        })
    };
    json(&json!({
        "status": "ok",
        "backpressureLevel": level(most),
        "backpressure-level": level(most),
        "end-timestamp": look.now,
        "subtasks": measured.iter().map(subtask).collect::<Vec<_>>(),
    }))
}

/// Flink's code for a cluster that has them switched off.
async fn flame_graph(State(state): State<RestState>, Path((job, vertex)): Path<(String, String)>) -> Answer {
    Look::at(&state, &state.leader()?, &job).await?.vertex(&vertex)?;
    json(&json!({ "endTimestamp": -2, "data": null }))
}
