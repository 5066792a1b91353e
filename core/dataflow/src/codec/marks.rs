//! Watermarks, latency markers and barriers as bytes. They are few: clear before fast.

use super::Damaged;
use crate::{
    batch::Time,
    push::{CheckpointId, Mark},
};

const LATENCY: u8 = 1;

/// A watermark's bytes.
pub(crate) fn encode_mark(mark: Mark) -> Vec<u8> {
    match mark {
        Mark::At(at) => at.to_le_bytes().to_vec(),
        Mark::Idle => Vec::new(),
    }
}

/// A watermark from bytes.
pub(crate) fn decode_mark(body: &[u8]) -> Result<Mark, Damaged> {
    match <[u8; 8]>::try_from(body) {
        Ok(at) => Ok(Mark::At(Time::from_le_bytes(at))),
        Err(_) if body.is_empty() => Ok(Mark::Idle),
        Err(_) => Err(Damaged(format!("a watermark of {} bytes", body.len()))),
    }
}

/// A latency marker's bytes: one more than a watermark's.
pub(crate) fn encode_latency(at: Time) -> Vec<u8> {
    [&at.to_le_bytes()[..], &[LATENCY]].concat()
}

/// The latency marker, where the bytes are one.
pub(crate) fn decode_latency(body: &[u8]) -> Option<Time> {
    let (at, kind) = body.split_first_chunk()?;
    (kind == [LATENCY]).then(|| Time::from_le_bytes(*at))
}

/// A barrier's bytes.
pub(crate) fn encode_barrier(id: CheckpointId) -> Vec<u8> {
    [id.n.to_le_bytes(), id.epoch.0.to_le_bytes()].concat()
}

/// A barrier from bytes.
pub(crate) fn decode_barrier(body: &[u8]) -> Result<CheckpointId, Damaged> {
    let word = |at: usize| body.get(at..at + 8).and_then(|b| <[u8; 8]>::try_from(b).ok()).map(u64::from_le_bytes);
    match (word(0), word(8)) {
        (Some(n), Some(epoch)) if body.len() == 16 => Ok(CheckpointId { n, epoch: thalweg_model::Epoch(epoch) }),
        _ => Err(Damaged(format!("a barrier of {} bytes", body.len()))),
    }
}
