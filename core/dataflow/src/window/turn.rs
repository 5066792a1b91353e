//! One key's open windows, and what is asked of a window's trigger when its turn has come: by a record, or by a time.

use super::{
    TimeWindow, WindowContext, WindowFunction,
    assigner::WindowTime,
    context::Around,
    evictor::Evictor,
    trigger::{Asked, Trigger, TriggerContext, TriggerResult, Wishes},
};
use crate::{batch::Time, event_time::Timers, key::OwnedKey};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, marker::PhantomData, ops::Range};

/// An open window of a key.
#[derive(Serialize, Deserialize)]
pub struct Open<A, G> {
    pub(super) window: TimeWindow,
    pub(super) contents: Option<A>,
    pub(super) trigger: G,
    pub(super) asked: Asked,
}

/// Open windows of a key by start and end. Those of sessions have no moment in common.
pub(super) type Windows<A, G> = VecDeque<Open<A, G>>;

/// Is a window as if it had never been? No time comes at which one for all time would be dropped.
pub(super) fn keeps_nothing<T, A, G: Trigger<T>>(open: &Open<A, G::State>, trigger: &G) -> bool {
    let Asked { event, processing } = &open.asked;
    open.contents.is_none() && event.is_empty() && processing.is_empty() && trigger.is_fresh(&open.trigger)
}

/// Where a window is among a key's, or would be.
pub(super) fn place<A, G>(list: &Windows<A, G>, window: &TimeWindow) -> Result<usize, usize> {
    list.binary_search_by_key(window, |open| open.window)
}

/// Are these as a key's windows are? What is looked for among others is lost, and may not even be a range.
pub(super) fn are_sound<A, G>(list: &Windows<A, G>, merges: bool) -> bool {
    let windows = || list.iter().map(|open| open.window);
    let follows = |(a, b): (TimeWindow, TimeWindow)| if merges { a.end <= b.start } else { a < b };
    windows().all(|w| w.start < w.end) && windows().zip(windows().skip(1)).all(follows)
}

/// Those of a key's sessions that have a moment in common with a window.
pub(super) fn overlapping<A, G>(list: &Windows<A, G>, window: &TimeWindow) -> Range<usize> {
    list.partition_point(|o| o.window.end <= window.start)..list.partition_point(|o| o.window.start < window.end)
}

/// The hash of a timer of a key's window, of which many may be of one time; and the key's, of the timer's.
pub(super) fn timer_hash(hash: u64, window: &TimeWindow) -> u64 {
    let mixed = (window.start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (window.end as u64).rotate_left(32);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^ mixed ^ (mixed >> 32)
}

/// Asks a trigger, and has its window fire as it says.
pub(super) struct Turn<'a, K, A, I> {
    pub(super) around: &'a mut Around<K>,
    pub(super) key: &'a K,
    pub(super) hash: u64,
    pub(super) time: WindowTime,
    pub(super) lateness: Time,
    pub(super) watermark: Time,
    /// What the clock shows, where it has been looked at.
    pub(super) wall: Option<Time>,
    /// The time that has come, and whether it is one of event time.
    pub(super) comes: Option<(bool, Time)>,
    pub(super) event: &'a mut Timers<(K, TimeWindow)>,
    pub(super) processing: &'a mut Timers<(K, TimeWindow)>,
    pub(super) results: &'a mut VecDeque<(Time, I)>,
    pub(super) _a: PhantomData<A>,
}

impl<K: OwnedKey, A: Clone, I> Turn<'_, K, A, I> {
    pub(super) fn ask<G>(
        &mut self,
        open: &mut Open<A, G>,
        ask: impl FnOnce(&TimeWindow, &mut G, &mut TriggerContext) -> TriggerResult,
    ) -> TriggerResult {
        let at_the_end = |by_event| {
            let ends = if by_event { self.watermark == Time::MAX } else { self.wall == Some(Time::MAX) };
            self.comes.filter(|(of_event, _)| ends && *of_event == by_event).map(|(_, at)| at)
        };
        let (event, processing) = (at_the_end(true), at_the_end(false));
        let (event, processing) =
            (Wishes::of(&mut open.asked.event, event), Wishes::of(&mut open.asked.processing, processing));
        let (time, watermark, wall, clock) = (self.time, self.watermark, self.wall, self.around.clock());
        let mut cx = TriggerContext { time, watermark, wall, clock, event, processing };
        let result = ask(&open.window, &mut open.trigger, &mut cx);
        for at in cx.event.new_ones() {
            self.event.add(*at, timer_hash(self.hash, &open.window), &(self.key.clone(), open.window));
        }
        for at in cx.processing.new_ones() {
            self.processing.add(*at, timer_hash(self.hash, &open.window), &(self.key.clone(), open.window));
        }
        result
    }

    /// The window is waited for until it is over.
    pub(super) fn begin(&mut self, window: TimeWindow) {
        let (at, hash) = (window.over_at(self.lateness), timer_hash(self.hash, &window));
        match self.time {
            WindowTime::Event => self.event.add(at, hash, &(self.key.clone(), window)),
            WindowTime::Processing => self.processing.add(at, hash, &(self.key.clone(), window)),
            WindowTime::Never => {}
        }
    }

    /// The window is no more, and waits for nothing.
    pub(super) fn forget<G>(&mut self, open: &Open<A, G>) {
        let (at, whose) = (open.window.over_at(self.lateness), (self.key.clone(), open.window));
        let hash = timer_hash(self.hash, &open.window);
        let over = |time| (self.time == time).then_some(at);
        for at in open.asked.event.iter().copied().chain(over(WindowTime::Event)) {
            self.event.remove(at, hash, &whose);
        }
        for at in open.asked.processing.iter().copied().chain(over(WindowTime::Processing)) {
            self.processing.remove(at, hash, &whose);
        }
    }

    pub(super) fn obey<G, R, V>(&mut self, open: &mut Open<A, G>, wish: TriggerResult, result: &mut R, evictor: &mut V)
    where
        R: WindowFunction<K, A, Results = I>,
        V: Evictor<A>,
    {
        if wish.fires()
            && let Some(contents) = &mut open.contents
        {
            evictor.evict(contents, &open.window);
            let (key, window, watermark) = (self.key.clone(), open.window, self.watermark);
            let ctx = WindowContext { key, window, watermark, around: self.around };
            let results = result.apply(contents.clone(), ctx);
            evictor.evict_after(contents, &open.window);
            self.results.push_back((open.window.max_timestamp(), results));
        }
        if wish.purges() {
            open.contents = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn timers_of_one_keys_windows_are_spread_over_a_table() {
        for (size, slide) in [(1, 1), (60_000, 60_000), (86_400_000, 60_000), (i64::MAX >> 2, 1)] {
            let windows = || (0..4096).map(|n| TimeWindow { start: n * slide, end: n * slide + size });
            let hashes: BTreeSet<u64> = windows().map(|w| timer_hash(7, &w)).collect();
            // A table goes by the lowest bits, and by the highest seven among those.
            let of = |f: fn(u64) -> u64| hashes.iter().map(|h| f(*h)).collect::<BTreeSet<_>>().len();
            assert_eq!(hashes.len(), 4096);
            assert!(of(|h| h & 0xfff) > 2300 && of(|h| h >> 57) == 128, "{size} {slide}: {}", of(|h| h & 0xfff));
            assert!(windows().all(|w| timer_hash(timer_hash(7, &w), &w) == 7));
        }
    }
}
