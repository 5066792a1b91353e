//! The mistakes that job authors make with types: the compiler's answer says what to do. Each file of `mistakes` is one, and
//! names what it expects of the answer; how the compiler words the rest is left to the compiler.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The newest build of this crate in the folder that this test was built into.
fn library(deps: &Path) -> PathBuf {
    let files = fs::read_dir(deps).unwrap().map(|f| f.unwrap().path());
    let mut libraries: Vec<PathBuf> = files
        .filter(|f| {
            let name = f.file_name().unwrap().to_string_lossy();
            name.starts_with("libthalweg_api-") && name.ends_with(".rlib")
        })
        .collect();
    libraries.sort_by_key(|f| fs::metadata(f).unwrap().modified().unwrap());
    libraries.pop().unwrap_or_else(|| panic!("{} has no build of this crate", deps.display()))
}

/// What the compiler says of a program, or `None` where it has nothing to say.
fn answer(program: &Path, out: &Path) -> Option<String> {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    // The compiler that goes with the cargo that runs the test.
    let cargo = std::env::var_os("CARGO").map(PathBuf::from);
    let rustc = cargo.map(|c| c.with_file_name("rustc")).filter(|r| r.is_file()).unwrap_or_else(|| "rustc".into());
    let run = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "-Adead_code", "--out-dir"])
        .arg(out)
        .arg("--extern")
        .arg(format!("thalweg_api={}", library(deps).display()))
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg(program)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    (!run.status.success()).then_some(said)
}

#[test]
fn mistakes_with_types_are_answered_with_what_to_do() {
    let out = tempfile::tempdir().unwrap();
    let right = out.path().join("right.rs");
    // What is combined before it leaves needs neither serde nor clones.
    let program = "use thalweg_api::prelude::*;\n\
        pub struct Plain { user: u64 }\n\
        pub fn program(env: &Environment) {\n\
            env.sequence(0..10).key_by(|n| n % 2).count().discard();\n\
            let plain = env.sequence(0..10).map(|user| Plain { user });\n\
            let plain = plain.assign_timestamps_and_watermarks(|_| 0, WatermarkStrategy::for_monotonous_timestamps());\n\
            let windows = TumblingEventTimeWindows::of(std::time::Duration::from_millis(10));\n\
            plain.key_by(|p| p.user).window(windows).count().discard();\n\
        }\n\
        // All kinds of windows and triggers that there are need the prelude alone.\n\
        pub fn windows(env: &Environment) {\n\
            let ms = std::time::Duration::from_millis(10);\n\
            let keyed = || env.sequence(0..10).key_by(|n| n % 2);\n\
            keyed().window(TumblingProcessingTimeWindows::of(ms)).trigger(ProcessingTimeTrigger).count().discard();\n\
            keyed().window(SlidingProcessingTimeWindows::of(ms, ms)).trigger(CountTrigger::of(2)).count().discard();\n\
            let often = ContinuousProcessingTimeTrigger::of(ms);\n\
            keyed().window(ProcessingTimeSessionWindows::with_gap(ms)).trigger(often).count().discard();\n\
            let often = PurgingTrigger::of(ContinuousEventTimeTrigger::of(ms));\n\
            keyed().window(GlobalWindows).trigger(often).count().discard();\n\
            let own = CustomWindows::of(EventTimeSessionWindows::with_gap(ms));\n\
            keyed().window(own).trigger(EventTimeTrigger).count().discard();\n\
            keyed().window(SlidingEventTimeWindows::of(ms, ms)).count().discard();\n\
        }\n";
    fs::write(&right, program).unwrap();
    assert_eq!(answer(&right, out.path()), None, "a program without a mistake must compile");

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let mut wrong = Vec::new();
    for file in fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("//! expects: ")).collect();
        assert!(!expected.is_empty(), "{name} expects nothing");
        match answer(&file, out.path()) {
            None => wrong.push(format!("{name} compiles")),
            Some(said) => {
                let missing = expected.iter().filter(|e| !said.contains(**e));
                wrong.extend(missing.map(|e| format!("{name}: `{e}` is not in the answer:\n{said}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
