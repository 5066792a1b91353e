//! Brings records back to the program, in the job's result. For small answers: it is bounded.

use super::{Committable, Committer, Manifest, Sink, SinkWriter};
use crate::{batch::Time, build::OpCx, codec, key::Data};
use bytes::Bytes;
use std::{any::type_name, fmt::Display, marker::PhantomData};
use thalweg_model::{FailureKind, TaskFailure};

/// Bytes that one `collect` may bring back: less than a message between processes may have by default, in which they travel
/// with some words around them.
pub const MAX_COLLECTED: usize = 15 << 20;
/// Bytes of one piece on the way to the committer.
const PIECE: usize = 256 << 10;

/// Gathers records for the job's result.
pub struct Collect<T>(PhantomData<fn(T)>);

impl<T> Collect<T> {
    /// A new one.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T: Data> Sink<T> for Collect<T> {
    type Writer = CollectWriter;
    fn kind(&self) -> &'static str {
        "collect-sink"
    }
    fn writer(&self, cx: &OpCx) -> Result<CollectWriter, TaskFailure> {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for (writer, part) in cx.restored().filter(|(writer, _)| writer % cx.parallelism == cx.subtask) {
            let part: Vec<Vec<u8>> = codec::decode(part).map_err(|e| {
                cx.failure(FailureKind::Storage, format!("what subtask {writer} had collected cannot be read: {e}"))
            })?;
            pieces.extend(part);
        }
        Ok(CollectWriter { bytes: pieces.iter().map(Vec::len).sum(), pieces, piece: Vec::new(), tried: false })
    }
    fn commits(&self) -> bool {
        true
    }
    fn committer(&self, _: &OpCx) -> Result<Box<dyn Committer>, TaskFailure> {
        Ok(Box::new(CollectCommitter { parts: Vec::new(), bytes: 0 }))
    }
}

fn too_much() -> TaskFailure {
    let message =
        format!("collect() brings back at most {} MiB: collect less, or write_text() to a folder", MAX_COLLECTED >> 20);
    TaskFailure::new(FailureKind::User, message)
}

/// What is wrong with a type, and what to do. The format says it in words that mean nothing to its user.
fn not_collectable<T>(what: &dyn Display) -> String {
    format!(
        "a record ({}) cannot be collected: {what}; its `Serialize` and its `Deserialize` must agree, of which types and in \
         which order, and records are collected in a form without names of fields: take `#[serde(untagged)]`, `tag`, \
         `flatten` and `skip_serializing_if` away from it, or map it to a string of JSON before collect()",
        type_name::<T>()
    )
}

/// Encodes records, one behind the other, each behind its length.
pub struct CollectWriter {
    pieces: Vec<Vec<u8>>,
    piece: Vec<u8>,
    bytes: usize,
    /// A record was read back: a type that cannot be is told of while the job runs.
    tried: bool,
}

impl<T: Data> SinkWriter<T> for CollectWriter {
    fn write(&mut self, _: Time, item: T) -> Result<(), TaskFailure> {
        let refused = |e: String| TaskFailure::new(FailureKind::User, not_collectable::<T>(&e));
        let encoded = codec::encode(&item).map_err(refused)?;
        if !self.tried {
            self.tried = true;
            codec::decode::<T>(&encoded).map_err(refused)?;
        }
        let length = codec::encode(&encoded.len()).map_err(refused)?;
        self.bytes += length.len() + encoded.len();
        if self.bytes > MAX_COLLECTED {
            return Err(too_much());
        }
        self.piece.extend_from_slice(&length);
        self.piece.extend_from_slice(&encoded);
        if self.piece.len() >= PIECE {
            self.pieces.push(std::mem::take(&mut self.piece));
        }
        Ok(())
    }
    fn snapshot(&mut self) -> Result<Option<Vec<u8>>, TaskFailure> {
        let all: Vec<&Vec<u8>> = self.pieces.iter().chain([&self.piece]).collect();
        let bytes = codec::encode(&all).map_err(|e| TaskFailure::new(FailureKind::User, e))?;
        Ok(Some(bytes))
    }
    fn end(&mut self) -> Result<Vec<Vec<u8>>, TaskFailure> {
        self.pieces.push(std::mem::take(&mut self.piece));
        Ok(std::mem::take(&mut self.pieces))
    }
}

struct CollectCommitter {
    parts: Vec<Committable>,
    bytes: usize,
}

impl Committer for CollectCommitter {
    fn add(&mut self, part: Committable) -> Result<(), TaskFailure> {
        self.bytes += part.body.len();
        self.parts.push(part);
        if self.bytes > MAX_COLLECTED { Err(too_much()) } else { Ok(()) }
    }
    fn prepare(&mut self) -> Result<Manifest, TaskFailure> {
        // By subtask, so that one run's answer is in the order of the next one's.
        self.parts.sort_unstable();
        let all: Vec<u8> = self.parts.drain(..).flat_map(|p| p.body).collect();
        Ok(Manifest { bytes: Bytes::new(), collected: Some(all.into()) })
    }
    fn publish(&mut self, _: &[u8]) -> Result<(), TaskFailure> {
        // The value is in the JobMaster's record already.
        Ok(())
    }
}

/// The records of a `collect`. An error when they are no records of this type, or cannot be read back.
pub fn decode_collected<T: Data>(mut bytes: &[u8]) -> Result<Vec<T>, String> {
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let damaged = || "the collected bytes are damaged".to_owned();
        let (length, rest) = postcard::take_from_bytes::<usize>(bytes).map_err(|_| damaged())?;
        let (record, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        items.push(codec::decode(record).map_err(|e| not_collectable::<T>(&e))?);
        bytes = rest;
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_records_are_an_error_and_no_panic() {
        let of = |records: &[(u64, String)]| {
            let mut writer = CollectWriter { pieces: Vec::new(), piece: Vec::new(), bytes: 0, tried: false };
            records.iter().for_each(|record| writer.write(0, record.clone()).unwrap());
            SinkWriter::<(u64, String)>::end(&mut writer).unwrap().concat()
        };
        let records = [(1, "one".to_owned()), (300, String::new()), (u64::MAX, "x".repeat(300))];
        let bytes = of(&records);
        assert_eq!(decode_collected::<(u64, String)>(&bytes).unwrap(), records);
        // Where it is cut between two records, the ones before it are whole.
        let ends: Vec<_> = (0..=records.len()).map(|n| of(&records[..n]).len()).collect();
        for cut in (0..bytes.len()).filter(|cut| !ends.contains(cut)) {
            assert!(decode_collected::<(u64, String)>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                // An error, or other records; never a panic.
                let _ = decode_collected::<(u64, String)>(&damaged);
            }
        }
        // A length beyond all bytes, and one beyond all numbers.
        assert!(decode_collected::<()>(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(decode_collected::<()>(&[0xff; 20]).is_err());
        // Another type, and more bytes than the record takes.
        assert!(decode_collected::<u8>(&bytes).unwrap_err().contains("must agree"));
    }
}
