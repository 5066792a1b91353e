//! Frames: a head of 28 bytes, then a body. Numbers are little-endian.
//!
//! ```text
//!  0 body's length u32 │ 4 kind u8 │ 5 parcel's kind u8 │ 6 coding u8 │ 7 0 │ 8 stream u32 │ 12 unpacked length u32
//! 16 body's CRC-64 u64 │ 24 xxh3 u32 of these 24 bytes, with the frame's number as its seed │ 28 body
//! ```
//!
//! The head has a checksum of its own because it is believed before its body is there: a length that was damaged would
//! be waited for. Both sides count the frames of a direction from 0, so one that is missing, doubled or out of its place
//! is damage too.
//!
//! A stream is one channel on one connection, numbered by its reader's side. `Open`, `Credit` and `ReaderGone` travel
//! from reader to writer and name a stream of their sender; `Data`, `Need` and `WriterGone` travel the other way.

use crate::packing::{Coding, Packed, check_of};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use thalweg_model::{Attempt, Epoch, JobId};
use thalweg_spi::{ChannelId, ParcelKind, PartitionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is counted for a parcel beside its body, so that empty parcels are not free.
pub(crate) const PARCEL_OVERHEAD: usize = 16;
/// Length of a head.
pub(crate) const HEAD: usize = 28;
/// What the head's checksum covers.
const SIGNED: usize = 24;
/// Longest text in a frame, in bytes; a longer one is cut.
const MAX_TEXT: usize = 4096;
/// Longest body of a frame that is no `Data`.
pub(crate) const MAX_CONTROL: usize = MAX_TEXT + 256;
/// Bodies up to this length are copied out of the read buffer; longer ones share it. A short one would keep the whole
/// buffer alive.
const COPY_BELOW: usize = 8 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Open {
        stream: u32,
        channel: ChannelId,
        credit: u32,
    },
    Data {
        stream: u32,
        parcel: Packed,
    },
    Credit {
        stream: u32,
        bytes: u32,
    },
    Need {
        stream: u32,
        bytes: u32,
    },
    WriterGone {
        stream: u32,
        cause: String,
    },
    ReaderGone {
        stream: u32,
    },
    /// The sender closes the connection, for this reason. Nothing follows.
    Goodbye {
        cause: String,
    },
    /// The sender is there. Nothing answers it.
    Alive,
}

const OPEN: u8 = 1;
const DATA: u8 = 2;
const CREDIT: u8 = 3;
const NEED: u8 = 4;
const WRITER_GONE: u8 = 5;
const READER_GONE: u8 = 6;
const GOODBYE: u8 = 7;
const ALIVE: u8 = 8;

/// Bytes that are no frame of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) text: String,
    /// The stream, where the frame's head is whole and says it.
    pub(crate) stream: Option<u32>,
}

impl Damage {
    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), stream: None }
    }
}

/// What stands before a body. It is signed when its turn comes, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    kind: u8,
    /// A parcel's kind and coding; 0 in other frames.
    parcel: [u8; 2],
    stream: u32,
    length: u32,
    unpacked: u32,
    check: u64,
}

impl Head {
    fn control(kind: u8, stream: u32, body: &[u8]) -> Self {
        let length = body.len() as u32;
        Self { kind, parcel: [0; 2], stream, length, unpacked: length, check: check_of(body) }
    }

    pub(crate) fn data(stream: u32, parcel: &Packed) -> Self {
        let Packed { kind, coding, length: unpacked, ref body, check } = *parcel;
        Self { kind: DATA, parcel: [kind as u8, coding as u8], stream, length: body.len() as u32, unpacked, check }
    }

    /// The bytes of the `number`th frame's head.
    pub(crate) fn signed(&self, number: u64) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5..7].copy_from_slice(&self.parcel);
        bytes[8..12].copy_from_slice(&self.stream.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.unpacked.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.check.to_le_bytes());
        let sign = signature(&bytes[..SIGNED], number);
        bytes[SIGNED..].copy_from_slice(&sign.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; HEAD], number: u64) -> Result<Self, Damage> {
        let sign = signature(&bytes[..SIGNED], number);
        let mut rest = bytes.as_slice();
        let length = rest.get_u32_le();
        let kind = rest.get_u8();
        let parcel = [rest.get_u8(), rest.get_u8()];
        rest.advance(1);
        let (stream, unpacked, check) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u64_le());
        if rest.get_u32_le() != sign {
            return Err(Damage::of(format!("the head of frame {number} is not what was sent")));
        }
        Ok(Self { kind, parcel, stream, length, unpacked, check })
    }

    /// Lengths are looked at before anything is allocated for them.
    fn bounded(self, max_parcel: usize) -> Result<Self, Damage> {
        let length = self.length as usize;
        let longest = if self.kind == DATA { max_parcel } else { MAX_CONTROL };
        if length > longest {
            return Err(self.damage(format!("a frame of {length} bytes, more than {longest}")));
        }
        Ok(self)
    }

    fn damage(&self, text: impl Into<String>) -> Damage {
        let stream = (self.kind == DATA).then_some(self.stream);
        Damage { text: text.into(), stream }
    }
}

fn signature(head: &[u8], number: u64) -> u32 {
    xxh3_64_with_seed(head, number) as u32
}

/// Head and body of a frame that is no `Data`; a parcel's is [`Head::data`], and its body is not copied.
pub(crate) fn control(frame: &Frame) -> (Head, Bytes) {
    let mut out = BytesMut::new();
    let (kind, stream) = match frame {
        Frame::Open { stream, channel, credit } => {
            put_channel(&mut out, channel);
            out.put_u32_le(*credit);
            (OPEN, *stream)
        }
        Frame::Data { stream, parcel } => return (Head::data(*stream, parcel), parcel.body.clone()),
        Frame::Credit { stream, bytes } => {
            out.put_u32_le(*bytes);
            (CREDIT, *stream)
        }
        Frame::Need { stream, bytes } => {
            out.put_u32_le(*bytes);
            (NEED, *stream)
        }
        Frame::WriterGone { stream, cause } => {
            put_text(&mut out, cause);
            (WRITER_GONE, *stream)
        }
        Frame::ReaderGone { stream } => (READER_GONE, *stream),
        Frame::Goodbye { cause } => {
            put_text(&mut out, cause);
            (GOODBYE, 0)
        }
        Frame::Alive => (ALIVE, 0),
    };
    let body = out.freeze();
    (Head::control(kind, stream, &body), body)
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(&text.as_bytes()[..text.len().min(MAX_TEXT)]);
}

fn put_channel(out: &mut BytesMut, channel: &ChannelId) {
    let PartitionId { job, region, attempt, edge, producer } = channel.partition;
    out.put_slice(job.as_bytes());
    out.put_u64_le(attempt.epoch.0);
    for n in [attempt.n, region, edge, producer, channel.consumer] {
        out.put_u32_le(n);
    }
}

/// Takes frames off the front of what was read in one direction.
pub(crate) struct Decoder {
    max_parcel: usize,
    number: u64,
    /// A head whose body is not whole yet.
    head: Option<Head>,
}

impl Decoder {
    pub(crate) fn new(max_parcel: usize) -> Self {
        Self { max_parcel, number: 0, head: None }
    }

    /// Is a frame under way?
    pub(crate) fn is_within_a_frame(&self, buffer: &BytesMut) -> bool {
        self.head.is_some() || !buffer.is_empty()
    }

    /// How many bytes there are to come at least until [`Self::next`] has something to say.
    pub(crate) fn missing(&self, buffer: &BytesMut) -> usize {
        self.head.map_or(HEAD, |head| head.length as usize).saturating_sub(buffer.len())
    }

    /// The next frame; `None` when it is not whole yet.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Damage> {
        let head = match self.head {
            Some(head) => head,
            None => {
                let Some(bytes) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
                let head = Head::read(bytes, self.number)?.bounded(self.max_parcel)?;
                buffer.advance(HEAD);
                *self.head.insert(head)
            }
        };
        let length = head.length as usize;
        if buffer.len() < length {
            return Ok(None);
        }
        let body = buffer.split_to(length);
        if check_of(&body) != head.check {
            let what = if head.kind == DATA { "a parcel" } else { "a control frame" };
            return Err(head.damage(format!("frame {}, {what} of {length} bytes, is not what was sent", self.number)));
        }
        self.head = None;
        self.number += 1;
        frame_of(head, body, self.max_parcel).map(Some)
    }
}

fn frame_of(head: Head, mut rest: BytesMut, max_parcel: usize) -> Result<Frame, Damage> {
    let Head { kind, parcel: [parcel, coding], stream, unpacked, check, .. } = head;
    let short = || Damage::of(format!("a frame of kind {kind} is too short"));
    let number = |rest: &mut BytesMut| rest.try_get_u32_le().map_err(|_| short());
    let frame = match kind {
        OPEN => {
            let channel = get_channel(&mut rest).ok_or_else(short)?;
            Frame::Open { stream, channel, credit: number(&mut rest)? }
        }
        DATA => {
            let kind = ParcelKind::from_u8(parcel).ok_or_else(|| head.damage(format!("a parcel of kind {parcel}")))?;
            let coding = Coding::from_u8(coding).ok_or_else(|| head.damage(format!("a parcel of coding {coding}")))?;
            if !Packed::length_is_possible(coding, unpacked as usize, rest.len(), max_parcel) {
                let text = format!("a parcel of {} bytes that unpacks to {unpacked}", rest.len());
                return Err(head.damage(text));
            }
            let body = if rest.len() < COPY_BELOW { Bytes::copy_from_slice(&rest) } else { rest.split().freeze() };
            rest.clear();
            Frame::Data { stream, parcel: Packed { kind, coding, length: unpacked, body, check } }
        }
        CREDIT => Frame::Credit { stream, bytes: number(&mut rest)? },
        NEED => Frame::Need { stream, bytes: number(&mut rest)? },
        WRITER_GONE => Frame::WriterGone { stream, cause: get_text(&mut rest) },
        READER_GONE => Frame::ReaderGone { stream },
        GOODBYE => Frame::Goodbye { cause: get_text(&mut rest) },
        ALIVE => Frame::Alive,
        other => return Err(Damage::of(format!("a frame of kind {other}"))),
    };
    if rest.is_empty() {
        Ok(frame)
    } else {
        Err(Damage::of(format!("{} bytes stand behind a frame of kind {kind}", rest.len())))
    }
}

fn get_text(rest: &mut BytesMut) -> String {
    String::from_utf8_lossy(&rest.split()).into_owned()
}

fn get_channel(rest: &mut BytesMut) -> Option<ChannelId> {
    let mut job = [0; 16];
    rest.try_copy_to_slice(&mut job).ok()?;
    let epoch = Epoch(rest.try_get_u64_le().ok()?);
    let mut number = || rest.try_get_u32_le().ok();
    let (n, region, edge, producer, consumer) = (number()?, number()?, number()?, number()?, number()?);
    let partition = PartitionId { job: JobId::from_bytes(job), region, attempt: Attempt { epoch, n }, edge, producer };
    Some(ChannelId { partition, consumer })
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
