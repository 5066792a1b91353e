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

/// Those of a key's sessions that have a moment in common with a window.
pub(super) fn overlapping<A, G>(list: &Windows<A, G>, window: &TimeWindow) -> Range<usize> {
    list.partition_point(|o| o.window.end <= window.start)..list.partition_point(|o| o.window.start < window.end)
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
        let (event, processing) = (Wishes::of(&mut open.asked.event), Wishes::of(&mut open.asked.processing));
        let (time, watermark, wall, clock) = (self.time, self.watermark, self.wall, self.around.clock());
        let mut cx = TriggerContext { time, watermark, wall, clock, event, processing };
        let result = ask(&open.window, &mut open.trigger, &mut cx);
        for at in cx.event.new_ones() {
            self.event.add(*at, self.hash, &(self.key.clone(), open.window));
        }
        for at in cx.processing.new_ones() {
            self.processing.add(*at, self.hash, &(self.key.clone(), open.window));
        }
        result
    }

    /// The window is waited for until it is over.
    pub(super) fn begin(&mut self, window: TimeWindow) {
        let (at, whose) = (window.over_at(self.lateness), (self.key.clone(), window));
        match self.time {
            WindowTime::Event => self.event.add(at, self.hash, &whose),
            WindowTime::Processing => self.processing.add(at, self.hash, &whose),
            WindowTime::Never => {}
        }
    }

    /// The window is no more, and waits for nothing.
    pub(super) fn forget<G>(&mut self, open: &Open<A, G>) {
        let (at, whose) = (open.window.over_at(self.lateness), (self.key.clone(), open.window));
        let over = |time| (self.time == time).then_some(at);
        for at in open.asked.event.iter().copied().chain(over(WindowTime::Event)) {
            self.event.remove(at, self.hash, &whose);
        }
        for at in open.asked.processing.iter().copied().chain(over(WindowTime::Processing)) {
            self.processing.remove(at, self.hash, &whose);
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
