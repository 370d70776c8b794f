//! Messages for the tests, written out as `#[ringcall::message]` would write them.

use ringcall_codec::{
    Field, Message,
    layout::{layout_of_enum, layout_of_struct},
};
use rkyv::{Archive, Deserialize, Serialize};

/// A number and bytes: 64 bytes archived with 48 bytes in it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Blob {
    pub(crate) id: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    pub(crate) fn new(id: u64, len: usize) -> Self {
        let bytes = (0..len).map(|at| (at as u64 ^ id) as u8).collect();
        Self { id, bytes }
    }
}

impl Field for Blob {
    const LAYOUT: u64 = layout_of_struct(
        &[("id", u64::LAYOUT), ("bytes", <Vec<u8>>::LAYOUT)],
        size_of::<ArchivedBlob>(),
        align_of::<ArchivedBlob>(),
    );
}

impl Message for Blob {}

/// Strings, options, an enum and a list of structs.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) customer: String,
    pub(crate) note: Option<String>,
    pub(crate) payment: Payment,
    pub(crate) lines: Vec<Line>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Payment {
    Cash,
    Card { number: u64, holder: String },
    Transfer(String, u32),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) article: String,
    pub(crate) count: u32,
    pub(crate) price: i64,
}

impl Order {
    pub(crate) fn example() -> Self {
        let line = |article: &str, count, price| Line { article: article.to_owned(), count, price };
        Self {
            id: 0x0123_4567_89ab_cdef,
            customer: "Grace Brewster Hopper".to_owned(),
            note: Some("leave it with the neighbour".to_owned()),
            payment: Payment::Card { number: 4_111_111, holder: "G. B. Hopper".to_owned() },
            lines: vec![line("nut", 100, 5), line("a bolt of brass, 12 mm", 40, -12)],
        }
    }
}

impl Field for Order {
    const LAYOUT: u64 = layout_of_struct(
        &[
            ("id", u64::LAYOUT),
            ("customer", String::LAYOUT),
            ("note", <Option<String>>::LAYOUT),
            ("payment", Payment::LAYOUT),
            ("lines", <Vec<Line>>::LAYOUT),
        ],
        size_of::<ArchivedOrder>(),
        align_of::<ArchivedOrder>(),
    );
}

impl Message for Order {}

impl Field for Payment {
    const LAYOUT: u64 = layout_of_enum(
        &[
            ("Cash", &[]),
            ("Card", &[("number", u64::LAYOUT), ("holder", String::LAYOUT)]),
            ("Transfer", &[("0", String::LAYOUT), ("1", u32::LAYOUT)]),
        ],
        size_of::<ArchivedPayment>(),
        align_of::<ArchivedPayment>(),
    );
}

impl Field for Line {
    const LAYOUT: u64 = layout_of_struct(
        &[("article", String::LAYOUT), ("count", u32::LAYOUT), ("price", i64::LAYOUT)],
        size_of::<ArchivedLine>(),
        align_of::<ArchivedLine>(),
    );
}

/// Types whose archives have padding between and behind their fields.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Gaps {
    pub(crate) small: u8,
    pub(crate) large: u128,
    pub(crate) maybe: Option<u64>,
    pub(crate) list: Vec<(u8, u32, Option<u64>)>,
}

impl Field for Gaps {
    const LAYOUT: u64 = layout_of_struct(
        &[
            ("small", u8::LAYOUT),
            ("large", u128::LAYOUT),
            ("maybe", <Option<u64>>::LAYOUT),
            ("list", <Vec<(u8, u32, Option<u64>)>>::LAYOUT),
        ],
        size_of::<ArchivedGaps>(),
        align_of::<ArchivedGaps>(),
    );
}

impl Message for Gaps {}

/// A type that holds itself, which `#[ringcall::message]` refuses: as deep as its sender likes.
#[derive(Archive, Serialize)]
#[rkyv(serialize_bounds(
    __S: rkyv::ser::Writer + rkyv::ser::Allocator,
    __S::Error: rkyv::rancor::Source,
))]
#[rkyv(bytecheck(bounds(
    __C: rkyv::validation::ArchiveContext,
    __C::Error: rkyv::rancor::Source,
)))]
pub(crate) struct Nest {
    #[rkyv(omit_bounds)]
    pub(crate) inner: Option<Box<Nest>>,
}

impl Field for Nest {
    const LAYOUT: u64 = 1;
}

impl Message for Nest {}
