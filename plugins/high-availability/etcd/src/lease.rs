//! A lease, kept alive by a thread of its own with its own runtime and its own connection.
//!
//! Nothing that the rest of the process does can delay a renewal, nor prolong a lease that was not renewed: the thread
//! tells the loss by the clock, although etcd is silent and every other thread is blocked. It ends when the lease is
//! over, when it is told to give it back, or when the [`Lease`] is dropped, which gives it back too.

use crate::{
    connect::Settings,
    failure::{Cause, Failure, classify},
    members::{Member, Members},
    standing::{Standing, Term},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use thalweg_env::{Clock, Env, timeout};
use tokio::sync::{oneshot, watch};

/// The clock is looked at so often at least: timers stand still while the machine is suspended.
const LOOK: Duration = Duration::from_secs(1);

/// A lease that is kept alive until it is given back or dropped.
pub(crate) struct Lease {
    id: i64,
    term: Arc<Term>,
    stop: Option<oneshot::Sender<()>>,
    ended: watch::Receiver<Option<bool>>,
}

/// What the thread has.
struct Keeper {
    settings: Settings,
    clock: Arc<dyn Clock>,
    members: Members,
    term: Arc<Term>,
    standing: Arc<Standing>,
}

impl Lease {
    /// Starts the thread and waits for its lease.
    pub(crate) async fn take(settings: &Settings, env: &Env, standing: &Arc<Standing>) -> Result<Self, Failure> {
        let (granted, answer) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let term = Term::new(env.clock.clone());
        let keeper = Keeper {
            settings: settings.clone(),
            clock: env.clock.clone(),
            members: Members::new(settings.clone(), env.clock.clone()),
            term: term.clone(),
            standing: standing.clone(),
        };
        let run = Box::new(move || {
            // Everything of it is on this thread, so that it shares nothing that somebody could block.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let returned = match runtime {
                Ok(runtime) => runtime.block_on(keeper.run(granted, stopped)),
                Err(e) => {
                    let failure = Failure::new(Cause::Other, "", format!("no runtime for the lease's thread: {e}"));
                    let _ = granted.send(Err(failure));
                    false
                }
            };
            end.send_replace(Some(returned));
        });
        let own = |why: String| Failure::new(Cause::Other, "", why);
        env.spawner.thread("etcd-lease".into(), run).map_err(|e| own(format!("no thread to renew the lease: {e}")))?;
        // Dropped meanwhile: `stop` goes too, and the thread gives the lease back.
        let id = answer.await.map_err(|_| own("the lease's thread ended".into()))??;
        Ok(Self { id, term, stop: Some(stop), ended })
    }

    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    pub(crate) fn term(&self) -> &Arc<Term> {
        &self.term
    }

    /// Gives it back, with all keys that are bound to it. `false`: etcd did not hear of it, and it ends by itself.
    pub(crate) async fn give_back(mut self) -> bool {
        drop(self.stop.take());
        match self.ended.wait_for(Option::is_some).await {
            Ok(returned) => returned.unwrap_or(false),
            Err(_) => false,
        }
    }
}

impl Keeper {
    async fn run(self, granted: oneshot::Sender<Result<i64, Failure>>, stopped: oneshot::Receiver<()>) -> bool {
        let seconds = i64::try_from(self.settings.config.lease.get().as_secs()).unwrap_or(i64::MAX);
        let sent = Mutex::new(self.clock.since_boot());
        let grant = self.members.call(self.members.until(), |client| {
            // The last try is the one that is answered. A lease of an earlier one ends by itself.
            *sent.lock() = self.clock.since_boot();
            async move { client.lease_client().grant(seconds, None).await }
        });
        let (id, ttl) = match grant.await {
            Ok(lease) => (lease.id(), Duration::from_secs(u64::try_from(lease.ttl()).unwrap_or(0))),
            Err(failure) => {
                let _ = granted.send(Err(failure));
                return false;
            }
        };
        self.term.renew(*sent.lock(), ttl);
        if granted.send(Ok(id)).is_ok() {
            tokio::select! {
                biased;
                () = self.over() => {
                    self.standing.lose_term(&self.term, "its lease could not be renewed in time");
                }
                why = self.keep(id, ttl) => {
                    self.term.end();
                    self.standing.lose_term(&self.term, &why);
                }
                // Told or dropped.
                _ = stopped => self.standing.lose_term(&self.term, "it is left"),
            }
        }
        self.term.end();
        self.revoke(id).await
    }

    /// Resolves when the term is over.
    async fn over(&self) {
        loop {
            let left = self.term.left();
            if left.is_zero() {
                return;
            }
            self.clock.sleep(left.min(LOOK)).await;
        }
    }

    /// Renews it as long as etcd says that it lives; answers why not.
    async fn keep(&self, id: i64, ttl: Duration) -> String {
        let mut tried = 0;
        loop {
            let failure = match self.members.member().await {
                Ok(member) => {
                    let (endpoint, at) = (member.endpoint.clone(), member.at);
                    let failure = self.keep_at(member, id, ttl, &mut tried).await;
                    self.members.failed(at, &failure);
                    tracing::debug!(endpoint, "lease not renewed: {}", failure.message);
                    failure
                }
                Err(failure) => failure,
            };
            if failure.cause == Cause::LeaseOver {
                return format!("etcd says that its lease is over ({})", failure.message);
            }
            tried += 1;
            self.members.pause(tried).await;
        }
    }

    /// Renews it at one member, until that fails.
    async fn keep_at(&self, member: Member, id: i64, ttl: Duration, tried: &mut usize) -> Failure {
        let Member { endpoint, client, .. } = member;
        let limit = self.settings.config.request_timeout.get().min(ttl / 3);
        let silent = || Failure::silent(&endpoint, limit);
        let failed = |e: etcd_client::Error| classify(&e, &endpoint, &self.settings);
        // Opening asks for the first renewal; what it grants is what was granted first.
        let mut sent = self.clock.since_boot();
        let mut leases = client.lease_client();
        let (mut ask, mut answers) = match timeout(&*self.clock, limit, leases.keep_alive(id)).await {
            Ok(Ok(streams)) => streams,
            Ok(Err(e)) => return failed(e),
            Err(_) => return silent(),
        };
        self.term.renew(sent, ttl);
        loop {
            *tried = 0;
            self.clock.sleep(ttl / 3).await;
            sent = self.clock.since_boot();
            // This only queues; the answer alone says that it was renewed.
            if let Err(e) = ask.keep_alive().await {
                return failed(e);
            }
            match timeout(&*self.clock, limit, answers.message()).await {
                Ok(Ok(Some(answer))) if answer.ttl() > 0 => {
                    self.term.renew(sent, Duration::from_secs(answer.ttl().unsigned_abs()));
                }
                Ok(Ok(Some(_))) => return Failure::new(Cause::LeaseOver, &endpoint, "expired or revoked"),
                Ok(Ok(None)) => return Failure::new(Cause::Broken, &endpoint, "the stream of renewals ended"),
                Ok(Err(e)) => return failed(e),
                Err(_) => return silent(),
            }
        }
    }

    async fn revoke(&self, id: i64) -> bool {
        let revoke = |client: etcd_client::Client| async move { client.lease_client().revoke(id).await };
        match self.members.call(self.clock.now() + self.settings.config.request_timeout.get(), revoke).await {
            Ok(_) => true,
            Err(failure) if failure.cause == Cause::LeaseOver => true,
            Err(failure) => {
                tracing::debug!("lease not given back, it ends by itself: {}", failure.message);
                false
            }
        }
    }
}
