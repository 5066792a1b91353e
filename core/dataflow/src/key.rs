//! Keys: canonical bytes, one stable hash, and from it the key group and the subtask.
//!
//! It is not `std::hash::Hash`, which promises no bytes: what a key hashes to decides where its state lies in a
//! checkpoint, so it may never change. The values are pinned by golden tests.

use crate::byte_str::ByteStr;
use serde::{Serialize, de::DeserializeOwned};
use std::cell::Cell;

/// A string that lies in the record itself where it is short: up to 24 bytes nothing is allocated, nor for a clone.
pub use compact_str::CompactString as Str;
use xxhash_rust::xxh3::xxh3_64;

/// What can leave its task or live in state: it is encoded on the way to another process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot leave its task",
    label = "needs `Serialize + DeserializeOwned + Send`",
    note = "items that cross an exchange (key_by, rebalance, union…) or live in state travel between processes: add `#[derive(Serialize, Deserialize)]`"
)]
pub trait Data: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Data for T {}

/// A value with canonical bytes, and so with one hash on every machine and in every version.
///
/// Integers are their fixed width in little-endian bytes (`usize` is `u64`), strings and byte strings are prefixed
/// with their length where they stand within a larger key, variants of enums and `Option` are numbered. A borrowed form
/// (`str`) must hash like its owned form (`String`), and equal values must have equal bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    label = "needs `Key`",
    note = "derive it: `#[derive(Key, PartialEq, Eq, Clone, Serialize, Deserialize)]`; floating-point numbers cannot be keys"
)]
pub trait Key {
    /// Number of canonical bytes when it is one for all values and at most 8.
    const WIDTH: Option<usize>;
    /// The canonical bytes, zero-extended; asked only when there is a width.
    fn word(&self) -> u64;
    /// Appends the canonical bytes as they stand within a larger key.
    fn write(&self, to: &mut Vec<u8>);
    /// The one hash of this key.
    #[inline(always)]
    fn stable_hash(&self) -> u64 {
        match Self::WIDTH {
            Some(_) => hash_word(self.word()),
            None => hash_written(|to| self.write(to)),
        }
    }
}

/// A key that a table row can own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key of keyed state",
    label = "needs `Key + Eq + Clone + Serialize + DeserializeOwned + Send`",
    note = "derive `Key, PartialEq, Eq, Clone, Serialize, Deserialize` for your own type; floating-point numbers cannot be keys"
)]
pub trait OwnedKey: Key + Eq + Clone + Data {}
impl<K: Key + Eq + Clone + Data> OwnedKey for K {}

/// Hash of a key of at most 8 bytes.
#[inline(always)]
pub fn hash_word(word: u64) -> u64 {
    let product = u128::from(word ^ 0x9E37_79B9_7F4A_7C15) * u128::from(0xD6E8_FEB8_6659_FD93_u64);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hash of a string of bytes.
#[inline(always)]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

thread_local! {
    // One buffer a thread: hashing a composite key allocates nothing once the buffer has grown.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn hash_written(write: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let mut buffer = SCRATCH.with(Cell::take);
    buffer.clear();
    write(&mut buffer);
    let hash = hash_bytes(&buffer);
    SCRATCH.with(|s| s.set(buffer));
    hash
}

/// Number of key groups' index: bits 24 up, which the table (low bits and top 7) does not use.
#[inline(always)]
pub fn key_group(hash: u64, max_parallelism: u32) -> u32 {
    ((u64::from((hash >> 24) as u32) * u64::from(max_parallelism)) >> 32) as u32
}

/// The subtask that owns a key group.
#[inline(always)]
pub fn subtask_of(key_group: u32, parallelism: u32, max_parallelism: u32) -> u32 {
    (u64::from(key_group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

/// Sum of widths, when all are fixed and it is at most 8. For derived code.
#[doc(hidden)]
pub const fn width_of(widths: &[Option<usize>]) -> Option<usize> {
    let (mut sum, mut i) = (0, 0);
    while i < widths.len() {
        match widths[i] {
            Some(w) => sum += w,
            None => return None,
        }
        i += 1;
    }
    if sum <= 8 { Some(sum) } else { None }
}

/// `word` moved up by `at` bytes; a shift by 8 bytes gives 0. For derived code.
#[doc(hidden)]
#[inline(always)]
pub fn shifted(word: u64, at: usize) -> u64 {
    if at >= 8 { 0 } else { word << (8 * at) }
}

macro_rules! integers { ($($t:ty as $u:ty),*) => { $(
    impl Key for $t {
        const WIDTH: Option<usize> = Some(size_of::<$u>());
        #[inline(always)]
        fn word(&self) -> u64 { *self as $u as u64 }
        fn write(&self, to: &mut Vec<u8>) { to.extend_from_slice(&(*self as $u).to_le_bytes()) }
    }
)* } }
integers!(
    u8 as u8,
    u16 as u16,
    u32 as u32,
    u64 as u64,
    usize as u64,
    i8 as u8,
    i16 as u16,
    i32 as u32,
    i64 as u64,
    isize as u64,
    bool as u8,
    char as u32
);

macro_rules! wide { ($($t:ty),*) => { $(
    impl Key for $t {
        const WIDTH: Option<usize> = None;
        fn word(&self) -> u64 { 0 }
        fn write(&self, to: &mut Vec<u8>) { to.extend_from_slice(&self.to_le_bytes()) }
    }
)* } }
wide!(u128, i128);

/// Byte strings: a lone one is hashed as it is, so that no copy is made; within a larger key its length stands before
/// it, so that ("a", "bc") and ("ab", "c") differ.
macro_rules! strings { ($($t:ty => $bytes:path),*) => { $(
    impl Key for $t {
        const WIDTH: Option<usize> = None;
        fn word(&self) -> u64 { 0 }
        fn write(&self, to: &mut Vec<u8>) {
            let bytes: &[u8] = $bytes(self);
            to.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            to.extend_from_slice(bytes);
        }
        #[inline(always)]
        fn stable_hash(&self) -> u64 { hash_bytes($bytes(self)) }
    }
)* } }
strings!(
    str => str::as_bytes,
    String => String::as_bytes,
    Str => Str::as_bytes,
    [u8] => same,
    Vec<u8> => Vec::as_slice,
    ByteStr => ByteStr::as_slice
);

fn same(bytes: &[u8]) -> &[u8] {
    bytes
}

impl<K: Key + ?Sized> Key for &K {
    const WIDTH: Option<usize> = K::WIDTH;
    #[inline(always)]
    fn word(&self) -> u64 {
        (**self).word()
    }
    fn write(&self, to: &mut Vec<u8>) {
        (**self).write(to);
    }
    #[inline(always)]
    fn stable_hash(&self) -> u64 {
        (**self).stable_hash()
    }
}

impl<K: Key> Key for Option<K> {
    const WIDTH: Option<usize> = None;
    fn word(&self) -> u64 {
        0
    }
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.write(to);
        }
    }
}

impl<K: Key, const N: usize> Key for [K; N] {
    const WIDTH: Option<usize> = match K::WIDTH {
        Some(w) if w * N <= 8 => Some(w * N),
        _ => None,
    };
    #[inline(always)]
    fn word(&self) -> u64 {
        let each = K::WIDTH.unwrap_or(0);
        self.iter().enumerate().fold(0, |word, (i, k)| word | shifted(k.word(), i * each))
    }
    fn write(&self, to: &mut Vec<u8>) {
        self.iter().for_each(|k| k.write(to));
    }
}

impl Key for () {
    const WIDTH: Option<usize> = Some(0);
    fn word(&self) -> u64 {
        0
    }
    fn write(&self, _: &mut Vec<u8>) {}
}

macro_rules! tuples { ($(($($k:ident $i:tt),+)),*) => { $(
    impl<$($k: Key),+> Key for ($($k,)+) {
        const WIDTH: Option<usize> = width_of(&[$($k::WIDTH),+]);
        #[inline(always)]
        fn word(&self) -> u64 {
            let (mut word, mut _at) = (0u64, 0usize);
            $(word |= shifted(self.$i.word(), _at); _at += $k::WIDTH.unwrap_or(0);)+
            word
        }
        fn write(&self, to: &mut Vec<u8>) { $(self.$i.write(to);)+ }
    }
)* } }
tuples!((A 0), (A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3), (A 0, B 1, C 2, D 3, E 4), (A 0, B 1, C 2, D 3, E 4, F 5));

/// Finds the key in an item without making one: only a new row takes an owned key.
pub trait KeySelect<T>: Clone + Send + 'static {
    /// What a row owns.
    type Key: OwnedKey;
    /// Hash of the item's key.
    fn hash(&self, item: &T) -> u64;
    /// Is this the item's key?
    fn same(&self, item: &T, key: &Self::Key) -> bool;
    /// The item's key, owned.
    fn own(&self, item: &T) -> Self::Key;
    /// A hash that is dearer than eight bytes of traffic travels with the item; a cheap one is made again
    /// (shipping the hash of a `u64` costs 5 ns a record, making it 1).
    const DEAR: bool = std::mem::needs_drop::<Self::Key>() || size_of::<Self::Key>() > 16;
}

/// The key is computed, or `Copy`.
#[derive(Clone)]
pub struct ByValue<F>(pub F);
impl<T, K: OwnedKey, F: Fn(&T) -> K + Clone + Send + 'static> KeySelect<T> for ByValue<F> {
    type Key = K;
    #[inline(always)]
    fn hash(&self, item: &T) -> u64 {
        (self.0)(item).stable_hash()
    }
    #[inline(always)]
    fn same(&self, item: &T, key: &K) -> bool {
        (self.0)(item) == *key
    }
    #[inline(always)]
    fn own(&self, item: &T) -> K {
        (self.0)(item)
    }
}

/// The key lies in the item.
#[derive(Clone)]
pub struct ByRef<F>(pub F);
impl<T, Q, F> KeySelect<T> for ByRef<F>
where
    Q: ?Sized + Key + Eq + ToOwned<Owned: OwnedKey> + 'static,
    F: Fn(&T) -> &Q + Clone + Send + 'static,
{
    type Key = Q::Owned;
    #[inline(always)]
    fn hash(&self, item: &T) -> u64 {
        (self.0)(item).stable_hash()
    }
    #[inline(always)]
    fn same(&self, item: &T, key: &Q::Owned) -> bool {
        use std::borrow::Borrow;
        (self.0)(item) == key.borrow()
    }
    #[inline(always)]
    fn own(&self, item: &T) -> Q::Owned {
        (self.0)(item).to_owned()
    }
}

/// The key is the first half of a pair.
#[derive(Clone, Copy)]
pub struct ByFirst;
impl<K: OwnedKey, V> KeySelect<(K, V)> for ByFirst {
    type Key = K;
    #[inline(always)]
    fn hash(&self, item: &(K, V)) -> u64 {
        item.0.stable_hash()
    }
    #[inline(always)]
    fn same(&self, item: &(K, V), key: &K) -> bool {
        item.0 == *key
    }
    #[inline(always)]
    fn own(&self, item: &(K, V)) -> K {
        item.0.clone()
    }
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
