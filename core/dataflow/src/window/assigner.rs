//! Which windows a time belongs to.

use crate::batch::Time;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// A stretch of time: from `start` up to and without `end`, ms since 1970 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TimeWindow {
    /// The first moment that belongs to it.
    pub start: Time,
    /// The first one that does not any more.
    pub end: Time,
}

impl TimeWindow {
    /// The last moment that belongs to it: the time of what it gives out.
    pub fn max_timestamp(&self) -> Time {
        self.end.saturating_sub(1)
    }

    /// From this watermark on it is over, where what comes so much later still counts.
    pub(super) fn over_at(&self, lateness: Time) -> Time {
        self.max_timestamp().saturating_add(lateness)
    }

    /// Is there a moment that belongs to both?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The shortest one that covers both.
    pub fn cover(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// So long may windows be, ms.
const LONGEST: Time = 1 << 61;

/// So many windows may a record belong to. Each of them is a result of its own that is made of the record again: windows
/// of a day, one each second, are 86,400. More is a mistake in the units, and would seem to hang.
const MOST_OVERLAPPING: Time = 100_000;

/// Has it nothing below a millisecond? Times of records have none. What is longer than they reach, as `Duration::MAX`, means
/// that and nothing finer.
pub(super) fn is_whole(d: Duration) -> bool {
    d.subsec_nanos().is_multiple_of(1_000_000) || ms(d) == Time::MAX
}

pub(crate) fn ms(d: Duration) -> Time {
    Time::try_from(d.as_millis()).unwrap_or(Time::MAX)
}

/// Windows of one length that begin at regular times.
///
/// Records are kept by panes, the longest stretches of which every window is made: a record is added once, to however
/// many windows it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeWindows {
    size: Time,
    slide: Time,
    offset: Time,
    /// All three were given in whole milliseconds.
    whole: bool,
}

/// Windows that follow each other without gap or overlap.
#[derive(Clone, Copy, Debug)]
pub struct TumblingEventTimeWindows;

impl TumblingEventTimeWindows {
    /// Of this length, in whole milliseconds; they begin at multiples of it.
    #[allow(clippy::new_ret_no_self, reason = "the name of the kind, as it is known")]
    pub fn of(size: Duration) -> TimeWindows {
        TimeWindows { size: ms(size), slide: ms(size), offset: 0, whole: is_whole(size) }
    }
}

/// Windows of one length that begin each `slide`.
#[derive(Clone, Copy, Debug)]
pub struct SlidingEventTimeWindows;

impl SlidingEventTimeWindows {
    /// Of length `size`, one each `slide`, in whole milliseconds; at most 100,000 of them overlap.
    pub fn of(size: Duration, slide: Duration) -> TimeWindows {
        TimeWindows { size: ms(size), slide: ms(slide), offset: 0, whole: is_whole(size) && is_whole(slide) }
    }
}

impl TimeWindows {
    /// They begin so much later: days of UTC+8 with an offset of 16 hours.
    pub fn offset(self, offset: Duration) -> Self {
        Self { offset: ms(offset), whole: self.whole && is_whole(offset), ..self }
    }

    /// What is wrong with them, if something is.
    pub fn check(&self) -> Result<(), String> {
        if self.size <= 0 || self.slide <= 0 {
            return Err("a window's size and slide are at least 1 ms".to_owned());
        }
        if !self.whole {
            return Err("a window's size, slide and offset are whole milliseconds".to_owned());
        }
        if self.size > LONGEST || self.slide > LONGEST {
            return Err("a window's size and slide are at most 2^61 ms: one for all time is GlobalWindows".to_owned());
        }
        if self.offset < 0 || self.offset >= self.slide {
            let message =
                format!("a window's offset of {} ms must be less than its slide, {} ms", self.offset, self.slide);
            return Err(message);
        }
        if self.size / self.slide > MOST_OVERLAPPING {
            return Err(format!(
                "windows of {} ms, one each {} ms: a record would belong to {} of them, and {MOST_OVERLAPPING} is the most: \
                 take a longer slide",
                self.size,
                self.slide,
                self.size / self.slide
            ));
        }
        Ok(())
    }

    pub(crate) fn slide(&self) -> Time {
        self.slide
    }

    /// Length of a pane.
    pub(crate) fn pane(&self) -> Time {
        let (mut a, mut b) = (self.size, self.slide);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a.max(1)
    }

    /// The greatest multiple of `step` from the offset on that is not after `at`.
    fn floor(&self, at: Time, step: Time) -> Time {
        at.saturating_sub(at.saturating_sub(self.offset).rem_euclid(step))
    }

    /// Where the pane of a time begins.
    #[inline]
    pub(crate) fn pane_start(&self, at: Time) -> Time {
        self.floor(at, self.pane())
    }

    /// The last window that begins not after `at`; it need not contain it where windows have gaps.
    pub(crate) fn last_window(&self, at: Time) -> TimeWindow {
        self.window_from(self.floor(at, self.slide))
    }

    /// The first window that ends after `at`; it need not contain it where windows have gaps.
    pub(crate) fn first_window(&self, at: Time) -> TimeWindow {
        // Its start is the first one after at - size.
        let before = self.floor(at.saturating_sub(self.size), self.slide);
        self.window_from(before.saturating_add(self.slide))
    }

    pub(crate) fn window_from(&self, start: Time) -> TimeWindow {
        TimeWindow { start, end: start.saturating_add(self.size) }
    }
}

/// Whose time windows are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowTime {
    /// The records' own.
    Event,
    /// The machine's.
    Processing,
    /// Nobody's: they never end by themselves. An assigner is given the record's time, or `NO_TIME`.
    Never,
}

/// Finds the windows of a time.
pub trait WindowAssigner: Clone + Send + 'static {
    /// Whose time is asked for.
    fn time(&self) -> WindowTime;
    /// Do windows that overlap become one?
    fn merges(&self) -> bool {
        false
    }
    /// Adds the windows of this time, each with a start before its end. None: the record belongs nowhere and is left out.
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>);
    /// What is wrong with them, if something is.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl WindowAssigner for TimeWindows {
    fn time(&self) -> WindowTime {
        WindowTime::Event
    }
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
        let mut window = self.first_window(at);
        while window.start <= at && window.end > at {
            to.push(window);
            let next = window.start.saturating_add(self.slide);
            if next == window.start {
                return;
            }
            window = self.window_from(next);
        }
    }
    fn check(&self) -> Result<(), String> {
        TimeWindows::check(self)
    }
}

/// The same windows by the machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessingTimeWindows(TimeWindows);

impl ProcessingTimeWindows {
    /// They begin so much later: days of UTC+8 with an offset of 16 hours.
    pub fn offset(self, offset: Duration) -> Self {
        Self(self.0.offset(offset))
    }
}

impl WindowAssigner for ProcessingTimeWindows {
    fn time(&self) -> WindowTime {
        WindowTime::Processing
    }
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
        self.0.assign(at, to);
    }
    fn check(&self) -> Result<(), String> {
        self.0.check()
    }
}

/// Windows that follow each other without gap or overlap, by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct TumblingProcessingTimeWindows;

impl TumblingProcessingTimeWindows {
    /// Of this length, in whole milliseconds; they begin at multiples of it.
    pub fn of(size: Duration) -> ProcessingTimeWindows {
        ProcessingTimeWindows(TumblingEventTimeWindows::of(size))
    }
}

/// Windows of one length that begin each `slide`, by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SlidingProcessingTimeWindows;

impl SlidingProcessingTimeWindows {
    /// Of length `size`, one each `slide`, in whole milliseconds; at most 100,000 of them overlap.
    pub fn of(size: Duration, slide: Duration) -> ProcessingTimeWindows {
        ProcessingTimeWindows(SlidingEventTimeWindows::of(size, slide))
    }
}

/// Windows that go on as long as each record of a key comes less than a gap after one before it.
///
/// One that comes exactly a gap later begins a new session: the watermark may have ended the old one just before, and what
/// comes out must not depend on that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionWindows {
    gap: Time,
    /// It was given in whole milliseconds.
    whole: bool,
    time: WindowTime,
}

impl WindowAssigner for SessionWindows {
    fn time(&self) -> WindowTime {
        self.time
    }
    fn merges(&self) -> bool {
        true
    }
    fn assign(&self, at: Time, to: &mut Vec<TimeWindow>) {
        to.push(TimeWindow { start: at, end: at.saturating_add(self.gap) });
    }
    fn check(&self) -> Result<(), String> {
        match self {
            Self { gap: ..=0, .. } => Err("a session's gap is at least 1 ms".to_owned()),
            Self { whole: false, .. } => Err("a session's gap is whole milliseconds".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Sessions by the records' times.
#[derive(Clone, Copy, Debug)]
pub struct EventTimeSessionWindows;

impl EventTimeSessionWindows {
    /// With this gap, in whole milliseconds.
    pub fn with_gap(gap: Duration) -> SessionWindows {
        SessionWindows { gap: ms(gap), whole: is_whole(gap), time: WindowTime::Event }
    }
}

/// Sessions by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct ProcessingTimeSessionWindows;

impl ProcessingTimeSessionWindows {
    /// With this gap, in whole milliseconds.
    pub fn with_gap(gap: Duration) -> SessionWindows {
        SessionWindows { gap: ms(gap), whole: is_whole(gap), time: WindowTime::Processing }
    }
}

/// One window for all time. It fires when its trigger says so, and never else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GlobalWindows;

impl WindowAssigner for GlobalWindows {
    fn time(&self) -> WindowTime {
        WindowTime::Never
    }
    fn assign(&self, _: Time, to: &mut Vec<TimeWindow>) {
        to.push(TimeWindow { start: Time::MIN, end: Time::MAX });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn windows(size: Time, slide: Time, offset: Time) -> TimeWindows {
        let ms = |t: Time| Duration::from_millis(t as u64);
        SlidingEventTimeWindows::of(ms(size), ms(slide)).offset(ms(offset))
    }

    proptest! {
        #[test]
        fn panes_make_windows(at in -1000i64..1000, size in 1i64..50, slide in 1i64..50, offset in 0i64..50) {
            let w = windows(size, slide, offset % slide);
            prop_assert!(w.check().is_ok());
            let naive: Vec<Time> = (at - size + 1..=at).filter(|s| (s - offset % slide).rem_euclid(slide) == 0).collect();
            let (first, last) = (w.first_window(at), w.last_window(at));
            if naive.is_empty() {
                prop_assert!(first.start > at && last.end <= at);
            } else {
                prop_assert_eq!((first.start, last.start), (naive[0], *naive.last().unwrap()));
            }
            let (pane, p) = (w.pane(), w.pane_start(at));
            prop_assert!(p <= at && at < p + pane);
            for start in naive {
                prop_assert!(start <= p && p + pane <= start + size, "a pane lies within each of its windows");
            }
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let w = windows(10, 3, 1);
        for at in [Time::MIN + 1, Time::MIN + 7, Time::MAX, Time::MAX - 5] {
            let _ = (w.pane_start(at), w.first_window(at), w.last_window(at));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(windows(0, 1, 0).check().is_err() && windows(1, 0, 0).check().is_err());
        assert!(windows(10, 5, 5).check().unwrap_err().contains("offset of 5 ms"));
        let (odd, even) = (Duration::from_micros(1_500), Duration::from_millis(15));
        let with_odd = [
            TumblingEventTimeWindows::of(odd),
            SlidingEventTimeWindows::of(odd, even),
            SlidingEventTimeWindows::of(even, odd),
            TumblingEventTimeWindows::of(even).offset(odd),
            TumblingEventTimeWindows::of(even).offset(odd).offset(Duration::ZERO),
        ];
        for windows in with_odd {
            assert!(windows.check().unwrap_err().contains("whole milliseconds"), "{windows:?}");
        }
        let gaps = [EventTimeSessionWindows::with_gap(odd), ProcessingTimeSessionWindows::with_gap(odd)];
        assert!(gaps.iter().all(|gap| gap.check().unwrap_err().contains("whole milliseconds")));
        assert!(windows(86_400_000, 1_000, 0).check().is_ok());
        assert!(EventTimeSessionWindows::with_gap(Duration::MAX).check().is_ok(), "sessions that no gap ends");
        let refused = windows(1_000_000_000_000, 1, 0).check().unwrap_err();
        assert!(refused.contains("a record would belong to 1000000000000 of them"), "{refused}");
    }
}
