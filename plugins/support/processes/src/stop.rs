//! Ends processes: all are asked at once, all get the same time, and who is still there then is killed.

use crate::Identity;
use std::time::Duration;
use thalweg_env::Clock;

/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(5);
/// How long a killed process may take to be gone: it may sit in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Ends these processes; answers those that could not be ended.
pub async fn stop(clock: &dyn Clock, processes: &[Identity], patience: Duration) -> Vec<Identity> {
    for process in processes {
        if let Err(e) = process.terminate() {
            tracing::warn!(pid = process.pid, "cannot be asked to end: {e}");
        }
    }
    if wait_all(clock, processes, patience).await {
        return Vec::new();
    }
    for process in processes.iter().filter(|p| p.is_alive()) {
        tracing::warn!(pid = process.pid, "did not end within {patience:?} and is killed");
        if let Err(e) = process.kill() {
            tracing::warn!(pid = process.pid, "cannot be killed: {e}");
        }
    }
    wait_all(clock, processes, AFTER_KILL).await;
    processes.iter().copied().filter(Identity::is_alive).collect()
}

/// Waits until none is alive; `false` when the time is over.
async fn wait_all(clock: &dyn Clock, processes: &[Identity], limit: Duration) -> bool {
    let until = clock.now() + limit;
    loop {
        if !processes.iter().any(Identity::is_alive) {
            return true;
        }
        if clock.now() >= until {
            return false;
        }
        clock.sleep(LOOK).await;
    }
}
