//! Each plugin's folder is linked and found by its name, and the generated reference is up to date.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::{collections::BTreeSet, path::Path};
use thalweg_bundle as _;
// Those of the feature `foreign`.
use thalweg_high_availability_etcd as _;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `kind/name` of each folder `plugins/<kind>/<name>`.
fn folders() -> BTreeSet<String> {
    let list = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect()
    };
    let plugins = root().join("plugins");
    let kinds = list(&plugins).into_iter().filter(|k| !["bundle", "support", "template"].contains(&k.as_str()));
    kinds.flat_map(|kind| list(&plugins.join(&kind)).into_iter().map(move |name| format!("{kind}/{name}"))).collect()
}

#[test]
fn each_plugin_folder_is_linked_and_found() {
    let linked: BTreeSet<_> = thalweg_config::plugins().iter().map(|p| format!("{}/{}", p.kind, p.name)).collect();
    assert_eq!(linked, folders());
}

#[test]
fn the_defaults_load_with_every_plugin_linked() {
    let c = thalweg_config::Configuration::with([] as [&str; 0]).unwrap();
    let again = tempfile(&c.effective_toml());
    assert_eq!(again.effective_toml(), c.effective_toml());
}

fn tempfile(text: &str) -> thalweg_config::Configuration {
    let path = std::env::temp_dir().join(format!("thalweg-bundle-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let sources =
        thalweg_config::Sources { file: Some(path.clone()), environment: std::iter::empty(), overrides: vec![] };
    let loaded = thalweg_config::Configuration::load(sources).unwrap();
    std::fs::remove_file(path).unwrap();
    loaded
}

#[test]
fn conf_reference_md_is_up_to_date() {
    let path = root().join("conf/reference.md");
    let text = thalweg_config::reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "conf/reference.md is stale: run UPDATE=1 cargo test -p thalweg-bundle");
}
