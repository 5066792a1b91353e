//! Assigners that look at the record and not at its time alone, and sessions whose gap each record says.

use super::{
    TimeWindow,
    assigner::{EventTimeSessionWindows, ProcessingTimeSessionWindows, WindowAssigner, WindowTime, ms},
};
use crate::{batch::Time, ops::ClonedToSubtasks};
use std::time::Duration;

/// Finds the windows of a record. Every [`WindowAssigner`] is one, for records of any kind.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not find windows for `{T}`",
    note = "a gap that records say is a function of the record by reference: `with_dynamic_gap(|order: &Order| order.gap)`"
)]
pub trait RecordAssigner<T>: Clone + Send + 'static {
    /// Whose time is asked for.
    fn time(&self) -> WindowTime;
    /// Do windows that overlap become one?
    fn merges(&self) -> bool;
    /// Adds the windows of this record at this time. An error fails the job.
    fn assign_record(&self, item: &T, at: Time, to: &mut Vec<TimeWindow>) -> Result<(), String>;
}

impl<T, W: WindowAssigner> RecordAssigner<T> for W {
    fn time(&self) -> WindowTime {
        WindowAssigner::time(self)
    }
    fn merges(&self) -> bool {
        WindowAssigner::merges(self)
    }
    #[inline]
    fn assign_record(&self, _: &T, at: Time, to: &mut Vec<TimeWindow>) -> Result<(), String> {
        self.assign(at, to);
        Ok(())
    }
}

/// Windows that go on for as long as each record of a key comes before the gap of one before it has passed.
///
/// A record with a long gap bridges the time until the next one, also where those between have shorter gaps. It begins a
/// new session if it comes exactly where the gaps end, as with a fixed gap.
#[derive(Clone, Copy, Debug)]
pub struct DynamicSessionWindows<F> {
    gap: F,
    time: WindowTime,
}

impl<F> DynamicSessionWindows<F> {
    /// Whose time the sessions are of.
    pub fn time(&self) -> WindowTime {
        self.time
    }
}

impl EventTimeSessionWindows {
    /// The function says how long a session goes on after a record; ms precision. Less than 1 ms fails the job. It is asked
    /// once for each record.
    pub fn with_dynamic_gap<T, F: Fn(&T) -> Duration + ClonedToSubtasks>(gap: F) -> DynamicSessionWindows<F> {
        DynamicSessionWindows { gap, time: WindowTime::Event }
    }
}

impl ProcessingTimeSessionWindows {
    /// The function says how long a session goes on after a record; ms precision. Less than 1 ms fails the job. It is asked
    /// once for each record.
    pub fn with_dynamic_gap<T, F: Fn(&T) -> Duration + ClonedToSubtasks>(gap: F) -> DynamicSessionWindows<F> {
        DynamicSessionWindows { gap, time: WindowTime::Processing }
    }
}

impl<T, F: Fn(&T) -> Duration + ClonedToSubtasks> RecordAssigner<T> for DynamicSessionWindows<F> {
    fn time(&self) -> WindowTime {
        self.time
    }
    fn merges(&self) -> bool {
        true
    }
    fn assign_record(&self, item: &T, at: Time, to: &mut Vec<TimeWindow>) -> Result<(), String> {
        let given = (self.gap)(item);
        let gap = ms(given);
        if gap < 1 {
            return Err(format!(
                "a record's session gap is {given:?}, and it must be at least 1 ms: let the function give a longer one, or \
                 filter the record out before its window"
            ));
        }
        to.push(TimeWindow { start: at, end: at.saturating_add(gap) });
        Ok(())
    }
}
