//! Finds the leader, registers with its ResourceManager, and stays registered.
//!
//! When the connection closes it dials again at once: the same life answers, and it registers again as if nothing had
//! happened; refused, or another life, and the leader is lost; no answer, and the heartbeat's time-out decides.

use super::driver::ExecutorHandle;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Address, Env, Shutdown};
use thalweg_model::{Epoch, Moment};
use thalweg_rpc::{
    Connection, Fence, HeartbeatSettings, PeerId, RegistrationRetry, RetrySettings, RpcError, RpcService, Target,
    gateways::{RegistrationAnswer, ResourceManagerGateway, TaskManagerInfo, endpoint, resource_manager::GOODBYE},
    registration::Outcome,
};
use thalweg_spi::{LeaderInfo, LeaderRetrieval};
use tokio::sync::watch;

/// What the link works with.
pub struct LeaderLink {
    /// Seams.
    pub env: Env,
    /// This process's RPC.
    pub rpc: RpcService,
    /// Tells who leads.
    pub retrieval: Arc<dyn LeaderRetrieval>,
    /// This TaskManager.
    pub info: TaskManagerInfo,
    /// How patient it is.
    pub retry: RetrySettings,
    /// When silence is loss.
    pub heartbeat: HeartbeatSettings,
    /// Not registered for so long, and nothing runs here: the process ends.
    pub registration_timeout: Duration,
    /// When the leader was last heard; the driver writes it.
    pub heard: watch::Receiver<Moment>,
    /// Called when the process must end.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
    /// Told of each leader that it is registered with, and of its loss.
    pub on_registered: Arc<dyn Fn(Option<Leader>) + Send + Sync>,
    /// Ends the link.
    pub shutdown: Shutdown,
}

/// A registered leader.
#[derive(Clone)]
pub struct Leader {
    /// The connection.
    pub connection: Connection,
    /// Its epoch.
    pub epoch: Epoch,
}

enum Registration {
    Registered(Leader),
    Rejected(String),
}

impl LeaderLink {
    /// Runs until shutdown.
    pub async fn run(self, executor: ExecutorHandle) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = self.keep(executor) => {}
            () = shutdown.triggered() => {}
        }
    }

    async fn keep(&self, executor: ExecutorHandle) {
        let mut leaders = self.retrieval.leader();
        let mut unregistered_since = self.env.clock.now();
        let mut told_waiting = false;
        loop {
            let present = leaders.borrow_and_update().clone();
            let registered = match present {
                None => None,
                Some(leader) => self.register(&leader, &mut leaders, &executor, unregistered_since).await,
            };
            let leader = match registered {
                Some(Registration::Registered(leader)) => leader,
                Some(Registration::Rejected(why)) => {
                    return (self.on_fatal)(format!("the ResourceManager rejects this TaskManager: {why}"));
                }
                None => {
                    if !told_waiting {
                        tracing::info!("waiting for a JobManager");
                        told_waiting = true;
                    }
                    if executor.is_busy().await {
                        // The clock stands still while it keeps tasks of a lost leader.
                        unregistered_since = self.env.clock.now();
                    }
                    let left = self.registration_timeout.saturating_sub(self.env.clock.now().since(unregistered_since));
                    if left.is_zero() {
                        let limit = self.registration_timeout.as_secs_f64();
                        return (self.on_fatal)(format!("no JobManager took this TaskManager within {limit}s"));
                    }
                    let again = self.env.clock.sleep(left.min(Duration::from_millis(250)));
                    tokio::select! {
                        changed = leaders.changed() => if changed.is_err() { return },
                        () = again => {}
                    }
                    continue;
                }
            };
            told_waiting = false;
            tracing::info!(leader = ?leader.connection.peer(), "registered");
            (self.on_registered)(Some(leader.clone()));
            executor.leader_found(leader.clone());
            let lost = self.watch(&leader, &mut leaders).await;
            unregistered_since = self.env.clock.now();
            if let Some(why) = lost {
                tracing::warn!("the JobManager is lost: {why}");
                (self.on_registered)(None);
                executor.leader_lost();
            }
        }
    }

    /// Tries until it is registered, or another leader is announced (`None`).
    async fn register(
        &self,
        leader: &LeaderInfo,
        leaders: &mut watch::Receiver<Option<LeaderInfo>>,
        executor: &ExecutorHandle,
        since: Moment,
    ) -> Option<Registration> {
        let address: Address = match leader.rpc.parse() {
            Ok(address) => address,
            Err(e) => {
                tracing::error!("the leader's address is unusable: {e}");
                return None;
            }
        };
        let mut retry = RegistrationRetry::new(self.retry);
        let mut told = false;
        loop {
            let wait = match self.try_register(&address, executor, retry.timeout()).await {
                Ok(RegistrationAnswered { answer: RegistrationAnswer::Accepted, leader }) => {
                    return Some(Registration::Registered(leader));
                }
                Ok(RegistrationAnswered { answer: RegistrationAnswer::Rejected(why), .. }) => {
                    return Some(Registration::Rejected(why));
                }
                Err(RpcError::HandshakeRefused { reason, .. }) => return Some(Registration::Rejected(reason)),
                Err(e) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("cannot register yet, trying again: {e}");
                    }
                    retry.after(match e {
                        RpcError::Timeout => Outcome::TimedOut,
                        RpcError::ConnectionRefused { .. } => Outcome::Refused,
                        _ => Outcome::Failed,
                    })
                }
            };
            if self.env.clock.now().since(since) >= self.registration_timeout {
                return None;
            }
            tokio::select! {
                changed = leaders.changed() => {
                    if changed.is_err() || leaders.borrow().as_ref() != Some(leader) {
                        return None;
                    }
                }
                () = self.env.clock.sleep(wait) => {}
            }
        }
    }

    async fn try_register(
        &self,
        address: &Address,
        executor: &ExecutorHandle,
        timeout: Duration,
    ) -> Result<RegistrationAnswered, RpcError> {
        let connection = self.rpc.connect(address).await?;
        let Some(epoch) = connection.peer().epoch else {
            // It listens but does not lead (yet).
            connection.close();
            return Err(RpcError::Unreachable { address: address.to_string(), cause: "it does not lead".into() });
        };
        let leader = Leader { connection, epoch };
        let gateway = self.gateway(&leader);
        let report = executor.slot_report().await;
        let ask = gateway.register_task_manager(self.info.clone(), report);
        let answered = thalweg_env::timeout(&*self.env.clock, timeout, ask).await;
        let answer = answered.map_err(|_| RpcError::Timeout)??;
        Ok(RegistrationAnswered { answer, leader })
    }

    fn gateway(&self, leader: &Leader) -> ResourceManagerGateway {
        let fence = Fence::cluster(leader.epoch);
        ResourceManagerGateway::new(Target::remote(leader.connection.clone(), endpoint::RESOURCE_MANAGER, fence))
    }

    /// Waits until registration is needed again; answers why the leader is lost, when it is.
    async fn watch(&self, leader: &Leader, leaders: &mut watch::Receiver<Option<LeaderInfo>>) -> Option<String> {
        let registered = self.env.clock.now();
        loop {
            let heard = (*self.heard.borrow()).max(registered);
            tokio::select! {
                () = leader.connection.closed() => return self.look(leader.connection.peer_id(), heard).await,
                changed = leaders.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    let epoch = leaders.borrow().as_ref().and_then(|l| l.epoch);
                    if epoch.is_some_and(|e| e > leader.epoch) {
                        leader.connection.close();
                        return Some("another leader was announced".into());
                    }
                }
                () = self.env.clock.sleep_until(heard + self.heartbeat.timeout) => {
                    let heard = (*self.heard.borrow()).max(registered);
                    if self.env.clock.now().since(heard) >= self.heartbeat.timeout {
                        leader.connection.close();
                        return Some(format!("no heartbeat for {}s", self.heartbeat.timeout.as_secs_f64()));
                    }
                }
            }
        }
    }

    /// Is the same life still there?
    async fn look(&self, was: PeerId, heard: Moment) -> Option<String> {
        let present = self.retrieval.leader().borrow().clone();
        let Some(address) = present.and_then(|l| l.rpc.parse::<Address>().ok()) else {
            return Some("its connection closed and nobody leads".into());
        };
        loop {
            match self.rpc.connect(&address).await {
                Ok(connection) if connection.peer_id() == was => return None,
                Ok(_) => return Some("another process took its place".into()),
                Err(e) if e.is_refused_connection() => return Some("its process is gone".into()),
                Err(e @ RpcError::HandshakeRefused { .. }) => return Some(e.to_string()),
                Err(_) => {}
            }
            if self.env.clock.now().since(heard) >= self.heartbeat.timeout {
                return Some("it cannot be reached".into());
            }
            self.env.clock.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Says goodbye, so that nobody has to find out.
    pub async fn goodbye(env: &Env, leader: &Leader, info: &TaskManagerInfo) {
        let fence = Fence::cluster(leader.epoch);
        let gateway =
            ResourceManagerGateway::new(Target::remote(leader.connection.clone(), endpoint::RESOURCE_MANAGER, fence));
        let said = gateway.disconnect_task_manager(info.id.clone(), info.instance, GOODBYE.into());
        let _ = thalweg_env::timeout(&*env.clock, Duration::from_secs(1), said).await;
    }
}

struct RegistrationAnswered {
    answer: RegistrationAnswer,
    leader: Leader,
}
