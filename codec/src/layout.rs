//! Layout fingerprints: two builds that disagree on a message learn it when they connect.
//!
//! A fingerprint is FNV-1a (64 bits) over a tag and the fingerprints of the parts, as
//! `docs/wire.md` defines it; it is computed by the compiler. `#[message]` writes the
//! implementations for structs and enums.

use alloc::{boxed::Box, string::String, vec::Vec};

/// A type that may stand in a message.
///
/// Not here, and refused by the compiler: pointers that are shared (`Rc`, `Arc`), hash and B-tree
/// maps, integers as wide as the machine's pointers and types with niches. Their archives were
/// the way past `rkyv`'s validation in RUSTSEC-2026-0233, -0234 and -0235, or differ between
/// machines.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a message",
    label = "not a type that travels",
    note = "fields are numbers, `bool`, `char`, `String`, `Vec`, `Option`, `Box`, arrays, tuples, \
            `&str`, `&[T]` and types with `#[ringcall::message]`"
)]
pub trait Field {
    /// Fingerprint of the archived layout and of what it means.
    const LAYOUT: u64;
}

/// Fingerprint of a primitive or a container: its tag, then the fingerprints of its parts.
pub const fn layout_of(tag: &str, parts: &[u64]) -> u64 {
    let mut hash = fnv(FNV_OFFSET, tag.as_bytes());
    let mut index = 0;
    while index < parts.len() {
        hash = fnv(hash, &parts[index].to_le_bytes());
        index += 1;
    }
    hash
}

/// Fingerprint of a request or reply with which items travel.
pub const fn layout_with_items(message: u64, items: u64) -> u64 {
    layout_of("items", &[message, items])
}

/// Fingerprint of a struct: each field's name and fingerprint, then the size and alignment of
/// the archived type.
pub const fn layout_of_struct(fields: &[(&str, u64)], size: usize, align: usize) -> u64 {
    let hash = fnv_fields(fnv(FNV_OFFSET, b"struct"), fields);
    fnv_size_and_align(hash, size, align)
}

/// Fingerprint of an enum: each variant's name and fields, then the size and alignment of the
/// archived type.
pub const fn layout_of_enum(variants: &[(&str, &[(&str, u64)])], size: usize, align: usize) -> u64 {
    let mut hash = fnv(FNV_OFFSET, b"enum");
    let mut index = 0;
    while index < variants.len() {
        hash = fnv(fnv(hash, variants[index].0.as_bytes()), b"\0");
        hash = fnv_fields(hash, variants[index].1);
        index += 1;
    }
    fnv_size_and_align(hash, size, align)
}

macro_rules! primitives {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const LAYOUT: u64 = layout_of(stringify!($type), &[]);
        }
    )*};
}

primitives!(bool, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64, char);

impl Field for () {
    const LAYOUT: u64 = layout_of("tuple", &[]);
}

impl Field for String {
    const LAYOUT: u64 = layout_of("string", &[]);
}

impl Field for str {
    const LAYOUT: u64 = layout_of("str", &[]);
}

impl<T: Field> Field for Vec<T> {
    const LAYOUT: u64 = layout_of("vec", &[element_layout::<T>()]);
}

impl<T: Field> Field for [T] {
    const LAYOUT: u64 = layout_of("slice", &[element_layout::<T>()]);
}

impl<T: Field, const N: usize> Field for [T; N] {
    const LAYOUT: u64 = layout_of("array", &[N as u64, T::LAYOUT]);
}

impl<T: Field> Field for Option<T> {
    const LAYOUT: u64 = layout_of("option", &[T::LAYOUT]);
}

impl<T: Field + ?Sized> Field for Box<T> {
    const LAYOUT: u64 = layout_of("box", &[T::LAYOUT]);
}

// A reference is archived as a box is: the bytes that it points at, and an offset to them.
impl<T: Field + ?Sized> Field for &T {
    const LAYOUT: u64 = layout_of("box", &[T::LAYOUT]);
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => {$(
        impl<$($name: Field),+> Field for ($($name,)+) {
            const LAYOUT: u64 = layout_of("tuple", &[$($name::LAYOUT),+]);
        }
    )*};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
}

/// Fingerprint of a list's elements. They must take up bytes: a list of others costs its sender
/// eight bytes, whatever its length, and its reader 2³² steps.
const fn element_layout<T: Field>() -> u64 {
    assert!(
        size_of::<T>() > 0,
        "the elements of a list in a message take up no bytes: send their number instead"
    );
    T::LAYOUT
}

const fn fnv_fields(mut hash: u64, fields: &[(&str, u64)]) -> u64 {
    let mut index = 0;
    while index < fields.len() {
        hash = fnv(fnv(hash, fields[index].0.as_bytes()), b"\0");
        hash = fnv(hash, &fields[index].1.to_le_bytes());
        index += 1;
    }
    hash
}

const fn fnv_size_and_align(hash: u64, size: usize, align: usize) -> u64 {
    fnv(fnv(hash, &(size as u64).to_le_bytes()), &(align as u64).to_le_bytes())
}

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(FNV_PRIME);
        index += 1;
    }
    hash
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(layout_of("", &[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(layout_of("a", &[]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(layout_of("foobar", &[]), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_order_and_types_of_fields_all_count() {
        let base = layout_of_struct(&[("a", u32::LAYOUT), ("b", u64::LAYOUT)], 16, 8);
        assert_ne!(base, layout_of_struct(&[("b", u32::LAYOUT), ("a", u64::LAYOUT)], 16, 8));
        assert_ne!(base, layout_of_struct(&[("a", u64::LAYOUT), ("b", u32::LAYOUT)], 16, 8));
        assert_ne!(base, layout_of_struct(&[("a", u32::LAYOUT), ("b", u64::LAYOUT)], 16, 4));
        assert_ne!(base, layout_of_struct(&[("a", u32::LAYOUT)], 16, 8));
    }
}
