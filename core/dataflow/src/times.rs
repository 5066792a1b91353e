//! How long a task was busy, idle and back-pressured: three clocks that its slot starts and stops and any thread reads.
//!
//! Not a rate and not a sampler: whoever wants a share of a second asks twice and divides.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use thalweg_model::Moment;

/// What a task that answered [`Step::Blocked`](crate::task::Step::Blocked) waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waits {
    /// Something to do.
    Input,
    /// Room behind it.
    Room,
}

/// A stop-watch in nanoseconds. One thread starts and stops it; others read it at any time, also while it runs.
///
/// All of it is one word, so that no reader sees the half of a change: the total and a zero when it stands; when it runs,
/// the total less the moment of its start and a one, to which a reader adds the present moment.
#[derive(Default)]
struct Watch {
    word: AtomicI64,
    // The most that was ever told: a span that turns out to have been another's is taken back, and no counter shrinks.
    told: AtomicU64,
}

fn nanos(at: Moment) -> i64 {
    // 63 bits less the flag's are 146 years of uptime.
    i64::try_from(at.since_start().as_nanos()).unwrap_or(i64::MAX)
}

impl Watch {
    #[inline]
    fn start(&self, at: Moment) {
        let word = self.word.load(Relaxed);
        if word & 1 == 0 {
            self.word.store((((word >> 1) - nanos(at)) << 1) | 1, Relaxed);
        }
    }

    #[inline]
    fn stop(&self, at: Moment) {
        let word = self.word.load(Relaxed);
        if word & 1 == 1 {
            self.word.store(((word >> 1) + nanos(at)) << 1, Relaxed);
        }
    }

    /// Whole milliseconds until `now`.
    fn read(&self, now: Moment) -> u64 {
        let word = self.word.load(Relaxed);
        let total = (word >> 1) + if word & 1 == 1 { nanos(now) } else { 0 };
        // It may have been started after `now` was looked at.
        let total = u64::try_from(total).unwrap_or(0);
        self.told.fetch_max(total, Relaxed).max(total) / 1_000_000
    }
}

/// The three of a task. What is missing to the time since its start is what it waited for the slot's thread, which works
/// for the slot's other tasks.
#[derive(Default)]
pub(crate) struct Times {
    busy: Watch,
    idle: Watch,
    held: Watch,
    // When the step began that is under way, in nanoseconds and one more; 0 between steps.
    step: AtomicI64,
    // The next length of one step that is worth a word, in seconds; 0 stands for the first.
    worth: AtomicU64,
}

/// A step that is so long is told of, and again whenever it has become six times as long.
const LONG: Duration = Duration::from_secs(10);

/// Whole milliseconds of each.
pub(crate) struct Read {
    pub(crate) busy: u64,
    pub(crate) idle: u64,
    pub(crate) back_pressured: u64,
}

impl Times {
    /// A step begins. It is taken for work until it has said what it was: one that hangs in user code is shown as busy.
    #[inline]
    pub(crate) fn begins(&self, at: Moment) {
        self.idle.stop(at);
        self.held.stop(at);
        self.busy.start(at);
        self.step.store(nanos(at) + 1, Relaxed);
    }

    /// The step that began at `began` has ended at `ended`, and from its beginning on the task `waits`, or else it has
    /// worked.
    #[inline]
    pub(crate) fn ends(&self, began: Moment, ended: Moment, waits: Option<Waits>) {
        self.step.store(0, Relaxed);
        let wait = match waits {
            None => return self.busy.stop(ended),
            Some(Waits::Input) => &self.idle,
            Some(Waits::Room) => &self.held,
        };
        // A look that found nothing was no work, however often a neighbour's work makes the slot look.
        self.busy.stop(began);
        wait.start(began);
    }

    /// The task is no more.
    pub(crate) fn over(&self, at: Moment) {
        [&self.busy, &self.idle, &self.held].into_iter().for_each(|w| w.stop(at));
    }

    /// How long the present step has been under way; nothing between steps.
    pub(crate) fn present_step(&self, now: Moment) -> Duration {
        let began = self.step.load(Relaxed);
        // Another thread may have looked at the clock before it began.
        let took = if began > 0 { nanos(now).saturating_sub(began - 1) } else { 0 };
        Duration::from_nanos(u64::try_from(took).unwrap_or(0))
    }

    /// The same where it is long and was not told yet.
    pub(crate) fn long_step(&self, now: Moment) -> Option<Duration> {
        let took = self.present_step(now);
        if took < LONG {
            self.worth.store(0, Relaxed);
            return None;
        }
        if took.as_secs() < self.worth.load(Relaxed) {
            return None;
        }
        self.worth.store(took.as_secs().saturating_mul(6), Relaxed);
        Some(took)
    }

    pub(crate) fn read(&self, now: Moment) -> Read {
        Read { busy: self.busy.read(now), idle: self.idle.read(now), back_pressured: self.held.read(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(micros: u64) -> Moment {
        Moment::from_start(Duration::from_micros(micros))
    }

    fn read(times: &Times, now: u64) -> (u64, u64, u64) {
        let read = times.read(at(now));
        (read.busy, read.idle, read.back_pressured)
    }

    #[test]
    fn a_step_that_does_not_return_is_told_of_now_and_then() {
        let times = Times::default();
        let s = |n: u64| at(n * 1_000_000);
        assert_eq!(times.long_step(s(100)), None, "there is none");
        times.begins(s(100));
        let told: Vec<u64> = (100..800).filter_map(|n| times.long_step(s(n))).map(|d| d.as_secs()).collect();
        assert_eq!(told, [10, 60, 360]);
        times.ends(s(100), s(800), None);
        assert_eq!((times.long_step(s(801)), times.present_step(s(801))), (None, Duration::ZERO));
        times.begins(s(900));
        assert_eq!(times.long_step(s(911)), Some(Duration::from_secs(11)), "another one");
    }

    #[test]
    fn a_parked_task_goes_on_collecting_and_polls_are_no_work() {
        let times = Times::default();
        assert_eq!(read(&times, 5_000_000), (0, 0, 0), "nothing was stepped yet");
        times.begins(at(1_000_000));
        assert_eq!(read(&times, 1_003_000), (3, 0, 0), "a step that has yet to end");
        times.ends(at(1_000_000), at(1_010_000), None);
        assert_eq!(read(&times, 1_020_000), (10, 0, 0), "others have the thread");
        times.begins(at(1_020_000));
        times.ends(at(1_020_000), at(1_021_000), Some(Waits::Input));
        assert_eq!(read(&times, 61_020_000), (10, 60_000, 0), "parked for a minute");
        for poll in 0..100 {
            times.begins(at(61_020_000 + poll * 1000));
            times.ends(at(61_020_000 + poll * 1000), at(61_020_900 + poll * 1000), Some(Waits::Input));
        }
        assert_eq!(read(&times, 61_120_000), (10, 60_100, 0));
        times.begins(at(61_120_000));
        times.ends(at(61_120_000), at(61_120_000), Some(Waits::Room));
        assert_eq!(read(&times, 61_150_000), (10, 60_100, 30));
        times.over(at(61_150_000));
        assert_eq!(read(&times, 99_000_000), (10, 60_100, 30), "nothing goes on after the end");
    }

    #[test]
    fn spans_that_are_shorter_than_a_millisecond_add_up() {
        let times = Times::default();
        for i in 0..1000 {
            times.begins(at(i * 10));
            times.ends(at(i * 10), at(i * 10 + 7), None);
        }
        assert_eq!(read(&times, 1_000_000), (7, 0, 0));
    }

    #[test]
    fn what_was_told_does_not_shrink() {
        let times = Times::default();
        times.begins(at(1_000_000));
        times.ends(at(1_000_000), at(1_000_000), Some(Waits::Input));
        // The reader has looked at the clock a little later than the slot, and told it first.
        assert_eq!(read(&times, 1_005_000), (0, 5, 0));
        times.begins(at(1_003_000));
        assert_eq!(read(&times, 1_005_000), (2, 5, 0));
        times.ends(at(1_003_000), at(1_005_000), Some(Waits::Room));
        assert_eq!(read(&times, 1_005_000), (2, 5, 2), "a look that was no work: not less than before");
        times.begins(at(1_010_000));
        times.ends(at(1_010_000), at(1_013_000), None);
        assert_eq!(read(&times, 1_013_000), (3, 5, 7), "and not counted twice");
        // Asked with a clock from before the start.
        assert_eq!(read(&times, 0), (3, 5, 7));
    }
}
