//! Which operator panicked, with what words and from where.
//!
//! The uid costs nothing on the way without a panic: a guard does its work only when it is dropped by unwinding, and
//! the innermost one is dropped first. Where the panic arose is known to a panic hook alone; the library sets none by
//! itself, so a backtrace comes with [`capture_backtraces`], which task hosts call.

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    sync::{Arc, Once},
};
use thalweg_env::spawner::panic_message;
use thalweg_model::{FailureKind, TaskFailure};

thread_local! {
    static PANICKED_IN: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Stands around a call into an operator and notes its uid when the call unwinds.
pub(crate) struct Guard<'a>(&'a Arc<str>);

impl<'a> Guard<'a> {
    #[inline(always)]
    pub(crate) fn new(uid: &'a Arc<str>) -> Self {
        Self(uid)
    }

    #[inline(always)]
    pub(crate) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Guard<'_> {
    #[cold]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        PANICKED_IN.with_borrow_mut(|uid| {
            uid.get_or_insert_with(|| self.0.clone());
        });
    }
}

/// Runs a step and makes a failure of its panic. `head` is the uid that is told when no operator was in a call.
pub(crate) fn catch<R>(head: &Arc<str>, run: impl FnOnce() -> R) -> Result<R, TaskFailure> {
    PANICKED_IN.set(None);
    SEEN.set(None);
    WATCHED.set(true);
    // What the closure leaves half-changed is the task, and a task that panicked is never stepped again.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    WATCHED.set(false);
    result.map_err(|panic| failure(head, &*panic))
}

fn failure(head: &Arc<str>, panic: &(dyn Any + Send)) -> TaskFailure {
    let uid = PANICKED_IN.take().unwrap_or_else(|| head.clone());
    let message = format!("user code panicked: {}", panic_message(panic));
    TaskFailure { uid: Some(uid.to_string()), detail: SEEN.take(), ..TaskFailure::new(FailureKind::UserPanic, message) }
}

/// Adds place and backtrace to the failures of tasks that panic. Other panics pass through to the former hook, and so
/// do these. Called by processes that are Thalweg's own, such as task hosts; calling it again does nothing.
pub fn capture_backtraces() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                let place = info.location().map_or_else(String::new, |l| format!("at {l}\n"));
                SEEN.set(Some(format!("{place}{}", Backtrace::force_capture())));
            }
            former(info);
        }));
    });
}
