//! Work on files, off the threads that serve everybody.

use thalweg_spi::{ErrorKind, Result, ServiceError};

/// Runs the closure on a thread that may block. When the returned future is dropped the closure runs on to its end, and
/// what it answered is dropped.
pub async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // Only work that never began is cancelled.
        Err(e) if e.is_cancelled() => Err(ServiceError::new(ErrorKind::Closed, operation, "this process ends")),
        Err(e) => {
            let text = thalweg_env::spawner::panic_message(&*e.into_panic());
            Err(ServiceError::new(ErrorKind::Internal, operation, format!("it panicked: {text}")).maybe_happened())
        }
    }
}
