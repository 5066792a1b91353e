//! The file under the database: as `redb` has it, but space is taken from the disk when the file grows and not when it is
//! written. So a full disk is found before a commit begins, when it is still certain that nothing happened.

use nix::{errno::Errno, fcntl::posix_fallocate};
use redb::{BackendError, StorageBackend, backends::FileBackend};
use std::{fs::File, io, ops::Bound};

/// One open file.
#[derive(Debug)]
pub(crate) struct Backend {
    inner: FileBackend,
    file: File,
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

impl Backend {
    pub(crate) fn new(file: File) -> Result<Self, redb::DatabaseError> {
        let inner = FileBackend::new(file.try_clone()?)?;
        Ok(Self {
            inner,
            file,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        match posix_fallocate(&self.file, from as i64, (to - from) as i64) {
            Ok(()) => Ok(()),
            // Some file systems cannot: then a full disk shows when it is written.
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.grow()?;
        let now = self.inner.len()?;
        if len > now {
            self.reserve(now, len)?;
        }
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// A disk that fails when a test says so.
#[cfg(test)]
pub(crate) mod faults {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults {
        /// It has no space left to grow.
        pub(crate) full: Arc<AtomicBool>,
        /// What is written does not get to it.
        pub(crate) broken: Arc<AtomicBool>,
    }

    fn fails(flag: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
        if flag.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) }
    }

    impl Faults {
        pub(crate) fn grow(&self) -> io::Result<()> {
            fails(&self.full, io::ErrorKind::StorageFull)
        }

        pub(crate) fn sync(&self) -> io::Result<()> {
            fails(&self.broken, io::ErrorKind::StorageFull)
        }
    }
}
