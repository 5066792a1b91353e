//! Which files a source reads, and how they are shared out: what paths and patterns name becomes splits. What is in the
//! files is not looked at. What a file sink has not finished is none of a folder's files.

use super::{
    Assignment, Enumerator,
    patterns::{above_pattern, expand, hides, hint, matches, names_hidden, pattern},
    splits::Known,
    unpack::Packing,
    watch::{Found, Stamp, Watching},
};
use crate::{build::OpCx, sink::is_unfinished};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};
use thalweg_model::{FailureKind, TaskFailure};

/// Longest split, bytes.
const MAX_SPLIT: u64 = 16 << 20;
/// Shortest one, unless the file is shorter.
const MIN_SPLIT: u64 = 256 << 10;

/// Part of a file: the lines that begin in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    #[serde(with = "super::path_bytes")]
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
pub(super) struct Files {
    pub(super) paths: Vec<PathBuf>,
    /// Looks for more so often, for ever.
    pub(super) every: Option<Duration>,
}

impl Files {
    pub(super) fn check(&self, client_dir: &Path) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.paths.is_empty() {
            wrong.push("no input path was given: name a file or a folder".to_owned());
        }
        if self.every == Some(Duration::ZERO) {
            wrong.push(
                "a monitored input is looked at again after no time at all: give an interval of some seconds"
                    .to_owned(),
            );
        }
        for path in &self.paths {
            if path.as_os_str().is_empty() {
                wrong.push("an input path is empty: name a file or a folder, `.` for the client's own".to_owned());
                continue;
            }
            let (hint, folder) = (&hint(path), above_pattern(client_dir, path));
            if folder.is_some()
                && let Err(e) = pattern(client_dir, path)
            {
                wrong.push(e);
                continue;
            }
            if self.every.is_some()
                && let Some(folder) = folder
            {
                // Its files may come later; the folder is looked for, since that is where a path is mistyped.
                let missing = || {
                    format!(
                        "input folder {} of pattern {} does not exist{hint}: check the path",
                        folder.display(),
                        path.display()
                    )
                };
                wrong.extend((!folder.is_dir()).then(missing));
                continue;
            }
            match expand(client_dir, path) {
                Ok(all) => wrong.extend(all.iter().filter_map(|full| unreadable(full, hint))),
                Err(e) => wrong.push(format!("{e}{hint}")),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn splits(&self, cx: &OpCx) -> Result<Vec<FileSplit>, TaskFailure> {
        let (base, mut files) = (cx.path(Path::new("")), Listed::default());
        for path in &self.paths {
            let all = expand(&base, path).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
            let hidden = above_pattern(&base, path).is_none() || names_hidden(path);
            for full in all {
                let kind = std::fs::metadata(&full).map_err(|e| broken(&full, &e))?;
                if !kind.is_dir() && !kind.is_file() {
                    // Opening a pipe would wait for its other end.
                    let message = format!("input {} is neither a file nor a folder", full.display());
                    return Err(TaskFailure::new(FailureKind::User, message));
                }
                files.walk(full, kind.is_dir(), hidden)?;
            }
        }
        Ok(cut(files.files, cx.readers()))
    }

    pub(super) fn enumerator(&self, cx: &OpCx) -> Result<FileEnumerator, TaskFailure> {
        Ok(match self.every {
            None => FileEnumerator::Once(Known::open(cx, || self.splits(cx), FileSplit::bytes)?),
            Some(every) => FileEnumerator::Again(Box::new(Watching::open(self, every, cx)?)),
        })
    }

    /// All files that are there now. Unlike a job that reads its input once, it takes a pattern that matches nothing
    /// for what it is, and passes over hidden files and those that vanish meanwhile.
    pub(super) fn look(&self, base: &Path) -> Result<Found, String> {
        let mut found = Found::new();
        for path in &self.paths {
            let Some(folder) = above_pattern(base, path) else {
                let full = base.join(path);
                let kind = std::fs::metadata(&full).map_err(|e| format!("input {}: {e}", full.display()))?;
                gather(full, kind.is_dir(), &mut found)?;
                continue;
            };
            if !folder.is_dir() {
                return Err(format!("input folder {} is gone", folder.display()));
            }
            // Hidden by what the pattern leaves open, and not by what it says.
            for full in matches(base, path)?.into_iter().filter(|full| !hides(path, &folder, full, b'_')) {
                let is_dir = full.is_dir();
                gather(full, is_dir, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// Deals files out: those that were there at the beginning, or more and more.
pub enum FileEnumerator {
    /// Then it ends.
    Once(Known<FileSplit>),
    /// It never ends.
    Again(Box<Watching>),
}

impl Enumerator for FileEnumerator {
    type Split = FileSplit;
    fn next(&mut self, reader: u32) -> Result<Assignment<FileSplit>, TaskFailure> {
        match self {
            Self::Once(known) => known.next(reader),
            Self::Again(watching) => watching.next(reader),
        }
    }
    fn total_bytes(&self) -> u64 {
        match self {
            Self::Once(known) => known.total_bytes(),
            Self::Again(watching) => watching.total_bytes(),
        }
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::Once(known) => known.snapshot(),
            Self::Again(watching) => watching.snapshot(),
        }
    }
}

/// Adds a file, or the files of a folder that are not hidden.
fn gather(path: PathBuf, is_dir: bool, found: &mut Found) -> Result<(), String> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    if !is_dir {
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => {
                let since = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let modified = since.map_or(0, |since| since.as_millis() as i64);
                found.insert(path, Stamp { length: meta.len(), modified });
            }
            // A pipe, which would wait for its other end.
            Ok(_) => {}
            Err(e) if gone(&e) => {}
            Err(e) => return Err(format!("input {}: {e}", path.display())),
        }
        return Ok(());
    }
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(e) if gone(&e) => return Ok(()),
        Err(e) => return Err(format!("input folder {}: {e}", path.display())),
    };
    for entry in entries {
        let entry = entry.map_err(|e| format!("input folder {}: {e}", path.display()))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".")
            || entry.file_name().as_encoded_bytes().starts_with(b"_");
        // Links within folders are not followed.
        if let Ok(kind) = entry.file_type()
            && !hidden
            && (kind.is_dir() || kind.is_file())
        {
            gather(entry.path(), kind.is_dir(), found)?;
        }
    }
    Ok(())
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

pub(super) fn broken(path: &Path, error: &io::Error) -> TaskFailure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => FailureKind::User,
        _ => FailureKind::Storage,
    };
    TaskFailure::new(kind, format!("input {}: {error}", path.display()))
}

/// Files and their lengths, in the order in which they were found. One that is found again, as by a pattern that
/// matches a folder and what is in it, stands there once.
#[derive(Default)]
struct Listed {
    files: Vec<(PathBuf, u64)>,
    found: HashSet<PathBuf>,
}

impl Listed {
    /// Adds a file, or all of a folder: `hidden` ones too.
    fn walk(&mut self, path: PathBuf, is_dir: bool, hidden: bool) -> Result<(), TaskFailure> {
        if is_dir {
            let entries = std::fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut entries = entries.map_err(|e| broken(&path, &e))?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                // The kind of the entry itself: a link is neither folder nor file here.
                let kind = entry.file_type().map_err(|e| broken(&entry.path(), &e))?;
                let name = entry.file_name();
                let name = name.as_encoded_bytes();
                let left_out = is_unfinished(name) || !hidden && name.starts_with(b".");
                if (kind.is_dir() || kind.is_file()) && !left_out {
                    self.walk(entry.path(), kind.is_dir(), hidden)?;
                }
            }
        } else if !self.found.contains(&path) {
            let length = std::fs::metadata(&path).map_err(|e| broken(&path, &e))?.len();
            self.files.push((path.clone(), length));
            self.found.insert(path);
        }
        Ok(())
    }
}

/// Cuts the files so that each reader has a few splits, if there is enough: a small input is shared out too, and a large
/// one has no more splits than are worth asking for. A compressed file can be read from its beginning only.
pub(super) fn cut(files: Vec<(PathBuf, u64)>, readers: u32) -> Vec<FileSplit> {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let size = (total / (4 * u64::from(readers.max(1)))).clamp(MIN_SPLIT, MAX_SPLIT);
    let mut splits = Vec::new();
    for (path, length) in files {
        // An empty one has no text, compressed or not.
        if length > 0 && Packing::of(&path).is_some() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    #[test]
    fn a_split_of_a_file_whose_name_is_not_utf_8_is_read_back() {
        let path = Path::new("/in").join(OsStr::from_bytes(b"caf\xe9.gz"));
        for split in cut(vec![(path, 7), ("größe".into(), 7)], 1) {
            let bytes = codec::encode(&split).unwrap();
            assert_eq!(codec::decode::<FileSplit>(&bytes).unwrap(), split);
        }
    }
}
