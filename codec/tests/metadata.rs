//! Metadata: entries arrive as they were put in, and bytes that are no block are refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::{collection::vec, prelude::*};
use ringcall_codec::{
    EntryKey, Key, Metadata, MetadataError, MetadataRef,
    limits::{METADATA_ENTRIES_MAX, METADATA_LEN_MAX, METADATA_NAME_LEN_MAX},
};

/// An entry in the form in which it travels; nothing in it need be right.
fn entry(number: u16, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((value.len() as u16).to_le_bytes());
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.extend(value);
    bytes
}

fn block(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

fn parse(bytes: &[u8]) -> Result<Metadata, MetadataError> {
    MetadataRef::parse(bytes).map(|metadata| metadata.to_owned())
}

fn example() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert(Key::AUTHORIZATION, "Bearer abc").unwrap();
    metadata.insert(Key::TENANT, [0xff, 0x00, 0x01]).unwrap();
    metadata.insert_named("cart-id", "17").unwrap().insert_named("x", "").unwrap();
    metadata
}

#[test]
fn a_block_is_entries_and_padding_byte_by_byte() {
    let mut metadata = Metadata::new();
    metadata.insert(Key::LOCALE, "de").unwrap().insert_named("a.b", "value").unwrap();
    let expected = b"\x07\x00\x02\x00\x00de\x00\x00\x05\x00\x03a.bvalue\0\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(metadata.as_bytes(), expected);
    assert_eq!(parse(expected), Ok(metadata));
}

#[test]
fn entries_are_found_by_key_and_by_name() {
    let metadata = example();
    let received = MetadataRef::parse(metadata.as_bytes()).unwrap();
    assert_eq!(received, metadata.as_ref());
    assert_eq!(received.get(Key::AUTHORIZATION), Some(&b"Bearer abc"[..]));
    assert_eq!(received.get_str(Key::AUTHORIZATION), Some("Bearer abc"));
    assert_eq!(received.get(Key::TENANT), Some(&[0xff, 0x00, 0x01][..]));
    assert_eq!(received.get_str(Key::TENANT), None, "not UTF-8");
    assert_eq!(received.get(Key::LOCALE), None);
    assert_eq!(received.get_named("cart-id"), Some(&b"17"[..]));
    assert_eq!(received.get_named("x"), Some(&b""[..]));
    for name in ["", "cart", "cart-id2", "CART-ID", "y"] {
        assert_eq!(received.get_named(name), None, "{name}");
    }
    let keys: Vec<_> = received.iter().map(|(key, _)| key).collect();
    let well_known = [Key::AUTHORIZATION, Key::TENANT].map(EntryKey::WellKnown);
    assert_eq!(keys[..2], well_known);
    assert_eq!(keys[2..], ["cart-id", "x"].map(EntryKey::Named));
    assert_eq!(received.into_iter().count(), 4);
}

#[test]
fn values_are_read_where_they_lie() {
    let metadata = example();
    let value = MetadataRef::parse(metadata.as_bytes()).unwrap().get(Key::AUTHORIZATION).unwrap();
    assert!(metadata.as_bytes().as_ptr_range().contains(&value.as_ptr()));
}

#[test]
fn no_entries_are_no_bytes() {
    let mut metadata = Metadata::new();
    assert!(metadata.is_empty() && metadata.as_bytes().is_empty());
    assert_eq!(MetadataRef::parse(&[]), Ok(MetadataRef::EMPTY));
    assert!(MetadataRef::EMPTY.is_empty());
    assert_eq!(MetadataRef::EMPTY.to_owned(), metadata);
    metadata.insert(Key::TENANT, "").unwrap();
    assert!(!metadata.is_empty() && !metadata.as_ref().is_empty());
    metadata.clear();
    assert_eq!(metadata, Metadata::new());
    // Padding alone is another encoding of the same.
    assert_eq!(parse(&[0; 16]), Err(MetadataError::BadPadding { at: 0 }));
}

#[test]
fn the_later_of_two_entries_with_one_key_is_kept() {
    let mut metadata = example();
    metadata.insert(Key::AUTHORIZATION, "a longer one than there was").unwrap();
    metadata.insert_named("cart-id", "").unwrap();
    assert_eq!(metadata.as_ref().iter().count(), 4);
    assert_eq!(metadata.as_ref().get_str(Key::AUTHORIZATION), Some("a longer one than there was"));
    assert_eq!(metadata.as_ref().get_named("cart-id"), Some(&b""[..]));
    assert_eq!(metadata.as_ref().get(Key::TENANT), Some(&[0xff, 0x00, 0x01][..]));
    assert_eq!(parse(metadata.as_bytes()), Ok(metadata));
}

#[test]
fn well_known_keys_have_the_numbers_of_the_norm() {
    let keys = [
        Key::AUTHORIZATION,
        Key::TRACEPARENT,
        Key::TRACESTATE,
        Key::IDEMPOTENCY_KEY,
        Key::USER_AGENT,
        Key::TENANT,
        Key::LOCALE,
        Key::TIMES,
    ];
    assert_eq!(keys.map(Key::get), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(Key::new(7), Some(Key::LOCALE));
    assert_eq!(Key::new(0), None);
}

#[test]
fn a_key_of_a_later_version_is_carried() {
    for number in [8, 256, u16::MAX] {
        let bytes = block(&[entry(number, b"", b"new"), entry(7, b"", b"de")]);
        let received = MetadataRef::parse(&bytes).unwrap();
        assert_eq!(received.get_str(Key::LOCALE), Some("de"));
        assert_eq!(received.get(Key::new(number).unwrap()), Some(&b"new"[..]));
        assert_eq!(received.to_owned().as_bytes(), bytes);
    }
}

#[test]
fn names_are_checked_on_both_sides() {
    let longest = "n".repeat(METADATA_NAME_LEN_MAX);
    for name in ["a", "0", ".", "a-z_0.9", "ringcall", "ringcall-x", "my.ringcall.x", &longest] {
        assert!(Metadata::new().insert_named(name, "").is_ok(), "{name}");
        assert!(parse(&block(&[entry(0, name.as_bytes(), b"v")])).is_ok(), "{name}");
    }
    let too_long = "n".repeat(METADATA_NAME_LEN_MAX + 1);
    let longest_possible = "n".repeat(255);
    for (name, error) in [
        ("", MetadataError::BadName),
        ("A", MetadataError::BadName),
        ("a b", MetadataError::BadName),
        ("a/b", MetadataError::BadName),
        ("a:b", MetadataError::BadName),
        ("a`b", MetadataError::BadName),
        ("a{b", MetadataError::BadName),
        ("a\0", MetadataError::BadName),
        ("ä", MetadataError::BadName),
        (&too_long, MetadataError::BadName),
        (&longest_possible, MetadataError::BadName),
        ("ringcall.", MetadataError::ReservedName),
        ("ringcall.trace", MetadataError::ReservedName),
    ] {
        let mut metadata = example();
        assert_eq!(metadata.insert_named(name, "v").map(drop), Err(error), "{name}");
        assert_eq!(metadata, example());
        assert_eq!(parse(&block(&[entry(0, name.as_bytes(), b"v")])), Err(error), "{name}");
    }
    // Longer than the length of a name can say, so that it could be taken for a short one.
    let name = "n".repeat(256 + 1);
    assert_eq!(Metadata::new().insert_named(&name, "").map(drop), Err(MetadataError::BadName));
}

#[test]
fn as_many_entries_as_the_limit_allows() {
    let mut metadata = Metadata::new();
    for number in 1..=METADATA_ENTRIES_MAX {
        metadata.insert(Key::new(number as u16).unwrap(), "v").unwrap();
    }
    let full = metadata.clone();
    let one_more = metadata.insert_named("x", "").map(drop);
    assert_eq!(one_more, Err(MetadataError::TooManyEntries));
    assert_eq!(metadata, full);
    metadata.insert(Key::LOCALE, "in place of another").unwrap();
    assert_eq!(parse(metadata.as_bytes()), Ok(metadata));

    let entries: Vec<_> =
        (1..=METADATA_ENTRIES_MAX as u16 + 1).map(|number| entry(number, b"", b"v")).collect();
    assert_eq!(parse(&block(&entries)), Err(MetadataError::TooManyEntries));
    assert_eq!(parse(&block(&entries[1..])).unwrap().as_ref().iter().count(), METADATA_ENTRIES_MAX);
}

#[test]
fn a_block_as_long_as_the_limit_allows() {
    let longest = [b'v'; METADATA_LEN_MAX - 5];
    let mut metadata = Metadata::new();
    metadata.insert(Key::TENANT, longest).unwrap();
    assert_eq!(metadata.as_bytes().len(), METADATA_LEN_MAX);
    assert_eq!(parse(metadata.as_bytes()), Ok(metadata.clone()));
    let full = metadata.clone();
    let len = METADATA_LEN_MAX + 16;
    assert_eq!(
        metadata.insert(Key::LOCALE, "").map(drop),
        Err(MetadataError::TooLong { len }),
        "no room for one more"
    );
    let longer = vec![b'v'; METADATA_LEN_MAX - 4];
    assert_eq!(metadata.insert(Key::TENANT, longer).map(drop), Err(MetadataError::TooLong { len }));
    // Lengths that two bytes hold, and that they do not.
    for value_len in [65_535, 65_536, 65_537, 1 << 20] {
        let refused = metadata.insert(Key::LOCALE, vec![0; value_len]).map(drop);
        assert!(matches!(refused, Err(MetadataError::TooLong { .. })), "{value_len}");
    }
    assert_eq!(metadata, full);
    metadata.insert(Key::TENANT, "in its place").unwrap().insert(Key::LOCALE, "de").unwrap();

    let entries = [entry(6, b"", &longest), entry(7, b"", b"")];
    assert_eq!(parse(&block(&entries)), Err(MetadataError::TooLong { len }));
}

#[test]
fn bytes_that_are_no_block_are_refused_with_the_reason() {
    let tenant = entry(6, b"", b"me");
    for (bytes, error) in [
        (vec![0; 8], MetadataError::NotPadded { len: 8 }),
        (vec![0; 8200], MetadataError::TooLong { len: 8200 }),
        (block(&[entry(6, b"x", b"me")]), MetadataError::NameWithKey { at: 0 }),
        (block(&[entry(0, b"", b"value")]), MetadataError::BadName),
        (block(&[tenant.clone(), tenant.clone()]), MetadataError::Duplicate { at: 7 }),
        (
            block(&[entry(0, b"a", b""), entry(0, b"ab", b""), entry(0, b"a", b"v")]),
            MetadataError::Duplicate { at: 13 },
        ),
        // More padding than is needed.
        (block(&[tenant.clone(), vec![0; 16]]), MetadataError::BadPadding { at: 7 }),
        (block(&[tenant.clone(), vec![0; 5], vec![1]]), MetadataError::BadPadding { at: 7 }),
        // Less than an entry is left, and it is not zero.
        (block(&[entry(6, b"", b"me 6789"), vec![1]]), MetadataError::BadPadding { at: 12 }),
        // A value and a name that end beyond the block.
        (block(&[vec![6, 0, 12, 0, 0]]), MetadataError::Truncated { at: 0 }),
        (block(&[vec![6, 0, 0xff, 0xff, 0]]), MetadataError::Truncated { at: 0 }),
        (block(&[vec![0, 0, 0, 0, 12]]), MetadataError::Truncated { at: 0 }),
        (block(&[vec![0, 0, 0xff, 0xff, 0xff]]), MetadataError::Truncated { at: 0 }),
        (block(&[tenant.clone(), vec![7, 0, 5, 0, 0]]), MetadataError::Truncated { at: 7 }),
    ] {
        assert_eq!(parse(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn errors_say_what_to_do() {
    for (error, text) in [
        (
            MetadataError::TooLong { len: 9000 },
            "metadata of 9000 bytes, the limit is 8192; send less of it, or in the message",
        ),
        (
            MetadataError::BadName,
            "name of a metadata entry is not 1 to 64 characters of `a-z 0-9 . _ -`; choose another",
        ),
        (
            MetadataError::ReservedName,
            "names of metadata entries that begin with `ringcall.` are reserved; choose another",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn values_are_not_printed() {
    let printed = format!("{:?}", example());
    assert!(!printed.contains("Bearer"), "{printed}");
    assert!(printed.contains("cart-id") && printed.contains("10"), "{printed}");
    assert_eq!(format!("{:?}", example().as_ref()), printed);
}

#[test]
fn a_cut_block_is_refused_or_has_fewer_entries() {
    let mut metadata = example();
    // One more entry that ends where a unit does, so that a cut there leaves a block.
    let entries_len: usize = [10, 3, 7 + 2, 1].iter().map(|len| 5 + len).sum();
    metadata.insert_named("y", vec![b'v'; 32 - (entries_len + 6) % 16]).unwrap();
    let boundary = metadata.as_bytes().len();
    metadata.insert_named("z", "the last").unwrap();
    let whole: Vec<_> = metadata.as_ref().iter().collect();
    let mut accepted = Vec::new();
    for len in 0..metadata.as_bytes().len() {
        let Ok(received) = MetadataRef::parse(&metadata.as_bytes()[..len]) else { continue };
        let received: Vec<_> = received.iter().collect();
        assert!(received.len() < whole.len() && whole.starts_with(&received), "cut to {len}");
        accepted.push((len, received.len()));
    }
    assert_eq!(accepted, [(0, 0), (boundary, 5)]);
}

/// What a block was parsed to is what encodes to that block.
fn assert_canonical(bytes: &[u8]) -> Option<Metadata> {
    let received = MetadataRef::parse(bytes).ok()?;
    let mut rebuilt = Metadata::new();
    for (key, value) in received {
        match key {
            EntryKey::WellKnown(key) => {
                assert_eq!(received.get(key), Some(value));
                rebuilt.insert(key, value).unwrap();
            }
            EntryKey::Named(name) => {
                assert_eq!(received.get_named(name), Some(value));
                rebuilt.insert_named(name, value).unwrap();
            }
        }
    }
    assert_eq!(rebuilt.as_bytes(), bytes);
    assert_eq!(received.to_owned(), rebuilt);
    Some(rebuilt)
}

#[derive(Clone, Debug, PartialEq)]
enum AnyKey {
    Number(u16),
    Name(String),
}

fn keys() -> impl Strategy<Value = AnyKey> {
    prop_oneof![
        (1..12_u16).prop_map(AnyKey::Number),
        (1..=u16::MAX).prop_map(AnyKey::Number),
        "[ab]{1,2}".prop_map(AnyKey::Name),
        "[a-z0-9_-][a-z0-9._-]{0,63}"
            .prop_filter("reserved", |name| !name.starts_with("ringcall."))
            .prop_map(AnyKey::Name),
    ]
}

fn insert<'a>(
    metadata: &'a mut Metadata,
    key: &AnyKey,
    value: &[u8],
) -> Result<&'a mut Metadata, MetadataError> {
    match key {
        AnyKey::Number(number) => metadata.insert(Key::new(*number).unwrap(), value),
        AnyKey::Name(name) => metadata.insert_named(name, value),
    }
}

/// Blocks of entries that are often right, with lengths, names and padding that are often not.
fn almost_blocks() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        8 => (1..12_u16).prop_map(|number| (number, vec![])),
        8 => vec(b'a'..=b'c', 1..3).prop_map(|name| (0, name)),
        1 => (0..3_u16, vec(any::<u8>(), 0..70)),
    ];
    let entry = (key, vec(any::<u8>(), 0..20))
        .prop_map(|((number, name), value)| entry(number, &name, &value));
    (vec(entry, 0..6), vec(0..2_u8, 0..20), any::<bool>()).prop_map(|(entries, tail, has_tail)| {
        let mut bytes = block(&entries);
        if has_tail {
            bytes = block(&[entries.concat(), tail]);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn entries_arrive_as_they_were_put_in(
        entries in vec((keys(), vec(any::<u8>(), 0..300)), 0..80)
    ) {
        let mut metadata = Metadata::new();
        let mut expected: Vec<(AnyKey, Vec<u8>)> = Vec::new();
        for (key, value) in entries {
            let before = metadata.clone();
            match insert(&mut metadata, &key, &value) {
                Ok(_) => {
                    expected.retain(|(earlier, _)| *earlier != key);
                    expected.push((key, value));
                }
                Err(MetadataError::TooManyEntries) => {
                    prop_assert_eq!(expected.len(), METADATA_ENTRIES_MAX);
                    prop_assert_eq!(&metadata, &before);
                }
                Err(MetadataError::TooLong { len }) => {
                    prop_assert!(len > METADATA_LEN_MAX);
                    prop_assert_eq!(&metadata, &before);
                }
                Err(error) => panic!("{error}"),
            }
            prop_assert!(metadata.as_bytes().len().is_multiple_of(16));
        }
        let received = MetadataRef::parse(metadata.as_bytes()).unwrap();
        let received: Vec<_> = received
            .iter()
            .map(|(key, value)| match key {
                EntryKey::WellKnown(key) => (AnyKey::Number(key.get()), value.to_vec()),
                EntryKey::Named(name) => (AnyKey::Name(name.to_owned()), value.to_vec()),
            })
            .collect();
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_are_the_one_encoding_of_their_entries(
        bytes in vec(any::<u8>(), 0..200)
    ) {
        assert_canonical(&bytes);
    }

    #[test]
    fn almost_right_bytes_are_refused_or_are_the_one_encoding_of_their_entries(
        bytes in almost_blocks()
    ) {
        assert_canonical(&bytes);
    }

    #[test]
    fn every_flipped_bit_is_refused_or_makes_other_entries(
        entries in vec((keys(), vec(any::<u8>(), 0..20)), 1..5)
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in &entries {
            insert(&mut metadata, key, value).unwrap();
        }
        let mut bytes = metadata.as_bytes().to_vec();
        for bit in 0..8 * bytes.len() {
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(assert_canonical(&bytes), Some(metadata.clone()));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_cut_block_is_refused_or_has_the_first_of_its_entries(
        entries in vec((keys(), vec(any::<u8>(), 0..40)), 1..5)
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in &entries {
            insert(&mut metadata, key, value).unwrap();
        }
        let whole: Vec<_> = metadata.as_ref().iter().collect();
        for len in 0..metadata.as_bytes().len() {
            let bytes = &metadata.as_bytes()[..len];
            if assert_canonical(bytes).is_some() {
                let cut: Vec<_> = MetadataRef::parse(bytes).unwrap().iter().collect();
                prop_assert!(cut.len() < whole.len() && whole.starts_with(&cut));
            }
        }
    }
}
