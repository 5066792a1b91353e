//! Bad requests: the right status, and Flink's form whoever refuses.

use crate::cluster::{Cluster, MAX_BODY, run, word_count};
use reqwest::Method;
use thalweg_model::VertexId;

#[test]
fn what_is_not_there_is_404_and_what_is_malformed_is_400() {
    run("refusals", async {
        let cluster = Cluster::start().await;
        let job = cluster.submit(word_count()).await;
        let (nobody, vertex) = ("0".repeat(32), VertexId::from_uid("count"));
        for (route, status) in [
            (format!("/jobs/{nobody}"), 404),
            (format!("/jobs/{nobody}/exceptions"), 404),
            ("/jobs/zz".into(), 400),
            (format!("/jobs/{job}/nothing"), 404),
            (format!("/jobs/{job}/vertices/{nobody}"), 404),
            (format!("/jobs/{job}/vertices/zz"), 400),
            (format!("/jobs/{job}/vertices/{vertex}/subtasks/2"), 404),
            (format!("/jobs/{job}/vertices/{vertex}/subtasks/-1"), 400),
            (format!("/jobs/{job}/vertices/{vertex}/subtasks/0/attempts/9"), 404),
            (format!("/jobs/{job}/vertices/{vertex}/subtasks/metrics?get=numRecordsIn&agg=mode"), 400),
            (format!("/jobs/{job}/vertices/{vertex}/subtasks/metrics?get=numRecordsIn&subtasks=a-b"), 400),
            (format!("/jobs/{job}/exceptions?maxExceptions=many"), 400),
            (format!("/jobs/{job}/checkpoints"), 404),
            (format!("/jobs/{job}/%FF"), 404),
            ("/jobs/%FF".into(), 400),
            ("/taskmanagers/nobody".into(), 404),
            ("/taskmanagers/nobody/logs".into(), 404),
            ("/taskmanagers/nobody/log".into(), 404),
            ("/jobmanager/log".into(), 404),
            ("/nothing".into(), 404),
        ] {
            for prefix in ["", "/v1"] {
                let route = format!("{prefix}{route}");
                assert_eq!(cluster.refused(cluster.request(Method::GET, &route)).await.0, status, "{route}");
            }
        }
        assert_eq!(cluster.refused(cluster.request(Method::PUT, "/jobs/overview")).await.0, 405);
        assert_eq!(cluster.refused(cluster.request(Method::GET, "/cluster")).await.0, 405);
    });
}

#[test]
fn bodies_that_are_malformed_or_too_large_are_refused() {
    run("bodies", async {
        let cluster = Cluster::start().await;
        let job = cluster.submit(word_count()).await;
        let patch = || cluster.write(Method::PATCH, &format!("/jobs/{job}?mode=cancel"));
        for body in ["{", "[1]", "7", "{\"a\":1}}", "\u{0}"] {
            let (status, message) = cluster.refused(patch().body(body)).await;
            assert!(status == 400 && message.contains("the body"), "{body:?}: {status} {message}");
        }
        assert_eq!(cluster.refused(patch().body(" ".repeat(MAX_BODY + 1))).await.0, 413);
        let submission = || cluster.write(Method::POST, "/api/jobs");
        assert_eq!(cluster.refused(submission().body("garbage")).await.0, 400);
        assert_eq!(cluster.get(&format!("/jobs/{job}/status")).await["status"], "CREATED", "it was not cancelled");
        // Fields that a route does not know are ignored.
        assert_eq!(patch().body("{\"later\":1}").send().await.unwrap().status(), 202);
    });
}
