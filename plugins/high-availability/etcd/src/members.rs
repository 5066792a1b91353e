//! The members of etcd, one asked at a time: a client for each, a present one, and the next one when it fails.
//!
//! The client library can spread calls over all members, but never retires one that is dead or hangs. So each member
//! has a client of its own here, and one that failed is left alone for some seconds. Whoever calls says whether a call
//! may be made twice: [`Members::call`] does, [`Members::once`] does not.

use crate::{
    connect::{Settings, connect},
    failure::{Failure, classify},
};
use etcd_client::Client;
use parking_lot::Mutex;
use std::{future::Future, sync::Arc, time::Duration};
use thalweg_env::{Clock, timeout};
use thalweg_model::Moment;
use thalweg_spi::Happened;

/// A member that failed is not asked again for so long, unless all have failed.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Between two rounds over all members.
const PAUSE: Duration = Duration::from_millis(100);

/// The members, as one runtime uses them: a client's background work lives on the runtime that connected it.
pub(crate) struct Members {
    settings: Settings,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    present: usize,
    each: Vec<One>,
}

#[derive(Default)]
struct One {
    client: Option<Client>,
    bad_until: Option<Moment>,
}

/// A member that is connected.
pub(crate) struct Member {
    pub at: usize,
    pub endpoint: String,
    pub client: Client,
}

impl Members {
    pub(crate) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let each = settings.config.endpoints.iter().map(|_| One::default()).collect();
        Self { settings, clock, state: Mutex::new(State { present: 0, each }) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.settings.config.endpoints.len()
    }

    /// The present member, connected. A failure has been noted: the next call takes the next member.
    pub(crate) async fn member(&self) -> Result<Member, Failure> {
        let at = self.choose();
        self.connected(at).await
    }

    /// This member, connected.
    pub(crate) async fn connected(&self, at: usize) -> Result<Member, Failure> {
        let endpoint = self.settings.config.endpoints[at].clone();
        let known = self.state.lock().each[at].client.clone();
        let client = match known {
            Some(client) => client,
            None => {
                // On the heap: the library's futures are large, and this is under everything here.
                let client = Box::pin(connect(&self.settings, &endpoint, &*self.clock)).await;
                let client = client.inspect_err(|failure| self.failed(at, failure))?;
                self.state.lock().each[at].client = Some(client.clone());
                client
            }
        };
        Ok(Member { at, endpoint, client })
    }

    /// The present one, unless it failed a moment ago; of those that failed, the one whose failure is the oldest.
    fn choose(&self) -> usize {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let count = state.each.len();
        let order = (0..count).map(|i| (state.present + i) % count);
        let waits = |at: &usize| state.each[*at].bad_until.filter(|until| *until > now);
        // The first of equals: the present one if it is good.
        let best = order.min_by_key(waits).unwrap_or(0);
        state.present = best;
        best
    }

    /// Notes a failure. The client goes too: the next one reads certificates and password anew.
    pub(crate) fn failed(&self, at: usize, failure: &Failure) {
        let mut state = self.state.lock();
        let one = &mut state.each[at];
        one.client = None;
        one.bad_until = Some(self.clock.now() + LEFT_ALONE);
        tracing::debug!(endpoint = failure.endpoint, "etcd member left alone: {}", failure.message);
    }

    /// Notes that a member answered.
    fn good(&self, at: usize) {
        self.state.lock().each[at].bad_until = None;
    }

    /// Asks the present member, once.
    pub(crate) async fn once<T, F>(&self, call: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let member = self.member().await?;
        self.at(member, call).await
    }

    /// Asks this member, once.
    pub(crate) async fn at<T, F>(&self, member: Member, call: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let Member { at, endpoint, client } = member;
        let limit = self.settings.config.request_timeout.get();
        let failure = match timeout(&*self.clock, limit, Box::pin(call(client))).await {
            Ok(Ok(answer)) => {
                self.good(at);
                return Ok(answer);
            }
            Ok(Err(e)) => classify(&e, &endpoint, &self.settings),
            Err(_) => Failure::silent(&endpoint, limit),
        };
        if failure.elsewhere() {
            self.failed(at, &failure);
        }
        Err(failure)
    }

    /// Asks one member after the other until one answers or `until` is reached. The call may happen several times.
    pub(crate) async fn call<T, F>(&self, until: Moment, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (mut tried, mut doubt) = (0, Happened::No);
        loop {
            let failure = match self.once(&call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.happened == Happened::Maybe {
                doubt = Happened::Maybe;
            }
            if !failure.elsewhere() || self.clock.now() >= until {
                return Err(Failure { happened: doubt, ..failure });
            }
            tried += 1;
            self.pause(tried).await;
        }
    }

    /// Waits a little after each round over all members, so that a dead cluster is not asked in a tight loop.
    pub(crate) async fn pause(&self, tried: usize) {
        if tried.is_multiple_of(self.count()) {
            self.clock.sleep(PAUSE * (tried / self.count()).min(10) as u32).await;
        }
    }

    /// When an operation that begins now must have its answer.
    pub(crate) fn until(&self) -> Moment {
        self.clock.now() + self.settings.budget()
    }
}
