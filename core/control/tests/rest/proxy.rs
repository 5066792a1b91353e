//! What a JobManager that does not lead answers: whatever the leader answers, and words when there is none.

use crate::cluster::{Cluster, SECRET, run, speaks, word_count};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use thalweg_control::{
    job_manager::bearer,
    rest::{RestServer, Whereabouts},
};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{BlobKey, Epoch};
use thalweg_rpc::Role;
use thalweg_spi::{LeaderInfo, Secret};
use thalweg_testkit::doubles::{blob::MemoryBlobs, high_availability::MemoryCluster};
use tokio::sync::watch;

async fn json(url: String) -> Value {
    let answer = reqwest::get(&url).await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    answer.json().await.unwrap()
}

fn with_secret(request: RequestBuilder) -> RequestBuilder {
    request.bearer_auth(bearer(&Secret::new(SECRET)))
}

/// Status and words of a refusal.
async fn refused(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    if status == 503 {
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    let body: Value = answer.json().await.unwrap();
    (status, body["errors"][0].as_str().unwrap().to_owned())
}

#[test]
fn a_standby_answers_reads_and_writes_as_the_leader_does() {
    run("proxy", async {
        let (store, http) = (MemoryCluster::default(), Client::new());
        let leader = Cluster::start_on(&store).await;
        let (standby, _waits) = Cluster::stand_by(&store).await;
        let job = leader.submit(word_count()).await;
        for route in ["/overview", "/jobs", "/config", &format!("/jobs/{job}"), "/v1/jobs/overview", "/api/overview"] {
            let (mut here, mut there) = (json(format!("{}{route}", standby.rest)).await, json(leader.url(route)).await);
            for changing in ["now", "duration"] {
                here.as_object_mut().unwrap().remove(changing);
                there.as_object_mut().unwrap().remove(changing);
            }
            if route == "/v1/jobs/overview" {
                assert_eq!(here["jobs"][0]["jid"], there["jobs"][0]["jid"], "{route}");
            } else {
                assert_eq!(here, there, "{route}");
            }
        }
        assert!(reqwest::get(&standby.rest).await.unwrap().text().await.unwrap().contains("<html"));
        // The query goes along, and so does the wait.
        let began = Instant::now();
        let polled = reqwest::get(format!("{}/api/jobs/{job}/result?wait=300", standby.rest)).await.unwrap();
        assert_eq!(
            (polled.status().as_u16(), &polled.headers()["content-type"]),
            (200, &"application/msgpack".parse().unwrap())
        );
        assert!(began.elapsed() >= Duration::from_millis(300));
        // Refusals are the leader's too.
        let patch = |id: &str| http.request(Method::PATCH, format!("{}/jobs/{id}?mode=cancel", standby.rest));
        let (status, words) = refused(patch(&job.to_string())).await;
        assert!(status == 401 && words.contains("secret"), "{status} {words}");
        assert_eq!(refused(with_secret(patch(&"0".repeat(32)))).await.0, 404);
        assert_eq!(leader.get(&format!("/jobs/{job}/status")).await["status"], "CREATED");
        assert_eq!(with_secret(patch(&job.to_string())).send().await.unwrap().status(), 202);
        leader.until_job_is(job, "CANCELED").await;
    });
}

#[test]
fn a_blob_is_streamed_through_a_standby_and_refused_there_without_the_secret() {
    run("blob by proxy", async {
        let (store, http) = (MemoryCluster::default(), Client::new());
        let leader = Cluster::start_on(&store).await;
        let (standby, _waits) = Cluster::stand_by(&store).await;
        let content: Vec<u8> = (0..8u32 << 20).map(|i| (i ^ (i >> 7)) as u8).collect();
        let route = format!("/api/blobs/{}", BlobKey::of(&content));
        let put = || http.put(format!("{}{route}", standby.rest));
        let head = async |at: &str| http.head(format!("{at}{route}")).send().await.unwrap().status().as_u16();
        assert_eq!(head(&standby.rest).await, 404);
        // Refused before it is read, and yet the sender hears why.
        for _ in 0..10 {
            let (status, words) = refused(put().body(content.clone())).await;
            assert!(status == 401 && words.contains("secret"), "{status} {words}");
        }
        // In pieces and without a length, as a client does that packs while it sends.
        let pieces: Vec<_> = content.chunks(100_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        assert_eq!(with_secret(put()).body(body).send().await.unwrap().status(), 201);
        assert_eq!((head(&standby.rest).await, head(&leader.url("")).await), (200, 200));
        let damaged = with_secret(put()).body("something else").send().await.unwrap();
        assert_eq!(damaged.status(), 400);
    });
}

#[test]
fn each_job_manager_tells_of_itself_and_a_standby_leads_when_the_leader_resigns() {
    run("who leads", async {
        let store = MemoryCluster::default();
        let leader = Cluster::start_on(&store).await;
        let (standby, waits) = Cluster::stand_by(&store).await;
        let of_the_leader = json(leader.url("/api/jobmanager")).await;
        let of_the_standby = json(format!("{}/api/jobmanager", standby.rest)).await;
        assert_eq!((&of_the_leader["leads"], &of_the_leader["epoch"]), (&true.into(), &1.into()));
        assert_eq!((&of_the_standby["leads"], &of_the_standby["epoch"]), (&false.into(), &Value::Null));
        assert_eq!(of_the_standby["rest"], standby.rest.as_str());
        for told in [&of_the_leader, &of_the_standby] {
            assert_eq!(told["leader"]["rest"], leader.url("").as_str(), "{told}");
            assert_eq!((&told["leader"]["epoch"], &told["cluster"]), (&1.into(), &"test".into()), "{told}");
        }
        leader.job_manager.close(None).await;
        let second = waits.await.unwrap();
        let now = json(format!("{}/api/jobmanager", standby.rest)).await;
        assert_eq!((&now["leads"], &now["epoch"], &now["leader"]["epoch"]), (&true.into(), &2.into(), &2.into()));
        assert_eq!(second.get("/overview").await["jobs-running"], 0);
    });
}

/// A process that never leads, and what it is told of the leader.
struct Follower {
    server: RestServer,
    leader: watch::Sender<Option<LeaderInfo>>,
    shutdown: Shutdown,
}

impl Follower {
    async fn start() -> Self {
        let env = Env::system(tokio::runtime::Handle::current());
        let dir = tempfile::tempdir().unwrap();
        let config = Cluster::config(&env, dir.path().to_owned());
        let (at, shutdown) = (Address::Tcp("127.0.0.1:0".into()), Shutdown::new());
        let secret = speaks(&env, Role::JobManager).secret;
        let blobs = Arc::new(MemoryBlobs::default());
        let server = RestServer::bind(&env, &at, &config, secret, blobs, shutdown.child()).await.unwrap();
        let (leader, named) = watch::channel(None);
        server.follow(Whereabouts { rest: server.url(), rpc: "tcp://127.0.0.1:1".into(), leader: named });
        Self { server, leader, shutdown }
    }

    fn name(&self, rest: String) {
        self.leader.send_replace(Some(LeaderInfo { epoch: Some(Epoch(1)), rpc: "tcp://127.0.0.1:1".into(), rest }));
    }

    fn get(&self, route: &str) -> RequestBuilder {
        Client::new().get(format!("{}{route}", self.server.url()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

#[test]
fn without_a_leader_everybody_is_told_to_try_again() {
    run("no leader", async {
        let follower = Follower::start().await;
        for route in ["/overview", "/api/overview", &format!("/api/jobs/{}/result", "0".repeat(32))] {
            let (status, words) = refused(follower.get(route)).await;
            assert!(status == 503 && words.contains("leader election"), "{route}: {status} {words}");
        }
        let submission = Client::new().post(format!("{}/api/jobs", follower.server.url())).body("x");
        assert_eq!(refused(submission).await.0, 503, "nobody is asked for a secret before there is one to use it");
        let head = Client::new().head(format!("{}/api/blobs/{}", follower.server.url(), BlobKey::of(b"")));
        assert_eq!(head.send().await.unwrap().status(), 503);
        assert_eq!(follower.get("/").send().await.unwrap().status(), 200, "the page itself asks again");
        // It was named itself, before it is ready or after it was.
        follower.name(follower.server.url());
        assert!(refused(follower.get("/overview")).await.1.contains("leader election"));
        // Another one, of another host, that listens on its loopback: nobody can be asked, and that will not pass.
        let (epoch, rest) = (Some(Epoch(1)), follower.server.url());
        follower.leader.send_replace(Some(LeaderInfo { epoch, rpc: "tcp://jm-2:6123".into(), rest }));
        let (status, words) = refused(follower.get("/overview")).await;
        assert!(status == 503 && words.contains("set rest.bind"), "{status} {words}");
    });
}

#[test]
fn two_that_take_each_other_for_the_leader_do_not_go_round_in_circles() {
    run("loop", async {
        let (one, other) = (Follower::start().await, Follower::start().await);
        one.name(other.server.url());
        other.name(one.server.url());
        for follower in [&one, &other] {
            let (status, words) = refused(follower.get("/jobs")).await;
            assert!(status == 503 && words.contains("leader election"), "{status} {words}");
        }
    });
}

#[test]
fn a_leader_that_does_not_answer_is_told_with_its_address() {
    run("silent leader", async {
        let follower = Follower::start().await;
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        follower.name(at.clone());
        let (status, words) = refused(follower.get("/jobs")).await;
        assert!(status == 503 && words.contains(&at) && words.contains("does not answer"), "{status} {words}");
        // One that takes the connection and hangs is waited for until somebody else leads.
        let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        follower.name(format!("http://{}", hangs.local_addr().unwrap()));
        let asked = tokio::spawn(refused(follower.get("/jobs")));
        let _connection = hangs.accept().await.unwrap();
        assert!(!asked.is_finished());
        follower.leader.send_replace(None);
        let (status, words) = asked.await.unwrap();
        assert!(status == 502 && words.contains("was replaced before it answered"), "{status} {words}");
    });
}
