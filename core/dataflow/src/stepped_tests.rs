//! Whole jobs on one thread, each step drawn from a seed: stalled tasks, tiny budgets, tiny rings, checkpoints and
//! restores at another parallelism. `THALWEG_SEED=n` replays one run.

use crate::{
    fold::{Combine, Merge, Pairs, Sum},
    gate_task::add_gate,
    key::{ByFirst, ByValue},
    ops::{FlatMap, Map},
    pipe::{Then, close},
    plan::{Freeze, Plan, PlanBuilder},
    routes::{KeyRoute, TurnRoute},
    sink::{Collect, add_sink, decode_collected},
    source::{Sequence, add_source},
    task::Snapshot,
    testing::{SteppedEnd, SteppedJob, TestRuntime},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc};
use thalweg_model::{Partitioner, VertexRole};
use thalweg_wire::ExecutionMode;

const N: u64 = 400;
const KEYS: u64 = 37;

/// Two sources into one union, a flat map with long iterators, a keyed sum, a collect.
fn job(parallelism: u32, mode: ExecutionMode) -> Arc<Plan> {
    let b = PlanBuilder::default();
    let union = b.vertex(VertexRole::Task, None);
    let op = b.operator(union, "union", &[]);
    let mut edges = Vec::new();
    for range in [0..N, N..2 * N] {
        let (source, head) = add_source(&b, Sequence::new(range));
        let map = b.operator(source.vertex, "map", &[]);
        let edge = b.edge::<u64>(source.vertex, union, Partitioner::Forward, false);
        close(&b, source.vertex, Then::new(head, Map(|i: u64| i + 1), map.op), TurnRoute { edge, timed: false });
        edges.push(edge);
    }
    let inlet = add_gate::<u64>(&b, union, edges, op);
    let flat = b.operator(union, "flat-map", &[]);
    let pipe = Then::new(inlet, FlatMap(|i: u64| (0..i % 600).map(move |j| i * j)), flat.op);
    let combine = b.operator(union, "combine", &[]);
    let sum = Sum(|i: u64| i);
    let pipe =
        Then::new(pipe, Combine { fold: sum.clone(), key: ByValue(|i: &u64| i % KEYS), gathers: true }, combine.op);
    let to = b.vertex(VertexRole::Task, None);
    let merge = b.operator(to, "sum", &[]);
    let edge = b.edge::<(u64, u64)>(union, to, Partitioner::Hash, false);
    close(&b, union, pipe, KeyRoute { edge, timed: false, key: ByFirst });
    let inlet = add_gate::<(u64, u64)>(&b, to, vec![edge], merge);
    let pipe = Then::new(inlet, Merge::<_, u64, _>::new(sum, Pairs), merge.op);
    add_sink(&b, to, pipe, Collect::new());
    Arc::new(b.freeze(&Freeze { parallelism, max_parallelism: None, mode }).unwrap())
}

fn naive() -> BTreeMap<u64, u64> {
    let mut sums = BTreeMap::new();
    for i in (0..2 * N).map(|i| i + 1) {
        (0..i % 600).map(|j| i * j).for_each(|x| *sums.entry(x % KEYS).or_default() += x);
    }
    sums
}

fn start(plan: &Arc<Plan>, rt: &TestRuntime, seed: u64, snapshot: Snapshot) -> SteppedJob {
    SteppedJob::start(plan, &rt.env, seed, snapshot, &std::env::temp_dir()).unwrap_or_else(|e| panic!("{e}"))
}

/// What the job's only `collect` has.
fn collected(job: &SteppedJob) -> Vec<(u64, u64)> {
    decode_collected(job.collected().values().next().unwrap()).unwrap()
}

fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..60).collect(),
    }
}

/// Says which seed it was when the run panics.
fn with_seed(run: impl Fn(u64)) {
    for seed in seeds() {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        assert!(result.is_ok(), "THALWEG_SEED={seed}");
    }
}

#[test]
fn whatever_stalls_the_answer_is_the_naive_one() {
    let rt = TestRuntime::new().unwrap();
    with_seed(|seed| {
        let mut random = SmallRng::seed_from_u64(seed);
        let mode = if seed % 4 == 0 { ExecutionMode::Streaming } else { ExecutionMode::Batch };
        let mut job = start(&job(random.random_range(1..4), mode), &rt, seed, Snapshot::new());
        assert_eq!(job.run(None), Ok(SteppedEnd::Finished));
        let mut last = BTreeMap::new();
        let all = collected(&job);
        if mode == ExecutionMode::Batch {
            assert_eq!(all.len(), naive().len(), "final results only");
        }
        for (k, v) in all {
            let old: &mut u64 = last.entry(k).or_default();
            *old = v.max(*old);
        }
        assert_eq!(last, naive());
    });
}

#[test]
fn a_checkpoint_restores_at_another_parallelism_with_nothing_lost_or_doubled() {
    let rt = TestRuntime::new().unwrap();
    let complete = std::cell::Cell::new(0);
    with_seed(|seed| {
        let mut random = SmallRng::seed_from_u64(seed);
        let mode = ExecutionMode::Batch;
        let mut first = start(&job(random.random_range(1..4), mode), &rt, seed, Snapshot::new());
        // A checkpoint that comes too late to be complete is none, and the run simply ends.
        let SteppedEnd::Checkpoint(snapshot) = first.run(Some(random.random_range(0..40))).unwrap() else {
            return assert_eq!(collected(&first).into_iter().collect::<BTreeMap<_, _>>(), naive());
        };
        complete.set(complete.get() + 1);
        drop(first);
        let mut second = start(&job(random.random_range(1..5), mode), &rt, seed, snapshot);
        assert_eq!(second.run(None), Ok(SteppedEnd::Finished));
        let all = collected(&second);
        assert_eq!(all.len(), naive().len());
        assert_eq!(all.into_iter().collect::<BTreeMap<_, _>>(), naive());
    });
    assert!(complete.get() > 0 || seeds().len() == 1, "no checkpoint was complete");
}

#[test]
fn a_checkpoint_that_some_readers_have_not_lived_to_see_holds_nothing_up() {
    let rt = TestRuntime::new().unwrap();
    with_seed(|seed| {
        let b = PlanBuilder::default();
        // One reader has a number and ends, the other goes on for a while.
        let (source, head) = add_source(&b, Sequence::new(0..30).rate(10.0));
        add_sink(&b, source.vertex, head, Collect::new());
        let freeze = Freeze { parallelism: 20, max_parallelism: None, mode: ExecutionMode::Streaming };
        let mut job = start(&Arc::new(b.freeze(&freeze).unwrap()), &rt, seed, Snapshot::new());
        assert_eq!(job.run(Some(60 + seed)).map(|end| end == SteppedEnd::Finished), Ok(true));
    });
}

#[test]
fn one_seed_gives_one_trace() {
    let rt = TestRuntime::new().unwrap();
    let run = || {
        let mut job = start(&job(2, ExecutionMode::Batch), &rt, 7, Snapshot::new());
        assert_eq!(job.run(None), Ok(SteppedEnd::Finished));
        (job.trace().to_vec(), collected(&job))
    };
    assert_eq!(run(), run());
}
