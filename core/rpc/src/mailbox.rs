//! A component's one mailbox. What arrives is handled one after the other, on one task.

use crate::{connection::Connection, frame::Fence};
use tokio::sync::mpsc;

/// Who called.
#[derive(Clone)]
pub struct Caller {
    /// Which leader's call this is.
    pub fence: Fence,
    /// The connection it came on: calls back go there. `None` from this process.
    pub connection: Option<Connection>,
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
