//! What REST tells of a job is what its tasks reported: states, records, bytes, times, places.

use crate::cluster::{Cluster, run, word_count};
use serde_json::{Value, json};
use std::time::Duration;
use thalweg_model::{ExecutionState as S, LatencyMillis, Moment, SubtaskId, SubtaskMetrics, UserMetric, VertexId};

fn at(vertex: u32, index: u32) -> SubtaskId {
    SubtaskId { vertex, index }
}

fn counted(records_in: u64, records_out: u64, bytes_in: u64, bytes_out: u64) -> SubtaskMetrics {
    SubtaskMetrics { records_in, records_out, bytes_in, bytes_out, ..SubtaskMetrics::default() }
}

fn numbers(metrics: &Value) -> [u64; 4] {
    ["read-records", "write-records", "read-bytes", "write-bytes"].map(|name| metrics[name].as_u64().unwrap())
}

fn by_id<'a>(list: &'a Value, name: &str, value: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|v| v[name] == value).unwrap_or_else(|| panic!("no {value} in {list}"))
}

#[test]
fn a_job_that_waits_for_slots_is_shown_whole() {
    run("waits", async {
        let cluster = Cluster::start().await;
        let job = cluster.submit(word_count()).await;
        let details = cluster.get(&format!("/jobs/{job}")).await;
        assert_eq!((&details["state"], &details["end-time"]), (&json!("CREATED"), &json!(-1)));
        assert_eq!(details["vertices"].as_array().unwrap().len(), 4);
        let source = by_id(&details["vertices"], "id", &VertexId::from_uid("files").to_string());
        assert_eq!((&source["status"], &source["tasks"]["CREATED"]), (&json!("CREATED"), &json!(2)));
        assert_eq!((&source["start-time"], &source["duration"]), (&json!(-1), &json!(-1)));
        let why = async || cluster.get(&format!("/jobs/{job}")).await["waiting"].as_str().map(str::to_owned);
        assert_eq!(cluster.until("it says what it waits for", why).await, "needs 2 more slots, 0 free");
        let subtask = cluster.get(&format!("/jobs/{job}/vertices/{}/subtasks/1", VertexId::from_uid("files"))).await;
        assert_eq!(
            (&subtask["endpoint"], &subtask["taskmanager-id"]),
            (&json!("(unassigned)"), &json!("(unassigned)"))
        );
        let overview = cluster.get("/overview").await;
        assert_eq!((&overview["jobs-running"], &overview["slots-total"]), (&json!(1), &json!(0)));
    });
}

#[test]
fn the_numbers_of_a_running_job_are_those_that_were_reported() {
    run("running", async {
        let cluster = Cluster::start().await;
        let (a, b) = (cluster.worker("a:1-x", 1).await, cluster.worker("b:1-x", 1).await);
        let before = cluster.env.clock.wall().0;
        let job = cluster.submit(word_count()).await;
        // Subtask i of each vertex is in slot i; coordinator and committer are beside subtask 0.
        assert_eq!(a.tasks(job, 0, 4).await, [at(0, 0), at(1, 0), at(2, 0), at(3, 0)]);
        assert_eq!(b.tasks(job, 0, 2).await, [at(1, 1), at(2, 1)]);
        for (worker, vertex, index) in [(&a, 0, 0), (&a, 1, 0), (&a, 2, 0), (&a, 3, 0), (&b, 1, 1), (&b, 2, 1)] {
            worker.report(job, at(vertex, index), S::Initializing, SubtaskMetrics::default()).await;
            worker.report(job, at(vertex, index), S::Running, SubtaskMetrics::default()).await;
        }
        a.report(job, at(1, 0), S::Running, counted(100, 70, 0, 700)).await;
        b.report(job, at(1, 1), S::Running, counted(50, 30, 0, 300)).await;
        a.report(job, at(2, 0), S::Running, counted(60, 6, 300, 0)).await;
        b.report(job, at(2, 1), S::Finished, counted(40, 4, 700, 70)).await;

        let details = cluster.get(&format!("/jobs/{job}")).await;
        assert_eq!(
            (&details["state"], &details["job-type"], &details["jid"]),
            (&json!("RUNNING"), &json!("BATCH"), &json!(job))
        );
        assert_eq!(details["name"], "words <b>&</b>");
        assert_eq!(details["status-counts"]["RUNNING"], 4);
        let (source, count) = (VertexId::from_uid("files"), VertexId::from_uid("count"));
        let vertex = by_id(&details["vertices"], "id", &source.to_string());
        assert_eq!(numbers(&vertex["metrics"]), [150, 100, 0, 1000]);
        assert_eq!((&vertex["role"], &vertex["tasks"]["RUNNING"]), (&json!("task"), &json!(2)));
        let vertex = by_id(&details["vertices"], "id", &count.to_string());
        assert_eq!(numbers(&vertex["metrics"]), [100, 10, 1000, 70]);
        assert_eq!((&vertex["status"], &vertex["end-time"]), (&json!("RUNNING"), &json!(-1)));
        assert_eq!((&vertex["tasks"]["RUNNING"], &vertex["tasks"]["FINISHED"]), (&json!(1), &json!(1)));

        // Times: each state was entered after the one before it, and all of them in this test.
        let times = cluster.get(&format!("/jobs/{job}/vertices/{count}/subtasktimes")).await;
        let (now, entered) = (times["now"].as_u64().unwrap(), &times["subtasks"][1]["timestamps"]);
        let in_order = ["CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING", "RUNNING", "FINISHED"];
        let in_order: Vec<u64> = in_order.iter().map(|s| entered[s].as_u64().unwrap()).collect();
        assert!(before <= in_order[0] && in_order.is_sorted() && in_order[5] <= now, "{before} {in_order:?} {now}");
        assert_eq!(entered["FAILED"], 0);
        assert_eq!(times["subtasks"][1]["duration"], in_order[5] - in_order[2]);
        assert_eq!(details["timestamps"]["CREATED"], details["start-time"]);
        assert!(details["timestamps"]["RUNNING"].as_u64().unwrap() >= before);

        // Places.
        let endpoint = |w: &crate::worker::Worker| w.info.rpc.strip_prefix("tcp://").unwrap().to_owned();
        let vertex = cluster.get(&format!("/jobs/{job}/vertices/{count}")).await;
        for (i, worker) in [(0, &a), (1, &b)] {
            let subtask = &vertex["subtasks"][i];
            assert_eq!(
                (&subtask["endpoint"], &subtask["taskmanager-id"]),
                (&json!(endpoint(worker)), &json!(worker.info.id))
            );
            let alone = cluster.get(&format!("/jobs/{job}/vertices/{count}/subtasks/{i}")).await;
            assert_eq!((&alone["metrics"], &alone["attempt"]), (&subtask["metrics"], &json!(0)));
            let under = cluster.get(&format!("/jobs/{job}/vertices/{count}/subtasks/{i}/attempts/0")).await;
            assert_eq!(under["start_time"], subtask["start-time"]);
        }
        assert_eq!(vertex["aggregated"]["metrics"]["read-records"]["sum"], 100);
        let places = cluster.get(&format!("/jobs/{job}/vertices/{source}/taskmanagers")).await;
        let place = by_id(&places["taskmanagers"], "taskmanager-id", "b:1-x");
        assert_eq!((numbers(&place["metrics"]), &place["status-counts"]["RUNNING"]), ([50, 30, 0, 300], &json!(1)));

        // Metrics by name.
        let route = format!("/jobs/{job}/vertices/{source}");
        let listed = cluster.get(&format!("{route}/metrics")).await;
        assert!(listed.as_array().unwrap().contains(&json!({ "id": "1.numRecordsOut" })));
        let got = cluster.get(&format!("{route}/metrics?get=1.numRecordsIn,0.numBytesOut,0.unknown")).await;
        assert_eq!(got, json!([{ "id": "0.numBytesOut", "value": "700" }, { "id": "1.numRecordsIn", "value": "50" }]));
        let got =
            cluster.get(&format!("{route}/subtasks/metrics?get=numRecordsIn,busyTimeMsPerSecond&agg=sum,MAX")).await;
        assert_eq!(got, json!([{ "id": "numRecordsIn", "sum": 150.0, "max": 100.0 }]));
        let got = cluster.get(&format!("{route}/subtasks/metrics?get=numRecordsIn&subtasks=1-7&agg=avg")).await;
        assert_eq!(got, json!([{ "id": "numRecordsIn", "avg": 50.0 }]));
        assert_eq!(cluster.get(&format!("{route}/watermarks")).await, json!([]), "nobody has told one");

        // What a task counts between two changes is asked for when somebody looks, and not with the next heartbeat, which
        // is ten seconds away.
        b.counts(job, at(1, 1), counted(51, 31, 0, 310));
        let told = async || {
            let details = cluster.get(&format!("/jobs/{job}")).await;
            let vertex = by_id(&details["vertices"], "id", &source.to_string());
            (numbers(&vertex["metrics"]) == [151, 101, 0, 1010]).then_some(())
        };
        cluster.until("looking brings newer numbers", told).await;

        assert!(cluster.env.clock.wall().0 - before < 10_000, "a heartbeat may have brought them");

        // Slots and lists.
        let overview = cluster.get("/overview").await;
        assert_eq!((&overview["taskmanagers"], &overview["slots-available"]), (&json!(2), &json!(0)));
        let brief = &cluster.get("/jobs/overview").await["jobs"][0];
        assert_eq!(
            (&brief["tasks"]["total"], &brief["tasks"]["running"], &brief["tasks"]["finished"]),
            (&json!(6), &json!(5), &json!(1))
        );
        assert_eq!(cluster.get("/jobs").await, json!({ "jobs": [{ "id": job, "status": "RUNNING" }] }));
        let result = cluster.get(&format!("/jobs/{job}/execution-result")).await;
        assert_eq!(result, json!({ "status": { "id": "IN_PROGRESS" } }));
    });
}

/// Read at so many milliseconds of the host's clock.
fn read_at(ms: u64, metrics: SubtaskMetrics) -> SubtaskMetrics {
    SubtaskMetrics { read_at: Some(Moment::from_start(Duration::from_millis(ms))), ..metrics }
}

/// Milliseconds.
fn timed(busy: u64, idle: u64, held: u64) -> SubtaskMetrics {
    SubtaskMetrics { busy_ms: busy, idle_ms: idle, back_pressured_ms: held, ..SubtaskMetrics::default() }
}

#[test]
fn times_watermarks_and_late_records_have_flinks_names() {
    run("times", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        worker.tasks(job, 0, 6).await;
        let (source, count) = (VertexId::from_uid("files"), VertexId::from_uid("count"));
        let (source, count) = (format!("/jobs/{job}/vertices/{source}"), format!("/jobs/{job}/vertices/{count}"));
        let none = cluster.get(&format!("{source}/backpressure")).await;
        assert_eq!(none, json!({ "status": "deprecated" }), "before anything was measured");

        // What they did before shows in no rate.
        worker.report(job, at(1, 0), S::Initializing, read_at(70_000, timed(60_000, 0, 0))).await;
        worker.report(job, at(1, 1), S::Initializing, read_at(80_000, timed(0, 60_000, 0))).await;
        assert_eq!(cluster.get(&format!("{source}/backpressure")).await, none, "one sample is no rate");
        worker.report(job, at(1, 0), S::Running, read_at(72_000, timed(60_200, 100, 1700))).await;
        worker.report(job, at(1, 1), S::Running, read_at(81_000, timed(900, 60_060, 40))).await;
        let latency = Some(LatencyMillis { p50: 4, p95: 8, p99: 9, max: 12 });
        let queues = SubtaskMetrics { input_queue: 3, output_queue: 1, latency, ..timed(30, 10, 0) };
        let told = SubtaskMetrics { late_dropped: 7, watermark: Some(-5), ..queues };
        worker.report(job, at(2, 0), S::Running, told).await;
        let details = cluster.get(&format!("/jobs/{job}")).await;
        let vertex = by_id(&details["vertices"], "id", &VertexId::from_uid("files").to_string());
        let times = |metrics: &Value| {
            ["busy", "idle", "backpressured"].map(|n| metrics[format!("accumulated-{n}-time")].as_f64().unwrap())
        };
        assert_eq!(times(&vertex["metrics"]), [61_100.0, 60_160.0, 1740.0]);
        let vertex = cluster.get(&source).await;
        assert_eq!(times(&vertex["subtasks"][1]["metrics"]), [900.0, 60_060.0, 40.0]);
        let aggregated = &vertex["aggregated"]["metrics"];
        let most =
            ["busy", "idle", "backpressured"].map(|n| aggregated[format!("accumulated-{n}-time")]["max"].clone());
        assert_eq!(most, [60_200, 60_060, 1700]);

        let pressure = cluster.get(&format!("{source}/backpressure")).await;
        assert_eq!((&pressure["status"], &pressure["backpressureLevel"]), (&json!("ok"), &json!("high")));
        assert_eq!(
            pressure["subtasks"],
            json!([
                { "subtask": 0, "attempt-number": 0, "backpressureLevel": "high", "backpressure-level": "high",
                  "ratio": 0.85, "idleRatio": 0.05, "busyRatio": 0.1 },
                { "subtask": 1, "attempt-number": 0, "backpressureLevel": "ok", "backpressure-level": "ok",
                  "ratio": 0.04, "idleRatio": 0.06, "busyRatio": 0.9 },
            ])
        );
        assert!(pressure["end-timestamp"].as_u64().unwrap() >= details["now"].as_u64().unwrap());

        let get = "accumulateBusyTimeMs,accumulateIdleTimeMs,accumulateBackPressuredTimeMs,numLateRecordsDropped,\
                   currentInputWatermark,busyTimeMsPerSecond,\
                   buffers.inputQueueLength,buffers.outputQueueLength,\
                   latency.p50,latency.p95,latency.p99,latency.max";
        let got = cluster.get(&format!("{count}/subtasks/0/metrics?get={get}")).await;
        let value = |id: &str, value: &str| json!({ "id": id, "value": value });
        let mut wanted = vec![
            value("accumulateBusyTimeMs", "30"),
            value("accumulateIdleTimeMs", "10"),
            value("accumulateBackPressuredTimeMs", "0"),
            value("buffers.inputQueueLength", "3"),
            value("buffers.outputQueueLength", "1"),
            value("latency.p50", "4"),
            value("latency.p95", "8"),
            value("latency.p99", "9"),
            value("latency.max", "12"),
            value("numLateRecordsDropped", "7"),
            value("currentInputWatermark", "-5"),
        ];
        assert_eq!(got, json!(wanted));
        // The other subtask has heard of no time yet, nor got a marker.
        wanted.truncate(10);
        wanted.drain(5..9);
        wanted.iter_mut().for_each(|v| v["value"] = json!("0"));
        assert_eq!(cluster.get(&format!("{count}/subtasks/1/metrics?get={get}")).await, json!(wanted));
        let got = cluster.get(&format!("{count}/watermarks")).await;
        assert_eq!(got, json!([value("0.currentInputWatermark", "-5")]));
        let got = cluster.get(&format!("{count}/subtasks/metrics?get=currentInputWatermark&agg=min,max,avg")).await;
        assert_eq!(got, json!([{ "id": "currentInputWatermark", "min": -5.0, "max": -5.0, "avg": -5.0 }]));
        let get = "busyTimeMsPerSecond,idleTimeMsPerSecond,backPressuredTimeMsPerSecond";
        let got = cluster.get(&format!("{source}/subtasks/0/metrics?get={get}")).await;
        assert_eq!(
            got,
            json!([
                value("busyTimeMsPerSecond", "100"),
                value("idleTimeMsPerSecond", "50"),
                value("backPressuredTimeMsPerSecond", "850"),
            ])
        );
        let listed = cluster.get(&format!("{source}/subtasks/metrics")).await;
        assert!(listed.as_array().unwrap().contains(&json!({ "id": "accumulateIdleTimeMs" })));
        assert!(!listed.as_array().unwrap().contains(&json!({ "id": "currentInputWatermark" })), "{listed}");
    });
}

#[test]
fn rates_are_of_lately_and_of_those_that_run() {
    run("rates", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        worker.tasks(job, 0, 6).await;
        let source = format!("/jobs/{job}/vertices/{}", VertexId::from_uid("files"));
        let names = "numRecordsInPerSecond,numRecordsOutPerSecond,numBytesInPerSecond,numBytesOutPerSecond";
        let got = async |get: &str| cluster.get(&format!("{source}/subtasks/metrics?get={get}&agg=sum,max")).await;
        let tell = async |index, ms, metrics| {
            worker.report(job, at(1, index), S::Running, read_at(ms, metrics)).await;
        };
        tell(0, 1000, counted(1_000_000, 500_000, 0, 9_000_000)).await;
        tell(1, 5000, counted(0, 0, 0, 0)).await;
        assert_eq!(got(names).await, json!([]), "how much it was in all is no rate");
        tell(0, 1200, counted(1_000_100, 500_050, 0, 9_000_400)).await;
        assert_eq!(got(names).await, json!([]), "too close together");
        tell(0, 3000, counted(1_000_500, 500_250, 0, 9_001_000)).await;
        tell(1, 6500, counted(150, 12, 21, 0)).await;
        let sum_and_max = |id: &str, sum: f64, max: f64| json!({ "id": id, "sum": sum, "max": max });
        assert_eq!(
            got(names).await,
            json!([
                sum_and_max("numRecordsInPerSecond", 350.0, 250.0),
                sum_and_max("numRecordsOutPerSecond", 133.0, 125.0),
                sum_and_max("numBytesInPerSecond", 14.0, 14.0),
                sum_and_max("numBytesOutPerSecond", 500.0, 500.0),
            ])
        );
        let one = cluster.get(&format!("{source}/metrics?get=0.numRecordsInPerSecond,1.numRecordsInPerSecond")).await;
        assert_eq!(one[0], json!({ "id": "0.numRecordsInPerSecond", "value": "250.0" }));
        assert_eq!(one[1], json!({ "id": "1.numRecordsInPerSecond", "value": "100.0" }));

        // Heartbeats bring samples as reports do, each look asks for them, and what came before is late.
        worker.counts(job, at(1, 0), read_at(5000, counted(1_000_500, 500_250, 0, 9_001_000)));
        let stands = async || {
            let one = cluster.get(&format!("{source}/metrics?get=0.numRecordsInPerSecond")).await;
            (one[0]["value"] == "0.0").then_some(())
        };
        cluster.until("it is seen to have stopped", stands).await;
        tell(0, 4000, counted(1_000_400, 0, 0, 0)).await;
        assert_eq!(cluster.get(&format!("{source}/metrics?get=0.numRecordsIn")).await[0]["value"], "1000500");

        worker.report(job, at(1, 1), S::Finished, read_at(9000, counted(900, 90, 20, 0))).await;
        let got = got("numRecordsInPerSecond").await;
        assert_eq!(got, json!([{ "id": "numRecordsInPerSecond", "sum": 0.0, "max": 0.0 }]), "who has ended has none");
    });
}

#[test]
fn what_functions_count_is_shown_behind_their_names() {
    run("user metrics", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        worker.tasks(job, 0, 6).await;
        let count = format!("/jobs/{job}/vertices/{}", VertexId::from_uid("count"));
        let metric = |name: &str, value, is_rate| UserMetric { operator: 0, name: name.into(), value, is_rate };
        let stranger = UserMetric { operator: 99, ..metric("lost", 1, false) };
        let told = vec![metric("seen", 7, false), metric("bad", 2500, true), metric("ms_p99", -1, false), stranger];
        let told = SubtaskMetrics { user: told, ..counted(1, 0, 0, 0) };
        worker.report(job, at(2, 0), S::Running, told.clone()).await;
        let more = SubtaskMetrics { user: vec![metric("seen", 3, false)], ..counted(2, 0, 0, 0) };
        worker.report(job, at(2, 1), S::Running, more).await;

        // The operator is called "count <i>".
        let listed = cluster.get(&format!("{count}/metrics")).await;
        let ids: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
        let users: Vec<&&str> = ids.iter().filter(|id| id.contains("count_")).collect();
        let all = ["0.count_<i>.seen", "0.count_<i>.bad", "0.count_<i>.ms_p99", "1.count_<i>.seen"];
        assert_eq!(users, all.iter().collect::<Vec<_>>());
        let value = |id: &str, value: &str| json!({ "id": id, "value": value });
        let got = cluster.get(&format!("{count}/metrics?get=0.count_%3Ci%3E.seen,0.count_%3Ci%3E.bad")).await;
        assert_eq!(got, json!([value("0.count_<i>.seen", "7"), value("0.count_<i>.bad", "2.5")]));
        let got = cluster.get(&format!("{count}/subtasks/0/metrics?get=count_%3Ci%3E.ms_p99,numRecordsIn")).await;
        assert_eq!(got, json!([value("numRecordsIn", "1"), value("count_<i>.ms_p99", "-1")]));
        let got = cluster.get(&format!("{count}/subtasks/metrics?get=count_%3Ci%3E.seen&agg=sum,max")).await;
        assert_eq!(got, json!([{ "id": "count_<i>.seen", "sum": 10.0, "max": 7.0 }]));

        worker.report(job, at(2, 0), S::Finished, told).await;
        let got = cluster.get(&format!("{count}/subtasks/0/metrics?get=count_%3Ci%3E.seen,count_%3Ci%3E.bad")).await;
        assert_eq!(got, json!([value("count_<i>.seen", "7")]), "who has ended has no rate");
    });
}

#[test]
fn a_finished_job_has_its_last_numbers_and_its_result() {
    run("finished", async {
        let cluster = Cluster::start().await;
        let worker = cluster.worker("a:1-x", 2).await;
        let job = cluster.submit(word_count()).await;
        for task in worker.tasks(job, 0, 6).await {
            worker.report(job, task, S::Running, SubtaskMetrics::default()).await;
        }
        for (task, n) in [(at(0, 0), 1), (at(1, 0), 10), (at(1, 1), 20), (at(2, 0), 15), (at(2, 1), 15)] {
            worker.report(job, task, S::Finished, counted(n, n, 0, 0)).await;
        }
        worker.report_with(job, at(3, 0), S::Running, counted(9, 0, 0, 0), None, Some("manifest".into())).await;
        assert_eq!(cluster.get(&format!("/jobs/{job}/status")).await["status"], "RUNNING", "it is not published yet");
        // What is reported before the commit is written down must not end it.
        let committed = async || {
            worker.report(job, at(3, 0), S::Finished, counted(9, 0, 0, 0)).await;
            (cluster.get(&format!("/jobs/{job}/status")).await["status"] == "FINISHED").then_some(())
        };
        cluster.until("it finishes", committed).await;
        let result = async || {
            let result = cluster.get(&format!("/jobs/{job}/execution-result")).await;
            (result["status"]["id"] == "COMPLETED").then_some(result)
        };
        let result = cluster.until("its result is written down", result).await;
        assert_eq!(result["job-execution-result"]["application-status"], "SUCCEEDED");
        let details = cluster.get(&format!("/jobs/{job}")).await;
        let (start, end) = (details["start-time"].as_u64().unwrap(), details["end-time"].as_u64().unwrap());
        assert_eq!((&details["duration"], &details["timestamps"]["FINISHED"]), (&json!(end - start), &json!(end)));
        assert_eq!(result["job-execution-result"]["net-runtime"], end - start);
        let source = by_id(&details["vertices"], "id", &VertexId::from_uid("files").to_string());
        assert_eq!((&source["status"], numbers(&source["metrics"])), (&json!("FINISHED"), [30, 30, 0, 0]));
        assert!(source["end-time"].as_u64().unwrap() <= end);
        assert_eq!(cluster.get("/overview").await["jobs-finished"], 1);
        assert_eq!(cluster.get(&format!("/jobs/{job}/exceptions")).await["exceptionHistory"]["entries"], json!([]));
    });
}

#[test]
fn plan_and_configuration_are_the_jobs() {
    run("plan", async {
        let cluster = Cluster::start().await;
        let job = cluster.submit(word_count()).await;
        let plan = &cluster.get(&format!("/jobs/{job}/plan")).await["plan"];
        assert_eq!(
            (&plan["jid"], &plan["type"], &plan["name"]),
            (&json!(job), &json!("BATCH"), &json!("words <b>&</b>"))
        );
        let count = by_id(&plan["nodes"], "id", &VertexId::from_uid("count").to_string());
        assert_eq!(count["description"], "count &lt;i&gt;", "the dashboard shows it as HTML");
        let source = VertexId::from_uid("files");
        assert_eq!(
            count["inputs"],
            json!([{ "num": 0, "id": source, "ship_strategy": "HASH", "exchange": "pipelined_bounded" }])
        );
        let coordinator = by_id(&plan["nodes"], "id", &VertexId::from_uid("files/coordinator").to_string());
        assert_eq!(coordinator.get("inputs"), None, "a feedback edge carries no records");
        assert_eq!(cluster.get(&format!("/jobs/{job}")).await["plan"], *plan);
        let config = cluster.get(&format!("/jobs/{job}/config")).await;
        let config = &config["execution-config"];
        assert_eq!(config["restart-strategy"], "Restart with fixed delay (1 ms), at most 3 times");
        assert_eq!((&config["job-parallelism"], &config["user-config"]["job.note"]), (&json!(2), &json!("x")));
        assert_eq!(config["user-config"]["job.token"], "******");
    });
}
