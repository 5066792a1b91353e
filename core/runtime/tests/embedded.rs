//! Programs that run embedded: by the same control plane as on a cluster, over the in-memory transport.

#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_runtime::Environment;
use thalweg_shuffle_local as _;

/// All in one test: the executes of a process are numbered on one thread.
#[test]
fn embedded_programs_run_fail_and_follow_each_other() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    let env = Environment::new();
    env.parallelism(3);
    let words = ["to", "be", "or", "not", "to", "be"].map(str::to_owned);
    let counts = env.from_collection(words).key_by(|w: &String| w.clone()).count().collect();
    let result = env.execute("words").unwrap();
    let mut counted = result.collected(&counts).unwrap();
    counted.sort();
    let expected = [("be", 2), ("not", 1), ("or", 1), ("to", 2)].map(|(w, n)| (w.to_owned(), n));
    assert_eq!(counted, expected);
    assert_eq!(result.restarts(), 0);

    let sum =
        env.sequence(0..1000).map(|n| n * 2).filter(|n| n % 3 == 0).key_by(|n: &u64| n % 7).sum(|n: u64| n).collect();
    let total: u64 = env.execute("sums").unwrap().collected(&sum).unwrap().into_iter().map(|(_, s)| s).sum();
    assert_eq!(total, (0..1000).map(|n| n * 2).filter(|n| n % 3 == 0).sum::<u64>());

    env.sequence(0..10).map(|n| if n == 7 { panic!("seven is not wanted") } else { n }).discard();
    let error = env.execute("panics").unwrap_err().to_string();
    assert!(error.contains("seven is not wanted"), "{error}");

    let dir = tempfile_dir();
    env.sequence(0..100).map(|n| n.to_string()).write_text(dir.join("out"));
    env.execute("files").unwrap();
    let mut lines: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(dir.join("out")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.file_name().unwrap().to_string_lossy().starts_with("part-"), "{path:?}");
        lines.extend(std::fs::read_to_string(path).unwrap().lines().map(|l| l.parse::<u64>().unwrap()));
    }
    lines.sort();
    assert_eq!(lines, (0..100).collect::<Vec<_>>());
    env.sequence(0..1).map(|n| n.to_string()).write_text(dir.join("out"));
    let refused = env.execute("files again").unwrap_err().to_string();
    assert!(refused.contains("not empty"), "{refused}");
    std::fs::remove_dir_all(dir).unwrap();
}

fn tempfile_dir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("thalweg-embedded-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}
