//! A JobManager on free ports of this machine, and a client of its REST.

use crate::worker::Worker;
use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::{future::Future, sync::Arc, time::Duration};
use thalweg_control::{
    Bound, JobManager, JobManagerConfig, JobManagerServices, dispatcher::Submitted, job_manager::bearer,
};
use thalweg_env::{Address, Env};
use thalweg_model::{
    BlobKey, ClusterId, Edge, HostPlace, InstanceId, JobGraph, JobId, OperatorInfo, Partitioner, RegionAttempt, Vertex,
    VertexId, VertexRole,
};
use thalweg_rpc::{HeartbeatSettings, Role, RpcSettings};
use thalweg_spi::{PartitionId, Secret, ShuffleDescriptor, ShuffleMaster};
use thalweg_testkit::doubles::{blob::MemoryBlobs, deployment::OpenHouse, high_availability::MemoryCluster};
use thalweg_wire::{ExecutionMode, JobSpec, RestartStrategy};

struct AnyShuffle;

#[async_trait]
impl ShuffleMaster for AnyShuffle {
    async fn register(&self, _: PartitionId, _: &HostPlace) -> thalweg_spi::Result<ShuffleDescriptor> {
        Ok(ShuffleDescriptor(bytes::Bytes::new()))
    }

    async fn release(&self, _: JobId, _: RegionAttempt) -> thalweg_spi::Result<()> {
        Ok(())
    }
}

pub struct Cluster {
    pub job_manager: JobManager,
    pub env: Env,
    pub log_dir: tempfile::TempDir,
    http: reqwest::Client,
}

pub const SECRET: &str = "open sesame";
pub const MAX_BODY: usize = 4096;

/// Of a process of the cluster.
pub fn speaks(env: &Env, role: Role) -> RpcSettings {
    RpcSettings {
        role,
        cluster: ClusterId::new("test"),
        instance: InstanceId::from_bytes(env.entropy.id()),
        secret: Secret::new(SECRET),
        timeout: Duration::from_secs(10),
        max_frame: 1 << 20,
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_on(&MemoryCluster::default()).await
    }

    /// With what earlier JobManagers wrote down there.
    pub async fn start_on(store: &MemoryCluster) -> Self {
        Self::start_and_tell(store, |_| {}).await
    }

    /// A JobManager that waits until the others have left office; answers where it is at once.
    pub async fn stand_by(store: &MemoryCluster) -> (Bound, tokio::task::JoinHandle<Self>) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let store = store.clone();
        let started = tokio::spawn(async move {
            Self::start_and_tell(&store, |bound| tell.send(bound).expect("somebody waits for it")).await
        });
        (told.await.unwrap(), started)
    }

    async fn start_and_tell(store: &MemoryCluster, tell: impl FnOnce(Bound) + Send) -> Self {
        let env = Env::system(tokio::runtime::Handle::current());
        let log_dir = tempfile::tempdir().unwrap();
        let config = Self::config(&env, log_dir.path().join("log"));
        std::fs::create_dir(log_dir.path().join("log")).unwrap();
        let services = JobManagerServices {
            env: env.clone(),
            high_availability: store.process(),
            blobs: Arc::new(MemoryBlobs::default()),
            shuffle: Arc::new(AnyShuffle),
            provider: None,
            deployment: Arc::new(OpenHouse),
            main: None,
        };
        let job_manager = JobManager::start_and_tell(config, services, tell).await.unwrap();
        Self { job_manager, env, log_dir, http: reqwest::Client::new() }
    }

    pub fn config(env: &Env, log_dir: std::path::PathBuf) -> JobManagerConfig {
        let local = || Address::Tcp("127.0.0.1:0".into());
        JobManagerConfig {
            restart: Default::default(),
            rpc: speaks(env, Role::JobManager),
            rpc_bind: local(),
            rpc_advertised: None,
            rest_bind: Some(local()),
            rest_max_body: MAX_BODY,
            rest_writes_need_secret: true,
            heartbeat: HeartbeatSettings { interval: Duration::from_secs(10), timeout: Duration::from_secs(60) },
            reconcile_timeout: Duration::from_secs(2),
            slot_request_timeout: Duration::from_secs(60),
            cancel_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            worker: None,
            history: 10,
            job_plugins: Vec::new(),
            shown_configuration: vec![("rest.port".into(), "0".into()), ("security.secret-file".into(), "/s".into())],
            log_dir: Some(log_dir),
        }
    }

    pub async fn worker(&self, name: &str, slots: u32) -> Worker {
        let jm = self.job_manager.rpc().address().unwrap();
        Worker::start(&self.env, &jm, self.job_manager.epoch(), name, slots).await
    }

    pub async fn submit(&self, graph: JobGraph) -> JobId {
        let job = JobId::from_bytes(self.env.entropy.id());
        let spec = JobSpec {
            name: "words <b>&</b>".into(),
            graph,
            executable: BlobKey::of(b""),
            files: Default::default(),
            args: Vec::new(),
            env: Default::default(),
            client_dir: String::new(),
            ordinal: 0,
            earlier: Vec::new(),
            default_parallelism: 2,
            mode: ExecutionMode::Automatic,
            restart: RestartStrategy::FixedDelay { attempts: 3, delay: Duration::from_millis(1) },
            client_timeout: None,
            options: [("job.note".to_owned(), "x".to_owned()), ("job.token".to_owned(), "t".to_owned())].into(),
            plugins: Vec::new(),
            protocol: (1, 1),
        };
        let answer = self.job_manager.dispatcher().submit(job, Box::new(spec), false).await;
        assert!(matches!(answer, Some(Submitted::Accepted)), "{answer:?}");
        job
    }

    pub fn url(&self, route: &str) -> String {
        format!("{}{route}", self.job_manager.rest_url().unwrap())
    }

    pub fn request(&self, method: Method, route: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(route))
    }

    /// With the secret.
    pub fn write(&self, method: Method, route: &str) -> reqwest::RequestBuilder {
        self.request(method, route).bearer_auth(bearer(&Secret::new(SECRET)))
    }

    /// The JSON of a route, which must be 200 with the right content type, and the same below `/v1`.
    pub async fn get(&self, route: &str) -> Value {
        let answer = self.request(Method::GET, route).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json; charset=UTF-8", "{route}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*", "{route}");
        assert_eq!(answer.status(), StatusCode::OK, "{route}");
        let under_v1 = self.request(Method::GET, &format!("/v1{route}")).send().await.unwrap();
        assert_eq!(under_v1.status(), StatusCode::OK, "/v1{route}");
        answer.json().await.unwrap()
    }

    /// Sends a request that must be refused in Flink's form; answers the status and the message.
    pub async fn refused(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.send().await.unwrap();
        let (status, kind) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
        let body: Value = answer.json().await.unwrap();
        assert_eq!(kind, "application/json; charset=UTF-8");
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["errors"], "Flink's command line reads nothing else");
        (status, body["errors"][0].as_str().unwrap().to_owned())
    }

    pub async fn until<T>(&self, what: &str, probe: impl AsyncFn() -> Option<T>) -> T {
        thalweg_testkit::eventually(what, Duration::from_secs(30), async || probe().await).await
    }

    /// Waits for a status of the job.
    pub async fn until_job_is(&self, job: JobId, status: &str) {
        let probe = async || (self.get(&format!("/jobs/{job}/status")).await["status"] == status).then_some(());
        self.until(status, probe).await;
    }
}

/// Runs a test on a runtime of its own, with a time limit.
pub fn run(name: &str, test: impl Future<Output = ()>) {
    thalweg_testkit::run(name, test);
}

fn vertex(uid: &str, parallelism: u32, role: VertexRole) -> Vertex {
    let operator = OperatorInfo { uid: uid.into(), name: format!("{uid} <i>"), kind: "map".into(), states: Vec::new() };
    let (id, max_parallelism) = (VertexId::from_uid(uid), 128);
    Vertex {
        id,
        operators: vec![operator],
        parallelism,
        max_parallelism,
        role,
        own_thread: false,
        slot_sharing_group: None,
    }
}

/// Coordinator → source (2) → count (2) → committer, with the source's requests back to its coordinator.
pub fn word_count() -> JobGraph {
    let edge = |from, to, partitioner, feedback| Edge { from, to, partitioner, item: "u8".into(), feedback };
    JobGraph {
        vertices: vec![
            vertex("files/coordinator", 1, VertexRole::Coordinator),
            vertex("files", 2, VertexRole::Task),
            vertex("count", 2, VertexRole::Task),
            vertex("sink/committer", 1, VertexRole::Committer),
        ],
        edges: vec![
            edge(0, 1, Partitioner::Direct, false),
            edge(1, 0, Partitioner::Direct, true),
            edge(1, 2, Partitioner::Hash, false),
            edge(2, 3, Partitioner::Rebalance, false),
        ],
        bounded: true,
    }
}
