//! Batches as bytes. Both ends are the same executable, so the form needs no evolution; but what arrives may still be
//! damaged, so decoding is bounded and never panics.
//!
//! ```text
//! u8 flags (1: timed) · u32 records · [i64 × records, when timed] · records, each in postcard
//! ```
//!
//! postcard, not bitcode (0.6, through serde): records are appended one at a time, so that a parcel is cut where it is
//! full, a record that is too long is known, and a decoder's memory is bounded by its input. Measured, ns a record to
//! encode + decode, on two busy cores: (u64, u64) postcard 9 + 7, bitcode 3 + 2; (bytes, u64) 12 + 24 and 11 + 23;
//! (String, u64) 12 + 27 and 6 + 17. Only numbers gain much, and a fixed layout by derive is there for those.

use crate::{
    batch::{Batch, Time},
    key::Data,
    push::{CheckpointId, Mark},
};
use serde::{Serialize, de::DeserializeOwned};

const TIMED: u8 = 1;
const HEAD: usize = 5;
const LATENCY: u8 = 1;
/// No batch has more records: what claims to is damage. It bounds also batches of records without bytes.
pub(crate) const MAX_RECORDS: usize = 1 << 16;

/// Bytes that are no batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) String);

/// Why a record cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// Its `Serialize` failed.
    Refused(String),
    /// Longer than `exchange.max-record`.
    TooLong(usize),
}

/// Encodes `items` (and their times, when there are any) into bodies of about `limit` bytes.
pub(crate) fn encode_batch<T: Data>(
    items: &[T],
    times: &[Time],
    limit: usize,
    max_record: usize,
    mut body: impl FnMut(Vec<u8>),
) -> Result<(), EncodeError> {
    let (mut from, mut records) = (0, Vec::with_capacity(limit.min(64 << 10)));
    for (i, item) in items.iter().enumerate() {
        let before = records.len();
        postcard::serialize_with_flavor(item, Append(&mut records)).map_err(|e| EncodeError::Refused(e.to_string()))?;
        let length = records.len() - before;
        if length > max_record {
            return Err(EncodeError::TooLong(length));
        }
        if records.len() >= limit || i + 1 - from == MAX_RECORDS {
            body(assemble(i + 1 - from, times.get(from..=i).unwrap_or_default(), &records));
            (from, records) = (i + 1, Vec::with_capacity(limit.min(64 << 10)));
        }
    }
    if from < items.len() {
        body(assemble(items.len() - from, times.get(from..).unwrap_or_default(), &records));
    }
    Ok(())
}

/// Appends to a vector: a third faster than postcard's own way through `io::Write`.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn assemble(count: usize, times: &[Time], records: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + times.len() * 8 + records.len());
    body.push(if times.is_empty() { 0 } else { TIMED });
    body.extend_from_slice(&(count as u32).to_le_bytes());
    times.iter().for_each(|t| body.extend_from_slice(&t.to_le_bytes()));
    body.extend_from_slice(records);
    body
}

/// Fills an empty batch from bytes that may be anybody's.
pub(crate) fn decode_batch<T: Data>(body: &[u8], batch: &mut Batch<T>) -> Result<(), Damaged> {
    let damaged = |what: &str| Damaged(format!("a batch of {} bytes is damaged: {what}", body.len()));
    let (head, mut rest) = body.split_at_checked(HEAD).ok_or_else(|| damaged("it has no head"))?;
    let count = head[1..].iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b));
    if head[0] > TIMED || count > MAX_RECORDS {
        return Err(damaged("its head is of another form"));
    }
    if head[0] == TIMED {
        let (times, records) = rest.split_at_checked(count * 8).ok_or_else(|| damaged("its times are cut short"))?;
        let time = |c: &[u8]| c.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)) as Time;
        batch.set_times(times.chunks_exact(8).map(time).collect());
        rest = records;
    }
    // A record may be one byte, never more records than that: a false count does not make a large allocation.
    batch.reserve_total(count.min(rest.len()));
    for _ in 0..count {
        let (item, tail) = postcard::take_from_bytes(rest).map_err(|e| damaged(&e.to_string()))?;
        batch.push(item);
        rest = tail;
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged("something stands behind its records")) }
}

/// Bytes of state, of a split, of a committable: one value.
pub(crate) fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Vec<u8>, String> {
    postcard::to_stdvec(value).map_err(|e| e.to_string())
}

/// The value of such bytes.
pub(crate) fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, String> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| e.to_string())?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes stand behind the value", rest.len())) }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Record = (u64, String, Option<Vec<u8>>);

    fn bodies(items: &[Record], times: &[Time], limit: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        encode_batch(items, times, limit, 1 << 20, |b| all.push(b)).unwrap();
        all
    }

    proptest! {
        #[test]
        fn batches_come_back_as_they_went(items: Vec<Record>, timed: bool, limit in 1usize..200) {
            let times: Vec<Time> = if timed { (0..items.len() as Time).collect() } else { vec![] };
            let (mut got, mut got_times) = (Vec::new(), Vec::new());
            for body in bodies(&items, &times, limit) {
                let mut b = Batch::<Record>::default();
                decode_batch(&body, &mut b).unwrap();
                got_times.extend_from_slice(b.times());
                b.each(usize::MAX, |_, _, t| got.push(t));
            }
            prop_assert_eq!((got, got_times), (items, times));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_batch::<Record>(&bytes, &mut Batch::default());
            let _ = decode_batch::<()>(&bytes, &mut Batch::default());
            let _ = (decode_mark(&bytes), decode_latency(&bytes), decode_barrier(&bytes), decode::<Record>(&bytes));
        }

        #[test]
        fn damage_is_an_error_or_another_batch(items: Vec<Record>, at: usize, to: u8) {
            for mut body in bodies(&items, &[], 1 << 20) {
                let at = at % body.len();
                prop_assert!(decode_batch::<Record>(&body[..at], &mut Batch::default()).is_err());
                body[at] = to;
                let _ = decode_batch::<Record>(&body, &mut Batch::default());
            }
        }
    }

    #[test]
    fn marks_and_latency_markers_are_not_taken_for_each_other() {
        for mark in [Mark::At(-5), Mark::At(Time::MAX), Mark::Idle] {
            let body = encode_mark(mark);
            assert_eq!((decode_latency(&body), decode_mark(&body)), (None, Ok(mark)));
        }
        let body = encode_latency(1_700_000_000_000);
        assert_eq!(decode_latency(&body), Some(1_700_000_000_000));
        assert!(decode_mark(&body).is_err() && decode_latency(&body[1..]).is_none());
    }

    #[test]
    fn a_record_that_is_too_long_is_named() {
        let long = vec!["x".repeat(100)];
        assert_eq!(encode_batch(&long, &[], 1000, 50, |_| {}), Err(EncodeError::TooLong(101)));
    }

    #[test]
    fn a_false_count_makes_no_large_allocation() {
        let body = [0, 0, 0, 1, 0, 7];
        assert!(decode_batch::<u64>(&body, &mut Batch::default()).is_err());
        assert!(decode_batch::<u64>(&[0, 255, 255, 255, 255], &mut Batch::default()).is_err());
    }
}
