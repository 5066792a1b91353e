//! Reads the workspace: its crates with their arrows, from `cargo metadata`, and its source files.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::path::{Path, PathBuf};

/// How a crate depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrow {
    /// For its users too.
    Normal,
    /// When it is built.
    Build,
    /// For its tests alone.
    Dev,
}

/// One crate of ours.
#[derive(Debug, Clone)]
pub struct Crate {
    /// `thalweg-model`.
    pub name: String,
    /// `core/model`.
    pub folder: String,
    /// Crates of ours that it depends on, by name.
    pub arrows: Vec<(String, Arrow)>,
}

/// The workspace's folder: this one's, or `THALWEG_ROOT` to look at another.
pub fn root() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("THALWEG_ROOT").map_or_else(own, PathBuf::from)
}

/// What cargo says of the workspace and of everything it depends on.
pub fn metadata() -> Result<Metadata> {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().context("cargo metadata")
}

/// The crates of the workspace.
pub fn crates(metadata: &Metadata) -> Result<Vec<Crate>> {
    let ours = metadata.workspace_packages();
    let names: Vec<_> = ours.iter().map(|p| p.name.to_string()).collect();
    ours.iter()
        .map(|package| {
            let folder = package.manifest_path.parent().context("a manifest is in a folder")?;
            let folder = folder.strip_prefix(&metadata.workspace_root)?.to_string();
            let arrow = |kind| match kind {
                DependencyKind::Development => Arrow::Dev,
                DependencyKind::Build => Arrow::Build,
                _ => Arrow::Normal,
            };
            let ours = package.dependencies.iter().filter(|d| names.contains(&d.name));
            let arrows = ours.map(|d| (d.name.clone(), arrow(d.kind))).collect();
            Ok(Crate { name: package.name.to_string(), folder, arrows })
        })
        .collect()
}

/// One source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Relative to the workspace.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// All Rust files of the workspace, without what was generated or built.
pub fn sources() -> Result<Vec<Source>> {
    let root = root();
    let mut found = Vec::new();
    for folder in ["core", "plugins", "deploy", "tests", "examples"] {
        walk(&root, &root.join(folder), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            walk(root, &path, found)?;
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            found.push(Source { path: path.strip_prefix(root)?.display().to_string(), text });
        }
    }
    Ok(())
}
