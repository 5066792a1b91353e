//! How a long-running component is told to end.
//!
//! The owner keeps a [`Shutdown`] and triggers it; every task holds a clone or a child and ends when it resolves. Who
//! waits for whom is the owner's business: it keeps the handles of what it spawned.

use tokio_util::sync::CancellationToken;

/// Told once, heard by all clones and children.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// One that has not been triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends with its parent; triggering it does not end the parent.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Tells all clones and children. Again is fine.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Was it triggered?
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when triggered. May be dropped at any time.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }
}
