//! Frames: `length u32 | kind u8 | …`, numbers little-endian. The length is checked before anything is allocated for it.
//!
//! A stream is one channel on one connection, numbered by its reader's side. `Open`, `Credit` and `ReaderGone` travel
//! from reader to writer and name a stream of their sender; `Data`, `Need` and `WriterGone` travel the other way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thalweg_model::{Attempt, Epoch, JobId};
use thalweg_spi::{ChannelId, Parcel, ParcelKind, PartitionId};

/// What is counted for a parcel beside its body, so that empty parcels are not free.
pub(crate) const PARCEL_OVERHEAD: usize = 16;
/// Length of the length.
pub(crate) const PREFIX: usize = 4;
/// Kind, stream and parcel kind before a body.
const DATA_HEAD: usize = 6;
/// Longest text in a frame, in bytes; a longer one is cut.
const MAX_TEXT: usize = 4096;
/// Longest frame that is no `Data`.
pub(crate) const MAX_CONTROL: usize = MAX_TEXT + 256;
/// Bodies up to this length are copied out of the read buffer; longer ones share it. A short one would keep the whole
/// buffer alive.
const COPY_BELOW: usize = 8 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Open { stream: u32, channel: ChannelId, credit: u32 },
    Data { stream: u32, parcel: Parcel },
    Credit { stream: u32, bytes: u32 },
    Need { stream: u32, bytes: u32 },
    WriterGone { stream: u32, cause: String },
    ReaderGone { stream: u32 },
}

const OPEN: u8 = 1;
const DATA: u8 = 2;
const CREDIT: u8 = 3;
const NEED: u8 = 4;
const WRITER_GONE: u8 = 5;
const READER_GONE: u8 = 6;

/// Bytes that are no frame of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) String);

/// What a parcel costs in credit.
pub(crate) fn cost(parcel: &Parcel) -> usize {
    parcel.body.len() + PARCEL_OVERHEAD
}

/// The bytes before a parcel's body.
pub(crate) fn data_head(stream: u32, parcel: &Parcel) -> [u8; PREFIX + DATA_HEAD] {
    let mut head = [0; PREFIX + DATA_HEAD];
    let length = (DATA_HEAD + parcel.body.len()) as u32;
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = DATA;
    head[5..9].copy_from_slice(&stream.to_le_bytes());
    head[9] = parcel.kind as u8;
    head
}

/// The whole frame as bytes. `Data` goes through [`data_head`], so that its body is not copied; here it is for tests.
pub(crate) fn encode(frame: &Frame) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32_le(0);
    match frame {
        Frame::Open { stream, channel, credit } => {
            out.put_u8(OPEN);
            out.put_u32_le(*stream);
            put_channel(&mut out, channel);
            out.put_u32_le(*credit);
        }
        Frame::Data { stream, parcel } => {
            out.clear();
            out.put_slice(&data_head(*stream, parcel));
            out.put_slice(&parcel.body);
        }
        Frame::Credit { stream, bytes } => put_number(&mut out, CREDIT, *stream, *bytes),
        Frame::Need { stream, bytes } => put_number(&mut out, NEED, *stream, *bytes),
        Frame::WriterGone { stream, cause } => {
            out.put_u8(WRITER_GONE);
            out.put_u32_le(*stream);
            out.put_slice(&cause.as_bytes()[..cause.len().min(MAX_TEXT)]);
        }
        Frame::ReaderGone { stream } => {
            out.put_u8(READER_GONE);
            out.put_u32_le(*stream);
        }
    }
    let length = (out.len() - PREFIX) as u32;
    out[..PREFIX].copy_from_slice(&length.to_le_bytes());
    out.freeze()
}

fn put_number(out: &mut BytesMut, kind: u8, stream: u32, bytes: u32) {
    out.put_u8(kind);
    out.put_u32_le(stream);
    out.put_u32_le(bytes);
}

fn put_channel(out: &mut BytesMut, channel: &ChannelId) {
    let PartitionId { job, region, attempt, edge, producer } = channel.partition;
    out.put_slice(job.as_bytes());
    out.put_u64_le(attempt.epoch.0);
    for n in [attempt.n, region, edge, producer, channel.consumer] {
        out.put_u32_le(n);
    }
}

/// Takes one frame off the front; `None` when it is not whole yet, and then room for the rest of it is reserved.
pub(crate) fn decode(buffer: &mut BytesMut, max_parcel: usize) -> Result<Option<Frame>, Damage> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    let Some(kind) = buffer.get(PREFIX).copied() else {
        // A length that no kind may have need not wait for its kind.
        return if length > max_parcel.saturating_add(MAX_CONTROL) { Err(too_long(length)) } else { Ok(None) };
    };
    let longest = if kind == DATA { max_parcel.saturating_add(DATA_HEAD) } else { MAX_CONTROL };
    if length > longest {
        return Err(too_long(length));
    }
    if length == 0 {
        return Err(Damage("a frame of no bytes".into()));
    }
    let whole = PREFIX + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(whole);
    frame.advance(PREFIX + 1);
    body(kind, frame).map(Some)
}

fn too_long(length: usize) -> Damage {
    Damage(format!("a frame of {length} bytes"))
}

fn body(kind: u8, mut rest: BytesMut) -> Result<Frame, Damage> {
    let short = || Damage(format!("a frame of kind {kind} is too short"));
    let stream = rest.try_get_u32_le().map_err(|_| short())?;
    let frame = match kind {
        OPEN => {
            let channel = get_channel(&mut rest).ok_or_else(short)?;
            Frame::Open { stream, channel, credit: rest.try_get_u32_le().map_err(|_| short())? }
        }
        DATA => {
            let kind = rest.try_get_u8().map_err(|_| short())?;
            let kind = ParcelKind::from_u8(kind).ok_or_else(|| Damage(format!("a parcel of kind {kind}")))?;
            let body = if rest.len() < COPY_BELOW { Bytes::copy_from_slice(&rest) } else { rest.split().freeze() };
            rest.clear();
            Frame::Data { stream, parcel: Parcel { kind, body } }
        }
        CREDIT => Frame::Credit { stream, bytes: rest.try_get_u32_le().map_err(|_| short())? },
        NEED => Frame::Need { stream, bytes: rest.try_get_u32_le().map_err(|_| short())? },
        WRITER_GONE => {
            let cause = String::from_utf8_lossy(&rest).into_owned();
            rest.clear();
            Frame::WriterGone { stream, cause }
        }
        READER_GONE => Frame::ReaderGone { stream },
        other => return Err(Damage(format!("a frame of kind {other}"))),
    };
    if rest.is_empty() {
        Ok(frame)
    } else {
        Err(Damage(format!("{} bytes stand behind a frame of kind {kind}", rest.len())))
    }
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 100_000;

    fn channel() -> ChannelId {
        let attempt = Attempt { epoch: Epoch(7), n: 3 };
        let partition = PartitionId { job: JobId::from_bytes([9; 16]), region: 6, attempt, edge: 1, producer: 2 };
        ChannelId { partition, consumer: 4 }
    }

    fn frames() -> Vec<Frame> {
        let data =
            |kind, body: &[u8]| Frame::Data { stream: 5, parcel: Parcel { kind, body: Bytes::copy_from_slice(body) } };
        vec![
            Frame::Open { stream: 1, channel: channel(), credit: 65536 },
            data(ParcelKind::Batch, &[1; 20_000]),
            data(ParcelKind::End, b""),
            Frame::Credit { stream: 1, bytes: 9 },
            Frame::Need { stream: 1, bytes: u32::MAX },
            Frame::WriterGone { stream: 1, cause: "it panicked".into() },
            Frame::ReaderGone { stream: 0 },
        ]
    }

    #[test]
    fn frames_come_back_as_they_went_however_they_are_cut() {
        let bytes: Vec<u8> = frames().iter().flat_map(|f| encode(f).to_vec()).collect();
        for step in [1, 7, 1000, bytes.len()] {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decode(&mut buffer, MAX).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames());
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_is_refused_before_it_is_waited_for() {
        let refused = |bytes: &[u8]| decode(&mut BytesMut::from(bytes), MAX).unwrap_err();
        assert_eq!(refused(&u32::MAX.to_le_bytes()), Damage("a frame of 4294967295 bytes".into()));
        let too_long = ((MAX + DATA_HEAD + 1) as u32).to_le_bytes();
        assert!(refused(&[&too_long[..], &[DATA]].concat()).0.contains("100007"));
        assert!(refused(&[&10_000u32.to_le_bytes()[..], &[CREDIT]].concat()).0.contains("10000"));
        assert_eq!(refused(&[0, 0, 0, 0, 0]), Damage("a frame of no bytes".into()));
        assert_eq!(refused(&[5, 0, 0, 0, 99, 0, 0, 0, 0]), Damage("a frame of kind 99".into()));
        assert!(refused(&[7, 0, 0, 0, DATA, 0, 0, 0, 0, 77, 1]).0.contains("a parcel of kind 77"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_or_reserve_more_than_a_parcel(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, 1000) {}
            prop_assert!(buffer.capacity() <= 4 * (1000 + MAX_CONTROL));
        }

        #[test]
        fn a_changed_byte_is_an_error_another_frame_or_a_wait(which in 0usize..7, at in 0usize..200, to in any::<u8>()) {
            let mut bytes = encode(&frames()[which]).to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = decode(&mut BytesMut::from(&bytes[..]), MAX);
            let _ = decode(&mut BytesMut::from(&bytes[..at]), MAX);
        }
    }
}
