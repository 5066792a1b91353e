//! Identities. Each is its own type, so that a job id can never be passed where a vertex id is meant.
//!
//! Ids of 128 bits and more are printed and serialised as lower-case hex, which is what REST, file names and
//! records show. Nothing here makes a random id: the caller brings the bits from `thalweg_env::Entropy`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    digits: usize,
    text: String,
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The id with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $bytes];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseIdError { what: $what, digits: 2 * $bytes, text: text.into() })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

hex_id!(
    /// One submitted job: 128 random bits; in a per-job cluster a hash of (cluster id, ordinal of the `execute`).
    JobId, 16, "job id"
);
hex_id!(
    /// One vertex of a job graph: the first 16 bytes of the SHA-256 of its head operator's uid.
    VertexId, 16, "vertex id"
);
hex_id!(
    /// One grant of one slot to one job. A slot that is freed and granted again has another allocation.
    AllocationId, 16, "allocation id"
);
hex_id!(
    /// One life of one process. Two processes with one [`TaskManagerId`] differ in this.
    InstanceId, 16, "instance id"
);
hex_id!(
    /// A blob's name: the SHA-256 of its content.
    BlobKey, 32, "blob key"
);

fn first_16(digest: &[u8]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes
}

impl JobId {
    /// The id of the `ordinal`-th job of a per-job cluster. A `main` that runs again after a fail-over gets the same
    /// id, and so attaches to its job instead of submitting it twice.
    pub fn in_cluster(cluster: &ClusterId, ordinal: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(cluster.as_str().as_bytes());
        hash.update([0]);
        hash.update(ordinal.to_le_bytes());
        Self(first_16(&hash.finalize()))
    }
}

impl VertexId {
    /// The id of the vertex whose head operator has this uid.
    pub fn from_uid(uid: &str) -> Self {
        Self(first_16(&Sha256::digest(uid.as_bytes())))
    }
}

impl BlobKey {
    /// The key of this content.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

/// A leader's number in office, granted by high availability. It grows strictly, over restarts too; a receiver keeps
/// the highest it has seen and refuses lower ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One deployment of a job (or of the restarted part of it): numbered within an epoch, ordered over epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The epoch of the leader that made this attempt.
    pub epoch: Epoch,
    /// Counted from 0 over the whole life of the job, so that users see 0, 1, 2…
    pub n: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.n)
    }
}

/// One parallel instance of one vertex, by the vertex's index in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskId {
    /// Index into [`crate::JobGraph::vertices`].
    pub vertex: u32,
    /// 0 ≤ `index` < the vertex's parallelism.
    pub index: u32,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vertex, self.index)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id with this text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text of the id.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// A TaskManager's name, kept over restarts where the operator fixes it: `host:port-1a2b3c` otherwise.
    TaskManagerId
);
name_id!(
    /// A cluster's name. Part of every first frame, so that a process that dials the wrong cluster is told so.
    ClusterId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_parse_and_serialise_as_hex() {
        let id = JobId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        let packed = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(rmp_serde::from_slice::<JobId>(&packed).unwrap(), id);
    }

    #[test]
    fn a_bad_id_is_refused_with_its_text() {
        let error = "xyz".parse::<JobId>().unwrap_err().to_string();
        assert_eq!(error, "\"xyz\" is not a job id: expected 32 hexadecimal digits");
        assert!(serde_json::from_str::<BlobKey>("\"00\"").is_err());
    }

    #[test]
    fn a_per_job_id_depends_on_cluster_and_ordinal_only() {
        let (a, b) = (ClusterId::new("a"), ClusterId::new("b"));
        assert_eq!(JobId::in_cluster(&a, 1), JobId::in_cluster(&a, 1));
        assert_ne!(JobId::in_cluster(&a, 1), JobId::in_cluster(&a, 2));
        assert_ne!(JobId::in_cluster(&a, 1), JobId::in_cluster(&b, 1));
    }

    #[test]
    fn attempts_are_ordered_by_epoch_first() {
        let at = |epoch, n| Attempt { epoch: Epoch(epoch), n };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1));
    }
}
