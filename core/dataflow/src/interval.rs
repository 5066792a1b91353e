//! Interval join: pairs of one key whose times lie not further apart than a span allows.

use crate::{
    batch::{NO_TIME, Time},
    either::KeyedCoProcess,
    key::{Data, OwnedKey},
    keyed::{KeyedContext, TimeDomain},
    ops::ClonedToSubtasks,
    push::STRIDE,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, marker::PhantomData, ops::Bound};

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
    /// Its place among those that wait, and between which places its partners are.
    place: Place,
    partners: (Bound<Place>, Bound<Place>),
}

const UNTIMED: &str = "a record without a time came to an interval join: give both streams their event time before, with \
                       assign_timestamps_and_watermarks, and mind that what a function gives out at its end has none where no \
                       record came to it";

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

/// What waits for partners.
#[derive(Serialize, Deserialize)]
pub struct Waiting<A, B> {
    left: Side<A>,
    right: Side<B>,
}

impl<A, B> Default for Waiting<A, B> {
    fn default() -> Self {
        Self { left: Side::default(), right: Side::default() }
    }
}

impl<A, B> Waiting<A, B> {
    fn is_empty(&self) -> bool {
        self.left.all.is_empty() && self.right.all.is_empty()
    }
}

/// A record's time, and a number that tells those of one time apart, in the order in which they came.
type Place = (Time, u64);

/// What waits on one side, by time. Records may come in any order, and all of a bounded stream wait for its end: neither
/// putting one in nor taking the first out moves the others.
struct Side<T> {
    all: BTreeMap<Place, T>,
    next: u64,
}

impl<T> Default for Side<T> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), next: 0 }
    }
}

impl<T> Side<T> {
    fn would_be_first(&self, at: Time) -> bool {
        self.all.first_key_value().is_none_or(|(first, _)| at < first.0)
    }

    /// Answers the place that it has now.
    fn add(&mut self, at: Time, item: T) -> Place {
        let place = (at, self.next);
        self.next += 1;
        self.all.insert(place, item);
        place
    }

    /// Drops those that have no partners to come, which are so much later than themselves at most. Answers when the first
    /// of the others will have none, unless that was known.
    fn forget(&mut self, later: Time, watermark: Time) -> Option<Time> {
        let before = self.all.len();
        while let Some(first) = self.all.first_entry() {
            let until = first.key().0.saturating_add(later);
            if until > watermark {
                return (self.all.len() < before).then_some(until);
            }
            first.remove();
        }
        None
    }

    /// Calls the function for some of those that are in between, and answers from where on there are more.
    fn some(&self, (from, to): (Bound<Place>, Bound<Place>), mut each: impl FnMut(Time, &T)) -> Option<Bound<Place>> {
        let mut all = self.all.range((from, to));
        let mut last = from;
        for (place, item) in all.by_ref().take(STRIDE) {
            each(place.0, item);
            last = Bound::Excluded(*place);
        }
        all.next().map(|_| last)
    }
}

/// As a list.
impl<T: Serialize> Serialize for Side<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.all.iter().map(|((at, _), item)| (at, item)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Side<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut side = Self::default();
        for (at, item) in Vec::<(Time, T)>::deserialize(from)? {
            side.add(at, item);
        }
        Ok(side)
    }
}

/// Places of these times and those between, which are none where the first is later than the second.
fn between(from: Time, to: Time) -> (Bound<Place>, Bound<Place>) {
    let first = (from, 0);
    (Bound::Included(first), if from <= to { Bound::Included((to, u64::MAX)) } else { Bound::Excluded(first) })
}

impl<F, K: OwnedKey, O: 'static> IntervalJoin<F, K, O> {
    /// How much later than themselves the last partners of both sides' records are, at least 0. The first record of each
    /// side has a timer then, and the next one gets it when that has gone: not each has one, since many go at once.
    fn later(&self) -> (Time, Time) {
        (self.upper.max(0), self.lower.min(0).saturating_neg())
    }

    /// Gives out pairs of one record: those of a key with many partners in several goes.
    fn pair<A, B>(&mut self, mut rest: Rest, state: &Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>)
    where
        F: FnMut(&A, &B) -> O,
    {
        let (f, place, partners) = (&mut self.f, rest.place, rest.partners);
        // Not of the one that happened to come last.
        let mut emit = |at: Time, pair| ctx.emit_at(place.0.max(at), pair);
        let more = if rest.left {
            state.left.all.get(&place).and_then(|a| state.right.some(partners, |at, b| emit(at, f(a, b))))
        } else {
            state.right.all.get(&place).and_then(|b| state.left.some(partners, |at, a| emit(at, f(a, b))))
        };
        if let Some(from) = more {
            rest.partners.0 = from;
            self.rest = Some(rest);
            ctx.resume_later();
        }
    }
}

/// Drops a record that came too late. Its key has got a state for it, which nobody would ever take away.
fn drop_late<A, B, K, O>(state: &Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
    ctx.drop_late();
    if state.is_empty() {
        ctx.clear_state();
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
            return drop_late(state, ctx);
        }
        let partners = between(at.saturating_add(self.lower), at.saturating_add(self.upper));
        if state.left.would_be_first(at) {
            ctx.register_event_time_timer(at.saturating_add(self.later().0));
        }
        let place = state.left.add(at, item);
        self.pair(Rest { left: true, place, partners }, state, ctx);
    }

    fn right(&mut self, item: B, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        let at = ctx.time();
        if at == NO_TIME {
            return ctx.fail(UNTIMED);
        }
        if at <= ctx.watermark() {
            return drop_late(state, ctx);
        }
        let partners = between(at.saturating_sub(self.upper), at.saturating_sub(self.lower));
        if state.right.would_be_first(at) {
            ctx.register_event_time_timer(at.saturating_add(self.later().1));
        }
        let place = state.right.add(at, item);
        self.pair(Rest { left: false, place, partners }, state, ctx);
    }

    fn resume(&mut self, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        if let Some(rest) = self.rest.take() {
            self.pair(rest, state, ctx);
        }
    }

    fn on_timer(&mut self, _: TimeDomain, state: &mut Waiting<A, B>, ctx: &mut impl KeyedContext<K, O>) {
        // Partners that are still to come are later than the watermark, which may have gone far beyond the timer's time.
        let (watermark, later) = (ctx.watermark(), self.later());
        let left = state.left.forget(later.0, watermark);
        let right = state.right.forget(later.1, watermark);
        left.into_iter().chain(right).for_each(|at| ctx.register_event_time_timer(at));
        if state.is_empty() {
            ctx.clear_state();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec,
        either::{CoOf, Either, EitherKey},
        key::ByValue,
        keyed::ProcessSpec,
        push::Flow,
        side::Sides,
        testing::{OperatorTester, TestRuntime},
    };
    use std::cell::Cell;

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

    thread_local! {
        static DROPPED: Cell<u64> = const { Cell::new(0) };
    }

    /// Counts those that are dropped.
    #[derive(Serialize, Deserialize)]
    struct Counted;

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
        }
    }

    #[test]
    fn the_first_timer_of_a_watermark_takes_all_that_is_over() {
        let rt = TestRuntime::new().unwrap();
        let join = IntervalJoin::new(-10, 10, |_: &Counted, _: &Counted| ());
        let key = EitherKey { left: ByValue(|_: &Counted| 0u8), right: ByValue(|_: &Counted| 0u8) };
        let spec = ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
        for at in 1..=1000 {
            tester.push(at * 20, Either::Left(Counted)).unwrap();
            tester.push(at * 20 + 15, Either::Right(Counted)).unwrap();
        }
        assert_eq!((tester.take().len(), DROPPED.get()), (999, 0));
        assert_eq!(tester.mark_now(10_010, 1), Flow::More);
        // 500 of the left ones, 499 of the right ones.
        assert_eq!(DROPPED.get(), 999);
        tester.watermark(10_010).unwrap();
        assert_eq!(DROPPED.get(), 999);
        assert_eq!(tester.mark_now(Time::MAX, 1), Flow::More);
        assert_eq!(DROPPED.get(), 2000);
    }

    #[test]
    fn each_side_forgets_in_its_own_time_whatever_the_order() {
        let rt = TestRuntime::new().unwrap();
        let join = IntervalJoin::new(0, 100_000, |_: &Counted, _: &Counted| ());
        let key = EitherKey { left: ByValue(|_: &Counted| 0u8), right: ByValue(|_: &Counted| 0u8) };
        let spec = ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
        tester.push(1, Either::Left(Counted)).unwrap();
        for ten in 0..100 {
            for at in [7, 3, 9, 1, 8, 2, 6, 4, 5, 10] {
                tester.push(ten * 10 + at, Either::Right(Counted)).unwrap();
            }
            tester.watermark(ten * 10 + 5).unwrap();
            // All but the last five of the right ones, and the left one.
            assert_eq!(DROPPED.get(), ten as u64 * 10 + 5);
        }
        assert_eq!(tester.take().len(), 1000);
        tester.push(2_000, Either::Left(Counted)).unwrap();
        tester.watermark(100_001).unwrap();
        assert_eq!(DROPPED.get(), 1001, "the second left one has partners to come");
        tester.push(102_000, Either::Right(Counted)).unwrap();
        assert_eq!(tester.take().len(), 1);
        tester.watermark(102_000).unwrap();
        assert_eq!(DROPPED.get(), 1003);
    }

    #[test]
    fn late_records_leave_no_state_and_take_none() {
        let rt = TestRuntime::new().unwrap();
        let join = IntervalJoin::new(-10, 10, |a: &u64, b: &u64| (*a, *b));
        let key = EitherKey { left: ByValue(|a: &u64| *a), right: ByValue(|b: &u64| *b) };
        let spec = ProcessSpec { f: CoOf::new(join), key, sides: Sides::default() };
        let mut tester = OperatorTester::new(&rt.env, spec).unwrap();
        tester.watermark(100).unwrap();
        let empty = tester.snapshot().unwrap().unwrap();
        for key in 0..1000 {
            let late = if key % 2 == 0 { Either::Left(key) } else { Either::Right(key) };
            tester.push(100, late).unwrap();
        }
        assert_eq!(tester.snapshot().unwrap().unwrap().len(), empty.len());
        // Nor do they take away what their key has.
        tester.push(105, Either::Left(7)).unwrap();
        tester.push(99, Either::Left(7)).unwrap();
        tester.push(106, Either::Right(7)).unwrap();
        assert_eq!(tester.take(), [(106, (7, 7))]);
        tester.end().unwrap();
        assert_eq!(tester.snapshot().unwrap().unwrap().len(), empty.len());
    }

    #[test]
    fn what_waits_is_in_order_of_time_and_of_one_time_as_it_came() {
        let mut side = Side::default();
        for (at, item) in [(5, 'a'), (3, 'b'), (5, 'c'), (9, 'd'), (3, 'e')] {
            side.add(at, item);
        }
        let side: Side<char> = codec::decode(&codec::encode(&side).unwrap()).unwrap();
        let of = |from, to| {
            let mut all = String::new();
            assert!(side.some(between(from, to), |_, item| all.push(*item)).is_none());
            all
        };
        let ranges = [of(Time::MIN, Time::MAX), of(3, 3), of(4, 5), of(6, 8), of(9, 3), of(3, 2)];
        assert_eq!(ranges, ["beacd", "be", "ac", "", "", ""]);
    }
}
