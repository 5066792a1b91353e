//! What a failure of the database means to the caller: may it have happened, must the file be opened anew, and what an
//! operator can do.

use std::{io, path::Path};
use thalweg_env::spawner::panic_message;
use thalweg_spi::{ErrorKind, ServiceError};

/// Why a transaction did not come to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The caller's write was refused; the database is well.
    Refused(ServiceError),
    /// The database says so.
    Database(redb::Error),
    /// The commit had begun.
    Commit(redb::Error),
    /// On a damaged file the database may also panic.
    Panic(String),
    /// The file is a database, and not one of ours or not whole.
    Damaged(String),
    /// The file was written by another version.
    Version(u64),
}

macro_rules! database {
    ($($error:ty)*) => { $(impl From<$error> for Failure {
        fn from(error: $error) -> Self {
            Self::Database(error.into())
        }
    })* };
}

database! { redb::DatabaseError redb::StorageError redb::TableError redb::TransactionError }

impl From<redb::CommitError> for Failure {
    fn from(error: redb::CommitError) -> Self {
        Self::Commit(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Runs it, and makes a panic a failure.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What was being worked on is closed after a panic, so nobody sees it half changed.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(panic) => Err(Failure::Panic(panic_message(&*panic))),
    }
}

impl Failure {
    /// Is the open database of no use any more? It refuses everything after an error of the disk.
    pub(crate) fn spoils(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// Does another have the file open?
    pub(crate) fn is_open_elsewhere(&self) -> bool {
        use redb::Error::{DatabaseAlreadyOpen, LockProtocolMismatch};
        matches!(self, Self::Database(DatabaseAlreadyOpen | LockProtocolMismatch))
    }

    /// Must the file be mended by one who may write?
    pub(crate) fn wants_repair(&self) -> bool {
        matches!(self, Self::Database(redb::Error::RepairAborted))
    }

    /// The error for the caller; `write` says that it tried to change something.
    pub(crate) fn error(self, operation: &'static str, file: &Path, write: bool) -> ServiceError {
        let at = file.display();
        let new = |kind, text: String| ServiceError::new(kind, operation, text);
        let damaged = |cause: String| {
            let text = format!(
                "{at} is damaged ({cause}): put a copy of it back, or move it away and start again, which forgets the jobs and results it holds"
            );
            new(ErrorKind::Damaged, text)
        };
        match self {
            Self::Refused(error) => error,
            Self::Damaged(cause) => damaged(cause),
            Self::Panic(cause) if write => damaged(cause).maybe_happened(),
            Self::Panic(cause) => damaged(cause),
            Self::Version(found) => version(operation, file, found),
            Self::Commit(error) => {
                // Whether the disk has it shows when the file is opened again, and after a power cut perhaps not even then.
                let known = matches!(error, redb::Error::TransactionPoisoned);
                let error = Self::Database(error).error(operation, file, write);
                if known { error } else { error.maybe_happened() }
            }
            Self::Database(error) => match error {
                redb::Error::Io(e) if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    damaged(e.to_string())
                }
                redb::Error::Io(e) => ServiceError::io(operation, e).with("file", at),
                redb::Error::UpgradeRequired(found) => version(operation, file, found.into()),
                redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                    new(ErrorKind::AlreadyExists, format!("another process has {at} open: stop it"))
                }
                redb::Error::ValueTooLarge(size) => {
                    new(ErrorKind::TooLarge, format!("{size} bytes are more than a record may have"))
                }
                redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
                    new(ErrorKind::Unavailable, format!("{at} is opened again after an error: {error}"))
                }
                redb::Error::Corrupted(cause) => damaged(cause),
                redb::Error::RepairAborted
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TableIsNotMultimap(_)
                | redb::Error::TypeDefinitionChanged { .. }
                | redb::Error::TableDoesNotExist(_) => damaged(error.to_string()),
                error => new(ErrorKind::Internal, error.to_string()).with("file", at),
            },
        }
    }
}

fn version(operation: &'static str, file: &Path, found: u64) -> ServiceError {
    let at = file.display();
    let text = format!(
        "{at} was written by another version of Thalweg (format {found}): use that version, or move the file away and start again, which forgets the jobs and results it holds"
    );
    ServiceError::new(ErrorKind::Unsupported, operation, text)
}
