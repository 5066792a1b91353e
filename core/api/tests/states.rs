//! Named states of functions against a naive model, their ages, and the mistakes that can be made with them.
//! `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};
use thalweg_api::{
    AggregatingState, KeyedStates, ListState, MapState, ReducingState, StateTtl, ValueState,
    prelude::*,
    testing::{self, OperatorTester, TestRuntime},
};

/// (key, what to do, number)
type Record = (u64, u8, u64);

#[derive(Clone)]
struct Mean;

impl AggregateFunction<u64> for Mean {
    type Acc = (u64, u64);
    type Out = u64;
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&mut self, acc: &mut (u64, u64), x: u64) {
        *acc = (acc.0 + x, acc.1 + 1);
    }
    fn merge(&mut self, acc: &mut (u64, u64), more: (u64, u64)) {
        *acc = (acc.0 + more.0, acc.1 + more.1);
    }
    fn result(&mut self, acc: (u64, u64)) -> u64 {
        acc.0 / acc.1
    }
}

#[derive(Clone)]
struct All {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, String>,
    sum: ReducingState<u64>,
    mean: AggregatingState<Mean, u64>,
}

impl All {
    fn new() -> Self {
        Self {
            value: ValueState::new("value"),
            list: ListState::new("list"),
            map: MapState::new("map"),
            sum: ReducingState::new("sum", |a, b| *a += b),
            mean: AggregatingState::new("mean", Mean),
        }
    }
}

impl KeyedProcess<Record> for All {
    type Key = u64;
    type State = ();
    type Out = (u64, u64, String);
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.value);
        states.add(&mut self.list);
        states.add(&mut self.map);
        states.add(&mut self.sum);
        states.add(&mut self.mean);
    }
    fn process(&mut self, (key, what, x): Record, (): &mut (), ctx: &mut impl KeyedContext<u64, Self::Out>) {
        let sub = x % 4;
        let seen = match what {
            0 => {
                ctx.state(&self.value).set(x);
                String::new()
            }
            1 => {
                *ctx.state(&self.value).or_default() += 1;
                format!("{:?}", ctx.state(&self.value).get())
            }
            2 => {
                let mut list = ctx.state(&self.list);
                list.add(x);
                let n = list.len();
                format!("{:?} of {n}", list.iter().collect::<Vec<_>>())
            }
            3 => {
                ctx.state(&self.list).retain(|y| y % 3 != 0);
                format!("{}", ctx.state(&self.list).is_empty())
            }
            4 => format!("{:?}", ctx.state(&self.map).insert(sub, format!("{x}"))),
            5 => {
                ctx.state(&self.map).or_insert_with(sub, String::new).push('!');
                let mut map = ctx.state(&self.map);
                let mut all: Vec<_> = map.iter().map(|(k, v)| format!("{k}{v}")).collect();
                all.sort_unstable();
                format!("{all:?}")
            }
            6 => format!("{:?}", ctx.state(&self.map).remove(&sub)),
            7 => {
                ctx.state(&self.sum).add(x);
                ctx.state(&self.mean).add(x);
                let sum = ctx.state(&self.sum).get().copied();
                format!("{sum:?} {:?}", ctx.state(&self.mean).get())
            }
            8 => {
                ctx.state(&self.value).clear();
                ctx.state(&self.sum).clear();
                let value = ctx.state(&self.value).get().copied();
                format!("{value:?} {:?}", ctx.state(&self.sum).get())
            }
            _ => {
                ctx.clear_state();
                String::new()
            }
        };
        ctx.emit((key, x, seen));
    }
}

#[derive(Default)]
struct Model {
    value: Option<u64>,
    list: Vec<u64>,
    map: BTreeMap<u64, String>,
    sum: Option<u64>,
    mean: Vec<u64>,
}

impl Model {
    fn process(&mut self, what: u8, x: u64) -> String {
        let sub = x % 4;
        match what {
            0 => {
                self.value = Some(x);
                String::new()
            }
            1 => {
                self.value = Some(self.value.unwrap_or(0) + 1);
                format!("{:?}", self.value)
            }
            2 => {
                self.list.push(x);
                format!("{:?} of {}", self.list, self.list.len())
            }
            3 => {
                self.list.retain(|y| y % 3 != 0);
                format!("{}", self.list.is_empty())
            }
            4 => format!("{:?}", self.map.insert(sub, x.to_string())),
            5 => {
                self.map.entry(sub).or_default().push('!');
                format!("{:?}", self.map.iter().map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>())
            }
            6 => format!("{:?}", self.map.remove(&sub)),
            7 => {
                self.sum = Some(self.sum.unwrap_or(0) + x);
                self.mean.push(x);
                let mean = self.mean.iter().sum::<u64>() / self.mean.len() as u64;
                format!("{:?} {:?}", self.sum, Some(mean))
            }
            8 => {
                (self.value, self.sum) = (None, None);
                "None None".to_owned()
            }
            _ => {
                *self = Self::default();
                String::new()
            }
        }
    }
}

#[test]
fn named_states_are_what_a_plain_model_has() {
    let replay = std::env::var("THALWEG_SEED").ok().map(|seed| seed.parse().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1170_u64);
    for seed in replay.map_or(0..n, |seed| seed..seed + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let n = random.random_range(1..300);
        let all: Vec<Record> = (0..n).map(|x| (random.random_range(0..6), random.random_range(0..10), x)).collect();
        let (parallelism, dir) = (random.random_range(1..4), std::env::temp_dir());
        // One of eight on real threads, the others in steps.
        let env = if seed % 8 == 7 {
            testing::environment(parallelism, dir)
        } else {
            testing::stepped(parallelism, dir, seed)
        };
        let env = env.unwrap();
        env.mode(if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming });
        let seen = env.from_collection(all.clone()).parallelism(1).key_by(|r| r.0).process(All::new()).collect();
        let result = env.execute("states").unwrap();
        let mut got = result.collected(&seen).unwrap();
        got.sort_unstable_by_key(|s| s.1);
        let mut models = BTreeMap::<u64, Model>::new();
        let expected: Vec<_> =
            all.iter().map(|r| (r.0, r.2, models.entry(r.0).or_default().process(r.1, r.2))).collect();
        assert_eq!(got, expected, "THALWEG_SEED={seed}");
    }
}

/// Tells what is left of its states, after adding to them; what begins with `?` adds nothing.
#[derive(Clone)]
struct Ages {
    value: ValueState<String>,
    read: ValueState<String>,
    list: ListState<String>,
    map: MapState<String, u64>,
}

impl KeyedProcess<String> for Ages {
    type Key = u8;
    type State = ();
    type Out = String;
    fn states(&mut self, states: &mut KeyedStates<'_, u8>) {
        states.add(&mut self.value);
        states.add(&mut self.read);
        states.add(&mut self.list);
        states.add(&mut self.map);
    }
    fn process(&mut self, item: String, (): &mut (), ctx: &mut impl KeyedContext<u8, String>) {
        if !item.starts_with('?') {
            ctx.state(&self.value).set(item.clone());
            ctx.state(&self.read).set(item.clone());
            ctx.state(&self.list).add(item.clone());
            ctx.state(&self.map).insert(item, 1);
        }
        let value = ctx.state(&self.value).get().cloned();
        let read = ctx.state(&self.read).get().cloned();
        let list: Vec<String> = ctx.state(&self.list).iter().cloned().collect();
        let mut map: Vec<String> = ctx.state(&self.map).iter().map(|(k, _)| k.clone()).collect();
        map.sort_unstable();
        ctx.emit(format!("{value:?} {read:?} {list:?} {map:?}"));
    }
}

fn aging() -> Ages {
    let ttl = StateTtl::of(Duration::from_secs(10));
    Ages {
        value: ValueState::new("value").ttl(ttl),
        read: ValueState::new("read").ttl(ttl.updated_on_read()),
        list: ListState::new("list").ttl(ttl),
        map: MapState::new("map").ttl(ttl),
    }
}

#[test]
fn what_is_too_old_is_gone_each_element_by_itself() {
    let runtime = TestRuntime::new().unwrap();
    let mut tester = OperatorTester::keyed(&runtime.env, aging(), |s: &String| s.as_bytes()[1]).unwrap();
    let mut say = |after: u64, item: &str| {
        tester.advance(Duration::from_secs(after)).unwrap();
        tester.push_untimed(item.to_owned()).unwrap();
        tester.take().pop().unwrap().1
    };
    assert_eq!(say(0, "a0"), r#"Some("a0") Some("a0") ["a0"] ["a0"]"#);
    assert_eq!(say(6, "b0"), r#"Some("b0") Some("b0") ["a0", "b0"] ["a0", "b0"]"#);
    assert_eq!(say(3, "?0"), r#"Some("b0") Some("b0") ["a0", "b0"] ["a0", "b0"]"#);
    assert_eq!(say(1, "?0"), r#"Some("b0") Some("b0") ["b0"] ["b0"]"#, "ten seconds after the first was written");
    assert_eq!(say(5, "?0"), r#"Some("b0") Some("b0") ["b0"] ["b0"]"#);
    assert_eq!(say(1, "?0"), r#"None Some("b0") [] []"#, "reading counts where it is asked for");
    assert_eq!(say(10, "?0"), "None None [] []");
}

#[test]
fn what_is_too_old_makes_room_and_a_snapshot_keeps_ages() {
    let runtime = TestRuntime::new().unwrap();
    let key = |s: &String| s.as_bytes()[1];
    let mut tester = OperatorTester::keyed(&runtime.env, aging(), key).unwrap();
    for key in 0..90_u8 {
        tester.push_untimed(format!("x{}", char::from(b' ' + key))).unwrap();
    }
    let full = tester.snapshot().unwrap().unwrap();
    tester.advance(Duration::from_secs(11)).unwrap();
    for _ in 0..200 {
        tester.push_untimed("y0".to_owned()).unwrap();
    }
    let after = tester.snapshot().unwrap().unwrap();
    assert!(after.len() < full.len(), "{} of {} bytes are left", after.len(), full.len());

    let mut restored = OperatorTester::keyed_restored(&runtime.env, aging(), key, full).unwrap();
    for (after, left) in [(9, r#"Some("x0") Some("x0") ["x0"] ["x0"]"#), (1, r#"None Some("x0") [] []"#)] {
        restored.advance(Duration::from_secs(after)).unwrap();
        restored.push_untimed("?0".to_owned()).unwrap();
        assert_eq!(restored.take().pop().unwrap().1, left);
    }
}

/// (key, what to do, number)
#[derive(Clone)]
struct Aging {
    value: ValueState<u64>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
    sum: ReducingState<u64>,
}

const TTL: i64 = 1_000;

impl Aging {
    fn new(on_read: bool) -> Self {
        let ttl = StateTtl::of(Duration::from_millis(TTL as u64));
        let ttl = if on_read { ttl.updated_on_read() } else { ttl };
        Self {
            value: ValueState::new("value").ttl(ttl),
            list: ListState::new("list").ttl(ttl),
            map: MapState::new("map").ttl(ttl),
            sum: ReducingState::new("sum", |a, b| *a += b).ttl(ttl),
        }
    }
}

impl KeyedProcess<Record> for Aging {
    type Key = u64;
    type State = ();
    type Out = String;
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.value);
        states.add(&mut self.list);
        states.add(&mut self.map);
        states.add(&mut self.sum);
    }
    fn process(&mut self, (_, what, x): Record, (): &mut (), ctx: &mut impl KeyedContext<u64, String>) {
        let sub = x % 4;
        let seen = match what {
            0 => {
                *ctx.state(&self.value).or_default() += x;
                ctx.state(&self.sum).add(x);
                format!("{:?} {:?}", ctx.state(&self.value).get().copied(), ctx.state(&self.sum).get().copied())
            }
            1 => format!("{:?} {:?}", ctx.state(&self.value).get_mut().copied(), ctx.state(&self.sum).get().copied()),
            2 => {
                ctx.state(&self.list).add(x);
                String::new()
            }
            3 => format!("{} {}", ctx.state(&self.list).len(), ctx.state(&self.list).is_empty()),
            4 => format!("{:?}", ctx.state(&self.list).iter().collect::<Vec<_>>()),
            5 => {
                ctx.state(&self.list).retain(|y| y % 5 != 0);
                String::new()
            }
            6 => format!("{:?}", ctx.state(&self.map).insert(sub, x)),
            7 => {
                let mut map = ctx.state(&self.map);
                *map.or_insert_with(sub, || x) += 1;
                format!("{:?}", map.get(&sub))
            }
            8 => format!("{:?} {:?}", ctx.state(&self.map).remove(&sub), ctx.state(&self.map).is_empty()),
            9 => {
                let mut map = ctx.state(&self.map);
                format!("{:?} {}", map.get(&sub).copied(), map.contains_key(&(x / 2 % 4)))
            }
            10 => format!("{:?} {}", ctx.state(&self.map).get_mut(&sub).copied(), ctx.state(&self.map).len()),
            _ => {
                let all: BTreeMap<u64, u64> = ctx.state(&self.map).iter().map(|(k, v)| (*k, *v)).collect();
                format!("{all:?}")
            }
        };
        ctx.emit(seen);
    }
}

/// What [`Aging`] has for a key, each with the time when it was used last.
#[derive(Default)]
struct AgingModel {
    value: Option<(u64, i64)>,
    list: Vec<(u64, i64)>,
    map: BTreeMap<u64, (u64, i64)>,
    sum: Option<(u64, i64)>,
}

impl AgingModel {
    fn prune(&mut self, now: i64) {
        let lives = |at: i64| now - at < TTL;
        self.value = self.value.filter(|v| lives(v.1));
        self.sum = self.sum.filter(|v| lives(v.1));
        self.list.retain(|v| lives(v.1));
        self.map.retain(|_, v| lives(v.1));
    }

    fn process(&mut self, what: u8, x: u64, now: i64, on_read: bool) -> String {
        self.prune(now);
        fn read(v: &mut (u64, i64), used: Option<i64>) -> u64 {
            v.1 = used.unwrap_or(v.1);
            v.0
        }
        let (used, now, sub) = (on_read.then_some(now), Some(now), x % 4);
        let mut get = |key: u64, used| self.map.get_mut(&key).map(|v| read(v, used));
        match what {
            0 => {
                for v in [&mut self.value, &mut self.sum] {
                    *v = Some((v.map_or(0, |v| v.0) + x, now.unwrap()));
                }
                format!("{:?} {:?}", self.value.map(|v| v.0), self.sum.map(|v| v.0))
            }
            1 => {
                let (value, sum) = (&mut self.value, &mut self.sum);
                format!("{:?} {:?}", value.as_mut().map(|v| read(v, now)), sum.as_mut().map(|v| read(v, used)))
            }
            2 => {
                self.list.push((x, now.unwrap()));
                String::new()
            }
            3 => format!("{} {}", self.list.len(), self.list.is_empty()),
            4 => format!("{:?}", self.list.iter_mut().map(|v| read(v, used)).collect::<Vec<_>>()),
            5 => {
                self.list.retain(|v| v.0 % 5 != 0);
                String::new()
            }
            6 => format!("{:?}", self.map.insert(sub, (x, now.unwrap())).map(|v| v.0)),
            7 => {
                let value = get(sub, now).unwrap_or(x) + 1;
                self.map.insert(sub, (value, now.unwrap()));
                format!("{:?}", Some(value))
            }
            8 => format!("{:?} {:?}", self.map.remove(&sub).map(|v| v.0), self.map.is_empty()),
            9 => format!("{:?} {}", get(sub, used), get(x / 2 % 4, used).is_some()),
            10 => format!("{:?} {}", get(sub, now), self.map.len()),
            _ => {
                let all: BTreeMap<_, _> = self.map.iter_mut().map(|(k, v)| (*k, read(v, used))).collect();
                format!("{all:?}")
            }
        }
    }
}

#[test]
fn states_with_a_time_to_live_are_what_a_plain_model_has() {
    let runtime = TestRuntime::new().unwrap();
    let replay = std::env::var("THALWEG_SEED").ok().map(|seed| seed.parse().unwrap());
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(600_u64);
    for seed in replay.map_or(0..n, |seed| seed..seed + 1) {
        let mut random = SmallRng::seed_from_u64(seed);
        let on_read = random.random();
        // Of one key whose own uses forget what is too old, or of so many that it is met before it is swept away.
        let (keys, longest) = ([1, 4, 40][random.random_range(0..3)], [50, 400, 1_500][random.random_range(0..3)]);
        let key = |r: &Record| r.0;
        let mut tester = OperatorTester::keyed(&runtime.env, Aging::new(on_read), key).unwrap();
        let mut models = BTreeMap::<u64, AgingModel>::new();
        for x in 0..random.random_range(1..300) {
            if random.random_ratio(1, 60) {
                let (snapshot, now) = (tester.snapshot().unwrap().unwrap(), tester.processing_time());
                // What is too old by now is not in it; the clock of what goes on from it begins at 0 again.
                models.values_mut().for_each(|model| model.prune(now));
                tester = OperatorTester::keyed_restored(&runtime.env, Aging::new(on_read), key, snapshot).unwrap();
                tester.advance(Duration::from_millis(random.random_range(0..5_000))).unwrap();
            }
            if random.random() {
                tester.advance(Duration::from_millis(random.random_range(0..longest))).unwrap();
            }
            let record: Record = (random.random_range(0..keys), random.random_range(0..12), x);
            tester.push_untimed(record).unwrap();
            let got = tester.take().pop().unwrap().1;
            let now = tester.processing_time();
            let expected = models.entry(record.0).or_default().process(record.1, x, now, on_read);
            assert_eq!(got, expected, "THALWEG_SEED={seed} at {x}: {record:?}");
        }
    }
}

#[test]
fn a_damaged_snapshot_is_an_error_and_no_panic() {
    let runtime = TestRuntime::new().unwrap();
    let key = |r: &Record| r.0;
    let mut tester = OperatorTester::keyed(&runtime.env, All::new(), key).unwrap();
    for x in 0..40 {
        tester.push_untimed((x % 3, [0, 2, 4, 7][x as usize % 4], x)).unwrap();
    }
    let whole = tester.snapshot().unwrap().unwrap();
    for n in 0..whole.len() {
        let cut = OperatorTester::keyed_restored(&runtime.env, All::new(), key, whole[..n].to_vec());
        let error = cut.err().unwrap_or_else(|| panic!("the first {n} of {} bytes are taken", whole.len()));
        assert!(error.message.contains("cannot be read"), "{error:?}");
        let mut changed = whole.clone();
        changed[n] ^= 1 << (n % 8);
        // What comes of it may be another state: nothing here has a checksum.
        let _ = OperatorTester::keyed_restored(&runtime.env, All::new(), key, changed);
    }
    assert!(OperatorTester::keyed_restored(&runtime.env, All::new(), key, whole).is_ok());
}

/// Has two states of one name, or forgets to add one.
#[derive(Clone)]
struct Mistaken {
    one: ValueState<u64>,
    other: ValueState<u64>,
    forgets: bool,
}

impl KeyedProcess<u64> for Mistaken {
    type Key = u64;
    type State = u64;
    type Out = u64;
    fn states(&mut self, states: &mut KeyedStates<'_, u64>) {
        states.add(&mut self.one);
        if !self.forgets {
            states.add(&mut self.other);
        }
    }
    fn process(&mut self, item: u64, _: &mut u64, ctx: &mut impl KeyedContext<u64, u64>) {
        ctx.state(&self.other).set(item);
    }
}

#[test]
fn mistakes_with_states_are_told() {
    for (forgets, told) in [(false, "two states are named \"a\""), (true, "the state \"a\" was not added")] {
        let env = testing::environment(2, std::env::temp_dir()).unwrap();
        let f = Mistaken { one: ValueState::new("a"), other: ValueState::new("a"), forgets };
        env.from_collection([1_u64, 2]).key_by(|n| *n).process(f).uid("mistaken").discard();
        let error = env.execute("mistaken").unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("mistaken"), "{error}");
    }
}

/// A record that is no `Clone`.
struct Dear;

#[derive(Clone)]
struct MeanOfDear;

impl AggregateFunction<Dear> for MeanOfDear {
    type Acc = u64;
    type Out = u64;
    fn create(&self) -> u64 {
        0
    }
    fn add(&mut self, acc: &mut u64, _: Dear) {
        *acc += 1;
    }
    fn merge(&mut self, acc: &mut u64, more: u64) {
        *acc += more;
    }
    fn result(&mut self, acc: u64) -> u64 {
        acc
    }
}

#[test]
fn an_aggregating_state_can_be_had_of_records_that_are_not_cloned() {
    #[derive(Clone)]
    struct Function {
        mean: AggregatingState<MeanOfDear, Dear>,
    }
    let function = Function { mean: AggregatingState::new("mean", MeanOfDear) };
    let _ = function.clone().mean;
}
