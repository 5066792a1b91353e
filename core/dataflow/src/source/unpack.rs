//! Compressed files as streams of the bytes that are in them, a little at a time. Which files are compressed their names
//! say. It knows no lines: those are the block reader's.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

/// How a file is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packing {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

impl Packing {
    /// By the ending of the name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?;
        if ending.eq_ignore_ascii_case("gz") {
            Some(Self::Gzip)
        } else if ending.eq_ignore_ascii_case("zst") {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// A command that says whether such a file is whole.
    pub(super) fn test(self) -> &'static str {
        match self {
            Self::Gzip => "gzip -t",
            Self::Zstd => "zstd -t",
        }
    }
}

/// The file itself: how much of it was taken, and whether an error is its own or one of what is in it.
struct Watched {
    file: File,
    taken: u64,
    failed: bool,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer);
        match &got {
            Ok(n) => self.taken += *n as u64,
            Err(e) => self.failed = e.kind() != io::ErrorKind::Interrupted,
        }
        got
    }
}

enum Decoder {
    Gzip(flate2::bufread::MultiGzDecoder<BufReader<Watched>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Watched>>),
}

/// A compressed file that is being read. Several members or frames after each other are one text.
pub(super) struct Unpacked {
    decoder: Decoder,
    told: u64,
    /// Some of a gzip's text was read.
    began: bool,
}

impl Unpacked {
    pub(super) fn new(packing: Packing, file: File) -> io::Result<Self> {
        let file = BufReader::with_capacity(128 << 10, Watched { file, taken: 0, failed: false });
        let decoder = match packing {
            Packing::Gzip => Decoder::Gzip(flate2::bufread::MultiGzDecoder::new(file)),
            Packing::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(file)?),
        };
        Ok(Self { decoder, told: 0, began: false })
    }

    fn watched(&self) -> &Watched {
        match &self.decoder {
            Decoder::Gzip(d) => d.get_ref().get_ref(),
            Decoder::Zstd(d) => d.get_ref().get_ref(),
        }
    }

    /// Bytes of the file that were read.
    pub(super) fn taken(&self) -> u64 {
        self.watched().taken
    }

    /// The same, those alone that were not told before.
    pub(super) fn newly_taken(&mut self) -> u64 {
        let taken = self.taken();
        taken - std::mem::replace(&mut self.told, taken)
    }

    /// Was the last error one of reading the file, and not of what is in it?
    pub(super) fn file_failed(&self) -> bool {
        self.watched().failed
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Gzip(d) => match d.read(buffer) {
                // Within a header, and not the first one: all before it is whole. The decoder would say that the file
                // ends too early, or that it is no gzip.
                Err(e) if self.began && d.header().is_none() && !d.get_ref().get_ref().failed => {
                    let message = format!("what follows the end of its gzip is none, or not complete ({e})");
                    Err(io::Error::new(e.kind(), message))
                }
                got => {
                    self.began |= d.header().is_some();
                    got
                }
            },
            Decoder::Zstd(d) => d.read(buffer),
        }
    }
}
