//! How much memory a host's process has. It is looked at from outside, so that a host that hangs or lies is seen too.

use super::{HostEvent, HostEvents};
use std::{convert::Infallible, time::Duration};
use thalweg_env::{Env, usage};

/// It is looked at so often: a few microseconds each time.
const EACH: Duration = Duration::from_millis(200);
/// Less than this is no news, bytes.
const STEP: u64 = 1 << 20;

/// Tells when it has become more. It goes on until it is dropped.
pub(super) async fn watch(env: &Env, pid: u32, events: &HostEvents) -> Infallible {
    let mut told = 0;
    loop {
        env.clock.sleep(EACH).await;
        let bytes = usage::own_bytes_of(pid);
        if bytes >= told + STEP {
            events(HostEvent::Memory(bytes));
        }
        // What was given back may be taken again.
        told = if bytes >= told + STEP { bytes } else { told.min(bytes) };
    }
}
