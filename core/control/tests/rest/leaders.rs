//! What REST answers before there is a leader, and what a later leader still knows of a job.

use crate::cluster::{Cluster, run, speaks, word_count};
use serde_json::{Value, json};
use std::sync::Arc;
use thalweg_control::rest::RestServer;
use thalweg_env::{Address, Env, Shutdown};
use thalweg_rpc::Role;
use thalweg_testkit::doubles::{blob::MemoryBlobs, high_availability::MemoryCluster};

#[test]
fn before_there_is_a_leader_clients_are_told_to_try_again() {
    run("no leader", async {
        let env = Env::system(tokio::runtime::Handle::current());
        let dir = tempfile::tempdir().unwrap();
        let config = Cluster::config(&env, dir.path().to_owned());
        let (at, shutdown) = (Address::Tcp("127.0.0.1:0".into()), Shutdown::new());
        let secret = speaks(&env, Role::JobManager).secret;
        let blobs = Arc::new(MemoryBlobs::default());
        let server = RestServer::bind(&env, &at, &config, secret, blobs, shutdown.child()).await.unwrap();
        for route in ["/overview", "/jobs", "/jobs/overview", "/taskmanagers"] {
            let answer = reqwest::get(format!("{}{route}", server.url())).await.unwrap();
            assert_eq!(answer.status(), 503, "Flink's command line retries on this and on nothing else");
            let body: Value = answer.json().await.unwrap();
            assert!(body["errors"][0].as_str().unwrap().contains("leader election"), "{body}");
        }
        for route in ["/config", "/", "/jobmanager/config"] {
            assert_eq!(reqwest::get(format!("{}{route}", server.url())).await.unwrap().status(), 200, "{route}");
        }
        shutdown.trigger();
    });
}

#[test]
fn a_later_leader_shows_what_is_left_of_an_ended_job() {
    run("later leader", async {
        let store = MemoryCluster::default();
        let first = Cluster::start_on(&store).await;
        let job = first.submit(word_count()).await;
        first.job_manager.dispatcher().cancel(job).await;
        first.job_manager.dispatcher().result(job).await.unwrap();
        let before = first.get(&format!("/jobs/{job}")).await;
        first.job_manager.close(None).await;
        let second = Cluster::start_on(&store).await;
        let after = second.get(&format!("/jobs/{job}")).await;
        for field in ["jid", "name", "state", "start-time", "end-time", "duration"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert_eq!((&after["vertices"], &after["timestamps"]["CANCELED"]), (&json!([]), &after["end-time"]));
        let result = second.get(&format!("/jobs/{job}/execution-result")).await;
        assert_eq!(result["job-execution-result"]["application-status"], "CANCELED");
        assert_eq!(second.get("/overview").await["jobs-cancelled"], 1);
    });
}
