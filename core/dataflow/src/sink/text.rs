//! Lines in files of a folder, one file a subtask. A file has its final name only when the whole job's output is
//! complete.

use super::{Committable, Committer, Manifest, Sink, SinkWriter};
use crate::{batch::Time, build::OpCx, codec, ops::ClonedToSubtasks};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
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
        // What a job that failed left behind is no output.
        let used = entries.flatten().any(|e| !e.file_name().to_string_lossy().starts_with(TEMPORARY));
        if used && !self.overwrite {
            return Err(format!("output folder {shown} is not empty: name another one, or ask for overwriting"));
        }
        let probe = folder.join(format!("{TEMPORARY}probe-{}", std::process::id()));
        File::create(&probe).map_err(|e| format!("output folder {shown} cannot be written to: {e}"))?;
        let _ = fs::remove_file(&probe);
        Ok(())
    }

    fn writer(&self, cx: &OpCx) -> Result<TextWriter<F>, TaskFailure> {
        let folder = cx.path(&self.folder);
        fs::create_dir_all(&folder).map_err(|e| broken(&folder, &e))?;
        Ok(TextWriter {
            temporary: format!("{TEMPORARY}{}-{}", cx.subtask, cx.attempt()),
            last: format!("{FINAL}{}", cx.subtask),
            folder,
            file: None,
            buffer: Vec::new(),
            format: self.format.clone(),
        })
    }

    fn commits(&self) -> bool {
        true
    }

    fn committer(&self, cx: &OpCx) -> Result<Box<dyn Committer>, TaskFailure> {
        Ok(Box::new(TextCommitter { folder: cx.path(&self.folder), overwrite: self.overwrite, names: Vec::new() }))
    }
}

/// Writes one file under a name that begins with a dot.
pub struct TextWriter<F> {
    folder: PathBuf,
    temporary: String,
    last: String,
    file: Option<File>,
    buffer: Vec<u8>,
    format: F,
}

impl<F> TextWriter<F> {
    fn send(&mut self) -> Result<(), TaskFailure> {
        let path = self.folder.join(&self.temporary);
        let file = match &mut self.file {
            Some(file) => file,
            // Made with the first record: a subtask without one leaves no file.
            None => self.file.insert(File::create(&path).map_err(|e| broken(&path, &e))?),
        };
        file.write_all(&self.buffer).map_err(|e| broken(&path, &e))?;
        self.buffer.clear();
        Ok(())
    }
}

impl<T: 'static, F: LineFormat<T>> SinkWriter<T> for TextWriter<F> {
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        self.format.line(&item, &mut self.buffer).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.send() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        let Some(file) = self.file.take() else { return Ok(Vec::new()) };
        let path = self.folder.join(&self.temporary);
        file.sync_all().map_err(|e| broken(&path, &e))?;
        let names = codec::encode(&(&self.temporary, &self.last));
        Ok(vec![names.map_err(|e| TaskFailure::new(FailureKind::User, e))?])
    }
}

struct TextCommitter {
    folder: PathBuf,
    overwrite: bool,
    /// Temporary and final names.
    names: Vec<(String, String)>,
}

impl TextCommitter {
    fn entries(&self) -> Result<Vec<String>, TaskFailure> {
        let entries = fs::read_dir(&self.folder).map_err(|e| broken(&self.folder, &e))?;
        Ok(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
    }

    fn remove(&self, name: &str) -> Result<(), TaskFailure> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(broken(&path, &e)),
            _ => Ok(()),
        }
    }
}

/// A name that the manifest may have: it cannot lead out of the folder.
fn is_plain(name: &str) -> bool {
    !name.contains('/') && (name.starts_with(TEMPORARY) || name.starts_with(FINAL))
}

impl Committer for TextCommitter {
    fn add(&mut self, part: Committable) -> Result<(), TaskFailure> {
        let names: (String, String) = codec::decode(&part.body)
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
        let names: Vec<(String, String)> = codec::decode(manifest)
            .map_err(|e| TaskFailure::new(FailureKind::Storage, format!("the manifest is damaged: {e}")))?;
        if !names.iter().all(|(t, f)| is_plain(t) && is_plain(f)) {
            return Err(TaskFailure::new(FailureKind::Storage, "the manifest names files outside of the folder"));
        }
        fs::create_dir_all(&self.folder).map_err(|e| broken(&self.folder, &e))?;
        let ours: BTreeSet<&str> = names.iter().map(|(_, last)| last.as_str()).collect();
        if self.overwrite {
            for name in self.entries()?.iter().filter(|n| n.starts_with(FINAL) && !ours.contains(n.as_str())) {
                self.remove(name)?;
            }
        }
        for (temporary, last) in &names {
            let (from, to) = (self.folder.join(temporary), self.folder.join(last));
            match fs::rename(&from, &to) {
                Ok(()) => {}
                // Renamed before, by this attempt or the one that prepared it.
                Err(e) if e.kind() == io::ErrorKind::NotFound && to.is_file() => {}
                Err(e) => return Err(broken(&from, &e)),
            }
        }
        for name in self.entries()?.iter().filter(|n| n.starts_with(TEMPORARY)) {
            self.remove(name)?;
        }
        let sync = File::open(&self.folder).and_then(|f| f.sync_all());
        sync.map_err(|e| broken(&self.folder, &e))
    }
}
