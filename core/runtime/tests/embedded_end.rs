//! What an embedded job leaves in the folder for temporary files: nothing, however its process ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

mod waits;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};
use thalweg_api::Sequence;
use thalweg_blob_local as _;
use thalweg_deployment_session as _;
use thalweg_high_availability_standalone as _;
use thalweg_runtime::Environment;
use thalweg_shuffle_local as _;
use waits::eventually;

const HOW: &str = "THALWEG_TEST_END";

/// Is the process that the test starts, with what it shall do; else nothing.
#[test]
fn the_other_process() {
    let Ok(how) = std::env::var(HOW) else { return };
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let env = Environment::new();
    env.parallelism(2);
    if how == "never" {
        env.generate(Sequence::endless().rate(1000.0), |n| n).key_by(|n| n % 7).count().discard();
        env.execute("endless").unwrap();
    }
    env.sequence(0..100).uid("numbers").key_by(|n| n % 7).count().uid("counts").discard();
    env.execute("short").unwrap();
    if how == "exit" {
        std::process::exit(3);
    }
}

fn start(how: &str, temporary: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["the_other_process", "--exact"]).env(HOW, how).env("TMPDIR", temporary);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn folders(temporary: &Path) -> usize {
    std::fs::read_dir(temporary).unwrap().count()
}

#[test]
fn an_embedded_job_leaves_no_folder() {
    let dir = std::env::temp_dir().join(format!("thalweg-embedded-end-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();

    for _ in 0..20 {
        let output = start("return", &dir).wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(folders(&dir), 0, "after its main returned");
        // What is still being done when a program ends is no fault.
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    assert_eq!(start("exit", &dir).wait().unwrap().code(), Some(3));
    assert_eq!(folders(&dir), 0, "after exit");

    // One that is killed can remove nothing; the next does, and leaves alone what belongs to one that runs.
    let mut killed = start("never", &dir);
    eventually("a folder", || folders(&dir) == 1);
    let mut runs = start("never", &dir);
    eventually("two folders", || folders(&dir) == 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually("swept by the next", || {
        assert!(start("return", &dir).wait().unwrap().success());
        folders(&dir) == 1
    });
    assert!(runs.try_wait().unwrap().is_none());
    runs.kill().unwrap();
    runs.wait().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}
