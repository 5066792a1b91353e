//! What is dropped of a window when it fires.

use super::TimeWindow;
use crate::batch::{NO_TIME, Time};
use std::{marker::PhantomData, time::Duration};

/// Drops records of a window when it fires.
pub trait Evictor<A>: Clone + Send + 'static {
    /// Before results are made of them. What is dropped does not come back when the window fires again.
    fn evict(&mut self, contents: &mut A, window: &TimeWindow);
    /// After results were made of them: for the next time that the window fires.
    fn evict_after(&mut self, _contents: &mut A, _window: &TimeWindow) {}
}

/// Drops nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoEvictor;

impl<A> Evictor<A> for NoEvictor {
    #[inline(always)]
    fn evict(&mut self, _: &mut A, _: &TimeWindow) {}
}

/// Another evictor, after each firing and not before it: results are of all that is there, and what it drops is not
/// there the next time.
#[derive(Clone, Copy, Debug)]
pub struct EvictAfter<V>(V);

impl<V> EvictAfter<V> {
    /// Of this one.
    pub fn of(evictor: V) -> Self {
        Self(evictor)
    }
}

impl<A, V: Evictor<A>> Evictor<A> for EvictAfter<V> {
    fn evict(&mut self, _: &mut A, _: &TimeWindow) {}
    fn evict_after(&mut self, contents: &mut A, window: &TimeWindow) {
        self.0.evict(contents, window);
    }
}

/// Keeps the last so many records.
#[derive(Clone, Copy, Debug)]
pub struct CountEvictor(usize);

impl CountEvictor {
    /// So many.
    pub fn of(records: usize) -> Self {
        Self(records)
    }
}

impl<T: 'static> Evictor<Vec<(Time, T)>> for CountEvictor {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        contents.drain(..contents.len().saturating_sub(self.0));
    }
}

/// Keeps the records of the last stretch of time before the newest, by the records' own times; all, where they have
/// none.
#[derive(Clone, Copy, Debug)]
pub struct TimeEvictor(Time);

impl TimeEvictor {
    /// Of this length; ms precision.
    pub fn of(span: Duration) -> Self {
        Self(super::assigner::ms(span))
    }
}

impl<T: 'static> Evictor<Vec<(Time, T)>> for TimeEvictor {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        let newest = contents.iter().map(|(at, _)| *at).max().unwrap_or(NO_TIME);
        if newest == NO_TIME {
            // A stream without event time: nobody can say what is old.
            return;
        }
        let limit = newest.saturating_sub(self.0);
        contents.retain(|(at, _)| *at > limit);
    }
}

/// Keeps the records that differ from the newest by less than a threshold.
pub struct DeltaEvictor<T, F> {
    threshold: f64,
    delta: F,
    _t: PhantomData<fn(T)>,
}

impl<T, F: FnMut(&T, &T) -> f64> DeltaEvictor<T, F> {
    /// By this measure of an old record and the newest one.
    pub fn of(threshold: f64, delta: F) -> Self {
        Self { threshold, delta, _t: PhantomData }
    }
}

impl<T, F: Clone> Clone for DeltaEvictor<T, F> {
    fn clone(&self) -> Self {
        Self { threshold: self.threshold, delta: self.delta.clone(), _t: PhantomData }
    }
}

impl<T: 'static, F: FnMut(&T, &T) -> f64 + Clone + Send + 'static> Evictor<Vec<(Time, T)>> for DeltaEvictor<T, F> {
    fn evict(&mut self, contents: &mut Vec<(Time, T)>, _: &TimeWindow) {
        let Some((at, newest)) = contents.pop() else { return };
        contents.retain(|(_, item)| (self.delta)(item, &newest) < self.threshold);
        contents.push((at, newest));
    }
}
