//! What leaves a task as bytes: records between processes, control among them, and state.
//!
//! **Records** (`batch`) travel in a form of our own, written and read by plain serde (`write`, `read`). Both ends are
//! the same executable, so the form needs no evolution, no names and no types; but what arrives may still be damaged,
//! so that reading is bounded and never panics.
//!
//! ```text
//! integers, floats, char   their fixed width, little-endian (a char as u32)      bool, Option   u8: 0 or 1
//! a length, a variant      u8 below 255, else 255 and a u64                      struct, tuple  the fields alone
//! string, bytes            length, bytes       sequence, map   number, elements, and zeros up to a byte an element
//! ```
//!
//! A length that was not known before stands in the wide form however short it is.
//!
//! Fixed widths, not varints, and no derive of a layout: measured in ns a record to write + read, and bytes, beside
//! postcard (which it was before), the same with a varint that has no loop, and a trait that a derive would implement,
//! with one check a record. The compiler makes one check of neighbouring fields by itself; so nobody needs a derive.
//!
//! ```text
//!                         postcard            this                varint              layout by derive
//! (u64, u64), key < 1 M   11.5 +  5.0   4 B   0.6 +  1.4  16 B    6.8 +  8.1   4 B    1.5 + 1.5  16 B
//! six numbers             38   + 26    22 B   1.9 +  3.4  44 B   16   + 21    22 B    3.6 + 3.5  44 B
//! (String, u64)           18   + 40     9 B   4.9 + 29    16 B   11   + 42     9 B
//! (Str, u64)              19   + 38     9 B   5.0 + 32    16 B   11   + 47     9 B
//! (ByteStr, u64)          18   + 31    13 B   4.7 + 23    20 B
//! (Vec<u8>, u64)          22   + 48    13 B  15.8 + 43    20 B
//! five numbers and Str    43   + 51    21 B   5.5 + 33    44 B   21   + 49    21 B
//! ```
//!
//! A byte more costs about 0.3 ns over loopback: 12 of them for a pair of small numbers are 4 ns, and 14 are saved.
//!
//! **State, splits and committables** ([`encode`], [`decode`]) are postcard: they are kept, where size counts for more.

mod batch;
mod marks;
mod read;
mod write;

pub(crate) use batch::{DecodeError, EncodeError, decode_batch, encode_batch, weigh};
pub(crate) use marks::{decode_barrier, decode_latency, decode_mark, encode_barrier, encode_latency, encode_mark};
use serde::{Serialize, de::DeserializeOwned};

/// A length from here on stands in eight bytes behind this one.
const WIDE: u8 = 255;
/// Options, sequences, maps and variants in each other. Deeper ones are not written, and reading stops there: the stack
/// is bounded also for damaged bytes of a type that holds itself.
const MAX_DEPTH: u32 = 128;

/// Bytes that are not what they should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged(pub(crate) String);

/// Bytes of state, of a split, of a committable: one value.
pub(crate) fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Vec<u8>, String> {
    postcard::to_stdvec(value).map_err(in_our_words)
}

/// The value of such bytes.
pub(crate) fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, String> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(in_our_words)?;
    if rest.is_empty() { Ok(value) } else { Err(format!("{} bytes stand behind the value", rest.len())) }
}

fn in_our_words(e: postcard::Error) -> String {
    match e {
        postcard::Error::WontImplement => {
            "it has a part that can be read only from a form which names its fields".into()
        }
        e => e.to_string(),
    }
}

#[cfg(test)]
mod tests;
