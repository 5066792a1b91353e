//! What a program calls its input: paths, and patterns of them, which are looked up here. Which files are read in folders
//! that they name is not known here.

use crate::sink::is_unfinished;
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

/// Does a part of the pattern that has signs begin with this one, as a dot? Hidden files are matched by such ones alone, as
/// in a shell.
fn names_all(path: &Path, sign: u8) -> bool {
    path.iter().map(OsStr::as_encoded_bytes).any(|part| part.first() == Some(&sign) && has_signs(part))
}

/// The same of the dot.
pub(super) fn names_hidden(path: &Path) -> bool {
    names_all(path, b'.')
}

/// Does something that begins with this sign lie between the folder above a pattern and what it matches, which the pattern
/// does not name?
pub(super) fn hides(path: &Path, folder: &Path, full: &Path, sign: u8) -> bool {
    let hidden =
        |part: &OsStr| part.as_encoded_bytes().first() == Some(&sign) && !path.iter().any(|named| named == part);
    !names_all(path, sign) && full.strip_prefix(folder).unwrap_or(full).iter().any(hidden)
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

/// What a pattern matches, but for what a file sink has not finished.
pub(super) fn matches(base: &Path, path: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("input pattern {}: {e}", path.display());
    let folder = above_pattern(base, path).unwrap_or_else(|| base.to_owned());
    let (only_folders, looked_for) = (is_all_below(path), pattern(base, path)?);
    // `.*` matches a folder itself and the one above it, too.
    let dots = |text: &[u8]| text.split(|b| *b == b'/').filter(|part| matches!(*part, [b'.'] | [b'.', b'.'])).count();
    let said = dots(looked_for.as_bytes());
    // Hidden names are left out here: the library's own option for it panics at a name that is not UTF-8.
    let found = glob::glob_with(&looked_for, glob::MatchOptions::new()).map_err(|e| wrong(&e))?;
    let mut all = Vec::new();
    for full in found {
        match full {
            // What cannot be looked into is nobody's matter where it is hidden.
            Err(e) if hides(path, &folder, e.path(), b'.') => {}
            Err(e) => return Err(wrong(&e)),
            Ok(full) => {
                let unfinished = full.file_name().is_some_and(|name| is_unfinished(name.as_encoded_bytes()));
                let elsewhere = dots(full.as_os_str().as_encoded_bytes()) > said;
                let hidden = unfinished || elsewhere || hides(path, &folder, &full, b'.');
                if !hidden && (!only_folders || full.is_dir()) {
                    all.push(full);
                }
            }
        }
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, os::unix::ffi::OsStrExt};

    #[test]
    fn hidden_unfinished_and_unreadable_names_are_passed_over_unless_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        for folder in ["in", "in/deep", "in/.git", "_raw", "_raw/in", ".set", "in/_old"] {
            fs::create_dir(base.join(folder)).unwrap();
        }
        // A name that is no text is nobody's input, and no reason to fail.
        for folder in ["in", "in/deep", "_raw/in"] {
            fs::write(base.join(folder).join(OsStr::from_bytes(b"caf\xe9.csv")), "x").unwrap();
        }
        fs::create_dir(base.join("in").join(OsStr::from_bytes(b"d\xe9"))).unwrap();
        let files = [
            "in/a.csv",
            "in/.b.csv",
            "in/_c.csv",
            "in/deep/d.csv",
            "in/.git/e.csv",
            "_raw/in/f.csv",
            "_raw/in/_g.csv",
            ".set/h.csv",
            "in/.part-0-1-0.inprogress-00ff",
            "in/_old/i.csv",
        ];
        files.iter().for_each(|file| fs::write(base.join(file), "x").unwrap());
        let found = |path: &str| -> BTreeSet<String> {
            let all = matches(base, Path::new(path)).unwrap();
            all.iter().map(|full| full.strip_prefix(base).unwrap().to_str().unwrap().to_owned()).collect()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(found("in/*.csv"), set(&["in/a.csv", "in/_c.csv"]));
        assert_eq!(found("in/**/*.csv"), set(&["in/a.csv", "in/_c.csv", "in/deep/d.csv", "in/_old/i.csv"]));
        assert_eq!(found("in/.*"), set(&["in/.b.csv", "in/.git"]), "and nothing that a sink has not finished");
        assert_eq!(found(".set/*.csv"), set(&[".set/h.csv"]));
        assert_eq!(found("*/.git/*.csv"), set(&["in/.git/e.csv"]));
        assert_eq!(found("in/**"), set(&["in"]));
        // Those with an underscore are left out where an input is looked at again and again.
        let rests = |path: &str| -> BTreeSet<String> {
            let path = Path::new(path);
            let folder = above_pattern(base, path).unwrap();
            let all = matches(base, path).unwrap().into_iter().filter(|full| !hides(path, &folder, full, b'_'));
            all.map(|full| full.strip_prefix(base).unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(rests("in/*.csv"), set(&["in/a.csv"]));
        assert_eq!(rests("_raw/in/*.csv"), set(&["_raw/in/f.csv"]), "the folder is named, and not the file");
        assert_eq!(rests("_raw/in/_*.csv"), set(&["_raw/in/_g.csv"]));
        assert_eq!(rests("in/*/*.csv"), set(&["in/deep/d.csv"]));
        assert_eq!(rests("*/_old/*.csv"), set(&["in/_old/i.csv"]));
    }
}
