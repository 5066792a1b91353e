//! Parcels as they travel: compressed where that was asked for and pays, and with a checksum. What surrounds them on the
//! wire is in `frame`.

use crate::frame::{Damage, PARCEL_OVERHEAD};
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thalweg_spi::{Parcel, ParcelKind};

/// How batches are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all: right for a fast network.
    #[default]
    None,
    /// LZ4: less on the wire, for time of the slots on both sides.
    Lz4,
}

/// Shorter bodies are left as they are: what could be saved is less than the frame around them.
const COMPRESS_FROM: usize = 512;
/// LZ4 makes at most so many bytes of one. More is a lie, whatever the limit of a parcel is.
const MOST_OF_ONE: usize = 256;

/// What was done to a body. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Coding {
    Plain = 0,
    Lz4 = 1,
}

impl Coding {
    pub(crate) fn from_u8(n: u8) -> Option<Self> {
        [Self::Plain, Self::Lz4].into_iter().find(|c| *c as u8 == n)
    }
}

/// A parcel on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) kind: ParcelKind,
    pub(crate) coding: Coding,
    /// Length of the body when it is unpacked, in bytes.
    pub(crate) length: u32,
    /// The body as it travels.
    pub(crate) body: Bytes,
    /// [`check_of`] that.
    pub(crate) check: u64,
}

impl Packed {
    /// Compresses and signs. Both once for each parcel, on its slot's thread, while the body is still in the cache.
    pub(crate) fn new(parcel: Parcel, compression: Compression) -> Self {
        let Parcel { kind, body } = parcel;
        let length = body.len() as u32;
        let smaller = match compression {
            Compression::Lz4 if body.len() >= COMPRESS_FROM => compressed(&body),
            _ => None,
        };
        let (coding, body) = smaller.map_or((Coding::Plain, body), |smaller| (Coding::Lz4, smaller));
        Self { kind, coding, length, check: check_of(&body), body }
    }

    /// What it costs in credit: what it holds while it waits, packed.
    pub(crate) fn cost(&self) -> usize {
        cost_of(self.body.len())
    }

    /// Is the length of the unpacked body one that there may be? Asked before anything is allocated for it.
    pub(crate) fn length_is_possible(coding: Coding, length: usize, packed: usize, max_parcel: usize) -> bool {
        match coding {
            Coding::Plain => length == packed,
            Coding::Lz4 => length <= max_parcel && length / MOST_OF_ONE <= packed,
        }
    }

    /// The parcel as it was.
    pub(crate) fn unpack(self) -> Result<Parcel, Damage> {
        let body = match self.coding {
            Coding::Plain => self.body,
            Coding::Lz4 => {
                let mut plain = vec![0; self.length as usize];
                match lz4_flex::block::decompress_into(&self.body, &mut plain) {
                    Ok(length) if length == plain.len() => Bytes::from(plain),
                    Ok(length) => {
                        return Err(Damage::of(format!("{length} bytes came out of LZ4, not {}", plain.len())));
                    }
                    Err(e) => return Err(Damage::of(format!("LZ4 cannot read it: {e}"))),
                }
            }
        };
        Ok(Parcel { kind: self.kind, body })
    }
}

/// What a body of this length costs in credit.
pub(crate) fn cost_of(length: usize) -> usize {
    length.saturating_add(PARCEL_OVERHEAD)
}

/// The checksum of a frame's body: CRC-64/NVME. The processors of servers multiply without carry in wide registers, so it is
/// four times as fast as xxh3 over a body that lies in the cache (84 and 20 GiB/s), and both sides pay it for every byte.
pub(crate) fn check_of(body: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, body)
}

/// The body in LZ4, where at least an eighth is saved.
fn compressed(body: &[u8]) -> Option<Bytes> {
    let mut out = vec![0; lz4_flex::block::get_maximum_output_size(body.len())];
    let length = lz4_flex::block::compress_into(body, &mut out).ok()?;
    if length > body.len() - body.len() / 8 {
        return None;
    }
    // It waits in a queue, so what is not needed goes back.
    out.truncate(length);
    out.shrink_to_fit();
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn batch(body: impl Into<Bytes>) -> Parcel {
        Parcel { kind: ParcelKind::Batch, body: body.into() }
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u64).map(|i| (xxh3_64(&i.to_le_bytes()) >> 7) as u8).collect()
    }

    #[test]
    fn what_does_not_pay_is_left_as_it_is() {
        let coding = |body: Vec<u8>, compression| Packed::new(batch(body), compression).coding;
        assert_eq!(coding(vec![7; 20_000], Compression::None), Coding::Plain);
        assert_eq!(coding(vec![7; 20_000], Compression::Lz4), Coding::Lz4);
        assert_eq!(coding(vec![7; COMPRESS_FROM - 1], Compression::Lz4), Coding::Plain, "it is short");
        assert_eq!(coding(noise(20_000), Compression::Lz4), Coding::Plain, "it does not become shorter");
        let packed = Packed::new(batch(vec![7; 20_000]), Compression::Lz4);
        assert!(packed.cost() < 500, "credit is for what travels: {}", packed.cost());
    }

    #[test]
    fn a_length_that_cannot_be_is_seen_before_it_is_allocated() {
        let possible = |coding, length, packed| Packed::length_is_possible(coding, length, packed, 1 << 20);
        assert!(possible(Coding::Plain, 100, 100) && !possible(Coding::Plain, 101, 100));
        assert!(possible(Coding::Lz4, 1 << 20, 5000) && !possible(Coding::Lz4, (1 << 20) + 1, 5000));
        assert!(!possible(Coding::Lz4, 1 << 20, 100), "no 100 bytes make a million");
        let most = Packed::new(batch(vec![0; 1 << 20]), Compression::Lz4);
        assert!(possible(Coding::Lz4, 1 << 20, most.body.len()), "{} bytes of zeros", most.body.len());
    }

    #[test]
    fn a_body_that_is_not_what_it_says_is_an_error() {
        let good = Packed::new(batch(vec![7; 20_000]), Compression::Lz4);
        for length in [0, 19_999, 20_001, 1_000_000] {
            assert!(Packed { length, ..good.clone() }.unpack().is_err(), "{length}");
        }
        assert!(Packed { body: good.body.slice(..good.body.len() / 2), ..good.clone() }.unpack().is_err());
        assert_eq!(good.unpack().unwrap(), batch(vec![7; 20_000]));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out_as_it_was(
            words in proptest::collection::vec(0u8..4, 0..3000), lz4 in any::<bool>(), random in 0usize..3000,
        ) {
            let mut body = words;
            body.extend(noise(random));
            let compression = if lz4 { Compression::Lz4 } else { Compression::None };
            let packed = Packed::new(batch(body.clone()), compression);
            prop_assert!(packed.body.len() <= body.len());
            prop_assert!(Packed::length_is_possible(packed.coding, body.len(), packed.body.len(), 1 << 20));
            prop_assert_eq!(packed.unpack().unwrap(), batch(body));
        }

        #[test]
        fn no_bytes_make_the_unpacking_panic(body in proptest::collection::vec(any::<u8>(), 0..300), length in 0u32..100_000) {
            let packed = Packed { kind: ParcelKind::Batch, coding: Coding::Lz4, length, check: 0, body: body.into() };
            if let Ok(parcel) = packed.unpack() {
                prop_assert_eq!(parcel.body.len(), length as usize);
            }
        }
    }
}
