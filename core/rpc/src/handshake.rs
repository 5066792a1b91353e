//! The first frame of a connection: who calls, which version, which cluster, and the cluster's secret.
//!
//! A refusal is in words that an operator can act on, and it comes before anything else is read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use thalweg_model::{ClusterId, Epoch, InstanceId};
use thalweg_spi::Secret;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A JobManager.
    JobManager,
    /// A TaskManager.
    TaskManager,
    /// A command-line tool.
    Client,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JobManager => "JobManager",
            Self::TaskManager => "TaskManager",
            Self::Client => "client",
        })
    }
}

/// The first bytes of every first frame, so that somebody who dials the wrong port is told so.
pub(crate) const MAGIC: &str = "thalweg-rpc/1";

/// The first frame.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Always [`MAGIC`].
    pub(crate) magic: String,
    /// Version of Thalweg; both sides must have the same.
    pub version: String,
    /// What the sender is.
    pub role: Role,
    /// Its cluster.
    pub cluster: ClusterId,
    /// This life of the sender's process.
    pub instance: InstanceId,
    /// Where the sender takes connections itself.
    pub address: Option<String>,
    /// The sender's epoch when it leads.
    pub epoch: Option<Epoch>,
    /// The cluster's secret.
    pub(crate) secret: Bytes,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hello({} {} of {} {:?})", self.role, self.version, self.cluster, self.instance)
    }
}

impl Hello {
    /// Is this a peer that `ours` may talk to? The answer is what it is told if not.
    pub(crate) fn check(&self, ours: &Hello, secret: &Secret) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err("this is a Thalweg RPC port and you speak something else".into());
        }
        if self.cluster != ours.cluster {
            return Err(format!(
                "this is cluster {:?}, you belong to {:?}",
                ours.cluster.as_str(),
                self.cluster.as_str()
            ));
        }
        if !secret.matches(&self.secret) {
            return Err(format!(
                "you do not have the secret of cluster {:?}: give both sides one secret file",
                ours.cluster.as_str()
            ));
        }
        if self.version != ours.version {
            return Err(format!(
                "this {} is version {}, you are version {}: run one version in a cluster",
                ours.role, ours.version, self.version
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(cluster: &str, version: &str, secret: &'static str) -> Hello {
        Hello {
            magic: MAGIC.into(),
            version: version.into(),
            role: Role::JobManager,
            cluster: ClusterId::new(cluster),
            instance: InstanceId::from_bytes([0; 16]),
            address: None,
            epoch: None,
            secret: secret.into(),
        }
    }

    #[test]
    fn a_refusal_says_what_differs_and_never_the_secret() {
        let ours = hello("a", "1", "s3cret");
        let secret = Secret::new("s3cret");
        assert_eq!(hello("a", "1", "s3cret").check(&ours, &secret), Ok(()));
        assert!(hello("b", "1", "s3cret").check(&ours, &secret).unwrap_err().contains("this is cluster \"a\""));
        assert!(hello("a", "2", "s3cret").check(&ours, &secret).unwrap_err().contains("you are version 2"));
        let refusal = hello("a", "1", "wrong").check(&ours, &secret).unwrap_err();
        assert!(refusal.contains("secret of cluster") && !refusal.contains("s3cret"));
        assert!(!format!("{ours:?}").contains("s3cret"));
    }
}
