//! Where a process listens: TCP, a Unix socket, or a name within this process.

use std::{fmt, path::PathBuf, str::FromStr};

/// An address in one of the transports. Its text form is `tcp://host:port`, `unix:/path` or `memory:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `host:port`; the host may be a name. Port 0 asks for a free one when listening.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// Name in a [`crate::MemoryNetwork`].
    Memory(String),
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: expected tcp://HOST:PORT, unix:/PATH or memory:NAME")]
pub struct ParseAddressError(String);

impl Address {
    /// Is it one that only this machine can reach?
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Memory(_) => true,
            Self::Tcp(at) => {
                let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Memory(name) => write!(f, "memory:{name}"),
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let bad = || ParseAddressError(text.into());
        if let Some(at) = text.strip_prefix("tcp://") {
            let (host, port) = at.rsplit_once(':').ok_or_else(bad)?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err(bad());
            }
            Ok(Self::Tcp(at.into()))
        } else if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) }
        } else if let Some(name) = text.strip_prefix("memory:") {
            if name.is_empty() { Err(bad()) } else { Ok(Self::Memory(name.into())) }
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_and_parse() {
        for text in ["tcp://127.0.0.1:80", "tcp://[::1]:6123", "tcp://host:0", "unix:/tmp/x", "memory:jm"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "127.0.0.1:80", "tcp://host", "tcp://:1", "tcp://h:x", "unix:", "memory:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_local_and_nothing_else_is() {
        for (text, local) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("localhost:1", true), ("0.0.0.0:1", false), ("h:1", false)]
        {
            assert_eq!(Address::Tcp(text.into()).is_local(), local, "{text}");
        }
    }
}
