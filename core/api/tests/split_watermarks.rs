//! Watermarks of readers that read several splits, against a naive model of one generator a split: random splits with
//! disorder inside, steps drawn from a seed, and restores at another parallelism. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use thalweg_api::{
    Assignment, Enumerator, Polled, ProcessContext, ProcessFunction, Reader, ReaderCx, Source, TaskFailure, prelude::*,
    testing::Stepped,
};
use thalweg_dataflow::{NO_TIME, OpCx, Push, Time, pipe::Pipe};

/// A record: its split, its place there, its time.
type Record = (usize, usize, Time);

/// What happened, in order. The first number is the reader's.
#[derive(Clone, Copy, Debug)]
enum Event {
    Add(u32, usize, usize),
    Begin(u32),
    Give(u32, usize, Time),
    End(u32, Option<usize>),
    /// A record has come to the operator behind, at this watermark.
    Seen(u32, Time, Time),
}

type Log = Arc<Mutex<Vec<Event>>>;

/// What is left of a split.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    split: usize,
    from: usize,
}

#[derive(Clone)]
struct Parts {
    times: Arc<Vec<Vec<Time>>>,
    seed: u64,
    at_once: bool,
    log: Log,
}

struct Dealer {
    left: Vec<Part>,
    waits: u32,
}

impl Enumerator for Dealer {
    type Split = Part;
    fn next(&mut self, _: u32) -> Result<Assignment<Part>, TaskFailure> {
        if self.waits > 0 && self.left.len() % 3 == 1 {
            self.waits -= 1;
            return Ok(Assignment::Wait);
        }
        Ok(self.left.pop().map_or(Assignment::NoMore, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.left).map_err(|e| e.to_string())
    }
}

struct PartsReader {
    source: Parts,
    me: u32,
    open: Vec<Part>,
    reading: usize,
    random: SmallRng,
}

impl Source for Parts {
    type Item = Record;
    type Split = Part;
    type Enumerator = Dealer;
    type Reader = PartsReader;
    fn kind(&self) -> &'static str {
        "parts-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Dealer, TaskFailure> {
        let mut left: Vec<_> = (0..self.times.len()).map(|split| Part { split, from: 0 }).collect();
        for (_, state) in cx.restored() {
            left = serde_json::from_slice(state).unwrap();
        }
        Ok(Dealer { left, waits: 6 })
    }
    fn reader(&self, cx: &OpCx) -> Result<PartsReader, TaskFailure> {
        let random = SmallRng::seed_from_u64(self.seed + u64::from(cx.subtask));
        Ok(PartsReader { source: self.clone(), me: cx.subtask, open: Vec::new(), reading: 0, random })
    }
}

impl PartsReader {
    fn turn(&mut self) {
        let open = self.open.len();
        let last = open.saturating_sub(1);
        self.reading = if self.source.at_once && open > 0 { self.random.random_range(0..open) } else { last };
    }
}

impl Reader for PartsReader {
    type Item = Record;
    type Split = Part;
    fn add(&mut self, split: Part) {
        self.source.log.lock().push(Event::Add(self.me, split.split, split.from));
        self.open.push(split);
        self.turn();
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<Record>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        assert!(cx.one_split());
        let tell = |event| self.source.log.lock().push(event);
        tell(Event::Begin(self.me));
        let part = &mut self.open[self.reading];
        for at in self.source.times[part.split].iter().skip(part.from).take(self.random.random_range(0..20).min(budget))
        {
            tell(Event::Give(self.me, part.split, *at));
            out.emit((part.split, part.from, *at));
            part.from += 1;
        }
        let ended = part.from == self.source.times[part.split].len();
        tell(Event::End(self.me, ended.then_some(part.split)));
        if ended {
            self.open.remove(self.reading);
        }
        self.turn();
        Ok(match self.open.len() {
            0 => Polled::Done,
            _ if ended => Polled::Ended,
            _ => Polled::Progress,
        })
    }
    fn unfinished(&self) -> Vec<Part> {
        self.open.clone()
    }
    fn reading(&self) -> Option<usize> {
        (!self.open.is_empty()).then_some(self.reading)
    }
    fn at_once(&self) -> bool {
        self.source.at_once
    }
}

/// Tells at which watermark a record comes.
#[derive(Clone)]
struct Watch {
    log: Log,
    me: u32,
}

impl ProcessFunction<Record> for Watch {
    type Out = Record;
    fn open(&mut self, cx: &OpCx) -> Result<(), TaskFailure> {
        self.me = cx.subtask;
        Ok(())
    }
    fn process(&mut self, item: Record, ctx: &mut impl ProcessContext<Record>) {
        self.log.lock().push(Event::Seen(self.me, item.2, ctx.watermark()));
        ctx.emit(item);
    }
}

/// One reader, as one would write it down: the highest time of each open split, and the watermark.
#[derive(Default)]
struct Naive {
    open: BTreeMap<usize, Time>,
    told: Option<Time>,
}

impl Naive {
    fn tell(&mut self, bound: Time) {
        let of = |max: &Time| if *max == NO_TIME { NO_TIME } else { max - bound - 1 };
        if let Some(lowest) = self.open.values().map(of).min() {
            self.told = self.told.max(Some(lowest));
        }
    }

    fn told(&self) -> Time {
        self.told.unwrap_or(NO_TIME)
    }
}

/// What comes between the source and the times.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Between {
    Nothing,
    Map,
    Box,
    Long,
}

/// Goes through what happened; answers how many records were late.
fn check(log: &[Event], times: &[Vec<Time>], bound: Time, between: Between) -> usize {
    let mut readers = BTreeMap::<u32, Naive>::new();
    let mut late = 0;
    for event in log {
        match *event {
            Event::Add(reader, split, from) => {
                let max = times[split][..from].iter().max().copied().unwrap_or(NO_TIME);
                readers.entry(reader).or_default().open.insert(split, max);
            }
            Event::Begin(reader) => readers.get_mut(&reader).unwrap().tell(bound),
            Event::Give(reader, split, at) => {
                let naive = readers.get_mut(&reader).unwrap();
                let max = naive.open.get_mut(&split).unwrap();
                *max = at.max(*max);
                if between == Between::Long {
                    naive.tell(bound);
                }
            }
            Event::End(reader, Some(split)) => {
                let naive = readers.get_mut(&reader).unwrap();
                naive.tell(bound);
                naive.open.remove(&split);
                naive.tell(bound);
            }
            Event::End(_, None) => {}
            Event::Seen(reader, at, watermark) => {
                let naive = &readers[&reader];
                match between {
                    Between::Nothing | Between::Map => assert_eq!(watermark, naive.told(), "{reader} {at}"),
                    // Records come a little later than they were given out: the model may be ahead.
                    Between::Box | Between::Long => assert!(watermark <= naive.told(), "{reader} {at} {watermark}"),
                }
                late += usize::from(at <= watermark);
            }
        }
    }
    late
}

fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

/// Splits whose times begin anywhere and are out of order by less than `bound`, or now and then by more.
fn splits(random: &mut SmallRng, bound: Time) -> Vec<Vec<Time>> {
    let wild = random.random_range(0..3) == 0;
    let one = |random: &mut SmallRng| {
        let mut at = random.random_range(0..600);
        let mut next = |random: &mut SmallRng| {
            at += random.random_range(0..12);
            let back = if wild && random.random_range(0..15) == 0 { bound + 50 } else { bound };
            at - random.random_range(0..=back)
        };
        (0..random.random_range(1..120)).map(|_| next(random)).collect()
    };
    (0..random.random_range(1..14)).map(|_| one(random)).collect()
}

/// How many records it becomes where something long is between.
fn copies(r: &Record) -> usize {
    if r.1 % 9 == 4 { r.1 * 97 % 700 } else { 1 }
}

fn run<P: Pipe<Item = Record>>(env: &Environment, parts: DataStream<Record, P>, bound: Time, log: &Log) -> Ended {
    let strategy = WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(bound as u64));
    let timed = parts.assign_timestamps_and_watermarks(|r: &Record| r.2, strategy).uid("times");
    let seen = timed.process(Watch { log: log.clone(), me: 0 }).uid("watch").collect().with_uid("out");
    env.execute("parts")?.collected(&seen)
}

type Ended = Result<Vec<Record>, JobError>;

/// A job that is ended by a checkpoint a few times; answers how often that was, and how many records were late.
fn case(seed: u64) -> (usize, usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let bound = random.random_range(0..40);
    let times = Arc::new(splits(&mut random, bound));
    let between = [Between::Nothing, Between::Map, Between::Box, Between::Long][random.random_range(0..4)];
    let at_once = random.random();
    let (mut from, mut restored, mut late) = (BTreeMap::new(), 0, 0);
    loop {
        let log = Log::default();
        let source = Parts { times: times.clone(), seed: seed + restored as u64, at_once, log: log.clone() };
        let taken = Arc::default();
        let checkpoint_at = (restored < 3).then(|| random.random_range(1..60));
        let steps =
            Stepped { seed: seed + restored as u64, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
        let env = steps.environment(random.random_range(1..=5 - restored as u32), std::env::temp_dir()).unwrap();
        env.mode(ExecutionMode::Streaming);
        let parts = env.source(source).uid("parts");
        let ended = match between {
            Between::Nothing => run(&env, parts, bound, &log),
            Between::Map => run(&env, parts.map(|r| r).inspect(|_| {}), bound, &log),
            Between::Box => run(&env, parts.map(|r| r).boxed(), bound, &log),
            Between::Long => run(&env, parts.flat_map(|r| (0..copies(&r)).map(move |_| r)), bound, &log),
        };
        late += check(&log.lock(), &times, bound, between);
        if let Some(snapshot) = taken.lock().unwrap().take() {
            (from, restored) = (snapshot, restored + 1);
            continue;
        }
        let mut got = ended.unwrap();
        got.sort_unstable();
        let all =
            times.iter().enumerate().flat_map(|(split, t)| t.iter().enumerate().map(move |(i, at)| (split, i, *at)));
        let n = |r: &Record| if between == Between::Long { copies(r) } else { 1 };
        assert_eq!(got, all.flat_map(|r| (0..n(&r)).map(move |_| r)).collect::<Vec<_>>());
        return (restored, late);
    }
}

#[test]
fn no_record_is_late_that_a_model_of_one_generator_a_split_does_not_call_late() {
    let (mut restored, mut late) = (0, 0);
    for seed in seeds(250) {
        let Ok((r, l)) = std::panic::catch_unwind(|| case(seed)) else { panic!("THALWEG_SEED={seed}") };
        (restored, late) = (restored + r, late + l);
    }
    println!("{restored} restores, {late} records late");
    assert!(restored > 100 && late > 0 || seeds(250).len() < 250, "{restored} restores, {late} records late");
}

/// Lines of a file, each a time.
fn lines(path: &std::path::Path, times: impl Iterator<Item = i64>) {
    std::fs::write(path, times.map(|t| format!("{t}\n")).collect::<String>()).unwrap();
}

#[test]
fn files_that_were_half_read_at_a_restore_with_fewer_readers_have_no_late_records() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..4 {
        lines(&dir.path().join(format!("{i}.txt")), (0..3000).map(|t| t * 4 + i));
    }
    let mut restored = 0;
    for seed in seeds(40) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut from = BTreeMap::new();
        for (parallelism, last) in [(4, false), (1, true)] {
            let taken = Arc::default();
            let checkpoint_at = (!last).then(|| random.random_range(20..90));
            let steps = Stepped { seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
            let env = steps.environment(parallelism, dir.path()).unwrap();
            env.mode(ExecutionMode::Streaming);
            let times = env.read_text(dir.path()).uid("files").map(|line| line.parse::<i64>().unwrap());
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            let late = OutputTag::new("late");
            let counts = times
                .assign_timestamps_and_watermarks(|t| *t, strategy)
                .uid("times")
                .key_by(|_| 0u8)
                .window(TumblingEventTimeWindows::of(Duration::from_millis(100)))
                .side_output_late_data(&late)
                .count()
                .uid("counts");
            let late = counts.side_output(&late).collect().with_uid("late");
            let counts = counts.collect().with_uid("out");
            let result = env.execute("files");
            if let Some(snapshot) = taken.lock().unwrap().take() {
                (from, restored) = (snapshot, restored + 1);
                continue;
            }
            let result = result.unwrap();
            assert_eq!(result.collected(&late).unwrap(), [0; 0], "THALWEG_SEED={seed}");
            let counts: u64 = result.collected(&counts).unwrap().iter().map(|w| w.value).sum();
            assert_eq!(counts, 12_000, "THALWEG_SEED={seed}");
            break;
        }
    }
    assert!(restored > 20 || seeds(40).len() < 40, "{restored} restores");
}

#[test]
fn a_sequence_with_a_rate_goes_on_in_order_with_fewer_readers() {
    let mut restored = 0;
    for seed in seeds(40) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut from = BTreeMap::new();
        for (parallelism, last) in [(3, false), (1, true)] {
            let taken = Arc::default();
            let checkpoint_at = (!last).then(|| random.random_range(20..200));
            let steps = Stepped { seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
            let env = steps.environment(parallelism, std::env::temp_dir()).unwrap();
            env.mode(ExecutionMode::Streaming);
            let numbers = env.source(thalweg_api::Sequence::new(0..200).rate(100.0)).uid("numbers");
            let strategy = WatermarkStrategy::for_monotonous_timestamps();
            let watch = Numbers { last: None };
            let timed = numbers.assign_timestamps_and_watermarks(|n| *n as Time, strategy).uid("times");
            let told = timed.process(watch).uid("watch").collect().with_uid("out");
            let result = env.execute("numbers");
            if let Some(snapshot) = taken.lock().unwrap().take() {
                (from, restored) = (snapshot, restored + 1);
                continue;
            }
            let mut told = result.unwrap().collected(&told).unwrap();
            assert!(told.iter().all(|(_, late)| !late), "THALWEG_SEED={seed}");
            told.sort_unstable();
            assert_eq!(told, (0..200).map(|n| (n, false)).collect::<Vec<_>>(), "THALWEG_SEED={seed}");
            break;
        }
    }
    assert!(restored > 20 || seeds(40).len() < 40, "{restored} restores");
}

/// Numbers that go up, and whether each was late.
#[derive(Clone)]
struct Numbers {
    last: Option<u64>,
}

impl ProcessFunction<u64> for Numbers {
    type Out = (u64, bool);
    fn process(&mut self, n: u64, ctx: &mut impl ProcessContext<(u64, bool)>) {
        assert!(self.last < Some(n), "{n} after {:?}", self.last);
        self.last = Some(n);
        ctx.emit((n, ctx.time() <= ctx.watermark()));
    }
}
