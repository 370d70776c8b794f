//! Layout fingerprints: the same for the same layout, and another for every other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;

use ringcall_codec::{
    Field,
    layout::{layout_of, layout_of_enum, layout_of_struct},
};
use support::{Blob, Line, Order, Payment};

/// FNV-1a (64 bits), as its authors give it.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn a_fingerprint_is_the_hash_of_tag_and_parts() {
    assert_eq!(u32::LAYOUT, fnv(b"u32"));
    assert_eq!(<()>::LAYOUT, fnv(b"tuple"));
    let list = [b"vec", &u8::LAYOUT.to_le_bytes()[..]].concat();
    assert_eq!(<Vec<u8>>::LAYOUT, fnv(&list));
    let array = [b"array", &9_u64.to_le_bytes()[..], &u16::LAYOUT.to_le_bytes()].concat();
    assert_eq!(<[u16; 9]>::LAYOUT, fnv(&array));
    let pair = [b"tuple", &bool::LAYOUT.to_le_bytes()[..], &char::LAYOUT.to_le_bytes()].concat();
    assert_eq!(<(bool, char)>::LAYOUT, fnv(&pair));
}

#[test]
fn a_fingerprint_of_a_struct_is_that_of_its_fields_size_and_alignment() {
    let mut bytes = b"struct".to_vec();
    bytes.extend(b"id\0");
    bytes.extend(fnv(b"u64").to_le_bytes());
    bytes.extend(b"bytes\0");
    bytes.extend(<Vec<u8>>::LAYOUT.to_le_bytes());
    bytes.extend(16_u64.to_le_bytes());
    bytes.extend(8_u64.to_le_bytes());
    assert_eq!(Blob::LAYOUT, fnv(&bytes));
}

#[test]
fn a_fingerprint_of_an_enum_is_that_of_its_variants() {
    let mut bytes = b"enum".to_vec();
    bytes.extend(b"Cash\0Card\0number\0");
    bytes.extend(u64::LAYOUT.to_le_bytes());
    bytes.extend(b"holder\0");
    bytes.extend(String::LAYOUT.to_le_bytes());
    bytes.extend(b"Transfer\x000\0");
    bytes.extend(String::LAYOUT.to_le_bytes());
    bytes.extend(b"1\0");
    bytes.extend(u32::LAYOUT.to_le_bytes());
    bytes.extend((size_of::<support::ArchivedPayment>() as u64).to_le_bytes());
    bytes.extend(8_u64.to_le_bytes());
    assert_eq!(Payment::LAYOUT, fnv(&bytes));
}

#[test]
fn types_that_are_archived_differently_have_different_fingerprints() {
    let all: &[(&str, u64)] = &[
        ("bool", bool::LAYOUT),
        ("u8", u8::LAYOUT),
        ("u16", u16::LAYOUT),
        ("u32", u32::LAYOUT),
        ("u64", u64::LAYOUT),
        ("u128", u128::LAYOUT),
        ("i8", i8::LAYOUT),
        ("i16", i16::LAYOUT),
        ("i32", i32::LAYOUT),
        ("i64", i64::LAYOUT),
        ("i128", i128::LAYOUT),
        ("f32", f32::LAYOUT),
        ("f64", f64::LAYOUT),
        ("char", char::LAYOUT),
        ("()", <()>::LAYOUT),
        ("String", String::LAYOUT),
        ("Box<str>", <Box<str>>::LAYOUT),
        ("Vec<u8>", <Vec<u8>>::LAYOUT),
        ("Vec<i8>", <Vec<i8>>::LAYOUT),
        ("Vec<Vec<u8>>", <Vec<Vec<u8>>>::LAYOUT),
        ("Box<[u8]>", <Box<[u8]>>::LAYOUT),
        ("Box<u8>", <Box<u8>>::LAYOUT),
        ("Option<u8>", <Option<u8>>::LAYOUT),
        ("[u8; 3]", <[u8; 3]>::LAYOUT),
        ("[u8; 4]", <[u8; 4]>::LAYOUT),
        ("(u8,)", <(u8,)>::LAYOUT),
        ("(u8, u16)", <(u8, u16)>::LAYOUT),
        ("(u16, u8)", <(u16, u8)>::LAYOUT),
        ("Blob", Blob::LAYOUT),
        ("Line", Line::LAYOUT),
        ("Payment", Payment::LAYOUT),
        ("Order", Order::LAYOUT),
    ];
    let mut seen = HashMap::new();
    for (name, layout) in all {
        assert_eq!(seen.insert(layout, name), None, "{name}");
    }
}

#[test]
fn a_borrowed_field_is_that_of_a_box() {
    assert_eq!(<&str>::LAYOUT, <Box<str>>::LAYOUT);
    assert_eq!(<&[u32]>::LAYOUT, <Box<[u32]>>::LAYOUT);
    assert_eq!(<&u32>::LAYOUT, <Box<u32>>::LAYOUT);
}

#[test]
fn names_order_size_and_alignment_count() {
    let fields = [("a", u8::LAYOUT), ("b", u16::LAYOUT)];
    let turned = [fields[1], fields[0]];
    let renamed = [("a", u8::LAYOUT), ("c", u16::LAYOUT)];
    let run_together = [("ab", u16::LAYOUT)];
    let all = [
        layout_of_struct(&fields, 4, 2),
        layout_of_struct(&turned, 4, 2),
        layout_of_struct(&renamed, 4, 2),
        layout_of_struct(&run_together, 4, 2),
        layout_of_struct(&fields, 8, 2),
        layout_of_struct(&fields, 4, 1),
        layout_of_enum(&[("A", &fields)], 4, 2),
        layout_of_enum(&[("A", &fields[..1]), ("B", &fields[1..])], 4, 2),
        layout_of_enum(&[("B", &fields[..1]), ("A", &fields[1..])], 4, 2),
        layout_of("struct", &[u8::LAYOUT, u16::LAYOUT]),
    ];
    for (at, layout) in all.iter().enumerate() {
        assert!(!all[..at].contains(layout), "{at}");
    }
}
