//! Interval join: pairs of one key whose times lie not further apart than a span allows.

use crate::{
    batch::{NO_TIME, Time},
    either::KeyedCoProcess,
    key::{Data, OwnedKey},
    keyed::{KeyedContext, TimeDomain},
    ops::ClonedToSubtasks,
    push::STRIDE,
};
use serde::{Deserialize, Serialize};
use std::{marker::PhantomData, ops::Range};

/// A record `b` of the second stream meets those `a` of the first with `a + lower <= b <= a + upper` by their times.
pub struct IntervalJoin<F, K, O> {
    f: F,
    lower: Time,
    upper: Time,
    rest: Option<Rest>,
    _t: PhantomData<fn() -> (K, O)>,
}

/// A record with partners that it has not met yet. Nothing else comes to its key before it has.
struct Rest {
    /// It is of the first stream.
    left: bool,
    /// Its place among those that wait, and the places of its partners.
    place: usize,
    partners: Range<usize>,
}

const UNTIMED: &str = "a record without a time came to an interval join: give both streams their event time before, with \
                       assign_timestamps_and_watermarks, and mind that what an aggregation gives out at the end of a batch \
                       has none";

impl<F, K, O> IntervalJoin<F, K, O> {
    /// Between these bounds, both of which belong to it, ms.
    pub fn new(lower: Time, upper: Time, f: F) -> Self {
        Self { f, lower, upper, rest: None, _t: PhantomData }
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

/// Answers the place that it has now.
fn add<T>(list: &mut Vec<(Time, T)>, at: Time, item: T) -> usize {
    // Records come in order but for a little.
    let place = list.iter().rposition(|(t, _)| *t <= at).map_or(0, |i| i + 1);
    list.insert(place, (at, item));
    place
}

fn between<T>(list: &[(Time, T)], from: Time, to: Time) -> Range<usize> {
    list.partition_point(|(t, _)| *t < from)..list.partition_point(|(t, _)| *t <= to)
}

impl<F, K: OwnedKey, O: 'static> IntervalJoin<F, K, O> {
    /// Gives out pairs of one record: those of a key with many partners in several goes.
    fn pair<A, B>(&mut self, mut rest: Rest, state: &Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>)
    where
        F: FnMut(&A, &B) -> O,
    {
        for n in rest.partners.by_ref().take(STRIDE) {
            let (a, b) = if rest.left { (rest.place, n) } else { (n, rest.place) };
            if let (Some((left, a)), Some((right, b))) = (state.left.get(a), state.right.get(b)) {
                let pair = (self.f)(a, b);
                // Not of the one that happened to come last.
                ctx.emit_at(*left.max(right), pair);
            }
        }
        if !rest.partners.is_empty() {
            self.rest = Some(rest);
            ctx.resume_later();
        }
    }
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
        if at == NO_TIME {
            return ctx.fail(UNTIMED);
        }
        // What is late has lost its partners, perhaps, and half of its pairs would be a lie.
        if at <= ctx.watermark() {
            return ctx.drop_late();
        }
        let partners = between(&state.right, at.saturating_add(self.lower), at.saturating_add(self.upper));
        ctx.register_event_time_timer(at.saturating_add(self.upper.max(0)));
        let place = add(&mut state.left, at, item);
        self.pair(Rest { left: true, place, partners }, state, ctx);
    }

    fn right(&mut self, item: B, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        let at = ctx.time();
        if at == NO_TIME {
            return ctx.fail(UNTIMED);
        }
        if at <= ctx.watermark() {
            return ctx.drop_late();
        }
        let partners = between(&state.left, at.saturating_sub(self.upper), at.saturating_sub(self.lower));
        ctx.register_event_time_timer(at.saturating_sub(self.lower.min(0)));
        let place = add(&mut state.right, at, item);
        self.pair(Rest { left: false, place, partners }, state, ctx);
    }

    fn resume(&mut self, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        if let Some(rest) = self.rest.take() {
            self.pair(rest, state, ctx);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        either::{CoOf, Either, EitherKey},
        key::ByValue,
        keyed::ProcessSpec,
        side::Sides,
        testing::{OperatorTester, TestRuntime},
    };

    #[test]
    fn a_pair_has_the_later_time_whoever_came_last_and_records_need_one() {
        let rt = TestRuntime::new().unwrap();
        let tester = || {
            let join = IntervalJoin::new(-10, 10, |a: &u64, b: &u64| (*a, *b));
            let key = EitherKey { left: ByValue(|_: &u64| 0u8), right: ByValue(|_: &u64| 0u8) };
            OperatorTester::new(&rt.env, ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() }).unwrap()
        };
        let mut join = tester();
        join.push(10, Either::Left(1)).unwrap();
        join.push(15, Either::Right(2)).unwrap();
        join.push(12, Either::Left(3)).unwrap();
        assert_eq!(join.take(), [(15, (1, 2)), (15, (3, 2))]);
        for untimed in [Either::Left(1), Either::Right(1)] {
            let failure = tester().push_untimed(untimed).unwrap_err();
            assert!(failure.message.contains("assign_timestamps_and_watermarks"), "{failure:?}");
        }
    }

    #[test]
    fn a_record_with_many_partners_meets_them_in_several_goes_and_what_comes_behind_it_waits() {
        let rt = TestRuntime::new().unwrap();
        let join = IntervalJoin::new(-5000, 5000, |a: &u64, b: &u64| (*a, *b));
        let key = EitherKey { left: ByValue(|_: &u64| 0u8), right: ByValue(|_: &u64| 0u8) };
        let spec = ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
        (0..1000).for_each(|i| tester.push(i, Either::Left(i as u64)).unwrap());
        assert_eq!(tester.take(), []);
        assert_eq!(tester.at_once(500, Either::Right(1)).unwrap(), STRIDE);
        // Without being asked for more: these wait, and the first has partners of its own.
        for b in 2..=4 {
            tester.push_now(501, Either::Right(b));
        }
        tester.push_now(502, Either::Left(1000));
        let state = tester.snapshot().unwrap().unwrap();
        let pairs: Vec<(u64, u64)> = tester.take().into_iter().map(|(_, pair)| pair).collect();
        let of = |b: u64| (0..1000).map(move |a| (a, b));
        let all: Vec<_> = of(1).chain(of(2)).chain(of(3)).chain(of(4)).chain((1..=4).map(|b| (1000, b))).collect();
        assert_eq!(pairs, all);
        assert!(!state.is_empty());
        tester.end().unwrap();
        assert_eq!(tester.take(), []);
    }
}
