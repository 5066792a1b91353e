//! A client whose cluster changes leaders under it. The JobManagers are real; no TaskManager comes, so a job waits for
//! slots until it is cancelled.

#![allow(clippy::disallowed_methods, reason = "real sockets are what is tested")]

use super::*;
use crate::{cluster_rest::tests::Told, role, settings};
use std::sync::atomic::{AtomicUsize, Ordering};
use thalweg_api::{Environment, JobHandle};
use thalweg_config::{Configuration, Sources};
use thalweg_control::{Bound, JobManager, JobManagerServices, job_manager::bearer};
use thalweg_env::Env;
use thalweg_model::InstanceId;
use thalweg_rpc::Role;
use thalweg_spi::{Secret, Shuffle};
use thalweg_testkit::{
    doubles::{blob::MemoryBlobs, deployment::OpenHouse, high_availability::MemoryCluster, shuffle::MemoryShuffle},
    eventually,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const SECRET: &[u8] = &[7; 32];

#[derive(Default)]
struct Cluster {
    store: MemoryCluster,
    blobs: Arc<MemoryBlobs>,
}

impl Cluster {
    /// One more JobManager: where it is, and itself once it leads.
    async fn job_manager(&self) -> (String, JoinHandle<JobManager>) {
        let env = Env::system(tokio::runtime::Handle::current());
        let overrides = ["rest.port=0", "job-manager.rpc-port=0"].map(str::to_owned).to_vec();
        let sources = Sources { file: None, environment: std::iter::empty(), overrides };
        let configuration = Configuration::load(sources).unwrap();
        let instance = InstanceId::from_bytes(env.entropy.id());
        let rpc = settings::rpc(&configuration, Role::JobManager, instance, Secret::new(SECRET));
        let mut config = settings::job_manager(&configuration, rpc, None);
        (config.worker, config.job_plugins) = (None, Vec::new());
        let services = JobManagerServices {
            env,
            high_availability: self.store.process(),
            blobs: self.blobs.clone(),
            shuffle: MemoryShuffle::default().master(),
            provider: None,
            deployment: Arc::new(OpenHouse),
            main: None,
        };
        let (tell, told) = tokio::sync::oneshot::channel::<Bound>();
        let started = JobManager::start_and_tell(config, services, |bound| tell.send(bound).unwrap());
        let started = tokio::spawn(async move { started.await.unwrap() });
        (told.await.unwrap().rest, started)
    }
}

/// A client of these addresses, and what its parent is told.
fn client(addresses: &[&str]) -> (Arc<ClientExecutor>, std::sync::mpsc::Receiver<FromClient>) {
    client_in(addresses, None)
}

/// The same in the `main` of this cluster.
fn client_in(
    addresses: &[&str],
    in_cluster: Option<&str>,
) -> (Arc<ClientExecutor>, std::sync::mpsc::Receiver<FromClient>) {
    let (mut parent, child) = role::pair().unwrap();
    let role = ClientRole {
        rest: addresses[0].to_owned(),
        others: addresses[1..].iter().map(|&a| a.to_owned()).collect(),
        secret: Some(bearer(&Secret::new(SECRET)).into()),
        detached: false,
        parallelism: 1,
        client_timeout: None,
        in_cluster: in_cluster.map(str::to_owned),
        // Any small executable will do where nobody runs it.
        executable: Some("/bin/true".into()),
        client_dir: None,
        restart: None,
    };
    let (send, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(message)) = role::next_message(&mut parent) {
            let _ = send.send(message);
        }
    });
    (Arc::new(ClientExecutor::new(role, Parent(Mutex::new(child)))), told)
}

async fn submit(client: &Arc<ClientExecutor>) -> Result<JobHandle, JobError> {
    let submitted = {
        let env = Environment::with_executor(client.clone());
        env.sequence(0..10).discard();
        env.execute_async("ten numbers")
    };
    submitted.await
}

fn is_cancelled<T: std::fmt::Debug>(outcome: Result<T, JobError>, job: JobId) {
    let JobError::Canceled(result) = outcome.unwrap_err() else { panic!("it was cancelled") };
    assert_eq!(result.id(), job);
}

async fn jobs_of(rest: &str) -> Vec<serde_json::Value> {
    let overview = reqwest::get(format!("{rest}/jobs/overview")).await.unwrap();
    let overview: serde_json::Value = overview.json().await.unwrap();
    overview["jobs"].as_array().unwrap().clone()
}

#[test]
fn a_client_follows_from_the_leader_to_the_next_and_gets_its_own_result() {
    thalweg_testkit::run("follow", async {
        let cluster = Cluster::default();
        let (first, leads) = cluster.job_manager().await;
        let leader = leads.await.unwrap();
        let (second, waits) = cluster.job_manager().await;
        let (client, told) = client(&[&first, &second]);
        let job = submit(&client).await.unwrap();
        let waiting = tokio::spawn(job.clone().wait());
        leader.close(None).await;
        let next = waits.await.unwrap();
        assert!(!waiting.is_finished(), "the job is the next leader's, and waits for slots there");
        job.cancel().await.unwrap();
        is_cancelled(waiting.await.unwrap(), job.id());
        assert_eq!(jobs_of(&second).await.len(), 1);
        next.close(None).await;
        let submitted = told.try_iter().filter(|m| matches!(m, FromClient::Submitted { .. })).count();
        assert_eq!(submitted, 1);
    });
}

#[test]
fn a_main_that_runs_again_finds_its_job_whatever_that_has_written() {
    thalweg_testkit::run("again", async {
        let cluster = Cluster::default();
        let (rest, leads) = cluster.job_manager().await;
        let leader = leads.await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().to_owned();
        // What the client did before it, and the job.
        let main = |cleans: bool| {
            let (client, _told) = client_in(&[&rest], Some("one-job"));
            let out = out.clone();
            tokio::task::spawn_blocking(move || {
                let env = Environment::with_executor(client.clone());
                let cleaned = env.on_client(|| ()).is_some();
                env.sequence(0..10).write_text(&out);
                let submitted = env.execute_async("lines");
                // In front of an execute that nobody has taken yet.
                let next = cleans.then(|| env.on_client(|| ()).is_some());
                (cleaned, submitted, next, client)
            })
        };
        let (cleaned, submitted, _, _first) = main(false).await.unwrap();
        let job = submitted.await.unwrap();
        assert!(cleaned, "the first time");
        std::fs::write(out.join("part-0"), "what the job has published meanwhile").unwrap();
        let (cleaned, submitted, next, _second) = main(true).await.unwrap();
        let again = submitted.await.unwrap();
        assert_eq!((cleaned, again.id(), next), (false, job.id(), Some(true)));
        // Who is no `main` of this cluster is told.
        let (client, _told) = client(&[&rest]);
        let stranger = tokio::task::spawn_blocking(move || {
            let env = Environment::with_executor(client);
            env.sequence(0..10).write_text(&out);
            env.execute("strange").unwrap_err().to_string()
        });
        let told = stranger.await.unwrap();
        assert!(told.contains("is not empty"), "{told}");
        again.cancel().await.unwrap();
        is_cancelled(again.wait().await, job.id());
        leader.close(None).await;
    });
}

#[test]
fn a_client_of_a_standby_needs_no_other_address() {
    thalweg_testkit::run("standby", async {
        let cluster = Cluster::default();
        let (first, leads) = cluster.job_manager().await;
        let leader = leads.await.unwrap();
        let (standby, _waits) = cluster.job_manager().await;
        let (client, _told) = client(&[&standby]);
        let job = submit(&client).await.unwrap();
        assert_eq!(jobs_of(&first).await[0]["jid"], job.id().to_string());
        job.cancel().await.unwrap();
        is_cancelled(job.wait().await, job.id());
        leader.close(None).await;
    });
}

/// Stands before a JobManager, passes everything on, and loses the answer to the first submission.
async fn losing(to: String, lost: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (to, lost) = (to.trim_start_matches("http://").to_owned(), lost.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
                let mut submitting = false;
                loop {
                    tokio::select! {
                        n = client.read(&mut asked) => {
                            let n = n.unwrap_or(0);
                            if n == 0 || server.write_all(&asked[..n]).await.is_err() { return }
                            submitting |= asked.starts_with(b"POST /api/jobs");
                        }
                        n = server.read(&mut answered) => {
                            let n = n.unwrap_or(0);
                            // The JobManager has said yes, and nobody hears it.
                            if submitting && lost.fetch_add(1, Ordering::SeqCst) == 0 { return }
                            if n == 0 || client.write_all(&answered[..n]).await.is_err() { return }
                        }
                    }
                }
            });
        }
    });
    at
}

#[test]
fn a_submission_whose_answer_was_lost_is_repeated_and_finds_the_job() {
    thalweg_testkit::run("lost answer", async {
        let cluster = Cluster::default();
        let (rest, leads) = cluster.job_manager().await;
        let leader = leads.await.unwrap();
        let lost = Arc::new(AtomicUsize::new(0));
        let (client, told) = client(&[&losing(rest.clone(), lost.clone()).await]);
        let job = submit(&client).await.unwrap();
        assert!(lost.load(Ordering::SeqCst) > 0, "the first answer was lost");
        let jobs = jobs_of(&rest).await;
        assert_eq!((jobs.len(), &jobs[0]["jid"]), (1, &job.id().to_string().into()), "{jobs:?}");
        let notices = |m| if let FromClient::Notice { message } = m { Some(message) } else { None };
        let notices: Vec<_> = told.try_iter().filter_map(notices).collect();
        Told::is_away_and_back(&notices);
        job.cancel().await.unwrap();
        leader.close(None).await;
    });
}

#[test]
fn a_job_that_the_next_leader_does_not_know_is_told_at_once() {
    thalweg_testkit::run("forgotten", async {
        let (first, second) = (Cluster::default(), Cluster::default());
        let (rest, leads) = first.job_manager().await;
        let leader = leads.await.unwrap();
        // Another store, as a JobManager has that keeps nothing.
        let (forgetful, leads) = second.job_manager().await;
        let _next = leads.await.unwrap();
        let (client, _told) = client(&[&rest, &forgetful]);
        let job = submit(&client).await.unwrap();
        let waiting = tokio::spawn(job.clone().wait());
        leader.close(None).await;
        let unknown = waiting.await.unwrap().unwrap_err();
        assert!(matches!(&unknown, JobError::Unknown(why) if why.contains("does not know job")), "{unknown}");
    });
}

#[test]
fn a_submission_waits_until_somebody_leads() {
    thalweg_testkit::run("election", async {
        let cluster = Cluster::default();
        let (_, leads) = cluster.job_manager().await;
        let leader = leads.await.unwrap();
        let (standby, waits) = cluster.job_manager().await;
        let (client, _told) = client(&[&standby]);
        // Dropping the executor would end what it does.
        let submits = client.clone();
        let submitting = tokio::spawn(async move { submit(&submits).await });
        leader.close(None).await;
        let next = waits.await.unwrap();
        let job = submitting.await.unwrap().unwrap();
        eventually("the job is there", Duration::from_secs(5), async || {
            (jobs_of(&standby).await.len() == 1).then_some(())
        })
        .await;
        job.cancel().await.unwrap();
        next.close(None).await;
    });
}

#[test]
fn an_executable_that_takes_long_to_send_is_told_of() {
    assert_eq!(super::large_executable(12 << 20), None);
    let told = super::large_executable(412 << 20).unwrap();
    assert!(told.contains("412 MiB") && told.contains("--release") && told.contains("strip = true"), "{told}");
}
