//! Reads one split of a file in blocks of whole lines, with bounded memory, and says what is wrong with a file that
//! changed, vanished or is damaged. What the lines mean is not its business.

use super::{
    ReaderCx,
    files::{FileSplit, broken},
    unpack::{Packing, Unpacked},
};
use memchr::{memchr, memrchr};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
};
use thalweg_model::{FailureKind, TaskFailure};

/// Bytes of one block.
const BLOCK: usize = 256 << 10;
/// A line longer than this is given out in pieces, where the reader gives out blocks.
const LONG_LINE: usize = 1 << 20;

/// How long a line may be.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    /// By the source's own option, and not by `exchange.max-record`.
    pub(super) own: bool,
}

enum Input {
    Plain(File),
    Packed(Box<Unpacked>),
}

impl Input {
    /// Reads until `buffer` has a block more; fewer only at the end.
    fn block(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.reserve(BLOCK);
        match self {
            Self::Plain(file) => file.take(BLOCK as u64).read_to_end(buffer),
            Self::Packed(text) => text.take(BLOCK as u64).read_to_end(buffer),
        }
    }
}

/// Reads one split in blocks of whole lines.
pub(super) struct BlockReader {
    pub(super) split: FileSplit,
    input: Option<Input>,
    /// Bytes behind the last whole line, read before `split.start + carry.len()`.
    carry: Vec<u8>,
    /// Bytes of a compressed file's text that were given out before a restore and are passed over now.
    skip: u64,
    whole_lines: bool,
    limit: Limit,
    /// Device and number of the file that was opened first: one that is opened again is to be the same.
    first: Option<(u64, u64)>,
}

impl BlockReader {
    pub(super) fn new(split: FileSplit, whole_lines: bool, limit: Limit) -> Self {
        Self { split, input: None, carry: Vec::new(), skip: 0, whole_lines, limit, first: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.input.is_some()
    }

    /// Closes its file. The next block is read from a file that is opened again; a compressed one is unpacked up to
    /// there.
    pub(super) fn close_file(&mut self) {
        (self.input, self.carry) = (None, Vec::new());
    }

    /// The next block. After it `split` says what is left: at the end of the split its `end` is 0. An empty block before
    /// that is no end: ask again.
    pub(super) fn next(&mut self, cx: &ReaderCx) -> Result<Vec<u8>, TaskFailure> {
        self.read(cx).map_err(|e| self.failure(e))
    }

    /// A line that begins at this byte is too long.
    pub(super) fn too_long(&self, at: u64) -> TaskFailure {
        let text = if self.split.packed.is_some() { " of its text" } else { "" };
        self.too_long_at(&format!("at byte {at}{text}"))
    }

    fn too_long_at(&self, place: &str) -> TaskFailure {
        let (path, bytes) = (self.split.path.display(), self.limit.bytes);
        let (what, option) = if self.whole_lines {
            ("a line", "TextLines::max_line")
        } else {
            ("a line without white space", "TextBlocks::max_line")
        };
        let which = if self.limit.own {
            format!("{option} is {bytes}; raise it")
        } else {
            format!("exchange.max-record is {bytes}; allow more with {option}(bytes)")
        };
        let message = format!("input {path} has {what} of more than {bytes} bytes {place}: {which}");
        TaskFailure::new(FailureKind::User, message)
    }

    fn failure(&self, error: ReadError) -> TaskFailure {
        let path = &self.split.path;
        // A job that starts again would find less than it found before, and say nothing.
        let user = |message| TaskFailure::new(FailureKind::User, message);
        match error {
            ReadError::Open(e) if e.kind() == io::ErrorKind::NotFound => user(format!(
                "input {} was there when the job listed its input, and is gone: leave files where they are while a job \
                 reads them",
                path.display()
            )),
            ReadError::Open(e) | ReadError::Io(e) => match &self.input {
                Some(Input::Packed(text)) if !text.file_failed() => {
                    let test = Packing::of(path).map_or("", Packing::test);
                    user(format!(
                        "input {} is damaged or not complete: {e} (after {} bytes of it): look at it with `{test}`, and \
                         take a whole copy",
                        path.display(),
                        text.taken()
                    ))
                }
                _ => broken(path, &e),
            },
            ReadError::Shrunk { at, of } => user(format!(
                "input {} ends at or before byte {at} and went on to byte {of} when the job listed its input: leave files as they are while a \
                 job reads them",
                path.display()
            )),
            ReadError::Replaced => user(format!(
                "input {} is another file than the one that was read before: leave files as they are while a job reads \
                 them",
                path.display()
            )),
            ReadError::TooLong(at) => self.too_long(at),
            ReadError::TooLongBefore(at) => self.too_long_at(&format!("that begins before byte {at}")),
        }
    }

    fn open(&mut self) -> Result<(), ReadError> {
        let mut file = File::open(&self.split.path).map_err(ReadError::Open)?;
        let meta = file.metadata()?;
        let this = (meta.dev(), meta.ino());
        if *self.first.get_or_insert(this) != this {
            return Err(ReadError::Replaced);
        }
        match (self.split.packed, Packing::of(&self.split.path)) {
            (Some(length), Some(packing)) => {
                let now = meta.len();
                if now < length {
                    return Err(ReadError::Shrunk { at: now, of: length });
                }
                self.input = Some(Input::Packed(Box::new(Unpacked::new(packing, file)?)));
                self.skip = self.split.start;
            }
            _ if !self.split.exact && self.split.start > 0 => {
                // A line that began before belongs to the reader before; so does one that ends just before `start`.
                file.seek(SeekFrom::Start(self.split.start - 1))?;
                self.skip_line(&mut file)?;
                self.input = Some(Input::Plain(file));
            }
            _ => {
                file.seek(SeekFrom::Start(self.split.start))?;
                self.input = Some(Input::Plain(file));
            }
        }
        self.split.exact = true;
        Ok(())
    }

    fn read(&mut self, cx: &ReaderCx) -> Result<Vec<u8>, ReadError> {
        if self.input.is_none() {
            let exact = self.split.exact;
            self.open()?;
            // No line begins here. A line that is being read may well go on behind the end.
            if !exact && self.split.start >= self.split.end {
                self.split.end = 0;
                return Ok(Vec::new());
            }
        }
        let Some(input) = &mut self.input else { return Ok(Vec::new()) };
        let mut block = std::mem::take(&mut self.carry);
        if self.skip > 0 {
            // A block a call: others have their turn in between.
            let got = input.block(&mut block)?;
            let over = (got as u64).min(self.skip);
            self.skip -= over;
            if self.skip > 0 && got < BLOCK {
                return Err(ReadError::Shrunk { at: self.split.start - self.skip, of: self.split.start });
            }
            block.drain(..over as usize);
            self.carry = block;
            return Ok(Vec::new());
        }
        let mut searched = 0;
        loop {
            let got = input.block(&mut block)?;
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
                    let at = start + block.len() as u64;
                    if self.split.end != FileSplit::WHOLE && at < self.split.end {
                        return Err(ReadError::Shrunk { at, of: self.split.end });
                    }
                    if let (Input::Packed(text), Some(length)) = (&*input, self.split.packed)
                        && text.taken() < length
                    {
                        return Err(ReadError::Shrunk { at: text.taken(), of: length });
                    }
                    self.split.end = 0;
                    block.len()
                }
                None => match memrchr(b'\n', &block[searched..]).map(|i| searched + i + 1) {
                    // Line breaks behind the last byte were looked for above, so this one is within the split.
                    Some(cut) => cut,
                    None if !self.whole_lines && block.len() >= LONG_LINE => match block.iter().rposition(is_space) {
                        Some(i) => i + 1,
                        None if block.len() > self.limit.bytes => return Err(ReadError::TooLong(start)),
                        None => 0,
                    },
                    None if block.len() > self.limit.bytes => return Err(ReadError::TooLong(start)),
                    None => 0,
                },
            };
            if self.split.end == 0 || cut > 0 {
                if self.split.end > 0 {
                    self.carry = block.split_off(cut);
                }
                block.truncate(cut);
                self.split.start = start + cut as u64;
                cx.read_bytes(match input {
                    Input::Plain(_) => cut as u64,
                    Input::Packed(text) => text.newly_taken(),
                });
                return Ok(block);
            }
            searched = block.len();
        }
    }

    fn skip_line(&mut self, file: &mut File) -> Result<(), ReadError> {
        let begin = self.split.start - 1;
        let mut at = begin;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = file.read(&mut buffer)?;
            if got == 0 {
                if at < self.split.end {
                    return Err(ReadError::Shrunk { at, of: self.split.end });
                }
                self.split.start = at;
                return Ok(());
            }
            if let Some(i) = memchr(b'\n', &buffer[..got]) {
                let begin = at + i as u64 + 1;
                self.split.start = begin;
                file.seek(SeekFrom::Start(begin))?;
                return Ok(());
            }
            at += got as u64;
            // Whoever reads the line's beginning fails too; many readers must not look for its end.
            if self.whole_lines && at - begin > self.limit.bytes as u64 {
                return Err(ReadError::TooLongBefore(self.split.start));
            }
        }
    }
}

enum ReadError {
    Open(io::Error),
    Io(io::Error),
    Shrunk {
        at: u64,
        of: u64,
    },
    /// Opened again, it is another one.
    Replaced,
    /// A line that begins here.
    TooLong(u64),
    /// One that begins before this byte, where another reader is.
    TooLongBefore(u64),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// ASCII white space as `tr '[:space:]'` has it: with the vertical tab, which `u8::is_ascii_whitespace` leaves out.
#[inline(always)]
pub(super) fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
