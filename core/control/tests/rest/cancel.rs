//! Writes: with the secret or not at all, and what each state of a job answers to a cancel.

use crate::cluster::{Cluster, run, word_count};
use reqwest::Method;
use serde_json::{Value, json};
use thalweg_model::{ExecutionState as S, SubtaskMetrics};

#[test]
fn writes_need_the_secret() {
    run("secret", async {
        let cluster = Cluster::start().await;
        let job = cluster.submit(word_count()).await;
        let writes = [
            (Method::PATCH, format!("/jobs/{job}?mode=cancel")),
            (Method::GET, format!("/jobs/{job}/yarn-cancel")),
            (Method::GET, format!("/jobs/{job}/yarn-stop")),
            (Method::DELETE, "/cluster".to_owned()),
            (Method::POST, "/api/stop".to_owned()),
        ];
        for (method, route) in writes {
            let without = cluster.request(method.clone(), &route);
            assert_eq!(cluster.refused(without).await.0, 401, "{method} {route}");
            let wrong = cluster.request(method.clone(), &route).bearer_auth("00");
            assert_eq!(cluster.refused(wrong).await.0, 403, "{method} {route}");
        }
        assert_eq!(cluster.get("/config").await["features"]["web-cancel"], false);
        let status = cluster.get(&format!("/jobs/{job}/status")).await;
        assert_eq!(status["status"], "CREATED", "none of them did anything");
    });
}

#[test]
fn a_cancel_is_accepted_once_and_ends_the_job() {
    run("cancel", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        let tasks = worker.tasks(job, 0, 6).await;
        for task in &tasks {
            worker.report(job, *task, S::Running, SubtaskMetrics::default()).await;
        }
        let cancel = || cluster.write(Method::PATCH, &format!("/v1/jobs/{job}?mode=cancel"));
        let answer = cancel().body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({}));
        cluster.until_job_is(job, "CANCELLING").await;
        for task in tasks {
            worker.report(job, task, S::Canceled, SubtaskMetrics::default()).await;
        }
        cluster.until_job_is(job, "CANCELED").await;
        assert_eq!(cancel().send().await.unwrap().status(), 202, "it is what was asked for");
        let overview = async || (cluster.get("/overview").await["jobs-cancelled"] == 1).then_some(());
        cluster.until("the overview counts it", overview).await;
    });
}

#[test]
fn what_cannot_be_cancelled_says_why() {
    run("not cancelled", async {
        let cluster = Cluster::start().await;
        let patch = |route: String| cluster.write(Method::PATCH, &route);
        let (status, message) = cluster.refused(patch(format!("/jobs/{}?mode=cancel", "0".repeat(32)))).await;
        assert_eq!((status, message), (404, format!("Job {} not found", "0".repeat(32))));
        assert_eq!(cluster.refused(patch("/jobs/xyz?mode=cancel".into())).await.0, 400);
        let job = cluster.submit(word_count()).await;
        assert_eq!(cluster.refused(patch(format!("/jobs/{job}?mode=stop"))).await.0, 308);
        assert_eq!(cluster.refused(patch(format!("/jobs/{job}?mode=maim"))).await.0, 400);
        // It fails, and then it is too late.
        let worker = cluster.worker("a:1-x", 2).await;
        let tasks = worker.tasks(job, 0, 6).await;
        let failure = thalweg_model::TaskFailure::new(thalweg_model::FailureKind::Incompatible, "another libc");
        worker.report_with(job, tasks[0], S::Failed, SubtaskMetrics::default(), Some(failure), None).await;
        for task in &tasks[1..] {
            worker.report(job, *task, S::Canceled, SubtaskMetrics::default()).await;
        }
        cluster.until_job_is(job, "FAILED").await;
        let late = cluster.write(Method::GET, &format!("/jobs/{job}/yarn-cancel"));
        let (status, message) = cluster.refused(late).await;
        assert!(status == 409 && message.contains("FAILED"), "{status} {message}");
    });
}

#[test]
fn the_cluster_ends_when_it_is_deleted() {
    run("delete", async {
        let cluster = Cluster::start().await;
        let answer = cluster.write(Method::DELETE, "/v1/cluster").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({}));
        cluster.job_manager.ended().await;
    });
}
