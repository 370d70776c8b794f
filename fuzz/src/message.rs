//! A body that validates can be read to its last byte, is no larger than its bytes, and is read
//! again as the same after it was sent on. One that does not validate is refused.
//!
//! Input: a byte that chooses the type, the body.

use core::fmt::Debug;

use ringcall_codec::{
    BodyError, Code, Deserializer, Message, Status, access, deserialize, limits::MESSAGE_DEPTH_MAX,
};
use rkyv::{Archived, Deserialize, boxed::ArchivedBox, string::ArchivedString, vec::ArchivedVec};

use crate::{input::Buffer, input::aligned};

/// Every kind of field that owns its contents.
#[ringcall_macros::message]
#[derive(Debug)]
pub struct Drawing {
    /// An enum in a list.
    pub shapes: Vec<Shape>,
    /// A pointer that may be there.
    pub first: Option<Box<Shape>>,
    /// Numbers side by side.
    pub corners: [Point; 2],
    /// Bytes of which not every value is one.
    pub marks: (u8, char, bool, (), Option<u16>, u128),
    /// Lists in lists.
    pub names: Vec<Vec<String>>,
    /// A text that is not in a list.
    pub title: String,
}

/// An enum with every form of variant.
#[ringcall_macros::message]
#[derive(Debug)]
pub enum Shape {
    /// No fields.
    Empty,
    /// Fields without names, an enum among them.
    Circle(Point, Colour),
    /// Fields with names.
    Path {
        /// A list in an enum.
        points: Vec<Point>,
        /// A text in an option in an enum.
        name: Option<String>,
    },
}

/// An enum inside an enum.
#[ringcall_macros::message]
#[derive(Debug)]
pub enum Colour {
    /// A number alone.
    Grey(u8),
    /// A text.
    Named(String),
}

/// Numbers of two sizes, with padding between them.
#[ringcall_macros::message]
#[derive(Debug)]
pub struct Point(pub i32, pub i64);

/// Every kind of field that borrows.
#[ringcall_macros::message]
pub struct Borrowed<'a> {
    /// A borrowed text.
    pub text: &'a str,
    /// Borrowed bytes.
    pub bytes: &'a [u8],
    /// A borrowed struct.
    pub point: &'a Point,
    /// Borrowed texts in a list.
    pub words: Vec<&'a str>,
    /// Borrowed bytes in an option.
    pub maybe: Option<&'a [u8]>,
}

/// No contents at all: a body of no bytes.
#[ringcall_macros::message]
#[derive(Debug)]
pub struct Nothing;

/// A type that holds itself, which the macro refuses: as deep as its sender likes.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Debug)]
#[rkyv(
    serialize_bounds(
        __S: rkyv::ser::Writer + rkyv::ser::Allocator,
        __S::Error: rkyv::rancor::Source,
    ),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(
        __C: rkyv::validation::ArchiveContext,
        __C::Error: rkyv::rancor::Source,
    )),
)]
pub struct Nest {
    /// The next level.
    #[rkyv(omit_bounds)]
    pub inner: Option<Box<Nest>>,
}

impl ringcall_codec::Field for Nest {
    const LAYOUT: u64 = 1;
}

impl Message for Nest {}

/// Validates a body as one of the types, and reads it.
pub fn run(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    match choice % 6 {
        0 => owned::<Drawing>(body),
        1 => owned::<Shape>(body),
        2 => owned::<Nest>(body),
        3 => owned::<Nothing>(body),
        4 => owned::<Colour>(body),
        _ => drop(read::<Borrowed<'static>>(&aligned(body))),
    }
}

/// A body of a type that can be copied out is the same after it was sent on.
fn owned<T>(body: &[u8])
where
    T: Message + Debug,
    Archived<T>: Read + Deserialize<T, Deserializer>,
{
    let body = aligned(body);
    let Some(reading) = read::<T>(&body) else { return };
    let archived = access::<T>(&body).expect("it validated before");
    let message = deserialize::<T>(archived).expect("what validated can be copied out");
    // Details of a status are the way to encode a message without a connection. Not all fit.
    let Ok(status) = Status::new(Code::Internal, "").with_details(&message) else { return };
    let again = status.details::<T>().expect("what was encoded validates");
    let mut second = Reading::default();
    again.read(&mut second, 1);
    assert_eq!(reading.hash, second.hash, "{message:?}");
}

/// Reads all of a body that validates.
fn read<T: Message>(body: &Buffer) -> Option<Reading>
where
    Archived<T>: Read,
{
    // One byte further no body is aligned, whatever is in it.
    let mut shifted = aligned(&[0]);
    shifted.extend_from_slice(body);
    let misaligned = access::<T>(&shifted[1..]).map(drop);
    assert!(body.is_empty() || misaligned == Err(BodyError::Misaligned));

    match access::<T>(body) {
        Ok(archived) => {
            let mut reading = Reading::default();
            archived.read(&mut reading, 1);
            // No byte is in two places, or a short body could take for ever to read.
            assert!(reading.content_len <= body.len(), "{reading:?} of {}", body.len());
            Some(reading)
        }
        Err(error) => {
            assert_eq!(error, BodyError::Invalid { body_len: body.len() });
            None
        }
    }
}

/// What was read.
#[derive(Debug)]
struct Reading {
    hash: u64,
    /// Bytes that lists and texts consist of.
    content_len: usize,
}

impl Default for Reading {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, content_len: 0 }
    }
}

impl Reading {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn length(&mut self, len: usize) {
        self.bytes(&(len as u64).to_le_bytes());
    }
}

/// Reads every part of an archived value. `level` counts pointers from the root.
trait Read {
    fn read(&self, reading: &mut Reading, level: usize);
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Read for $type {
            fn read(&self, reading: &mut Reading, _: usize) {
                reading.bytes(&self.to_native().to_le_bytes());
            }
        }
    )*};
}

numbers!(rkyv::rend::u16_le, rkyv::rend::u128_le, rkyv::rend::i32_le, rkyv::rend::i64_le);

impl Read for u8 {
    fn read(&self, reading: &mut Reading, _: usize) {
        reading.bytes(&[*self]);
    }
}

impl Read for bool {
    fn read(&self, reading: &mut Reading, _: usize) {
        // Compared as a branch would: a bool of another value than 0 and 1 takes neither.
        reading.bytes(if *self { &[1] } else { &[0] });
    }
}

impl Read for rkyv::rend::char_le {
    fn read(&self, reading: &mut Reading, _: usize) {
        let character = self.to_native();
        assert!(char::from_u32(character as u32).is_some());
        reading.bytes(&(character as u32).to_le_bytes());
    }
}

impl Read for () {
    fn read(&self, _: &mut Reading, _: usize) {}
}

impl Read for str {
    fn read(&self, reading: &mut Reading, level: usize) {
        assert!(str::from_utf8(self.as_bytes()).is_ok());
        self.as_bytes().read(reading, level);
    }
}

impl Read for ArchivedString {
    fn read(&self, reading: &mut Reading, level: usize) {
        self.as_str().read(reading, level);
    }
}

impl<T: Read> Read for [T] {
    fn read(&self, reading: &mut Reading, level: usize) {
        reading.length(self.len());
        reading.content_len += size_of_val(self);
        self.iter().for_each(|item| item.read(reading, level));
    }
}

impl<T: Read, const N: usize> Read for [T; N] {
    fn read(&self, reading: &mut Reading, level: usize) {
        self.iter().for_each(|item| item.read(reading, level));
    }
}

impl<T: Read> Read for ArchivedVec<T> {
    fn read(&self, reading: &mut Reading, level: usize) {
        self.as_slice().read(reading, level + 1);
    }
}

impl<T: Read + rkyv::traits::ArchivePointee + ?Sized> Read for ArchivedBox<T> {
    fn read(&self, reading: &mut Reading, level: usize) {
        assert!(level < MESSAGE_DEPTH_MAX, "{level} levels above this one");
        self.get().read(reading, level + 1);
    }
}

impl<T: Read> Read for rkyv::option::ArchivedOption<T> {
    fn read(&self, reading: &mut Reading, level: usize) {
        reading.bytes(&[u8::from(self.is_some())]);
        if let Some(value) = self.as_ref() {
            value.read(reading, level);
        }
    }
}

/// Implements [`Read`] as the reading of fields, one after the other.
macro_rules! fields {
    ($type:ty: $($field:tt),+) => {
        impl Read for $type {
            fn read(&self, reading: &mut Reading, level: usize) {
                $(self.$field.read(reading, level);)+
            }
        }
    };
}

fields!(ArchivedDrawing: shapes, first, corners, marks, names, title);
fields!(ArchivedPoint: 0, 1);
fields!(ArchivedBorrowed<'_>: text, bytes, point, words, maybe);
fields!(ArchivedNest: inner);
fields!(
    rkyv::tuple::ArchivedTuple6<
        u8,
        rkyv::rend::char_le,
        bool,
        (),
        rkyv::option::ArchivedOption<rkyv::rend::u16_le>,
        rkyv::rend::u128_le,
    >: 0, 1, 2, 3, 4, 5
);

impl Read for ArchivedNothing {
    fn read(&self, _: &mut Reading, _: usize) {}
}

impl Read for ArchivedShape {
    fn read(&self, reading: &mut Reading, level: usize) {
        match self {
            Self::Empty => reading.bytes(&[0]),
            Self::Circle(centre, colour) => {
                reading.bytes(&[1]);
                centre.read(reading, level);
                colour.read(reading, level);
            }
            Self::Path { points, name } => {
                reading.bytes(&[2]);
                points.read(reading, level);
                name.read(reading, level);
            }
        }
    }
}

impl Read for ArchivedColour {
    fn read(&self, reading: &mut Reading, level: usize) {
        match self {
            Self::Grey(shade) => {
                reading.bytes(&[0]);
                shade.read(reading, level);
            }
            Self::Named(name) => {
                reading.bytes(&[1]);
                name.read(reading, level);
            }
        }
    }
}
