//! Frames that come back, frames that are damaged, and bytes that are no frames.

use super::*;
use crate::packing::Compression;
use proptest::prelude::*;
use thalweg_spi::Parcel;

const MAX: usize = 100_000;

fn channel() -> ChannelId {
    let attempt = Attempt { epoch: Epoch(7), n: 3 };
    let partition = PartitionId { job: JobId::from_bytes([9; 16]), region: 6, attempt, edge: 1, producer: 2 };
    ChannelId { partition, consumer: 4 }
}

fn data(kind: ParcelKind, body: &[u8], compression: Compression) -> Frame {
    let parcel = Packed::new(Parcel { kind, body: Bytes::copy_from_slice(body) }, compression);
    Frame::Data { stream: 5, parcel }
}

fn frames() -> Vec<Frame> {
    vec![
        Frame::Open { stream: 1, channel: channel(), credit: 65536 },
        data(ParcelKind::Batch, &[1; 20_000], Compression::None),
        data(ParcelKind::Batch, &[1; 20_000], Compression::Lz4),
        data(ParcelKind::End, b"", Compression::Lz4),
        Frame::Credit { stream: 1, bytes: 9 },
        Frame::Need { stream: 1, bytes: u32::MAX },
        Frame::WriterGone { stream: 1, cause: "it panicked".into() },
        Frame::ReaderGone { stream: 0 },
        Frame::Alive,
        Frame::Goodbye { cause: "it ends".into() },
    ]
}

fn bytes_of(frame: &Frame, number: u64) -> Vec<u8> {
    let (head, body) = control(frame);
    [&head.signed(number)[..], &body].concat()
}

fn stream_of(frames: &[Frame]) -> Vec<u8> {
    (0..).zip(frames).flat_map(|(n, f)| bytes_of(f, n)).collect()
}

/// What comes out of these bytes before the first damage, and whether there is one.
fn decoded(bytes: &[u8], max_parcel: usize) -> (Vec<Frame>, Option<Damage>) {
    let (mut decoder, mut buffer, mut got) = (Decoder::new(max_parcel), BytesMut::from(bytes), Vec::new());
    loop {
        match decoder.next(&mut buffer) {
            Ok(Some(frame)) => got.push(frame),
            Ok(None) => return (got, None),
            Err(damage) => return (got, Some(damage)),
        }
    }
}

#[test]
fn frames_come_back_as_they_went_however_they_are_cut() {
    let bytes = stream_of(&frames());
    for step in [1, 7, 1000, bytes.len()] {
        let (mut decoder, mut buffer, mut got) = (Decoder::new(MAX), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, frames());
        assert!(!decoder.is_within_a_frame(&buffer));
    }
}

#[test]
fn a_bit_that_changes_is_damage_at_its_frame_and_all_before_it_are_whole() {
    let bytes = stream_of(&frames());
    let mut begins = vec![0];
    for (n, frame) in (0..).zip(frames()) {
        begins.push(begins[n as usize] + bytes_of(&frame, n).len());
    }
    for at in (0..bytes.len()).filter(|at| at % 37 == 0 || begins.iter().any(|b| (*b..b + HEAD).contains(at))) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let (got, damage) = decoded(&changed, MAX);
        let hit = begins.iter().filter(|begin| **begin <= at).count() - 1;
        assert_eq!(got, frames()[..hit], "a bit at {at}");
        let damage = damage.unwrap_or_else(|| panic!("nobody saw the bit at {at}"));
        assert!(damage.text.contains(&format!("frame {hit}")), "{damage:?}");
        let body_of_data = matches!(frames()[hit], Frame::Data { .. }) && at >= begins[hit] + HEAD;
        assert_eq!(damage.stream, body_of_data.then_some(5), "{damage:?}");
    }
}

#[test]
fn a_frame_that_is_missing_doubled_or_out_of_its_place_is_damage() {
    let one = |n: u32| Frame::Credit { stream: n, bytes: n };
    let sent: Vec<_> = (0..4).map(|n| bytes_of(&one(n), n.into())).collect();
    for order in [vec![0, 2, 3], vec![0, 1, 1, 2], vec![0, 2, 1, 3], vec![1]] {
        let bytes: Vec<u8> = order.iter().flat_map(|n| sent[*n].clone()).collect();
        let (got, damage) = decoded(&bytes, MAX);
        let whole = order.iter().zip(0..).take_while(|(n, at)| **n == *at).count();
        assert_eq!(got.len(), whole, "{order:?}");
        assert!(damage.unwrap().text.contains(&format!("the head of frame {whole}")));
    }
}

/// A head that says so of itself: who signs it can say what it likes.
fn lying(kind: u8, parcel: [u8; 2], length: u32, unpacked: u32) -> Vec<u8> {
    let body = vec![0; 30];
    Head { kind, parcel, stream: 1, length, unpacked, check: check_of(&body) }
        .signed(0)
        .into_iter()
        .chain(body)
        .collect()
}

#[test]
fn a_length_is_refused_before_it_is_waited_for() {
    let refused = |bytes: &[u8]| decoded(bytes, MAX).1.unwrap().text;
    let batch = ParcelKind::Batch as u8;
    assert!(refused(&lying(DATA, [batch, 0], u32::MAX, 0)).contains("a frame of 4294967295 bytes"));
    assert!(refused(&lying(DATA, [batch, 0], MAX as u32 + 1, 0)).contains("100001"));
    assert!(refused(&lying(CREDIT, [0; 2], 10_000, 0)).contains("10000"));
    assert!(refused(&lying(99, [0; 2], 30, 30)).contains("a frame of kind 99"));
    assert!(refused(&lying(DATA, [77, 0], 30, 30)).contains("a parcel of kind 77"));
    assert!(refused(&lying(DATA, [batch, 9], 30, 30)).contains("a parcel of coding 9"));
    assert!(refused(&lying(DATA, [batch, 0], 30, 31)).contains("30 bytes that unpacks to 31"));
    assert!(refused(&lying(DATA, [batch, 1], 30, MAX as u32 + 1)).contains("unpacks to 100001"));
    assert!(refused(&lying(DATA, [batch, 1], 30, 20_000)).contains("unpacks to 20000"), "LZ4 cannot do that");
    assert!(refused(&lying(CREDIT, [0; 2], 30, 30)).contains("26 bytes stand behind"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_or_reserve_more_than_a_parcel(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        kind in 0u8..10, parcel in any::<[u8; 2]>(), length in any::<u32>(), unpacked in 0u32..5000,
    ) {
        prop_assert!(bytes.len() < HEAD || decoded(&bytes, 1000).1.is_some());
        // With a head that is signed as it should be.
        let head = Head { kind, parcel, stream: 1, length, unpacked, check: check_of(&bytes) };
        for length in [length, length % 2000, bytes.len() as u32] {
            let signed = Head { length, ..head }.signed(0);
            let (mut decoder, mut buffer) = (Decoder::new(1000), BytesMut::from(&[&signed[..], &bytes].concat()[..]));
            if let Ok(Some(Frame::Data { parcel, .. })) = decoder.next(&mut buffer) {
                prop_assert!(parcel.length <= 1000);
                let _ = parcel.unpack();
            }
            prop_assert!(buffer.capacity() <= 4 * (1000 + MAX_CONTROL));
        }
    }

    #[test]
    fn what_is_cut_off_is_waited_for(which in 0usize..10, at in 0usize..30_000) {
        let bytes = bytes_of(&frames()[which], 0);
        let (got, damage) = decoded(&bytes[..at % bytes.len()], MAX);
        prop_assert!(got.is_empty() && damage.is_none());
    }
}
