//! TaskManagers as they are listed, and everybody's logs, read whole and from nowhere else.

use crate::cluster::{Cluster, run, word_count};
use reqwest::Method;
use serde_json::json;

async fn text(cluster: &Cluster, route: &str) -> String {
    let answer = cluster.request(Method::GET, route).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{route}");
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain"), "{route}");
    let announced: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let text = answer.text().await.unwrap();
    assert_eq!(text.len(), announced, "{route}");
    text
}

#[test]
fn a_task_manager_is_shown_as_it_presented_itself() {
    run("task manager", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 4).await;
        let job = cluster.submit(word_count()).await;
        worker.tasks(job, 0, 6).await;
        let listed = &cluster.get("/taskmanagers").await["taskmanagers"][0];
        assert_eq!((&listed["id"], &listed["path"]), (&json!("a:1-x"), &json!(worker.info.rpc)));
        assert_eq!((&listed["slotsNumber"], &listed["freeSlots"]), (&json!(4), &json!(2)));
        assert_eq!(listed["hardware"]["cpuCores"], 8);
        assert_eq!(
            (&listed["totalResource"]["taskOffHeapMemory"], &listed["freeResource"]["taskOffHeapMemory"]),
            (&json!(512), &json!(256))
        );
        assert_eq!(listed["memoryConfiguration"]["totalProcessMemory"], 512 << 20);
        let (now, heard) = (cluster.env.clock.wall().0, listed["timeSinceLastHeartbeat"].as_u64().unwrap());
        assert!(heard <= now && now - heard < 30_000, "{heard} {now}");
        let details = cluster.get("/taskmanagers/a:1-x").await;
        let slots = details["allocatedSlots"].as_array().unwrap();
        assert!(slots.len() == 2 && slots.iter().all(|s| s["jobId"] == json!(job)), "{slots:?}");
        assert_eq!(details["metrics"]["heapUsed"], 0);
        assert_eq!(cluster.get("/taskmanagers/a:1-x/metrics").await, json!([{ "id": "numTasks" }]));
        let counted = cluster.get("/taskmanagers/a:1-x/metrics?get=numTasks,other").await;
        assert_eq!(counted, json!([{ "id": "numTasks", "value": "3" }]));
        let all = cluster.get("/taskmanagers/metrics?get=numTasks&agg=sum").await;
        assert_eq!(all, json!([{ "id": "numTasks", "sum": 3.0 }]));
        let own = cluster.get("/jobmanager/metrics?get=numRegisteredTaskManagers,numRunningJobs").await;
        assert_eq!(own[0]["value"], "1");
        assert_eq!(own[1], json!({ "id": "numRunningJobs", "value": "1" }));
    });
}

#[test]
fn logs_of_a_task_manager_are_listed_and_read_whole() {
    run("task manager's logs", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 1).await;
        let long = "0123456789abcdef\n".repeat(200_000);
        worker.log("taskmanager-a.out", "");
        assert_eq!(text(&cluster, "/taskmanagers/a:1-x/log").await, "", "all its lines may be in one file");
        worker.log("taskmanager-a.log", "hello");
        worker.log("jobs/1/a.out", long.clone());
        let listed = cluster.get("/taskmanagers/a:1-x/logs").await;
        assert!(
            listed["logs"]
                .as_array()
                .unwrap()
                .contains(&json!({ "name": "jobs/1/a.out", "size": long.len(), "mtime": 1 }))
        );
        assert_eq!(text(&cluster, "/taskmanagers/a:1-x/log").await, "hello");
        assert_eq!(text(&cluster, "/v1/taskmanagers/a:1-x/stdout").await, "");
        assert!(text(&cluster, "/taskmanagers/a:1-x/logs/jobs/1/a.out").await == long, "in more than one piece");
        assert!(text(&cluster, "/taskmanagers/a%3A1-x/logs/jobs%2F1%2Fa.out").await == long, "as the dashboard asks");
        let absent = cluster.request(Method::GET, "/taskmanagers/a:1-x/logs/absent");
        assert_eq!(cluster.refused(absent).await.0, 404);
    });
}

#[test]
fn logs_of_the_job_manager_are_its_folders_and_nothing_else() {
    run("job manager's logs", async {
        let cluster = Cluster::start().await;
        let dir = cluster.log_dir.path().join("log");
        std::fs::write(dir.join("jobmanager-1.log"), "started").unwrap();
        std::fs::write(dir.join("taskmanager-1.log"), "another's").unwrap();
        std::fs::write(dir.join("main.out"), "printed").unwrap();
        std::fs::write(cluster.log_dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(cluster.log_dir.path().join("secret"), dir.join("link.log")).unwrap();
        let listed = cluster.get("/jobmanager/logs").await;
        assert_eq!(listed["logs"].as_array().unwrap().len(), 3);
        assert_eq!(text(&cluster, "/jobmanager/log").await, "started");
        assert_eq!(text(&cluster, "/jobmanager/stdout").await, "printed");
        assert_eq!(text(&cluster, "/v1/jobmanager/logs/main.out").await, "printed");
        for bad in ["..%2Fsecret", "%2e%2e%2Fsecret", "link.log", "absent", "%2Fetc%2Fpasswd", ".."] {
            // As it stands: a client would tidy the path up before it asks.
            let url = format!("{}{bad}", cluster.url("/jobmanager/logs/"));
            let answer = reqwest::get(&url).await.unwrap();
            assert!(answer.status() == 404 || !answer.text().await.unwrap().contains('x'), "{bad}");
        }
        let config = cluster.get("/jobmanager/config").await;
        assert_eq!(
            config,
            json!([{ "key": "rest.port", "value": "0" }, { "key": "security.secret-file", "value": "******" }])
        );
        assert_eq!(cluster.get("/jobmanager/environment").await["jvm"]["arch"], std::env::consts::ARCH);
    });
}
