//! What may stand in a message: borrows, enums, tuple and unit structs, and other messages.

#![deny(warnings, missing_docs, clippy::all)]

use ringcall::{Field, Message};

/// No fields.
#[ringcall::message]
pub struct Ping;

/// Fields without names.
#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
#[rkyv(derive(Debug), compare(PartialEq))]
pub struct Point(pub i32, pub i32);

/// Every container.
#[ringcall::message]
pub struct Containers {
    /// A list of messages.
    pub points: Vec<Point>,
    /// A message, or none.
    pub ping: Option<Ping>,
    /// On the heap.
    pub boxed: Box<[u16]>,
    /// A text on the heap.
    pub text: Box<str>,
    /// In place.
    pub array: [Point; 3],
    /// A tuple.
    pub tuple: (u8, char, (), Option<bool>),
    /// A name that is a keyword.
    pub r#type: u128,
    /// A field that is there on some machines.
    #[cfg(target_os = "none")]
    pub absent: Foreign,
}

/// What is borrowed is not copied before it is encoded.
#[ringcall::message]
#[derive(Clone, Copy)]
pub struct Line<'a>(pub &'a str, pub u32);

/// Borrows in every place where they may stand.
#[ringcall::message]
pub struct Page<'a>
where
    'static: 'a,
{
    /// Bytes.
    pub bytes: &'a [u8],
    /// Two texts.
    pub text: &'a str,
    /// And another.
    pub other: &'a str,
    /// A message that borrows.
    pub line: Line<'a>,
    /// A borrowed message.
    pub first: &'a Line<'a>,
    /// Borrowed messages that borrow.
    pub lines: &'a [Line<'a>],
    /// An owned list of borrows.
    pub names: Vec<&'a str>,
    /// Perhaps a borrow.
    pub title: Option<&'a str>,
    /// An array of borrows.
    pub pair: [&'a str; 2],
    /// Borrows in containers in containers.
    pub deep: Vec<Option<&'a [u8]>>,
}

/// Borrows for ever.
#[ringcall::message]
pub struct Fixed {
    /// A text of the program.
    pub name: &'static str,
    /// A message of such texts.
    pub line: Option<Line<'static>>,
}

pub mod choice {
    //! Variants of each form. In a module of its own: rkyv writes no documentation for the
    //! fields of an enum's resolver.
    #![allow(missing_docs)]

    #[ringcall::message]
    pub enum Choice<'a> {
        Unit,
        Tuple(u32, super::Point),
        Named {
            text: &'a str,
            boxed: Option<Box<super::Ping>>,
        },
    }
}

macro_rules! message {
    ($name:ident { $($field:ident: $type:ty),* }) => {
        /// A message that a macro writes.
        #[ringcall::message]
        pub struct $name { $(/// A field.
            pub $field: $type),* }
    };
}

message!(Written { a: Vec<u8>, b: Option<Point> });

fn is_message<T: Message>() -> u64 {
    T::LAYOUT
}

type Strategy = ringcall::rkyv::rancor::Strategy<(), ringcall::rkyv::rancor::Error>;

fn owned<T>()
where
    T: Message,
    T::Archived: ringcall::rkyv::Deserialize<T, Strategy>,
{
}

fn main() {
    owned::<Containers>();
    owned::<Written>();
    let layouts = [
        is_message::<Ping>(),
        is_message::<Point>(),
        is_message::<Containers>(),
        is_message::<Line<'_>>(),
        is_message::<Page<'_>>(),
        is_message::<Fixed>(),
        is_message::<choice::Choice<'_>>(),
        is_message::<Written>(),
    ];
    for (index, layout) in layouts.iter().enumerate() {
        assert!(
            !layouts[..index].contains(layout),
            "the layouts of two messages are the same"
        );
    }
    // A borrow is archived as a box is: either end may own what the other borrows.
    assert_eq!(<&str as Field>::LAYOUT, <Box<str> as Field>::LAYOUT);
}
