//! Lines in files of a folder, one file a subtask. A file has its final name only when the whole job's output is
//! complete.

use super::{
    Committable, Committer, Manifest, Sink, SinkWriter,
    hidden::{clear, discard, hidden_name, is_unfinished, marker, sweep},
};
use crate::{batch::Time, build::OpCx, codec, ops::ClonedToSubtasks};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use thalweg_model::{FailureKind, TaskFailure};

/// How a record becomes a line, without its end.
pub trait LineFormat<T>: Clone + Send + 'static {
    /// Appends the line.
    fn line(&mut self, item: &T, to: &mut Vec<u8>) -> Result<(), String>;
}

/// As its `Display` says.
#[derive(Clone, Copy)]
pub struct Display;
impl<T: std::fmt::Display> LineFormat<T> for Display {
    fn line(&mut self, item: &T, to: &mut Vec<u8>) -> Result<(), String> {
        write!(to, "{item}").map_err(|e| format!("a record's Display failed: {e}"))
    }
}

/// As a function says: for bytes that are no text.
#[derive(Clone)]
pub struct With<F>(pub F);
impl<T, F: FnMut(&T, &mut Vec<u8>) + ClonedToSubtasks> LineFormat<T> for With<F> {
    fn line(&mut self, item: &T, to: &mut Vec<u8>) -> Result<(), String> {
        (self.0)(item, to);
        Ok(())
    }
}

/// A folder of text files.
#[derive(Clone)]
pub struct TextSink<F = Display> {
    folder: PathBuf,
    overwrite: bool,
    format: F,
}

impl TextSink {
    /// Lines as `Display` says, into this folder. It must be empty or not be there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), overwrite: false, format: Display }
    }
}

impl<F> TextSink<F> {
    /// Earlier output in the folder is replaced, when the new one is complete.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Another form of lines.
    pub fn format<G>(self, format: G) -> TextSink<G> {
        TextSink { folder: self.folder, overwrite: self.overwrite, format }
    }
}

const TEMPORARY: &str = ".part-";
const FINAL: &str = "part-";
const BUFFER: usize = 128 << 10;
/// Names that are tried for one file.
const TRIES: u32 = 1000;

/// A file that is safe on disk up to this length, under its temporary name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
struct Written {
    temporary: String,
    length: u64,
}

impl Written {
    /// Takes away what came behind it.
    fn cut(&self, folder: &Path) -> Result<(), TaskFailure> {
        let path = folder.join(&self.temporary);
        let cut = || {
            let file = File::options().write(true).open(&path)?;
            if file.metadata()?.len() < self.length {
                return Err(io::Error::other(
                    "it is shorter than when it was safe on disk: leave a job's files as they are",
                ));
            }
            file.set_len(self.length)?;
            file.sync_all()
        };
        cut().map_err(|e| broken(&path, &e))
    }
}

fn broken(path: &Path, error: &io::Error) -> TaskFailure {
    TaskFailure::new(FailureKind::Storage, format!("output {}: {error}", path.display()))
}

impl<T: 'static, F: LineFormat<T>> Sink<T> for TextSink<F> {
    type Writer = TextWriter<F>;
    fn kind(&self) -> &'static str {
        "text-sink"
    }

    fn check(&self, client_dir: &Path) -> Result<(), String> {
        let folder = client_dir.join(&self.folder);
        let shown = folder.display();
        if folder.exists() && !folder.is_dir() {
            return Err(format!("output {shown} is a file: name a folder"));
        }
        fs::create_dir_all(&folder).map_err(|e| format!("output folder {shown} cannot be made: {e}"))?;
        let entries = fs::read_dir(&folder).map_err(|e| format!("output folder {shown} cannot be read: {e}"))?;
        let entries: Vec<_> = entries.flatten().collect();
        // What a job that failed left behind is no output.
        let used = entries.iter().any(|e| !is_unfinished(e.file_name().as_encoded_bytes()));
        if used && !self.overwrite {
            return Err(format!(
                "output folder {shown} is not empty: name another one, or have it replaced by TextOutput::overwrite()"
            ));
        }
        let of_a_file = |e: &&fs::DirEntry| e.file_name().as_encoded_bytes().starts_with(FINAL.as_bytes());
        if let Some(other) = entries.iter().filter(of_a_file).find(|e| e.path().is_dir()) {
            return Err(format!(
                "output folder {shown} has a folder {}, which no file can replace: remove it, or name another folder",
                other.file_name().display()
            ));
        }
        let probe = folder.join(hidden_name("probe", &std::process::id().to_string()));
        File::create(&probe).map_err(|e| format!("output folder {shown} cannot be written to: {e}"))?;
        let _ = fs::remove_file(&probe);
        Ok(())
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn writer(&self, cx: &OpCx) -> Result<TextWriter<F>, TaskFailure> {
        let folder = cx.path(&self.folder);
        fs::create_dir_all(&folder).map_err(|e| broken(&folder, &e))?;
        let (mut earlier, mut named) = (Vec::new(), HashSet::new());
        for (writer, part) in cx.saved::<Vec<Written>>()? {
            named.extend(part.iter().map(|written| written.temporary.clone()));
            if writer % cx.parallelism == cx.subtask {
                earlier.extend(part);
            }
        }
        if let Some(strange) = earlier.iter().find(|w| !is_plain(&w.temporary)) {
            let message = format!("the snapshot names the file {:?}, which is none of this sink", strange.temporary);
            return Err(TaskFailure::new(FailureKind::Storage, message));
        }
        clear_leftovers(cx, &folder, &named)?;
        // What came after the snapshot comes again.
        earlier.iter().try_for_each(|written| written.cut(&folder))?;
        Ok(TextWriter {
            name: format!("{FINAL}{}-{}", cx.subtask, cx.attempt()),
            marker: marker(cx),
            last: format!("{FINAL}{}", cx.subtask),
            folder,
            file: None,
            kept: false,
            written: Written { temporary: String::new(), length: 0 },
            earlier,
            buffer: Vec::new(),
            format: self.format.clone(),
        })
    }

    fn commits(&self) -> bool {
        true
    }

    fn committer(&self, cx: &OpCx) -> Result<Box<dyn Committer>, TaskFailure> {
        let (folder, overwrite) = (cx.path(&self.folder), self.overwrite);
        Ok(Box::new(TextCommitter { folder, overwrite, marker: marker(cx), names: Vec::new() }))
    }
}

/// Writes one file under a name that begins with a dot.
pub struct TextWriter<F> {
    folder: PathBuf,
    /// Stands in its temporary name, with the marker.
    name: String,
    /// Of this sink in this job, whoever else writes into the folder.
    marker: Arc<str>,
    last: String,
    file: Option<File>,
    /// A snapshot names it.
    kept: bool,
    /// What is in it.
    written: Written,
    /// What this subtask and others wrote before a restore.
    earlier: Vec<Written>,
    buffer: Vec<u8>,
    format: F,
}

impl<F> TextWriter<F> {
    fn send(&mut self) -> Result<(), TaskFailure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            // Made with the first record: a subtask without one leaves no file.
            None => {
                let (file, temporary) = create(&self.folder, &self.name, &self.marker)?;
                self.written = Written { temporary, length: 0 };
                self.file.insert(file)
            }
        };
        file.write_all(&self.buffer).map_err(|e| broken(&self.folder.join(&self.written.temporary), &e))?;
        self.written.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// All that was written is safe on disk. Which files have it.
    fn all(&mut self) -> Result<Vec<Written>, TaskFailure> {
        self.send()?;
        let mut all = self.earlier.clone();
        if let Some(file) = &self.file {
            file.sync_all().map_err(|e| broken(&self.folder.join(&self.written.temporary), &e))?;
            all.push(self.written.clone());
        }
        Ok(all)
    }
}

/// An attempt that failed has left the files of subtasks that had come to their end, and all of it is written again: a disk
/// that is full needs the room. What a snapshot names is needed, though.
fn clear_leftovers(cx: &OpCx, folder: &Path, named: &HashSet<String>) -> Result<(), TaskFailure> {
    if cx.attempt().n == 0 {
        return Ok(());
    }
    let of_this = |name: &str| {
        let digits = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split_once('-'));
        let subtask = digits.and_then(|(subtask, _)| subtask.parse::<u32>().ok());
        subtask.is_some_and(|n| n % cx.parallelism == cx.subtask) && !named.contains(name)
    };
    clear(folder, &marker(cx), of_this).map(drop).map_err(|e| broken(folder, &e))
}

/// A file of this name, or else one whose name nobody has: a snapshot may name that of an attempt of the same number.
fn create(folder: &Path, name: &str, marker: &str) -> Result<(File, String), TaskFailure> {
    for n in 0..TRIES {
        let temporary = if n == 0 { hidden_name(name, marker) } else { hidden_name(&format!("{name}-{n}"), marker) };
        let path = folder.join(&temporary);
        match File::create_new(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, temporary)).map_err(|e| broken(&path, &e)),
        }
    }
    let message = format!("output folder {} has files of every name that was tried", folder.display());
    Err(TaskFailure::new(FailureKind::Storage, message))
}

impl<T: 'static, F: LineFormat<T>> SinkWriter<T> for TextWriter<F> {
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        self.format.line(&item, &mut self.buffer).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.send() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        let all = self.all()?;
        self.file = None;
        self.earlier.clone_from(&all);
        let named = |(n, written): (usize, Written)| {
            let last = if n == 0 { self.last.clone() } else { format!("{}-{n}", self.last) };
            codec::encode(&(written, last)).map_err(|e| TaskFailure::new(FailureKind::User, e))
        };
        all.into_iter().enumerate().map(named).collect()
    }

    fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        let all = self.all()?;
        self.kept = self.file.is_some();
        codec::encode(&all).map(Some).map_err(|e| TaskFailure::new(FailureKind::User, e))
    }
}

impl<F> Drop for TextWriter<F> {
    /// An attempt that did not come to its end. A killed process does none of this.
    fn drop(&mut self) {
        // All is written again, and a disk that is full needs the room. What a snapshot names is needed, though.
        if self.file.is_some() && !self.kept {
            discard(&self.folder.join(&self.written.temporary));
        }
    }
}

struct TextCommitter {
    folder: PathBuf,
    overwrite: bool,
    /// Stands in the temporary names of this sink in this job.
    marker: Arc<str>,
    /// What was written, and final names.
    names: Vec<(Written, String)>,
}

impl TextCommitter {
    /// Did this attempt, or the one that prepared it, give the file its final name?
    fn is_finished(&self, written: &Written, last: &str) -> bool {
        !self.folder.join(&written.temporary).exists()
            && fs::metadata(self.folder.join(last)).is_ok_and(|there| there.is_file() && there.len() == written.length)
    }

    /// Nobody else's file may have a final name, unless it is to be replaced.
    fn check_free(&self, last: &str) -> Result<(), TaskFailure> {
        let to = self.folder.join(last);
        if self.overwrite || !to.exists() {
            return Ok(());
        }
        let message = format!(
            "output {} came while this job ran, from another job or sink that writes to the same folder: name a folder for \
             each",
            to.display()
        );
        Err(TaskFailure::new(FailureKind::Storage, message))
    }
}

fn entries(folder: &Path) -> Result<Vec<String>, TaskFailure> {
    let entries = fs::read_dir(folder).map_err(|e| broken(folder, &e))?;
    Ok(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
}

fn remove(folder: &Path, name: &str) -> Result<(), TaskFailure> {
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(broken(&path, &e)),
        _ => Ok(()),
    }
}

/// A name that the manifest may have: it cannot lead out of the folder.
fn is_plain(name: &str) -> bool {
    !name.contains('/') && (name.starts_with(TEMPORARY) || name.starts_with(FINAL))
}

impl Committer for TextCommitter {
    fn add(&mut self, part: Committable) -> Result<(), TaskFailure> {
        let names: (Written, String) = codec::decode(&part.body)
            .map_err(|e| TaskFailure::new(FailureKind::Lost, format!("a writer's names are damaged: {e}")))?;
        self.names.push(names);
        Ok(())
    }

    fn prepare(&mut self) -> Result<Manifest, TaskFailure> {
        self.names.sort();
        let bytes = codec::encode(&self.names).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
        Ok(Manifest { bytes: bytes.into(), collected: None })
    }

    fn publish(&mut self, manifest: &[u8]) -> Result<(), TaskFailure> {
        let names: Vec<(Written, String)> = codec::decode(manifest)
            .map_err(|e| TaskFailure::new(FailureKind::Storage, format!("the manifest is damaged: {e}")))?;
        if !names.iter().all(|(written, last)| is_plain(&written.temporary) && is_plain(last)) {
            return Err(TaskFailure::new(FailureKind::Storage, "the manifest names files outside of the folder"));
        }
        fs::create_dir_all(&self.folder).map_err(|e| broken(&self.folder, &e))?;
        let left: Vec<_> = names.iter().filter(|(written, last)| !self.is_finished(written, last)).collect();
        // None of them appears beside files of somebody else's.
        for (written, last) in &left {
            self.check_free(last)?;
            written.cut(&self.folder)?;
        }
        let ours: BTreeSet<&str> = names.iter().map(|(_, last)| last.as_str()).collect();
        if self.overwrite {
            for name in entries(&self.folder)?.iter().filter(|n| n.starts_with(FINAL) && !ours.contains(n.as_str())) {
                // A folder is nothing that this sink wrote.
                if !self.folder.join(name).is_dir() {
                    remove(&self.folder, name)?;
                }
            }
        }
        for (written, last) in left {
            // Somebody's may have come while others were made safe.
            self.check_free(last)?;
            let from = self.folder.join(&written.temporary);
            fs::rename(&from, self.folder.join(last)).map_err(|e| broken(&from, &e))?;
        }
        sweep(&self.folder, &self.marker);
        let sync = File::open(&self.folder).and_then(|f| f.sync_all());
        sync.map_err(|e| broken(&self.folder, &e))
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
