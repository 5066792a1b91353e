//! The TaskManager's side of the protocol with one host, on a stream that is already there.

use super::HostEvents;
use crate::host::HostEvent;
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use thalweg_env::{BoxStream, Env, Shutdown};
use thalweg_model::{FailureKind, TaskFailure};
use thalweg_wire::{FromHost, ToHost, decode, encode, host::MAX_HOST_FRAME, negotiate};
use tokio::sync::mpsc;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Frames on a stream between TaskManager and host.
pub fn framed(stream: BoxStream) -> Framed<BoxStream, LengthDelimitedCodec> {
    let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_HOST_FRAME).new_codec();
    Framed::new(stream, codec)
}

/// What a supervised host is started with.
pub struct Supervision {
    /// Made from the protocol version that both speak.
    pub start: Box<dyn FnOnce(u32) -> ToHost + Send>,
    /// `main` must reach its execute within this.
    pub start_timeout: Duration,
}

/// Talks to a host until its socket closes, it is refused, or it shall be ended. Answers why it is over.
pub async fn supervise(
    env: &Env,
    stream: BoxStream,
    supervision: Supervision,
    mut messages: mpsc::UnboundedReceiver<ToHost>,
    kill: &Shutdown,
    events: &HostEvents,
) -> TaskFailure {
    let mut socket = framed(stream);
    let lost = |message: String| TaskFailure::new(FailureKind::Lost, message);
    let start = async {
        let (protocol, oldest) = match next(&mut socket).await {
            Ok(FromHost::Hello { protocol, protocol_oldest, .. }) => (protocol, protocol_oldest),
            Ok(_) => return Err(lost("the host's first message is not a hello".into())),
            Err(e) => {
                return Err(TaskFailure::new(
                    FailureKind::Incompatible,
                    format!(
                        "the executable ended before it reached execute(), where main runs again on the worker ({e}); what it \
                         wrote is in the job's .err file of that TaskManager (`thalweg logs`). A main that needs environment \
                         variables forwards them with env.forward_env(..)"
                    ),
                ));
            }
        };
        let version = negotiate(protocol, oldest).map_err(|e| TaskFailure::new(FailureKind::Incompatible, e))?;
        send(&mut socket, &(supervision.start)(version)).await.map_err(lost)?;
        match next(&mut socket).await {
            Ok(ready @ FromHost::Ready { .. }) => Ok(ready),
            Ok(FromHost::Refused { failure }) => Err(failure),
            Ok(_) => Err(lost("the host spoke before it was ready".into())),
            Err(e) => Err(TaskFailure::new(
                FailureKind::User,
                format!(
                    "main() on the worker ended before it reached the execute of this job ({e}); its log says more"
                ),
            )),
        }
    };
    let limit = supervision.start_timeout;
    let started = tokio::select! {
        started = thalweg_env::timeout(&*env.clock, limit, start) => started,
        () = kill.triggered() => return lost("the host was ended while it started".into()),
    };
    match started {
        Ok(Ok(ready)) => events(HostEvent::Message(ready)),
        Ok(Err(failure)) => return failure,
        Err(_) => {
            return TaskFailure::new(
                FailureKind::User,
                format!(
                    "main() on the worker did not reach the execute of this job within host.start-timeout ({}s)",
                    limit.as_secs_f64()
                ),
            );
        }
    }
    loop {
        tokio::select! {
            frame = next(&mut socket) => match frame {
                Ok(FromHost::Refused { failure }) => return failure,
                Ok(message) => events(HostEvent::Message(message)),
                Err(e) => return lost(format!("the job's host is gone: {e}")),
            },
            message = messages.recv() => {
                let Some(message) = message else { return lost("the TaskManager let the host go".into()) };
                if let Err(e) = send(&mut socket, &message).await {
                    return lost(format!("the job's host is gone: {e}"));
                }
            }
            () = kill.triggered() => return lost("the host was ended by its TaskManager".into()),
        }
    }
}

async fn next(socket: &mut Framed<BoxStream, LengthDelimitedCodec>) -> Result<FromHost, String> {
    match socket.next().await {
        None => Err("its socket closed".into()),
        Some(Err(e)) => Err(e.to_string()),
        Some(Ok(bytes)) => decode(&bytes, MAX_HOST_FRAME).map_err(|e| e.to_string()),
    }
}

async fn send(socket: &mut Framed<BoxStream, LengthDelimitedCodec>, message: &ToHost) -> Result<(), String> {
    socket.send(bytes::Bytes::from(encode(message))).await.map_err(|e: std::io::Error| e.to_string())
}
