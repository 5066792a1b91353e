//! [`ByteStr`]: what `Str` is for text, for bytes. It is not `bytes::Bytes`: nothing is shared, a long clone copies.

use compact_bytes::CompactBytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, SeqAccess, Visitor},
};
use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// A byte string that lies in the record itself where it is short: up to 23 bytes nothing is allocated, nor for clones.
///
/// It travels and is stored as one piece; a `Vec<u8>` is, for serde, a sequence of numbers, and is written and read
/// byte by byte. As a key it is what `Vec<u8>` and `[u8]` are. Formats for people (JSON, CSV) may give a string or a
/// list of numbers for it.
#[derive(Clone, Default)]
pub struct ByteStr(CompactBytes);

/// Up to so many bytes stand in the value itself.
const INLINE: usize = 23;

impl ByteStr {
    /// A copy of these bytes.
    #[inline]
    pub fn new(bytes: &[u8]) -> Self {
        Self(CompactBytes::new(bytes))
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The bytes as a vector, without a copy where they are long.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }
}

impl Deref for ByteStr {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for ByteStr {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// Equality, order and hash are those of `[u8]`, as this promises.
impl Borrow<[u8]> for ByteStr {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for ByteStr {
    #[inline]
    fn eq(&self, other: &T) -> bool {
        self.as_slice() == other.as_ref()
    }
}

impl Eq for ByteStr {}

impl PartialOrd for ByteStr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByteStr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl Hash for ByteStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for ByteStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl From<&[u8]> for ByteStr {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for ByteStr {
    fn from(bytes: &[u8; N]) -> Self {
        Self::new(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for ByteStr {
    fn from(bytes: [u8; N]) -> Self {
        Self::new(&bytes)
    }
}

impl From<Vec<u8>> for ByteStr {
    /// A long one is taken over without a copy.
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE { Self::new(&bytes) } else { Self(CompactBytes::from(bytes)) }
    }
}

impl From<&str> for ByteStr {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl From<String> for ByteStr {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<ByteStr> for Vec<u8> {
    fn from(bytes: ByteStr) -> Self {
        bytes.into_vec()
    }
}

impl FromIterator<u8> for ByteStr {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        let mut all = CompactBytes::default();
        bytes.into_iter().for_each(|b| all.push(b));
        Self(all)
    }
}

impl Serialize for ByteStr {
    #[inline]
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for ByteStr {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = ByteStr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, a string, or a list of numbers from 0 to 255")
    }
    #[inline]
    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<ByteStr, E> {
        Ok(bytes.into())
    }
    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<ByteStr, E> {
        Ok(bytes.into())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<ByteStr, E> {
        Ok(text.into())
    }
    fn visit_string<E: Error>(self, text: String) -> Result<ByteStr, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<ByteStr, A::Error> {
        // No room is made before the bytes are there: how many there will be is only said.
        let mut all = CompactBytes::default();
        while let Some(b) = numbers.next_element()? {
            all.push(b);
        }
        Ok(ByteStr(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};

    proptest! {
        #[test]
        fn it_is_what_its_bytes_are(a in proptest::collection::vec(any::<u8>(), 0..50), b: Vec<u8>) {
            let (x, y) = (ByteStr::from(a.clone()), ByteStr::from(&b[..]));
            prop_assert_eq!((x == y, x.cmp(&y)), (a == b, a.cmp(&b)));
            prop_assert_eq!(a.iter().copied().collect::<ByteStr>(), x.clone());
            let mut of_vec = Vec::new();
            a.write(&mut of_vec);
            let mut of_str = Vec::new();
            x.write(&mut of_str);
            prop_assert_eq!((of_str, x.stable_hash()), (of_vec, a.stable_hash()));
            prop_assert_eq!(x.stable_hash(), a[..].stable_hash());
            prop_assert_eq!(x.into_vec(), a);
        }

        #[test]
        fn it_comes_back_from_every_format(bytes: Vec<u8>) {
            let it = ByteStr::from(&bytes[..]);
            let json = serde_json::to_string(&it).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ByteStr>(&json).unwrap(), &it);
            prop_assert_eq!(&serde_json::from_value::<ByteStr>(serde_json::to_value(&it).unwrap()).unwrap(), &it);
            let stored = crate::codec::encode(&it).unwrap();
            prop_assert_eq!(&crate::codec::decode::<ByteStr>(&stored).unwrap(), &it);
            // Bytes that were kept as a vector are read as these.
            prop_assert_eq!(&crate::codec::decode::<ByteStr>(&crate::codec::encode(&bytes).unwrap()).unwrap(), &it);
        }
    }

    #[test]
    fn a_string_is_read_too() {
        let map: BTreeMap<ByteStr, ByteStr> = serde_json::from_str(r#"{"a":"\u00e4","b":[0,255],"c":""}"#).unwrap();
        assert_eq!(map[&b"a"[..]], "ä".as_bytes());
        assert_eq!(map[&b"b"[..]], [0, 255]);
        assert_eq!(map[&b"c"[..]], []);
        let row = csv::ByteRecord::from(vec![&b"a\xff"[..]]);
        assert_eq!(row.deserialize::<(ByteStr,)>(None).unwrap().0, b"a\xff");
        assert!(serde_json::from_str::<ByteStr>("[256]").is_err() && serde_json::from_str::<ByteStr>("7").is_err());
    }

    #[test]
    fn short_ones_lie_in_the_record() {
        assert_eq!(size_of::<ByteStr>(), 24);
        for n in 0..40u8 {
            let it = ByteStr::from((0..n).collect::<Vec<u8>>());
            let here = std::ptr::from_ref(&it) as usize;
            let inside = (here..here + size_of::<ByteStr>()).contains(&(it.as_ptr() as usize));
            assert_eq!(inside, usize::from(n) <= INLINE, "{n}");
            assert_eq!(it.clone(), it);
        }
    }

    #[test]
    fn it_shows_text_and_escapes() {
        assert_eq!(format!("{:?}", ByteStr::from(b"a\"\n\xff")), r#"b"a\"\n\xff""#);
        assert_eq!(format!("{:?}", ByteStr::default()), r#"b"""#);
    }

    #[test]
    fn maps_are_asked_with_slices() {
        let map = HashMap::from([(ByteStr::from("key"), 1)]);
        assert_eq!(map.get(&b"key"[..]), Some(&1));
    }
}
