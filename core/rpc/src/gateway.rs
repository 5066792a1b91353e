//! Gateways: typed handles on endpoints, made by one macro from one list of methods.

use crate::{
    connection::Connection,
    error::{Fault, RpcError},
    frame::Fence,
    mailbox::{Caller, Envelope, MailboxSender},
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use thalweg_env::Clock;
use tokio::sync::oneshot;

/// The answer to one call. Dropped unanswered, the caller is told that the endpoint ended.
pub struct Reply<T>(Option<Box<dyn FnOnce(Result<T, Fault>) + Send>>);

impl<T> Reply<T> {
    /// Answers go to this function, once.
    pub fn new(send: impl FnOnce(Result<T, Fault>) + Send + 'static) -> Self {
        Self(Some(Box::new(send)))
    }

    /// Answers.
    pub fn send(mut self, answer: Result<T, Fault>) {
        if let Some(send) = self.0.take() {
            send(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(Err(Fault::Ended));
        }
    }
}

/// The message type of an endpoint. [`crate::gateway!`] implements it.
pub trait RpcMessage: Sized + Send + 'static {
    /// The message of a remote call. `answer` is taken only when the call is good, so that a bad one can be told why;
    /// it is `None` for a call that wants no answer.
    fn decode(method: &str, body: &[u8], answer: &mut Option<Reply<Bytes>>) -> Result<Self, Fault>;
}

#[doc(hidden)]
pub fn decode_args<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    thalweg_wire::decode(body, usize::MAX).map_err(|e| Fault::BadCall(e.to_string()))
}

#[doc(hidden)]
pub fn encoded<T: Serialize + 'static>(answer: &mut Option<Reply<Bytes>>) -> Reply<T> {
    let answer = answer.take();
    Reply::new(move |outcome: Result<T, Fault>| {
        if let Some(answer) = answer {
            answer.send(outcome.map(|value| thalweg_wire::encode(&value).into()));
        }
    })
}

/// Where a gateway's calls go.
pub enum Target<M> {
    /// A mailbox in this process; nothing is encoded.
    Local(Local<M>),
    /// An endpoint behind a connection.
    Remote(Remote),
}

/// A mailbox in this process.
pub struct Local<M> {
    /// The mailbox.
    pub mailbox: MailboxSender<M>,
    /// Sent with each call.
    pub fence: Fence,
    /// For time-outs.
    pub clock: Arc<dyn Clock>,
    /// How long a call waits.
    pub timeout: Duration,
}

/// An endpoint behind a connection.
#[derive(Clone)]
pub struct Remote {
    /// The connection.
    pub connection: Connection,
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// Sent with each call.
    pub fence: Fence,
}

impl<M> Clone for Local<M> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone(), fence: self.fence, clock: self.clock.clone(), timeout: self.timeout }
    }
}

impl<M> Clone for Target<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Local(local) => Self::Local(local.clone()),
            Self::Remote(remote) => Self::Remote(remote.clone()),
        }
    }
}

impl<M> Target<M> {
    /// The endpoint of this name behind a connection.
    pub fn remote(connection: Connection, endpoint: impl Into<Arc<str>>, fence: Fence) -> Self {
        Self::Remote(Remote { connection, endpoint: endpoint.into(), fence })
    }
}

impl<M: Send + 'static> Local<M> {
    #[doc(hidden)]
    pub fn tell(&self, message: M) -> Result<(), RpcError> {
        let caller = Caller { fence: self.fence, connection: None };
        let ended = |_| RpcError::Fault(Fault::Ended);
        self.mailbox.send(Envelope { caller, message }).map_err(ended)
    }

    #[doc(hidden)]
    pub async fn ask<T: Send + 'static>(&self, message: impl FnOnce(Reply<T>) -> M) -> Result<T, RpcError> {
        let (send, receive) = oneshot::channel();
        self.tell(message(Reply::new(move |outcome| drop(send.send(outcome)))))?;
        match thalweg_env::timeout(&*self.clock, self.timeout, receive).await {
            Ok(Ok(outcome)) => outcome.map_err(RpcError::Fault),
            Ok(Err(_)) => Err(RpcError::Fault(Fault::Ended)),
            Err(_) => Err(RpcError::Timeout),
        }
    }
}

impl Remote {
    #[doc(hidden)]
    pub fn tell<A: Serialize>(&self, method: &str, args: &A) -> Result<(), RpcError> {
        self.connection.tell(&self.endpoint, self.fence, method, thalweg_wire::encode(args).into())
    }

    #[doc(hidden)]
    pub async fn ask<A: Serialize, T: DeserializeOwned>(&self, method: &str, args: &A) -> Result<T, RpcError> {
        let body = thalweg_wire::encode(args).into();
        let answer = self.connection.ask(&self.endpoint, self.fence, method, body).await?;
        thalweg_wire::decode(&answer, usize::MAX).map_err(|e| RpcError::BadAnswer(e.to_string()))
    }
}

/// Makes a gateway and the message type of its endpoint from one list of methods.
///
/// `ask` methods have an answer and are async; `tell` methods have none. The messages come out of the endpoint's
/// [`crate::Mailbox`]; an `ask` message has a field `reply`.
#[macro_export]
macro_rules! gateway {
    (
        $(#[$doc:meta])*
        pub gateway $gateway:ident, $message:ident {
            ask { $( $(#[$ask_doc:meta])* $ask_variant:ident = $ask:ident($($ask_arg:ident: $ask_type:ty),* $(,)?) -> $answer:ty; )* }
            tell { $( $(#[$tell_doc:meta])* $tell_variant:ident = $tell:ident($($tell_arg:ident: $tell_type:ty),* $(,)?); )* }
        }
    ) => {
        #[doc = concat!("What arrives in the mailbox behind a [`", stringify!($gateway), "`].")]
        #[allow(missing_docs)]
        pub enum $message {
            $( $(#[$ask_doc])* $ask_variant { $($ask_arg: $ask_type,)* reply: $crate::Reply<$answer> }, )*
            $( $(#[$tell_doc])* $tell_variant { $($tell_arg: $tell_type,)* }, )*
        }

        impl $crate::RpcMessage for $message {
            #[allow(unused_variables)]
            fn decode(
                method: &str,
                body: &[u8],
                answer: &mut Option<$crate::Reply<bytes::Bytes>>,
            ) -> Result<Self, $crate::Fault> {
                match method {
                    $( stringify!($ask) => {
                        let ($($ask_arg,)*): ($($ask_type,)*) = $crate::gateway::decode_args(body)?;
                        Ok(Self::$ask_variant { $($ask_arg,)* reply: $crate::gateway::encoded(answer) })
                    } )*
                    $( stringify!($tell) => {
                        let ($($tell_arg,)*): ($($tell_type,)*) = $crate::gateway::decode_args(body)?;
                        Ok(Self::$tell_variant { $($tell_arg,)* })
                    } )*
                    other => Err($crate::Fault::BadCall(format!("no method {other:?}"))),
                }
            }
        }

        $(#[$doc])*
        #[derive(Clone)]
        pub struct $gateway($crate::Target<$message>);

        impl $gateway {
            /// A gateway whose calls go there.
            pub fn new(target: $crate::Target<$message>) -> Self {
                Self(target)
            }

            $( $(#[$ask_doc])*
            pub async fn $ask(&self, $($ask_arg: $ask_type),*) -> Result<$answer, $crate::RpcError> {
                match &self.0 {
                    $crate::Target::Local(local) => {
                        local.ask(move |reply| $message::$ask_variant { $($ask_arg,)* reply }).await
                    }
                    $crate::Target::Remote(remote) => remote.ask(stringify!($ask), &($(&$ask_arg,)*)).await,
                }
            } )*

            $( $(#[$tell_doc])*
            pub fn $tell(&self, $($tell_arg: $tell_type),*) -> Result<(), $crate::RpcError> {
                match &self.0 {
                    $crate::Target::Local(local) => local.tell($message::$tell_variant { $($tell_arg,)* }),
                    $crate::Target::Remote(remote) => remote.tell(stringify!($tell), &($(&$tell_arg,)*)),
                }
            } )*
        }
    };
}
