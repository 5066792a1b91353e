//! Blocks of whole lines, and the words in them. Who reads them from files is next door.

use super::blocks::is_space;
use crate::key::Str;
use serde::{Deserialize, Serialize};
use std::string::FromUtf8Error;

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
