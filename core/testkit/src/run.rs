//! Runs one case: a runtime of its own and a time limit, so that a case that hangs fails by name.

use std::{future::Future, time::Duration};
use thalweg_env::{Clock, SystemClock, timeout};

/// A case that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a case to its end.
pub fn run(name: &str, case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let outcome = runtime.block_on(async { timeout(&SystemClock::new(), LIMIT, Box::pin(case)).await });
    // Not waiting for blocking threads: a case that failed half-way may have left one in a read.
    runtime.shutdown_background();
    assert!(outcome.is_ok(), "{name} was not done after {LIMIT:?}");
}

/// Waits until `probe` answers something, and fails with `what` when it does not within `limit`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let clock = SystemClock::new();
    let until = clock.now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(clock.now() < until, "not within {limit:?}: {what}");
        clock.sleep(Duration::from_millis(5)).await;
    }
}
