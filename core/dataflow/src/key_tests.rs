//! Pinned hashes: a change here moves state to other key groups, and breaks every checkpoint.

use super::*;

// The derive names this crate from outside.
use crate as thalweg_dataflow;
use thalweg_derive::Key;

#[derive(Key, Clone, PartialEq, Eq)]
#[key(crate = thalweg_dataflow)]
struct Small {
    a: u16,
    b: bool,
}

#[derive(Key, Clone, PartialEq, Eq)]
#[key(crate = thalweg_dataflow)]
struct Large(u64, String);

#[derive(Key, Clone, PartialEq, Eq)]
#[key(crate = thalweg_dataflow)]
#[allow(dead_code)]
enum Plain {
    Zero,
    One,
}

#[derive(Key, Clone, PartialEq, Eq)]
#[key(crate = thalweg_dataflow)]
enum Rich<T> {
    None,
    Some(T),
    Named { x: u8, y: Option<T> },
}

fn bytes<K: Key>(key: &K) -> Vec<u8> {
    let mut to = Vec::new();
    key.write(&mut to);
    to
}

#[test]
fn canonical_bytes_are_as_written_down() {
    assert_eq!(bytes(&0x0102u16), [2, 1]);
    assert_eq!(bytes(&-1i32), [255; 4]);
    assert_eq!(bytes(&7usize), [7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(&"ab".to_owned()), [2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']);
    assert_eq!(bytes(&Some(true)), [1, 1]);
    assert_eq!(bytes(&None::<u8>), [0]);
    assert_eq!(bytes(&(1u8, [2u8, 3])), [1, 2, 3]);
    assert_eq!(bytes(&Small { a: 1, b: true }), [1, 0, 1]);
    assert_eq!(bytes(&Plain::One), [1, 0, 0, 0]);
    assert_eq!(bytes(&Rich::Named { x: 9, y: Some(4u8) }), [2, 0, 0, 0, 9, 1, 4]);
    assert_eq!(bytes(&Rich::Some(4u8)), [1, 0, 0, 0, 4]);
    assert_eq!(bytes(&Rich::<u8>::None), [0, 0, 0, 0]);
}

#[test]
fn a_word_is_the_canonical_bytes_zero_extended() {
    fn check<K: Key>(key: K) {
        let b = bytes(&key);
        assert_eq!(K::WIDTH, Some(b.len()));
        assert_eq!(key.word(), b.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b)));
        assert_eq!(key.stable_hash(), hash_word(key.word()));
    }
    check(-3i8);
    check('ß');
    check(u64::MAX);
    check((1u16, -1i8, true));
    check([1u16, 2, 3]);
    check(Small { a: 300, b: true });
    check(Plain::One);
    check(());
    assert_eq!(<(u64, u8)>::WIDTH, None);
    assert_eq!(Large::WIDTH, None);
    assert_eq!(<[u64; 2]>::WIDTH, None);
}

#[test]
fn borrowed_and_owned_forms_hash_alike() {
    assert_eq!("word".stable_hash(), "word".to_owned().stable_hash());
    assert_eq!("word".stable_hash(), b"word"[..].stable_hash());
    assert_eq!(b"word"[..].stable_hash(), b"word".to_vec().stable_hash());
    assert_eq!(5usize.stable_hash(), 5u64.stable_hash());
    assert_eq!(<&u64 as Key>::stable_hash(&&5), 5u64.stable_hash());
    assert_ne!(("a", "bc").stable_hash(), ("ab", "c").stable_hash());
}

#[test]
fn hashes_are_pinned() {
    let hashes = [
        0u64.stable_hash(),
        1u64.stable_hash(),
        (-1i32).stable_hash(),
        "".stable_hash(),
        "hello".stable_hash(),
        (7u64, "seven".to_owned()).stable_hash(),
        Large(7, "seven".to_owned()).stable_hash(),
        u128::MAX.stable_hash(),
    ];
    assert_eq!(hashes, PINNED);
    assert_eq!(PINNED.map(|h| key_group(h, 128)), GROUPS);
}

#[test]
fn key_groups_are_dealt_out_in_runs() {
    for (parallelism, max) in [(1, 128), (3, 128), (4, 128), (7, 8), (128, 128), (1000, 2048)] {
        let owners: Vec<_> = (0..max).map(|g| subtask_of(g, parallelism, max)).collect();
        assert!(owners.is_sorted() && owners[0] == 0 && owners[max as usize - 1] == parallelism - 1);
    }
}

/// The first three were computed by hand from the fold, the fourth is the published XXH3 of nothing.
const PINNED: [u64; 8] = [
    0xc9d874ca57d9e055,
    0xf2f37271ad33e225,
    0x2f8418e60068a510,
    0x2d06800538d394c2,
    0x9555e8555c62dcfd,
    0x6a599ea07bc4c43d,
    0x6a599ea07bc4c43d,
    0x722a202f07a4b313,
];
const GROUPS: [u32; 8] = [108, 121, 66, 3, 42, 44, 44, 21];
