//! Functions of windows with their context: time, side outputs, states of keys and of windows, also behind an
//! aggregate; against naive models, and ended by a checkpoint at any moment. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use thalweg_api::{
    Collected, CountTrigger, JobResult, ReducingState, ValueState, WindowContext, WindowFunction, WindowStates,
    prelude::*,
    testing::{self, Stepped},
};

type Record = (u64, i64, u64);

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

fn records(random: &mut SmallRng) -> Vec<Record> {
    let mut at = 0;
    let n = random.random_range(50..400);
    (0..n)
        .map(|i| {
            at += random.random_range(0..20);
            (random.random_range(0..9), at, i)
        })
        .collect()
}

fn timed(env: &Environment, all: &[Record]) -> DataStream<Record> {
    let strategy = WatermarkStrategy::for_monotonous_timestamps();
    let source = env.from_collection(all.to_vec()).parallelism(1).uid("records");
    source.assign_timestamps_and_watermarks(|r: &Record| r.1, strategy).uid("times").boxed()
}

/// What a firing tells: key, start of the window, what was gathered, which firing it is of its key and of its window,
/// and the greatest that the window had before and now.
type Told = (u64, i64, u64, u64, u64, u64);

/// Tells of each firing, and by the side of windows whose value is odd.
#[derive(Clone)]
struct Teller {
    odd: OutputTag<(u64, i64)>,
    /// Firings of a key.
    of_key: ValueState<u64>,
    /// Firings of a window of a key.
    of_window: ValueState<u64>,
    greatest: ReducingState<u64>,
    at_the_end: bool,
}

impl Teller {
    fn new(odd: &OutputTag<(u64, i64)>, at_the_end: bool) -> Self {
        Self {
            odd: odd.clone(),
            of_key: ValueState::new("of key"),
            of_window: ValueState::new("of window"),
            greatest: ReducingState::new("greatest", |a, b| *a = (*a).max(b)),
            at_the_end,
        }
    }
}

impl WindowFunction<u64, u64> for Teller {
    type Out = Told;
    type Results = std::option::IntoIter<Told>;
    fn states(&mut self, states: &mut WindowStates<'_, u64>) {
        states.add_of_window(&mut self.of_window);
        states.add(&mut self.of_key);
        states.add_of_window(&mut self.greatest);
    }
    fn apply(&mut self, value: u64, mut ctx: WindowContext<'_, u64>) -> Self::Results {
        let window = ctx.window();
        assert_eq!(ctx.watermark() >= window.max_timestamp(), self.at_the_end, "{window} at {}", ctx.watermark());
        assert!(ctx.processing_time() >= 0);
        if value % 2 == 1 {
            let key = *ctx.key();
            ctx.output(&self.odd, (key, window.start));
        }
        let of_key = ctx.state(&self.of_key).or_default().to_owned() + 1;
        ctx.state(&self.of_key).set(of_key);
        let mut state = ctx.window_state(&self.of_window);
        *state.or_default() += 1;
        let of_window = *state.or_default();
        ctx.window_state(&self.greatest).add(value);
        let greatest = *ctx.window_state(&self.greatest).get().unwrap();
        Some((ctx.into_key(), window.start, value, of_key, of_window, greatest)).into_iter()
    }
}

/// The same of a list.
#[derive(Clone)]
struct OfList(Teller);

impl WindowFunction<u64, Vec<Record>> for OfList {
    type Out = Told;
    type Results = std::option::IntoIter<Told>;
    fn states(&mut self, states: &mut WindowStates<'_, u64>) {
        self.0.states(states);
    }
    fn apply(&mut self, all: Vec<Record>, ctx: WindowContext<'_, u64>) -> Self::Results {
        self.0.apply(all.iter().map(|r| r.2).sum(), ctx)
    }
}

#[derive(Clone)]
struct Total;

impl AggregateFunction<Record> for Total {
    type Acc = u64;
    type Out = u64;
    fn create(&self) -> u64 {
        0
    }
    fn add(&mut self, acc: &mut u64, item: Record) {
        *acc += item.2;
    }
    fn merge(&mut self, acc: &mut u64, more: u64) {
        *acc += more;
    }
    fn result(&mut self, acc: u64) -> u64 {
        acc
    }
}

/// What is told of firings of windows, in the order of firings of each key.
fn model(all: &[Record], size: i64, slide: i64, each: Option<u64>) -> (Vec<Told>, Vec<(u64, i64)>) {
    let mut fired = Vec::new();
    let mut open = BTreeMap::<(i64, u64), (u64, u64)>::new();
    for (key, at, value) in all {
        for start in (at - size + 1..=*at).filter(|s| s.rem_euclid(slide) == 0) {
            let (n, sum) = open.entry((start, *key)).or_default();
            (*n, *sum) = (*n + 1, *sum + value);
            if each.is_some_and(|each| *n % each == 0) {
                fired.push((*key, start, *sum));
            }
        }
    }
    if each.is_none() {
        fired = open.into_iter().map(|((start, key), (_, sum))| (key, start, sum)).collect();
    }
    let (mut of_key, mut of_window) = (BTreeMap::<u64, u64>::new(), BTreeMap::<(u64, i64), u64>::new());
    let tell = |(key, start, sum): &(u64, i64, u64)| {
        let (k, w) = (of_key.entry(*key).or_default(), of_window.entry((*key, *start)).or_default());
        (*k, *w) = (*k + 1, *w + 1);
        (*key, *start, *sum, *k, *w, *sum)
    };
    let mut told: Vec<Told> = fired.iter().map(tell).collect();
    let mut odd: Vec<_> = fired.iter().filter(|f| f.2 % 2 == 1).map(|f| (f.0, f.1)).collect();
    told.sort_unstable();
    odd.sort_unstable();
    (told, odd)
}

/// Windows, and whether they fire by count.
type Drawn = (i64, i64, Option<u64>, u32);

fn run(env: &Environment, all: &[Record], drawn: Drawn) -> Result<(Vec<Told>, Vec<(u64, i64)>), JobError> {
    env.mode(ExecutionMode::Streaming);
    let (size, slide, each, kind) = drawn;
    let odd = OutputTag::new("odd");
    let windowed = timed(env, all).key_by(|r| r.0).window(SlidingEventTimeWindows::of(ms(size), ms(slide)));
    let teller = Teller::new(&odd, each.is_none());
    let told = match (each, kind) {
        (None, 0) => windowed.aggregate_with(Total, teller).uid("told").collect_both(&odd),
        (None, 1) => windowed.process(OfList(teller)).uid("told").collect_both(&odd),
        (None, _) => windowed
            .side_output_late_data(&OutputTag::new("late"))
            .aggregate_with(Total, teller)
            .uid("told")
            .collect_both(&odd),
        (Some(n), 0) => {
            windowed.trigger(CountTrigger::of(n)).aggregate_with(Total, teller).uid("told").collect_both(&odd)
        }
        (Some(n), _) => windowed.trigger(CountTrigger::of(n)).process(OfList(teller)).uid("told").collect_both(&odd),
    };
    let result = env.execute("told")?;
    Ok((sorted(&result, &told.0), sorted(&result, &told.1)))
}

fn sorted<T: Ord + serde::Serialize + serde::de::DeserializeOwned + Send + 'static>(
    result: &JobResult,
    collected: &Collected<T>,
) -> Vec<T> {
    let mut all = result.collected(collected).unwrap();
    all.sort_unstable();
    all
}

/// Both outputs of an operator that tells.
trait CollectBoth {
    fn collect_both(self, odd: &OutputTag<(u64, i64)>) -> (Collected<Told>, Collected<(u64, i64)>);
}

impl<P: thalweg_dataflow::pipe::Pipe<Item = Told>> CollectBoth for DataStream<Told, P> {
    fn collect_both(self, odd: &OutputTag<(u64, i64)>) -> (Collected<Told>, Collected<(u64, i64)>) {
        let odd = self.side_output(odd).collect().with_uid("odd");
        (self.collect().with_uid("out"), odd)
    }
}

fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    let n = std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (0..n).collect()
}

#[test]
fn a_function_sees_time_and_keeps_states_also_over_a_checkpoint() {
    let mut complete = 0;
    for seed in seeds(200) {
        let random = &mut SmallRng::seed_from_u64(seed);
        let all = records(random);
        let each = random.random::<bool>().then(|| random.random_range(1..5));
        let size = random.random_range(1..200);
        let slide = if random.random() { size } else { random.random_range(1..200) };
        let drawn = (size, slide, each, random.random_range(0..3));
        let expected = model(&all, size, slide, each);
        let taken = Arc::default();
        let checkpoint_at = random.random::<bool>().then(|| random.random_range(1..60));
        let first = Stepped { seed, checkpoint_at, taken: Arc::clone(&taken), ..Stepped::default() };
        let first = first.environment(random.random_range(1..4), std::env::temp_dir()).unwrap();
        let ended = run(&first, &all, drawn);
        let Some(from) = taken.lock().unwrap().take() else {
            let got = ended.unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
            assert_eq!(got, expected, "THALWEG_SEED={seed} {drawn:?}");
            continue;
        };
        complete += 1;
        let second = Stepped { seed: seed + 1, from, ..Stepped::default() };
        let second = second.environment(random.random_range(1..5), std::env::temp_dir()).unwrap();
        let got = run(&second, &all, drawn).unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
        assert_eq!(got, expected, "THALWEG_SEED={seed} {drawn:?}, restored");
    }
    assert!(complete > 20 || seeds(200).len() < 200, "{complete} checkpoints");
}

#[test]
fn states_that_cannot_be_are_refused_when_the_job_starts() {
    let told = |function: Teller| {
        let env = testing::stepped(1, std::env::temp_dir(), 1).unwrap();
        let windows = EventTimeSessionWindows::with_gap(ms(10));
        timed(&env, &[(1, 2, 3)]).key_by(|r| r.0).window(windows).aggregate_with(Total, function).uid("told").discard();
        env.execute("told").unwrap_err().to_string()
    };
    let odd = OutputTag::new("odd");
    let error = told(Teller::new(&odd, true));
    assert!(error.contains("told") && error.contains("\"of window\"") && error.contains("keep it by key"), "{error}");
    let error = told(Teller { of_window: ValueState::new("of key"), ..Teller::new(&odd, true) });
    assert!(error.contains("two states are named \"of key\""), "{error}");
}

/// Asks for a window's state among those of keys.
#[derive(Clone)]
struct Mistaken(ValueState<u64>);

impl WindowFunction<u64, u64> for Mistaken {
    type Out = u64;
    type Results = std::option::IntoIter<u64>;
    fn states(&mut self, states: &mut WindowStates<'_, u64>) {
        states.add_of_window(&mut self.0);
    }
    fn apply(&mut self, value: u64, mut ctx: WindowContext<'_, u64>) -> Self::Results {
        *ctx.state(&self.0).or_default() += value;
        None.into_iter()
    }
}

#[test]
fn a_state_that_is_asked_for_in_the_wrong_place_fails_the_task() {
    let env = testing::environment(1, std::env::temp_dir()).unwrap();
    let windowed = timed(&env, &[(1, 2, 3)]).key_by(|r| r.0).window(TumblingEventTimeWindows::of(ms(10)));
    windowed.aggregate_with(Total, Mistaken(ValueState::new("mine"))).uid("told").discard();
    let error = env.execute("told").unwrap_err().to_string();
    assert!(error.contains("\"mine\"") && error.contains("of keys or of windows"), "{error}");
}
