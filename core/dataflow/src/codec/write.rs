//! A record to bytes: the writing half of the exchange's form, which `codec` describes. It is no format for storage.
//!
//! What makes it fast: a writer is the room that is left, handed on *by value*, and what a step gives back is the room
//! behind it. So the compiler keeps it in registers and joins the checks of neighbouring fields; a writer behind a
//! reference would be loaded and stored again for each field. The room is of fixed size: where it ends, writing stops,
//! and the caller begins that record again in more of it.

use super::{MAX_DEPTH, WIDE};
use serde::{
    Serialize,
    ser::{
        Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant, Serializer,
    },
};
use std::fmt::{self, Display};

/// Why a record was not written: no room for it, or what refused it. One word, so that a result is two.
#[derive(Debug)]
pub(super) struct Stopped(Option<Box<str>>);

impl Stopped {
    /// Why it was refused; `None` when there was no room.
    pub(super) fn refused(self) -> Option<Box<str>> {
        self.0
    }
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("there is no room for it"))
    }
}

impl std::error::Error for Stopped {}

impl Error for Stopped {
    #[cold]
    fn custom<T: Display>(message: T) -> Self {
        Self(Some(message.to_string().into()))
    }
}

type Room<'a> = Result<&'a mut [u8], Stopped>;

#[cold]
fn full<T>() -> Result<T, Stopped> {
    Err(Stopped(None))
}

/// Writes one value at the front of its room, and gives the rest of it back.
pub(super) struct Writer<'a> {
    room: &'a mut [u8],
    depth: u32,
}

impl<'a> Writer<'a> {
    #[inline(always)]
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, depth: 0 }
    }

    #[inline(always)]
    fn put<const N: usize>(self, bytes: [u8; N]) -> Room<'a> {
        match self.room.split_first_chunk_mut() {
            Some((to, rest)) => {
                *to = bytes;
                Ok(rest)
            }
            None => full(),
        }
    }

    /// The number of a variant, or how many bytes or elements follow.
    #[inline(always)]
    fn length(self, n: usize) -> Room<'a> {
        if n < usize::from(WIDE) { self.put([n as u8]) } else { self.put(wide(n)) }
    }

    #[inline(always)]
    fn bytes(self, bytes: &[u8]) -> Room<'a> {
        match self.length(bytes.len())?.split_at_mut_checked(bytes.len()) {
            Some((to, rest)) => {
                to.copy_from_slice(bytes);
                Ok(rest)
            }
            None => full(),
        }
    }

    #[inline(always)]
    fn fields(self) -> Fields<'a> {
        Fields { room: self.room, depth: self.depth }
    }

    /// A variant's number, and then its fields, one level down.
    #[inline(always)]
    fn variant(self, index: u32) -> Result<Fields<'a>, Stopped> {
        let depth = deeper(self.depth)?;
        Ok(Fields { room: self.length(index as usize)?, depth })
    }

    #[inline(always)]
    fn items(self, n: Option<usize>) -> Result<Items<'a>, Stopped> {
        let depth = deeper(self.depth)?;
        let (head, room) = match n {
            Some(n) => (None, self.length(n)?),
            // Not known yet: nine bytes are kept for it.
            None => match self.room.split_first_chunk_mut() {
                Some((head, room)) => (Some(head), room),
                None => return full(),
            },
        };
        let start = room.len();
        Ok(Items { room, depth, head, start, promised: n, n: 0 })
    }
}

fn wide(n: usize) -> [u8; 9] {
    let mut bytes = [WIDE; 9];
    bytes[1..].copy_from_slice(&(n as u64).to_le_bytes());
    bytes
}

#[inline(always)]
fn deeper(depth: u32) -> Result<u32, Stopped> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { too_deep() }
}

#[cold]
fn too_deep() -> Result<u32, Stopped> {
    Err(Stopped::custom(format_args!(
        "options, sequences, maps and variants stand more than {MAX_DEPTH} deep in each other: send what is nested so \
         deep as a list of its nodes"
    )))
}

/// The fields of a struct, a tuple or a variant, which is all that there is of it.
pub(super) struct Fields<'a> {
    room: &'a mut [u8],
    depth: u32,
}

impl Fields<'_> {
    #[inline(always)]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Stopped> {
        add(&mut self.room, self.depth, value)
    }
}

#[inline(always)]
fn add<T: Serialize + ?Sized>(room: &mut &mut [u8], depth: u32, value: &T) -> Result<(), Stopped> {
    *room = value.serialize(Writer { room: std::mem::take(room), depth })?;
    Ok(())
}

/// The elements of a sequence, or of a map.
pub(super) struct Items<'a> {
    room: &'a mut [u8],
    depth: u32,
    // Where their number goes when it was not known before.
    head: Option<&'a mut [u8; 9]>,
    start: usize,
    promised: Option<usize>,
    n: usize,
}

impl<'a> Items<'a> {
    #[inline(always)]
    fn close(self) -> Room<'a> {
        if let Some(head) = self.head {
            *head = wide(self.n);
        } else if self.promised != Some(self.n) {
            return miscounted(self.promised, self.n);
        }
        // Elements take a byte each, at least together: no true number of them is above that of the bytes.
        let written = self.start - self.room.len();
        if written >= self.n {
            return Ok(self.room);
        }
        match self.room.split_at_mut_checked(self.n - written) {
            Some((padding, rest)) => {
                padding.fill(0);
                Ok(rest)
            }
            None => full(),
        }
    }
}

#[cold]
fn miscounted<T>(promised: Option<usize>, n: usize) -> Result<T, Stopped> {
    let promised = promised.unwrap_or_default();
    Err(Stopped::custom(format_args!("its `Serialize` promised {promised} elements and gave {n}")))
}

macro_rules! numbers { ($($name:ident $t:ty),*) => { $(
    #[inline(always)]
    fn $name(self, v: $t) -> Room<'a> { self.put(v.to_le_bytes()) }
)* } }

impl<'a> Serializer for Writer<'a> {
    type Ok = &'a mut [u8];
    type Error = Stopped;
    type SerializeSeq = Items<'a>;
    type SerializeMap = Items<'a>;
    type SerializeTuple = Fields<'a>;
    type SerializeTupleStruct = Fields<'a>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128,
        serialize_f32 f32, serialize_f64 f64
    );

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline(always)]
    fn serialize_bool(self, v: bool) -> Room<'a> {
        self.put([u8::from(v)])
    }
    #[inline(always)]
    fn serialize_char(self, v: char) -> Room<'a> {
        self.put(u32::from(v).to_le_bytes())
    }
    #[inline(always)]
    fn serialize_str(self, v: &str) -> Room<'a> {
        self.bytes(v.as_bytes())
    }
    #[inline(always)]
    fn serialize_bytes(self, v: &[u8]) -> Room<'a> {
        self.bytes(v)
    }
    #[inline(always)]
    fn serialize_none(self) -> Room<'a> {
        self.put([0])
    }
    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Room<'a> {
        let depth = deeper(self.depth)?;
        v.serialize(Writer { room: self.put([1])?, depth })
    }
    #[inline(always)]
    fn serialize_unit(self) -> Room<'a> {
        Ok(self.room)
    }
    #[inline(always)]
    fn serialize_unit_struct(self, _: &'static str) -> Room<'a> {
        Ok(self.room)
    }
    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Room<'a> {
        self.length(index as usize)
    }
    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Room<'a> {
        v.serialize(self)
    }
    #[inline(always)]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        v: &T,
    ) -> Room<'a> {
        let Fields { room, depth } = self.variant(index)?;
        v.serialize(Writer { room, depth })
    }
    #[inline(always)]
    fn serialize_seq(self, n: Option<usize>) -> Result<Items<'a>, Stopped> {
        self.items(n)
    }
    #[inline(always)]
    fn serialize_map(self, n: Option<usize>) -> Result<Items<'a>, Stopped> {
        match n {
            Some(n) => self.items(Some(n)),
            None => Err(Stopped::custom(
                "it has a map of unknown length, as `#[serde(flatten)]` makes them, which cannot be read back from a \
                 form without names of fields: make the inner struct a field of its own",
            )),
        }
    }
    #[inline(always)]
    fn serialize_tuple(self, _: usize) -> Result<Fields<'a>, Stopped> {
        Ok(self.fields())
    }
    #[inline(always)]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Stopped> {
        Ok(self.fields())
    }
    #[inline(always)]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Stopped> {
        Ok(self.fields())
    }
    #[inline(always)]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Stopped> {
        self.variant(index)
    }
    #[inline(always)]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Stopped> {
        self.variant(index)
    }
}

impl<'a> SerializeSeq for Items<'a> {
    type Ok = &'a mut [u8];
    type Error = Stopped;
    #[inline(always)]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Stopped> {
        self.n += 1;
        add(&mut self.room, self.depth, v)
    }
    #[inline(always)]
    fn end(self) -> Room<'a> {
        self.close()
    }
}

impl<'a> SerializeMap for Items<'a> {
    type Ok = &'a mut [u8];
    type Error = Stopped;
    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Stopped> {
        self.n += 1;
        add(&mut self.room, self.depth, key)
    }
    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Stopped> {
        add(&mut self.room, self.depth, v)
    }
    #[inline(always)]
    fn end(self) -> Room<'a> {
        self.close()
    }
}

macro_rules! tuples { ($($kind:ident $add:ident),*) => { $(
    impl<'a> $kind for Fields<'a> {
        type Ok = &'a mut [u8];
        type Error = Stopped;
        #[inline(always)]
        fn $add<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Stopped> { self.add(v) }
        #[inline(always)]
        fn end(self) -> Room<'a> { Ok(self.room) }
    }
)* } }
tuples!(SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs { ($($kind:ident),*) => { $(
    impl<'a> $kind for Fields<'a> {
        type Ok = &'a mut [u8];
        type Error = Stopped;
        #[inline(always)]
        fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, v: &T) -> Result<(), Stopped> {
            self.add(v)
        }
        fn skip_field(&mut self, name: &'static str) -> Result<(), Stopped> { left_out(name) }
        #[inline(always)]
        fn end(self) -> Room<'a> { Ok(self.room) }
    }
)* } }
structs!(SerializeStruct, SerializeStructVariant);

#[cold]
fn left_out(name: &str) -> Result<(), Stopped> {
    Err(Stopped::custom(format_args!(
        "its field `{name}` is left out (`#[serde(skip_serializing_if)]`), which cannot be read back from a form \
         without names of fields: take that attribute away from records that cross an exchange"
    )))
}
