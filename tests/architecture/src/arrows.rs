//! Which crate may look at which: the table of the design, by folder.

use crate::workspace::{Arrow, Crate};
use std::collections::BTreeMap;

/// What a crate of `core` may depend on, by the names of their folders.
const CORE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("env", &["model"]),
    ("derive", &["model"]),
    ("spi", &["model", "env", "wire"]),
    ("config", &["spi", "model"]),
    ("rpc", &["spi", "env", "wire", "model"]),
    ("dataflow", &["spi", "env", "wire", "model", "derive"]),
    ("control", &["rpc", "config", "spi", "env", "wire", "model"]),
    ("task", &["dataflow", "rpc", "config", "spi", "env", "wire", "model"]),
    ("api", &["dataflow", "model", "wire", "derive"]),
    ("runtime", &["control", "task", "api", "dataflow", "rpc", "config", "spi", "env", "wire", "derive", "model"]),
    ("testkit", &["spi", "env", "wire", "model", "dataflow"]),
];

/// What a plugin may depend on in `core`, and for its tests.
const PLUGIN: &[&str] = &["spi", "model", "env"];
const PLUGIN_TESTS: &[&str] = &["spi", "model", "env", "testkit", "wire"];

/// All arrows that the table does not have.
pub fn check(crates: &[Crate]) -> Vec<String> {
    let folders: BTreeMap<_, _> = crates.iter().map(|c| (c.name.as_str(), c.folder.as_str())).collect();
    let mut wrong = Vec::new();
    for from in crates {
        if !is_known(&from.folder) {
            wrong.push(format!("{} ({}) is in no layer of the design", from.name, from.folder));
            continue;
        }
        for (to, arrow) in &from.arrows {
            let Some(folder) = folders.get(to.as_str()) else { continue };
            if !allowed(&from.folder, folder, *arrow) {
                wrong.push(format!("{} ({}) may not look at {to} ({folder}, {arrow:?})", from.name, from.folder));
            }
        }
    }
    wrong
}

fn is_known(folder: &str) -> bool {
    match folder.split_once('/') {
        Some(("core", name)) => CORE.iter().any(|(known, _)| *known == name),
        Some(("plugins" | "deploy" | "tests" | "examples", _)) => true,
        _ => folder == "examples",
    }
}

fn allowed(from: &str, to: &str, arrow: Arrow) -> bool {
    let to_core = to.strip_prefix("core/");
    let dev = arrow == Arrow::Dev;
    match from.split_once('/') {
        Some(("core", name)) => match to_core {
            Some(to) => {
                // Tests may look sideways: at derive macros, at the suites.
                let listed = CORE.iter().any(|(known, may)| *known == name && may.contains(&to));
                listed || (dev && !matches!((name, to), ("control", "dataflow" | "task" | "api") | ("task", "control")))
            }
            // The whole world is put together in the tests of `runtime`, and nowhere else in core.
            None => dev && name == "runtime" && to.starts_with("plugins/"),
        },
        Some(("plugins", "bundle")) => to.starts_with("plugins/") || (dev && to == "core/config"),
        Some(("plugins", _)) => match to_core {
            Some(to) => PLUGIN.contains(&to) || (dev && PLUGIN_TESTS.contains(&to)),
            None => to.starts_with("plugins/support/"),
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(folder: &str, arrows: &[(&str, Arrow)]) -> Crate {
        let name = format!("thalweg-{}", folder.replace('/', "-"));
        let arrow = |(to, kind): &(&str, Arrow)| (format!("thalweg-{}", to.replace('/', "-")), *kind);
        Crate { name, folder: folder.into(), arrows: arrows.iter().map(arrow).collect() }
    }

    fn wrong(from: &str, to: &str, arrow: Arrow) -> usize {
        check(&[one(from, &[(to, arrow)]), one(to, &[])]).len()
    }

    #[test]
    fn arrows_of_the_table_are_allowed_and_all_others_are_not() {
        use Arrow::{Build, Dev, Normal};
        for (from, to, arrow) in [
            ("core/spi", "core/model", Normal),
            ("core/task", "core/dataflow", Normal),
            ("core/runtime", "core/control", Normal),
            ("core/runtime", "plugins/blob/local", Dev),
            ("core/dataflow", "core/testkit", Dev),
            ("plugins/blob/local", "core/spi", Normal),
            ("plugins/blob/local", "core/testkit", Dev),
            ("plugins/resource-provider/yarn", "plugins/support/hadoop-rpc", Normal),
            ("plugins/bundle", "plugins/blob/local", Normal),
            ("deploy/cli", "plugins/bundle", Normal),
        ] {
            assert_eq!(wrong(from, to, arrow), 0, "{from} to {to}");
        }
        for (from, to, arrow) in [
            ("core/model", "core/env", Normal),
            ("core/control", "core/dataflow", Normal),
            ("core/control", "core/dataflow", Dev),
            ("core/task", "core/control", Normal),
            ("core/runtime", "plugins/blob/local", Normal),
            ("core/config", "plugins/blob/local", Dev),
            ("core/config", "core/wire", Build),
            ("core/spi", "deploy/cli", Dev),
            ("plugins/blob/local", "core/config", Normal),
            ("plugins/blob/local", "core/testkit", Normal),
            ("plugins/blob/local", "plugins/shuffle/local", Normal),
        ] {
            assert_eq!(wrong(from, to, arrow), 1, "{from} to {to}");
        }
        assert!(check(&[one("core/utils", &[])])[0].contains("in no layer"));
    }
}
