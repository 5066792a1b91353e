//! A component's one mailbox. What arrives is handled one after the other, on one task.

use crate::{connection::Connection, error::Fault, frame::Fence};
use tokio::sync::mpsc;

/// Who called.
#[derive(Clone)]
pub struct Caller {
    /// Which leader's call this is.
    pub fence: Fence,
    /// The connection it came on: calls back go there. `None` from this process.
    pub connection: Option<Connection>,
}

impl Caller {
    /// What a core has to know of it.
    pub fn origin(&self) -> Origin {
        Origin { fence: self.fence, connection: self.connection.as_ref().map_or(0, Connection::number) }
    }
}

/// Where a call comes from, as a core sees it.
///
/// A process that has lost its connection makes another, and what it said on the first one may arrive after what it says
/// on the second. Calls are in order only on one connection, so who keeps a picture of a process from what that process
/// says listens to the latest of its connections alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// Which leader's call this is.
    pub fence: Fence,
    /// Of two connections of one peer, the later has the higher number. 0 from this process.
    pub connection: u64,
}

impl Origin {
    /// Refuses what comes on an earlier connection than the one on which its sender has registered last.
    pub fn is_not_before(self, registered: u64) -> Result<(), Fault> {
        if self.connection < registered {
            return Err(Fault::Refused("this process has registered on a later connection".into()));
        }
        Ok(())
    }
}

impl From<Fence> for Origin {
    /// In this process.
    fn from(fence: Fence) -> Self {
        Self { fence, connection: 0 }
    }
}

/// A message with its caller.
pub struct Envelope<M> {
    /// Who.
    pub caller: Caller,
    /// What.
    pub message: M,
}

/// The receiving end.
pub type Mailbox<M> = mpsc::UnboundedReceiver<Envelope<M>>;
/// The sending end.
pub type MailboxSender<M> = mpsc::UnboundedSender<Envelope<M>>;

/// A new mailbox. It has no bound of its own: a connection bounds the calls that it has under way.
pub fn mailbox<M>() -> (MailboxSender<M>, Mailbox<M>) {
    mpsc::unbounded_channel()
}
