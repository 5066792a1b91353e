//! Reads a file up to a length, and fails where it ends early or, read as a whole, is not what its name says.

use sha2::{Digest, Sha256};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use thalweg_model::BlobKey;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, ReadBuf, Take},
};

/// A blob's bytes, checked on the way.
pub(crate) struct Verified {
    file: Take<File>,
    key: BlobKey,
    left: u64,
    /// `None` when only a part is read: a part has no hash to compare with.
    hash: Option<Sha256>,
}

impl Verified {
    pub(crate) fn new(file: File, key: BlobKey, length: u64, whole: bool) -> Self {
        Self { file: file.take(length), key, left: length, hash: whole.then(Sha256::new) }
    }

    /// Called once all is read.
    fn check(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        if BlobKey::from_bytes(hash.finalize().into()) == self.key {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("blob {} is damaged on disk", self.key)))
    }
}

impl AsyncRead for Verified {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.file).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        this.left = this.left.saturating_sub(new.len() as u64);
        if let Some(hash) = &mut this.hash {
            hash.update(new);
        }
        Poll::Ready(match (new.len(), this.left) {
            (0, 0) => this.check(),
            (0, left) => {
                let text = format!("blob {} ends {left} bytes early", this.key);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            _ => Ok(()),
        })
    }
}
