//! The synchronisation that slot threads and I/O tasks share: the system's, or loom's models of it.
//!
//! `tests/loom` runs the models.

#[cfg(not(thalweg_loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(thalweg_loom))]
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(thalweg_loom)]
pub(crate) use loom::sync::{
    MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

/// loom's lock in the shape of the other.
#[cfg(thalweg_loom)]
#[derive(Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(thalweg_loom)]
impl<T> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        // A panic ends the model, so nobody meets a lock that it left behind.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
