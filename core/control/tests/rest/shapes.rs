//! Names of routes and fields are a promise to Flink's tools: every answer's fields are compared with a committed list.
//! After a change that is meant, `THALWEG_BLESS=1 cargo test -p thalweg-control --test rest shapes` writes it anew.

use crate::cluster::{Cluster, run, word_count};
use serde_json::Value;
use std::{collections::BTreeSet, fmt::Write, time::Duration};
use thalweg_model::{
    ExecutionState as S, FailureKind, JobId, Moment, SubtaskId, SubtaskMetrics, TaskFailure, VertexId,
};

/// `a.b[].c`, one for each leaf, and its type.
fn leaves(at: &str, value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(&format!("{at}.{name}"), value, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(&format!("{at}[]"), item, out);
            }
        }
        other => {
            let kind = match other {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "[]",
                Value::Object(_) => "{}",
            };
            out.insert(format!("{at} {kind}"));
        }
    }
}

/// Asked while the job holds slots, and while its tasks have rates.
const WHILE_RUNNING: [&str; 4] =
    ["/taskmanagers", "/taskmanagers/a:1-x", "/taskmanagers/a:1-x/logs", "/jobs/JOB/vertices/VERTEX/backpressure"];

/// Asked when it has failed, so that there are an exception and a result.
const WHEN_ENDED: [&str; 30] = [
    "/config",
    "/overview",
    "/jobs",
    "/jobs/overview",
    "/jobs/metrics",
    "/jobs/JOB",
    "/jobs/JOB/status",
    "/jobs/JOB/config",
    "/jobs/JOB/plan",
    "/jobs/JOB/exceptions",
    "/jobs/JOB/execution-result",
    "/jobs/JOB/accumulators",
    "/jobs/JOB/metrics",
    "/jobs/JOB/vertices/VERTEX",
    "/jobs/JOB/vertices/VERTEX/subtasktimes",
    "/jobs/JOB/vertices/VERTEX/taskmanagers",
    "/jobs/JOB/vertices/VERTEX/accumulators",
    "/jobs/JOB/vertices/VERTEX/flamegraph",
    "/jobs/JOB/vertices/VERTEX/watermarks",
    "/jobs/JOB/vertices/VERTEX/metrics",
    "/jobs/JOB/vertices/VERTEX/jm-operator-metrics",
    "/jobs/JOB/vertices/VERTEX/subtasks/accumulators",
    "/jobs/JOB/vertices/VERTEX/subtasks/metrics?get=numRecordsIn",
    "/jobs/JOB/vertices/VERTEX/subtasks/0",
    "/jobs/JOB/vertices/VERTEX/subtasks/0/metrics?get=numRecordsIn",
    "/jobs/JOB/vertices/VERTEX/subtasks/0/attempts/0",
    "/jobs/JOB/vertices/VERTEX/subtasks/0/attempts/0/accumulators",
    "/jobmanager/config",
    "/jobmanager/environment",
    "/jobmanager/metrics",
];

async fn describe(cluster: &Cluster, routes: &[&str], job: JobId, seen: &mut String) {
    for route in routes {
        let vertex = VertexId::from_uid("files").to_string();
        let asked = route.replace("JOB", &job.to_string()).replace("VERTEX", &vertex);
        let mut fields = BTreeSet::new();
        leaves("", &cluster.get(&asked).await, &mut fields);
        writeln!(seen, "GET {route}").unwrap();
        fields.iter().for_each(|f| writeln!(seen, "  {f}").unwrap());
    }
}

#[test]
fn shapes_are_those_that_were_promised() {
    run("shapes", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        worker.log("a.log", "x");
        let job = cluster.submit(word_count()).await;
        let tasks = worker.tasks(job, 0, 6).await;
        for seconds in [1, 2] {
            let read_at = Some(Moment::from_start(Duration::from_secs(seconds)));
            let sample = SubtaskMetrics { busy_ms: seconds * 500, read_at, ..SubtaskMetrics::default() };
            worker.report(job, SubtaskId { vertex: 1, index: 0 }, S::Running, sample).await;
        }
        let mut seen = String::new();
        describe(&cluster, &WHILE_RUNNING, job, &mut seen).await;
        let failure = TaskFailure::new(FailureKind::Incompatible, "another libc");
        let failed = SubtaskId { vertex: 1, index: 0 };
        let measured = SubtaskMetrics { busy_ms: 1, watermark: Some(1), ..SubtaskMetrics::default() };
        worker.report_with(job, failed, S::Failed, measured, Some(failure), None).await;
        for task in tasks.into_iter().filter(|t| *t != failed) {
            worker.report(job, task, S::Canceled, SubtaskMetrics::default()).await;
        }
        let over = async || {
            let result = cluster.get(&format!("/jobs/{job}/execution-result")).await;
            (result["status"]["id"] == "COMPLETED").then_some(())
        };
        cluster.until("it has failed", over).await;
        describe(&cluster, &WHEN_ENDED, job, &mut seen).await;
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rest/shapes.txt");
        if std::env::var_os("THALWEG_BLESS").is_some() {
            std::fs::write(file, &seen).unwrap();
        }
        let promised = std::fs::read_to_string(file).unwrap();
        for (n, (a, b)) in promised.lines().zip(seen.lines()).enumerate() {
            assert_eq!(a, b, "line {}", n + 1);
        }
        assert_eq!(promised.lines().count(), seen.lines().count());
    });
}
