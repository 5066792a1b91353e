//! The files of office in the cluster's folder: the lock and the leader file. Small and synchronous; nothing here decides.

use nix::fcntl::{FcntlArg, fcntl};
use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use thalweg_spi::{ErrorKind, LeaderInfo, Result, ServiceError};

/// The names of the two files; a change of one of them may be a change of office.
pub(crate) const LOCK: &str = "jobmanager.lock";
pub(crate) const LEADER: &str = "leader.json";

/// The cluster's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

/// Office of this folder, held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// A write lock of the whole file. It belongs to the open file and not to the process, so that two handles within one
/// process exclude each other too, and a third can look at it without taking it.
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

impl Folder {
    /// The folder at this path. It need not be there yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The error of a file in it.
    pub fn error(&self, operation: &'static str, error: io::Error) -> ServiceError {
        ServiceError::io(operation, error).with("dir", self.dir.display())
    }

    /// Takes the lock, or says who has it.
    pub fn lock(&self) -> Result<Lock> {
        let io = |e| self.error("lock cluster folder", e);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(self.file(LOCK)).map_err(io)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                let who = self.holder().map_or_else(String::new, |pid| format!(" (pid {pid})"));
                let dir = self.dir.display();
                let text = format!("another JobManager{who} uses {dir}: stop it or choose another --dir");
                return Err(ServiceError::new(ErrorKind::AlreadyExists, "lock cluster folder", text));
            }
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Lock { file })
    }

    /// Does anybody hold the lock? Looks without taking it.
    pub fn is_locked(&self) -> bool {
        // Opened for reading alone: closing a file that was open for writing is an event for those who wait for a change
        // of the lock, and a look would wake them all, and itself, without end.
        let Ok(file) = File::open(self.file(LOCK)) else { return false };
        let mut found = whole_file();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && found.l_type != libc::F_UNLCK as i16
    }

    /// Is this still the lock of the folder that has this name? If the folder was removed or replaced, another process may
    /// lead in the new one.
    pub fn is_held_by(&self, lock: &Lock) -> bool {
        let same = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        match (lock.file.metadata(), std::fs::metadata(self.file(LOCK))) {
            (Ok(held), Ok(now)) => same(held, now),
            _ => false,
        }
    }

    /// The process that locked it last, as it wrote itself down.
    pub fn holder(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(self.file(LOCK)).ok()?.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Tells everybody where the leader is.
    pub(crate) fn store_leader(&self, leader: &LeaderInfo) -> Result<()> {
        let operation = "announce leader";
        let text = serde_json::to_vec_pretty(leader).map_err(|e| self.error(operation, e.into()))?;
        self.replace(LEADER, &text).map_err(|e| self.error(operation, e))
    }

    /// There is no leader. What is not there is fine.
    pub(crate) fn remove_leader(&self) -> Result<()> {
        match std::fs::remove_file(self.file(LEADER)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("remove leader", e)),
            _ => Ok(()),
        }
    }

    /// The leader that was announced, if it still leads.
    pub(crate) fn leader(&self) -> Option<LeaderInfo> {
        let text = std::fs::read(self.file(LEADER)).ok()?;
        let leader = serde_json::from_slice(&text).ok()?;
        self.is_locked().then_some(leader)
    }

    /// Replaces a file as a whole, so that a reader sees the old content or the new, after a power cut too. Called under
    /// the lock: one writer, one temporary name.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.file(name);
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        self.sync()
    }

    /// Makes the names of the folder durable: a file that was made or renamed is there after a power cut.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_testkit::Place;

    #[test]
    fn a_lock_is_seen_by_others_and_held_by_one() {
        let place = Place::new();
        let folder = Folder::new(place.dir());
        assert!(!folder.is_locked() && folder.holder().is_none());
        let lock = folder.lock().unwrap();
        assert!(folder.is_locked() && folder.holder() == Some(std::process::id()));
        assert_eq!(folder.lock().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(folder.is_held_by(&lock));
        std::fs::rename(folder.file(LOCK), folder.file("away")).unwrap();
        assert!(!folder.is_held_by(&lock));
        let other = folder.lock().unwrap();
        assert!(!folder.is_held_by(&lock) && folder.is_held_by(&other));
        drop(other);
        std::fs::rename(folder.file("away"), folder.file(LOCK)).unwrap();
        assert!(folder.is_locked(), "who was refused has not released it");
        drop(lock);
        assert!(!folder.is_locked());
        folder.lock().unwrap();
    }
}
