//! The messages that are measured, written out as `#[ringcall::message]` would write them, so
//! that nothing above the codec is built.

use std::hint::black_box;

use ringcall_codec::{Field, Message, layout::layout_of_struct};
use rkyv::{Archive, Serialize};

/// A number and bytes.
#[derive(Archive, Serialize)]
pub struct Blob {
    /// A number.
    pub id: u64,
    /// Bytes of any length.
    pub bytes: Vec<u8>,
}

/// What services send: texts, an option and a list of structs. 264 bytes archived.
#[derive(Archive, Serialize)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// Who ordered.
    pub customer: String,
    /// Where to.
    pub address: String,
    /// Anything else.
    pub note: Option<String>,
    /// What was ordered.
    pub lines: Vec<Line>,
}

/// A line of an order.
#[derive(Archive, Serialize)]
pub struct Line {
    /// Its name.
    pub article: String,
    /// How many.
    pub count: u32,
    /// In cents.
    pub price: u64,
}

impl Blob {
    /// A message whose archive has `body_len` bytes, a multiple of 8.
    pub fn of_len(body_len: usize) -> Self {
        Self { id: 42, bytes: vec![7; body_len - size_of::<ArchivedBlob>()] }
    }
}

impl ArchivedBlob {
    /// Reads what a handler would.
    pub fn read(&self) {
        black_box(self.id.to_native());
        black_box(self.bytes.last());
    }
}

impl Order {
    /// An order of three lines.
    pub fn example() -> Self {
        let line = |article: &str, count, price| Line { article: article.to_owned(), count, price };
        Self {
            id: 1_234_567_890,
            customer: "Grace Brewster Hopper".to_owned(),
            address: "3801 Nebraska Avenue NW, Washington".to_owned(),
            note: Some("leave it with the neighbour on the left".to_owned()),
            lines: vec![
                line("a bolt of brass, 12 mm", 100, 250),
                line("nut", 100, 55),
                line("washer, stainless steel", 300, 12),
            ],
        }
    }
}

impl ArchivedOrder {
    /// Reads every field.
    pub fn read(&self) {
        black_box(self.id.to_native());
        black_box(self.customer.as_str());
        black_box(self.address.as_str());
        black_box(self.note.as_deref());
        let total = self.lines.iter().map(|line| {
            black_box(line.article.as_str());
            u64::from(line.count.to_native()).wrapping_mul(line.price.to_native())
        });
        black_box(total.fold(0, u64::wrapping_add));
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

impl Field for Order {
    const LAYOUT: u64 = layout_of_struct(
        &[
            ("id", u64::LAYOUT),
            ("customer", String::LAYOUT),
            ("address", String::LAYOUT),
            ("note", <Option<String>>::LAYOUT),
            ("lines", <Vec<Line>>::LAYOUT),
        ],
        size_of::<ArchivedOrder>(),
        align_of::<ArchivedOrder>(),
    );
}

impl Message for Order {}

impl Field for Line {
    const LAYOUT: u64 = layout_of_struct(
        &[("article", String::LAYOUT), ("count", u32::LAYOUT), ("price", u64::LAYOUT)],
        size_of::<ArchivedLine>(),
        align_of::<ArchivedLine>(),
    );
}
