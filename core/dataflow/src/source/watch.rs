//! Files that are looked for again and again: which of those that are there are new, and when they are dealt out. What
//! is in them is not looked at.
//!
//! A file is known by its path and is read once, when it has rested: two looks that follow each other found it alike,
//! or it was not changed for as long as there is between looks. Folders are listed on a thread for what blocks, not on
//! the slot's.

use super::{
    Assignment, Enumerator,
    files::{FileSplit, Files, cut},
};
use crate::{build::OpCx, codec, task::TaskCell};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, channel},
    },
    task::Waker,
    time::Duration,
};
use thalweg_env::{Env, Task};
use thalweg_model::{FailureKind, Moment, TaskFailure};

/// So many looks in a row may fail: shared folders have short moments.
const FAILED_LOOKS: u32 = 3;

/// What tells whether a file has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) length: u64,
    /// Milliseconds since 1970.
    pub(super) modified: i64,
}

/// What a look found.
pub(super) type Found = BTreeMap<PathBuf, Stamp>;

/// What earlier looks found.
#[derive(Default)]
struct Seen {
    /// Dealt out, and as they were then.
    dealt: Found,
    /// Not yet, since they may still be written.
    fresh: Found,
}

/// One look at what there is.
struct Look {
    /// Files to be read, with their lengths, in the order of their paths.
    new: Vec<(PathBuf, u64)>,
    /// Files that were dealt out and have changed since.
    changed: Vec<PathBuf>,
}

impl Seen {
    /// `now` is the machine's clock, ms since 1970, and `every` what is between looks.
    fn look(&mut self, found: Found, now: i64, every: i64) -> Look {
        // One that went and comes again is a new one. And nothing is kept of what is gone for good.
        self.dealt.retain(|path, _| found.contains_key(path));
        let before = mem::take(&mut self.fresh);
        let mut look = Look { new: Vec::new(), changed: Vec::new() };
        for (path, stamp) in found {
            if let Some(old) = self.dealt.get_mut(&path) {
                if mem::replace(old, stamp) != stamp {
                    look.changed.push(path);
                }
                continue;
            }
            let rests = before.get(&path) == Some(&stamp) || now.saturating_sub(stamp.modified) >= every;
            // An empty one has nothing to be read, and will be written.
            if rests && stamp.length > 0 {
                look.new.push((path.clone(), stamp.length));
                self.dealt.insert(path, stamp);
            } else {
                self.fresh.insert(path, stamp);
            }
        }
        look
    }
}

/// What a snapshot has.
#[derive(Serialize)]
struct Saved<'a> {
    #[serde(with = "super::path_bytes::keys")]
    dealt: &'a Found,
    left: &'a VecDeque<FileSplit>,
}

/// The same as it is read back.
#[derive(Deserialize)]
struct State {
    #[serde(with = "super::path_bytes::keys")]
    dealt: Found,
    left: VecDeque<FileSplit>,
}

struct Looking {
    result: Receiver<Result<Found, String>>,
    task: Task,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Deals out the splits of files as they come.
pub struct Watching {
    files: Files,
    base: PathBuf,
    every: Duration,
    readers: u32,
    seen: Seen,
    left: VecDeque<FileSplit>,
    looking: Option<Looking>,
    due: Moment,
    failed: u32,
    env: Env,
    waker: Waker,
    uid: Arc<str>,
    cell: Rc<TaskCell>,
}

impl Watching {
    pub(super) fn open(files: &Files, every: Duration, cx: &OpCx) -> Result<Self, TaskFailure> {
        let (mut seen, mut left) = (Seen::default(), VecDeque::new());
        for (_, part) in cx.restored() {
            let state: State = codec::decode(part)
                .map_err(|e| cx.failure(FailureKind::Storage, format!("the state cannot be read: {e}")))?;
            seen.dealt.extend(state.dealt);
            left.extend(state.left);
        }
        Ok(Self {
            files: files.clone(),
            base: cx.path(std::path::Path::new("")),
            every,
            readers: cx.readers(),
            seen,
            left,
            looking: None,
            due: Moment::default(),
            failed: 0,
            env: cx.env().clone(),
            waker: cx.waker(),
            uid: cx.uid.clone(),
            cell: cx.cell(),
        })
    }

    fn begin(&mut self) {
        let (send, result) = channel();
        let (files, base, waker) = (self.files.clone(), self.base.clone(), self.waker.clone());
        let task = self.env.spawner.spawn("file-watch", async move {
            let listed = tokio::task::spawn_blocking(move || files.look(&base)).await;
            // The enumerator may be gone.
            let _ = send.send(listed.unwrap_or_else(|e| Err(format!("input cannot be listed: {e}"))));
            waker.wake();
        });
        self.looking = Some(Looking { result, task });
    }

    fn take(&mut self, found: Result<Found, String>) -> Result<(), TaskFailure> {
        self.due = self.env.clock.now() + self.every;
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                self.failed += 1;
                if self.failed >= FAILED_LOOKS {
                    let message =
                        format!("{e} ({FAILED_LOOKS} looks in a row): the folder of a monitored input must stay");
                    return Err(TaskFailure::new(FailureKind::Storage, message));
                }
                tracing::warn!(uid = %self.uid, "{e}; looking again in {:?}", self.every);
                return Ok(());
            }
        };
        self.failed = 0;
        let every = i64::try_from(self.every.as_millis()).unwrap_or(i64::MAX);
        let now = i64::try_from(self.env.clock.wall().0).unwrap_or(i64::MAX);
        let look = self.seen.look(found, now, every);
        if let Some(path) = look.changed.first() {
            let (path, n) = (path.display(), look.changed.len());
            tracing::warn!(uid = %self.uid, "{n} files have changed since they were read, {path} for one: what is new \
                in them is not read; write new files instead");
        }
        self.left.extend(cut(look.new, self.readers));
        Ok(())
    }

    /// Looks when it is time to, and takes what a look has found.
    fn go_on(&mut self) -> Result<(), TaskFailure> {
        if let Some(looking) = &self.looking {
            let found = match looking.result.try_recv() {
                Ok(found) => found,
                // It wakes the task.
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => Err("input cannot be listed: the look was given up".to_owned()),
            };
            self.looking = None;
            self.take(found)?;
        }
        if self.left.is_empty() {
            if self.env.clock.now() >= self.due {
                self.begin();
            } else {
                self.cell.wake_at(self.due);
            }
        }
        Ok(())
    }
}

impl Enumerator for Watching {
    type Split = FileSplit;
    fn next(&mut self, _: u32) -> Result<Assignment<FileSplit>, TaskFailure> {
        if self.left.is_empty() {
            self.go_on()?;
        }
        Ok(self.left.pop_front().map_or(Assignment::Wait, Assignment::Split))
    }
    fn snapshot(&self) -> Result<Vec<u8>, String> {
        codec::encode(&Saved { dealt: &self.seen.dealt, left: &self.left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt};

    fn found(all: &[(&str, u64, i64)]) -> Found {
        all.iter()
            .map(|(path, length, modified)| (path.into(), Stamp { length: *length, modified: *modified }))
            .collect()
    }

    fn new(look: &Look) -> Vec<(&str, u64)> {
        look.new.iter().map(|(path, length)| (path.to_str().unwrap(), *length)).collect()
    }

    #[test]
    fn a_file_is_dealt_out_once_when_it_rests() {
        let mut seen = Seen::default();
        let look = seen.look(found(&[("old", 5, 0), ("young", 5, 95), ("empty", 0, 0)]), 100, 10);
        assert_eq!(new(&look), [("old", 5)], "the others may still be written");
        let look = seen.look(found(&[("old", 5, 0), ("young", 7, 104), ("empty", 0, 0)]), 110, 10);
        assert_eq!(new(&look), [], "it grows");
        // Clocks of servers differ: two looks that found it alike are enough.
        let look = seen.look(found(&[("old", 5, 0), ("young", 7, 104), ("empty", 1, 990)]), 105, 10);
        assert_eq!(new(&look), [("young", 7)]);
        assert!(look.changed.is_empty());
        let look = seen.look(found(&[("old", 6, 120), ("young", 7, 104), ("empty", 1, 990)]), 120, 10);
        assert_eq!(new(&look), [("empty", 1)]);
        assert_eq!(look.changed, [PathBuf::from("old")], "told, and not read again");
        let look = seen.look(found(&[("old", 6, 120), ("young", 7, 104)]), 130, 10);
        assert!(look.new.is_empty() && look.changed.is_empty(), "told once");
        assert_eq!(seen.dealt.len(), 2, "what is gone is forgotten");
        let look = seen.look(found(&[("empty", 4, 20)]), 140, 10);
        assert_eq!(new(&look), [("empty", 4)], "one that comes again is new");
    }

    proptest! {
        #[test]
        fn nothing_is_dealt_out_twice_and_what_rests_is_dealt_out(looks: Vec<BTreeSet<u8>>) {
            let (mut seen, mut dealt) = (Seen::default(), BTreeSet::new());
            let mut there = BTreeSet::new();
            for (i, more) in looks.into_iter().enumerate() {
                there.extend(more);
                let all = there.iter().map(|n| (PathBuf::from(n.to_string()), Stamp { length: 1, modified: i64::MAX }));
                for (path, _) in seen.look(all.collect(), i as i64, 1).new {
                    prop_assert!(dealt.insert(path));
                }
            }
            let stamp = Stamp { length: 1, modified: i64::MAX };
            let all: Found = there.iter().map(|n| (PathBuf::from(n.to_string()), stamp)).collect();
            for _ in 0..2 {
                dealt.extend(seen.look(all.clone(), 0, 1).new.into_iter().map(|(path, _)| path));
            }
            prop_assert_eq!(dealt.len(), there.len());
        }
    }

    #[test]
    fn a_snapshot_is_what_is_restored() {
        let mut dealt = found(&[("a", 1, 2)]);
        // Which is not UTF-8.
        let path = PathBuf::from(OsStr::from_bytes(b"caf\xe9"));
        dealt.insert(path.clone(), Stamp { length: 3, modified: 4 });
        let left = VecDeque::from(cut(vec![("a".into(), 1), (path, 3)], 1));
        let bytes = codec::encode(&Saved { dealt: &dealt, left: &left }).unwrap();
        let state: State = codec::decode(&bytes).unwrap();
        assert_eq!((state.dealt, state.left), (dealt, left));
    }
}
