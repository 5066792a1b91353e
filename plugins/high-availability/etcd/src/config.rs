//! `[high-availability.etcd]`: the options, and what is wrong with them before anybody is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};
use thalweg_spi::TimeSpan;

/// `[high-availability.etcd]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EtcdConfig {
    /// The members' client addresses, like `http://etcd-1:2379`; `https://` for TLS. Name each member: when one fails the
    /// next one is asked.
    pub endpoints: Vec<String>,
    /// Keys are under this prefix and the cluster's name. The etcd user needs `readwrite` on it.
    pub prefix: String,
    /// Office passes at the latest so long after its holder died, in whole seconds. Below 6 s the failure of one etcd
    /// member may cost office.
    pub lease: TimeSpan,
    /// How long one member may take to answer; then the next one is asked. Four times this for one operation in all.
    pub request_timeout: TimeSpan,
    /// How long connecting to one member may take.
    pub connect_timeout: TimeSpan,
    /// Certificates that the members' certificates are signed by, as PEM. Needed for `https://`.
    pub ca_file: Option<PathBuf>,
    /// This process's certificate as PEM, where etcd demands one; goes with `key-file`.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate-file` as PEM.
    pub key_file: Option<PathBuf>,
    /// User of etcd, where it has users and the certificate does not name one; goes with `password-file`.
    pub user: Option<String>,
    /// File that holds the user's password. It is read again with each connection, so it may be changed.
    pub password_file: Option<PathBuf>,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "/thalweg".into(),
            lease: TimeSpan::from_secs(10),
            request_timeout: TimeSpan::from_secs(2),
            connect_timeout: TimeSpan::from_secs(2),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            user: None,
            password_file: None,
        }
    }
}

/// etcd grants no shorter lease with its default election timeout.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);

impl EtcdConfig {
    /// All that can be said without asking anybody.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("endpoints: name at least one member, like \"http://etcd-1:2379\"".into());
        }
        for endpoint in &self.endpoints {
            address(endpoint).map_err(|why| format!("endpoints: {endpoint:?} {why}"))?;
        }
        self.check_tls()?;
        if !self.prefix.starts_with('/') {
            return Err(format!("prefix: {:?} does not begin with \"/\"", self.prefix));
        }
        for part in self.prefix.trim_matches('/').split('/') {
            if part.starts_with('@') || (part.is_empty() && !self.prefix.trim_matches('/').is_empty()) {
                return Err(format!("prefix: {:?} has a part that is empty or begins with \"@\"", self.prefix));
            }
        }
        let lease = self.lease.get();
        if lease < SHORTEST_LEASE || lease > Duration::from_secs(3600) || lease.subsec_nanos() != 0 {
            return Err(format!("lease: {} is not 2 s to 1 h in whole seconds", self.lease));
        }
        for (name, span) in [("request-timeout", self.request_timeout), ("connect-timeout", self.connect_timeout)] {
            if span.get() < Duration::from_millis(50) || span.get() > Duration::from_secs(60) {
                return Err(format!("{name}: {span} is not 50 ms to 60 s"));
            }
        }
        match (&self.user, &self.password_file) {
            (Some(_), None) => Err("user: it needs password-file, the file that holds its password".into()),
            (None, Some(_)) => Err("password-file: it needs user, whose password it holds".into()),
            _ => Ok(()),
        }
    }

    fn check_tls(&self) -> Result<(), String> {
        let plain = self.endpoints.iter().find(|e| e.starts_with("http://"));
        let secure = self.endpoints.iter().find(|e| e.starts_with("https://"));
        for (name, file) in
            [("ca-file", &self.ca_file), ("certificate-file", &self.certificate_file), ("key-file", &self.key_file)]
        {
            if let (Some(plain), true) = (plain, file.is_some()) {
                return Err(format!("{name}: it is for https://, and the endpoint {plain} is not"));
            }
        }
        if let (Some(secure), None) = (secure, &self.ca_file) {
            return Err(format!(
                "ca-file: {secure} needs it, the certificates that etcd's own are signed by; the system's are not trusted"
            ));
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => Err("certificate-file: it needs key-file, its private key".into()),
            (None, Some(_)) => Err("key-file: it needs certificate-file, the certificate it belongs to".into()),
            _ => Ok(()),
        }
    }
}

/// Is this `http[s]://HOST:PORT`?
fn address(endpoint: &str) -> Result<(), &'static str> {
    const FORM: &str = "is not http://HOST:PORT or https://HOST:PORT";
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://")).ok_or(FORM)?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or("has no port: etcd's is 2379")?;
    if port.parse::<u16>().is_err() {
        return Err("has no port: etcd's is 2379");
    }
    if host.contains('@') {
        return Err("has a user in it: set user and password-file instead");
    }
    // An IPv6 address stands in brackets, so a colon elsewhere is a mistake.
    let brackets = host.starts_with('[') && host.ends_with(']');
    let bad = host.is_empty() || host.contains('/') || (host.contains(':') && !brackets);
    if bad { Err(FORM) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut EtcdConfig)) -> Result<(), String> {
        let mut config = EtcdConfig::default();
        change(&mut config);
        config.check()
    }

    fn endpoint(text: &str) -> Result<(), String> {
        with(|c| {
            c.endpoints = vec![text.into()];
            c.ca_file = text.starts_with("https").then(|| "ca.pem".into());
        })
    }

    #[test]
    fn endpoints_are_urls_with_a_port() {
        for good in ["http://etcd-1:2379", "https://10.0.0.1:2379", "http://[::1]:2379", "http://a:1/"] {
            assert_eq!(endpoint(good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("etcd-1:2379", "http://HOST:PORT"),
            ("http://etcd-1", "no port"),
            ("http://etcd-1:99999", "no port"),
            ("http://::1:2379", "HOST:PORT"),
            ("http://a/b:1", "HOST:PORT"),
            ("http://root:pw@etcd:2379", "password-file"),
        ] {
            assert!(endpoint(bad).unwrap_err().contains(words), "{bad}");
        }
        assert!(with(|c| c.endpoints.clear()).unwrap_err().contains("at least one"));
    }

    #[test]
    fn what_goes_together_is_given_together() {
        let wrong = |change: fn(&mut EtcdConfig)| with(change).unwrap_err();
        assert!(wrong(|c| c.ca_file = Some("ca".into())).contains("ca-file: it is for https://"));
        assert!(wrong(|c| c.endpoints = vec!["https://a:1".into()]).contains("needs it"));
        assert!(wrong(|c| c.user = Some("u".into())).contains("password-file"));
        assert!(wrong(|c| c.password_file = Some("p".into())).contains("needs user"));
        let tls = |certificate: bool, key: bool| {
            with(|c| {
                c.endpoints = vec!["https://a:1".into()];
                c.ca_file = Some("ca".into());
                c.certificate_file = certificate.then(|| "c".into());
                c.key_file = key.then(|| "k".into());
            })
        };
        assert_eq!((tls(false, false), tls(true, true)), (Ok(()), Ok(())));
        assert!(tls(true, false).unwrap_err().contains("needs key-file"));
        assert!(tls(false, true).unwrap_err().contains("needs certificate-file"));
    }

    #[test]
    fn spans_and_prefix_are_in_range() {
        assert!(with(|c| c.lease = TimeSpan::from_secs(1)).unwrap_err().contains("2 s to 1 h"));
        assert!(with(|c| c.lease = TimeSpan::from_millis(2500)).unwrap_err().contains("whole seconds"));
        assert!(with(|c| c.request_timeout = TimeSpan::from_millis(1)).unwrap_err().contains("request-timeout"));
        for bad in ["thalweg", "/a//b", "/a/@data"] {
            assert!(with(|c| c.prefix = bad.into()).unwrap_err().starts_with("prefix"), "{bad}");
        }
        for good in ["/", "/a", "/a/", "/a/b"] {
            assert_eq!(with(|c| c.prefix = good.into()), Ok(()), "{good}");
        }
    }
}
