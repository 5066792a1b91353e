//! Text files: regular files, folders recursively, links within folders not followed. Large files are read by several
//! readers, each a range of whole lines.

use super::{Polled, Reader, ReaderCx, Source, splits::Known};
use crate::{build::OpCx, key::Str, push::Push};
use memchr::{memchr, memrchr};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    string::FromUtf8Error,
};
use thalweg_model::{FailureKind, TaskFailure};

/// Longest split, bytes.
const MAX_SPLIT: u64 = 16 << 20;
/// Shortest one, unless the file is shorter.
const MIN_SPLIT: u64 = 256 << 10;
/// Bytes of one block.
const BLOCK: usize = 256 << 10;
/// A line longer than this is given out in pieces, where the reader gives out blocks.
const LONG_LINE: usize = 1 << 20;

/// Part of a file: the lines that begin in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    path: PathBuf,
    start: u64,
    end: u64,
    /// `start` is where reading goes on, be it the beginning of a line or not.
    exact: bool,
}

#[derive(Clone)]
struct Files(Vec<PathBuf>);

impl Files {
    fn check(&self, client_dir: &Path) -> Result<(), String> {
        let mut wrong = Vec::new();
        if self.0.is_empty() {
            wrong.push("no input path was given: name a file or a folder".to_owned());
        }
        for path in &self.0 {
            let full = client_dir.join(path);
            match std::fs::metadata(&full) {
                Ok(m) if m.is_file() => {
                    if let Err(e) = File::open(&full) {
                        wrong.push(format!("input {} cannot be read: {e}", full.display()));
                    }
                }
                Ok(m) if m.is_dir() => {
                    if let Err(e) = std::fs::read_dir(&full) {
                        wrong.push(format!("input folder {} cannot be read: {e}", full.display()));
                    }
                }
                Ok(_) => wrong.push(format!("input {} is neither a file nor a folder", full.display())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let hint = if path.is_relative() { " (relative paths start in the client's folder)" } else { "" };
                    wrong.push(format!("input {} does not exist{hint}: check the path", full.display()));
                }
                Err(e) => wrong.push(format!("input {} cannot be read: {e}", full.display())),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn splits(&self, cx: &OpCx) -> Result<Vec<FileSplit>, TaskFailure> {
        let mut files = Vec::new();
        for path in &self.0 {
            let full = cx.path(path);
            let kind = std::fs::metadata(&full).map_err(|e| broken(&full, &e))?;
            walk(&full, kind.is_dir(), &mut files)?;
        }
        Ok(cut(files, cx.readers()))
    }

    fn enumerator(&self, cx: &OpCx) -> Result<Known<FileSplit>, TaskFailure> {
        Known::open(cx, || self.splits(cx), |s| s.end - s.start)
    }
}

fn broken(path: &Path, error: &io::Error) -> TaskFailure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => FailureKind::User,
        _ => FailureKind::Storage,
    };
    TaskFailure::new(kind, format!("input {}: {error}", path.display()))
}

fn walk(path: &Path, is_dir: bool, files: &mut Vec<(PathBuf, u64)>) -> Result<(), TaskFailure> {
    if is_dir {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut entries = entries.map_err(|e| broken(path, &e))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            // The kind of the entry itself: a link is neither folder nor file here.
            let kind = entry.file_type().map_err(|e| broken(&entry.path(), &e))?;
            if kind.is_dir() || kind.is_file() {
                walk(&entry.path(), kind.is_dir(), files)?;
            }
        }
        return Ok(());
    }
    let length = std::fs::metadata(path).map_err(|e| broken(path, &e))?.len();
    files.push((path.to_owned(), length));
    Ok(())
}

/// Cuts the files so that each reader has a few splits, if there is enough: a small input is shared out too, and a large
/// one has no more splits than are worth asking for.
fn cut(files: Vec<(PathBuf, u64)>, readers: u32) -> Vec<FileSplit> {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let size = (total / (4 * u64::from(readers.max(1)))).clamp(MIN_SPLIT, MAX_SPLIT);
    let mut splits = Vec::new();
    for (path, length) in files {
        let mut start = 0;
        while start < length {
            // The last part takes a small rest along.
            let end = if length - start < size + size / 4 { length } else { start + size };
            splits.push(FileSplit { path: path.clone(), start, end, exact: false });
            start = end;
        }
    }
    splits
}

/// Reads one split in blocks of whole lines.
struct BlockReader {
    split: FileSplit,
    file: Option<File>,
    /// Bytes behind the last whole line, read before `split.start + carry.len()`.
    carry: Vec<u8>,
    whole_lines: bool,
    max_record: usize,
}

impl BlockReader {
    fn new(split: FileSplit, whole_lines: bool, max_record: usize) -> Self {
        Self { split, file: None, carry: Vec::new(), whole_lines, max_record }
    }

    /// The next block; empty at the end of the split. After it `split` says what is left.
    fn next(&mut self, cx: &ReaderCx) -> Result<Vec<u8>, TaskFailure> {
        let path = self.split.path.clone();
        self.read(cx).map_err(|e| match e {
            ReadError::Io(e) => broken(&path, &e),
            ReadError::TooLong(n) => TaskFailure::new(
                FailureKind::User,
                format!(
                    "input {} has a line of more than {n} bytes at byte {}: exchange.max-record is {n}; raise it, or read the file in blocks",
                    path.display(),
                    self.split.start
                ),
            ),
        })
    }

    fn read(&mut self, cx: &ReaderCx) -> Result<Vec<u8>, ReadError> {
        if self.file.is_none() {
            let mut file = File::open(&self.split.path)?;
            if !self.split.exact && self.split.start > 0 {
                // A line that began before belongs to the reader before; so does one that ends just before `start`.
                file.seek(SeekFrom::Start(self.split.start - 1))?;
                self.skip_line(&mut file)?;
                if self.split.start >= self.split.end {
                    return Ok(Vec::new());
                }
            } else {
                file.seek(SeekFrom::Start(self.split.start))?;
            }
            self.split.exact = true;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        let mut block = std::mem::take(&mut self.carry);
        let mut searched = 0;
        loop {
            let before = block.len();
            block.reserve(BLOCK);
            let got = file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            let at_end = got < BLOCK;
            let start = self.split.start;
            // The first line break at or behind the last byte of the split ends the reader's part.
            let last = (self.split.end.saturating_sub(1).saturating_sub(start) as usize).max(searched);
            let ending = block.get(last..).and_then(|tail| memchr(b'\n', tail)).map(|i| last + i + 1);
            let cut = match ending {
                Some(cut) => {
                    self.split.end = 0;
                    cut
                }
                None if at_end => {
                    self.split.end = 0;
                    block.len()
                }
                None => match memrchr(b'\n', &block[before.min(block.len())..]).map(|i| before + i + 1) {
                    // Line breaks behind the last byte were looked for above, so this one is within the split.
                    Some(cut) => cut,
                    None if !self.whole_lines && block.len() >= LONG_LINE => match block.iter().rposition(is_space) {
                        Some(i) => i + 1,
                        None if block.len() > self.max_record => return Err(ReadError::TooLong(self.max_record)),
                        None => 0,
                    },
                    None if block.len() > self.max_record => return Err(ReadError::TooLong(self.max_record)),
                    None => 0,
                },
            };
            if self.split.end == 0 {
                block.truncate(cut);
                self.split.start = start + cut as u64;
                cx.read_bytes(cut as u64);
                return Ok(block);
            }
            if cut > 0 {
                self.carry = block.split_off(cut);
                self.split.start = start + cut as u64;
                cx.read_bytes(cut as u64);
                return Ok(block);
            }
            searched = block.len();
        }
    }

    fn skip_line(&mut self, file: &mut File) -> io::Result<()> {
        let mut at = self.split.start - 1;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
                self.split.start = self.split.end.max(at);
                return Ok(());
            }
            if let Some(i) = memchr(b'\n', &buffer[..got]) {
                let begin = at + i as u64 + 1;
                self.split.start = begin;
                file.seek(SeekFrom::Start(begin))?;
                return Ok(());
            }
            at += got as u64;
        }
    }
}

enum ReadError {
    Io(io::Error),
    TooLong(usize),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// ASCII white space as `tr '[:space:]'` has it: with the vertical tab, which `u8::is_ascii_whitespace` leaves out.
#[inline(always)]
fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Some whole lines of a file, any bytes. Lines of more than 1 MiB may be cut at white space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextBlock(Vec<u8>);

impl TextBlock {
    /// A block of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The lines, without their ends.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.strip_suffix(b"\n").unwrap_or(&self.0).split(|b| *b == b'\n')
    }

    /// The words: what stands between ASCII white space.
    pub fn words(&self) -> Words<'_> {
        Words(&self.0)
    }

    /// The words as strings of their own; what is no UTF-8 is replaced in them.
    pub fn into_words(self) -> IntoWords {
        IntoWords { text: String::from_utf8(self.0).map_err(FromUtf8Error::into_bytes), at: 0 }
    }
}

/// The words of a block that is given up for them.
#[derive(Clone, Debug)]
pub struct IntoWords {
    /// All of it is UTF-8, as nearly always: looked at once, and not word by word.
    text: Result<String, Vec<u8>>,
    at: usize,
}

impl Iterator for IntoWords {
    type Item = Str;
    #[inline]
    fn next(&mut self) -> Option<Str> {
        let block = match &self.text {
            Ok(text) => text.as_bytes(),
            Err(bytes) => bytes,
        };
        let mut words = Words(block.get(self.at..)?);
        let word = words.next()?;
        let end = block.len() - words.0.len();
        self.at = end;
        match &self.text {
            // White space is ASCII, so a word begins and ends between characters.
            Ok(text) => text.get(end - word.len()..end).map(Str::from),
            Err(_) => Some(Str::from_utf8_lossy(word)),
        }
    }
}

/// The words of some bytes.
#[derive(Clone, Debug)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let from = self.0.iter().position(|b| !is_space(b))?;
        let rest = &self.0[from..];
        let end = rest.iter().position(is_space).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

macro_rules! text_source { ($(#[$doc:meta])* $name:ident, $item:ty, $reader:ty, $kind:literal, $make:expr) => {
    $(#[$doc])*
    #[derive(Clone)]
    pub struct $name(Files);

    impl $name {
        /// Of these files and folders.
        pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
            Self(Files(paths.into_iter().map(Into::into).collect()))
        }
    }

    impl Source for $name {
        type Item = $item;
        type Split = FileSplit;
        type Enumerator = Known<FileSplit>;
        type Reader = $reader;
        fn kind(&self) -> &'static str {
            $kind
        }
        fn is_bounded(&self) -> bool {
            true
        }
        fn check(&self, client_dir: &Path) -> Result<(), String> {
            self.0.check(client_dir)
        }
        fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
            self.0.enumerator(cx)
        }
        fn reader(&self, cx: &OpCx) -> Result<$reader, TaskFailure> {
            Ok(($make)(cx.max_record()))
        }
    }
} }
text_source!(
    /// Blocks of whole lines, any bytes: the fast way to count words.
    TextBlocks, TextBlock, BlocksReader, "text-blocks-source", BlocksReader::new
);
text_source!(
    /// Lines as strings, without their ends (`\n` or `\r\n`); bytes that are not UTF-8 become `U+FFFD`.
    TextLines, String, LinesReader, "text-source", LinesReader::new
);

/// Reads blocks.
pub struct BlocksReader {
    splits: Vec<BlockReader>,
    max_record: usize,
}

impl BlocksReader {
    fn new(max_record: usize) -> Self {
        Self { splits: Vec::new(), max_record }
    }
}

impl Reader for BlocksReader {
    type Item = TextBlock;
    type Split = FileSplit;
    fn add(&mut self, split: FileSplit) {
        self.splits.push(BlockReader::new(split, false, self.max_record));
    }
    fn poll(&mut self, _: usize, out: &mut impl Push<TextBlock>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let Some(split) = self.splits.last_mut() else { return Ok(Polled::Done) };
        let block = split.next(cx)?;
        if split.split.end == 0 || block.is_empty() {
            self.splits.pop();
        }
        if !block.is_empty() {
            out.emit(TextBlock(block));
        }
        Ok(if self.splits.is_empty() { Polled::Done } else { Polled::Progress })
    }
    fn unfinished(&self) -> Vec<FileSplit> {
        self.splits.iter().map(|s| s.split.clone()).collect()
    }
}

/// Reads lines.
pub struct LinesReader {
    splits: Vec<BlockReader>,
    block: Vec<u8>,
    at: usize,
    max_record: usize,
}

impl LinesReader {
    fn new(max_record: usize) -> Self {
        Self { splits: Vec::new(), block: Vec::new(), at: 0, max_record }
    }
}

impl Reader for LinesReader {
    type Item = String;
    type Split = FileSplit;
    fn add(&mut self, split: FileSplit) {
        self.splits.push(BlockReader::new(split, true, self.max_record));
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<String>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let Some(split) = self.splits.last_mut() else { return Ok(Polled::Done) };
        if self.at == self.block.len() && split.split.end > 0 {
            (self.block, self.at) = (split.next(cx)?, 0);
            if self.block.is_empty() {
                split.split.end = 0;
            }
        }
        for _ in 0..budget {
            if self.at == self.block.len() {
                break;
            }
            let rest = &self.block[self.at..];
            let line = memchr(b'\n', rest).map_or(rest, |i| &rest[..i]);
            self.at = (self.at + line.len() + 1).min(self.block.len());
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            out.emit(String::from_utf8_lossy(line).into_owned());
        }
        if self.at == self.block.len() && split.split.end == 0 {
            self.splits.pop();
        }
        Ok(if self.splits.is_empty() { Polled::Done } else { Polled::Progress })
    }
    fn unfinished(&self) -> Vec<FileSplit> {
        let mut left: Vec<_> = self.splits.iter().map(|s| s.split.clone()).collect();
        if let (Some(last), rest) = (left.last_mut(), (self.block.len() - self.at) as u64)
            && rest > 0
        {
            // What of the block is not given out yet is read again. A part that was read to its end keeps just that.
            let finished = last.end == 0;
            let end = last.start;
            last.start -= rest;
            if finished {
                last.end = end;
            }
        }
        left
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
