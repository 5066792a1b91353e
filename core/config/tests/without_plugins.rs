//! The core's options alone: layers, refusals and their words. No plugin is linked here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::path::PathBuf;
use thalweg_config::{Configuration, DEFAULTS, Source, Sources};
use thalweg_spi::RestartStrategy;

fn load(file: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Configuration, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("thalweg.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path),
        environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())),
        overrides: overrides.iter().map(|s| s.to_string()).collect(),
    };
    let place = format!("{}/", dir.path().display());
    Configuration::load(sources).map_err(|e| e.problems.iter().map(|p| p.to_string().replace(&place, "")).collect())
}

fn refused(file: &str) -> String {
    load(file, &[], &[]).unwrap_err().join("\n")
}

#[test]
fn the_defaults_are_whole_and_good() {
    let c = Configuration::with([] as [&str; 0]).unwrap();
    assert_eq!((c.rest.port, c.task_manager.slots, c.cluster.name.0.as_str()), (8081, 1, "default"));
    assert_eq!(c.heartbeat.timeout.to_string(), "50s");
    assert_eq!(c.restart.strategy(), RestartStrategy::ByKind);
    assert_eq!((c.plugin_name("shuffle"), c.plugin_name("deployment")), ("network", "session"));
    assert_eq!(c.job_manager.advertised(), "127.0.0.1");
}

#[test]
fn latency_markers_are_off_or_at_least_a_millisecond_apart() {
    assert!(load("", &[], &[]).unwrap().metrics.latency_interval.get().is_zero());
    assert_eq!(
        load("[metrics]\nlatency-interval = \"1ms\"", &[], &[]).unwrap().metrics.latency_interval.to_string(),
        "1ms"
    );
    assert!(refused("[metrics]\nlatency-interval = \"10us\"").contains("metrics.latency-interval"));
    assert!(refused("[metrics.latency]\ninterval = \"1s\"").contains("metrics.latency-interval"), "Flink's key");
}

#[test]
fn later_layers_win_and_are_remembered() {
    let file = "[rest]\nport = 1\nbind = \"localhost\"\n[task-manager]\nslots = 3\n";
    let environment = [("THALWEG__REST__PORT", "2"), ("THALWEG__TASK_MANAGER__SLOTS", "4"), ("THALWEG_CONF", "/x")];
    let c = load(file, &environment, &["rest.port=5", "-Dheartbeat.interval=1s"]).unwrap();
    assert_eq!((c.rest.port, c.task_manager.slots, c.rest.bind.as_str()), (5, 4, "localhost"));
    assert_eq!(c.heartbeat.interval.to_string(), "1s");
    assert_eq!(c.source_of("rest.port"), Some(&Source::Override("rest.port=5".into())));
    assert_eq!(c.source_of("task-manager.slots"), Some(&Source::Environment("THALWEG__TASK_MANAGER__SLOTS".into())));
    assert_eq!(c.source_of("rpc.timeout"), Some(&Source::Default));
}

#[test]
fn a_variable_with_too_few_underscores_is_told_of_and_kubernetes_is_left_alone() {
    let environment = [
        ("THALWEG_TASK_MANAGER_SLOTS", "4"),
        ("THALWEG_RESTART__TYPE", "none"),
        ("THALWEG_REST_PORT", "tcp://10.0.0.1:8081"),
        ("THALWEG_CONF", "/x"),
        ("REST_PORT", "1"),
        ("THALWEG__REST__PORT", "7"),
    ];
    let c = load("", &environment, &["rpc.timeout=3s"]).unwrap();
    let told = "the environment variable THALWEG_TASK_MANAGER_SLOTS is no option and has no effect: task-manager.slots is \
                set by THALWEG__TASK_MANAGER__SLOTS";
    let half = "the environment variable THALWEG_RESTART__TYPE is no option and has no effect: restart.type is set by \
                THALWEG__RESTART__TYPE";
    assert_eq!(c.advice(), [told, half]);
    assert_eq!((c.task_manager.slots, c.rest.port), (load("", &[], &[]).unwrap().task_manager.slots, 7));
    assert_eq!(c.set_below(&["rest", "rpc"]).collect::<Vec<_>>(), ["rest.port", "rpc.timeout"]);
    assert_eq!(c.set_below(&["heartbeat"]).next(), None);
}

#[test]
fn options_of_a_restart_strategy_that_was_not_chosen_are_told_of() {
    let c = load("[restart.fixed-delay]\nattempts = 7", &[], &["restart.failure-rate.delay=9s"]).unwrap();
    let told = |name| {
        format!(
            "restart.{name}.* has no effect while restart.type is another strategy: set restart.type = \"{name}\" too"
        )
    };
    assert_eq!(c.advice(), [told("fixed-delay"), told("failure-rate")]);
    let chosen = load("[restart.fixed-delay]\nattempts = 7", &[], &["restart.type=fixed-delay"]).unwrap();
    assert!(chosen.advice().is_empty(), "{:?}", chosen.advice());
    let as_it_is = load(&load("", &[], &[]).unwrap().effective_toml(), &[], &[]).unwrap();
    assert!(as_it_is.advice().is_empty(), "{:?}", as_it_is.advice());
}

#[test]
fn an_unknown_key_answers_the_nearest_one_and_where_it_stands() {
    assert_eq!(refused("[rest]\nprt = 1"), "rest.prt (thalweg.toml): unknown option; did you mean rest.port?");
    let from_env = load("", &[("THALWEG__REST__PRT", "1")], &["-Dresst.port=1"]).unwrap_err();
    assert_eq!(
        from_env[1],
        "rest.prt (environment variable THALWEG__REST__PRT): unknown option; did you mean rest.port?"
    );
    assert_eq!(from_env[0], "resst.port (-Dresst.port=1): unknown option; did you mean rest.port?");
    assert!(
        refused("[zoo]\nanimal = 1").contains("zoo.animal (thalweg.toml): unknown option; `thalweg config reference`")
    );
    assert!(refused("[zoo]").contains("zoo (thalweg.toml)"), "an empty section too");
    assert!(refused("[blob]\ndir = \"/x\"").contains("unknown option"));
}

#[test]
fn a_flink_key_answers_with_ours() {
    let wrong = refused("[taskmanager]\nnumberOfTaskSlots = 4\n[jobmanager.rpc]\nport = 1\n[parallelism]\ndefault = 2");
    for part in [
        "taskmanager.numberOfTaskSlots (thalweg.toml): is Flink's name; here it is task-manager.slots",
        "here it is job-manager.rpc-port",
        "here it is pipeline.parallelism",
    ] {
        assert!(wrong.contains(part), "{part} not in {wrong}");
    }
    assert!(refused("\"restart-strategy.type\" = \"none\"").contains("here it is restart.type"));
}

#[test]
fn values_that_cannot_be_are_refused_with_what_can() {
    let wrong = refused(
        "[heartbeat]\ninterval = 10\n[rest]\nport = 70000\nmax-body = \"64MB\"\n[task-manager]\nslots = 0\n\
         [log]\nformat = \"jsn\"\n[cluster]\nsingle-host = \"yes\"",
    );
    for part in [
        "heartbeat.interval (thalweg.toml): a duration needs a unit: write \"10ms\" or \"10s\" or \"10min\" instead of 10",
        "rest.port (thalweg.toml): 70000 is out of range: it is a number from 0 to 65535",
        "rest.max-body (thalweg.toml): \"64MB\" has an unknown unit \"MB\": a size takes B, KiB, MiB, GiB, TiB",
        "task-manager.slots (thalweg.toml): 0 is out of range: it is a number from 1 to 1024",
        "log.format (thalweg.toml): \"jsn\" is not one of \"text\" or \"json\"; did you mean \"json\"?",
        "cluster.single-host (thalweg.toml): \"yes\" is not a value for it: expected true or false",
    ] {
        assert!(wrong.contains(part), "{part} not in {wrong}");
    }
    assert_eq!(wrong.lines().count(), 6, "{wrong}");
    let text = load("", &[("THALWEG__HEARTBEAT__INTERVAL", "10")], &["rest.port=many"]).unwrap_err().join("\n");
    assert!(text.contains("\"10\" has no unit: write \"10ms\""), "{text}");
    assert!(text.contains("\"many\" is not a whole number from 0 to 65535"), "{text}");
}

#[test]
fn rules_between_options_hold() {
    let one = |file: &str, part: &str| {
        let wrong = refused(file);
        assert!(wrong.contains(part) && wrong.lines().count() == 1, "{part} not alone in {wrong}");
    };
    one(
        "[heartbeat]\ntimeout = \"10s\"",
        "heartbeat.timeout (thalweg.toml): 10s must be more than heartbeat.interval, which is 10s",
    );
    one("[registration]\nmax-timeout = \"1ms\"", "must be at least registration.initial-timeout");
    one("[rest]\nbind = \"0.0.0.0\"", "security.insecure = true");
    one("[cluster]\nname = \"a b\"", "1 to 63 letters");
    one("[rpc]\nmax-frame = \"1B\"", "1B is out of range: it is a size from 2MiB to 1GiB");
    one("[rpc]\ntimeout = \"0s\"", "at least 1ms");
    one("[task-manager]\nid = \"a/b\"", "1 to 128 letters");
    let open = load("[rest]\nbind = \"0.0.0.0\"\n[security]\ninsecure = true", &[], &[]);
    assert_eq!(open.unwrap().rest.bind, "0.0.0.0");
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_told_with_its_line() {
    assert!(
        refused("[rest]\nport = = 1").contains("thalweg.toml: line 2: not TOML"),
        "{}",
        refused("[rest]\nport = = 1")
    );
    let missing = Sources { file: Some(PathBuf::from("/no/such")), environment: std::iter::empty(), overrides: vec![] };
    let text = Configuration::load(missing).unwrap_err().to_string();
    assert!(text.contains("/no/such: cannot be read: No such file"), "{text}");
    assert!(load("", &[], &["rest.port"]).unwrap_err()[0].contains("write -Dkey.path=value"));
}

#[test]
fn the_restart_strategy_takes_its_own_options() {
    let c = Configuration::with(["restart.type=fixed-delay", "restart.fixed-delay.attempts=7"]).unwrap();
    let RestartStrategy::FixedDelay { attempts: 7, delay } = c.restart.strategy() else { panic!("{:?}", c.restart) };
    assert_eq!(delay.as_secs(), 1);
    let c = Configuration::with(["restart.type=exponential-delay", "restart.exponential-delay.multiplier=3"]).unwrap();
    assert!(matches!(c.restart.strategy(), RestartStrategy::ExponentialDelay { attempts: None, multiplier: 3.0, .. }));
}

#[test]
fn what_is_in_effect_reads_back_the_same() {
    let c = load("[task-manager]\nid = \"w1\"\n[log]\ndir = \"/var/log\"", &[], &["blob.type=elsewhere"]).unwrap();
    let again = load(&c.effective_toml(), &[], &[]).unwrap();
    assert_eq!(again.effective_toml(), c.effective_toml());
    assert_eq!((again.task_manager.id.as_deref(), again.plugin_name("blob")), (Some("w1"), "elsewhere"));
}

#[test]
fn default_toml_has_each_option_once_with_a_comment() {
    let reference = thalweg_config::reference();
    let rows = reference.lines().filter(|l| l.starts_with("| `"));
    let (mut section, mut comment, mut seen) = (String::new(), false, Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !key.contains(' ')
        {
            assert!(comment, "{section}.{key} has no comment above it");
            seen.push(format!("{section}.{key}"));
            comment = false;
        } else {
            comment = line.starts_with("# ");
        }
    }
    for row in rows {
        let key = row.split('`').nth(1).unwrap();
        assert!(seen.iter().any(|k| k == key), "{key} is not in conf/default.toml");
    }
    for (kind, key) in [("high-availability", "type"), ("deployment", "type")] {
        assert!(seen.contains(&format!("{kind}.{key}")));
    }
    assert!(
        reference
            .contains("| `rest.port` | `8081` | whole number from 0 to 65535 | Port of REST; 0 takes a free one. |")
    );
}

proptest::proptest! {
    #[test]
    fn no_file_makes_it_panic(text in "\\PC{0,200}") {
        let _ = load(&text, &[], &[]);
    }

    #[test]
    fn no_override_makes_it_panic(key in "[a-z.\\-=]{0,30}", value in "\\PC{0,20}") {
        let _ = load("", &[], &[&format!("{key}={value}")]);
    }
}
