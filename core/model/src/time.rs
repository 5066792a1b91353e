//! A point in time as decisions see it: told to them, never asked for.

use serde::{Deserialize, Serialize};
use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Monotonic time since the clock that made it began; two moments compare only when one clock made both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since` after the clock's beginning.
    pub const fn from_start(since: Duration) -> Self {
        Self(since)
    }

    /// Time since the clock's beginning.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to here; zero when it is the other way round.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, after: Duration) -> Moment {
        Moment(self.0.saturating_add(after))
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

/// Wall-clock time, milliseconds since 1970 UTC. For people and records; never compared to decide a time-out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);
