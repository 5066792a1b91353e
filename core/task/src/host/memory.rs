//! How much memory a host's process has. It is looked at from outside, so that a host that hangs or lies is seen too.

use super::{HostEvent, HostEvents};
use std::{convert::Infallible, time::Duration};
use thalweg_env::{Env, usage};

/// It is looked at so often.
const EACH: Duration = Duration::from_millis(200);

/// Tells it at each look: its share may have become less while it has not become more. It goes on until it is dropped.
pub(super) async fn watch(env: &Env, pid: u32, events: &HostEvents) -> Infallible {
    loop {
        env.clock.sleep(EACH).await;
        events(HostEvent::Memory(usage::own_bytes_of(pid)));
    }
}
