//! Licences and crates that may be depended on: `deny.toml` has the lists, and this reads them.

use std::collections::BTreeSet;

/// The lists of `deny.toml`.
#[derive(Debug, Clone, Default)]
pub struct Lists {
    /// Licences that may be, by their SPDX names.
    pub allowed: BTreeSet<String>,
    /// Crates that may not be.
    pub banned: BTreeSet<String>,
}

/// Reads the lists.
pub fn lists(deny: &str) -> anyhow::Result<Lists> {
    let table: toml::Table = toml::from_str(deny)?;
    let list = |section: &str, key: &str| -> anyhow::Result<Vec<toml::Value>> {
        let list = table.get(section).and_then(|s| s.get(key)).and_then(toml::Value::as_array);
        list.cloned().ok_or_else(|| anyhow::anyhow!("deny.toml has no list [{section}] {key}"))
    };
    let text = |v: &toml::Value| v.as_str().or_else(|| v.get("crate")?.as_str()).map(str::to_owned);
    let allowed = list("licenses", "allow")?.iter().filter_map(text).collect();
    Ok(Lists { allowed, banned: list("bans", "deny")?.iter().filter_map(text).collect() })
}

/// Crates that are banned or whose licence leaves no choice that is allowed. `crates`: name, version, licence.
pub fn check(crates: &[(String, String, Option<String>)], lists: &Lists) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, version, licence) in crates {
        if lists.banned.contains(name) {
            wrong.push(format!("{name} {version} is banned by deny.toml"));
        }
        match licence {
            None => wrong.push(format!("{name} {version} names no licence")),
            Some(text) if !is_allowed(text, &lists.allowed) => {
                wrong.push(format!("{name} {version} is under {text:?}, which deny.toml does not allow"));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Does the expression leave a choice that is allowed? `OR` binds least; `/` is an old way to write it.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&tokens, &mut at, allowed) && at == tokens.len()
}

fn either(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut good = both(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        // Both sides are read, whatever the first one says.
        good |= both(tokens, at, allowed);
    }
    good
}

fn both(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut good = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(tokens, at, allowed);
    }
    good
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let good = either(tokens, at, allowed);
        let closed = tokens.get(*at) == Some(&")");
        *at += usize::from(closed);
        return good && closed;
    }
    let mut name = (*token).to_owned();
    if tokens.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", tokens.get(*at + 1).copied().unwrap_or_default());
        *at += 2;
    }
    allowed.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists_of_test() -> Lists {
        let deny = "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Unicode-3.0\", \"Apache-2.0 WITH LLVM-exception\"]\n\
                    [bans]\ndeny = [{ crate = \"sled\", reason = \"x\" }, \"bincode\"]";
        lists(deny).unwrap()
    }

    #[test]
    fn an_expression_must_leave_an_allowed_choice() {
        let allowed = lists_of_test().allowed;
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(is_allowed(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND GPL-3.0", "", "MIT MIT", "(MIT", "MIT WITH x"] {
            assert!(!is_allowed(bad, &allowed), "{bad}");
        }
    }

    #[test]
    fn a_banned_crate_and_one_without_a_licence_are_found() {
        let one = |name: &str, licence: Option<&str>| (name.to_owned(), "1".to_owned(), licence.map(str::to_owned));
        let wrong = check(&[one("sled", Some("MIT")), one("bincode", Some("MIT")), one("a", None)], &lists_of_test());
        assert_eq!(wrong.len(), 3);
        assert!(lists("[licenses]").is_err());
    }
}
