//! One file of a file sink, from its first byte under a hidden name to its final name. Which records go into it, and
//! when it is full, is the writer's business.

use crate::sink::hidden::discard;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};
use thalweg_model::{FailureKind, Moment, TaskFailure};

/// Bytes that a part gathers before it writes them.
pub(super) const BUFFER: usize = 64 << 10;

/// A file that is closed, safe on disk and still hidden; or in a snapshot one that is written to, cut there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// Path of its folder within the sink's.
    pub(super) bucket: String,
    pub(super) hidden: String,
    pub(super) name: String,
    /// All bytes behind it are none of the output.
    pub(super) length: u64,
}

impl Part {
    pub(super) fn hidden_path(&self, root: &Path) -> PathBuf {
        root.join(&self.bucket).join(&self.hidden)
    }

    /// A name that a manifest or a snapshot may have: it cannot lead out of the folder.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '\0']);
        super::bucket::unfit(&self.bucket).is_none()
            && plain(&self.hidden)
            && self.hidden.starts_with('.')
            && plain(&self.name)
            && !self.name.starts_with('.')
    }

    /// Cuts the hidden file to its length. `false` when it has its final name already.
    pub(super) fn settle(&self, root: &Path) -> Result<bool, TaskFailure> {
        let path = self.hidden_path(root);
        let file = match File::options().write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound && root.join(&self.bucket).join(&self.name).is_file() => {
                return Ok(false);
            }
            Err(e) => return Err(broken(&path, &e)),
        };
        let length = file.metadata().map_err(|e| broken(&path, &e))?.len();
        if length < self.length {
            let message = format!(
                "output {} has {length} bytes, and {} of it were safe on disk: leave a job's files as they are while \
                 it runs, and look at the disk",
                path.display(),
                self.length
            );
            return Err(TaskFailure::new(FailureKind::Storage, message));
        }
        if length > self.length {
            let cut = file.set_len(self.length).and_then(|()| file.sync_all());
            cut.map_err(|e| broken(&path, &e))?;
        }
        Ok(true)
    }

    /// Gives it its final name, which changes nothing when it has it. The folder has yet to be synced.
    pub(super) fn finish(&self, root: &Path) -> Result<(), TaskFailure> {
        if self.settle(root)? {
            let (from, to) = (self.hidden_path(root), root.join(&self.bucket).join(&self.name));
            fs::rename(&from, &to).map_err(|e| broken(&from, &e))?;
        }
        Ok(())
    }

    /// Nobody wants it any more.
    pub(super) fn discard(&self, root: &Path) {
        discard(&self.hidden_path(root));
    }
}

/// Makes a folder's entries safe.
pub(super) fn sync_folder(folder: &Path) -> Result<(), TaskFailure> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| broken(folder, &e))
}

/// A failure to write, and what to do about it.
pub(super) fn broken(path: &Path, error: &io::Error) -> TaskFailure {
    let (kind, remedy) = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (FailureKind::Storage, ": make room there, or write to another folder")
        }
        ErrorKind::NotFound => (
            FailureKind::Storage,
            ": the folder, or a hidden file in it, went away while the job wrote there; leave both as they are until \
             it ends, and see whether a disk was unmounted",
        ),
        ErrorKind::PermissionDenied => (FailureKind::User, ": whoever runs the job must be allowed to write there"),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            (FailureKind::User, ": name a folder that can be written to")
        }
        _ => (FailureKind::Storage, ""),
    };
    TaskFailure::new(kind, format!("output {}: {error}{remedy}", path.display()))
}

/// A file that is written to.
pub(super) struct OpenPart {
    /// Its length counts what has been written.
    pub(super) part: Part,
    file: File,
    path: PathBuf,
    /// Bytes that have yet to be written.
    pub(super) buffer: Vec<u8>,
    /// So many of them are whole records.
    pub(super) whole: usize,
    pub(super) opened: Moment,
    /// When a record came last, some hundred records too early at most.
    pub(super) touched: Moment,
    /// Rises whenever records turn to another part.
    pub(super) used: u64,
    /// A snapshot names it.
    pub(super) kept: bool,
}

impl OpenPart {
    /// Makes the file; `None` when its name is taken.
    pub(super) fn create(root: &Path, part: Part, now: Moment) -> Result<Option<Self>, TaskFailure> {
        let path = part.hidden_path(root);
        let make = || File::options().write(true).create_new(true).open(&path);
        let file = match make() {
            // The first file of a bucket. The sink's own folder is not made again: where a disk was unmounted the
            // output would go to another one.
            Err(e) if e.kind() == ErrorKind::NotFound && root.is_dir() => {
                let folder = root.join(&part.bucket);
                fs::create_dir_all(&folder).map_err(|e| broken(&folder, &e))?;
                for above in folder.ancestors().skip(1).take_while(|f| f.starts_with(root)) {
                    sync_folder(above)?;
                }
                make()
            }
            made => made,
        };
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(None),
            Err(e) => return Err(broken(&path, &e)),
        };
        if fs::symlink_metadata(root.join(&part.bucket).join(&part.name)).is_ok() {
            part.discard(root);
            return Ok(None);
        }
        let buffer = Vec::new();
        Ok(Some(Self { part, file, path, buffer, whole: 0, opened: now, touched: now, used: 0, kept: false }))
    }

    /// Bytes of all whole records in it.
    #[inline(always)]
    pub(super) fn length(&self) -> u64 {
        self.part.length + self.whole as u64
    }

    /// Writes what has been gathered.
    pub(super) fn send(&mut self) -> Result<(), TaskFailure> {
        self.file.write_all(&self.buffer[..self.whole]).map_err(|e| broken(&self.path, &e))?;
        self.part.length += self.whole as u64;
        self.buffer.clear();
        self.whole = 0;
        Ok(())
    }

    /// All that was written so far is safe.
    pub(super) fn sync(&mut self) -> Result<(), TaskFailure> {
        self.send()?;
        self.file.sync_all().map_err(|e| broken(&self.path, &e))
    }

    /// Saves what it can after a failure: whole records that could be written. `false` when there is none.
    pub(super) fn salvage(&mut self) -> bool {
        let saved = self.send().is_ok() || self.file.set_len(self.part.length).is_ok();
        saved && self.part.length > 0 && self.file.sync_all().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        for (kind, expected, failure) in [
            (ErrorKind::StorageFull, "make room there", FailureKind::Storage),
            (ErrorKind::QuotaExceeded, "make room there", FailureKind::Storage),
            (ErrorKind::NotFound, "unmounted", FailureKind::Storage),
            (ErrorKind::PermissionDenied, "allowed to write", FailureKind::User),
            (ErrorKind::ReadOnlyFilesystem, "name a folder", FailureKind::User),
            (ErrorKind::Other, "output /a/b", FailureKind::Storage),
        ] {
            let got = broken(Path::new("/a/b"), &kind.into());
            assert!(got.message.contains(expected) && got.message.contains("/a/b"), "{got:?}");
            assert_eq!(got.kind, failure);
        }
    }

    #[test]
    fn names_of_a_manifest_stay_in_the_folder() {
        let part = |bucket: &str, hidden: &str, name: &str| Part {
            bucket: bucket.into(),
            hidden: hidden.into(),
            name: name.into(),
            length: 0,
        };
        assert!(part("a/b", ".x", "x").is_plain());
        for bad in [
            part("..", ".x", "x"),
            part("", "x", "x"),
            part("", ".x", ".x"),
            part("", ".x", "a/x"),
            part("", ".x/y", "x"),
        ] {
            assert!(!bad.is_plain(), "{bad:?}");
        }
    }

    #[test]
    fn finishing_twice_changes_nothing_and_what_was_added_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part { bucket: "a/b".into(), hidden: ".x".into(), name: "x".into(), length: 2 };
        let mut open = OpenPart::create(dir.path(), part, Moment::default()).unwrap().unwrap();
        open.buffer.extend(b"1\n2\nhalf a lin");
        (open.part.length, open.whole) = (0, 4);
        open.sync().unwrap();
        let mut part = open.part.clone();
        assert_eq!(part.length, 4);
        assert!(OpenPart::create(dir.path(), part.clone(), Moment::default()).unwrap().is_none(), "the name is taken");
        // One that believes that it is still its file.
        open.buffer.extend(b"late");
        open.whole = 4;
        open.send().unwrap();
        part.finish(dir.path()).unwrap();
        part.finish(dir.path()).unwrap();
        let path = dir.path().join("a/b/x");
        assert_eq!(std::fs::read(&path).unwrap(), b"1\n2\n");
        assert!(OpenPart::create(dir.path(), part.clone(), Moment::default()).unwrap().is_none(), "this one too");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // The file is shorter than was promised.
        std::fs::write(part.hidden_path(dir.path()), "1").unwrap();
        part.length = 2;
        let error = part.finish(dir.path()).unwrap_err().message;
        assert!(error.contains("has 1 bytes, and 2 of it were safe"), "{error}");
    }
}
