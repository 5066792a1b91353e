//! A cluster's REST at any of its JobManagers: whoever asks need not know which of them leads.
//!
//! A request goes to the JobManager that answered last, and to the others in turn when that one cannot be reached, hangs,
//! or says that nobody leads. Each one has a time limit. Everything that is asked here may be asked twice: whoever sends
//! makes it so.

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder, StatusCode};
use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use thalweg_env::{Clock, SystemClock};
use thalweg_model::Moment;

/// The cluster may be away for so long before whoever waits for it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before all JobManagers are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// A JobManager that takes no connection for so long does not answer.
const CONNECT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No JobManager was reached at all, or none that leads: it may help to ask again.
    Away {
        /// In words.
        message: String,
        /// Somebody answered, if only that nobody leads.
        reached: bool,
    },
    /// The cluster said no.
    Refused {
        /// The status.
        status: u16,
        /// The cluster's words.
        message: String,
    },
    /// The request could not be made.
    Unsent(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away { message, .. } | Self::Refused { message, .. } | Self::Unsent(message) => f.write_str(message),
        }
    }
}

/// The REST of one cluster.
pub struct ClusterRest {
    /// `http://host:port` of each JobManager.
    addresses: Vec<String>,
    /// Which of them answered last.
    at: AtomicUsize,
    /// As it goes behind `Bearer`.
    secret: Option<String>,
    http: Client,
    clock: SystemClock,
    /// How the cluster's absence goes, over all requests.
    absence: Mutex<Absence>,
}

#[derive(Default)]
struct Absence {
    /// It has answered before.
    known: bool,
    since: Option<Moment>,
    told: bool,
}

/// What became of one request to one JobManager.
enum Attempt {
    Answered(Bytes),
    Failed(Failure),
}

impl ClusterRest {
    /// The REST at these addresses, in the order in which they are tried. There is at least one.
    pub fn new(addresses: impl IntoIterator<Item = String>, secret: Option<String>) -> Self {
        let mut known: Vec<String> = Vec::new();
        for address in addresses {
            let address = address.trim_end_matches('/').to_owned();
            if !known.contains(&address) {
                known.push(address);
            }
        }
        // Without a limit for the connection the builder cannot fail either.
        let http = Client::builder().connect_timeout(CONNECT).build().unwrap_or_default();
        let (at, absence) = (AtomicUsize::new(0), Mutex::default());
        Self { addresses: known, at, secret, http, clock: SystemClock::new(), absence }
    }

    /// The addresses, for messages.
    pub fn shown(&self) -> String {
        self.addresses.join(", ")
    }

    /// Asks each JobManager once, at most, for `limit` each. `build` makes the request for an address and is called for
    /// each attempt.
    pub async fn ask<B>(&self, build: B, limit: Duration) -> Result<Bytes, Failure>
    where
        B: Fn(&Client, &str) -> Result<RequestBuilder, String>,
    {
        let first = self.at.load(Ordering::Relaxed);
        let mut away: Option<(String, bool)> = None;
        for n in 0..self.addresses.len() {
            let i = (first + n) % self.addresses.len();
            match self.attempt(&build, &self.addresses[i], limit).await {
                Attempt::Answered(bytes) => {
                    self.at.store(i, Ordering::Relaxed);
                    return Ok(bytes);
                }
                Attempt::Failed(Failure::Away { message, reached }) => {
                    // What a JobManager says of the leader tells more than that another one is not there.
                    if away.as_ref().is_none_or(|(_, before)| reached && !before) {
                        away = Some((message, reached));
                    }
                }
                Attempt::Failed(other) => {
                    self.at.store(i, Ordering::Relaxed);
                    return Err(other);
                }
            }
        }
        let (message, reached) = away.unwrap_or_else(|| ("there is no address to ask".to_owned(), false));
        let message = if reached || self.addresses.len() == 1 {
            message
        } else {
            format!("no cluster answers at {}: is it running? `thalweg cluster status` tells", self.shown())
        };
        Err(Failure::Away { message, reached })
    }

    /// The same, and goes on asking for [`PATIENCE`] while the cluster is away, if it was ever there. `tell` is told once
    /// that it is away and once that it is back.
    pub async fn ask_patiently<B>(
        &self,
        build: B,
        limit: Duration,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<Bytes, Failure>
    where
        B: Fn(&Client, &str) -> Result<RequestBuilder, String>,
    {
        loop {
            let failure = match self.ask(&build, limit).await {
                Err(failure @ Failure::Away { .. }) => failure,
                other => {
                    if self.is_back() {
                        tell("the cluster answers again");
                    }
                    return other;
                }
            };
            let reached = matches!(failure, Failure::Away { reached: true, .. });
            match self.is_away(reached) {
                Wait::No => return Err(failure),
                Wait::First => {
                    tell(&format!("the cluster does not answer, trying for {} s", PATIENCE.as_secs()));
                }
                Wait::On => {}
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Notes an answer; `true` when whoever waits was told of an absence.
    fn is_back(&self) -> bool {
        let before = std::mem::replace(&mut *self.absence.lock(), Absence { known: true, ..Absence::default() });
        before.told
    }

    /// Notes that nobody answered.
    fn is_away(&self, reached: bool) -> Wait {
        let (mut absence, now) = (self.absence.lock(), self.clock.now());
        // Whoever mistyped an address does not wait a minute to be told.
        if !absence.known && !reached {
            return Wait::No;
        }
        let since = *absence.since.get_or_insert(now);
        if now.since(since) > PATIENCE {
            return Wait::No;
        }
        if std::mem::replace(&mut absence.told, true) { Wait::On } else { Wait::First }
    }

    async fn attempt<B>(&self, build: &B, address: &str, limit: Duration) -> Attempt
    where
        B: Fn(&Client, &str) -> Result<RequestBuilder, String>,
    {
        let request = match build(&self.http, address) {
            Ok(request) => request.timeout(limit),
            Err(e) => return Attempt::Failed(Failure::Unsent(e)),
        };
        let request = match &self.secret {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        };
        let away = |message: String, reached| Attempt::Failed(Failure::Away { message, reached });
        let lost = |e: reqwest::Error| {
            if e.is_builder() {
                return Attempt::Failed(Failure::Unsent(format!("{address}: {e}")));
            }
            let message = if e.is_connect() {
                format!("no cluster answers at {address}: is it running? `thalweg cluster status` tells")
            } else if e.is_timeout() {
                format!("{address} did not answer within {} s", limit.as_secs())
            } else {
                format!("{address}: {}", causes(&e))
            };
            away(message, !e.is_connect())
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return lost(e),
        };
        let status = response.status();
        if status.is_success() {
            return match response.bytes().await {
                Ok(bytes) => Attempt::Answered(bytes),
                Err(e) => lost(e),
            };
        }
        let said = response.json::<Errors>().await.ok().and_then(|e| e.errors.into_iter().next());
        let message = said.unwrap_or_else(|| format!("the cluster answered {status}"));
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                away(message, true)
            }
            status => Attempt::Failed(Failure::Refused { status: status.as_u16(), message }),
        }
    }
}

enum Wait {
    /// Nobody has been told yet.
    First,
    On,
    No,
}

#[derive(serde::Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// An error with what is behind it: what `reqwest` shows of itself is the address alone.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
