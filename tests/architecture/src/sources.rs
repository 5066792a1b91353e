//! Rules of single source files.

use crate::workspace::Source;

/// Files that do not say in their first line what they are.
pub fn without_head(sources: &[Source]) -> Vec<String> {
    let silent = sources.iter().filter(|s| !s.text.starts_with("//! "));
    silent.map(|s| format!("{} does not open with `//!`: say what it is, and what it is not", s.path)).collect()
}

/// Is this a file in which decisions are made, and nothing else?
fn is_pure(path: &str) -> bool {
    let control_or_task = path.starts_with("core/control/src/") || path.starts_with("core/task/src/");
    control_or_task && (path.ends_with("/core.rs") || path.contains("/states/"))
}

/// Pure files that see the runtime or the outside world.
pub fn impure(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| is_pure(&s.path)) {
        for (at, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for banned in ["tokio", "thalweg_env"] {
                if has_word(code, banned) {
                    wrong.push(format!(
                        "{}:{} sees {banned}: a pure core is told time and chance",
                        source.path,
                        at + 1
                    ));
                }
            }
        }
    }
    wrong
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(part);
        let after = code[at + word.len()..].chars().next().is_some_and(part);
        !before && !after
    })
}

/// Manifests that do not take the workspace's lints.
pub fn without_lints(manifests: &[(String, String)]) -> Vec<String> {
    let takes = |text: &str| {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        table.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    };
    let wrong = manifests.iter().filter(|(_, text)| !takes(text));
    wrong.map(|(path, _)| format!("{path} does not take the workspace's lints: [lints] workspace = true")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        let files = [source("a.rs", "//! What it is.\n"), source("b.rs", "use x;\n"), source("c.rs", "// no\n")];
        let wrong = without_head(&files);
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].starts_with("b.rs"));
    }

    #[test]
    fn a_pure_core_that_sees_the_world_is_found() {
        let text = "//! x\n// tokio is not used\nuse tokio::sync;\nlet tokio_like = 1;\nthalweg_env::Clock";
        let wrong = |path: &str| impure(&[source(path, text)]).len();
        assert_eq!(wrong("core/control/src/dispatcher/core.rs"), 2);
        assert_eq!(wrong("core/control/src/job_master/states/created.rs"), 2);
        assert_eq!(wrong("core/task/src/slots/core.rs"), 2);
        assert_eq!(wrong("core/control/src/dispatcher/driver.rs"), 0);
        assert_eq!(wrong("core/rpc/src/core.rs"), 0);
    }

    #[test]
    fn a_manifest_without_the_lints_is_found() {
        let good = ("a".to_owned(), "[lints]\nworkspace = true".to_owned());
        let bad = ("b".to_owned(), "[lints]\nworkspace = false".to_owned());
        assert_eq!(without_lints(&[good, bad, ("c".into(), String::new())]).len(), 2);
    }
}
