//! One error for every service: what kind, may I retry, *may it have happened anyway*, and what was being done.

use std::{error::Error, fmt};

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller's configuration; an operator must change it.
    InvalidConfig,
    /// There is no such thing.
    NotFound,
    /// Somebody else has it: an address, a folder, a name.
    AlreadyExists,
    /// A compare-and-set found another version.
    Conflict,
    /// The caller's epoch is not the newest.
    Fenced,
    /// The service is not there at the moment.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// A quota is used up.
    QuotaExceeded,
    /// Larger than the service takes.
    TooLarge,
    /// What was read is not what was written.
    Damaged,
    /// The service does not let the caller do this.
    PermissionDenied,
    /// This implementation cannot do this.
    Unsupported,
    /// The other side has ended.
    Closed,
    /// Anything else.
    Internal,
}

impl ErrorKind {
    /// `not found`, `timeout`…
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidConfig => "invalid configuration",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::QuotaExceeded => "quota exceeded",
            Self::TooLarge => "too large",
            Self::Damaged => "damaged",
            Self::PermissionDenied => "permission denied",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::Internal => "internal error",
        }
    }
}

/// Did the operation take effect?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happened {
    /// It did not.
    No,
    /// Nobody knows: read before you act on it.
    Maybe,
}

/// An error of a service.
///
/// `Display` is one line that an operator can act on: *put blob (key=ab12): unavailable: connection refused*.
#[derive(Debug)]
pub struct ServiceError {
    kind: ErrorKind,
    retry: bool,
    happened: Happened,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ServiceError {
    /// An error that is final and determinate, unless told otherwise: `Unavailable`, `Timeout` and `QuotaExceeded`
    /// may be retried, and a `Timeout` may have happened.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::QuotaExceeded),
            happened: if kind == ErrorKind::Timeout { Happened::Maybe } else { Happened::No },
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }
    }

    /// The error that an I/O error means.
    pub fn io(operation: &'static str, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::AlreadyExists | Io::AddrInUse => ErrorKind::AlreadyExists,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable => ErrorKind::Unavailable,
            Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe | Io::UnexpectedEof => ErrorKind::Closed,
            Io::TimedOut => ErrorKind::Timeout,
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::QuotaExceeded,
            Io::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Internal,
        };
        Self { source: None, ..Self::new(kind, operation, error.to_string()) }.caused_by(error)
    }

    /// The same error, that may have happened anyway.
    pub fn maybe_happened(mut self) -> Self {
        self.happened = Happened::Maybe;
        self
    }

    /// The same error, that may (or may not) be retried.
    pub fn retryable(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    /// The same error, with a value that says what it was about. Never put a secret here.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// The same error, with its cause.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// May the same call help later?
    pub fn may_retry(&self) -> bool {
        self.retry
    }

    /// Did it take effect?
    pub fn happened(&self) -> Happened {
        self.happened
    }

    /// The words alone, without operation and context.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.context.is_empty() {
            let pairs: Vec<_> = self.context.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(f, " ({})", pairs.join(", "))?;
        }
        write!(f, ": {}: {}", self.kind.as_str(), self.message)?;
        if self.happened == Happened::Maybe { f.write_str(" (it may have happened)") } else { Ok(()) }
    }
}

impl Error for ServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// A service's answer.
pub type Result<T, E = ServiceError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_done_to_what_and_whether_it_may_have_happened() {
        let e = ServiceError::new(ErrorKind::Timeout, "put blob", "no answer in 10s").with("key", "ab");
        assert_eq!(e.to_string(), "put blob (key=ab): timeout: no answer in 10s (it may have happened)");
        assert!(e.may_retry() && e.happened() == Happened::Maybe);
        let e = ServiceError::io("open", std::io::ErrorKind::NotFound.into());
        assert!(e.kind() == ErrorKind::NotFound && !e.may_retry() && e.happened() == Happened::No);
    }
}
