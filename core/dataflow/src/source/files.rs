//! Which files a source reads, and how they are shared out: paths, folders and patterns become splits. What is in the
//! files is not looked at. What a file sink has not finished is none of a folder's files.

use super::{splits::Known, unpack::Packing};
use crate::{build::OpCx, sink::is_unfinished};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};
use thalweg_model::{FailureKind, TaskFailure};

/// Longest split, bytes.
const MAX_SPLIT: u64 = 16 << 20;
/// Shortest one, unless the file is shorter.
const MIN_SPLIT: u64 = 256 << 10;

/// Part of a file: the lines that begin in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    pub(super) path: PathBuf,
    pub(super) start: u64,
    pub(super) end: u64,
    /// `start` is where reading goes on, be it the beginning of a line or not.
    pub(super) exact: bool,
    /// The length of a compressed file. `start` and `end` count bytes of its text then.
    pub(super) packed: Option<u64>,
}

impl FileSplit {
    /// The end of a text whose length is not known.
    pub(super) const WHOLE: u64 = u64::MAX;

    fn bytes(&self) -> u64 {
        self.packed.unwrap_or(self.end - self.start)
    }
}

#[derive(Clone)]
pub(super) struct Files(pub(super) Vec<PathBuf>);

impl Files {
    pub(super) fn check(&self, client_dir: &Path) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.0.is_empty() {
            wrong.push("no input path was given: name a file or a folder".to_owned());
        }
        for path in &self.0 {
            let hint = if path.is_relative() { " (relative paths start in the client's folder)" } else { "" };
            match expand(client_dir, path) {
                Ok(all) => wrong.extend(all.iter().filter_map(|full| unreadable(full, hint))),
                Err(e) => wrong.push(format!("{e}{hint}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn splits(&self, cx: &OpCx) -> Result<Vec<FileSplit>, TaskFailure> {
        let mut files = Vec::new();
        for path in &self.0 {
            let all = expand(&cx.path(Path::new("")), path).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
            for full in all {
                let kind = std::fs::metadata(&full).map_err(|e| broken(&full, &e))?;
                if !kind.is_dir() && !kind.is_file() {
                    // Opening a pipe would wait for its other end.
                    let message = format!("input {} is neither a file nor a folder", full.display());
                    return Err(TaskFailure::new(FailureKind::User, message));
                }
                walk(&full, kind.is_dir(), &mut files)?;
            }
        }
        Ok(cut(files, cx.readers()))
    }

    pub(super) fn enumerator(&self, cx: &OpCx) -> Result<Known<FileSplit>, TaskFailure> {
        Known::open(cx, || self.splits(cx), FileSplit::bytes)
    }
}

/// What keeps a path from being read.
fn unreadable(full: &Path, hint: &str) -> Option<String> {
    match std::fs::metadata(full) {
        Ok(m) if m.is_file() => File::open(full).err().map(|e| format!("input {} cannot be read: {e}", full.display())),
        Ok(m) if m.is_dir() => {
            std::fs::read_dir(full).err().map(|e| format!("input folder {} cannot be read: {e}", full.display()))
        }
        Ok(_) => Some(format!("input {} is neither a file nor a folder", full.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Some(format!("input {} does not exist{hint}: check the path", full.display()))
        }
        Err(e) => Some(format!("input {} cannot be read: {e}", full.display())),
    }
}

fn has_signs(path: &[u8]) -> bool {
    path.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// The path itself, or what a pattern matches. A file whose name has the signs of a pattern is that file.
fn expand(base: &Path, path: &Path) -> Result<Vec<PathBuf>, String> {
    let full = base.join(path);
    if !has_signs(path.as_os_str().as_encoded_bytes()) || std::fs::symlink_metadata(&full).is_ok() {
        return Ok(vec![full]);
    }
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| format!("input pattern {} is not UTF-8: name the files instead", path.display()))
    };
    // The folder of the client is no part of the pattern, whatever its name.
    let pattern = if path.is_relative() {
        let base = PathBuf::from(glob::Pattern::escape(&text(base)?));
        text(&base.join(path))?
    } else {
        text(path)?
    };
    // Hidden files are matched where a part of the pattern begins with a dot, as a shell does it.
    let hidden = path.iter().any(|part| {
        let part = part.as_encoded_bytes();
        part.starts_with(b".") && has_signs(part)
    });
    let options = glob::MatchOptions { require_literal_leading_dot: !hidden, ..glob::MatchOptions::new() };
    let shown = full.display();
    let found = glob::glob_with(&pattern, options).map_err(|e| format!("input pattern {shown}: {e}"))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| format!("input pattern {shown}: {e}"))?;
    if found.is_empty() {
        return Err(format!("input pattern {shown} matches no file: check it, and that the files are there"));
    }
    Ok(found)
}

pub(super) fn broken(path: &Path, error: &io::Error) -> TaskFailure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => FailureKind::User,
        _ => FailureKind::Storage,
    };
    TaskFailure::new(kind, format!("input {}: {error}", path.display()))
}

fn walk(path: &Path, is_dir: bool, files: &mut Vec<(PathBuf, u64)>) -> Result<(), TaskFailure> {
    if is_dir {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = entries.map_err(|e| broken(path, &e))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            // The kind of the entry itself: a link is neither folder nor file here.
            let kind = entry.file_type().map_err(|e| broken(&entry.path(), &e))?;
            if (kind.is_dir() || kind.is_file()) && !is_unfinished(entry.file_name().as_encoded_bytes()) {
                walk(&entry.path(), kind.is_dir(), files)?;
            }
        }
        return Ok(());
    }
    let length = std::fs::metadata(path).map_err(|e| broken(path, &e))?.len();
    files.push((path.to_owned(), length));
    Ok(())
}

/// Cuts the files so that each reader has a few splits, if there is enough: a small input is shared out too, and a large
/// one has no more splits than are worth asking for. A compressed file can be read from its beginning only.
pub(super) fn cut(files: Vec<(PathBuf, u64)>, readers: u32) -> Vec<FileSplit> {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let size = (total / (4 * u64::from(readers.max(1)))).clamp(MIN_SPLIT, MAX_SPLIT);
    let mut splits = Vec::new();
    for (path, length) in files {
        if Packing::of(&path).is_some() {
            splits.push(FileSplit { path, start: 0, end: FileSplit::WHOLE, exact: true, packed: Some(length) });
            continue;
        }
        let mut start = 0;
        while start < length {
            // The last part takes a small rest along.
            let end = if length - start < size + size / 4 { length } else { start + size };
            splits.push(FileSplit { path: path.clone(), start, end, exact: false, packed: None });
            start = end;
        }
    }
    splits
}
