//! One client for one member. Files are read with each connection, so that a renewed certificate or a changed password
//! is taken without a restart.

use crate::{
    EtcdConfig,
    failure::{Cause, Failure, classify},
    keys::Keys,
};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use std::{path::Path, sync::Arc, time::Duration};
use thalweg_env::{Clock, timeout};
use thalweg_spi::Secret;

/// How often a connection with an open call is asked whether it lives. etcd hangs up on who asks more often than every
/// 5 s (`--grpc-keepalive-min-time`), so this cannot be shorter; calls have time-outs of their own.
const PING: Duration = Duration::from_secs(6);
const PING_ANSWER: Duration = Duration::from_secs(3);

/// What all parts know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub config: Arc<EtcdConfig>,
    pub keys: Keys,
}

impl Settings {
    /// How long one operation may take with all its tries.
    pub(crate) fn budget(&self) -> Duration {
        self.config.request_timeout.get() * 4
    }
}

/// Connects to one member. With a user this asks for a token at once; without, nothing is sent yet.
pub(crate) async fn connect(settings: &Settings, endpoint: &str, clock: &dyn Clock) -> Result<Client, Failure> {
    let config = &settings.config;
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout.get())
        .with_keep_alive(PING, PING_ANSWER)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(tls) = tls(config, endpoint)? {
        options = options.with_tls(tls);
    }
    if let (Some(user), Some(file)) = (&config.user, &config.password_file) {
        let password = password(file, endpoint)?;
        options = options.with_user(user, String::from_utf8_lossy(password.expose()));
    }
    let limit = config.connect_timeout.get() + config.request_timeout.get();
    match timeout(clock, limit, Client::connect([endpoint], Some(options))).await {
        Ok(Ok(client)) => Ok(client),
        // Nothing but a token was asked for.
        Ok(Err(e)) => Err(Failure { happened: thalweg_spi::Happened::No, ..classify(&e, endpoint, settings) }),
        Err(_) => Err(Failure { happened: thalweg_spi::Happened::No, ..Failure::silent(endpoint, limit) }),
    }
}

fn tls(config: &EtcdConfig, endpoint: &str) -> Result<Option<TlsOptions>, Failure> {
    let Some(ca) = &config.ca_file else { return Ok(None) };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read("ca-file", ca, endpoint)?));
    if let (Some(certificate), Some(key)) = (&config.certificate_file, &config.key_file) {
        let certificate = read("certificate-file", certificate, endpoint)?;
        tls = tls.identity(Identity::from_pem(certificate, read("key-file", key, endpoint)?));
    }
    Ok(Some(tls))
}

fn read(option: &str, file: &Path, endpoint: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |why: String| Failure::new(Cause::File, endpoint, format!("{option} {}: {why}", file.display()));
    let bytes = std::fs::read(file).map_err(|e| wrong(e.to_string()))?;
    // Otherwise an empty list of certificates looks like a member that nobody vouches for.
    if !bytes.windows(11).any(|w| w == b"-----BEGIN ") {
        return Err(wrong("it holds no PEM".into()));
    }
    Ok(bytes)
}

fn password(file: &Path, endpoint: &str) -> Result<Secret, Failure> {
    let wrong = |why: String| Failure::new(Cause::File, endpoint, format!("password-file {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(wrong("it is empty".into())),
        password => Ok(Secret::new(password.as_bytes().to_vec())),
    }
}
