//! The launcher with real processes: a shell script stands in for `thalweg`, and this test serves its REST port.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use thalweg_env::{Address, Env, Listener, Network, SystemNetwork};
use thalweg_model::ClusterId;
use thalweg_spi::{ApplicationStatus, ClusterHandle, ClusterLauncher, ClusterSpec, ClusterState, ErrorKind};
use thalweg_support_processes::{Identity, LocalLauncher, Record};
use thalweg_testkit::Place;

/// Writes down what it was called with, tells where REST is, and waits. It ends at once upon TERM.
const THALWEG: &str = r#"#!/bin/sh
role=$1
echo "$PWD $*"
while [ "$1" != --dir ]; do shift; done
dir=$2
if [ "$role" = jobmanager ] && [ ! -e "$dir/silent" ]; then
    start=$(sed 's/.*) //' /proc/$$/stat | cut -d' ' -f20)
    printf '{"cluster":"c","pid":%d,"start_time":%d,"rest":"http://%s","rpc":"x","epoch":1}' \
        $$ "$start" "$(cat "$dir/rest")" > "$dir/cluster.new"
    mv "$dir/cluster.new" "$dir/cluster.json"
fi
while :; do sleep 0.1; done
"#;

struct Fixture {
    place: Place,
    dir: PathBuf,
    thalweg: PathBuf,
    _rest: Box<dyn Listener>,
}

/// An executable script. Written by another process: a file that this one had open for writing could not be executed
/// while a fork of another test holds its descriptor.
fn script(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let status = Command::new("sh").args(["-c", write, "sh", text]).arg(path).status().unwrap();
    assert!(status.success());
}

impl Fixture {
    async fn new(text: &str) -> Self {
        let place = Place::new();
        let dir = place.dir().join("cluster");
        std::fs::create_dir(&dir).unwrap();
        let rest = SystemNetwork.listen(&Address::Tcp("127.0.0.1:0".into())).await.unwrap();
        let at = rest.address().to_string();
        std::fs::write(dir.join("rest"), at.trim_start_matches("tcp://")).unwrap();
        let thalweg = place.dir().join("thalweg");
        script(&thalweg, text);
        Self { place, dir, thalweg, _rest: rest }
    }

    fn launcher(&self, start_timeout: Duration) -> LocalLauncher {
        let env = Env::system(tokio::runtime::Handle::current());
        LocalLauncher { env, start_timeout, stop_timeout: Duration::from_secs(2) }
    }

    fn spec(&self, task_managers: u32) -> ClusterSpec {
        ClusterSpec {
            cluster: ClusterId::new("c"),
            dir: self.dir.clone(),
            thalweg: self.thalweg.clone(),
            configuration: self.place.dir().join("c.toml"),
            secret: self.place.dir().join("secret"),
            job: None,
            client_dir: self.place.dir().to_owned(),
            job_managers: 1,
            task_managers,
        }
    }

    fn records(&self) -> Vec<Record> {
        Record::read_all(&self.dir.join("processes")).unwrap()
    }

    /// Numbers of all processes of this fixture.
    fn running(&self) -> Vec<u32> {
        let mark = self.thalweg.display().to_string();
        let numbers = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(&mark)
        };
        numbers.filter(ours).collect()
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join("log").join(name)).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for identity in self.running().into_iter().filter_map(Identity::of) {
            identity.kill().unwrap();
        }
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_cluster_is_launched_found_and_ended() {
    thalweg_testkit::run("launch", async {
        let fixture = Fixture::new(THALWEG).await;
        let launcher = fixture.launcher(LONG);
        let handle = launcher.launch(fixture.spec(2)).await.unwrap();
        let at = std::fs::read_to_string(fixture.dir.join("rest")).unwrap();
        assert_eq!(handle.rest, format!("http://{at}"));
        assert_eq!(launcher.status(&handle).await.unwrap(), ClusterState::Running);

        let records = fixture.records();
        let roles: Vec<_> = records.iter().map(|r| r.role.as_str()).collect();
        assert_eq!(roles, ["jobmanager", "taskmanager", "taskmanager"]);
        for record in &records {
            assert!(record.identity.is_alive());
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", record.identity.pid)).unwrap();
            let group = stat.rsplit(") ").next().unwrap().split(' ').nth(2).unwrap();
            assert_eq!(group, record.identity.pid.to_string(), "a group of its own");
        }
        let (dir, place) = (fixture.dir.display(), fixture.place.dir().display());
        let common = format!("--dir {dir} -c {place}/c.toml --secret-file {place}/secret");
        assert_eq!(fixture.log("jobmanager-1.log"), format!("{place} jobmanager {common} --id 1\n"));
        let id = &records[1].id;
        let log = format!("taskmanager-{id}.log");
        let expected = format!("{dir} taskmanager {common} -Dtask-manager.id={id}\n");
        let said = || async { (fixture.log(&log) == expected).then_some(()) };
        thalweg_testkit::eventually("the TaskManager has its arguments", LONG, said).await;

        // A second one in this folder is refused, and leaves the first alone.
        let error = launcher.launch(fixture.spec(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let hint = format!("stop it with `thalweg cluster stop --dir {dir}`");
        assert!(error.to_string().contains(&hint), "{error}");
        assert_eq!(launcher.status(&handle).await.unwrap(), ClusterState::Running);

        let socket = std::os::unix::net::UnixListener::bind(fixture.dir.join("host.sock")).unwrap();
        std::fs::write(fixture.dir.join("jobmanager.lock"), "").unwrap();
        std::fs::create_dir(fixture.dir.join("jobmanagers")).unwrap();
        std::fs::write(fixture.dir.join("jobmanagers/1.json"), "{}").unwrap();
        for _ in 0..2 {
            launcher.kill(&handle).await.unwrap();
        }
        drop(socket);
        assert_eq!(fixture.running(), Vec::<u32>::new());
        let mut left: Vec<_> =
            std::fs::read_dir(&fixture.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["log", "rest"]);
        assert_eq!(launcher.status(&handle).await.unwrap(), ClusterState::Ended(None));
        std::fs::write(fixture.dir.join("status.json"), "{\"status\": \"SUCCEEDED\"}").unwrap();
        let ended = ClusterState::Ended(Some(ApplicationStatus::Succeeded));
        assert_eq!(launcher.status(&handle).await.unwrap(), ended);
        // And the folder can be used again.
        let handle = launcher.launch(fixture.spec(0)).await.unwrap();
        launcher.kill(&handle).await.unwrap();
    });
}

#[test]
fn a_per_job_cluster_gets_its_job_behind_all_options() {
    thalweg_testkit::run("per job", async {
        let fixture = Fixture::new(THALWEG).await;
        let launcher = fixture.launcher(LONG);
        let job = Some((PathBuf::from("/jobs/words"), vec!["--input".to_owned(), "a b".to_owned()]));
        let handle = launcher.launch(ClusterSpec { job, ..fixture.spec(0) }).await.unwrap();
        let log = fixture.log("jobmanager-1.log");
        assert!(log.ends_with(" -Ddeployment.type=per-job --job /jobs/words -- --input a b\n"), "{log}");
        launcher.kill(&handle).await.unwrap();
    });
}

#[test]
fn a_job_manager_that_ends_is_told_with_its_last_words_and_leaves_nothing() {
    thalweg_testkit::run("ends", async {
        let text = THALWEG.replace("role=$1\n", "role=$1\n[ $1 = jobmanager ] && echo port 8081 is taken && exit 7\n");
        let fixture = Fixture::new(&text).await;
        let error = fixture.launcher(LONG).launch(fixture.spec(2)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("jobmanager 1 ended with exit code 7"), "{text}");
        assert!(text.contains("port 8081 is taken") && text.contains("log/jobmanager-1.log"), "{text}");
        assert_eq!((fixture.running(), fixture.records()), (vec![], vec![]));
    });
}

#[test]
fn a_job_manager_that_never_serves_is_ended_at_the_deadline() {
    thalweg_testkit::run("silent", async {
        let fixture = Fixture::new(THALWEG).await;
        std::fs::write(fixture.dir.join("silent"), "").unwrap();
        let error = fixture.launcher(Duration::from_millis(300)).launch(fixture.spec(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("does not serve REST after 300ms"), "{error}");
        assert_eq!((fixture.running(), fixture.records()), (vec![], vec![]));
    });
}

#[test]
fn an_executable_that_is_not_there_is_told_by_name() {
    thalweg_testkit::run("missing", async {
        let fixture = Fixture::new(THALWEG).await;
        let spec = ClusterSpec { thalweg: "/no/such/thalweg".into(), ..fixture.spec(1) };
        let error = fixture.launcher(LONG).launch(spec).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("/no/such/thalweg"), "{error}");
    });
}

#[test]
fn what_a_dead_cluster_left_does_not_hinder_and_stubborn_processes_are_killed() {
    thalweg_testkit::run("left", async {
        let text = THALWEG.replace("while :;", "trap '' TERM; while :;");
        let fixture = Fixture::new(&text).await;
        let old = r#"{"cluster":"c","pid":1,"start_time":1,"rest":"http://127.0.0.1:1","rpc":"x","epoch":1}"#;
        std::fs::write(fixture.dir.join("cluster.json"), old).unwrap();
        let launcher = LocalLauncher { stop_timeout: Duration::from_millis(300), ..fixture.launcher(LONG) };
        let handle = launcher.launch(fixture.spec(1)).await.unwrap();
        // Workers that a JobManager started itself are ended too.
        let worker = fixture.records().pop().unwrap();
        worker.remove(&fixture.dir.join("processes")).unwrap();
        worker.write(&fixture.dir.join("workers")).unwrap();
        launcher.kill(&handle).await.unwrap();
        assert_eq!(fixture.running(), Vec::<u32>::new());
    });
}

#[test]
fn a_handle_of_nothing_is_an_error() {
    thalweg_testkit::run("handle", async {
        let fixture = Fixture::new(THALWEG).await;
        let handle = ClusterHandle { cluster: ClusterId::new("c"), rest: String::new(), provider: Default::default() };
        assert!(fixture.launcher(LONG).kill(&handle).await.unwrap_err().to_string().contains("no folder"));
    });
}
