//! Sources of one alignment group that wait for each other: none runs away from the slowest, nobody waits for one that
//! has ended, is idle or has nothing to read, and what comes out is what comes out without. In steps drawn from a
//! seed, and once on threads. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod paced;
mod taken;

use paced::{DRIFT, FAST, Kind, Log, MS, Paced, RUN, STEP, Snapshot, each, fast, seeds};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};
use thalweg_api::{Collected, prelude::*, testing::Stepped};
use thalweg_dataflow::Time;
use thalweg_model::{JobGraph, Regions, SubtaskId, VertexRole};

const WINDOW: Time = 200;
/// Splits of the n-th source are logged from here on.
const APART: usize = 10;

/// One source of a group.
struct Member {
    kinds: Vec<Kind>,
    parallelism: u32,
    drift: Time,
    every: Duration,
    idleness: Option<Duration>,
    holds: bool,
    bounded: bool,
}

impl Member {
    fn of(kinds: Vec<Kind>) -> Self {
        Self { kinds, parallelism: 1, drift: DRIFT, every: 3 * MS, idleness: None, holds: false, bounded: true }
    }
}

/// Windows of each source's records, put together; and how many records each has.
fn program(env: &Environment, members: &[Member], aligned: bool, log: &Log) -> Collected<Windowed<usize, u64>> {
    env.mode(ExecutionMode::Streaming);
    let fast_ended = Arc::default();
    let streams = members.iter().enumerate().map(|(n, member)| {
        let source = Paced {
            kinds: member.kinds.clone(),
            first: n * APART,
            log: log.clone(),
            holds: member.holds,
            fast_ended: Arc::clone(&fast_ended),
            bounded: member.bounded,
        };
        let mut strategy = WatermarkStrategy::for_monotonous_timestamps();
        if let Some(after) = member.idleness {
            strategy = strategy.with_idleness(after);
        }
        if aligned {
            strategy = strategy.with_alignment("all", Duration::from_millis(member.drift as u64), member.every);
        }
        let times = env.source(source).uid(format!("source-{n}")).parallelism(member.parallelism);
        let timed = times.assign_timestamps_and_watermarks(|t| *t, strategy).uid(format!("times-{n}"));
        timed.map(move |t| (n, t)).boxed()
    });
    let all = streams.reduce(|a, b| a.union(b)).unwrap();
    let size = Duration::from_millis(WINDOW as u64);
    let counts = all.key_by(|(n, _)| *n).window(TumblingEventTimeWindows::of(size)).count().uid("counts");
    counts.collect().with_uid("out")
}

/// By source and begin of the window.
fn counts(env: &Environment, out: &Collected<Windowed<usize, u64>>) -> Result<BTreeMap<(usize, Time), u64>, JobError> {
    let ended = env.execute("aligned sources")?;
    Ok(ended.collected(out)?.into_iter().map(|w| ((w.key, w.window.start), w.value)).collect())
}

fn expected(members: &[Member]) -> BTreeMap<(usize, Time), u64> {
    let mut all = BTreeMap::new();
    for (n, kind) in members.iter().enumerate().flat_map(|(n, member)| member.kinds.iter().map(move |k| (n, k))) {
        for at in (0..kind.records).map(|i| i as Time * STEP) {
            *all.entry((n, at - at % WINDOW)).or_default() += 1;
        }
    }
    all
}

/// A run in steps: what was given in which order, and the checkpoint if that ended it. Answers are looked at here.
fn run(
    seed: u64,
    members: &[Member],
    aligned: bool,
    from: &Snapshot,
    checkpoint_at: Option<u64>,
) -> (Vec<(usize, Time)>, Option<Snapshot>) {
    let (log, taken) = (Log::default(), Arc::default());
    let steps = Stepped { seed, from: from.clone(), checkpoint_at, taken: Arc::clone(&taken) };
    let env = steps.environment(2, std::env::temp_dir()).unwrap();
    let out = program(&env, members, aligned, &log);
    let counts = counts(&env, &out);
    let log = std::mem::take(&mut *log.lock());
    if let Some(snapshot) = taken.lock().unwrap().take() {
        return (log, Some(snapshot));
    }
    let counts = counts.unwrap_or_else(|e| panic!("{e}"));
    let (mut counts, mut expected) = (counts, expected(members));
    for idle in members.iter().enumerate().filter(|(_, m)| m.idleness.is_some()).map(|(n, _)| n) {
        // What it has in the end is late with good reason.
        counts.retain(|(n, _), _| *n != idle);
        expected.retain(|(n, _), _| *n != idle);
    }
    assert!(counts == expected, "another answer than without alignment: something was late, or lost");
    (log, None)
}

/// The furthest that each source's splits were ahead of one that had records left. A split that begins counts as if it
/// were as far as the others have come by then, if that is `forgiven`: nobody waits for one without a watermark.
fn furthest(log: &[(usize, Time)], members: &[Member], forgiven: bool) -> Vec<Time> {
    let last = |split: usize| (members[split / APART].kinds[split % APART].records as Time - 1) * STEP;
    let mut reached = BTreeMap::<usize, Time>::new();
    if !forgiven {
        let splits = |n: usize, member: &Member| (0..member.kinds.len()).map(move |split| (n * APART + split, 0));
        reached.extend(members.iter().enumerate().flat_map(|(n, member)| splits(n, member).collect::<Vec<_>>()));
    }
    // By pairs of a split and another one that began later.
    let mut began = BTreeMap::<(usize, usize), Time>::new();
    let mut furthest = vec![0; members.len()];
    for (split, at) in log {
        if !reached.contains_key(split) {
            began.extend(reached.iter().map(|(other, at)| ((*other, *split), *at)));
        }
        reached.insert(*split, *at);
        for (other, behind) in reached.iter().filter(|(other, behind)| **behind < last(**other)) {
            let behind = began.get(&(*split, *other)).map_or(*behind, |at| *behind.max(at));
            furthest[split / APART] = furthest[split / APART].max(at - behind);
        }
    }
    furthest
}

/// One call goes too far before it is looked at again.
fn bound(drift: Time) -> Time {
    drift + 2 * RUN as Time * STEP
}

/// Two or three sources of whatever speed, and one of the splits is slow.
fn members(random: &mut SmallRng) -> Vec<Member> {
    let mut members: Vec<_> = (0..random.random_range(2..4))
        .map(|_| {
            let kinds = (0..random.random_range(1..4)).map(|_| {
                let pause = if random.random_bool(0.7) { Duration::ZERO } else { MS };
                Kind { records: random.random_range(100..1000), pause, stall: None }
            });
            Member::of(kinds.collect())
        })
        .collect();
    for member in &mut members {
        // Each split has a reader: what one gets later would be late.
        member.parallelism = random.random_range(member.kinds.len() as u32..4);
        member.drift = DRIFT * random.random_range(1..4);
        member.every = MS * random.random_range(1..6);
        member.bounded = random.random();
    }
    let slow = random.random_range(0..members.len());
    members[slow].kinds[0] = Kind { records: 200, pause: MS * random.random_range(1..4), stall: None };
    members
}

#[test]
fn no_source_runs_away_from_the_slowest_also_when_checkpoints_end_them() {
    let (restored, away) = (Cell::new(0), Cell::new(0));
    let run_all = |seed: u64, aligned: bool| {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut members, mut from, mut ever) = (members(&mut random), Snapshot::new(), Vec::new());
        for attempt in 0..3 {
            let checkpoint_at = (attempt < 2).then(|| random.random_range(200..4000));
            let (log, taken) = run(seed, &members, aligned, &from, checkpoint_at);
            let over =
                furthest(&log, &members, aligned).into_iter().zip(&members).map(|(at, m)| at - bound(m.drift)).max();
            ever.push(over.unwrap());
            let Some(snapshot) = taken else { break };
            restored.set(restored.get() + 1);
            from = snapshot;
            members.iter_mut().for_each(|m| m.parallelism = random.random_range(1..4));
        }
        ever.into_iter().max().unwrap()
    };
    each(30, |seed| {
        let over = run_all(seed, true);
        assert!(over <= 0, "{over} ms further than is allowed");
        away.set(away.get() + u32::from(run_all(seed, false) > 5 * DRIFT));
    });
    if seeds(30).len() >= 30 {
        assert!(restored.get() > 10, "{} restores", restored.get());
        assert!(away.get() > 15, "without alignment {} run away", away.get());
    }
}

#[test]
fn nobody_waits_for_a_source_that_ends_is_idle_or_has_nothing() {
    let long = Duration::from_secs(3600);
    let slow = |records, stall| Member::of(vec![Kind { records, pause: MS, stall }]);
    each(20, |seed| {
        let case = |mut other: Member, parallelism| {
            other.bounded = seed % 2 == 0;
            let mut quick = Member::of(vec![fast(2000)]);
            quick.parallelism = parallelism;
            let (log, _) = run(seed, &[quick, other], true, &Snapshot::new(), None);
            let last = |split| log.iter().rposition(|(s, _)| *s == split).unwrap();
            (last(FAST), last(APART))
        };
        // It ends early.
        let (fast_end, slow_end) = case(slow(20, None), 2);
        assert!(slow_end < fast_end);
        // It is idle for an hour, and its strategy says that it does not count.
        let idle = Member { idleness: Some(MS * 50), ..slow(40, Some((20, long))) };
        let (fast_end, slow_end) = case(idle, 1);
        assert!(fast_end < slow_end, "the fast one does not wait for the idle one");
        // It has a split, and no record for an hour.
        let (fast_end, slow_end) = case(slow(5, Some((0, long))), 2);
        assert!(fast_end < slow_end, "the fast one does not wait for one that has begun nothing");
        // It has ended its split and waits for another one until the fast source has ended.
        case(Member { holds: true, parallelism: 2, ..slow(20, None) }, 3);
    });
}

#[test]
fn on_threads_too_a_source_stays_near_a_slow_one_of_its_group() {
    let slow = Kind { records: 200, pause: MS, stall: None };
    let away = |aligned| {
        let mut members = [Member::of(vec![fast(3000), fast(2000)]), Member::of(vec![slow])];
        members[0].parallelism = 2;
        members[0].every = 30 * MS;
        let log = Log::default();
        let env = thalweg_api::testing::environment(2, std::env::temp_dir()).unwrap();
        let out = program(&env, &members, aligned, &log);
        assert_eq!(counts(&env, &out).unwrap(), expected(&members));
        let log = log.lock();
        furthest(&log, &members, aligned)[0]
    };
    // Until the word is round that the slow one has begun, the fast one may have gone on by its drift a few times.
    let ahead = away(true);
    assert!(ahead <= 5 * bound(DRIFT), "{ahead} ms ahead");
    assert!(away(false) > 10 * bound(DRIFT), "without alignment it runs away");
}

/// Sources that are apart but for their groups: each is named, and has this group and slot-sharing group.
fn graph_of(mode: ExecutionMode, sources: &[(&str, &str, &str)]) -> JobGraph {
    let graph = taken::graph_of(mode, |env| {
        for (name, group, slots) in sources {
            let strategy = WatermarkStrategy::for_monotonous_timestamps().with_alignment(*group, MS, MS);
            let times = env.from_collection([1i64, 2]).uid(*name).slot_sharing_group(*slots);
            times.assign_timestamps_and_watermarks(|t| *t, strategy).discard();
        }
    });
    graph.unwrap()
}

#[test]
fn a_group_of_several_sources_is_a_vertex_between_their_coordinators() {
    let sources = [("a", "far", "x"), ("b", "alone", "y"), ("c", "far", "default")];
    let graph = graph_of(ExecutionMode::Streaming, &sources);
    let groups: Vec<_> = graph.vertices.iter().filter(|v| v.operators[0].kind == "watermark-alignment").collect();
    let [group] = groups[..] else { panic!("{groups:?}") };
    assert_eq!((group.operators[0].uid.as_str(), group.name().as_str()), ("a/alignment", "alignment of far"));
    // It takes no slot of its own.
    assert_eq!((group.role, group.parallelism), (VertexRole::Coordinator, 1));
    assert_eq!((group.slot_sharing_group.as_deref(), graph.slots()), (Some("x"), 6));
    let uid = |v: u32| graph.vertices[v as usize].operators[0].uid.as_str();
    let edges = graph.edges.iter().filter(|e| uid(e.from) == "a/alignment" || uid(e.to) == "a/alignment");
    // No barrier goes over them, and no end waits for them.
    let edges: Vec<_> = edges.map(|e| (uid(e.from), uid(e.to), e.feedback)).collect();
    let near = ["a/coordinator", "c/coordinator"];
    assert_eq!(edges, near.map(|c| [(c, "a/alignment", true), ("a/alignment", c, true)]).concat());
    // Those of a group fail together.
    let region = |name: &str| {
        let vertex = graph.vertices.iter().position(|v| v.operators[0].uid == name).unwrap() as u32;
        Regions::of(&graph).region(SubtaskId { vertex, index: 0 })
    };
    assert_eq!((region("a"), region("a")), (region("c"), region("a/alignment")));
    assert_ne!(region("a"), region("b"));
    assert_eq!(graph.diff(&graph_of(ExecutionMode::Streaming, &sources)), None);
    // Batch mode aligns nothing, and joins nothing.
    let batch = graph_of(ExecutionMode::Batch, &sources);
    assert!(batch.vertices.iter().all(|v| v.operators[0].kind != "watermark-alignment"));
    assert_eq!(Regions::of(&batch).count(), 3);
}
