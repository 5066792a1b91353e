//! The file sink under the control plane that jobs have everywhere: attempts that fail before one that does not, and a
//! job without an end that is cancelled.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use thalweg_api::{FileSink, RestartStrategy, RollingPolicy, Sequence};
use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_runtime::Environment;
use thalweg_shuffle_local as _;

/// Numbers in files that are finished, in order, and how many files are hidden.
fn output(folder: &Path) -> (Vec<u64>, usize) {
    let (mut numbers, mut hidden) = (Vec::new(), 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with('.') {
            hidden += 1;
            continue;
        }
        // One that is finished is whole.
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        numbers.extend(text.lines().map(|l| l.parse::<u64>().unwrap()));
    }
    numbers.sort_unstable();
    (numbers, hidden)
}

static FAILURES: AtomicU32 = AtomicU32::new(2);

/// Both in one test: the executes of a process are numbered on one thread.
#[test]
fn attempts_that_fail_leave_nothing_and_a_cancelled_job_leaves_what_it_wrote() {
    let dir = std::env::temp_dir().join(format!("thalweg-embedded-files-{}", std::process::id()));
    let env = Environment::new();
    env.parallelism(2);
    env.restart_strategy(RestartStrategy::FixedDelay { attempts: 3, delay: Duration::from_millis(10) });
    let fails = |n: u64| {
        let fail = n == 15_000 && FAILURES.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fail { Err("not yet") } else { Ok(n) }
    };
    let sink = FileSink::new(dir.join("ends")).rolling(RollingPolicy::default().max_bytes(5000));
    env.sequence(0..20_000).try_map(fails).write_files(sink);
    assert_eq!(env.execute("ends").unwrap().restarts(), 2);
    assert_eq!(output(&dir.join("ends")), ((0..20_000).collect(), 0));

    let folder = dir.join("endless");
    let sink = FileSink::new(&folder).rolling(RollingPolicy::default().max_bytes(1000));
    env.generate(Sequence::endless().rate(5000.0), |n| n).write_files(sink);
    let submitted = env.execute_async("endless");
    let watched = folder.clone();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let job = submitted.await.unwrap();
        for _ in 0..1000 {
            if output(&watched).0.len() > 2000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(output(&watched).0.len() > 2000, "nothing is shown while the job runs");
        job.cancel().await.unwrap();
        assert!(job.wait().await.unwrap_err().to_string().contains("cancel"));
    });
    let (numbers, hidden) = output(&folder);
    assert_eq!(hidden, 0);
    // Two readers, each with every second number; none is doubled.
    assert!(numbers.windows(2).all(|w| w[0] < w[1]));
    assert!(numbers[..2000].iter().copied().eq(0..2000));
    std::fs::remove_dir_all(dir).unwrap();
}
