//! The rules, applied to this workspace.

#![allow(clippy::unwrap_used, reason = "test code")]

use thalweg_architecture_tests::{
    arrows, facade, licences, plugins, sources,
    workspace::{self, Crate},
};

/// Fails with all that is wrong, a line each.
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn crates() -> Vec<Crate> {
    workspace::crates(&workspace::metadata().unwrap()).unwrap()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(workspace::root().join(path)).unwrap()
}

#[test]
fn crates_look_only_where_the_design_lets_them() {
    none(arrows::check(&crates()));
}

#[test]
fn each_plugin_is_named_in_the_bundle() {
    none(plugins::unbundled(&crates(), &text("plugins/bundle/Cargo.toml"), &text("plugins/bundle/src/lib.rs")));
}

#[test]
fn each_plugin_runs_the_suite_of_its_kind() {
    none(plugins::without_suite(&crates(), &workspace::sources().unwrap()));
}

#[test]
fn pure_cores_see_neither_runtime_nor_world() {
    none(sources::impure(&workspace::sources().unwrap()));
}

#[test]
fn each_source_file_says_what_it_is() {
    none(sources::without_head(&workspace::sources().unwrap()));
}

#[test]
fn each_crate_takes_the_lints() {
    let manifest = |c: &Crate| {
        let path = format!("{}/Cargo.toml", c.folder);
        (path.clone(), text(&path))
    };
    none(sources::without_lints(&crates().iter().map(manifest).collect::<Vec<_>>()));
}

#[test]
fn the_facade_is_small_and_needs_no_foreign_tool() {
    match facade::tree("thalweg").unwrap() {
        Some(tree) => {
            println!("the facade has {} crates in its tree", tree.len());
            none(facade::check(&tree));
        }
        None => println!("there is no facade yet"),
    }
}

#[test]
fn licences_and_crates_are_allowed() {
    let metadata = workspace::metadata().unwrap();
    let all = metadata.packages.iter().map(|p| (p.name.to_string(), p.version.to_string(), p.license.clone()));
    none(licences::check(&all.collect::<Vec<_>>(), &licences::lists(&text("deny.toml")).unwrap()));
}
