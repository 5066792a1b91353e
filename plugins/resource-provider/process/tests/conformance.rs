//! The plugin passes the resource-provider suite with real processes: a shell script stands in for `thalweg`.

#![allow(clippy::unwrap_used, reason = "test code")]

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use thalweg_env::Shutdown;
use thalweg_model::TaskManagerId;
use thalweg_resource_provider_process::ProcessConfig;
use thalweg_spi::{PluginConfig, ProviderEvent, ResourceProvider, Result, TimeSpan, WorkerProfile, kind};
use thalweg_support_processes::{Identity, Record};
use thalweg_testkit::{Place, eventually, suites::resource_provider::ResourceProviderFixture};

struct Fixture {
    place: Place,
    max_workers: Option<u32>,
    script: PathBuf,
    process: Mutex<Option<Shutdown>>,
}

/// An executable script. Written by another process: a file that this one had open for writing could not be executed
/// while a fork of another test holds its descriptor.
fn script(place: &Place, name: &str, text: &str) -> PathBuf {
    let path = place.dir().join(name);
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let status = std::process::Command::new("sh").args(["-c", write, "sh", text]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

impl Fixture {
    fn new(max_workers: Option<u32>) -> Self {
        Self::with(max_workers, "#!/bin/sh\necho \"$@\"\nwhile :; do sleep 0.1; done\n")
    }

    fn with(max_workers: Option<u32>, text: &str) -> Self {
        let place = Place::new();
        let script = script(&place, "thalweg", text);
        Self { place, max_workers, script, process: Mutex::default() }
    }

    /// Number and arguments of each process that was started for this cluster.
    fn processes(&self) -> Vec<(u32, String)> {
        let mark = self.script.display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let arguments = |pid: u32| {
            let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&text).replace('\0', " ")))
        };
        entries.filter_map(arguments).filter(|(_, text)| text.contains(&mark)).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            if let Some(identity) = Identity::of(pid) {
                identity.kill().unwrap();
            }
        }
    }
}

#[async_trait::async_trait]
impl ResourceProviderFixture for Fixture {
    async fn open(&self) -> Result<Arc<dyn ResourceProvider>> {
        let config = ProcessConfig {
            thalweg: Some(self.script.clone()),
            max_workers: self.max_workers,
            stop_timeout: TimeSpan::from_millis(1000),
            ..ProcessConfig::default()
        };
        let context = self.place.context();
        *self.process.lock() = Some(context.shutdown.clone());
        PluginConfig::<kind::Resource>::open(config, context).await
    }

    async fn shut_down(&self, provider: Arc<dyn ResourceProvider>) {
        self.process.lock().take().unwrap().trigger();
        drop(provider);
    }

    async fn kill(&self, worker: &TaskManagerId) -> bool {
        let records = Record::read_all(&self.place.dir().join("workers")).unwrap();
        let record = records.iter().find(|r| r.id == worker.as_str()).unwrap();
        record.identity.kill().unwrap();
        // It has no arguments any more a little before it is gone.
        let gone = || async { (!record.identity.is_alive()).then_some(()) };
        eventually("it is gone", self.deadline(), gone).await;
        true
    }

    async fn alive(&self) -> BTreeSet<TaskManagerId> {
        let id = |text: String| {
            let rest = text.split("-Dtask-manager.id=").nth(1)?;
            Some(TaskManagerId::new(rest.split(' ').next()?))
        };
        self.processes().into_iter().filter_map(|(_, text)| id(text)).collect()
    }

    fn impossible(&self) -> Option<WorkerProfile> {
        Some(WorkerProfile { slots: 1, memory: Some(u64::MAX) })
    }

    fn quota(&self) -> Option<u32> {
        self.max_workers
    }

    async fn secret_and_public(&self) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
        // A process that has only just been started has no arguments yet.
        let there = || async { Some(self.processes()).filter(|all| !all.is_empty()) };
        let mut public = Vec::new();
        for (pid, _) in eventually("a worker with arguments", self.deadline(), there).await {
            for file in ["cmdline", "environ"] {
                public.push(std::fs::read(format!("/proc/{pid}/{file}")).unwrap());
            }
        }
        Some((self.place.context().secret.expose().to_vec(), public))
    }
}

mod without_limit {
    thalweg_testkit::resource_provider_suite!(async || super::Fixture::new(None));
}

mod with_limit {
    thalweg_testkit::resource_provider_suite!(async || super::Fixture::new(Some(3)));
}

/// The events of a provider, one by one.
struct Events(tokio::sync::mpsc::UnboundedReceiver<ProviderEvent>);

impl Events {
    async fn next(&mut self) -> ProviderEvent {
        let clock = thalweg_env::SystemClock::new();
        thalweg_env::timeout(&clock, Duration::from_secs(10), self.0.recv()).await.unwrap().unwrap()
    }
}

async fn one_worker(provider: &Arc<dyn ResourceProvider>) -> Events {
    let events = Events(provider.events().unwrap());
    let profile = WorkerProfile { slots: 2, memory: Some(64 << 20) };
    provider.declare(BTreeMap::from([(profile, 1)])).await.unwrap();
    events
}

#[test]
fn a_worker_gets_its_arguments_and_private_files() {
    thalweg_testkit::run("arguments", async {
        let fixture = Fixture::new(None);
        let provider = fixture.open().await.unwrap();
        let ProviderEvent::Started { worker, .. } = one_worker(&provider).await.next().await else { panic!() };
        let dir = fixture.place.dir().display().to_string();
        let log = fixture.place.dir().join(format!("log/taskmanager-{worker}.log"));
        let expected = format!(
            "taskmanager --dir {dir} -c {dir}/workers/configuration.toml --secret-file {dir}/workers/secret \
             -Dtask-manager.id={worker} -Dtask-manager.slots=2 -Dtask-manager.memory=67108864B\n"
        );
        let said = || async { std::fs::read_to_string(&log).ok().filter(|text| *text == expected) };
        eventually("its output is in its log", Duration::from_secs(5), said).await;
        let secret = fixture.place.dir().join("workers/secret");
        let text = std::fs::read_to_string(&secret).unwrap();
        let read = thalweg_spi::Secret::from_file_text(&text).unwrap();
        assert!(read.matches(fixture.place.context().secret.expose()));
        assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        provider.deregister(thalweg_spi::ApplicationStatus::Succeeded, "").await.unwrap();
        assert!(!fixture.place.dir().join("workers").exists(), "nothing is left");
    });
}

#[test]
fn a_stubborn_worker_is_killed_after_the_stop_timeout() {
    thalweg_testkit::run("stubborn", async {
        let fixture = Fixture::with(None, "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 0.1; done\n");
        let provider = fixture.open().await.unwrap();
        let mut events = one_worker(&provider).await;
        let ProviderEvent::Started { worker, .. } = events.next().await else { panic!() };
        let log = fixture.place.dir().join(format!("log/taskmanager-{worker}.log"));
        let ready = || async { std::fs::read_to_string(&log).ok().filter(|t| t.contains("ready")) };
        eventually("it ignores TERM", Duration::from_secs(5), ready).await;
        provider.declare(BTreeMap::new()).await.unwrap();
        provider.release(&worker).await.unwrap();
        let ProviderEvent::Lost { cause, .. } = events.next().await else { panic!() };
        assert!(cause.contains("signal 9"), "{cause}");
        assert_eq!(fixture.alive().await, BTreeSet::new());
    });
}

#[test]
fn a_worker_that_cannot_start_is_refused_and_one_that_ends_says_why() {
    thalweg_testkit::run("refused", async {
        let fixture = Fixture::with(None, "#!/bin/sh\necho 'the port is taken'\nexit 3\n");
        let provider = fixture.open().await.unwrap();
        let mut events = one_worker(&provider).await;
        let ProviderEvent::Started { worker, .. } = events.next().await else { panic!() };
        let lost = events.next().await;
        let cause = "exit code 3; its last words: the port is taken".to_owned();
        assert_eq!(lost, ProviderEvent::Lost { worker, cause });
        std::fs::remove_file(&fixture.script).unwrap();
        let ProviderEvent::Refused { cause, retry, .. } = events.next().await else { panic!() };
        assert!(cause.contains("not found") && cause.contains("thalweg") && !retry, "{cause} {retry}");
        provider.deregister(thalweg_spi::ApplicationStatus::Failed, "").await.unwrap();
    });
}

#[test]
fn a_number_that_another_process_has_now_is_left_alone() {
    thalweg_testkit::run("recycled", async {
        let fixture = Fixture::new(None);
        // This very process, but written down with another start: killing it would end the test.
        let own = Identity::own().unwrap();
        let identity = Identity { start_time: own.start_time - 1, ..own };
        let profile = Some(WorkerProfile { slots: 1, memory: None });
        let record = Record { role: "taskmanager".into(), id: "old".into(), identity, profile };
        record.write(&fixture.place.dir().join("workers")).unwrap();
        let provider = fixture.open().await.unwrap();
        let mut events = provider.events().unwrap();
        assert!(events.try_recv().is_err(), "it is not recovered");
        provider.deregister(thalweg_spi::ApplicationStatus::Succeeded, "").await.unwrap();
    });
}
