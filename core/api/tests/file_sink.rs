//! Files that are rolled and put into buckets, in whole jobs: steps drawn from a seed with checkpoints and restores at
//! another parallelism, disks and folders that go wrong, and real threads. `THALWEG_CASES=n` for more cases,
//! `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thalweg_api::{
    Collected, FileSink, RollingPolicy, Sequence, Source, TaskFailure, TextOutput, TimeBuckets,
    prelude::*,
    testing::{self, Stepped},
};
use thalweg_dataflow::OpCx;

const NOTHING: [u64; 0] = [];
const NO_FILE: [PathBuf; 0] = [];

/// A sequence that ends, and does not say so.
#[derive(Clone)]
struct Endless(Sequence);

impl Source for Endless {
    type Item = u64;
    type Split = <Sequence as Source>::Split;
    type Enumerator = <Sequence as Source>::Enumerator;
    type Reader = <Sequence as Source>::Reader;
    fn kind(&self) -> &'static str {
        "endless-source"
    }
    fn is_bounded(&self) -> bool {
        false
    }
    fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
        self.0.enumerator(cx)
    }
    fn reader(&self, cx: &OpCx) -> Result<Self::Reader, TaskFailure> {
        self.0.reader(cx)
    }
}

/// A folder of memory where there is one: what a disk takes for making files safe is not tested here.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                all.insert(path.strip_prefix(folder).unwrap().to_owned(), text);
            }
        }
    }
    all
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

/// The numbers in all files that are finished, in order.
fn finished(folder: &Path) -> Vec<u64> {
    let all = files(folder);
    let texts = all.iter().filter(|(path, _)| !is_hidden(path)).map(|(_, text)| text);
    let mut numbers: Vec<u64> = texts.flat_map(|t| t.lines().map(|l| l.parse().unwrap()).collect::<Vec<_>>()).collect();
    numbers.sort_unstable();
    numbers
}

fn hidden(folder: &Path) -> Vec<PathBuf> {
    files(folder).into_keys().filter(|path| is_hidden(path)).collect()
}

fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

fn any_policy(random: &mut SmallRng) -> RollingPolicy {
    let time = |random: &mut SmallRng| {
        let ms = [1, 30, 500, 60_000][random.random_range(0..4)];
        (random.random_range(0..4) > 0).then_some(Duration::from_millis(ms))
    };
    let bytes = [1, 5, 64, 1000, 1 << 30][random.random_range(0..5)];
    RollingPolicy::default().max_bytes(bytes).max_age(time(random)).max_idle(time(random))
}

struct Case {
    n: u64,
    rate: Option<f64>,
    buckets: u64,
    max_open: usize,
    policy: RollingPolicy,
}

impl Case {
    fn any(random: &mut SmallRng) -> Self {
        Self {
            n: random.random_range(1..600),
            rate: (random.random_range(0..3) > 0).then(|| [10.0, 300.0, 5000.0][random.random_range(0..3)]),
            buckets: random.random_range(1..9),
            max_open: random.random_range(1..6),
            policy: any_policy(random),
        }
    }

    fn run(&self, env: &Environment, out: &Path, bounded: bool) -> Result<(), JobError> {
        env.mode(ExecutionMode::Streaming);
        let buckets = self.buckets;
        let sink = FileSink::new(out).rolling(self.policy).max_open(self.max_open).suffix(".txt");
        let sink = sink.buckets_by(move |n: &u64, _, to: &mut String| {
            // One of them is the folder itself.
            if !n.is_multiple_of(buckets) {
                to.push_str(["", "a", "b/c", "b/d"][(n % buckets % 4) as usize]);
                to.push_str(&(n % buckets).to_string());
            }
        });
        let mut numbers = Sequence::new(0..self.n);
        if let Some(rate) = self.rate {
            numbers = numbers.rate(rate);
        }
        let stream = if bounded {
            env.source(numbers).uid("numbers").boxed()
        } else {
            env.source(Endless(numbers)).uid("numbers").boxed()
        };
        stream.rebalance().uid("dealt").write_files(sink).uid("files");
        env.execute("files").map(|_| ())
    }
}

fn in_right_buckets(folder: &Path, buckets: u64) {
    for (path, text) in files(folder) {
        let bucket = path.parent().unwrap().to_str().unwrap();
        let digits = bucket.trim_start_matches(|c: char| !c.is_ascii_digit());
        for line in text.lines() {
            let expected = line.parse::<u64>().unwrap() % buckets;
            assert_eq!(digits.parse::<u64>().unwrap_or(0), expected, "{line} in {path:?}");
        }
    }
}

/// Runs a program into a folder, in up to so many attempts, each from the last checkpoint that was complete; all but the
/// last attempt end at a checkpoint. How many checkpoints there were, and how many files they had.
fn restored(
    seed: u64,
    random: &mut SmallRng,
    attempts: u64,
    folder: &Path,
    run: impl Fn(&Environment, &Path) -> Result<(), JobError>,
) -> (usize, usize) {
    let (mut complete, mut carried) = (0, 0);
    let out = folder.join("out");
    let mut from = Default::default();
    for attempt in 0..attempts {
        let taken = Arc::default();
        let checkpoint_at = (attempt + 1 < attempts).then(|| random.random_range(1..80));
        let steps = Stepped { seed: seed + attempt, from, checkpoint_at, taken: Arc::clone(&taken) };
        from = steps.from.clone();
        let env = steps.environment(random.random_range(1..5), folder).unwrap();
        let ended = run(&env, &out);
        drop(env);
        let Some(snapshot) = taken.lock().unwrap().take() else {
            ended.unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
            break;
        };
        assert_eq!(finished(&out), NOTHING, "THALWEG_SEED={seed}: published before the end");
        complete += 1;
        // At times the attempt is lost after the next one has begun from an older checkpoint.
        if random.random_range(0..4) > 0 {
            from = snapshot;
            carried += hidden(&out).len();
        }
    }
    assert_eq!(hidden(&out), NO_FILE, "THALWEG_SEED={seed}: left over");
    (complete, carried)
}

#[test]
fn a_checkpoint_at_any_moment_loses_and_doubles_nothing_in_what_is_published() {
    let (mut complete, mut carried) = (0, 0);
    for seed in seeds(120) {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = folder();
        let case = Case::any(&mut random);
        let counts = restored(seed, &mut random, 3, dir.path(), |env, out| case.run(env, out, true));
        (complete, carried) = (complete + counts.0, carried + counts.1);
        let out = dir.path().join("out");
        assert_eq!(finished(&out), (0..case.n).collect::<Vec<_>>(), "THALWEG_SEED={seed}");
        in_right_buckets(&out, case.buckets);
    }
    assert!(complete > 50 && carried > 200 || seeds(120).len() < 100, "{complete} checkpoints, {carried} files");
}

#[test]
fn a_job_without_an_end_shows_its_files_as_they_are_closed() {
    for seed in seeds(60) {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = folder();
        let env = testing::stepped(random.random_range(1..4), dir.path(), seed).unwrap();
        let case = Case::any(&mut random);
        let out = dir.path().join("out");
        case.run(&env, &out, false).unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}"));
        assert_eq!(finished(&out), (0..case.n).collect::<Vec<_>>(), "THALWEG_SEED={seed}");
        assert_eq!(hidden(&out), NO_FILE, "THALWEG_SEED={seed}");
        in_right_buckets(&out, case.buckets);
    }
}

/// Runs `0..n` at 10 a second through a sink without an end, and notes what is finished before each record.
fn seen_while_running(n: u64, policy: RollingPolicy, pause_at: u64) -> (Vec<usize>, usize) {
    let dir = folder();
    let out = dir.path().join("out");
    let env = testing::stepped(1, dir.path(), 3).unwrap();
    let numbers = Endless(Sequence::new(0..n).rate(10.0));
    // Records come ten a second, but none for a minute and a half before one of them.
    let wanted = move |i: &u64| *i < pause_at || *i >= pause_at + 900;
    let (folder, notes) = (out.clone(), Arc::new(parking_lot::Mutex::new(vec![])));
    let noted = notes.clone();
    let looked = move |_: &u64| {
        let now = finished(&folder).len();
        noted.lock().push(now);
    };
    env.source(numbers).filter(wanted).inspect(looked).write_files(FileSink::new(&out).rolling(policy));
    env.execute("seen").unwrap();
    let count = files(&out).len();
    let notes = notes.lock().clone();
    (notes, count)
}

#[test]
fn files_are_closed_by_age_and_by_inactivity_also_while_no_record_comes() {
    let policy = RollingPolicy::default().max_idle(None).max_age(Duration::from_secs(2));
    let (seen, count) = seen_while_running(100, policy, u64::MAX);
    // Two seconds are twenty records; the clock is looked at between batches.
    assert!((4..=6).contains(&count), "{count} files");
    for (i, seen) in seen.iter().enumerate() {
        assert!(i - seen <= 42, "{seen} of {i} records");
    }
    let policy = RollingPolicy::default().max_age(None).max_idle(Duration::from_secs(30));
    let (seen, count) = seen_while_running(1200, policy, 50);
    assert_eq!(count, 2, "one before the pause, one behind it");
    assert!(seen[..50].iter().all(|s| *s == 0), "{seen:?}");
    assert!(seen[50..].iter().all(|s| *s == 50), "the first one was finished in the pause: {seen:?}");
    let never = RollingPolicy::default().max_age(None).max_idle(None);
    assert_eq!(seen_while_running(1200, never, 50).1, 1);
}

#[test]
fn a_silent_socket_does_not_keep_a_file_from_being_finished() {
    use std::io::Write;
    let dir = folder();
    let out = dir.path().join("out");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let watched = out.clone();
    let server = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        socket.write_all(b"1\n2\n").unwrap();
        // Nothing wakes the job but its own wish.
        let finished_by_itself = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            finished(&watched) == [1, 2]
        });
        socket.write_all(b"3\n").unwrap();
        finished_by_itself
    });
    let env = testing::environment(2, dir.path()).unwrap();
    let policy = RollingPolicy::default().max_age(None).max_idle(Duration::from_millis(200));
    env.socket_text(address).rebalance().write_files(FileSink::new("out").rolling(policy));
    env.execute("silent").unwrap();
    assert!(server.join().unwrap(), "the file was never finished while the job ran");
    assert_eq!(finished(&out), [1, 2, 3]);
}

#[test]
fn buckets_by_event_time_are_of_the_records_and_bounded_in_number() {
    let dir = folder();
    let env = testing::environment(1, dir.path()).unwrap();
    let hour = 3_600_000;
    let times: Vec<i64> = (0..200).map(|i| i * hour / 2).collect();
    let timed = env
        .from_collection(times)
        .assign_timestamps_and_watermarks(|t: &i64| *t, WatermarkStrategy::for_monotonous_timestamps());
    timed.write_files(FileSink::new("out").buckets(TimeBuckets::by_event_time()).max_open(3));
    env.execute("hours").unwrap();
    let all = files(&dir.path().join("out"));
    assert_eq!(all.len(), 100);
    assert_eq!(all.keys().next().unwrap().parent().unwrap(), Path::new("1970-01-01--00"));
    assert!(all.values().all(|text| text.lines().count() == 2));

    env.from_collection([1]).write_files(FileSink::new("out").buckets(TimeBuckets::by_event_time()));
    let error = env.execute("untimed").unwrap_err().to_string();
    assert!(error.contains("file_sink.rs") && error.contains("assign_timestamps_and_watermarks"), "{error}");
}

#[test]
fn options_that_cannot_be_meant_are_told_before_the_job_runs() {
    let dir = folder();
    let env = testing::environment(1, dir.path()).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let policy = RollingPolicy::default();
    let sink = || FileSink::new("out");
    for (sink, expected) in [
        (FileSink::new("file"), "is a file: name a folder"),
        (sink().prefix("_tmp"), "are hidden"),
        (sink().prefix(""), "begins with something"),
        (sink().suffix("/csv"), "leave out slashes"),
        (sink().max_open(0), "max_open is 0"),
        (sink().rolling(policy.max_bytes(0)), "128 << 20 are 128 MiB"),
        (sink().rolling(policy.max_age(Duration::ZERO)), "pass None"),
    ] {
        env.sequence(0..1).write_files(sink);
        let error = env.execute("wrong").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    env.sequence(0..1).write_files(sink().buckets(TimeBuckets::by_processing_time().pattern("yyyy-mm-DD")));
    let error = env.execute("wrong").unwrap_err().to_string();
    assert!(error.contains("\"DD\" is unknown"), "{error}");
}

#[test]
fn what_goes_wrong_names_path_and_remedy() {
    let dir = folder();
    let out = dir.path().join("out");
    let env = testing::environment(1, dir.path()).unwrap();
    let small = || FileSink::new("out").rolling(RollingPolicy::default().max_bytes(1));

    env.sequence(0..1).write_files(small().buckets_by(|_: &u64, _, to: &mut String| to.push_str("../../etc")));
    let error = env.execute("out of it").unwrap_err().to_string();
    assert!(error.contains("\"../../etc\" cannot be a bucket"), "{error}");

    // The folder goes while the job writes.
    let (folder, go) = (out.clone(), dir.path().join("gone"));
    let vanish = move |n: &u64| {
        if *n == 500 {
            std::fs::rename(&folder, &go).unwrap();
        }
    };
    env.sequence(0..1000).inspect(vanish).write_files(small());
    let error = env.execute("vanishes").unwrap_err().to_string();
    assert!(error.contains("/out") && error.contains("see whether a disk was unmounted"), "{error}");
    assert!(!out.exists(), "it is not made again: that might be another disk");

    // Somebody takes a hidden file away before the end.
    let folder = out.clone();
    let steal = move |n: &u64| {
        if *n == 500 {
            std::fs::remove_file(folder.join(&hidden(&folder)[0])).unwrap();
        }
    };
    env.sequence(0..1000).inspect(steal).write_files(small());
    let error = env.execute("stolen").unwrap_err().to_string();
    assert!(error.contains("a hidden file in it, went away"), "{error}");

    // Somebody cuts one: the disk had promised more.
    std::fs::remove_dir_all(&out).unwrap();
    let folder = out.clone();
    let cut = move |n: &u64| {
        if *n == 500 {
            std::fs::write(folder.join(&hidden(&folder)[0]), "").unwrap();
        }
    };
    env.sequence(0..1000).inspect(cut).write_files(small());
    let error = env.execute("cut").unwrap_err().to_string();
    assert!(error.contains("has 0 bytes, and"), "{error}");
    assert_eq!(finished(&out), NOTHING);
}

#[test]
fn an_attempt_that_fails_leaves_nothing_where_it_is_written_again_and_all_where_it_is_not() {
    for bounded in [true, false] {
        let dir = folder();
        let env = testing::environment(2, dir.path()).unwrap();
        let numbers = Sequence::new(0..10_000).interleaved();
        let stream = if bounded { env.source(numbers).boxed() } else { env.source(Endless(numbers)).boxed() };
        let fails = |n: u64| if n < 9_000 { Ok(n) } else { Err("too many") };
        stream.try_map(fails).write_files(FileSink::new("out").rolling(RollingPolicy::default().max_bytes(1000)));
        let error = env.execute("fails").unwrap_err().to_string();
        assert!(error.contains("too many"), "{error}");
        let out = dir.path().join("out");
        assert_eq!(hidden(&out), NO_FILE);
        let shown = finished(&out);
        if bounded {
            assert_eq!(shown, NOTHING);
        } else {
            // Where the other subtask had come to is chance; none of its records is cut in two.
            assert!(shown.len() > 4_000 && shown.windows(2).all(|w| w[0] < w[1]), "{}", shown.len());
        }
    }
}

#[test]
fn runs_add_to_a_folder_and_sinks_of_one_job_may_share_it() {
    let dir = folder();
    for run in 0..3u64 {
        let env = testing::environment(3, dir.path()).unwrap();
        let [a, b] = env.sequence(run * 100..run * 100 + 100).rebalance().split();
        let sink = |prefix: &str| FileSink::new("out").prefix(prefix).rolling(RollingPolicy::default().max_bytes(20));
        a.filter(|n| n % 2 == 0).write_files(sink("even"));
        b.filter(|n| n % 2 == 1).write_files(sink("odd"));
        env.execute("adds").unwrap();
    }
    let out = dir.path().join("out");
    assert_eq!(finished(&out), (0..300).collect::<Vec<_>>());
    assert_eq!(hidden(&out), NO_FILE);
}

#[test]
fn a_folder_of_files_is_read_back_as_it_was_written_by_many_threads() {
    let dir = folder();
    let env = testing::environment(4, dir.path()).unwrap();
    let policy = RollingPolicy::default().max_bytes(100_000);
    let sink =
        FileSink::new("out").rolling(policy).suffix(".csv").lines(|n: &u64, to| to.extend(format!("{n};x").bytes()));
    env.sequence(0..200_000).rebalance().write_files(sink.buckets_by(|n: &u64, _, to: &mut String| {
        to.push_str(if n.is_multiple_of(3) { "three" } else { "other" });
    }));
    env.execute("write").unwrap();
    let files = files(&dir.path().join("out"));
    assert!(files.len() > 15 && files.values().all(|t| t.len() < 100_020), "{}", files.len());
    let back: Collected<u64> = env.read_text("out").map(|line| line.trim_end_matches(";x").parse().unwrap()).collect();
    // What a sink has not finished is not read.
    std::fs::write(dir.path().join("out/three/.part-0-0-0.csv.inprogress-0123456789abcdef"), "7;x\n").unwrap();
    let mut back = env.execute("read").unwrap().collected(&back).unwrap();
    back.sort_unstable();
    assert_eq!(back, (0..200_000).collect::<Vec<_>>());
}

#[test]
fn a_long_list_of_files_is_kept_beside_them() {
    let dir = folder();
    let env = testing::environment(1, dir.path()).unwrap();
    // Each has a name of more than 200 bytes, and the names are more than the records of the cluster should hold.
    let sink = FileSink::new("out")
        .rolling(RollingPolicy::default().max_bytes(1))
        .prefix("p".repeat(90))
        .suffix("s".repeat(90));
    env.sequence(0..1500).write_files(sink);
    env.execute("many").unwrap();
    let out = dir.path().join("out");
    assert_eq!(finished(&out), (0..1500).collect::<Vec<_>>());
    assert_eq!(hidden(&out), NO_FILE);
}

fn one_file_a_subtask(env: &Environment, numbers: Sequence, out: &Path) -> Result<(), JobError> {
    env.mode(ExecutionMode::Streaming);
    env.source(numbers).uid("numbers").rebalance().uid("dealt").write_text(out).uid("files");
    env.execute("files").map(|_| ())
}

#[test]
fn one_file_a_subtask_loses_and_doubles_nothing_over_restores_either() {
    let (mut complete, mut carried) = (0, 0);
    for seed in seeds(120) {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = folder();
        let n = random.random_range(1..600);
        let counts =
            restored(seed, &mut random, 4, dir.path(), |env, out| one_file_a_subtask(env, Sequence::new(0..n), out));
        (complete, carried) = (complete + counts.0, carried + counts.1);
        assert_eq!(finished(&dir.path().join("out")), (0..n).collect::<Vec<_>>(), "THALWEG_SEED={seed}");
    }
    assert!(complete > 50 && carried > 50 || seeds(120).len() < 100, "{complete} checkpoints, {carried} files");
}

#[test]
fn a_job_that_writes_into_the_folder_that_it_reads_does_not_read_what_an_attempt_left_there() {
    let mut left = 0;
    for checkpoint_at in 1..40 {
        let dir = folder();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("part-0"), (0..100).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
        for checkpoint_at in [Some(checkpoint_at), None] {
            // It begins again from nothing, though the files of the checkpoint are there.
            let steps = Stepped { seed: checkpoint_at.unwrap_or(0), checkpoint_at, ..Stepped::default() };
            let env = steps.environment(2, dir.path()).unwrap();
            env.mode(ExecutionMode::Streaming);
            env.read_text(&data).rebalance().write_text(TextOutput::new(&data).overwrite());
            let ended = env.execute("in its place");
            assert!(ended.is_ok() || checkpoint_at.is_some(), "{ended:?}");
            let unfinished = hidden(&data);
            left += unfinished.iter().filter(|path| std::fs::metadata(data.join(path)).unwrap().len() > 0).count();
        }
        assert_eq!(finished(&data), (0..100).collect::<Vec<_>>(), "checkpoint {checkpoint_at}");
        assert_eq!(hidden(&data), NO_FILE, "checkpoint {checkpoint_at}");
    }
    assert!(left > 0, "nothing was left over");
}

#[test]
fn an_attempt_that_fails_leaves_no_text_where_no_snapshot_names_it() {
    let dir = folder();
    let env = testing::environment(2, dir.path()).unwrap();
    let fails = |n: u64| if n < 190_000 { Ok(n) } else { Err("too many") };
    env.source(Sequence::new(0..200_000).interleaved()).try_map(fails).write_text("out");
    let error = env.execute("fails").unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
    assert_eq!(files(&dir.path().join("out")).len(), 0);
}

#[test]
fn a_job_goes_on_with_what_another_job_wrote_and_leaves_the_rest_of_it_alone() {
    let dir = folder();
    let out = dir.path().join("out");
    let run = |steps: Stepped| {
        one_file_a_subtask(&steps.environment(1, dir.path()).unwrap(), Sequence::new(0..600).rate(10.0), &out)
    };
    let taken = Arc::default();
    let _ = run(Stepped { seed: 1, checkpoint_at: Some(60), taken: Arc::clone(&taken), ..Stepped::default() });
    let mut from = taken.lock().unwrap().take().unwrap();
    // The job had another id.
    let [old] = &hidden(&out)[..] else { panic!("{:?}", hidden(&out)) };
    let old = old.to_str().unwrap();
    let (name, marker) = old.rsplit_once('-').unwrap();
    let other = "0123456789abcdef";
    assert!(old.starts_with(".part-0-") && marker.len() == other.len(), "{old}");
    let state = from.get_mut(&("files".to_owned(), 0)).unwrap();
    let at = state.windows(marker.len()).position(|w| w == marker.as_bytes()).unwrap();
    state[at..at + marker.len()].copy_from_slice(other.as_bytes());
    std::fs::rename(out.join(old), out.join(format!("{name}-{other}"))).unwrap();
    let rest = format!(".part-0-1-1.inprogress-{other}");
    std::fs::write(out.join(&rest), "of a later attempt of that job\n").unwrap();
    run(Stepped { seed: 2, from, ..Stepped::default() }).unwrap();
    assert_eq!(finished(&out), (0..600).collect::<Vec<_>>());
    assert_eq!(hidden(&out), [PathBuf::from(rest)]);
}

#[test]
fn a_snapshot_that_names_a_file_of_somebody_else_is_refused_and_the_file_left_as_it_is() {
    let case = Case { n: 600, rate: Some(10.0), buckets: 1, max_open: 1, policy: RollingPolicy::default() };
    type Run<'a> = &'a dyn Fn(&Environment, &Path) -> Result<(), JobError>;
    let sinks: [Run; 2] = [&|env, out| one_file_a_subtask(env, Sequence::new(0..600).rate(10.0), out), &|env, out| {
        case.run(env, out, true)
    }];
    for run in sinks {
        let dir = folder();
        let out = dir.path().join("out");
        let taken = Arc::default();
        let steps = Stepped { seed: 1, from: Default::default(), checkpoint_at: Some(60), taken: Arc::clone(&taken) };
        let _ = run(&steps.environment(1, dir.path()).unwrap(), &out);
        let mut from = taken.lock().unwrap().take().unwrap();
        let state = from.get_mut(&("files".to_owned(), 0)).unwrap();
        let name = b".part-";
        let at = state.windows(name.len()).position(|w| w == name).unwrap();
        let rest = state[at + name.len()..].iter().take_while(|b| b.is_ascii_graphic()).copied().collect::<Vec<u8>>();
        state[at..at + name.len()].copy_from_slice(b"../vic");
        let victim = dir.path().join(format!("vic{}", str::from_utf8(&rest).unwrap()));
        std::fs::write(&victim, "of somebody else, and longer than what the sink had written\n".repeat(1000)).unwrap();
        let steps = Stepped { seed: 2, from, checkpoint_at: None, taken: Arc::default() };
        let error = run(&steps.environment(1, dir.path()).unwrap(), &out).unwrap_err().to_string();
        assert!(error.contains("../vic") && error.contains("none of this sink"), "{error}");
        assert_eq!(std::fs::metadata(&victim).unwrap().len(), 60_000, "it was cut");
        assert_eq!(finished(&out), NOTHING);
    }
}
