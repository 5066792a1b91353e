//! How much a use of an aging state looks at, and how soon what is too old is gone: counted, of one operator fed by hand.

use super::{KeyedStates, ListState, MapState, StateTtl, ValueState};
use crate::{
    keyed::{KeyedContext, KeyedProcess},
    testing::{OperatorTester, TestRuntime},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cell::Cell, time::Duration};

thread_local! {
    /// Ages that were looked at.
    pub(super) static LOOKS: Cell<u64> = const { Cell::new(0) };
    /// [`Counted`]s that there are.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

struct Counted;

impl Counted {
    fn new() -> Self {
        ALIVE.with(|alive| alive.set(alive.get() + 1));
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.with(|alive| alive.set(alive.get() - 1));
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        ().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        <()>::deserialize(from).map(|()| Self::new())
    }
}

/// What to do with the states of key `.0`, and a number for it.
type Record = (u64, Do, u64);

#[derive(Clone, Copy, PartialEq)]
enum Do {
    /// Whatever does not ask for all of a map or a list.
    Use,
    Add,
    /// Tells how many elements and entries there are.
    Tell,
}

#[derive(Clone)]
struct States {
    value: ValueState<u64>,
    list: ListState<Counted>,
    map: MapState<u64, Counted>,
}

impl States {
    fn new(ttl: u64) -> Self {
        let ttl = StateTtl::of(Duration::from_millis(ttl));
        Self {
            value: ValueState::new("value").ttl(ttl),
            list: ListState::new("list").ttl(ttl),
            map: MapState::new("map").ttl(ttl),
        }
    }
}

impl KeyedProcess<Record> for States {
    type Key = u64;
    type State = ();
    type Out = (usize, usize);
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.value);
        states.add(&mut self.list);
        states.add(&mut self.map);
    }
    fn process(&mut self, (_, what, n): Record, (): &mut (), ctx: &mut impl KeyedContext<u64, Self::Out>) {
        match what {
            Do::Use => {
                ctx.state(&self.value).set(n);
                let mut map = ctx.state(&self.map);
                assert!(!map.contains_key(&n));
                assert!(map.insert(n, Counted::new()).is_none());
                map.or_insert_with(n + 1, Counted::new);
                assert!(map.get(&n).is_some() && map.get_mut(&n).is_some() && !map.is_empty());
                assert!(map.remove(&(n + 1)).is_some());
                let mut list = ctx.state(&self.list);
                list.add(Counted::new());
                assert!(!list.is_empty());
                assert!(list.len() <= 1_000);
            }
            Do::Add => {
                ctx.state(&self.list).add(Counted::new());
                ctx.state(&self.map).insert(n, Counted::new());
            }
            Do::Tell => {
                let of_list = ctx.state(&self.list).iter().count();
                assert_eq!(ctx.state(&self.list).len(), of_list);
                let of_map = ctx.state(&self.map).iter().count();
                assert_eq!(ctx.state(&self.map).len(), of_map);
                ctx.emit((of_list, of_map));
            }
        }
    }
}

#[test]
fn a_use_looks_at_what_it_asks_for_and_a_few_places_beside() {
    let runtime = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::keyed(&runtime.env, States::new(2_000), |r: &Record| r.0).unwrap();
    for n in 0..5_000 {
        tester.advance(Duration::from_millis(1)).unwrap();
        let before = LOOKS.get();
        tester.push_untimed((n % 2, Do::Use, n)).unwrap();
        let looks = LOOKS.get() - before;
        assert!(looks < 120, "{looks} at record {n}");
    }
    // 2 keys, 1000 records each within the time, an element and an entry each; a few that are too old wait for the sweep.
    let alive = ALIVE.get();
    assert!((4_000 - 4..5_000).contains(&alive), "{alive}");
}

#[test]
fn what_is_too_old_of_any_key_goes_as_another_is_written() {
    let runtime = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::keyed(&runtime.env, States::new(1_000), |r: &Record| r.0).unwrap();
    for n in 0..4_000 {
        tester.push_untimed((n % 20, Do::Add, n)).unwrap();
    }
    let full = tester.snapshot().unwrap().unwrap().len();
    assert_eq!(ALIVE.get(), 8_000);
    tester.advance(Duration::from_secs(1)).unwrap();
    let empty = tester.snapshot().unwrap().unwrap().len();
    assert!(full > 10_000 && empty < 100, "a snapshot has nothing that is too old: {empty} of {full} bytes");
    for n in 0..600 {
        let before = LOOKS.get();
        tester.push_untimed((99, Do::Add, n)).unwrap();
        assert!(LOOKS.get() - before < 60);
    }
    assert_eq!(ALIVE.get(), 1_200, "nothing is left but what was written just now");
    tester.push_untimed((0, Do::Tell, 0)).unwrap();
    tester.push_untimed((99, Do::Tell, 0)).unwrap();
    assert_eq!(tester.take().into_iter().map(|o| o.1).collect::<Vec<_>>(), [(0, 0), (600, 600)]);
}

#[test]
fn a_list_whose_clock_was_set_back_forgets_each_element_in_its_time() {
    let runtime = TestRuntime::new().unwrap();
    let key = |r: &Record| r.0;
    let mut tester = OperatorTester::keyed(&runtime.env, States::new(1_000), key).unwrap();
    tester.advance(Duration::from_secs(3_600)).unwrap();
    tester.push_untimed((0, Do::Add, 0)).unwrap();
    let snapshot = tester.snapshot().unwrap().unwrap();
    drop(tester);
    // The clock of this one begins at 0: what it goes on from is of the future.
    let mut tester = OperatorTester::keyed_restored(&runtime.env, States::new(1_000), key, snapshot).unwrap();
    let before = LOOKS.get();
    for n in 1..=20_000 {
        tester.advance(Duration::from_millis(10)).unwrap();
        tester.push_untimed((0, Do::Add, n)).unwrap();
        assert!(ALIVE.get() < 500, "{} at record {n}", ALIVE.get());
    }
    let looks = LOOKS.get() - before;
    assert!(looks < 60 * 20_000, "{looks}");
    tester.push_untimed((0, Do::Tell, 0)).unwrap();
    tester.advance(Duration::from_millis(991)).unwrap();
    tester.push_untimed((0, Do::Tell, 0)).unwrap();
    let left: Vec<_> = tester.take().into_iter().map(|o| o.1).collect();
    assert_eq!(left, [(101, 101), (2, 2)], "a hundred of the last second, and the one of the future");
}
