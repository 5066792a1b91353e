//! What a job author gets with `cargo add thalweg`: few crates, and none that needs a foreign tool to build.

use anyhow::{Context, Result};
use std::{collections::BTreeSet, process::Command};

/// More crates than this in the facade's normal dependency tree are too many.
pub const MOST: usize = 200;
/// Parts of names of crates that do not belong into a job.
const FOREIGN: &[&str] = &[
    "prost-build",
    "protobuf-src",
    "protobuf-codegen",
    "tonic",
    "etcd-client",
    "kube",
    "k8s-openapi",
    "hdfs-native",
    "openssl-sys",
    "rocksdb",
    "librocksdb-sys",
    "rdkafka",
];

/// The crates in a package's normal dependency tree, itself included; `None` when there is no such package.
pub fn tree(package: &str) -> Result<Option<BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", package];
    let output =
        Command::new(cargo).args(arguments).current_dir(crate::workspace::root()).output().context("cargo tree")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // Not there yet is fine.
        return if text.contains("did not match any packages") {
            Ok(None)
        } else {
            anyhow::bail!("cargo tree: {text}")
        };
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `name v1.2.3 (path) (*)`: one name in two versions is two crates to build.
    let names =
        text.lines().filter_map(|l| l.split_once(" v").map(|(n, v)| (n, v.split(' ').next().unwrap_or_default())));
    Ok(Some(names.map(|(name, version)| format!("{name} {version}")).collect()))
}

/// What is wrong with such a tree.
pub fn check(tree: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    if tree.len() >= MOST {
        wrong.push(format!("the facade has {} crates in its tree, and should have fewer than {MOST}", tree.len()));
    }
    let name = |entry: &str| entry.split(' ').next().unwrap_or_default().to_owned();
    for entry in tree {
        if FOREIGN.iter().any(|f| name(entry) == *f || name(entry).starts_with(&format!("{f}-"))) {
            wrong.push(format!("the facade drags {entry} in, which does not belong into a job"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_crates_and_foreign_ones_are_found() {
        let few = BTreeSet::from(["tokio 1.0".to_owned(), "kubernetes-names 1.0".to_owned()]);
        assert_eq!(check(&few), Vec::<String>::new());
        let many: BTreeSet<_> = (0..MOST).map(|n| format!("c{n} 1.0")).collect();
        assert!(check(&many)[0].contains("200 crates"));
        let foreign =
            BTreeSet::from(["kube 1.0".to_owned(), "kube-client 1.0".to_owned(), "prost-build 0.1".to_owned()]);
        assert_eq!(check(&foreign).len(), 3);
    }
}
