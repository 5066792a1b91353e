//! Time: the system's clock, and one that a test moves by hand.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use thalweg_model::{Moment, UnixMillis};
use tokio::sync::Notify;

/// Source of time. Implementations MUST never go backwards in [`Clock::now`].
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time.
    fn now(&self) -> Moment;
    /// Wall-clock time, for people and records.
    fn wall(&self) -> UnixMillis;
    /// Like [`Clock::now`], but goes on while the machine is suspended: for what somebody else counts down meanwhile, as a
    /// lease. Never compare one with the other. The same as `now()` where the system cannot tell.
    fn since_boot(&self) -> Moment {
        self.now()
    }
    /// Resolves when `now()` ≥ `until`. May be dropped at any time.
    fn sleep_until(&self, until: Moment) -> BoxFuture<'static, ()>;
    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }
}

/// The time ran out first. The future was dropped; whether what it asked for happened is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Drops `future` when it is not ready after `limit`.
pub async fn timeout<F: Future>(clock: &dyn Clock, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::select! {
        biased;
        out = future => Ok(out),
        () = clock.sleep(limit) => Err(Elapsed),
    }
}

/// The machine's clocks.
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::from_start(self.start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn wall(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(since.as_millis() as u64)
    }

    #[cfg(target_os = "linux")]
    fn since_boot(&self) -> Moment {
        // Fails for a clock that the kernel does not have alone, and it has had this one since 2.6.39.
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .map_or_else(|_| self.now(), |time| Moment::from_start(time.into()))
    }

    fn sleep_until(&self, until: Moment) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until((self.start + until.since_start()).into()))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Clone, Default)]
pub struct ManualClock {
    inner: Arc<ManualInner>,
}

#[derive(Default)]
struct ManualInner {
    now: Mutex<Duration>,
    moved: Notify,
    /// How many sleep until then.
    sleepers: Mutex<BTreeMap<Moment, usize>>,
}

/// Counts one that sleeps.
struct Sleeper {
    inner: Arc<ManualInner>,
    until: Moment,
}

impl Sleeper {
    fn new(inner: &Arc<ManualInner>, until: Moment) -> Self {
        *inner.sleepers.lock().entry(until).or_default() += 1;
        Self { inner: inner.clone(), until }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let mut sleepers = self.inner.sleepers.lock();
        if let Entry::Occupied(mut count) = sleepers.entry(self.until) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl ManualClock {
    /// Moves time on and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        *self.inner.now.lock() += by;
        self.inner.moved.notify_waiters();
    }

    /// When the next sleeper wakes, if somebody sleeps.
    pub fn next_sleeper(&self) -> Option<Moment> {
        self.inner.sleepers.lock().first_key_value().map(|(until, _)| *until)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment::from_start(*self.inner.now.lock())
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis(self.inner.now.lock().as_millis() as u64)
    }

    fn sleep_until(&self, until: Moment) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            let _counted = Sleeper::new(&clock.inner, until);
            loop {
                let moved = clock.inner.moved.notified();
                tokio::pin!(moved);
                // Registered before the look at the time, so that a move in between is not missed.
                moved.as_mut().enable();
                if clock.now() >= until {
                    return;
                }
                moved.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_moved_past_them() {
        let clock = ManualClock::default();
        let mut sleeper = clock.sleep(Duration::from_secs(5));
        assert!(futures::poll!(&mut sleeper).is_pending());
        let dropped = clock.sleep(Duration::from_secs(2));
        assert_eq!(clock.next_sleeper(), Some(Moment::from_start(Duration::from_secs(5))), "one that is polled");
        drop(dropped);
        clock.advance(Duration::from_secs(4));
        assert!(futures::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_secs(1));
        assert!(futures::poll!(&mut sleeper).is_ready());
        assert_eq!(clock.next_sleeper(), None);
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let clock = SystemClock::new();
        let before = clock.since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.since_boot().since(before) >= Duration::from_millis(2));
    }

    #[tokio::test]
    async fn a_timeout_gives_up() {
        let clock = SystemClock::new();
        assert_eq!(timeout(&clock, Duration::from_millis(1), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(&clock, Duration::from_secs(9), async { 1 }).await, Ok(1));
    }
}
