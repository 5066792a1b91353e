//! Lines in files that are closed by size, age and inactivity, in sub-folders by time or by a function.
//!
//! The life of a file: *in progress* under a hidden name (`.part-….inprogress-…`), *pending* when it is closed and
//! safe on disk, *finished* with its final name. In a job that ends, pending files are finished all together by the
//! committer, once, whatever fails before. A job without an end has no such moment until checkpoints are taken, and
//! its files are finished as they are closed: waiting would hide its output for ever. A restart may then repeat
//! records, since the sources read again what is in finished files already.

mod bucket;
mod committer;
mod part;
mod writer;

pub use bucket::{BucketAssigner, ByFn, NoBuckets, TimeBuckets};
pub use writer::FileWriter;

use super::{
    Committer, Display, LineFormat, Sink, With,
    hidden::{hidden_name, marker},
};
use crate::{batch::Time, build::OpCx, ops::ClonedToSubtasks};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};
use thalweg_model::{Moment, TaskFailure};

/// When a file is closed and the next one begun. By default at 128 MiB, a minute after its first record, or a minute
/// after its last one, whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingPolicy {
    max_bytes: u64,
    max_age: Option<Duration>,
    max_idle: Option<Duration>,
}

impl Default for RollingPolicy {
    fn default() -> Self {
        let minute = Some(Duration::from_secs(60));
        Self { max_bytes: 128 << 20, max_age: minute, max_idle: minute }
    }
}

impl RollingPolicy {
    /// A file is closed when it has so many bytes; at least 1. The record that reaches it is still written whole.
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { max_bytes: bytes, ..self }
    }

    /// A file is closed so long after its first record; `None` for never.
    pub fn max_age(self, age: impl Into<Option<Duration>>) -> Self {
        Self { max_age: age.into(), ..self }
    }

    /// A file is closed when it has had no record for so long; `None` for never.
    pub fn max_idle(self, idle: impl Into<Option<Duration>>) -> Self {
        Self { max_idle: idle.into(), ..self }
    }

    fn due(&self, opened: Moment, touched: Moment) -> Option<Moment> {
        let old = self.max_age.map(|age| opened + age);
        old.into_iter().chain(self.max_idle.map(|idle| touched + idle)).min()
    }

    fn wrong(&self) -> Option<&'static str> {
        if self.max_bytes == 0 {
            return Some("max_bytes is 0, and a file has at least one byte: 128 << 20 are 128 MiB");
        }
        if self.max_age == Some(Duration::ZERO) || self.max_idle == Some(Duration::ZERO) {
            return Some("max_age and max_idle must be longer than nothing: for no bound pass None");
        }
        None
    }
}

/// A folder of files that appear as they are closed, or all together when the job ends.
///
/// Files are called `part-<subtask>-<token>-<n><suffix>`, with a random token for each attempt of each subtask, so that
/// nothing in the folder is ever written over: runs add to it.
#[derive(Clone)]
pub struct FileSink<F = Display, B = NoBuckets> {
    folder: PathBuf,
    prefix: String,
    suffix: String,
    policy: RollingPolicy,
    max_open: usize,
    format: F,
    buckets: B,
}

impl FileSink {
    /// Lines as `Display` says, into this folder. A relative one begins where the client was started.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            prefix: "part".to_owned(),
            suffix: String::new(),
            policy: RollingPolicy::default(),
            max_open: 64,
            format: Display,
            buckets: NoBuckets,
        }
    }
}

impl<F, B> FileSink<F, B> {
    /// When files are closed.
    pub fn rolling(mut self, policy: RollingPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// What names begin with, instead of `part`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What names end with: `.csv`.
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// Files that each subtask has open at a time, one for a bucket; 64 if nothing is said, at least 1. For one more
    /// the one is closed that waits longest for a record. Each may hold 64 KiB of memory.
    pub fn max_open(mut self, files: usize) -> Self {
        self.max_open = files;
        self
    }

    /// Another form of lines.
    pub fn format<G>(self, format: G) -> FileSink<G, B> {
        let Self { folder, prefix, suffix, policy, max_open, buckets, .. } = self;
        FileSink { folder, prefix, suffix, policy, max_open, format, buckets }
    }

    /// Lines as a function appends them, without their ends.
    pub fn lines<T, G: FnMut(&T, &mut Vec<u8>) + ClonedToSubtasks>(self, line: G) -> FileSink<With<G>, B> {
        self.format(With(line))
    }

    /// A sub-folder for each record: [`TimeBuckets`], or one of your own.
    pub fn buckets<C>(self, buckets: C) -> FileSink<F, C> {
        let Self { folder, prefix, suffix, policy, max_open, format, .. } = self;
        FileSink { folder, prefix, suffix, policy, max_open, format, buckets }
    }

    /// A sub-folder for each record, which a function appends to the string; it is told the record and its event time.
    pub fn buckets_by<T, G: FnMut(&T, Time, &mut String) + ClonedToSubtasks>(self, bucket: G) -> FileSink<F, ByFn<G>> {
        self.buckets(ByFn(bucket))
    }

    /// Must records have an event time?
    pub fn needs_event_time<T>(&self) -> bool
    where
        B: BucketAssigner<T>,
    {
        self.buckets.needs_event_time()
    }

    fn wrong(&self) -> Option<String> {
        let plain = |what: &str, part: &str| {
            let bad = part.contains(['/', '\0']) || part.len() > 100;
            bad.then(|| format!("{what} {part:?} is a part of a file's name: leave out slashes, and keep it short"))
        };
        if self.prefix.is_empty() || self.prefix.starts_with(['.', '_']) {
            let prefix = &self.prefix;
            return Some(format!(
                "prefix {prefix:?}: names that begin with a dot or _ are hidden, and each begins with something"
            ));
        }
        let wrong = plain("prefix", &self.prefix).or_else(|| plain("suffix", &self.suffix));
        let wrong = wrong.or_else(|| self.policy.wrong().map(str::to_owned));
        let none = || "max_open is 0, and a record needs a file: 64 is the default".to_owned();
        wrong.or_else(|| (self.max_open == 0).then(none))
    }
}

impl<T: 'static, F: LineFormat<T>, B: BucketAssigner<T>> Sink<T> for FileSink<F, B> {
    type Writer = FileWriter<F, B>;

    fn kind(&self) -> &'static str {
        "file-sink"
    }

    fn check(&self, client_dir: &Path) -> Result<(), String> {
        let folder = client_dir.join(&self.folder);
        let shown = folder.display();
        if let Some(why) = self.wrong() {
            return Err(format!("output {shown}: {why}"));
        }
        self.buckets.check().map_err(|e| format!("output {shown}: {e}"))?;
        if folder.exists() && !folder.is_dir() {
            return Err(format!("output {shown} is a file: name a folder"));
        }
        fs::create_dir_all(&folder).map_err(|e| format!("output folder {shown} cannot be made: {e}"))?;
        let probe = folder.join(hidden_name("probe", &std::process::id().to_string()));
        File::create(&probe).map_err(|e| format!("output folder {shown} cannot be written to: {e}"))?;
        let _ = fs::remove_file(&probe);
        Ok(())
    }

    fn writer(&self, cx: &OpCx) -> Result<Self::Writer, TaskFailure> {
        FileWriter::open(self, cx)
    }

    fn commits(&self) -> bool {
        true
    }

    fn committer(&self, cx: &OpCx) -> Result<Box<dyn Committer>, TaskFailure> {
        let marker = marker(cx);
        let list = hidden_name(&format!("list-{}", cx.attempt()), &marker);
        Ok(Box::new(committer::FileCommitter { root: cx.path(&self.folder), marker, list, parts: Vec::new() }))
    }
}
