//! REST: Flink's v1 routes and JSON, our own extras under `/api`, and one static page at `/`.
//!
//! Reads are open to whoever can reach the port; writes need the cluster's secret as `Authorization: Bearer …`, on
//! loopback too, since a job is code. Handlers only translate: they ask the Dispatcher and the ResourceManager. A process
//! that does not lead has the leader answer: see [`proxy`].

pub mod api;
pub mod error;
pub mod flink;
pub mod proxy;
mod refusals;
pub mod web;

pub use error::RestError;
pub use proxy::Whereabouts;

use crate::{dispatcher::DispatcherHandle, job_manager::JobManagerConfig, resource_manager::ResourceManagerHandle};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use parking_lot::RwLock;
use std::{
    io,
    sync::{Arc, OnceLock},
};
use thalweg_env::{Address, BoxStream, Env, Listener, Shutdown};
use thalweg_model::{ClusterId, Epoch};
use thalweg_spi::{BlobService, MetricRegistry, Secret};

/// The components of the leader, once there is one.
#[derive(Clone)]
pub struct Leader {
    /// Jobs.
    pub dispatcher: DispatcherHandle,
    /// TaskManagers.
    pub resources: ResourceManagerHandle,
    /// Under which it leads.
    pub epoch: Epoch,
}

/// What handlers see.
#[derive(Clone)]
pub struct RestState {
    leader: Arc<RwLock<Option<Leader>>>,
    /// Where this process is and who leads, once that is known.
    whereabouts: Arc<OnceLock<Whereabouts>>,
    pub(crate) env: Env,
    pub(crate) cluster: ClusterId,
    pub(crate) blobs: Arc<dyn BlobService>,
    pub(crate) shown_configuration: Arc<Vec<(String, String)>>,
    /// Plugins that a job's executable must have linked, as `kind/name`.
    pub(crate) job_plugins: Arc<Vec<String>>,
    /// What this process counts of itself.
    pub(crate) metrics: MetricRegistry,
    pub(crate) log_dir: Option<Arc<std::path::PathBuf>>,
    secret: Secret,
    writes_need_secret: bool,
    /// When a job starts again that does not say so itself.
    pub(crate) restart: thalweg_wire::RestartStrategy,
    /// The attached client knows how the cluster ended.
    pub(crate) end_read: Shutdown,
    /// This server has ended.
    ending: Shutdown,
    /// Results that attached clients have read: a cluster that ends waits for them.
    pub(crate) read_results: tokio::sync::watch::Sender<Vec<thalweg_model::JobId>>,
}

impl RestState {
    /// The leader, or 503.
    pub(crate) fn leader(&self) -> Result<Leader, RestError> {
        self.leader.read().clone().ok_or_else(RestError::no_leader)
    }

    pub(crate) fn may_write(&self, headers: &axum::http::HeaderMap) -> Result<(), RestError> {
        if !self.writes_need_secret {
            return Ok(());
        }
        let offered = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let expected = Secret::new(format!("Bearer {}", crate::job_manager::bearer(&self.secret)));
        match offered {
            Some(offered) if expected.matches(offered.as_bytes()) => Ok(()),
            Some(_) => Err(RestError::forbidden("this is not the cluster's secret")),
            None => Err(RestError::unauthorized(
                "writes need the cluster's secret: use the thalweg command with the cluster's --dir, or send it as Authorization: Bearer",
            )),
        }
    }
}

/// The server.
pub struct RestServer {
    address: Address,
    state: RestState,
    shutdown: Shutdown,
}

struct Accept(Box<dyn Listener>, Env);

impl axum::serve::Listener for Accept {
    type Io = BoxStream;
    type Addr = String;

    async fn accept(&mut self) -> (BoxStream, String) {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => return (stream, peer.name),
                Err(e) => {
                    tracing::warn!("REST cannot accept a connection: {e}");
                    self.1.clock.sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.0.address().to_string())
    }
}

impl RestServer {
    /// Listens and serves. Who needs a leader is told 503 until [`RestServer::follow`] or [`RestServer::lead`].
    pub async fn bind(
        env: &Env,
        at: &Address,
        config: &JobManagerConfig,
        secret: Secret,
        blobs: Arc<dyn BlobService>,
        shutdown: Shutdown,
    ) -> io::Result<Self> {
        let listener = env.network.listen(at).await?;
        let address = listener.address();
        let metrics = MetricRegistry::new();
        metrics.register_process();
        let state = RestState {
            leader: Arc::default(),
            whereabouts: Arc::default(),
            env: env.clone(),
            cluster: config.rpc.cluster.clone(),
            blobs,
            shown_configuration: Arc::new(config.shown_configuration.clone()),
            job_plugins: Arc::new(config.job_plugins.clone()),
            metrics,
            log_dir: config.log_dir.clone().map(Arc::new),
            secret,
            writes_need_secret: config.rest_writes_need_secret,
            restart: config.restart.clone(),
            end_read: Shutdown::new(),
            ending: shutdown.clone(),
            read_results: tokio::sync::watch::Sender::new(Vec::new()),
        };
        let router = router(state.clone(), config.rest_max_body);
        let (accept, stop) = (Accept(listener, env.clone()), shutdown.clone());
        env.spawner.spawn("rest", async move {
            let serve = axum::serve(accept, router).with_graceful_shutdown(async move { stop.triggered().await });
            if let Err(e) = serve.await {
                tracing::error!("REST ended: {e}");
            }
        });
        Ok(Self { address, state, shutdown })
    }

    /// From now on the leader answers requests, through this process, until it leads itself.
    pub fn follow(&self, whereabouts: Whereabouts) {
        // A second call changes nothing: a process has one place and one plugin that names the leader.
        let _ = self.state.whereabouts.set(whereabouts);
    }

    /// From now on this process answers requests.
    pub fn lead(&self, leader: Leader) {
        *self.state.leader.write() = Some(leader);
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        match &self.address {
            Address::Tcp(at) => format!("http://{at}"),
            other => other.to_string(),
        }
    }

    /// The same at the host that others use, where it listens on all of them.
    pub fn advertised(&self, others: Option<&Address>) -> String {
        let (Address::Tcp(at), Some(Address::Tcp(others))) = (&self.address, others) else { return self.url() };
        let Ok(bound) = at.parse::<std::net::SocketAddr>() else { return self.url() };
        let host = others.rsplit_once(':').map_or(others.as_str(), |(host, _)| host);
        if bound.ip().is_unspecified() { format!("http://{host}:{}", bound.port()) } else { self.url() }
    }

    /// Resolves when an attached client has read this job's result.
    pub async fn result_read(&self, job: thalweg_model::JobId) {
        let mut read = self.state.read_results.subscribe();
        if read.wait_for(|read| read.contains(&job)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when the attached client knows how the cluster ended.
    pub async fn end_read(&self) {
        self.state.end_read.triggered().await;
    }

    /// Takes no more connections; requests under way are finished.
    pub fn stop_accepting(&self) {
        self.shutdown.trigger();
    }
}

fn router(state: RestState, max_body: usize) -> Router {
    let routes = Router::new().merge(api::routes()).merge(proxy::routes()).merge(flink::routes()).merge(web::routes());
    routes
        .fallback(|| async { RestError::not_found("no such route") })
        .layer(middleware::from_fn_with_state(state.clone(), unless_ending))
        .layer(middleware::from_fn(error::as_json))
        .layer(DefaultBodyLimit::max(max_body))
        // Outside of the limit: the leader has its own.
        .layer(middleware::from_fn_with_state(state.clone(), proxy::forward))
        .layer(middleware::from_fn_with_state(state.clone(), common_headers))
        .layer(middleware::from_fn_with_state(state.clone(), refusals::read_to_the_end))
        .with_state(state)
}

/// While this process ends, its components are gone one after the other, and what is asked of them sounds as if there had
/// never been a job. Whoever asked is sent to the next leader instead. A write that was taken stays so.
async fn unless_ending(State(state): State<RestState>, request: Request, next: Next) -> Response {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = next.run(request).await;
    if state.ending.is_triggered() && (read || !response.status().is_success()) {
        return RestError::no_leader().into_response();
    }
    response
}

async fn common_headers(State(_): State<RestState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
