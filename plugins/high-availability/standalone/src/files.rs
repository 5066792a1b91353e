//! The three files in the cluster's folder: lock, epoch, leader. Small and synchronous; nothing here decides.

use nix::fcntl::{FcntlArg, fcntl};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use thalweg_model::Epoch;
use thalweg_spi::{ErrorKind, LeaderInfo, Result, ServiceError};

/// The cluster's folder.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
}

/// Office of this folder, held as long as this lives.
pub(crate) struct Lock {
    _file: File,
}

/// A write lock of the whole file. It belongs to the open file and not to the process, so that two handles within one
/// process exclude each other too, and a third can look at it without taking it.
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("jobmanager.lock")
    }

    fn epoch_path(&self) -> PathBuf {
        self.dir.join("epoch")
    }

    fn leader_path(&self) -> PathBuf {
        self.dir.join("leader.json")
    }

    fn error(&self, operation: &'static str, error: io::Error) -> ServiceError {
        ServiceError::io(operation, error).with("dir", self.dir.display())
    }

    /// Takes the lock, or says who has it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let io = |e| self.error("lock cluster folder", e);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(self.lock_path()).map_err(io)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let who = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
                let dir = self.dir.display();
                let text = format!("another JobManager{who} uses {dir}: stop it or choose another --dir");
                return Err(ServiceError::new(ErrorKind::AlreadyExists, "lock cluster folder", text));
            }
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Lock { _file: file })
    }

    /// Does anybody hold the lock? Looks without taking it.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(self.lock_path()) else { return false };
        let mut found = whole_file();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && found.l_type != libc::F_UNLCK as i16
    }

    /// The highest epoch that was granted; 0 before the first.
    pub(crate) fn epoch(&self) -> Result<Epoch> {
        let path = self.epoch_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Epoch(0)),
            Err(e) => return Err(self.error("read epoch", e)),
        };
        text.trim().parse().map(Epoch).map_err(|_| {
            let text =
                format!("{} does not hold a number; remove it: the next epoch is taken from the time", path.display());
            ServiceError::new(ErrorKind::Damaged, "read epoch", text)
        })
    }

    /// Writes the epoch and syncs it. Called under the lock.
    pub(crate) fn store_epoch(&self, epoch: Epoch) -> Result<()> {
        self.replace(&self.epoch_path(), format!("{epoch}\n").as_bytes()).map_err(|e| self.error("store epoch", e))
    }

    /// Tells everybody where the leader is.
    pub(crate) fn store_leader(&self, leader: &LeaderInfo) -> Result<()> {
        let text = serde_json::to_vec_pretty(leader).unwrap_or_default();
        self.replace(&self.leader_path(), &text).map_err(|e| self.error("announce leader", e))
    }

    /// There is no leader. What is not there is fine.
    pub(crate) fn remove_leader(&self) -> Result<()> {
        match std::fs::remove_file(self.leader_path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("remove leader", e)),
            _ => Ok(()),
        }
    }

    /// The leader that was announced, if it still leads.
    pub(crate) fn leader(&self) -> Option<LeaderInfo> {
        let text = std::fs::read(self.leader_path()).ok()?;
        let leader = serde_json::from_slice(&text).ok()?;
        self.is_locked().then_some(leader)
    }

    /// Replaces a file as a whole, so that a reader sees the old content or the new, after a power cut too.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // Only the holder of the lock writes, so one temporary name is enough.
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }
}
