//! What went wrong is told with its name, its task and its place, and the next attempt is counted.

use crate::cluster::{Cluster, run, word_count};
use serde_json::json;
use thalweg_model::{ExecutionState as S, FailureKind, SubtaskId, SubtaskMetrics, TaskFailure, VertexId};

#[test]
fn a_failed_task_is_named_and_the_next_attempt_is_shown() {
    run("failed task", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        for task in worker.tasks(job, 0, 6).await {
            worker.report(job, task, S::Running, SubtaskMetrics { records_in: 5, ..Default::default() }).await;
        }
        let mut failure = TaskFailure::new(FailureKind::UserPanic, "attempt to divide by zero");
        failure.uid = Some("count".into());
        failure.detail = Some("at count.rs:7".into());
        let count = SubtaskId { vertex: 2, index: 1 };
        worker.report_with(job, count, S::Failed, SubtaskMetrics::default(), Some(failure), None).await;
        worker.tasks(job, 1, 6).await;
        cluster.until_job_is(job, "RUNNING").await;
        let history = &cluster.get(&format!("/jobs/{job}/exceptions")).await["exceptionHistory"];
        let entry = &history["entries"][0];
        assert_eq!((history["entries"].as_array().unwrap().len(), &history["truncated"]), (1, &json!(false)));
        assert_eq!((&entry["exceptionName"], &entry["taskManagerId"]), (&json!("UserPanic"), &json!("a:1-x")));
        assert_eq!(entry["taskName"], "count <i> (2/2) - execution #0");
        let trace = entry["stacktrace"].as_str().unwrap();
        assert!(trace.contains("divide by zero") && trace.contains("at count.rs:7"), "{trace}");
        assert_eq!(entry["failureLabels"], json!({ "kind": "UserPanic", "attempt": "0", "operator": "count" }));
        for (query, found) in [
            ("failureLabelFilter=kind:UserPanic,attempt:0", 1),
            ("failureLabelFilter=kind:Lost", 0),
            ("maxExceptions=0", 0),
        ] {
            let history = cluster.get(&format!("/jobs/{job}/exceptions?{query}")).await;
            let entries = history["exceptionHistory"]["entries"].as_array().unwrap().len();
            assert_eq!(entries, found, "{query}");
        }
        // Every task started afresh, and its earlier attempt is no longer there.
        let route = format!("/jobs/{job}/vertices/{}/subtasks/1", VertexId::from_uid("count"));
        let subtask = cluster.get(&route).await;
        assert_eq!((&subtask["attempt"], &subtask["metrics"]["read-records"]), (&json!(1), &json!(0)));
        let gone = cluster.request(reqwest::Method::GET, &format!("{route}/attempts/0"));
        assert_eq!(cluster.refused(gone).await.0, 404);
        assert_eq!(cluster.get(&format!("/jobs/{job}/metrics?get=numRestarts")).await[0]["value"], "1");
    });
}

#[test]
fn a_lost_task_manager_is_named_and_is_no_longer_listed() {
    run("lost", async {
        let cluster = Cluster::start().await;
        let (a, b) = (cluster.worker("a:1-x", 1).await, cluster.worker("b:1-x", 1).await);
        let job = cluster.submit(word_count()).await;
        a.tasks(job, 0, 4).await;
        for task in b.tasks(job, 0, 2).await {
            b.report(job, task, S::Running, SubtaskMetrics::default()).await;
        }
        b.die();
        let lost = async || {
            let history = cluster.get(&format!("/jobs/{job}/exceptions")).await;
            history["exceptionHistory"]["entries"].get(0).cloned()
        };
        let entry = cluster.until("the loss is told", lost).await;
        assert_eq!((&entry["exceptionName"], &entry["taskManagerId"]), (&json!("Lost"), &json!("b:1-x")));
        assert!(entry["stacktrace"].as_str().unwrap().contains("TaskManager b:1-x was lost"), "{entry}");
        assert_eq!(entry.get("taskName"), None, "it is not of one task");
        let listed = cluster.get("/taskmanagers").await;
        assert_eq!(
            (listed["taskmanagers"].as_array().unwrap().len(), &listed["taskmanagers"][0]["id"]),
            (1, &json!("a:1-x"))
        );
        let gone = cluster.request(reqwest::Method::GET, "/taskmanagers/b:1-x");
        assert_eq!(cluster.refused(gone).await.0, 404);
        // A spare one takes over.
        let c = cluster.worker("c:1-x", 1).await;
        c.tasks(job, 1, 2).await;
    });
}

#[test]
fn a_loss_that_a_peer_told_first_is_named_all_the_same() {
    run("told by a peer", async {
        let cluster = Cluster::start().await;
        let (a, b) = (cluster.worker("a:1-x", 1).await, cluster.worker("b:1-x", 1).await);
        let job = cluster.submit(word_count()).await;
        b.tasks(job, 0, 2).await;
        let tasks = a.tasks(job, 0, 4).await;
        b.hang();
        let failure = TaskFailure::new(FailureKind::Lost, "b has closed the connection");
        a.report_with(job, tasks[2], S::Failed, SubtaskMetrics::default(), Some(failure), None).await;
        cluster.until_job_is(job, "RESTARTING").await;
        b.die();
        let named = async || {
            let history = cluster.get(&format!("/jobs/{job}/exceptions")).await;
            let entries = history["exceptionHistory"]["entries"].as_array().unwrap().clone();
            (entries.len() == 2).then_some(entries)
        };
        let newest_first = cluster.until("the loss is told", named).await;
        assert_eq!(newest_first[0]["taskManagerId"], "b:1-x");
        assert!(newest_first[0]["stacktrace"].as_str().unwrap().contains("TaskManager b:1-x was lost"));
        assert_eq!(
            (&newest_first[1]["taskManagerId"], &newest_first[1]["exceptionName"]),
            (&json!("a:1-x"), &json!("Lost"))
        );
    });
}
