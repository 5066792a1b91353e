//! Text files: regular files, folders recursively, links within folders not followed, patterns, `.gz` and `.zst`. Large
//! files are read by several readers, each a range of whole lines.

use super::{
    Polled, Reader, ReaderCx, Source, TextBlock,
    blocks::{BlockReader, Limit},
    files::{FileEnumerator, FileSplit, Files},
    half_read::{HalfRead, HalfReads},
};
use crate::{build::OpCx, push::Push};
use memchr::memchr;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use thalweg_model::{FailureKind, TaskFailure};

/// What becomes of a line that is not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InvalidUtf8 {
    /// The bytes that are not become `U+FFFD`.
    #[default]
    Replace,
    /// The job fails, and says where the line is.
    Fail,
    /// The line is left out and counted.
    Skip,
}

#[derive(Clone, Copy, Default)]
struct Options {
    max_line: Option<usize>,
    invalid_utf8: InvalidUtf8,
}

impl Options {
    fn limit(self, cx: &OpCx) -> Limit {
        Limit { bytes: self.max_line.unwrap_or_else(|| cx.max_record()), own: self.max_line.is_some() }
    }
}

macro_rules! text_source { ($(#[$doc:meta])* $name:ident, $item:ty, $reader:ty, $kind:literal, $make:expr) => {
    $(#[$doc])*
    #[derive(Clone)]
    pub struct $name {
        files: Files,
        options: Options,
    }

    impl $name {
        /// Of these files and folders, and of what patterns of `*`, `?` and `[a-z]` match; `**` is folders at any depth,
        /// and at the end all files in them. A file is read once, however often it is found. Names that end in `.gz` or
        /// `.zst` are decompressed.
        pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
            let files = Files { paths: paths.into_iter().map(Into::into).collect(), every: None };
            Self { files, options: Options::default() }
        }

        /// Looks for more files so often, for ever: the source has no end then. A file is read once, when it was found
        /// alike in two looks, or unchanged for as long as is between them; what is written to it later is not read.
        /// Names that begin with a dot or `_` are left out.
        pub fn monitor(mut self, every: Duration) -> Self {
            self.files.every = Some(every);
            self
        }

        /// Longer lines fail the job; `exchange.max-record` where this is not called. A reader holds about one of them and
        /// 512 KiB. Blocks cut long lines at white space, so it counts for what has none.
        pub fn max_line(mut self, bytes: usize) -> Self {
            self.options.max_line = Some(bytes);
            self
        }
    }

    impl Source for $name {
        type Item = $item;
        type Split = FileSplit;
        type Enumerator = FileEnumerator;
        type Reader = $reader;
        fn kind(&self) -> &'static str {
            $kind
        }
        fn is_bounded(&self) -> bool {
            self.files.every.is_none()
        }
        fn check(&self, client_dir: &Path) -> Result<(), String> {
            self.files.check(client_dir)
        }
        fn enumerator(&self, cx: &OpCx) -> Result<Self::Enumerator, TaskFailure> {
            self.files.enumerator(cx)
        }
        fn reader(&self, cx: &OpCx) -> Result<$reader, TaskFailure> {
            Ok(($make)(self.options, self.options.limit(cx)))
        }
    }
} }
text_source!(
    /// Blocks of whole lines, any bytes: the fast way to count words. Lines of more than 1 MiB are cut at white space.
    TextBlocks, TextBlock, BlocksReader, "text-blocks-source", BlocksReader::new
);
text_source!(
    /// Lines as strings, without their ends (`\n` or `\r\n`). For what is not UTF-8 see [`TextLines::invalid_utf8`].
    TextLines, String, LinesReader, "text-source", LinesReader::new
);

impl TextLines {
    /// What becomes of lines that are not UTF-8.
    pub fn invalid_utf8(mut self, how: InvalidUtf8) -> Self {
        self.options.invalid_utf8 = how;
        self
    }
}

/// Reads blocks.
pub struct BlocksReader {
    splits: HalfReads<BlockReader>,
    limit: Limit,
}

impl BlocksReader {
    fn new(_: Options, limit: Limit) -> Self {
        Self { splits: HalfReads::new(), limit }
    }
}

impl Reader for BlocksReader {
    type Item = TextBlock;
    type Split = FileSplit;
    fn add(&mut self, split: FileSplit) {
        self.splits.add(BlockReader::new(split, false, self.limit));
    }
    fn poll(&mut self, _: usize, out: &mut impl Push<TextBlock>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let Some(split) = self.splits.current() else { return Ok(Polled::Done) };
        let block = split.next(cx)?;
        let ended = split.split.end == 0;
        if !block.is_empty() {
            out.emit(TextBlock::new(block));
        }
        Ok(self.splits.polled(ended))
    }
    fn reading(&self) -> Option<usize> {
        self.splits.reading()
    }
    fn at_once(&self) -> bool {
        false
    }
    fn turn_to(&mut self, place: usize) -> bool {
        self.splits.turn_to(place)
    }
    fn unfinished(&self) -> Vec<FileSplit> {
        self.splits.left()
    }
}

/// A split, and what of its last block was not given out yet.
struct Lines {
    file: BlockReader,
    block: Vec<u8>,
    at: usize,
}

impl HalfRead for Lines {
    fn file(&self) -> &BlockReader {
        &self.file
    }
    fn left(&self) -> FileSplit {
        let (mut left, rest) = (self.file.split.clone(), (self.block.len() - self.at) as u64);
        if rest > 0 {
            // What of the block is not given out yet is read again. A part that was read to its end keeps just that.
            let (finished, end) = (left.end == 0, left.start);
            left.start -= rest;
            if finished {
                left.end = end;
            }
        }
        left
    }
    fn close(&mut self) {
        self.file.split = self.left();
        self.file.close_file();
        (self.block, self.at) = (Vec::new(), 0);
    }
}

/// Reads lines.
pub struct LinesReader {
    splits: HalfReads<Lines>,
    options: Options,
    limit: Limit,
}

impl LinesReader {
    fn new(options: Options, limit: Limit) -> Self {
        Self { splits: HalfReads::new(), options, limit }
    }
}

impl Reader for LinesReader {
    type Item = String;
    type Split = FileSplit;
    fn add(&mut self, split: FileSplit) {
        self.splits.add(Lines { file: BlockReader::new(split, true, self.limit), block: Vec::new(), at: 0 });
    }
    fn poll(&mut self, budget: usize, out: &mut impl Push<String>, cx: &mut ReaderCx) -> Result<Polled, TaskFailure> {
        let Some(Lines { file, block, at }) = self.splits.current() else { return Ok(Polled::Done) };
        if *at == block.len() && file.split.end > 0 {
            (*block, *at) = (file.next(cx)?, 0);
        }
        let path = file.split.path.display();
        match file.split.packed {
            Some(_) => cx.reads(format_args!("the text of {path}")),
            None => cx.reads(path),
        }
        for _ in 0..budget {
            if *at == block.len() {
                break;
            }
            let rest = &block[*at..];
            let line = memchr(b'\n', rest).map_or(rest, |i| &rest[..i]);
            let begin = file.split.start - rest.len() as u64;
            if line.len() > self.limit.bytes {
                return Err(file.too_long(begin));
            }
            *at = (*at + line.len() + 1).min(block.len());
            cx.at(begin);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match (std::str::from_utf8(line), self.options.invalid_utf8) {
                (Ok(line), _) => out.emit(line.to_owned()),
                (Err(_), InvalidUtf8::Replace) => out.emit(String::from_utf8_lossy(line).into_owned()),
                (Err(_), InvalidUtf8::Skip) => cx.skipped(1),
                (Err(e), InvalidUtf8::Fail) => {
                    let (path, at) = (file.split.path.display(), begin + e.valid_up_to() as u64);
                    let message = format!(
                        "input {path} is not UTF-8 at byte {at}: convert it, or choose InvalidUtf8::Replace or Skip"
                    );
                    return Err(TaskFailure::new(FailureKind::User, message));
                }
            }
        }
        let ended = *at == block.len() && file.split.end == 0;
        Ok(self.splits.polled(ended))
    }
    fn reading(&self) -> Option<usize> {
        self.splits.reading()
    }
    fn at_once(&self) -> bool {
        false
    }
    fn turn_to(&mut self, place: usize) -> bool {
        self.splits.turn_to(place)
    }
    fn unfinished(&self) -> Vec<FileSplit> {
        self.splits.left()
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
