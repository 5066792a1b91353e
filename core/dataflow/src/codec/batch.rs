//! Batches of records as bytes.
//!
//! ```text
//! u8 flags (1: timed) · u32 records · [i64 × records, when timed] · records
//! ```
//!
//! Records are appended one at a time, so that a parcel is cut where it is full, a record that is too long is known
//! before all of it is written, and a reader's memory is bounded by its input.

use super::{
    read::{Input, Unread},
    write::Writer,
};
use crate::{
    batch::{Batch, Time},
    key::Data,
};
use serde::Serialize;
use std::cell::Cell;

const TIMED: u8 = 1;
const HEAD: usize = 5;
/// No batch has more records: what claims to is damage. It bounds also batches of records without bytes.
const MAX_RECORDS: usize = 1 << 16;
/// Room to begin with, and what a thread keeps of it.
const ROOM: usize = 4 << 10;
const KEPT: usize = 256 << 10;

/// Why a record cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// Its `Serialize` failed, or its type does not go into this form.
    Refused(String),
    /// Longer than `exchange.max-record`.
    TooLong,
}

/// Why there is no batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// The bytes are none.
    Damaged(String),
    /// Records of this type can be written but not read.
    Unreadable(String),
}

thread_local! {
    // Records are written here, into room that was made once, and copied into a body of their length.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes `items` (and their times, when there are any) into bodies of about `limit` bytes.
pub(crate) fn encode_batch<T: Data>(
    items: &[T],
    times: &[Time],
    limit: usize,
    max_record: usize,
    mut body: impl FnMut(Vec<u8>),
) -> Result<(), EncodeError> {
    let mut scratch = SCRATCH.take();
    let mut from = 0;
    let mut write = || {
        while from < items.len() {
            let (n, length) = write_some(&items[from..], &mut scratch, limit, max_record)?;
            body(assemble(n, times.get(from..from + n).unwrap_or_default(), &scratch[..length]));
            from += n;
        }
        Ok(())
    };
    let written = write();
    if scratch.len() <= KEPT {
        SCRATCH.set(scratch);
    }
    written
}

/// Writes records from the front until there are `limit` bytes of them; how many records, and how many bytes.
fn write_some<T: Serialize>(
    items: &[T],
    scratch: &mut Vec<u8>,
    limit: usize,
    max_record: usize,
) -> Result<(usize, usize), EncodeError> {
    let items = &items[..items.len().min(MAX_RECORDS)];
    let (mut n, mut length) = (0, 0);
    loop {
        let whole = scratch.len();
        let mut room = &mut scratch[length..];
        let end = room.as_ptr_range().end;
        let stopped = loop {
            let Some(item) = items.get(n) else { return Ok((n, length)) };
            let before = room.len();
            match item.serialize(Writer::new(room)) {
                // The room is gone where a field's error was passed over.
                Ok(rest) if rest.as_ptr_range().end != end => {
                    let text = "its `Serialize` goes on after an error of one of its fields, which it must give back";
                    return Err(EncodeError::Refused(text.into()));
                }
                Ok(rest) if before - rest.len() > max_record => return Err(EncodeError::TooLong),
                Ok(rest) => {
                    (n, length) = (n + 1, whole - rest.len());
                    if length >= limit {
                        return Ok((n, length));
                    }
                    room = rest;
                }
                Err(stopped) => break stopped,
            }
        };
        // That record begins again in more room, unless it had all that a record may take.
        let had = whole - length;
        let wanted = match stopped.refused() {
            None if had >= max_record => return Err(EncodeError::TooLong),
            Some(why) if had >= max_record => return Err(EncodeError::Refused(why.into())),
            None => had.saturating_mul(2).clamp(ROOM, max_record.max(ROOM)),
            // A `Serialize` may say in its own words that there was no room.
            Some(_) => max_record.max(ROOM),
        };
        scratch.resize(length + wanted, 0);
    }
}

/// About how much room an item takes: as many bytes as it has in this form, and no more than are looked at. `None` where it
/// does not go into it.
#[cold]
#[inline(never)]
pub(crate) fn weigh<T: Serialize>(item: &T, most: usize) -> Option<usize> {
    let mut scratch = SCRATCH.take();
    scratch.resize(scratch.len().max(most), 0);
    let room = &mut scratch[..most];
    let weight = match item.serialize(Writer::new(room)) {
        Ok(rest) => Some(most.saturating_sub(rest.len())),
        Err(stopped) => stopped.refused().is_none().then_some(most),
    };
    if scratch.len() <= KEPT {
        SCRATCH.set(scratch);
    }
    weight
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
pub(crate) fn decode_batch<T: Data>(body: &[u8], batch: &mut Batch<T>) -> Result<(), DecodeError> {
    let damaged = |what: &str| DecodeError::Damaged(format!("a batch of {} bytes is damaged: {what}", body.len()));
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
    let mut input = Input::new(rest);
    for _ in 0..count {
        match T::deserialize(&mut input) {
            Ok(item) => batch.push(item),
            Err(unread) => return Err(unreadable::<T>(&unread)),
        }
    }
    if input.len() == 0 { Ok(()) } else { Err(disagree::<T>(&format_args!("{} bytes are left over", input.len()))) }
}

#[cold]
fn unreadable<T>(unread: &Unread) -> DecodeError {
    if unread.is_of_the_type() {
        let item = std::any::type_name::<T>();
        DecodeError::Unreadable(format!("a record ({item}) cannot be read: {unread}"))
    } else {
        disagree::<T>(unread)
    }
}

/// The shuffle gave what was sent, so that it was written so: damage on the way is the shuffle's own error.
#[cold]
fn disagree<T>(what: &dyn std::fmt::Display) -> DecodeError {
    let item = std::any::type_name::<T>();
    DecodeError::Unreadable(format!(
        "a record ({item}) cannot be read: its `Serialize` and its `Deserialize` do not agree, of which types and in which \
         order: {what}"
    ))
}
