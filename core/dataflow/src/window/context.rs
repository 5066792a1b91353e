//! What a window function may ask and do beside what its window gathered: time, side outputs, and states of its key and
//! of its window. It has no timers: when a window fires is its trigger's matter.

use super::{TimeWindow, WindowFunction};
use crate::{
    batch::{NO_TIME, Time},
    build::OpCx,
    key::OwnedKey,
    side::{LiveSides, OutputTag, Sides},
    state::{
        KeyedState, KeyedStates,
        named::{Named, SavedStates},
    },
    task::TaskCell,
};
use std::{collections::BTreeMap, fmt::Display, rc::Rc, sync::Arc};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, TaskFailure};

/// One key and window of which a function makes results.
pub struct WindowContext<'a, K> {
    pub(super) key: K,
    pub(super) window: TimeWindow,
    pub(super) watermark: Time,
    pub(super) around: &'a mut Around<K>,
}

impl<K> WindowContext<'_, K> {
    /// Which key.
    #[inline(always)]
    pub fn key(&self) -> &K {
        &self.key
    }
    /// The key, when nothing more is asked of the context.
    #[inline(always)]
    pub fn into_key(self) -> K {
        self.key
    }
    /// Which window.
    #[inline(always)]
    pub fn window(&self) -> TimeWindow {
        self.window
    }
    /// No record with this time or an earlier one is expected any more, ms; `NO_TIME` before the first watermark. A
    /// window that fires at its end sees the watermark that passed it.
    #[inline(always)]
    pub fn watermark(&self) -> Time {
        self.watermark
    }
    /// The machine's clock, ms since 1970 UTC.
    pub fn processing_time(&self) -> Time {
        self.around.wall()
    }
    /// Gives a record out by the side; its time is the window's last moment, as that of results.
    pub fn output<U: 'static>(&mut self, tag: &OutputTag<U>, item: U) {
        self.around.sides.emit(tag, self.window.max_timestamp(), item);
    }
    /// Fails the job with this error once the function returns. It says what to do, for whoever reads it at night.
    #[cold]
    pub fn fail(&mut self, why: impl Display) {
        let (cell, uid) = &self.around.task;
        cell.fail_in(uid, FailureKind::User, why.to_string());
    }
}

impl<K: OwnedKey> WindowContext<'_, K> {
    /// A named state of this key, which all its windows share. It stays until it is cleared or its time to live is
    /// over. The view borrows the context: take one, and use it for reading and writing.
    #[inline]
    #[track_caller]
    pub fn state<'b, S: KeyedState<K>>(&'b mut self, state: &'b S) -> S::View<'b> {
        self.around.of_key.at(state, self.key.stable_hash(), &self.key)
    }
    /// A named state of this key in this window, for windows that fire more than once. It goes with the window: when
    /// the window's end and the allowed lateness have passed. In a window for all time it stays until it is cleared.
    #[inline]
    #[track_caller]
    pub fn window_state<'b, S: KeyedState<K>>(&'b mut self, state: &'b S) -> S::View<'b> {
        self.around.of_window(self.window).at(state, self.key.stable_hash(), &self.key)
    }
}

/// Where a window function adds its states when a subtask begins. A name is used once.
pub struct WindowStates<'a, K> {
    of_key: &'a mut Named<K>,
    of_window: &'a mut Named<K>,
}

impl<K: OwnedKey> WindowStates<'_, K> {
    /// The function has this state of keys: see [`WindowContext::state`].
    pub fn add<S: KeyedState<K>>(&mut self, state: &mut S) {
        self.of_window.keeps_elsewhere(state);
        KeyedStates { of: self.of_key }.add(state);
    }
    /// The function has this state of windows: see [`WindowContext::window_state`]. Sessions have none, as they become
    /// part of each other: the job fails when it starts.
    pub fn add_of_window<S: KeyedState<K>>(&mut self, state: &mut S) {
        self.of_key.keeps_elsewhere(state);
        KeyedStates { of: self.of_window }.add(state);
    }
}

/// What a clock shows, ms since 1970 UTC.
pub(super) fn wall(clock: &dyn Clock) -> Time {
    Time::try_from(clock.wall().0).unwrap_or(Time::MAX)
}

/// What lies around the window functions of one subtask.
pub(super) struct Around<K> {
    clock: Arc<dyn Clock>,
    task: (Rc<TaskCell>, Arc<str>),
    pub(super) sides: LiveSides,
    of_key: Named<K>,
    /// Empty tables, as each window begins with.
    blank: Named<K>,
    /// By end and start. A window's tables go whole.
    of_windows: BTreeMap<(Time, Time), Named<K>>,
}

/// States of keys, and those of windows.
pub(super) type SavedAround = (SavedStates, Vec<(TimeWindow, SavedStates)>);

impl<K> Around<K> {
    #[inline]
    pub(super) fn wall(&self) -> Time {
        wall(self.clock())
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

impl<K: OwnedKey> Around<K> {
    /// With the states that the function adds.
    pub(super) fn open<A, R: WindowFunction<K, A>>(
        cx: &OpCx,
        function: &mut R,
        merges: bool,
        sides: &Sides,
    ) -> Result<Self, TaskFailure> {
        function.open(cx)?;
        cx.metrics(|metrics| function.metrics(metrics))?;
        let clock = cx.env().clock.clone();
        let (mut of_key, mut blank) = (Named::new(clock.clone()), Named::new(clock.clone()));
        function.states(&mut WindowStates { of_key: &mut of_key, of_window: &mut blank });
        of_key.check(cx)?;
        blank.check(cx)?;
        if let Some(name) = blank.names().next().filter(|_| merges) {
            let message = format!(
                "the state {name:?} is of a window, and sessions become part of each other: keep it by key instead \
                 (`states.add`, `ctx.state`)"
            );
            return Err(cx.failure(FailureKind::User, message));
        }
        let (task, sides) = ((cx.cell(), cx.uid.clone()), sides.open(cx)?);
        Ok(Self { clock, task, sides, of_key, blank, of_windows: BTreeMap::new() })
    }

    fn of_window(&mut self, window: TimeWindow) -> &mut Named<K> {
        self.of_windows.entry((window.end, window.start)).or_insert_with(|| self.blank.blank())
    }

    /// Forgets the states of all windows whose last moment is not after this.
    pub(super) fn forget_until(&mut self, at: Time) {
        while let Some(first) = self.of_windows.first_entry().filter(|w| w.key().0.saturating_sub(1) <= at) {
            first.remove();
        }
    }

    pub(super) fn restore(&mut self, cx: &OpCx, (of_key, of_windows): SavedAround) -> Result<(), TaskFailure> {
        self.of_key.restore(cx, of_key)?;
        of_windows.into_iter().try_for_each(|(window, states)| self.of_window(window).restore(cx, states))
    }

    pub(super) fn snapshot(&self) -> Result<SavedAround, String> {
        let window = |(end, start): &(Time, Time)| TimeWindow { start: *start, end: *end };
        let of_windows = self.of_windows.iter().map(|(at, states)| Ok((window(at), states.snapshot()?)));
        Ok((self.of_key.snapshot()?, of_windows.collect::<Result<_, String>>()?))
    }
}

/// The watermark that a subtask's windows go on from, of those that each writer had at the barrier. They are not all alike:
/// whether an input that was idle had come back in time is each receiver's own to find. Where the keys have come from several
/// writers it is the lowest one, so that no window is taken for one that has fired: those that had fired beyond it, and are
/// still kept for others or for late records, fire again.
pub(super) fn restored_watermark(cx: &OpCx, all: &[(u32, Time)]) -> Time {
    let own = all.iter().find(|(writer, _)| *writer == cx.subtask).filter(|_| all.len() == cx.parallelism as usize);
    own.or(all.iter().min_by_key(|(_, at)| *at)).map_or(NO_TIME, |(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use crate::{
        fold::Count,
        key::ByValue,
        side::Sides,
        testing::{OperatorTester, TestRuntime},
        window::{
            EventTimeTrigger, NoEvictor, TriggeredSpec, TumblingEventTimeWindows, Untimed, WindowSpec, WithWindow,
        },
    };
    use std::time::Duration;

    /// Two subtasks that had heard of an input's idleness at different times, put together by a restore.
    macro_rules! late_by_one_clock_alone {
        ($spec:expr) => {{
            let rt = TestRuntime::new().unwrap();
            let snapshot = |key: u64, watermark| {
                let mut tester = OperatorTester::new(&rt.env, $spec).unwrap();
                tester.push(3, key).unwrap();
                tester.watermark(watermark).unwrap();
                (tester.take().len(), tester.snapshot().unwrap().unwrap())
            };
            let (fired, ahead) = snapshot(1, 20);
            let (waits, behind) = snapshot(2, 7);
            assert_eq!((fired, waits), (1, 0));
            for parts in [[ahead.clone(), behind.clone()], [behind, ahead]] {
                let mut tester = OperatorTester::from(&rt.env, $spec, &parts).unwrap();
                tester.push(8, 2).unwrap();
                tester.watermark(20).unwrap();
                let got: Vec<_> = tester.take().into_iter().map(|(_, w)| (w.key, w.value)).collect();
                assert_eq!(got, [(2, 2)], "not fired again, not lost, and not late");
            }
        }};
    }

    #[test]
    fn a_restore_takes_no_window_for_one_that_has_fired_because_another_subtask_was_ahead() {
        let (windows, key) = (TumblingEventTimeWindows::of(Duration::from_millis(10)), || ByValue(|i: &u64| *i));
        late_by_one_clock_alone!(WindowSpec {
            windows,
            lateness: 0,
            fold: Count,
            key: key(),
            result: WithWindow,
            late: None,
            sides: Sides::default(),
        });
        late_by_one_clock_alone!(TriggeredSpec {
            assigner: windows,
            trigger: EventTimeTrigger,
            evictor: NoEvictor,
            lateness: 0,
            fold: Untimed(Count),
            key: key(),
            result: WithWindow,
            late: None,
            sides: Sides::default(),
        });
    }
}
