//! The forms that cross versions: a cluster of one version runs a job built with another, and a new leader reads what
//! an old one wrote.
//!
//! MessagePack with *named* fields: unknown ones are ignored, new ones carry `#[serde(default)]`. A field is never
//! renamed and never changes its meaning. What only processes of one version exchange (JobManager ↔ TaskManager) is
//! not here but in `thalweg-rpc`.

pub mod codec;
pub mod host;
pub mod job;
pub mod records;
pub mod role;

pub use codec::{DecodeError, decode, encode};
pub use host::{Deploy, Descriptor, FromHost, HostMemory, TaskDeployment, TaskReport, ToHost};
pub use job::{ExecutionMode, FILES_DIR, JobResult, JobSpec, RestartStrategy};
pub use records::{CommitRecord, DeployedOn, DeploymentRecord, JobRecord, ResultRecord};

/// Version of the TaskManager ↔ host protocol that this build speaks best.
pub const PROTOCOL: u32 = 1;
/// The oldest one that it still serves.
pub const PROTOCOL_OLDEST: u32 = 1;

/// Do two builds understand each other? Answers the version that both speak, or what to do about it.
pub fn negotiate(theirs: u32, their_oldest: u32) -> Result<u32, String> {
    let common = theirs.min(PROTOCOL);
    if common >= their_oldest.max(PROTOCOL_OLDEST) {
        return Ok(common);
    }
    let older =
        if theirs < PROTOCOL { "the job: build it with a newer thalweg crate" } else { "the cluster: upgrade it" };
    Err(format!(
        "the job speaks protocol {their_oldest} to {theirs}, the cluster {PROTOCOL_OLDEST} to {PROTOCOL}; too old is {older}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_agree_or_say_who_is_too_old() {
        assert_eq!(negotiate(PROTOCOL, PROTOCOL_OLDEST), Ok(PROTOCOL));
        assert_eq!(negotiate(PROTOCOL + 3, PROTOCOL), Ok(PROTOCOL));
        assert!(negotiate(PROTOCOL + 3, PROTOCOL + 1).unwrap_err().contains("the cluster: upgrade it"));
        assert!(negotiate(0, 0).unwrap_err().contains("newer thalweg crate"));
    }
}
