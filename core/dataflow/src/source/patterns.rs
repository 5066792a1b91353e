//! What a program calls its input: paths, and patterns of them, which are looked up here. Which files are read in folders
//! that they name is not known here.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

fn has_signs(path: &[u8]) -> bool {
    path.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// The folder in which all that a pattern matches lies; `None` for a path that is none. A file whose name has the
/// signs of a pattern is that file.
pub(super) fn above_pattern(base: &Path, path: &Path) -> Option<PathBuf> {
    let full = base.join(path);
    if !has_signs(path.as_os_str().as_encoded_bytes()) || std::fs::symlink_metadata(&full).is_ok() {
        return None;
    }
    let fixed: PathBuf = path.iter().take_while(|part| !has_signs(part.as_encoded_bytes())).collect();
    Some(base.join(fixed))
}

/// The path itself, or what a pattern matches: something.
pub(super) fn expand(base: &Path, path: &Path) -> Result<Vec<PathBuf>, String> {
    if above_pattern(base, path).is_none() {
        return Ok(vec![base.join(path)]);
    }
    let found = matches(base, path)?;
    if found.is_empty() {
        let shown = base.join(path);
        return Err(format!(
            "input pattern {} matches no file: check it, and that the files are there",
            shown.display()
        ));
    }
    Ok(found)
}

/// Does a part of the pattern begin with a dot? Hidden files are matched by such ones alone, as in a shell.
pub(super) fn names_hidden(path: &Path) -> bool {
    path.iter().any(|part| {
        let part = part.as_encoded_bytes();
        part.starts_with(b".") && has_signs(part)
    })
}

/// Does it end in `**`?
fn is_all_below(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new("**"))
}

/// A pattern as it is looked for, or what is wrong with it.
pub(super) fn pattern(base: &Path, path: &Path) -> Result<String, String> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| format!("input pattern {} is not UTF-8: name the files instead", path.display()))
    };
    // Without the client's folder, since a mistake is told by its place in what was written.
    glob::Pattern::new(&text(path)?).map_err(|e| format!("input pattern {}: {e}", path.display()))?;
    // What ends in `**` is looked for as the folders before it: they are read as those that are named, without following
    // links, of which some lead in circles.
    let path = path.ancestors().find(|folder| !is_all_below(folder)).unwrap_or(path);
    // The folder of the client is no part of the pattern, whatever its name.
    if path.is_relative() {
        let base = PathBuf::from(glob::Pattern::escape(&text(base)?));
        return text(&base.join(path));
    }
    text(path)
}

/// What a pattern matches.
pub(super) fn matches(base: &Path, path: &Path) -> Result<Vec<PathBuf>, String> {
    let options = glob::MatchOptions { require_literal_leading_dot: !names_hidden(path), ..glob::MatchOptions::new() };
    let wrong = |e: &dyn std::fmt::Display| format!("input pattern {}: {e}", path.display());
    let found = glob::glob_with(&pattern(base, path)?, options).map_err(|e| wrong(&e))?;
    let mut found = found.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
    if is_all_below(path) {
        found.retain(|full| full.is_dir());
    }
    Ok(found)
}

/// What is said of a path that is not there: what its author may have meant.
pub(super) fn hint(path: &Path) -> String {
    let text = path.to_string_lossy();
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "file" => format!(" (paths are no URLs: write {rest})"),
            _ => " (paths are no URLs: name files of this machine, such as /data/in)".to_owned(),
        };
    }
    if text == "~" || text.starts_with("~/") {
        return " (`~` is known to shells alone: write the whole path)".to_owned();
    }
    if text.contains('{') && text.contains('}') {
        return " (patterns have no braces: give read_texts a path for each)".to_owned();
    }
    if path.is_relative() { " (relative paths start in the client's folder)".to_owned() } else { String::new() }
}
