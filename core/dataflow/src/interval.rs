//! Interval join: pairs of one key whose times lie not further apart than a span allows.

use crate::{
    batch::{NO_TIME, Time},
    either::KeyedCoProcess,
    key::{Data, OwnedKey},
    keyed::{KeyedContext, TimeDomain},
    ops::ClonedToSubtasks,
};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// A record `b` of the second stream meets those `a` of the first with `a + lower <= b <= a + upper` by their times.
pub struct IntervalJoin<F, K, O> {
    f: F,
    lower: Time,
    upper: Time,
    _t: PhantomData<fn() -> (K, O)>,
}

impl<F, K, O> IntervalJoin<F, K, O> {
    /// Between these bounds, both of which belong to it, ms.
    pub fn new(lower: Time, upper: Time, f: F) -> Self {
        Self { f, lower, upper, _t: PhantomData }
    }
}

impl<F: Clone, K, O> Clone for IntervalJoin<F, K, O> {
    fn clone(&self) -> Self {
        Self::new(self.lower, self.upper, self.f.clone())
    }
}

/// What waits for partners, by time.
#[derive(Serialize, Deserialize)]
pub struct Waiting<A, B> {
    left: Vec<(Time, A)>,
    right: Vec<(Time, B)>,
}

impl<A, B> Default for Waiting<A, B> {
    fn default() -> Self {
        Self { left: Vec::new(), right: Vec::new() }
    }
}

fn add<T>(list: &mut Vec<(Time, T)>, at: Time, item: T) {
    // Records come in order but for a little.
    let place = list.iter().rposition(|(t, _)| *t <= at).map_or(0, |i| i + 1);
    list.insert(place, (at, item));
}

fn between<T>(list: &[(Time, T)], from: Time, to: Time) -> &[(Time, T)] {
    let start = list.partition_point(|(t, _)| *t < from);
    let end = list.partition_point(|(t, _)| *t <= to);
    list.get(start..end).unwrap_or_default()
}

impl<F, A, B, K, O> KeyedCoProcess<A, B> for IntervalJoin<F, K, O>
where
    A: Data,
    B: Data,
    K: OwnedKey,
    O: 'static,
    F: FnMut(&A, &B) -> O + ClonedToSubtasks,
{
    type Key = K;
    type State = Waiting<A, B>;
    type Out = O;

    fn left(&mut self, item: A, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        let at = ctx.time();
        // What is late has lost its partners, perhaps, and half of its pairs would be a lie.
        if at <= ctx.watermark() && at != NO_TIME {
            return ctx.drop_late();
        }
        for (_, other) in between(&state.right, at.saturating_add(self.lower), at.saturating_add(self.upper)) {
            let pair = (self.f)(&item, other);
            ctx.emit(pair);
        }
        ctx.register_event_time_timer(at.saturating_add(self.upper.max(0)));
        add(&mut state.left, at, item);
    }

    fn right(&mut self, item: B, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        let at = ctx.time();
        if at <= ctx.watermark() && at != NO_TIME {
            return ctx.drop_late();
        }
        for (_, other) in between(&state.left, at.saturating_sub(self.upper), at.saturating_sub(self.lower)) {
            let pair = (self.f)(other, &item);
            ctx.emit(pair);
        }
        ctx.register_event_time_timer(at.saturating_sub(self.lower.min(0)));
        add(&mut state.right, at, item);
    }

    fn on_timer(&mut self, _: TimeDomain, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        // Partners that are still to come are later than the watermark.
        let now = ctx.time();
        let (lower, upper) = (self.lower, self.upper);
        let gone = state.left.partition_point(|(t, _)| t.saturating_add(upper.max(0)) <= now);
        state.left.drain(..gone);
        let gone = state.right.partition_point(|(t, _)| t.saturating_sub(lower.min(0)) <= now);
        state.right.drain(..gone);
        if state.left.is_empty() && state.right.is_empty() {
            ctx.clear_state();
        }
    }
}
