//! Writes the records of one subtask into the files of a file sink, and closes those that are full, old or idle. What
//! becomes of a closed file is decided here by whether the job ends: it waits for the committer, or is finished at
//! once.

use super::{
    FileSink, LineFormat, RollingPolicy,
    bucket::{BucketAssigner, unfit},
    part::{BUFFER, OpenPart, Part, broken, sync_folder},
};
use crate::{
    batch::Time,
    build::OpCx,
    codec,
    push::Ready,
    sink::{
        SinkWriter,
        hidden::{clear, hidden_name, marker},
    },
    task::TaskCell,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use thalweg_env::Clock;
use thalweg_model::{FailureKind, Moment, TaskFailure};

/// Nobody needs to be woken more seldom.
const DAY: Duration = Duration::from_secs(86_400);
/// Names that are tried for one file: each has a number of its own, behind 32 random bits.
const TRIES: u32 = 100;

/// What a snapshot has of one writer.
#[derive(Default, Serialize, Deserialize)]
struct State {
    /// Closed and hidden.
    pending: Vec<Part>,
    /// Written to at the time. What was written later belongs to a time that a restore takes back.
    open: Vec<Part>,
}

/// Gives files their names.
struct Names {
    prefix: String,
    suffix: String,
    subtask: u32,
    /// Of this writer alone, so that no other subtask, attempt or job has the same names.
    token: u32,
    next: u64,
    marker: Arc<str>,
}

impl Names {
    fn next(&mut self, bucket: &str) -> Part {
        let Self { prefix, suffix, subtask, token, next, marker } = self;
        let name = format!("{prefix}-{subtask}-{token:08x}-{next}{suffix}");
        *next += 1;
        Part { bucket: bucket.to_owned(), hidden: hidden_name(&name, marker), name, length: 0 }
    }
}

/// A live one.
pub struct FileWriter<F, B> {
    root: PathBuf,
    names: Names,
    policy: RollingPolicy,
    max_open: usize,
    /// A closed file is finished at once.
    at_once: bool,
    format: F,
    buckets: B,
    open: Vec<OpenPart>,
    by_bucket: HashMap<String, usize>,
    /// The part of the last record.
    last: usize,
    turns: u64,
    bucket: String,
    pending: Vec<Part>,
    /// So many of the pending ones a snapshot names.
    kept: usize,
    evicted: u64,
    ended: bool,
    clock: Arc<dyn Clock>,
    now: Moment,
    wall: Time,
    /// No part is due before.
    due: Option<Moment>,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

fn user(message: impl Into<String>) -> TaskFailure {
    TaskFailure::new(FailureKind::User, message)
}

impl<F, B> FileWriter<F, B> {
    pub(super) fn open(sink: &FileSink<F, B>, cx: &OpCx) -> Result<Self, TaskFailure>
    where
        F: Clone,
        B: Clone,
    {
        let root = cx.path(&sink.folder);
        fs::create_dir_all(&root).map_err(|e| broken(&root, &e))?;
        let env = cx.env();
        let names = Names {
            prefix: sink.prefix.clone(),
            suffix: sink.suffix.clone(),
            subtask: cx.subtask,
            token: env.entropy.next_u64() as u32,
            next: 0,
            marker: marker(cx),
        };
        let mut writer = Self {
            root,
            names,
            policy: sink.policy,
            max_open: sink.max_open,
            at_once: !cx.is_bounded(),
            format: sink.format.clone(),
            buckets: sink.buckets.clone(),
            open: Vec::new(),
            by_bucket: HashMap::new(),
            last: usize::MAX,
            turns: 0,
            bucket: String::new(),
            pending: Vec::new(),
            kept: 0,
            evicted: 0,
            ended: false,
            clock: env.clock.clone(),
            now: env.clock.now(),
            wall: env.clock.wall().0 as Time,
            due: None,
            uid: cx.uid.clone(),
            cell: cx.cell(),
        };
        let mut named = HashSet::new();
        for (subtask, part) in cx.restored() {
            let state: State = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("the files that subtask {subtask} had cannot be read: {e}"))
            })?;
            named.extend(state.open.iter().chain(&state.pending).map(|part| part.hidden.clone()));
            if subtask % cx.parallelism == cx.subtask {
                writer.restore(state)?;
            }
        }
        writer.kept = writer.pending.len();
        if !writer.at_once && cx.attempt().n > 0 {
            writer.clear_leftovers(cx, &named)?;
        }
        Ok(writer)
    }

    /// An attempt that failed has left the files of subtasks that had come to their end, and all of it is written again: a
    /// disk that is full needs the room. What a snapshot names is needed, though.
    fn clear_leftovers(&self, cx: &OpCx, named: &HashSet<String>) -> Result<(), TaskFailure> {
        let begins = format!(".{}-", self.names.prefix);
        let of_this = |name: &str| {
            let digits = name.strip_prefix(&begins).and_then(|rest| rest.split_once('-'));
            let subtask = digits.and_then(|(subtask, _)| subtask.parse::<u32>().ok());
            subtask.is_some_and(|n| n % cx.parallelism == cx.subtask) && !named.contains(name)
        };
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            folders.extend(clear(&folder, &self.names.marker, of_this).map_err(|e| broken(&folder, &e))?);
        }
        Ok(())
    }

    /// Takes over what an earlier attempt wrote. None of it is written to again: another subtask may have it now.
    fn restore(&mut self, state: State) -> Result<(), TaskFailure> {
        for part in state.open.into_iter().chain(state.pending) {
            if !part.is_plain() {
                let message = format!("the snapshot names the file {:?}, which is none of this sink", part.hidden);
                return Err(TaskFailure::new(FailureKind::Storage, message));
            }
            // What came after the snapshot comes again.
            part.settle(&self.root)?;
            self.closed(part)?;
        }
        Ok(())
    }

    fn closed(&mut self, part: Part) -> Result<(), TaskFailure> {
        if self.at_once {
            part.finish(&self.root)?;
            return sync_folder(&self.root.join(&part.bucket));
        }
        self.pending.push(part);
        Ok(())
    }

    fn close(&mut self, i: usize) -> Result<(), TaskFailure> {
        self.open[i].sync()?;
        let OpenPart { part, kept, .. } = self.open.swap_remove(i);
        self.by_bucket.remove(&part.bucket);
        if let Some(moved) = self.open.get(i) {
            self.by_bucket.insert(moved.part.bucket.clone(), i);
        }
        self.last = usize::MAX;
        self.closed(part)?;
        if kept && !self.at_once {
            // Those that a snapshot names come first.
            let at = self.pending.len() - 1;
            self.pending.swap(self.kept, at);
            self.kept += 1;
        }
        Ok(())
    }

    /// The part of `self.bucket`, which is not the last record's.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) -> Result<usize, TaskFailure> {
        self.turns += 1;
        if let Some(i) = self.by_bucket.get(&self.bucket) {
            self.last = *i;
            self.open[*i].used = self.turns;
            return Ok(*i);
        }
        if let Some(why) = unfit(&self.bucket) {
            let bucket = &self.bucket;
            return Err(user(format!(
                "{bucket:?} cannot be a bucket: {why}; replace such signs where buckets are named"
            )));
        }
        if self.open.len() >= self.max_open
            && let Some((least, _)) = self.open.iter().enumerate().min_by_key(|(_, p)| p.used)
        {
            self.evicted += 1;
            if self.evicted.is_power_of_two() {
                let (uid, most) = (&self.uid, self.max_open);
                tracing::warn!(%uid, closed = self.evicted, "records go to more than {most} buckets at a time, and \
                    files are closed early for others: key_by the bucket before the sink, or raise max_open");
            }
            self.close(least)?;
        }
        for _ in 0..TRIES {
            let part = self.names.next(&self.bucket);
            if let Some(mut part) = OpenPart::create(&self.root, part, self.now)? {
                part.used = self.turns;
                self.due = earlier(self.due, self.policy.due(self.now, self.now));
                self.last = self.open.len();
                self.by_bucket.insert(self.bucket.clone(), self.last);
                self.open.push(part);
                return Ok(self.last);
            }
        }
        let folder = self.root.join(&self.bucket);
        let message = format!("output folder {} has files of every name that was tried", folder.display());
        Err(TaskFailure::new(FailureKind::Storage, message))
    }

    /// Closes what is old or idle.
    fn close_due(&mut self) -> Result<(), TaskFailure> {
        let mut i = 0;
        self.due = None;
        while let Some(part) = self.open.get(i) {
            let due = self.policy.due(part.opened, part.touched);
            if due.is_some_and(|at| at <= self.now) {
                self.close(i)?;
            } else {
                self.due = earlier(self.due, due);
                i += 1;
            }
        }
        Ok(())
    }
}

fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    a.into_iter().chain(b).min()
}

impl<T: 'static, F: LineFormat<T>, B: BucketAssigner<T>> SinkWriter<T> for FileWriter<F, B> {
    #[inline]
    fn write(&mut self, at: Time, item: T) -> Result<(), TaskFailure> {
        self.bucket.clear();
        self.buckets.bucket(&item, at, self.wall, &mut self.bucket).map_err(user)?;
        let i = match self.open.get(self.last) {
            Some(part) if part.part.bucket == self.bucket => self.last,
            _ => self.turn()?,
        };
        let part = &mut self.open[i];
        self.format.line(&item, &mut part.buffer).map_err(user)?;
        part.buffer.push(b'\n');
        part.whole = part.buffer.len();
        part.touched = self.now;
        if part.length() >= self.policy.max_bytes {
            return self.close(i);
        }
        if part.whole >= BUFFER { part.send() } else { Ok(()) }
    }

    fn ready(&mut self) -> Result<Ready, TaskFailure> {
        self.now = self.clock.now();
        self.wall = self.clock.wall().0 as Time;
        if self.due.is_some_and(|at| at <= self.now) {
            self.close_due()?;
        }
        if let Some(due) = self.due {
            self.cell.wake_at(due.min(self.now + DAY));
        }
        Ok(Ready::Yes)
    }

    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        while !self.open.is_empty() {
            self.close(self.open.len() - 1)?;
        }
        self.due = None;
        self.ended = true;
        self.pending.iter().map(|part| codec::encode(part).map_err(user)).collect()
    }

    fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        for part in &mut self.open {
            part.sync()?;
            part.kept = true;
        }
        self.kept = self.pending.len();
        let open = self.open.iter().map(|p| p.part.clone()).collect();
        codec::encode(&State { pending: self.pending.clone(), open }).map(Some).map_err(user)
    }
}

impl<F, B> Drop for FileWriter<F, B> {
    /// An attempt that did not come to its end. A killed process does none of this.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.at_once {
            // The rows may come again, or may be the last word of a source that has no other: they are shown.
            for mut part in self.open.drain(..) {
                let saved = part.salvage();
                let finished = if saved { part.part.finish(&self.root) } else { Ok(()) };
                if let Err(e) = finished {
                    tracing::warn!(uid = %self.uid, "a file of an attempt that ended stays hidden: {e}");
                } else if !saved && part.part.length == 0 {
                    part.part.discard(&self.root);
                }
            }
            return;
        }
        // All is written again, and a disk that is full needs the room. What a snapshot names is needed, though.
        self.open.iter().filter(|p| !p.kept).for_each(|p| p.part.discard(&self.root));
        self.pending.iter().skip(self.kept).for_each(|p| p.discard(&self.root));
    }
}
