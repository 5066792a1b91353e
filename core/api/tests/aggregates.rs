//! Aggregations by key against naive models, over random records, parallelism and order of steps: in batch mode one result
//! a key, in streaming mode one a record, of which the last is the same. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod drawn;

use drawn::each;
use rand::Rng;
use std::{collections::BTreeMap, fmt::Debug};
use thalweg_api::prelude::*;

/// (key, value, number)
type Item = (u64, u64, u64);

/// The mean of some numbers, with how many there were.
#[derive(Clone)]
struct Mean;

impl AggregateFunction<Item> for Mean {
    type Acc = (u64, u64);
    type Out = (u64, u64);
    fn create(&self) -> (u64, u64) {
        (0, 0)
    }
    fn add(&mut self, acc: &mut (u64, u64), item: Item) {
        self.merge(acc, (item.1, 1));
    }
    fn merge(&mut self, acc: &mut (u64, u64), more: (u64, u64)) {
        *acc = (acc.0 + more.0, acc.1 + more.1);
    }
    fn result(&mut self, (sum, n): (u64, u64)) -> (u64, u64) {
        (sum / n, n)
    }
}

/// What came of each key, in order.
fn by_key<V>(all: impl IntoIterator<Item = (u64, V)>) -> BTreeMap<u64, Vec<V>> {
    let mut groups = BTreeMap::<u64, Vec<V>>::new();
    all.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
    groups
}

/// What comes of each key: one update a record, or the last one alone.
fn updates<V: Clone>(all: &[Item], mode: ExecutionMode, of: impl Fn(&[Item]) -> V) -> BTreeMap<u64, Vec<V>> {
    let groups = by_key(all.iter().map(|r| (r.0, *r)));
    let first = |n| if mode == ExecutionMode::Batch { n } else { 1 };
    groups.into_iter().map(|(k, v)| (k, (first(v.len())..=v.len()).map(|n| of(&v[..n])).collect())).collect()
}

fn equal<V: PartialEq + Debug>(what: &str, got: BTreeMap<u64, Vec<V>>, expected: BTreeMap<u64, Vec<V>>) {
    assert_eq!(got, expected, "{what}");
}

#[test]
fn aggregates_of_keys_are_those_of_a_naive_model_in_both_modes() {
    each(200, |env, random| {
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        env.mode(mode);
        let (n, values) = (random.random_range(0..200), random.random_range(1..300));
        let all: Vec<Item> = (0..n).map(|i| (random.random_range(0..7), random.random_range(0..values), i)).collect();
        // One subtask gives all, so that the model knows the order.
        let keyed = || env.from_collection(all.clone()).parallelism(1).key_by(|r| r.0);
        let (max, min) = (keyed().max(|r| r.1).collect(), keyed().min(|r| r.1).collect());
        let by_value = |a: &Item, b: &Item| a.1.cmp(&b.1);
        let (greatest, least) = (keyed().max_by(by_value).collect(), keyed().min_by(by_value).collect());
        let (mean, sum) = (keyed().aggregate(Mean).collect(), keyed().sum(|r| r.1).collect());
        let list = keyed().fold(Vec::new(), |list: &mut Vec<u64>, r| list.push(r.2)).collect();
        let last = keyed().reduce(|last, r| *last = r).collect();
        let (count, alone) = (keyed().count().collect(), keyed().without_combining().count().collect());
        let distinct = env.from_collection(all.clone()).parallelism(1).key_by(|r| r.1).distinct().collect();
        let result = env.execute("aggregates").unwrap();

        let pairs = |c| by_key(result.collected::<(u64, u64)>(c).unwrap());
        let values = |all: &[Item]| all.iter().map(|r| r.1).collect::<Vec<_>>();
        equal("max", pairs(&max), updates(&all, mode, |v| values(v).into_iter().max().unwrap()));
        equal("min", pairs(&min), updates(&all, mode, |v| values(v).into_iter().min().unwrap()));
        equal("sum", pairs(&sum), updates(&all, mode, |v| values(v).into_iter().sum()));
        equal("count", pairs(&count), updates(&all, mode, |v| v.len() as u64));
        equal("alone", pairs(&alone), updates(&all, mode, |v| v.len() as u64));
        let records = |c| by_key(result.collected::<Item>(c).unwrap().into_iter().map(|r| (r.0, r)));
        // Of equal ones the first that came.
        let first = |v: &[Item], value| *v.iter().find(|r| r.1 == value).unwrap();
        equal("max_by", records(&greatest), updates(&all, mode, |v| first(v, values(v).into_iter().max().unwrap())));
        equal("min_by", records(&least), updates(&all, mode, |v| first(v, values(v).into_iter().min().unwrap())));
        equal("reduce", records(&last), updates(&all, mode, |v| *v.last().unwrap()));
        let mean = by_key(result.collected(&mean).unwrap());
        equal(
            "mean",
            mean,
            updates(&all, mode, |v| (values(v).into_iter().sum::<u64>() / v.len() as u64, v.len() as u64)),
        );
        let list = by_key(result.collected(&list).unwrap());
        equal("fold", list, updates(&all, mode, |v| v.iter().map(|r| r.2).collect::<Vec<_>>()));
        let mut distinct = result.collected(&distinct).unwrap();
        distinct.sort_unstable_by_key(|r| r.1);
        let mut firsts = BTreeMap::new();
        all.iter().for_each(|r| _ = firsts.entry(r.1).or_insert(*r));
        assert_eq!(distinct, firsts.into_values().collect::<Vec<_>>(), "distinct");
    });
}

#[test]
fn what_several_subtasks_give_comes_to_one_answer_a_key() {
    each(100, |env, random| {
        let mode = if random.random() { ExecutionMode::Batch } else { ExecutionMode::Streaming };
        env.mode(mode);
        let all: Vec<Item> =
            (0..random.random_range(0..300)).map(|i| (i % 7, random.random_range(0..1000), i)).collect();
        let keyed = || env.from_collection(all.clone()).rebalance().parallelism(3).key_by(|r| r.0);
        let (max, mean) = (keyed().max(|r| r.1).collect(), keyed().aggregate(Mean).collect());
        let list = keyed().fold(Vec::new(), |list: &mut Vec<u64>, r| list.push(r.2)).collect();
        let least = keyed().min_by(|a, b| a.1.cmp(&b.1)).collect();
        let distinct = env.from_collection(all.clone()).rebalance().parallelism(3).key_by(|r| r.1).distinct().collect();
        let result = env.execute("aggregates").unwrap();

        let groups = by_key(all.iter().map(|r| (r.0, *r)));
        // How many came of each key, and the last of them.
        fn last<V>(groups: BTreeMap<u64, Vec<V>>) -> BTreeMap<u64, (usize, V)> {
            groups.into_iter().map(|(k, mut v)| (k, (v.len(), v.pop().unwrap()))).collect()
        }
        let updates = |v: &Vec<Item>| if mode == ExecutionMode::Batch { 1 } else { v.len() };
        let of =
            |f: fn(&Vec<Item>) -> u64| groups.iter().map(|(k, v)| (*k, (updates(v), f(v)))).collect::<BTreeMap<_, _>>();
        assert_eq!(last(by_key(result.collected(&max).unwrap())), of(|v| v.iter().map(|r| r.1).max().unwrap()));
        let least = result.collected(&least).unwrap().into_iter().map(|r| (r.0, r.1));
        assert_eq!(last(by_key(least)), of(|v| v.iter().map(|r| r.1).min().unwrap()));
        let mean = result.collected(&mean).unwrap().into_iter().map(|(k, (mean, n))| (k, mean * 1000 + n));
        let expected = of(|v| v.iter().map(|r| r.1).sum::<u64>() / v.len() as u64 * 1000 + v.len() as u64);
        assert_eq!(last(by_key(mean)), expected);
        let mut list = last(by_key(result.collected(&list).unwrap()));
        list.values_mut().for_each(|(_, numbers)| numbers.sort_unstable());
        let expected = groups.iter().map(|(k, v)| (*k, (updates(v), v.iter().map(|r| r.2).collect::<Vec<_>>())));
        assert_eq!(list, expected.collect());
        let mut distinct: Vec<u64> = result.collected(&distinct).unwrap().into_iter().map(|r| r.1).collect();
        distinct.sort_unstable();
        let mut expected: Vec<u64> = all.iter().map(|r| r.1).collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(distinct, expected);
    });
}
