//! The records in their file: synchronous, for one process at a time. Who leads is decided elsewhere; here a write passes
//! when its epoch is the highest that the file knows.
//!
//! Each transaction is committed in two phases, so that a file whose newest state is damaged is told to be damaged; in one
//! phase it would be taken for a commit that was under way, and an acknowledged write would be gone without a word. For
//! the same reason all checksums are looked at when the file is opened.

use crate::{
    backend::Backend,
    failure::{Failure, caught},
};
use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use thalweg_model::{Epoch, UnixMillis};
use thalweg_spi::{ErrorKind, Expect, Result, ServiceError, Versioned};
use thalweg_support_cluster_folder::{Folder, next_epoch};

/// The file's name in the cluster's folder.
pub(crate) const FILE: &str = "metadata.redb";
/// Longest value; more is no metadata.
pub(crate) const MAX_VALUE: usize = 64 << 20;

/// Key → version and value.
const RECORDS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("records");
/// The numbers of the file itself, by the names below.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// How the file is to be read.
const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;
/// The highest epoch that was granted.
const EPOCH: &str = "epoch";
/// Of all keys together and over restarts, so that a key that is deleted and written again has a version of its own.
const LAST_VERSION: &str = "last-version";

/// Records are few and small.
const CACHE: usize = 16 << 20;
/// Who reads while nobody leads has the file for a moment; a new leader waits for so long.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// The records of the process that leads.
pub(crate) struct Store {
    folder: Folder,
    /// `None` after a failure, until the next use.
    open: RwLock<Option<Opened>>,
    #[cfg(test)]
    faults: crate::backend::faults::Faults,
}

struct Opened {
    database: Option<Database>,
    /// Device and number of the file: whether what has its name is still this one.
    identity: (u64, u64),
}

impl Drop for Opened {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else { return };
        // What was acknowledged is on the disk already; closing only makes the next start faster.
        if let Err(failure) = caught(move || Ok(database.close()?)) {
            tracing::warn!("{FILE} did not close: {failure:?}");
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// For this user alone, whatever it was before.
fn open_file(path: &Path, create: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(create).mode(0o600).open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes the file with all that belongs into it, and only then gives it its name: a process that dies here leaves nothing
/// that looks like a damaged file.
fn create(folder: &Folder) -> Result<(), Failure> {
    let path = folder.file(FILE);
    let unborn = path.with_extension("new");
    match std::fs::remove_file(&unborn) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let file = open_file(&unborn, true)?;
    let database = builder().create_with_backend(Backend::new(file)?)?;
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.open_table(RECORDS)?;
    transaction.open_table(NUMBERS)?.insert(FORMAT, FORMAT_NOW)?;
    transaction.commit()?;
    database.close()?;
    std::fs::rename(&unborn, &path)?;
    folder.sync()?;
    Ok(())
}

/// Opens the file that is there, and mends what a process that was killed left behind.
fn open(path: &Path, #[cfg(test)] faults: crate::backend::faults::Faults) -> Result<Opened, Failure> {
    let file = open_file(path, false)?;
    let metadata = file.metadata()?;
    if metadata.len() == 0 {
        // The database would take it for a new one.
        return Err(Failure::Damaged("it is empty".into()));
    }
    let identity = (metadata.dev(), metadata.ino());
    #[cfg_attr(not(test), expect(unused_mut, reason = "tests put faults in"))]
    let mut backend = Backend::new(file)?;
    #[cfg(test)]
    {
        backend.faults = faults;
    }
    let opened = Opened { database: Some(builder().create_with_backend(backend)?), identity };
    if let Some(database) = &opened.database {
        check_format(database)?;
    }
    Ok(opened)
}

fn check_format(database: &impl ReadableDatabase) -> Result<(), Failure> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    match numbers.get(FORMAT)?.map(|n| n.value()) {
        Some(FORMAT_NOW) => Ok(()),
        Some(other) => Err(Failure::Version(other)),
        None => Err(Failure::Damaged("it does not say its format".into())),
    }
}

/// Tries for a while when another has the file open.
fn patiently<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut left = patience;
    loop {
        match caught(&mut attempt) {
            Err(failure) if failure.is_open_elsewhere() && !left.is_zero() => {
                std::thread::sleep(PAUSE);
                left = left.saturating_sub(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn get(database: &impl ReadableDatabase, key: &str) -> Result<Option<Versioned>, Failure> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    Ok(records.get(key)?.map(|found| versioned(found.value())))
}

fn list(database: &impl ReadableDatabase, prefix: &str) -> Result<Vec<(String, Versioned)>, Failure> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    let mut found = Vec::new();
    for record in records.range(prefix..)? {
        let (key, value) = record?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_owned(), versioned(value.value())));
    }
    Ok(found)
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned { value: Bytes::copy_from_slice(value), version }
}

/// A question to the records, put to whatever has the file open.
pub(crate) enum Question {
    Get(String),
    List(String),
}

impl Question {
    fn ask(&self, database: &impl ReadableDatabase) -> Result<Vec<(String, Versioned)>, Failure> {
        match self {
            Self::Get(key) => Ok(get(database, key)?.map(|found| (key.clone(), found)).into_iter().collect()),
            Self::List(prefix) => list(database, prefix),
        }
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Get(_) => "get record",
            Self::List(_) => "list records",
        }
    }
}

/// Asks while this process does not lead. The file is open for a moment only; who leads has it alone.
pub(crate) fn ask_without_office(folder: &Folder, question: &Question) -> Result<Vec<(String, Versioned)>> {
    let (operation, path) = (question.operation(), folder.file(FILE));
    if !path.try_exists().map_err(|e| folder.error(operation, e))? {
        return Ok(Vec::new());
    }
    let patience = if folder.is_locked() { Duration::ZERO } else { PATIENCE };
    let answer = patiently(patience, || {
        let read = builder().open_read_only(&path).map_err(Failure::from).and_then(|database| {
            check_format(&database)?;
            question.ask(&database)
        });
        match read {
            // The last leader was killed. Mending is a write, but changes no record.
            Err(failure) if failure.wants_repair() => {
                let opened = open(
                    &path,
                    #[cfg(test)]
                    Default::default(),
                )?;
                let database = opened.database.as_ref().ok_or(redb::StorageError::DatabaseClosed)?;
                question.ask(database)
            }
            outcome => outcome,
        }
    });
    answer.map_err(|failure| {
        if !failure.is_open_elsewhere() {
            return failure.error(operation, &path, false);
        }
        let who = folder.holder().map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let text = format!("the JobManager{who} that leads has {} open: ask it", path.display());
        ServiceError::new(ErrorKind::Unavailable, operation, text)
    })
}

impl Store {
    /// Opens the records, and makes them where there are none. Called under the folder's lock.
    pub(crate) fn open(folder: &Folder) -> Result<Self> {
        let path = folder.file(FILE);
        let store = Self {
            folder: folder.clone(),
            open: RwLock::new(None),
            #[cfg(test)]
            faults: Default::default(),
        };
        let opened = patiently(PATIENCE, || {
            if !path.try_exists()? {
                create(folder)?;
            }
            store.reopen()
        });
        let opened = opened.map_err(|failure| failure.error("open records", &path, false))?;
        *store.open.write() = Some(opened);
        Ok(store)
    }

    fn path(&self) -> PathBuf {
        self.folder.file(FILE)
    }

    fn reopen(&self) -> Result<Opened, Failure> {
        open(
            &self.path(),
            #[cfg(test)]
            self.faults.clone(),
        )
    }

    /// Is the file that has the name still the one that is open? If not, what is written here is lost.
    pub(crate) fn is_in_place(&self) -> bool {
        let Ok(now) = std::fs::metadata(self.path()) else { return false };
        self.open.read().as_ref().is_none_or(|open| open.identity == (now.dev(), now.ino()))
    }

    /// Works with the open file, which it opens again where a failure closed it.
    fn with<T>(
        &self,
        operation: &'static str,
        write: bool,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T> {
        let path = self.path();
        let mut open = self.open.read();
        if open.is_none() {
            drop(open);
            let mut closed = self.open.write();
            if closed.is_none() {
                // Nothing was done yet.
                *closed = Some(caught(|| self.reopen()).map_err(|failure| failure.error(operation, &path, false))?);
            }
            open = RwLockWriteGuard::downgrade(closed);
        }
        let outcome = match open.as_ref().and_then(|open| open.database.as_ref()) {
            Some(database) => caught(|| work(database)),
            None => Err(redb::StorageError::DatabaseClosed.into()),
        };
        let spoilt = outcome.as_ref().is_err_and(Failure::spoils);
        RwLockReadGuard::unlock_fair(open);
        if spoilt {
            self.open.write().take();
        }
        outcome.map_err(|failure| failure.error(operation, &path, write))
    }

    /// One transaction that changes something: as a whole, on the disk when this returns, or not at all.
    fn change<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut redb::Table<&'static str, u64>, &mut Records) -> Result<T, Failure>,
    ) -> Result<T> {
        self.with(operation, true, |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let outcome = {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let mut records = transaction.open_table(RECORDS)?;
                change(&mut numbers, &mut records)
            };
            match outcome {
                Ok(answer) => {
                    transaction.commit()?;
                    Ok(answer)
                }
                Err(failure) => {
                    // After an error of the disk this fails too, and says less.
                    let _ = transaction.abort();
                    Err(failure)
                }
            }
        })
    }

    /// Grants the next epoch.
    pub(crate) fn grant(&self, now: UnixMillis) -> Result<Epoch> {
        self.change("store epoch", |numbers, _| {
            let epoch = next_epoch(Epoch(number(numbers, EPOCH)?), now);
            numbers.insert(EPOCH, epoch.0)?;
            Ok(epoch)
        })
    }

    /// The highest epoch that was granted.
    pub(crate) fn highest(&self) -> Result<Epoch> {
        self.with("read epoch", false, |database| {
            let numbers = database.begin_read()?.open_table(NUMBERS)?;
            Ok(Epoch(numbers.get(EPOCH)?.map_or(0, |n| n.value())))
        })
    }

    pub(crate) fn put(&self, epoch: Epoch, key: &str, value: &[u8], expect: Expect) -> Result<u64> {
        let operation = "put record";
        if value.len() > MAX_VALUE {
            let text = format!("{} bytes are more than the {MAX_VALUE} that a record may have", value.len());
            return Err(ServiceError::new(ErrorKind::TooLarge, operation, text).with("key", key));
        }
        self.change(operation, |numbers, records| {
            passes(epoch, numbers, operation)?;
            holds(key, expect, records, operation)?;
            let version = number(numbers, LAST_VERSION)? + 1;
            numbers.insert(LAST_VERSION, version)?;
            records.insert(key, (version, value))?;
            Ok(version)
        })
    }

    pub(crate) fn delete(&self, epoch: Epoch, key: &str, expect: Expect) -> Result<()> {
        let operation = "delete record";
        self.change(operation, |numbers, records| {
            passes(epoch, numbers, operation)?;
            holds(key, expect, records, operation)?;
            records.remove(key)?;
            Ok(())
        })
    }

    pub(crate) fn ask(&self, question: &Question) -> Result<Vec<(String, Versioned)>> {
        self.with(question.operation(), false, |database| question.ask(database))
    }
}

type Records<'a> = redb::Table<'a, &'static str, (u64, &'static [u8])>;

fn number(numbers: &redb::Table<&'static str, u64>, name: &str) -> Result<u64, Failure> {
    Ok(numbers.get(name)?.map_or(0, |n| n.value()))
}

/// Refuses an epoch that is over.
fn passes(epoch: Epoch, numbers: &redb::Table<&'static str, u64>, operation: &'static str) -> Result<(), Failure> {
    let highest = Epoch(number(numbers, EPOCH)?);
    if epoch >= highest {
        return Ok(());
    }
    let text = format!("epoch {epoch} is over; the highest that was granted is {highest}");
    Err(Failure::Refused(ServiceError::new(ErrorKind::Fenced, operation, text)))
}

/// Refuses an expectation that does not hold.
fn holds(key: &str, expect: Expect, records: &Records, operation: &'static str) -> Result<(), Failure> {
    let found = records.get(key)?.map(|r| r.value().0);
    let text = match expect {
        Expect::Any => return Ok(()),
        Expect::Absent if found.is_none() => return Ok(()),
        Expect::Version(wanted) if found == Some(wanted) => return Ok(()),
        Expect::Absent => "it is there already".to_owned(),
        Expect::Version(wanted) => match found {
            Some(found) => format!("it has version {found}, not {wanted}"),
            None => format!("it is not there, and version {wanted} was expected"),
        },
    };
    Err(Failure::Refused(ServiceError::new(ErrorKind::Conflict, operation, text).with("key", key)))
}

#[cfg(test)]
mod tests;
