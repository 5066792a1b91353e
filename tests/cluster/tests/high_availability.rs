//! What operators see of high availability: which JobManagers there are, which of them is asked, and what is kept.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use thalweg_cluster_tests::*;

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn several_job_managers_are_refused_by_name_where_none_can_wait() {
    let place = Place::new();
    for plugin in ["local", "standalone"] {
        let mut command = Command::new(thalweg());
        command.arg("--dir").arg(place.path().join(plugin)).arg(format!("-Dhigh-availability.type={plugin}"));
        let done = run(command.args(["-Drest.port=0", "cluster", "start", "--jobmanagers", "2"]));
        assert_eq!(done.code, 64, "{done:?}");
        let said =
            format!("high-availability {plugin:?} has one JobManager at a time; choose etcd, or --jobmanagers 1");
        assert!(done.err.contains(&said), "{done:?}");
    }
    let none = run(Command::new(thalweg()).args(["cluster", "start", "--jobmanagers", "0"]));
    assert_eq!(none.code, 64, "{none:?}");
    assert_eq!(processes_with(&place.path().to_string_lossy()), Vec::<u32>::new());
}

#[test]
fn every_command_tries_the_addresses_in_turn_and_a_bad_one_is_named() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 2, &[]);
    let masters = format!("{},{}", nobody(), cluster.rest());
    let job = {
        let done = run(cluster.command(&["run", "-d", "-m", &masters]).arg(example("unbounded")));
        assert_eq!(done.code, 0, "{done:?}");
        done.out.trim().to_owned()
    };
    cluster.wait_for(&job, "RUNNING", Duration::from_secs(10));
    let list = run(cluster.command(&["list", "-m", &masters]));
    assert!(list.code == 0 && list.out.contains(&job), "{list:?}");
    let status = run(cluster.command(&["cluster", "status", "--json", "-m", &masters]));
    let status: Value = serde_json::from_str(&status.out).unwrap();
    let standing = |i: usize| status["processes"][i]["standing"].clone();
    assert_eq!((standing(0), standing(1)), ("is gone".into(), "leader".into()), "{status}");
    let done = run(cluster.command(&["run", "-m", &masters]).arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    let done = run(cluster.command(&["cancel", "-m", &masters, &job]));
    assert_eq!(done.code, 0, "{done:?}");
    let wrong = run(cluster.command(&["list", "-m", &format!("{masters},elsewhere")]));
    assert!(wrong.code == 64 && wrong.err.contains("\"elsewhere\" is not HOST:PORT"), "{wrong:?}");
    let dead = format!("{},{}", nobody(), nobody());
    let done = run(cluster.command(&["list", "-m", &dead]));
    assert!(done.code == 3 && dead.split(',').all(|at| done.err.contains(at)), "{done:?}");
    assert!(done.took < Duration::from_secs(10), "nobody waits for what was never there: {done:?}");
    cluster.stop();
}

#[test]
fn what_dead_job_managers_left_in_the_folder_is_ignored() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &[]);
    let folder = cluster.dir().join("jobmanagers");
    let own: Value = serde_json::from_slice(&std::fs::read(folder.join("1.json")).unwrap()).unwrap();
    assert_eq!(
        (own["id"].as_str(), own["rest"].as_str().unwrap()),
        (Some("1"), &*format!("http://{}", cluster.rest()))
    );
    // Its pid is another process's by now, and its port perhaps another cluster's.
    let mut stale = own.clone();
    (stale["id"], stale["start_time"], stale["rest"]) = ("9".into(), 1.into(), format!("http://{}", nobody()).into());
    std::fs::write(folder.join("9.json"), stale.to_string()).unwrap();
    std::fs::write(folder.join("8.json"), "{\"half").unwrap();
    let of_role = |p: &&Value| p["role"] == "jobmanager";
    let seen = cluster.processes();
    let seen: Vec<&Value> = seen.iter().filter(of_role).collect();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&seen[0]["id"], &seen[0]["standing"]), (&"1".into(), &"leader".into()));
    let status = run(cluster.command(&["cluster", "status"]));
    assert!(status.code == 0 && status.out.contains("leader") && !status.out.contains("standby"), "{status:?}");
    assert_eq!(run(cluster.command(&["list"])).code, 0);
    cluster.stop();
    assert!(!folder.exists(), "a stop takes the list away");
}

#[test]
fn records_are_told_of_inspected_and_exported_when_no_job_manager_has_them_open() {
    let place = Place::new();
    let cluster = Cluster::start(&place, 1, 1, &["high-availability.type=local"]);
    let done = run(cluster.command(&["run"]).arg(example("two_jobs")).args(["--", "10"]));
    assert_eq!(done.code, 0, "{done:?}");
    let waiting = cluster.submit(&["-p", "5"], &example("unbounded"), &[]);
    let pid = cluster.job_manager();
    let ha = |args: &[&str]| {
        // Without a word about the plugin: the folder knows what it was started with.
        run(Command::new(thalweg()).arg("--dir").arg(place.path().join("cluster")).arg("ha").args(args))
    };
    // While the leader has the file open it is the one to ask.
    let status = ha(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    for said in ["plugin   local (durable, not shared, without standby)", "leader   epoch", &cluster.rest()] {
        assert!(status.out.contains(said), "{said}: {status:?}");
    }
    let refused = ha(&["inspect"]);
    assert!(refused.code == 1 && refused.err.contains(&format!("pid {pid}")), "{refused:?}");
    assert!(refused.err.contains("thalweg list"), "{refused:?}");
    cluster.stop();
    let status: Value = serde_json::from_str(&ha(&["status", "--json"]).out).unwrap();
    assert_eq!(
        (&status["leader"], &status["jobs"], &status["results"]),
        (&Value::Null, &1.into(), &2.into()),
        "{status}"
    );
    let all = ha(&["inspect"]);
    assert_eq!(all.code, 0, "{all:?}");
    let line = |key: &str| all.out.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line(&format!("jobs/{waiting}/record")).contains("needs 5 slots"), "{all:?}");
    assert!(line("results/").contains("FINISHED") && line("results/").contains("clean"), "{all:?}");
    let results: Value = serde_json::from_str(&ha(&["inspect", "results/", "--json"]).out).unwrap();
    assert_eq!(results.as_array().unwrap().len(), 2, "{results}");
    let file = place.path().join("backup.jsonl");
    let exported = ha(&["export", file.to_str().unwrap()]);
    assert!(exported.code == 0 && exported.out.contains("records written to"), "{exported:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["records"], lines.len() - 1);
    assert!(lines[1..].iter().any(|l| l["key"] == format!("jobs/{waiting}/record")), "{text}");
    let again = ha(&["export", file.to_str().unwrap()]);
    assert!(again.code == 64 && again.err.contains("is there already"), "{again:?}");
    let nowhere = run(Command::new(thalweg()).arg("--dir").arg(place.path().join("nowhere")).args(["ha", "status"]));
    assert!(nowhere.code == 64 && nowhere.err.contains("there is no folder"), "{nowhere:?}");
}

/// The JobManagers by standing: id, pid and REST.
fn job_managers(cluster: &Cluster, standing: &str) -> Vec<(String, u32, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let all = cluster.processes();
    let chosen = all.iter().filter(|p| p["role"] == "jobmanager" && p["standing"] == standing);
    chosen.map(|p| (text(&p["id"]), p["pid"].as_u64().unwrap() as u32, text(&p["rest"]))).collect()
}

#[test]
fn two_job_managers_start_answer_change_places_under_waiting_clients_and_stop() {
    let place = Place::new();
    let Some(etcd) = Etcd::start(&place, 1) else { return };
    let options = [&*etcd.option(), "cluster.name=two", "high-availability.etcd.lease=3s"];
    let options: Vec<String> = options.iter().map(|o| format!("-D{o}")).collect();
    let dir = place.path().join("cluster");
    // The configuration that ships, on this etcd.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/etcd-ha.toml");
    let command = |args: &[&str]| {
        let mut command = Command::new(thalweg());
        command
            .arg("-c")
            .arg(&shipped)
            .args(&options)
            .args(["-Drest.port=0", "-Djob-manager.rpc-port=0", "--dir"])
            .arg(&dir)
            .args(args);
        command
    };
    let started = run(&mut command(&["cluster", "start", "--jobmanagers", "2", "--taskmanagers", "1", "--slots", "2"]));
    assert!(started.code == 0 && started.out.contains("  standby  http://"), "{started:?}");
    let cluster = Cluster::at(&dir, &options);
    let (leaders, standbys) = (job_managers(&cluster, "leader"), job_managers(&cluster, "standby"));
    assert_eq!((leaders.len(), standbys.len()), (1, 1), "{leaders:?} {standbys:?}");
    // A client that knows the standby alone submits.
    let standby = standbys[0].2.trim_start_matches("http://").to_owned();
    let input = place.path().join("words.txt");
    words_file(&input, 1 << 20, 3);
    let done = run(command(&["run", "-m", &standby]).arg(example("wordcount")).arg("--").arg("--input").arg(&input));
    assert_eq!(done.code, 0, "{done:?}");
    let job = cluster.submit(&[], &example("unbounded"), &[]);
    let mut waits = command(&["result", &job]);
    let waits = waits.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut follows = command(&["run"]);
    let follows = follows.arg(example("unbounded")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let jobs = || cluster.get("/api/overview")["jobs"].as_array().unwrap().clone();
    // Their tasks, and not only the jobs: what was not deployed yet would be started again by whoever leads next.
    eventually("all tasks of both jobs run", Duration::from_secs(20), || {
        let run: Vec<_> = jobs().into_iter().filter(|j| j["status"] == "RUNNING").collect();
        run.len() == 2 && run.iter().all(|j| cluster.tasks_run(j["id"].as_str().unwrap()))
    });
    // Without a word, so that nobody leads until the lease is over.
    kill(leaders[0].1, 9);
    eventually("the standby leads", Duration::from_secs(20), || {
        job_managers(&cluster, "leader").first().is_some_and(|(id, ..)| *id == standbys[0].0)
    });
    eventually("its file is written", Duration::from_secs(5), || cluster.job_manager() == standbys[0].1);
    eventually("both jobs run on", Duration::from_secs(20), || {
        jobs().iter().filter(|j| j["status"] == "RUNNING" && j["attempt"] == 0).count() == 2
    });
    for running in jobs().iter().filter(|j| j["status"] == "RUNNING") {
        let done = run(&mut command(&["cancel", running["id"].as_str().unwrap()]));
        assert_eq!(done.code, 0, "{done:?}");
    }
    for client in [waits, follows] {
        let client = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&client.stderr);
        assert_eq!(client.status.code(), Some(2), "{said}");
        assert_eq!(said.matches("the cluster does not answer, trying for 60 s").count(), 1, "{said}");
        assert_eq!(said.matches("the cluster answers again").count(), 1, "{said}");
    }
    let status = run(&mut command(&["ha", "status"]));
    assert!(status.code == 0 && status.out.contains("plugin   etcd (durable, shared, with standbys)"), "{status:?}");
    let inspected = run(&mut command(&["ha", "inspect"]));
    assert!(inspected.code == 0 && inspected.out.contains("CANCELED"), "{inspected:?}");
    cluster.stop();
    assert!(!dir.join("jobmanagers").exists());
}
