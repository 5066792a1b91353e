//! What can go wrong with a call, and whether it may have happened anyway.

use serde::{Deserialize, Serialize};

/// A refusal that travels: the callee, or the process that it lives in, says no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Fault {
    /// The caller's epoch is lower than the highest that the callee has seen, or not the callee's own.
    #[error("fenced: called with epoch {called}, the present one is {present}")]
    Fenced {
        /// What the call carried.
        called: u64,
        /// What the callee knows.
        present: u64,
    },
    /// No such endpoint in that process (any more).
    #[error("no endpoint {0:?} there")]
    NoEndpoint(String),
    /// The endpoint has no such method, or could not read the arguments.
    #[error("bad call: {0}")]
    BadCall(String),
    /// The endpoint ended before it answered.
    #[error("the endpoint ended before it answered")]
    Ended,
    /// The callee is overloaded; nothing was done.
    #[error("too many calls at once")]
    Overloaded,
    /// The callee's own refusal, in its words.
    #[error("{0}")]
    Refused(String),
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Nobody listens at that address: the peer process is not there.
    #[error("{address} refused the connection")]
    ConnectionRefused {
        /// Where.
        address: String,
    },
    /// The connection could not be made, or not in time.
    #[error("cannot reach {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        cause: String,
    },
    /// The peer answered the first frame with a refusal: another version, cluster or secret. Trying again does not help.
    #[error("{address} refused us: {reason}")]
    HandshakeRefused {
        /// Where.
        address: String,
        /// In its words.
        reason: String,
    },
    /// The connection closed before the answer came. The call may have happened.
    #[error("the connection closed before the answer came")]
    Closed,
    /// No answer in time. The call may have happened.
    #[error("no answer in time")]
    Timeout,
    /// The message is larger than a frame may be. Nothing was sent.
    #[error("a message of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// `rpc.max-frame`.
        limit: usize,
    },
    /// The answer could not be read.
    #[error("unreadable answer: {0}")]
    BadAnswer(String),
    /// The callee said no.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl RpcError {
    /// May the callee have done it all the same?
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Closed | Self::Timeout | Self::BadAnswer(_) | Self::Fault(Fault::Ended))
    }

    /// Can the same call succeed later?
    pub fn may_retry(&self) -> bool {
        !matches!(
            self,
            Self::HandshakeRefused { .. }
                | Self::TooLarge { .. }
                | Self::Fault(Fault::BadCall(_) | Fault::Fenced { .. })
        )
    }

    /// May the same call be answered on the same connection a moment later?
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Timeout | Self::Fault(Fault::Overloaded))
    }

    /// Is the peer certainly not there?
    pub fn is_refused_connection(&self) -> bool {
        matches!(self, Self::ConnectionRefused { .. })
    }
}
