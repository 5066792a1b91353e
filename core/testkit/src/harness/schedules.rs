//! Many seeds, one after the other and on several threads; the first that fails is printed with its seed first.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Why a schedule is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The invariant's name.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.seen)
    }
}

/// Which seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Schedules {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// On so many threads; each schedule is on one.
    pub threads: usize,
}

impl Schedules {
    /// Seeds from 0; `THALWEG_SCHEDULES` says how many, `THALWEG_SEED` that it is one alone.
    pub fn from_env(count: u64) -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        match number("THALWEG_SEED") {
            Some(first) => Self { first, count: 1, threads: 1 },
            None => Self { first: 0, count: number("THALWEG_SCHEDULES").unwrap_or(count), threads },
        }
    }

    /// Runs them until one fails. Answers what each gave, in no order, or the lowest seed that was seen to fail.
    pub fn run<R: Send>(&self, schedule: impl Fn(u64) -> Result<R, Failure> + Sync) -> Result<Vec<R>, (u64, Failure)> {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (results, failed) = (Mutex::new(Vec::new()), Mutex::new(None::<(u64, Failure)>));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.count {
                            break;
                        }
                        let seed = self.first + at;
                        match guarded(seed, &schedule) {
                            Ok(result) => mine.push(result),
                            Err(failure) => {
                                stop.store(true, Ordering::Relaxed);
                                let mut failed = failed.lock().unwrap();
                                if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                                    *failed = Some((seed, failure));
                                }
                            }
                        }
                    }
                    results.lock().unwrap().append(&mut mine);
                });
            }
        });
        match failed.into_inner().unwrap() {
            Some(failure) => Err(failure),
            None => Ok(results.into_inner().unwrap()),
        }
    }
}

/// A panic of a node is a failure of its schedule.
fn guarded<R>(seed: u64, schedule: impl Fn(u64) -> Result<R, Failure>) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(|| schedule(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Failure { invariant: "no panic", seen: text.unwrap_or_else(|| "a node panicked".into()) })
    })
}
