//! A folder for the temporary files of a cluster within this process, which is gone when its owner or the process has
//! ended, in whatever way: by itself where the process ends in order, else by the next process that makes one beside
//! it. No folder of a cluster of processes, which outlives them.

use parking_lot::Mutex;
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Once,
};
use tempfile::TempDir;

const PREFIX: &str = "thalweg-embedded-";

/// Locked as long as the folder's process lives. The lock ends with the process, however it ends.
const ALIVE: &str = "alive";

/// Folders to be removed when this process ends: what a static holds is not dropped then. With the process that made
/// each, since a child that was forked and no other program ends with this list too.
static AT_EXIT: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

/// See the module.
pub struct OwnFolder {
    dir: PathBuf,
    _alive: File,
}

impl OwnFolder {
    /// Makes one in `parent`.
    pub fn make(parent: &Path) -> io::Result<Self> {
        let for_us_alone = fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix(PREFIX).permissions(for_us_alone).tempdir_in(parent)?;
        let alive = locked(&dir)?;
        let dir = dir.keep();
        remove_at_exit(&dir);
        Ok(Self { dir, _alive: alive })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        AT_EXIT.lock().retain(|(_, dir)| *dir != self.dir);
        remove(&self.dir);
    }
}

/// The file is locked before it has its name, so that nobody sees it unlocked while its process lives.
fn locked(dir: &TempDir) -> io::Result<File> {
    let unnamed = dir.path().join("starting");
    let file = File::create(&unnamed)?;
    file.try_lock().map_err(io::Error::from)?;
    fs::rename(unnamed, dir.path().join(ALIVE))?;
    Ok(file)
}

/// Removes those folders in `parent` whose processes ended without doing so, by a signal for example. It says nothing of
/// what it could not remove: that is not the matter of whoever runs a job now.
pub fn sweep(parent: &Path) {
    let ours = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let dir = entry.path();
        let own = |at: fs::Metadata| at.is_dir() && at.uid() == ours;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.metadata().is_ok_and(own) && abandoned(&dir)
        {
            remove(&dir);
        }
    }
}

/// One that has no such file yet is being made.
fn abandoned(dir: &Path) -> bool {
    match File::open(dir.join(ALIVE)).map(|file| file.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) | Err(_) => false,
    }
}

/// Removes all in the folder, `ALIVE` last: what is cut off here is done by the next sweep.
fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() != ALIVE {
            let _ = if entry.file_type().is_ok_and(|t| t.is_dir()) {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
        }
    }
    let _ = fs::remove_dir_all(dir);
}

#[allow(unsafe_code)]
fn remove_at_exit(dir: &Path) {
    extern "C" fn at_exit() {
        // A thread that has the lock now may have stopped with it.
        for (maker, dir) in AT_EXIT.try_lock().iter().flat_map(|dirs| dirs.iter()) {
            if *maker == std::process::id() {
                remove(dir);
            }
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a plain function without arguments, which does not unwind: it has no panic on its way. Refused, the
        // folder stays until the next sweep.
        unsafe { libc::atexit(at_exit) };
    });
    AT_EXIT.lock().push((std::process::id(), dir.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_with_its_owner_and_swept_only_without_one() {
        let parent = tempfile::tempdir().unwrap();
        let mine = OwnFolder::make(parent.path()).unwrap();
        fs::create_dir_all(mine.path().join("a/b")).unwrap();
        let dir = mine.path().to_owned();
        // What others have there, and one that is being made.
        let others = ["thalweg-embedded-starts", "thalweg-cluster"].map(|name| parent.path().join(name));
        others.iter().for_each(|other| fs::create_dir(other).unwrap());
        File::create(others[1].join(ALIVE)).unwrap();
        File::create(parent.path().join("thalweg-embedded-file")).unwrap();
        std::os::unix::fs::symlink(&others[1], parent.path().join("thalweg-embedded-link")).unwrap();

        sweep(parent.path());
        assert!(dir.join("a/b").is_dir());
        drop(mine);
        assert!(!dir.exists());

        // As a process leaves it that was killed.
        fs::create_dir_all(dir.join("host-1")).unwrap();
        File::create(dir.join(ALIVE)).unwrap();
        sweep(parent.path());
        assert!(!dir.exists());
        assert!(others.iter().all(|other| other.is_dir()) && others[1].join(ALIVE).exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 4);
    }
}
