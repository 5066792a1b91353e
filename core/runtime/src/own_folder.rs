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

/// A folder to be removed when this process ends: what a static holds is not dropped then.
struct Leaving {
    /// A child that was forked and is no other program ends with this list too.
    maker: u32,
    dir: PathBuf,
    /// Ends what works in it.
    first: Option<Box<dyn FnOnce() + Send>>,
}

static AT_EXIT: Mutex<Vec<Leaving>> = Mutex::new(Vec::new());

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

    /// Where it is removed because the process ends, this is called before: what still worked in it would complain. It
    /// must be quick and must not need anything that belongs to its thread, which is gone then.
    pub fn before_exit(&self, first: impl FnOnce() + Send + 'static) {
        let mut all = AT_EXIT.lock();
        if let Some(leaving) = all.iter_mut().find(|leaving| leaving.dir == self.dir) {
            leaving.first = Some(Box::new(first));
        }
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        AT_EXIT.lock().retain(|leaving| leaving.dir != self.dir);
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
        for leaving in AT_EXIT.try_lock().iter_mut().flat_map(|all| all.drain(..)) {
            if leaving.maker == std::process::id() {
                leaving.first.into_iter().for_each(|first| first());
                remove(&leaving.dir);
            }
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a plain function without arguments, which does not unwind: it has no panic on its way. Refused, the
        // folder stays until the next sweep.
        unsafe { libc::atexit(at_exit) };
    });
    AT_EXIT.lock().push(Leaving { maker: std::process::id(), dir: dir.to_owned(), first: None });
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
