//! Inputs that have nothing, or nothing in some of their parts: they end, hold nobody up, and change no answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    time::Duration,
};
use thalweg_api::{
    Assignment, Collected, Enumerator, Polled, Reader, ReaderCx, Source, TaskFailure, TextLines, prelude::*, testing,
};
use thalweg_dataflow::{OpCx, Push, pipe::Pipe};

/// Numbers from 0 on, in splits of these lengths.
#[derive(Clone)]
struct Lengths(Vec<u64>);

struct Dealer(VecDeque<(u64, u64)>);

struct Numbers(VecDeque<(u64, u64)>);

impl Source for Lengths {
    type Item = u64;
    type Split = (u64, u64);
    type Enumerator = Dealer;
    type Reader = Numbers;
    fn kind(&self) -> &'static str {
        "lengths-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, _: &OpCx) -> Result<Dealer, TaskFailure> {
        let mut from = 0;
        Ok(Dealer(
            self.0
                .iter()
                .map(|n| {
                    from += n;
                    (from - n, from)
                })
                .collect(),
        ))
    }
    fn reader(&self, _: &OpCx) -> Result<Numbers, TaskFailure> {
        Ok(Numbers(VecDeque::new()))
    }
}

impl Enumerator for Dealer {
    type Split = (u64, u64);
    fn next(&mut self, _: u32) -> Result<Assignment<(u64, u64)>, TaskFailure> {
        Ok(self.0.pop_front().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}

impl Reader for Numbers {
    type Item = u64;
    type Split = (u64, u64);
    fn add(&mut self, split: (u64, u64)) {
        self.0.push_back(split);
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<u64>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let one_split = cx.one_split();
        let Some((from, to)) = self.0.front_mut() else { return Ok(Polled::Done) };
        for _ in 0..budget {
            if from == to {
                self.0.pop_front();
                return Ok(if one_split { Polled::Ended } else { Polled::Progress });
            }
            out.emit(*from);
            *from += 1;
        }
        Ok(Polled::Progress)
    }
    fn unfinished(&self) -> Vec<(u64, u64)> {
        self.0.iter().copied().collect()
    }
    fn reading(&self) -> Option<usize> {
        (!self.0.is_empty()).then_some(0)
    }
    fn at_once(&self) -> bool {
        false
    }
}

fn each_mode(parallelism: u32, check: impl Fn(&Environment, ExecutionMode)) {
    let dir = tempfile::tempdir().unwrap();
    let env = testing::environment(parallelism, dir.path()).unwrap();
    for mode in [ExecutionMode::Batch, ExecutionMode::Streaming] {
        env.mode(mode);
        check(&env, mode);
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// How many numbers of each remainder there are in each ten.
fn counted(stream: DataStream<u64, impl Pipe<Item = u64>>) -> Collected<(u64, i64, u64)> {
    stream
        .assign_timestamps_and_watermarks(|n| *n as i64, WatermarkStrategy::for_monotonous_timestamps())
        .key_by(|n: &u64| n % 3)
        .window(TumblingEventTimeWindows::of(ms(10)))
        .count()
        .map(|w| (w.key, w.window.start, w.value))
        .collect()
}

#[test]
fn splits_with_nothing_in_them_hold_no_watermark_back() {
    let lengths = [vec![0; 9], vec![0, 0, 25, 0, 0, 0, 31, 0], vec![40, 0, 0, 0, 0, 0, 0], vec![]];
    for lengths in lengths {
        for parallelism in [1, 3] {
            each_mode(parallelism, |env, mode| {
                let numbers: u64 = lengths.iter().sum();
                let out = counted(env.source(Lengths(lengths.clone())));
                let mut got = env.execute("splits").unwrap().collected(&out).unwrap();
                got.sort_unstable();
                let mut naive = BTreeMap::new();
                (0..numbers).for_each(|n| *naive.entry((n % 3, (n / 10 * 10) as i64)).or_insert(0) += 1);
                let naive: Vec<_> = naive.into_iter().map(|((key, start), n)| (key, start, n)).collect();
                // Splits of one reader follow each other, and so do their times only where one reads them all.
                if parallelism == 1 || mode == ExecutionMode::Batch {
                    assert_eq!(got, naive, "{lengths:?}, {mode:?}");
                } else {
                    assert!(got.iter().map(|g| g.2).sum::<u64>() <= numbers);
                }
            });
        }
    }
}

#[test]
fn sources_that_have_nothing_end_and_give_nothing() {
    let files = tempfile::tempdir().unwrap();
    let folder = files.path().join("empty");
    fs::create_dir(&folder).unwrap();
    let some = files.path().join("some");
    fs::create_dir(&some).unwrap();
    ["a", "b", "c"].iter().for_each(|name| fs::write(some.join(name), "").unwrap());
    fs::write(some.join("d.gz"), {
        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()).finish().unwrap()
    })
    .unwrap();
    fs::write(some.join("e.zst"), zstd::encode_all(&b""[..], 1).unwrap()).unwrap();
    each_mode(3, |env, mode| {
        let nothing = env.from_collection(Vec::<u64>::new()).collect();
        let none = env.sequence(7..7).collect();
        let lines = env.source(TextLines::new([folder.clone(), some.clone()])).collect();
        let counts = env.from_collection(Vec::<u64>::new()).key_by(|n: &u64| *n).count().collect();
        let windows = counted(env.sequence(0..0));
        let result = env.execute("nothing").unwrap();
        assert_eq!(result.collected(&nothing).unwrap(), [0u64; 0], "{mode:?}");
        assert_eq!(result.collected(&none).unwrap(), [0u64; 0]);
        assert_eq!(result.collected(&lines).unwrap(), [""; 0]);
        assert_eq!(result.collected(&counts).unwrap(), []);
        assert_eq!(result.collected(&windows).unwrap(), []);
    });
}

#[test]
fn one_side_that_has_nothing_holds_the_other_up_nowhere() {
    each_mode(2, |env, mode| {
        let full = env.sequence(0..1000);
        let empty = env.from_collection(Vec::<u64>::new());
        let both = full.union(empty).key_by(|n: &u64| n % 7).count().collect();
        let timed = |numbers: std::ops::Range<u64>| {
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            env.sequence(numbers).assign_timestamps_and_watermarks(|n| *n as i64, strategy)
        };
        let timed = timed(0..100).union(timed(0..0)).key_by(|n: &u64| n % 2);
        let counts = timed.window(TumblingEventTimeWindows::of(ms(10))).count().map(|w| w.value).collect();
        let result = env.execute("one side").unwrap();
        let largest = result.collected(&both).unwrap().into_iter().map(|(_, n)| n).max();
        assert_eq!(largest, Some(143), "{mode:?}");
        assert_eq!(result.collected(&counts).unwrap().iter().sum::<u64>(), 100);
    });
}
