//! Remote calls between the processes of one cluster.
//!
//! An *endpoint* is a component with one mailbox: calls are posted to it in the order in which they arrive on a
//! connection and answered in any order. A *gateway* is the typed handle on an endpoint, local or remote; the
//! [`gateway!`] macro makes it and the endpoint's message type from one list of methods. One connection between two
//! processes carries all their calls, both ways.
//!
//! Processes of one version only: the first frame refuses others by name. What must cross versions is in
//! `thalweg-wire`.

pub mod connection;
pub mod error;
pub mod frame;
pub mod gateway;
pub mod gateways;
pub mod handshake;
pub mod heartbeat;
pub mod mailbox;
pub mod registration;
pub mod service;

pub use connection::{Connection, PeerId};
pub use error::{Fault, RpcError};
pub use frame::{Fence, Fences, is_for};
pub use gateway::{Local, Remote, Reply, RpcMessage, Target};
pub use handshake::{Hello, Role};
pub use heartbeat::{HeartbeatMonitor, HeartbeatSettings};
pub use mailbox::{Caller, Envelope, Mailbox, MailboxSender, Origin, mailbox};
pub use registration::{RegistrationRetry, RetrySettings};
pub use service::{RpcService, RpcSettings};
