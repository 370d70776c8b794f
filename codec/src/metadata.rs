//! Metadata: what travels beside the message of a call, as who makes it and for whom.
//!
//! Between header and body on the path of a frame. A received block is checked once and read
//! where it lies, without allocation; one to be sent is kept encoded, ready to be appended. It
//! never looks into a value.
//!
//! A block is a sequence of entries, then fewer than 16 zeros to a multiple of 16 bytes. An entry
//! is a key and the length of its value (two bytes each), the length of its name (one byte), the
//! name and the value. A key that is not zero has no name; key zero has one.

use alloc::vec::Vec;
use core::{fmt, num::NonZeroU16, ops::Range};

use crate::limits::{FRAME_ALIGN, METADATA_ENTRIES_MAX, METADATA_LEN_MAX, METADATA_NAME_LEN_MAX};

/// The number of a well-known entry.
///
/// A number without a constant here is one of a later version: it is carried and not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU16);

/// Metadata to be sent: entries in the order in which they were put in, at most 64, and at most
/// 8,192 bytes with what encodes them.
///
/// `Debug` shows keys and lengths; values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The entries and their padding, as they travel.
    block: Vec<u8>,
    /// Where the padding begins.
    entries_len: usize,
}

/// Metadata as it was received, in place. Two are equal where they have the same entries in the
/// same order.
///
/// `Debug` shows keys and lengths; values may be secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MetadataRef<'a> {
    /// Whole, checked entries without padding; no key is there twice.
    entries: &'a [u8],
}

/// What an entry is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKey<'a> {
    /// The number of a well-known entry.
    WellKnown(Key),
    /// The name of one that the application defines.
    Named(&'a str),
}

/// The entries of a block in order, each with its value.
#[derive(Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

/// Why metadata cannot be sent, or is refused. Positions are bytes from the start of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The block is too long, or would be with the new entry.
    #[error(
        "metadata of {len} bytes, the limit is {METADATA_LEN_MAX}; send less of it, or in the message"
    )]
    TooLong {
        /// Length of the block in bytes, as far as it is known.
        len: usize,
    },
    /// The block has too many entries, or would have with the new one.
    #[error("metadata of more than {METADATA_ENTRIES_MAX} entries; put several values into one")]
    TooManyEntries,
    /// The name of a user's entry is not one.
    #[error(
        "name of a metadata entry is not 1 to {METADATA_NAME_LEN_MAX} characters of \
         `a-z 0-9 . _ -`; choose another"
    )]
    BadName,
    /// The name of a user's entry is reserved.
    #[error(
        "names of metadata entries that begin with `{RESERVED_PREFIX}` are reserved; choose another"
    )]
    ReservedName,
    /// The block is no sequence of units of 16 bytes.
    #[error("metadata of {len} bytes is no multiple of {FRAME_ALIGN}; pad it with zeros")]
    NotPadded {
        /// Length of the block in bytes.
        len: usize,
    },
    /// An entry is longer than what is left of the block.
    #[error("metadata entry at byte {at} ends beyond the block; send entries whole")]
    Truncated {
        /// Where the entry begins.
        at: usize,
    },
    /// An entry with a well-known key has a name too.
    #[error("metadata entry at byte {at} has a well-known key and a name; send one of them")]
    NameWithKey {
        /// Where the entry begins.
        at: usize,
    },
    /// An entry has the key of an earlier one.
    #[error("metadata entry at byte {at} repeats a key; send each key once")]
    Duplicate {
        /// Where the second of the two begins.
        at: usize,
    },
    /// What follows the last entry is not padding.
    #[error("metadata is not padded with fewer than {FRAME_ALIGN} zeros from byte {at} on")]
    BadPadding {
        /// Where the padding begins.
        at: usize,
    },
}

impl Key {
    /// Who calls: credentials in a form that the two sides agree on.
    pub const AUTHORIZATION: Self = Self::known(1);
    /// The caller's span, as W3C Trace Context defines `traceparent`.
    pub const TRACEPARENT: Self = Self::known(2);
    /// What tracing systems add to it, as W3C Trace Context defines `tracestate`.
    pub const TRACESTATE: Self = Self::known(3);
    /// The same for each attempt of one call, so that it takes effect once.
    pub const IDEMPOTENCY_KEY: Self = Self::known(4);
    /// The program that calls, and its version.
    pub const USER_AGENT: Self = Self::known(5);
    /// On whose behalf the call is made, where a service has many customers.
    pub const TENANT: Self = Self::known(6);
    /// The language for texts meant for people, as BCP 47 writes it (`de-AT`).
    pub const LOCALE: Self = Self::known(7);
    /// In a request, of any value: asks how long the callee holds the call. In a reply:
    /// [`ServerTimes`](crate::ServerTimes).
    pub const TIMES: Self = Self::known(8);

    /// The key with this number; zero is none.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, as it travels.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    const fn known(number: u8) -> Self {
        Self(NonZeroU16::MIN.saturating_add(number as u16 - 1))
    }
}

impl Metadata {
    /// No entries. Allocates nothing.
    pub const fn new() -> Self {
        Self { block: Vec::new(), entries_len: 0 }
    }

    /// Puts in a well-known entry, in place of an earlier one with this key.
    ///
    /// # Errors
    ///
    /// Where the entries would be too many or too long; they are then as they were before.
    pub fn insert(
        &mut self,
        key: Key,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, MetadataError> {
        self.put(EntryKey::WellKnown(key), value.as_ref())
    }

    /// Puts in an entry of the application's own, in place of an earlier one with this name.
    ///
    /// A name is 1 to 64 characters of `a-z 0-9 . _ -` and does not begin with `ringcall.`.
    ///
    /// # Errors
    ///
    /// Where the name is not one, or the entries would be too many or too long; they are then as
    /// they were before.
    pub fn insert_named(
        &mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, MetadataError> {
        check_name(name.as_bytes())?;
        self.put(EntryKey::Named(name), value.as_ref())
    }

    /// The entries as they travel, padded to a multiple of 16 bytes; empty where there are none.
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }

    /// The entries, as their receiver reads them.
    pub fn as_ref(&self) -> MetadataRef<'_> {
        MetadataRef { entries: &self.block[..self.entries_len] }
    }

    /// Takes out all entries; the memory is kept for the next ones.
    pub fn clear(&mut self) {
        self.block.clear();
        self.entries_len = 0;
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Appends an entry whose key is valid, once it is known to fit.
    fn put(&mut self, key: EntryKey<'_>, value: &[u8]) -> Result<&mut Self, MetadataError> {
        let (number, name) = key.parts();
        let entries = self.as_ref();
        let replaced = entries.find(number, name).map_or(0..0, |(range, _)| range);
        if replaced.is_empty() && entries.iter().count() >= METADATA_ENTRIES_MAX {
            return Err(MetadataError::TooManyEntries);
        }
        let len = (self.entries_len - replaced.len())
            .checked_add(ENTRY_HEADER_LEN + name.len())
            .and_then(|len| len.checked_add(value.len()))
            .and_then(|len| len.checked_next_multiple_of(FRAME_ALIGN))
            .unwrap_or(usize::MAX);
        // A value that is too long for its length's two bytes is too long for a block.
        let (Ok(value_len), ..=METADATA_LEN_MAX) = (u16::try_from(value.len()), len) else {
            return Err(MetadataError::TooLong { len });
        };
        self.block.truncate(self.entries_len);
        self.block.drain(replaced);
        self.block.extend_from_slice(&number.to_le_bytes());
        self.block.extend_from_slice(&value_len.to_le_bytes());
        // A valid name is at most 64 bytes long.
        self.block.push(name.len() as u8);
        self.block.extend_from_slice(name);
        self.block.extend_from_slice(value);
        self.entries_len = self.block.len();
        self.block.resize(len, 0);
        Ok(self)
    }
}

impl<'a> MetadataRef<'a> {
    /// No entries.
    pub const EMPTY: Self = Self { entries: &[] };

    /// Checks a whole block, once; what is read of it later needs no check. Allocates nothing.
    ///
    /// Values are bytes of any kind, and well-known keys may have any number.
    ///
    /// # Errors
    ///
    /// Where the block is too long, has too many entries, or is not what the encoding of
    /// [`Metadata`] makes of any entries.
    pub fn parse(block: &'a [u8]) -> Result<Self, MetadataError> {
        if block.len() > METADATA_LEN_MAX {
            return Err(MetadataError::TooLong { len: block.len() });
        }
        if !block.len().is_multiple_of(FRAME_ALIGN) {
            return Err(MetadataError::NotPadded { len: block.len() });
        }
        let (mut rest, mut count) = (block, 0);
        loop {
            let at = block.len() - rest.len();
            let (parsed, padding) = (Self { entries: &block[..at] }, rest);
            let Some(entry) = RawEntry::split(&mut rest).ok_or(MetadataError::Truncated { at })?
            else {
                // No more than the padding needs, so that entries have one encoding.
                if padding.len() >= FRAME_ALIGN || padding.iter().any(|byte| *byte != 0) {
                    return Err(MetadataError::BadPadding { at });
                }
                return Ok(parsed);
            };
            entry.check(at)?;
            if count == METADATA_ENTRIES_MAX {
                return Err(MetadataError::TooManyEntries);
            }
            // Quadratic, and bounded by the number of entries.
            if parsed.find(entry.number, entry.name).is_some() {
                return Err(MetadataError::Duplicate { at });
            }
            count += 1;
        }
    }

    /// A block that was checked before, with its padding, for nothing but to find an entry in it.
    pub(crate) fn of_checked(block: &'a [u8]) -> Self {
        Self { entries: block }
    }

    /// Where in the block the value of a well-known entry stands.
    pub(crate) fn place_of(&self, key: Key) -> Option<Range<usize>> {
        let (entry, value) = self.find(key.get(), &[])?;
        Some(entry.end - value.len()..entry.end)
    }

    /// The value of a well-known entry.
    pub fn get(&self, key: Key) -> Option<&'a [u8]> {
        self.find(key.get(), &[]).map(|(_, value)| value)
    }

    /// The value of an entry that the application defines.
    pub fn get_named(&self, name: &str) -> Option<&'a [u8]> {
        self.find(0, name.as_bytes()).map(|(_, value)| value)
    }

    /// The value of a well-known entry as text; `None` also where it is not UTF-8.
    pub fn get_str(&self, key: Key) -> Option<&'a str> {
        core::str::from_utf8(self.get(key)?).ok()
    }

    /// The entries in the order in which they were sent.
    pub fn iter(&self) -> Entries<'a> {
        Entries { rest: self.entries }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A copy that outlives the received bytes, or that can be sent on.
    pub fn to_owned(&self) -> Metadata {
        let entries_len = self.entries.len();
        let mut block = Vec::with_capacity(entries_len.next_multiple_of(FRAME_ALIGN));
        block.extend_from_slice(self.entries);
        block.resize(entries_len.next_multiple_of(FRAME_ALIGN), 0);
        Metadata { block, entries_len }
    }

    /// Where the entry with this number and name stands, and its value.
    fn find(&self, number: u16, name: &[u8]) -> Option<(Range<usize>, &'a [u8])> {
        let mut rest = self.entries;
        loop {
            let start = self.entries.len() - rest.len();
            let entry = RawEntry::split(&mut rest)??;
            if entry.number == number && entry.name == name {
                return Some((start..self.entries.len() - rest.len(), entry.value));
            }
        }
    }
}

impl<'a> IntoIterator for MetadataRef<'a> {
    type Item = (EntryKey<'a>, &'a [u8]);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (EntryKey<'a>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = RawEntry::split(&mut self.rest)??;
        let key = match Key::new(entry.number) {
            Some(key) => EntryKey::WellKnown(key),
            // A name was found to be ASCII when the block was parsed.
            None => EntryKey::Named(core::str::from_utf8(entry.name).unwrap_or_default()),
        };
        Some((key, entry.value))
    }
}

impl EntryKey<'_> {
    /// The number, zero for a name, and the name, empty for a number.
    fn parts(&self) -> (u16, &[u8]) {
        match self {
            Self::WellKnown(key) => (key.get(), &[]),
            Self::Named(name) => (0, name.as_bytes()),
        }
    }
}

/// An entry within its bounds, of which nothing else is known.
struct RawEntry<'a> {
    number: u16,
    name: &'a [u8],
    value: &'a [u8],
}

impl<'a> RawEntry<'a> {
    /// Takes the next entry off the front: `Some(None)` where what is left begins as padding does,
    /// `None` where it is shorter than the entry says.
    #[inline]
    fn split(rest: &mut &'a [u8]) -> Option<Option<Self>> {
        let Some((&[key_low, key_high, len_low, len_high, name_len], tail)) =
            rest.split_first_chunk::<ENTRY_HEADER_LEN>()
        else {
            return Some(None);
        };
        let number = u16::from_le_bytes([key_low, key_high]);
        let value_len = u16::from_le_bytes([len_low, len_high]);
        if (number, value_len, name_len) == (0, 0, 0) {
            return Some(None);
        }
        let (name, tail) = tail.split_at_checked(usize::from(name_len))?;
        let (value, tail) = tail.split_at_checked(usize::from(value_len))?;
        *rest = tail;
        Some(Some(Self { number, name, value }))
    }

    fn check(&self, at: usize) -> Result<(), MetadataError> {
        match (self.number, self.name) {
            (0, name) => check_name(name),
            (_, []) => Ok(()),
            (_, _) => Err(MetadataError::NameWithKey { at }),
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), MetadataError> {
    let is_allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > METADATA_NAME_LEN_MAX || !name.iter().all(is_allowed) {
        return Err(MetadataError::BadName);
    }
    if name.starts_with(RESERVED_PREFIX.as_bytes()) {
        return Err(MetadataError::ReservedName);
    }
    Ok(())
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for MetadataRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().fmt(f)
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.clone().map(|(key, value)| (key, value.len()));
        f.debug_map().entries(lengths).finish()
    }
}

/// Names that later versions may give a meaning begin with this.
const RESERVED_PREFIX: &str = "ringcall.";

/// Bytes of an entry before its name: its key and the two lengths.
const ENTRY_HEADER_LEN: usize = 5;

const _: () = assert!(METADATA_NAME_LEN_MAX <= u8::MAX as usize);
const _: () = assert!(METADATA_LEN_MAX.is_multiple_of(FRAME_ALIGN));
const _: () = assert!(METADATA_LEN_MAX / FRAME_ALIGN <= u16::MAX as usize);
