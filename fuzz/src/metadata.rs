//! A block of metadata is refused, or is what encoding its entries gives, byte for byte; and a
//! block that is built has the entries that a plain list of them has.
//!
//! Input: a byte that chooses between the two, a block or a sequence of entries.

use ringcall_codec::{
    EntryKey, Key, Metadata, MetadataError, MetadataRef,
    limits::{METADATA_ENTRIES_MAX, METADATA_LEN_MAX},
};

use crate::input::Input;

/// Reads a block, or builds one.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice & 1 == 0 { read(data) } else { build(data) }
}

fn read(block: &[u8]) {
    let Ok(metadata) = MetadataRef::parse(block) else { return };
    assert!(block.len() <= METADATA_LEN_MAX);
    assert!(metadata.iter().count() <= METADATA_ENTRIES_MAX);
    assert_eq!(metadata.is_empty(), block.is_empty());
    assert_eq!(metadata.to_owned().as_bytes(), block);

    let mut copy = Metadata::new();
    for (key, value) in metadata {
        assert_eq!(get(&metadata, key), Some(value), "each is found by its key");
        put(&mut copy, key, value).expect("what was there can be put in");
    }
    assert_eq!(copy.as_bytes(), block, "entries have one encoding");
    assert_eq!(copy, metadata.to_owned());
    // Shows no value, and comes to an end.
    let _ = format!("{metadata:?}");
}

fn build(data: &[u8]) {
    let mut input = Input(data);
    let mut metadata = Metadata::new();
    // What must be in it, in its order.
    let mut entries: Vec<(EntryKey<'_>, Vec<u8>)> = Vec::new();
    while !input.0.is_empty() {
        let (choice, len) = (input.byte(), usize::from(input.byte()));
        let key = match choice {
            0xff => {
                metadata.clear();
                entries.clear();
                continue;
            }
            0x80.. => {
                let name = input.take(usize::from(choice & 0x7f));
                let Ok(name) = str::from_utf8(name) else { continue };
                EntryKey::Named(name)
            }
            number => {
                let Some(key) = Key::new(u16::from(number)) else { continue };
                EntryKey::WellKnown(key)
            }
        };
        // Few bytes make long values too, so that the limits are reached.
        let copies = if len & 0x80 == 0 { 1 } else { 64 };
        let value = input.take(len & 0x7f).repeat(copies);
        match put(&mut metadata, key, &value) {
            // An entry that is replaced comes last.
            Ok(()) => {
                entries.retain(|(earlier, _)| *earlier != key);
                entries.push((key, value));
            }
            Err(error) => assert!(is_due(error, &entries, key, &value), "{error}: {entries:?}"),
        }
        // To compare many entries takes long: now and then is enough.
        if entries.len() <= 8 || input.0.is_empty() {
            check(&metadata, &entries);
        }
    }
}

/// Whether an entry that was refused breaks the rule that it was refused by.
fn is_due(
    error: MetadataError,
    entries: &[(EntryKey<'_>, Vec<u8>)],
    key: EntryKey<'_>,
    value: &[u8],
) -> bool {
    let others = entries.iter().filter(|(earlier, _)| *earlier != key);
    let name = if let EntryKey::Named(name) = key { name } else { "none" };
    match error {
        MetadataError::TooManyEntries => others.count() == METADATA_ENTRIES_MAX,
        MetadataError::TooLong { .. } => {
            let len = |key: &EntryKey<'_>, value: &[u8]| match key {
                EntryKey::WellKnown(_) => 5 + value.len(),
                EntryKey::Named(name) => 5 + name.len() + value.len(),
            };
            others.map(|(key, value)| len(key, value)).sum::<usize>() + len(&key, value)
                > METADATA_LEN_MAX
        }
        MetadataError::ReservedName => name.starts_with("ringcall."),
        MetadataError::BadName => {
            let is_allowed = |letter: char| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || "._-".contains(letter)
            };
            name.is_empty() || name.len() > 64 || !name.chars().all(is_allowed)
        }
        _ => false,
    }
}

/// The block has these entries and no others, and is one that its receiver accepts.
fn check(metadata: &Metadata, entries: &[(EntryKey<'_>, Vec<u8>)]) {
    let received = MetadataRef::parse(metadata.as_bytes()).expect("what is built is accepted");
    assert_eq!(received, metadata.as_ref());
    let expected = entries.iter().map(|(key, value)| (*key, &value[..]));
    assert!(received.iter().eq(expected), "{received:?} and not {entries:?}");
}

fn get<'a>(metadata: &MetadataRef<'a>, key: EntryKey<'_>) -> Option<&'a [u8]> {
    match key {
        EntryKey::WellKnown(key) => metadata.get(key),
        EntryKey::Named(name) => metadata.get_named(name),
    }
}

fn put(metadata: &mut Metadata, key: EntryKey<'_>, value: &[u8]) -> Result<(), MetadataError> {
    match key {
        EntryKey::WellKnown(key) => metadata.insert(key, value)?,
        EntryKey::Named(name) => metadata.insert_named(name, value)?,
    };
    Ok(())
}
