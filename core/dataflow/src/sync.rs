//! The synchronisation that the ring and the signal are made of: the system's, or loom's models of it.
//!
//! (Not plain `loom`: tokio leaves its sockets out under that.) `tests/loom` runs the models.

#[cfg(not(thalweg_loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    thread::{Thread, current, park, park_timeout},
};

#[cfg(thalweg_loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    thread::{Thread, current, park},
};

/// loom knows no time: a park with a limit is one without.
#[cfg(thalweg_loom)]
pub(crate) fn park_timeout(_: std::time::Duration) {
    park();
}

#[cfg(not(thalweg_loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(thalweg_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }
    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(thalweg_loom)]
pub(crate) use loom::cell::UnsafeCell;
