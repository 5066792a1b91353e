//! What a failed call means: may it have happened, is another member worth a try, and what an operator should do.
//!
//! etcd tells little by codes; a missing client certificate is "connection closed". So the words are looked at, here and
//! nowhere else, and every message names the member and what to do.

use crate::{EtcdConfig, connect::Settings};
use etcd_client::Error as Etcd;
use std::{error::Error, io};
use thalweg_spi::{ErrorKind, Happened, ServiceError};
use tonic::{Code, ConnectError, Status};

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There is no connection to the member.
    Unreachable,
    /// The member took the connection and hung up while it was being made.
    HungUp,
    /// The connection broke, or the member could not say what came of the call.
    Broken,
    /// No answer in time.
    Silent,
    /// The member has no leader, or too much to do.
    Busy,
    /// One side does not take the other side's certificate.
    Certificate,
    /// The token is over: the next connection gets a new one.
    Token,
    /// User and password are wrong, missing, or not wanted.
    Credentials,
    /// The user may not do this.
    Forbidden,
    /// The request is larger than etcd takes.
    TooLarge,
    /// etcd's database is full.
    Full,
    /// The lease is over.
    LeaseOver,
    /// The revision is not kept any more.
    Compacted,
    /// A file of the configuration cannot be used.
    File,
    /// Anything else.
    Other,
}

/// A failed call.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub cause: Cause,
    pub happened: Happened,
    pub endpoint: String,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, endpoint: &str, message: impl Into<String>) -> Self {
        Self { cause, happened: Happened::No, endpoint: endpoint.into(), message: message.into() }
    }

    /// No answer within the limit.
    pub(crate) fn silent(endpoint: &str, limit: std::time::Duration) -> Self {
        let message = format!("no answer within {limit:?}");
        Self { happened: Happened::Maybe, ..Self::new(Cause::Silent, endpoint, message) }
    }

    /// May another member answer where this one did not?
    pub(crate) fn elsewhere(&self) -> bool {
        matches!(
            self.cause,
            Cause::Unreachable
                | Cause::HungUp
                | Cause::Broken
                | Cause::Silent
                | Cause::Busy
                | Cause::Certificate
                | Cause::Token
        )
    }

    /// Did etcd itself answer so?
    fn is_etcds_word(&self) -> bool {
        self.message.starts_with("etcdserver:")
    }

    /// A member that lives, and does not want to answer at the moment.
    pub(crate) fn is_not_now(&self) -> bool {
        self.elsewhere() && self.is_etcds_word()
    }

    /// As the caller is told.
    pub(crate) fn error(self, operation: &'static str) -> ServiceError {
        let kind = match self.cause {
            Cause::Unreachable | Cause::HungUp | Cause::Broken | Cause::Busy | Cause::Token | Cause::Compacted => {
                ErrorKind::Unavailable
            }
            // A time-out of connecting is no doubt: nothing was sent.
            Cause::Silent if self.happened == Happened::No => ErrorKind::Unavailable,
            Cause::Silent => ErrorKind::Timeout,
            Cause::Certificate | Cause::File => ErrorKind::InvalidConfig,
            Cause::Credentials | Cause::Forbidden => ErrorKind::PermissionDenied,
            Cause::TooLarge => ErrorKind::TooLarge,
            Cause::Full => ErrorKind::QuotaExceeded,
            Cause::LeaseOver => ErrorKind::Fenced,
            Cause::Other => ErrorKind::Internal,
        };
        let error = ServiceError::new(kind, operation, self.message).with("endpoint", self.endpoint);
        if self.happened == Happened::Maybe { error.maybe_happened() } else { error }
    }
}

/// Reads an error of the client.
pub(crate) fn classify(error: &Etcd, endpoint: &str, settings: &Settings) -> Failure {
    match error {
        Etcd::GRpcStatus(status) => of_status(status, endpoint, settings),
        Etcd::TransportError(e) => {
            let all = chain(&e.to_string(), e.source());
            of_tls(&all, endpoint, settings).unwrap_or_else(|| no_connection(endpoint, &all, e.source()))
        }
        Etcd::IoError(e) => broken(endpoint, e.to_string()),
        Etcd::WatchError(m) | Etcd::LeaseKeepAliveError(m) if m.contains("lease not found") => {
            Failure::new(Cause::LeaseOver, endpoint, m.clone())
        }
        Etcd::WatchError(m) | Etcd::LeaseKeepAliveError(m) | Etcd::EndpointError(m) => broken(endpoint, m.clone()),
        other => Failure { happened: Happened::Maybe, ..Failure::new(Cause::Other, endpoint, other.to_string()) },
    }
}

/// No connection was made, so nothing was sent.
fn no_connection(endpoint: &str, words: &str, why: Option<&(dyn Error + 'static)>) -> Failure {
    let cause = if hung_up(why) { Cause::HungUp } else { Cause::Unreachable };
    Failure::new(cause, endpoint, format!("cannot connect: {words}"))
}

/// Was there a connection that the other side ended? A port at which nobody listens refuses instead.
fn hung_up(mut why: Option<&(dyn Error + 'static)>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    while let Some(cause) = why {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)) {
            return true;
        }
        why = cause.source();
    }
    false
}

fn broken(endpoint: &str, message: String) -> Failure {
    Failure { happened: Happened::Maybe, ..Failure::new(Cause::Broken, endpoint, message) }
}

/// The words and what caused it, without saying anything twice; "transport error" says nothing.
fn chain(words: &str, mut cause: Option<&(dyn Error + 'static)>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut add = |part: &str| {
        if part != "transport error" && !parts.iter().any(|p| p.contains(part)) {
            parts.push(part.to_owned());
        }
    };
    add(words);
    while let Some(error) = cause {
        add(&error.to_string());
        cause = error.source();
    }
    if parts.is_empty() { words.to_owned() } else { parts.join(": ") }
}

/// Did connecting fail? Then nothing was sent.
fn never_connected(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(cause) = next {
        if cause.is::<ConnectError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

fn of_status(status: &Status, endpoint: &str, settings: &Settings) -> Failure {
    let words = status.message();
    let has = |part: &str| words.contains(part);
    let no = |cause, message: String| Failure::new(cause, endpoint, message);
    let user = settings.config.user.as_deref();
    let all = chain(words, status.source());
    if let Some(failure) = of_tls(&all, endpoint, settings) {
        return failure;
    }
    match status.code() {
        _ if has("user name is empty") => no(Cause::Credentials, "etcd demands a user: set user and password-file".into()),
        _ if has("authentication failed") => {
            let user = user.unwrap_or_default();
            no(Cause::Credentials, format!("etcd does not take user {user:?} with the password in password-file"))
        }
        _ if has("authentication is not enabled") => no(
            Cause::Credentials,
            "etcd has no users switched on: remove user and password-file, or `etcdctl auth enable`".into(),
        ),
        Code::PermissionDenied => {
            let who = user.map_or_else(|| "the user that the certificate names".to_owned(), |u| format!("user {u:?}"));
            let root = settings.keys.root();
            no(
                Cause::Forbidden,
                format!(
                    "{who} may not use keys under {root}: `etcdctl role grant-permission ROLE readwrite --prefix=true {root}`"
                ),
            )
        }
        Code::Unauthenticated => no(Cause::Token, all),
        _ if has("request is too large") || has("larger than max") => {
            no(Cause::TooLarge, "larger than etcd takes in one request (1.5 MiB unless --max-request-bytes says more)".into())
        }
        _ if has("database space exceeded") => no(
            Cause::Full,
            "etcd's database is full and takes no writes: compact and defragment it, then `etcdctl alarm disarm`; or raise --quota-backend-bytes".into(),
        ),
        _ if has("requested lease not found") => no(Cause::LeaseOver, words.to_owned()),
        _ if has("has been compacted") => no(Cause::Compacted, words.to_owned()),
        _ if never_connected(status) => no_connection(endpoint, &all, status.source()),
        // Refused by the member before it proposed anything.
        _ if words == "etcdserver: no leader" || has("too many requests") => no(Cause::Busy, words.to_owned()),
        Code::DeadlineExceeded => Failure { happened: Happened::Maybe, ..no(Cause::Silent, all) },
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::Aborted => broken(endpoint, all),
        _ => no(Cause::Other, all),
    }
}

/// What is wrong with a certificate, if that is it.
fn of_tls(words: &str, endpoint: &str, settings: &Settings) -> Option<Failure> {
    let config = &settings.config;
    let has = |part: &str| words.contains(part);
    let shown = |file: &Option<std::path::PathBuf>| file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
    let message = if has("UnknownIssuer") || has("BadSignature") {
        format!("its certificate is not signed by ca-file {}: give the CA that signed it", shown(&config.ca_file))
    } else if has("invalid peer certificate: Expired") || has("certificate expired: verification time") {
        "its certificate has expired: renew it on the member".to_owned()
    } else if has("NotValidForName") || has("not valid for name") {
        format!("its certificate is not made for this name: use a name that it has, or renew it ({words})")
    } else if has("invalid peer certificate") {
        format!("its certificate is not good: {words}")
    } else if has("received fatal alert: CertificateExpired") {
        format!("it says that certificate-file {} has expired: renew it", shown(&config.certificate_file))
    } else if has("received fatal alert: ") && (has("Certificate") || has("UnknownCA")) {
        rejected(config, words)
    } else if has("InvalidContentType") || has("corrupt message") {
        format!("it {NO_TLS}")
    } else {
        return None;
    };
    // All of these end the handshake, before anything was asked.
    Some(Failure::new(Cause::Certificate, endpoint, message))
}

const NO_TLS: &str = "does not speak TLS: use http://, or switch TLS on there";

/// A client certificate is missing or not taken.
fn rejected(config: &EtcdConfig, words: &str) -> String {
    match &config.certificate_file {
        None => format!("it demands a client certificate: set certificate-file and key-file ({words})"),
        Some(file) => format!(
            "it does not take the client certificate: is {} signed by a CA that it trusts, not expired, and made for clients? ({words})",
            file.display()
        ),
    }
}

/// The same failure, read as that of the first call to a member at start-up: who hangs up on a new client mostly minds
/// how it comes. Later it only means that the connection broke.
pub(crate) fn at_first(failure: Failure, settings: &Settings) -> Failure {
    // What etcd itself says came over a connection that it had taken.
    if !matches!(failure.cause, Cause::Broken | Cause::HungUp) || failure.is_etcds_word() {
        return failure;
    }
    let secure = failure.endpoint.starts_with("https://");
    let why = match failure.cause {
        // A member without TLS answers a handshake in plain text and hangs up; the answer may be lost on the way.
        Cause::HungUp if secure => format!("it {NO_TLS} ({})", failure.message),
        _ if secure => rejected(&settings.config, &failure.message),
        _ => format!("it speaks TLS, so use https:// and ca-file ({})", failure.message),
    };
    let message = format!("it closed the connection, which mostly means: {why}");
    Failure { cause: Cause::Certificate, message, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use std::sync::Arc;
    use thalweg_model::ClusterId;

    fn failure(code: Code, words: &str, change: impl FnOnce(&mut EtcdConfig)) -> Failure {
        let mut config = EtcdConfig::default();
        change(&mut config);
        let settings = Settings { config: Arc::new(config), keys: Keys::new("/t", &ClusterId::new("c")) };
        classify(&Etcd::GRpcStatus(Status::new(code, words)), "https://a:1", &settings)
    }

    #[test]
    fn a_doubt_is_a_doubt_and_a_refusal_is_none() {
        for (code, words, cause, happened) in [
            (Code::Unavailable, "etcdserver: no leader", Cause::Busy, Happened::No),
            (Code::Unavailable, "etcdserver: request timed out", Cause::Broken, Happened::Maybe),
            (Code::Unavailable, "etcdserver: server stopped", Cause::Broken, Happened::Maybe),
            (Code::Unknown, "transport error", Cause::Broken, Happened::Maybe),
            (Code::DeadlineExceeded, "context deadline exceeded", Cause::Silent, Happened::Maybe),
            (Code::InvalidArgument, "etcdserver: request is too large", Cause::TooLarge, Happened::No),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Cause::Full, Happened::No),
            (Code::NotFound, "etcdserver: requested lease not found", Cause::LeaseOver, Happened::No),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Cause::Token, Happened::No),
        ] {
            let failure = failure(code, words, |_| {});
            assert_eq!((failure.cause, failure.happened), (cause, happened), "{words}");
        }
    }

    #[test]
    fn words_say_what_to_do() {
        let text = |code, words: &str, change: fn(&mut EtcdConfig)| failure(code, words, change).error("x").to_string();
        let closed = failure(Code::Cancelled, "connection closed", |_| {});
        assert!(!closed.message.contains("certificate"), "a member that dies closes connections too");
        let settings = Settings { config: Arc::default(), keys: Keys::new("/t", &ClusterId::new("c")) };
        let closed = at_first(closed, &settings).error("x").to_string();
        assert!(closed.contains("set certificate-file and key-file"), "{closed}");
        let forbidden = text(Code::PermissionDenied, "etcdserver: permission denied", |c| c.user = Some("u".into()));
        assert!(forbidden.contains("user \"u\" may not use keys under /t/c/"), "{forbidden}");
        assert!(forbidden.contains("endpoint=https://a:1"), "{forbidden}");
        let wrong =
            text(Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", |c| {
                c.user = Some("u".into());
            });
        assert!(wrong.contains("does not take user \"u\""), "{wrong}");
        let issuer = text(Code::Unavailable, "invalid peer certificate: UnknownIssuer", |c| {
            c.ca_file = Some("/ca.pem".into());
        });
        assert!(issuer.contains("not signed by ca-file /ca.pem"), "{issuer}");
    }
}
