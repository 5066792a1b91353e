//! The election: whoever creates `@leader` under its own lease leads.
//!
//! A candidate waits until the key is gone, takes a lease, and tries to create the key. The lease is taken only then, so
//! that a standby costs etcd one silent watch. An answer that was lost is found again by the mark of the candidacy; a
//! try that comes late finds that its lease was given back.

use crate::{
    connect::Settings,
    failure::{Cause, Failure},
    guard::{Guard, revision},
    leader_watch::{LeaderWatch, View},
    lease::Lease,
    members::Members,
    record::LeaderRecord,
    standing::Standing,
};
use async_trait::async_trait;
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Env, timeout};
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, Happened, LeaderElection, LeaderInfo, Office, Result, ServiceError};
use tokio::sync::watch;

/// A candidate that finds etcd away tries again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// See the head of the file.
pub(crate) struct Election {
    settings: Settings,
    env: Env,
    members: Arc<Members>,
    standing: Arc<Standing>,
    guard: Arc<Guard>,
    watch: Arc<LeaderWatch>,
    held: Mutex<Option<Held>>,
    campaigning: tokio::sync::Mutex<()>,
}

struct Held {
    epoch: Epoch,
    candidacy: u64,
    lease: Lease,
}

/// What a try came to: the revisions that created and last wrote the key if it is this candidate's.
enum Tried {
    Won(i64, i64),
    /// Somebody leads, as of this revision.
    Taken(i64),
}

impl Election {
    pub(crate) fn new(
        settings: Settings,
        env: Env,
        members: Arc<Members>,
        standing: Arc<Standing>,
        guard: Arc<Guard>,
        watch: Arc<LeaderWatch>,
    ) -> Self {
        let (held, campaigning) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        Self { settings, env, members, standing, guard, watch, held, campaigning }
    }

    /// May this user do what a leader does? etcd checks both branches of a transaction before it compares anything, so
    /// one whose condition never holds asks without doing.
    async fn may_lead(&self) -> Result<(), Failure> {
        let (leader, data) = (self.settings.keys.leader(), self.settings.keys.record(""));
        let ask = |client: Client| {
            let all = DeleteOptions::new().with_prefix();
            let txn = Txn::new()
                .when(vec![Compare::create_revision(leader.clone(), CompareOp::Less, 0)])
                .and_then(vec![TxnOp::put(leader.clone(), "", None), TxnOp::delete(data.clone(), Some(all))])
                .or_else(vec![]);
            async move { client.kv_client().txn(txn).await }
        };
        self.members.call(self.members.until(), ask).await.map(drop)
    }

    /// Waits until nobody leads, beginning with what is known at `revision`.
    async fn vacant(&self, revision: i64) -> Result<(), Failure> {
        let mut view = self.watch.view();
        loop {
            let gone = async { view.wait_for(|v| v.revision >= revision && v.leader.is_none()).await.is_ok() };
            match timeout(&*self.env.clock, self.settings.config.lease.get(), gone).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Failure::new(Cause::Other, "", "the watch of the leader's key has ended")),
                // The watch should have told. It is looked at anyway: office must not stay empty for a watch that is
                // silent and does not know it.
                Err(_) => {
                    let key = self.settings.keys.leader();
                    let look = |client: Client| {
                        let key = key.clone();
                        async move { client.kv_client().get(key, None).await }
                    };
                    let answer = self.members.call(self.members.until(), look).await?;
                    if View::of(&answer).leader.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Tries to create the key. May be asked several times: a try whose answer was lost knows itself again.
    async fn create(&self, lease: i64, candidacy: u64) -> Result<Tried, Failure> {
        let key = self.settings.keys.leader();
        let value = LeaderRecord { candidacy, leader: None }.encode();
        let create = |client: Client| {
            let txn = Txn::new()
                .when(vec![Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
                .and_then(vec![TxnOp::put(key.clone(), value.clone(), Some(PutOptions::new().with_lease(lease)))])
                .or_else(vec![TxnOp::get(key.clone(), None)]);
            async move { client.kv_client().txn(txn).await }
        };
        let answer = self.members.call(self.members.until(), create).await?;
        let now = revision(&answer);
        if answer.succeeded() {
            return Ok(Tried::Won(now, now));
        }
        let found = answer.op_responses().into_iter().find_map(|op| match op {
            TxnOpResponse::Get(get) => get.kvs().first().cloned(),
            _ => None,
        });
        let own = found.filter(|kv| {
            kv.lease() == lease && LeaderRecord::decode(kv.value()).is_some_and(|r| r.candidacy == candidacy)
        });
        Ok(own.map_or(Tried::Taken(now), |kv| Tried::Won(kv.create_revision(), kv.mod_revision())))
    }

    /// One candidacy, from the wait to the grant; `None` when another one was faster.
    async fn stand(&self, since: &mut i64) -> Result<Option<Epoch>, Failure> {
        self.vacant(*since).await?;
        let lease = Lease::take(&self.settings, &self.env, &self.standing).await?;
        let candidacy = self.env.entropy.next_u64();
        // When this is dropped here, the lease goes back, and the key with it.
        let (created, written) = match self.create(lease.id(), candidacy).await? {
            Tried::Won(created, written) => (created, written),
            Tried::Taken(revision) => {
                *since = revision;
                lease.give_back().await;
                return Ok(None);
            }
        };
        let epoch = Epoch(created.unsigned_abs());
        let mut held = self.held.lock();
        if !self.standing.grant(epoch, written, lease.term()) {
            // It took longer than the lease lasts. The lease goes back when it is dropped.
            return Ok(None);
        }
        *held = Some(Held { epoch, candidacy, lease });
        Ok(Some(epoch))
    }

    /// Leaves whatever office is held.
    pub(crate) async fn leave(&self) -> Result<()> {
        let held = self.held.lock().take();
        match held {
            Some(held) => self.leave_office(held).await,
            None => Ok(()),
        }
    }

    async fn leave_office(&self, held: Held) -> Result<()> {
        // Told first; then the next one may have it.
        self.standing.lose(held.epoch, "it is left");
        let key = self.settings.keys.leader();
        let remove = |client: Client| {
            let created = i64::try_from(held.epoch.0).unwrap_or(i64::MAX);
            let txn = Txn::new()
                .when(vec![Compare::create_revision(key.clone(), CompareOp::Equal, created)])
                .and_then(vec![TxnOp::delete(key.clone(), None)]);
            async move { client.kv_client().txn(txn).await }
        };
        let removed = self.members.call(self.members.until(), remove).await;
        // The key is gone with the lease as well; one of both is enough.
        let returned = held.lease.give_back().await;
        match removed {
            Err(failure) if !returned => Err(failure.error("leave office")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl LeaderElection for Election {
    async fn campaign(&self) -> Result<Epoch> {
        const OPERATION: &str = "campaign";
        let _alone = self.campaigning.lock().await;
        if let Some(epoch) = self.standing.epoch() {
            return Ok(epoch);
        }
        // What is left of an office that was lost.
        drop(self.held.lock().take());
        let (mut asked, mut since) = (false, 0);
        loop {
            let stood = async {
                if !asked {
                    self.may_lead().await?;
                    asked = true;
                }
                self.stand(&mut since).await
            };
            match stood.await {
                Ok(Some(epoch)) => {
                    tracing::info!(%epoch, root = self.settings.keys.root(), "leads this cluster");
                    return Ok(epoch);
                }
                Ok(None) => {}
                // A standby outlives an etcd that is away.
                Err(f) if f.elsewhere() || f.cause == Cause::LeaseOver => {
                    tracing::warn!(endpoint = f.endpoint, "waits for office, but etcd does not answer: {}", f.message);
                    self.env.clock.sleep(AGAIN).await;
                }
                Err(f) => return Err(Failure { happened: Happened::No, ..f }.error(OPERATION)),
            }
        }
    }

    async fn announce(&self, epoch: Epoch, leader: LeaderInfo) -> Result<()> {
        let candidacy = self.held.lock().as_ref().filter(|held| held.epoch == epoch).map(|held| held.candidacy);
        self.standing.check(epoch, "announce leader")?;
        match candidacy {
            Some(candidacy) => self.guard.announce(epoch, candidacy, leader).await,
            None => Err(ServiceError::new(ErrorKind::Fenced, "announce leader", format!("epoch {epoch} is left"))),
        }
    }

    fn office(&self) -> watch::Receiver<Office> {
        // Looks at the clock, so that nobody learns of an office whose time is over.
        self.standing.epoch();
        self.standing.office()
    }

    async fn resign(&self, epoch: Epoch) -> Result<()> {
        let held = self.held.lock().take_if(|held| held.epoch == epoch);
        match held {
            Some(held) => self.leave_office(held).await,
            None => Ok(()),
        }
    }
}
