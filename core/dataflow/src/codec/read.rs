//! A record from bytes that may be damaged: the reading half of the exchange's form, which `codec` describes.
//!
//! It never panics, what it allocates and how long it works is bounded by the bytes that are there, and it goes no
//! deeper than a writer does. It may use `unsafe` in one place, where short strings are looked at as a whole.
#![allow(unsafe_code)]

use super::{MAX_DEPTH, WIDE};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::U32Deserializer,
};
use std::fmt::{self, Display};

/// Why no value was read. The frequent reason is a constant in one word: so the checks of a record's fields share one
/// way out, and the compiler inlines them.
#[derive(Debug)]
pub(super) struct Unread(Option<Box<Why>>);

/// Each other reason.
#[derive(Debug)]
enum Why {
    /// The bytes are none of a value of its type.
    Damaged(String),
    /// Its `Deserialize` says so.
    Refused(String),
    /// Its type asks what comes next, which bytes without names and types do not tell.
    Undescribed,
}

const CUT_SHORT: Unread = Unread(None);

impl Unread {
    /// Is it the type that cannot be read, or does not want to, and not the bytes?
    pub(super) fn is_of_the_type(&self) -> bool {
        matches!(self.0.as_deref(), Some(Why::Undescribed | Why::Refused(_)))
    }
}

impl Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            None => f.write_str("a value is cut short"),
            Some(Why::Damaged(what)) => f.write_str(what),
            Some(Why::Refused(what)) => {
                write!(f, "{what}; do its `Serialize` and its `Deserialize` agree, of which types and in which order?")
            }
            Some(Why::Undescribed) => f.write_str(UNDESCRIBED),
        }
    }
}

const UNDESCRIBED: &str = "it has a part that can be read only from a form which names its fields and types \
    (`serde_json::Value`, `#[serde(untagged)]`, `#[serde(tag = …)]`, `#[serde(flatten)]`), and records travel in one \
    that does not: use an enum without these attributes, or carry that part as a string of JSON";

impl std::error::Error for Unread {}

impl Error for Unread {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self(Some(Box::new(Why::Refused(message.to_string()))))
    }
}

#[cold]
#[inline(never)]
fn undescribed() -> Unread {
    Unread(Some(Box::new(Why::Undescribed)))
}

#[cold]
#[inline(never)]
fn damaged(what: &str) -> Unread {
    Unread(Some(Box::new(Why::Damaged(what.to_owned()))))
}

/// The bytes that are left, and how deep the value stands in others that is read now.
///
/// It is behind a reference, unlike a writer's room: what is read goes elsewhere than it lies, and two words go in
/// registers.
pub(super) struct Input<'de> {
    rest: &'de [u8],
    depth: u32,
}

impl<'de> Input<'de> {
    pub(super) fn new(rest: &'de [u8]) -> Self {
        Self { rest, depth: 0 }
    }

    /// Bytes left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unread> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(CUT_SHORT),
        }
    }

    /// A number of bytes or elements, of which each takes at least one of those that are left.
    #[inline(always)]
    fn length(&mut self) -> Result<usize, Unread> {
        let n = match self.take()? {
            [WIDE] => usize::try_from(u64::from_le_bytes(self.take()?)).unwrap_or(usize::MAX),
            [n] => usize::from(n),
        };
        if n <= self.rest.len() { Ok(n) } else { Err(damaged("a length is beyond the end")) }
    }

    #[inline(always)]
    fn bytes(&mut self) -> Result<&'de [u8], Unread> {
        let n = self.length()?;
        match self.rest.split_at_checked(n) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(damaged("a length is beyond the end")),
        }
    }

    #[inline(always)]
    fn text(&mut self) -> Result<&'de str, Unread> {
        // All bytes of a short string are looked at at once: 5 to 8 ns less for ASCII. Its length must be the one byte
        // before them: the wide form may stand for short ones too.
        let short = match self.rest.split_first() {
            Some((n @ 1..=16, behind)) => behind.first_chunk::<16>().map(|next| (*n, *next)),
            _ => None,
        };
        let bytes = self.bytes()?;
        if let Some((n, next)) = short {
            let own = u128::from_le_bytes(next) << (128 - 8 * u32::from(n));
            if own & u128::from_ne_bytes([0x80; 16]) == 0 {
                // SAFETY: `own` holds these bytes and zeros, and none of them is above 127: they are ASCII.
                return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
            }
        }
        std::str::from_utf8(bytes).map_err(|_| damaged("a string is no UTF-8"))
    }

    /// Reads what stands one level down.
    #[inline(always)]
    fn inner<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Unread>) -> Result<T, Unread> {
        if self.depth >= MAX_DEPTH {
            return Err(damaged("values stand too deep in each other"));
        }
        self.depth += 1;
        let value = read(self);
        // After an error too: a `Deserialize` may make something else of it and go on.
        self.depth -= 1;
        value
    }

    #[inline(always)]
    fn fields<V: Visitor<'de>>(&mut self, n: usize, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_seq(Parts { input: self, left: n })
    }

    /// A sequence or a map, and what a writer put behind elements without bytes.
    #[inline(always)]
    fn items<T>(&mut self, read: impl FnOnce(Parts<'_, 'de>) -> Result<T, Unread>) -> Result<T, Unread> {
        let n = self.length()?;
        let start = self.rest.len();
        let value = self.inner(|input| read(Parts { input, left: n }))?;
        let taken = start - self.rest.len();
        if n > taken {
            match self.rest.split_at_checked(n - taken) {
                Some((_, behind)) => self.rest = behind,
                None => return Err(damaged("a sequence is cut short")),
            }
        }
        Ok(value)
    }
}

macro_rules! numbers { ($($read:ident $visit:ident $t:ty),*) => { $(
    #[inline(always)]
    fn $read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.$visit(<$t>::from_le_bytes(self.take()?))
    }
)* } }

macro_rules! undescribed { ($($read:ident),*) => { $(
    #[cold]
    fn $read<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unread> { Err(undescribed()) }
)* } }

impl<'de> Deserializer<'de> for &mut Input<'de> {
    type Error = Unread;

    numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64
    );
    undescribed!(deserialize_any, deserialize_identifier, deserialize_ignored_any);

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline(always)]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.take()? {
            [0] => visitor.visit_bool(false),
            [1] => visitor.visit_bool(true),
            _ => Err(damaged("a bool is neither 0 nor 1")),
        }
    }
    #[inline(always)]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match char::from_u32(u32::from_le_bytes(self.take()?)) {
            Some(c) => visitor.visit_char(c),
            None => Err(damaged("a char is none")),
        }
    }
    #[inline(always)]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_borrowed_str(self.text()?)
    }
    #[inline(always)]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_borrowed_str(self.text()?)
    }
    #[inline(always)]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }
    #[inline(always)]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }
    #[inline(always)]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.take()? {
            [0] => visitor.visit_none(),
            [1] => self.inner(|input| visitor.visit_some(input)),
            _ => Err(damaged("an option is neither 0 nor 1")),
        }
    }
    #[inline(always)]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_unit()
    }
    #[inline(always)]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_unit()
    }
    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_newtype_struct(self)
    }
    #[inline(always)]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.items(|parts| visitor.visit_seq(parts))
    }
    #[inline(always)]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.items(|parts| visitor.visit_map(parts))
    }
    #[inline(always)]
    fn deserialize_tuple<V: Visitor<'de>>(self, n: usize, visitor: V) -> Result<V::Value, Unread> {
        self.fields(n, visitor)
    }
    #[inline(always)]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        n: usize,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        self.fields(n, visitor)
    }
    #[inline(always)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        self.fields(fields.len(), visitor)
    }
    #[inline(always)]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        visitor.visit_enum(self)
    }
}

/// So many values one after another.
struct Parts<'a, 'de> {
    input: &'a mut Input<'de>,
    left: usize,
}

impl<'de> Parts<'_, 'de> {
    #[inline(always)]
    fn one<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unread> {
        seed.deserialize(&mut *self.input)
    }

    #[inline(always)]
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unread> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.one(seed).map(Some)
    }
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Unread;
    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unread> {
        self.next(seed)
    }
    #[inline(always)]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Unread;
    #[inline(always)]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unread> {
        self.next(seed)
    }
    #[inline(always)]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unread> {
        self.one(seed)
    }
    #[inline(always)]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Input<'de> {
    type Error = Unread;
    type Variant = Self;
    #[inline(always)]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Unread> {
        let index = match self.take()? {
            [WIDE] => {
                u32::try_from(u64::from_le_bytes(self.take()?)).map_err(|_| damaged("a variant has no such number"))?
            }
            [index] => u32::from(index),
        };
        let index: U32Deserializer<Unread> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Input<'de> {
    type Error = Unread;
    #[inline(always)]
    fn unit_variant(self) -> Result<(), Unread> {
        Ok(())
    }
    #[inline(always)]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unread> {
        self.inner(|input| seed.deserialize(input))
    }
    #[inline(always)]
    fn tuple_variant<V: Visitor<'de>>(self, n: usize, visitor: V) -> Result<V::Value, Unread> {
        self.inner(|input| input.fields(n, visitor))
    }
    #[inline(always)]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Unread> {
        self.inner(|input| input.fields(fields.len(), visitor))
    }
}
