//! Files that come while a job runs: in steps drawn from a seed with checkpoints and restores at another parallelism,
//! and with real threads and clocks. `THALWEG_CASES=n` for more cases, `THALWEG_SEED=n` replays one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use thalweg_api::{
    Assignment, Enumerator, Source, TaskFailure, TextLines,
    prelude::*,
    testing::{self, Stepped},
};
use thalweg_dataflow::OpCx;
use thalweg_env::Env;
use thalweg_model::Moment;

/// A source that ends when it has had nothing for a while after the word.
#[derive(Clone)]
struct Until {
    inner: TextLines,
    word: Arc<AtomicBool>,
    rest: Duration,
}

struct UntilEnumerator {
    inner: <TextLines as Source>::Enumerator,
    word: Arc<AtomicBool>,
    rest: Duration,
    env: Env,
    since: Moment,
}

impl Source for Until {
    type Item = String;
    type Split = <TextLines as Source>::Split;
    type Enumerator = UntilEnumerator;
    type Reader = <TextLines as Source>::Reader;
    fn kind(&self) -> &'static str {
        "until-source"
    }
    fn is_bounded(&self) -> bool {
        true
    }
    fn check(&self, dir: &Path) -> Result<(), String> {
        assert!(!self.inner.is_bounded());
        self.inner.check(dir)
    }
    fn enumerator(&self, cx: &OpCx) -> Result<UntilEnumerator, TaskFailure> {
        let (word, env, rest) = (self.word.clone(), cx.env().clone(), self.rest);
        Ok(UntilEnumerator { inner: self.inner.enumerator(cx)?, word, rest, since: env.clock.now(), env })
    }
    fn reader(&self, cx: &OpCx) -> Result<Self::Reader, TaskFailure> {
        self.inner.reader(cx)
    }
}

impl Enumerator for UntilEnumerator {
    type Split = <TextLines as Source>::Split;
    fn next(&mut self, reader: u32) -> Result<Assignment<Self::Split>, TaskFailure> {
        let now = self.env.clock.now();
        let next = self.inner.next(reader)?;
        if !matches!(next, Assignment::Wait) || !self.word.load(Ordering::Relaxed) {
            self.since = now;
        } else if now.since(self.since) > self.rest {
            return Ok(Assignment::NoMore);
        }
        Ok(next)
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        self.inner.snapshot()
    }
}

fn seeds(default: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("THALWEG_SEED") {
        return vec![seed.parse().unwrap()];
    }
    (0..std::env::var("THALWEG_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)).collect()
}

/// File `i` of an inbox: where it is, and what is in it.
fn file(inbox: &Path, i: u64) -> (PathBuf, Vec<String>) {
    let folder = ["", "a", "a/b"][(i % 3) as usize];
    let ending = ["log", "log.gz", "log.zst"][(i / 3 % 3) as usize];
    let lines = (0..i * 7 % 40).map(|n| format!("{i} {n}")).collect();
    (inbox.join(folder).join(format!("{i}.{ending}")), lines)
}

/// Puts it there as one should: whole.
fn put(inbox: &Path, i: u64) {
    let (path, lines) = file(inbox, i);
    let text = lines.iter().map(|l| format!("{l}\n")).collect::<String>().into_bytes();
    let bytes = match path.extension().unwrap().to_str().unwrap() {
        "gz" => {
            let mut to = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            to.write_all(&text).unwrap();
            to.finish().unwrap()
        }
        "zst" => zstd::encode_all(&text[..], 1).unwrap(),
        _ => text,
    };
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let hidden = path.with_file_name(format!(".{i}"));
    std::fs::write(&hidden, bytes).unwrap();
    std::fs::rename(hidden, path).unwrap();
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Reads what is there and comes; every so many lines one more file comes, up to `last`.
fn inbox(env: &Environment, inbox: &Path, pattern: bool, last: u64) -> Result<Vec<String>, JobError> {
    env.mode(ExecutionMode::Streaming);
    let folder = inbox.to_owned();
    let missing = move || (0..last).find(|i| !file(&folder, *i).0.exists());
    let word = Arc::new(AtomicBool::new(missing().is_none()));
    let path = if pattern { inbox.join("**/*.log*") } else { inbox.to_owned() };
    let inner = TextLines::new([path]).monitor(Duration::from_secs(10));
    let source = env.source(Until { inner, word: word.clone(), rest: Duration::from_secs(100) }).uid("inbox");
    let folder = inbox.to_owned();
    let more = move |_: &String| {
        if let Some(next) = missing() {
            put(&folder, next);
            word.store(missing().is_none(), Ordering::Relaxed);
        }
    };
    let lines = source.inspect(more).rebalance().uid("dealt").collect().with_uid("out");
    let result = env.execute("inbox")?;
    Ok(sorted(result.collected(&lines)?))
}

#[test]
fn files_that_come_are_read_once_whatever_checkpoint_is_restored() {
    let mut complete = 0;
    for seed in seeds(60) {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let (first, last) = (random.random_range(2..6), random.random_range(6..30));
        (0..first).for_each(|i| put(dir.path(), i));
        // None of the output, in a folder that is looked through.
        std::fs::write(dir.path().join("_SUCCESS"), "no\n").unwrap();
        std::fs::write(dir.path().join(".part-0-0.log"), "no\n").unwrap();
        std::fs::create_dir_all(dir.path().join("_tmp")).unwrap();
        std::fs::write(dir.path().join("_tmp/x.log"), "no\n").unwrap();
        let expected = sorted((0..last).flat_map(|i| file(dir.path(), i).1).collect());
        let pattern = random.random();
        let mut from = Default::default();
        for attempt in 0..3 {
            let taken = Arc::default();
            let checkpoint_at = (attempt < 2).then(|| random.random_range(1..400));
            let steps = Stepped { seed: seed + attempt, from, checkpoint_at, taken: Arc::clone(&taken) };
            from = steps.from.clone();
            let env = steps.environment(random.random_range(1..4), dir.path()).unwrap();
            let got = inbox(&env, dir.path(), pattern, last);
            if let Some(snapshot) = taken.lock().unwrap().take() {
                (from, complete) = (snapshot, complete + 1);
                continue;
            }
            assert_eq!(got.unwrap_or_else(|e| panic!("THALWEG_SEED={seed}: {e}")), expected, "THALWEG_SEED={seed}");
            break;
        }
    }
    assert!(complete > 20 || seeds(60).len() < 50, "{complete} checkpoints");
}

#[test]
fn files_whose_names_are_not_utf_8_are_read_once_too_over_a_restore() {
    for monitored in [false, true] {
        let (dir, seed) = (tempfile::tempdir().unwrap(), 3);
        for i in 0..200u8 {
            let name = [b"caf\xe9-", i.to_string().as_bytes()].concat();
            std::fs::write(dir.path().join(OsStr::from_bytes(&name)), format!("{i}\n")).unwrap();
        }
        let read = |env: &Environment| {
            let lines = TextLines::new([dir.path()]);
            let stream = if monitored {
                let inner = lines.monitor(Duration::from_secs(10));
                let word = Arc::new(AtomicBool::new(true));
                env.source(Until { inner, word, rest: Duration::from_secs(100) }).uid("in").boxed()
            } else {
                env.source(lines).uid("in").boxed()
            };
            env.mode(ExecutionMode::Streaming);
            let numbers = stream.map(|l| l.parse::<u8>().unwrap()).rebalance().uid("dealt").collect().with_uid("out");
            let result = env.execute("names")?;
            result.collected(&numbers)
        };
        let mut named = 0;
        for checkpoint_at in (1..20).chain((20..400).step_by(20)) {
            let taken = Arc::default();
            let steps =
                Stepped { seed, checkpoint_at: Some(checkpoint_at), taken: Arc::clone(&taken), ..Stepped::default() };
            let _ = read(&steps.environment(2, dir.path()).unwrap());
            let Some(from) = taken.lock().unwrap().take() else { continue };
            named += from.values().filter(|state| state.windows(4).any(|w| w == b"caf\xe9")).count();
            let steps = Stepped { seed, from, ..Stepped::default() };
            let mut numbers = read(&steps.environment(3, dir.path()).unwrap()).unwrap();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "from {checkpoint_at}");
        }
        assert!(named > 0, "no snapshot has a name, monitored: {monitored}");
    }
}

/// Runs a job over an inbox in real time; `during` is told of the lines so far.
fn watched(dir: &Path, every: Duration, mut during: impl FnMut(&dyn Fn() -> Vec<String>) + Send) -> Vec<String> {
    let env = testing::environment(2, dir).unwrap();
    let (word, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(parking_lot::Mutex::new(vec![])));
    let until = Until { inner: TextLines::new(["in"]).monitor(every), word: word.clone(), rest: every * 4 };
    let gathered = lines.clone();
    env.source(until).for_each(move |line| gathered.lock().push(line));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&|| lines.lock().clone())));
            // Else the job would never end.
            word.store(true, Ordering::Relaxed);
            ended.unwrap();
        });
        env.execute("watched").unwrap();
    });
    let lines = lines.lock().clone();
    sorted(lines)
}

fn wait(until: impl Fn() -> bool) {
    for _ in 0..2000 {
        if until() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not come");
}

#[test]
fn a_file_is_read_when_it_rests_and_what_comes_later_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in");
    std::fs::create_dir_all(&path).unwrap();
    // Longer than the machine may have no time for whoever writes, or looks.
    let every = Duration::from_millis(1500);
    let lines = watched(dir.path(), every, |so_far| {
        let mut slow = std::fs::File::create(path.join("slow.txt")).unwrap();
        for i in 0..12 {
            write!(slow, "slow {i}").unwrap();
            std::thread::sleep(Duration::from_millis(60));
            writeln!(slow).unwrap();
        }
        wait(|| so_far().len() == 12);
        // The path is known by now.
        writeln!(slow, "too late").unwrap();
        std::thread::sleep(every * 4);
        // One that goes and comes again is a new one.
        std::fs::remove_file(path.join("slow.txt")).unwrap();
        std::thread::sleep(every * 3);
        std::fs::write(path.join("slow.txt"), "again\n").unwrap();
        wait(|| so_far().len() == 13);
    });
    let mut expected: Vec<String> = (0..12).map(|i| format!("slow {i}")).collect();
    expected.push("again".to_owned());
    assert_eq!(lines, sorted(expected), "no line is cut in two, or read twice");
}

#[test]
fn a_file_that_is_found_by_several_patterns_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("in/clicks")).unwrap();
    for (name, line) in [("top", "1\n"), ("clicks/a", "2\n")] {
        std::fs::write(dir.path().join("in").join(name), line).unwrap();
    }
    for paths in [&["in/**/*"][..], &["in/**"], &["in/top", "in", "./in/clicks/a"]] {
        let steps = Stepped { seed: 0, from: Default::default(), checkpoint_at: None, taken: Arc::default() };
        let env = steps.environment(2, dir.path()).unwrap();
        let (every, word) = (Duration::from_secs(10), Arc::new(AtomicBool::new(true)));
        let inner = TextLines::new(paths.iter().map(|path| dir.path().join(path))).monitor(every);
        let lines = env.mode(ExecutionMode::Streaming).source(Until { inner, word, rest: every * 10 }).collect();
        let result = env.execute("once").unwrap();
        assert_eq!(sorted(result.collected(&lines).unwrap()), ["1", "2"], "{paths:?}");
    }
}

#[test]
fn a_mistyped_path_is_told_and_a_pattern_may_match_later() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("in")).unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    for (path, every, expected) in [
        ("inn", 1, "inn does not exist"),
        ("inn/*.log", 1, "of pattern inn/*.log does not exist"),
        ("in", 0, "give an interval"),
    ] {
        env.monitor_text(path, Duration::from_secs(every)).discard();
        let error = env.execute("mistyped").unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let every = Duration::from_millis(50);
    let word = Arc::new(AtomicBool::new(true));
    let until = Until { inner: TextLines::new(["in/*.log"]).monitor(every), word, rest: every * 3 };
    env.source(until).discard();
    env.execute("nothing matches").unwrap();

    env.monitor_text("in", every).discard();
    env.mode(ExecutionMode::Batch);
    let error = env.execute("batch").unwrap_err().to_string();
    assert!(error.contains("batch mode needs sources that end"), "{error}");
}

#[test]
fn a_folder_that_goes_for_good_fails_the_job_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("in");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1"), "1\n").unwrap();
    let env = testing::environment(1, dir.path()).unwrap();
    let gone = folder.clone();
    let go = move |_: &String| std::fs::rename(&gone, gone.with_file_name("gone")).unwrap();
    env.monitor_text("in", Duration::from_millis(30)).inspect(go).discard();
    let error = env.execute("gone").unwrap_err().to_string();
    assert!(error.contains("/in") && error.contains("3 looks in a row"), "{error}");
}
