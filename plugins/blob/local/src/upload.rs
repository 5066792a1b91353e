//! A put in progress: a locked temporary file that is renamed, or removed when it is dropped.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use thalweg_env::Entropy;

/// Removes its file unless it was finished.
pub(crate) struct Upload {
    path: PathBuf,
    locked: File,
    finished: bool,
}

impl Upload {
    /// A fresh file in `dir`, locked.
    pub(crate) fn begin(dir: &Path, entropy: &dyn Entropy) -> io::Result<Self> {
        loop {
            let path = dir.join(format!("{:032x}", u128::from_le_bytes(entropy.id())));
            let locked = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            locked.lock()?;
            // Between creation and lock another process may have opened the store, taken the file for an abandoned one
            // and removed it.
            match std::fs::metadata(&path) {
                Ok(found) if found.ino() == locked.metadata()?.ino() => {
                    return Ok(Self { path, locked, finished: false });
                }
                _ => {}
            }
        }
    }

    /// The file, to write to. It shares the lock.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.locked.try_clone()
    }

    /// Gives the file its name.
    pub(crate) fn finish(mut self, name: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, name)?;
        self.finished = true;
        Ok(())
    }

    /// Removes the file when no live process has it locked; was it removed?
    pub(crate) fn remove_if_abandoned(path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        match file.try_lock() {
            Ok(()) => match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(true),
            },
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            // Left behind, it is removed when the store is opened next.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
