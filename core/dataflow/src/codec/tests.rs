//! Batches and control come back as they went, and no bytes do harm.

use super::*;
use crate::{
    batch::{Batch, Time},
    push::Mark,
};
use proptest::{collection::vec, prelude::*};
use serde::{Deserialize, Serializer, ser::SerializeSeq};
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    time::Duration,
};

type Record = (u64, String, Option<Vec<u8>>);

fn bodies<T: crate::Data>(items: &[T], times: &[Time], limit: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    encode_batch(items, times, limit, 1 << 20, |b| all.push(b)).unwrap();
    all
}

fn read<T: crate::Data>(body: &[u8]) -> Result<Vec<T>, DecodeError> {
    let mut batch = Batch::default();
    decode_batch(body, &mut batch)?;
    let mut got = Vec::new();
    batch.each(usize::MAX, |_, _, t| got.push(t));
    Ok(got)
}

/// The bytes of one record, without the head of its batch.
fn bytes<T: crate::Data + Clone>(item: &T) -> Vec<u8> {
    bodies(std::slice::from_ref(item), &[], 1 << 20)[0][5..].to_vec()
}

fn of_bytes<T: crate::Data>(bytes: &[u8]) -> Result<T, String> {
    match read([&[0, 1, 0, 0, 0], bytes].concat().as_slice()) {
        Ok(mut got) => Ok(got.remove(0)),
        Err(DecodeError::Damaged(e) | DecodeError::Unreadable(e)) => Err(e),
    }
}

fn refused<T: crate::Data>(item: T) -> String {
    match encode_batch(&[item], &[], 1 << 20, 1 << 20, |_| {}) {
        Err(EncodeError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New(i16);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind<T> {
    Plain,
    New(T),
    Pair(u8, T),
    Named { name: String, inner: Option<Box<Self>> },
}

/// Something of each kind that serde knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct All {
    small: (i8, u8, bool, char),
    middle: (i16, u16, i32, u32),
    large: (i64, u64, i128, u128),
    floats: [f64; 2],
    float: f32,
    text: String,
    kinds: Vec<Kind<New>>,
    map: BTreeMap<String, Vec<Option<u32>>>,
    nothing: (Unit, ()),
    empties: Vec<((), Unit)>,
    took: Duration,
}

fn kind() -> impl Strategy<Value = Kind<New>> {
    let leaf = prop_oneof![
        Just(Kind::Plain),
        any::<i16>().prop_map(|n| Kind::New(New(n))),
        any::<(u8, i16)>().prop_map(|(a, b)| Kind::Pair(a, New(b))),
    ];
    leaf.prop_recursive(4, 8, 1, |inner| {
        (any::<String>(), proptest::option::of(inner))
            .prop_map(|(name, inner)| Kind::Named { name, inner: inner.map(Box::new) })
    })
}

prop_compose! {
    fn all()(
        small: (i8, u8, bool, char),
        middle: (i16, u16, i32, u32),
        large: (i64, u64, i128, u128),
        // Without NaN, which is not equal to itself.
        floats in [proptest::num::f64::NORMAL | proptest::num::f64::ZERO; 2],
        float in proptest::num::f32::INFINITE | proptest::num::f32::SUBNORMAL,
        text in "\\PC{0,20}|.{0,400}",
        kinds in vec(kind(), 0..4),
        map in proptest::collection::btree_map(any::<String>(), vec(any::<Option<u32>>(), 0..3), 0..3),
        empties in 0usize..300,
        took: (u32, u16),
    ) -> All {
        All {
            small, middle, large, floats, float, text, kinds, map,
            nothing: (Unit, ()),
            empties: vec![((), Unit); empties],
            took: Duration::new(took.0.into(), took.1.into()),
        }
    }
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
    fn every_kind_of_value_comes_back(items in vec(all(), 0..4), limit in 1usize..2000) {
        let got: Vec<All> = bodies(&items, &[], limit).iter().flat_map(|b| read::<All>(b).unwrap()).collect();
        prop_assert_eq!(got, items);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
        let counted = [&[0, 3, 0, 0, 0], &bytes[..]].concat();
        for bytes in [&bytes, &counted] {
            let _ = (read::<Record>(bytes), read::<()>(bytes), read::<All>(bytes), read::<Vec<Kind<u8>>>(bytes));
            let _ = (read::<Vec<()>>(bytes), read::<HashSet<u8>>(bytes), read::<serde_json::Value>(bytes));
        }
        let _ = (decode_mark(&bytes), decode_latency(&bytes), decode_barrier(&bytes), decode::<Record>(&bytes));
    }

    #[test]
    fn damage_is_an_error_or_another_batch(items: Vec<Record>, at: usize, to: u8) {
        for mut body in bodies(&items, &[], 1 << 20) {
            let at = at % body.len();
            prop_assert!(read::<Record>(&body[..at]).is_err());
            body[at] = to;
            let _ = read::<Record>(&body);
        }
    }

    #[test]
    fn damage_to_every_kind_of_value_does_no_harm(item in all(), at: usize, to: u8) {
        let mut body = bodies(&[item], &[], 1 << 20).remove(0);
        let at = at % body.len();
        prop_assert!(read::<All>(&body[..at]).is_err());
        body[at] = to;
        let _ = read::<All>(&body);
    }
}

#[test]
fn the_form_is_as_written_down() {
    assert_eq!(bytes(&(1u16, -2i32, true, 'a')), [1, 0, 254, 255, 255, 255, 1, 97, 0, 0, 0]);
    assert_eq!(bytes(&("ab".to_owned(), vec![3u8], Some(Unit))), [2, b'a', b'b', 1, 3, 1]);
    assert_eq!(bytes(&Kind::Pair(7, New(1))), [2, 7, 1, 0]);
    assert_eq!(bytes(&vec![(); 3]), [3, 0, 0, 0]);
    let long = bytes(&"x".repeat(255));
    assert_eq!((&long[..9], long.len()), (&[255, 255, 0, 0, 0, 0, 0, 0, 0][..], 264));
}

#[test]
fn floats_keep_their_bits() {
    let item = (f64::from_bits(0x7ff8_0000_dead_beef), -0.0f64, f32::NEG_INFINITY, f32::from_bits(0xffc0_1234));
    let got: (f64, f64, f32, f32) = of_bytes(&bytes(&item)).unwrap();
    assert_eq!((got.0.to_bits(), got.1.to_bits()), (item.0.to_bits(), item.1.to_bits()));
    assert_eq!((got.2.to_bits(), got.3.to_bits()), (item.2.to_bits(), item.3.to_bits()));
}

#[test]
fn what_is_no_value_is_refused() {
    fn no<T: crate::Data + Debug>(bytes: &[u8], what: &str) {
        let error = of_bytes::<T>(bytes).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    no::<bool>(&[2], "a bool is neither");
    no::<Option<u8>>(&[2, 0], "an option is neither");
    no::<char>(&0xd800u32.to_le_bytes(), "a char is none");
    no::<char>(&0x0011_0000_u32.to_le_bytes(), "a char is none");
    no::<String>(&[2, 0xc3, 0x28], "no UTF-8");
    // A short string is looked at with what stands behind it, which is not part of it.
    no::<(String, u128)>(&[&[1, 0x80][..], &[0; 16]].concat(), "no UTF-8");
    assert_eq!(of_bytes(&[&[1, b'a'][..], &[0xff; 16]].concat()), Ok(("a".to_owned(), u128::MAX)));
    no::<Kind<u8>>(&[4], "variant index");
    no::<Kind<u8>>(&[255, 0, 0, 0, 0, 1, 0, 0, 0], "no such number");
    no::<u64>(&[1; 9], "are left over");
    no::<u64>(&[1; 7], "cut short");
    no::<String>(&[3, b'a', b'b'], "beyond the end");
}

#[test]
fn short_strings_come_back_wherever_they_stand() {
    for n in 0..20 {
        for text in ["x".repeat(n), "ä".repeat(n / 2), format!("{}ä", "x".repeat(n))] {
            for behind in 0..20 {
                let bytes = [&bytes(&text)[..], &vec![0xff; behind]].concat();
                let mut input = read::Input::new(&bytes);
                assert_eq!(String::deserialize(&mut input).unwrap(), text);
                assert_eq!(input.len(), behind);
            }
        }
    }
}

#[test]
fn no_byte_of_a_short_string_is_overlooked() {
    for n in 1..=18 {
        for at in 0..n {
            let mut bytes = [&[n as u8][..], &vec![b'x'; n], &[0; 20]].concat();
            bytes[1 + at] = 0x80;
            let mut input = read::Input::new(&bytes);
            assert!(String::deserialize(&mut input).is_err(), "{n} bytes, the one at {at} is none of UTF-8");
        }
    }
}

#[test]
fn a_short_length_in_the_wide_form_is_the_length_and_not_the_text() {
    let wide = |text: &[u8]| [&[255, text.len() as u8, 0, 0, 0, 0, 0, 0, 0][..], text, &[0; 20]].concat();
    for n in 1..=18 {
        let text = "x".repeat(n);
        let bytes = wide(text.as_bytes());
        assert_eq!(String::deserialize(&mut read::Input::new(&bytes)).unwrap(), text);
        for at in 0..n {
            let mut wrong = vec![b'x'; n];
            wrong[at] = 0x80;
            let bytes = wide(&wrong);
            assert!(String::deserialize(&mut read::Input::new(&bytes)).is_err(), "{n} bytes, the one at {at}");
        }
    }
}

/// Refuses what it has read, and is then taken for nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
struct Small(u8);

impl From<Small> for u8 {
    fn from(small: Small) -> u8 {
        small.0
    }
}

impl TryFrom<u8> for Small {
    type Error = String;
    fn try_from(n: u8) -> Result<Self, String> {
        if n < 10 { Ok(Self(n)) } else { Err(format!("{n} is not small")) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lenient {
    #[serde(deserialize_with = "or_none")]
    small: Option<Small>,
    behind: Option<u32>,
}

fn or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Small>, D::Error> {
    Ok(Option::deserialize(from).unwrap_or_default())
}

#[test]
fn a_deserialize_that_goes_on_after_an_error_finds_what_stands_behind() {
    let sent: Vec<_> = (0..1000).map(|n| Lenient { small: Some(Small(90)), behind: Some(n) }).collect();
    let got: Vec<Lenient> = bodies(&sent, &[], 1 << 20).iter().flat_map(|body| read(body).unwrap()).collect();
    let expected: Vec<_> = (0..1000).map(|n| Lenient { small: None, behind: Some(n) }).collect();
    assert_eq!(got, expected);
}

#[test]
fn what_a_type_refuses_is_no_damage_of_the_network() {
    let body = &bodies(&[Small(90)], &[], 1 << 20)[0];
    match read::<Small>(body) {
        Err(DecodeError::Unreadable(why)) => assert!(why.contains("90 is not small") && why.contains("agree"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Passes over the error of its last field.
#[derive(Clone, Deserialize)]
struct Careless(String, String);

impl Serialize for Careless {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut to = to.serialize_tuple(2)?;
        to.serialize_element(&self.0)?;
        let _ = to.serialize_element(&self.1);
        to.end()
    }
}

#[test]
fn a_serialize_that_goes_on_after_an_error_is_refused_and_writes_nothing_wrong() {
    let long = Careless("x".into(), "y".repeat(10_000));
    match encode_batch(&[long], &[], 1 << 20, 1 << 20, |_| panic!("a record without its end")) {
        Err(EncodeError::Refused(why)) => assert!(why.contains("goes on after an error"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_that_is_too_long_is_named() {
    let long = vec!["x".repeat(100)];
    assert_eq!(encode_batch(&long, &[], 1000, 50, |_| {}), Err(EncodeError::TooLong));
    assert_eq!(encode_batch(&long, &[], 1000, 100, |_| {}), Err(EncodeError::TooLong));
    assert_eq!(encode_batch(&long, &[], 1000, 101, |_| {}), Ok(()));
    let longer = vec!["x".repeat(100_000)];
    assert_eq!(encode_batch(&longer, &[], 1000, 100_008, |_| {}), Err(EncodeError::TooLong));
    assert_eq!(encode_batch(&longer, &[], 1000, 100_009, |_| {}), Ok(()));
}

/// Counts how often it is written.
#[derive(Clone)]
struct Endless;

thread_local!(static WRITTEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

impl Serialize for Endless {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all = to.serialize_seq(None)?;
        loop {
            WRITTEN.set(WRITTEN.get() + 1);
            all.serialize_element(&0u64)?;
        }
    }
}

impl<'de> Deserialize<'de> for Endless {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[test]
fn a_record_far_too_long_is_not_built() {
    assert_eq!(encode_batch(&[Endless], &[], 1000, 1 << 16, |_| {}), Err(EncodeError::TooLong));
    assert!(WRITTEN.get() <= 3 << 13, "{} numbers of 8 bytes were written", WRITTEN.get());
}

#[test]
fn a_false_count_makes_no_large_allocation() {
    let body = [0, 0, 0, 1, 0, 7];
    assert!(read::<u64>(&body).is_err());
    assert!(read::<u64>(&[0, 255, 255, 255, 255]).is_err());
    let wide = [255, 0, 0, 0, 0, 0, 1, 0, 0];
    for error in [of_bytes::<Vec<u64>>(&wide).err(), of_bytes::<String>(&wide).err(), of_bytes::<Vec<()>>(&wide).err()]
    {
        assert!(error.is_some_and(|e| e.contains("beyond the end")));
    }
}

#[test]
fn a_sequence_whose_length_comes_last_is_read() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Odd(#[serde(serialize_with = "odd")] Vec<u32>);
    fn odd<S: Serializer>(all: &[u32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(all.iter().filter(|n| **n % 2 == 1))
    }
    let got: Odd = of_bytes(&bytes(&Odd((0..10).collect()))).unwrap();
    assert_eq!(got.0, [1, 3, 5, 7, 9]);
}

#[test]
fn attributes_that_need_no_names_work() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Plain {
        #[serde(skip)]
        cached: u64,
        #[serde(default, rename = "n")]
        number: Option<u32>,
        kinds: Vec<Kind<u8>>,
    }
    let item = Plain { cached: 0, number: None, kinds: vec![Kind::Plain, Kind::New(3)] };
    assert_eq!(of_bytes::<Plain>(&bytes(&Plain { cached: 9, ..item.clone() })), Ok(item));
}

#[test]
fn what_cannot_be_read_back_says_what_to_do() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        map: BTreeMap<String, u8>,
    }
    assert!(refused(Flat { map: BTreeMap::new() }).contains("flatten"));
    #[derive(Clone, Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<u8>,
    }
    let why = refused(Skips { field: None });
    assert!(why.contains("`field`") && why.contains("skip_serializing_if"), "{why}");
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Loose {
        Number(u64),
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Inside {
        Named { a: u16 },
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "of")]
    enum Beside {
        Number(u64),
    }
    for error in [
        of_bytes::<Inside>(&bytes(&Inside::Named { a: 1 })).unwrap_err(),
        of_bytes::<Beside>(&bytes(&Beside::Number(1))).unwrap_err(),
        of_bytes::<Loose>(&bytes(&Loose::Number(1))).unwrap_err(),
        of_bytes::<serde_json::Value>(&bytes(&serde_json::json!([1]))).unwrap_err(),
    ] {
        assert!(error.contains("untagged") && error.contains("string of JSON"), "{error}");
    }
    assert!(matches!(read::<Loose>(&bodies(&[Loose::Number(1)], &[], 9)[0]), Err(DecodeError::Unreadable(_))));
}

#[test]
fn a_serialize_that_miscounts_is_refused() {
    #[derive(Deserialize)]
    struct Wrong;
    impl Serialize for Wrong {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut all = to.serialize_seq(Some(2))?;
            all.serialize_element(&1u8)?;
            all.end()
        }
    }
    assert!(refused(Wrong).contains("promised 2 elements and gave 1"));
}

#[test]
fn depth_is_bounded_both_ways() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Node(Vec<Node>);
    let nested = |depth: usize| (1..depth).fold(Node(vec![]), |inner, _| Node(vec![inner]));
    let deepest = nested(MAX_DEPTH as usize);
    assert_eq!(of_bytes::<Node>(&bytes(&deepest)), Ok(deepest));
    assert!(refused(nested(MAX_DEPTH as usize + 1)).contains("deep in each other"));
    let error = of_bytes::<Node>(&[1; 1 << 20]).unwrap_err();
    assert!(error.contains("too deep"), "{error}");
    let error = of_bytes::<Option<Box<Kind<u8>>>>(&[&[1][..], &[3, 0, 1].repeat(1 << 16)].concat()).unwrap_err();
    assert!(error.contains("too deep"), "{error}");
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
