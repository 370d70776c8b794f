//! Routing keys: which of a server's shards owns a call.
//!
//! A caller hashes the key in its request, sends the hash in the header, and sends the frame to the
//! shard that owns it; who has the archive of the request finds the same hash. It is part of the
//! wire format (`docs/wire.md`) and never changes: two builds that disagree about it would look
//! for one key on two shards.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::num::NonZeroU32;

use rkyv::{
    boxed::ArchivedBox,
    rend,
    string::ArchivedString,
    traits::ArchivePointee,
    tuple::{ArchivedTuple1, ArchivedTuple2, ArchivedTuple3, ArchivedTuple4},
    vec::ArchivedVec,
};
use twox_hash::XxHash3_64;

/// A type by whose values calls are sent to shards: `#[rpc(shard_by = field)]`.
///
/// Integers, `bool`, `char`, texts, bytes, and tuples of up to four of them. A type and its
/// archived form hash alike, and so do the ways to write one key: integers of every width up to 64
/// bits, and a `String`, a `&str` and the bytes of either. A type of one's own can have it for
/// both forms; [`hash_bytes`] and [`hash_parts`] are what it is to be made of.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a routing key",
    label = "not a type that calls are sharded by",
    note = "keys are integers, `bool`, `char`, `String`, `&str`, `Vec<u8>`, `[u8; N]`, `&[u8]`, \
            and tuples of up to four of them"
)]
pub trait ShardKey {
    /// The hash, the same for the value and for its archive.
    fn shard_hash(&self) -> u64;
}

/// What of a key's hash travels: its upper 32 bits, and 1 where they are zero, so that zero is no
/// key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoutingKey(NonZeroU32);

impl RoutingKey {
    /// That of a key.
    #[inline]
    pub fn of(key: &(impl ShardKey + ?Sized)) -> Self {
        Self::from_hash(key.shard_hash())
    }

    /// That of a hash.
    #[inline]
    pub fn from_hash(hash: u64) -> Self {
        Self(NonZeroU32::new((hash >> 32) as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// As a header has it; none where it has none.
    #[inline]
    pub fn from_wire(aux: u32) -> Option<Self> {
        NonZeroU32::new(aux).map(Self)
    }

    /// For a header.
    #[inline]
    pub fn to_wire(self) -> u32 {
        self.0.get()
    }

    /// The shard that owns it, of so many; the only one there is where the count is zero.
    ///
    /// By multiplication: every shard has as much of the range as the others, to one part in 2^32.
    /// With another count most keys have another owner. That is so as the count changes with a
    /// restart alone, when every shard begins empty; and it costs no loop and no table.
    #[inline]
    pub fn owner(self, count: u16) -> u16 {
        ((u64::from(self.to_wire()) * u64::from(count)) >> 32) as u16
    }
}

/// The hash of bytes: XXH3 (64 bits), with the seed zero.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The hash of a key of several parts: that of their hashes, 8 bytes little-endian each.
#[inline]
pub fn hash_parts<const N: usize>(hashes: [u64; N]) -> u64 {
    hash_bytes(hashes.map(u64::to_le_bytes).as_flattened())
}

macro_rules! integers {
    ($($native:ty, $wide:ty $(, $archived:ty)?;)*) => {$(
        impl ShardKey for $native {
            #[inline]
            fn shard_hash(&self) -> u64 {
                hash_bytes(&<$wide>::from(*self).to_le_bytes())
            }
        }
        $(impl ShardKey for $archived {
            #[inline]
            fn shard_hash(&self) -> u64 {
                self.to_native().shard_hash()
            }
        })?
    )*};
}

macro_rules! bytes {
    ($($type:ty, $as_bytes:expr;)*) => {$(
        impl ShardKey for $type {
            #[inline]
            fn shard_hash(&self) -> u64 {
                let as_bytes: fn(&$type) -> &[u8] = $as_bytes;
                hash_bytes(as_bytes(self))
            }
        }
    )*};
}

macro_rules! tuples {
    ($($archived:ident: $($name:ident $at:tt),+;)*) => {$(
        impl<$($name: ShardKey),+> ShardKey for ($($name,)+) {
            #[inline]
            fn shard_hash(&self) -> u64 {
                hash_parts([$(self.$at.shard_hash()),+])
            }
        }

        impl<$($name: ShardKey),+> ShardKey for $archived<$($name),+> {
            #[inline]
            fn shard_hash(&self) -> u64 {
                hash_parts([$(self.$at.shard_hash()),+])
            }
        }
    )*};
}

integers! {
    // Those of one byte are their own archives.
    bool, u64;
    u8, u64;
    u16, u64, rend::u16_le;
    u32, u64, rend::u32_le;
    u64, u64, rend::u64_le;
    u128, u128, rend::u128_le;
    i8, i64;
    i16, i64, rend::i16_le;
    i32, i64, rend::i32_le;
    i64, i64, rend::i64_le;
    i128, i128, rend::i128_le;
    char, u64, rend::char_le;
}

bytes! {
    str, str::as_bytes;
    String, |text| text.as_bytes();
    ArchivedString, |text| text.as_bytes();
    [u8], |bytes| bytes;
    Vec<u8>, |bytes| bytes;
    ArchivedVec<u8>, |bytes| bytes.as_slice();
}

tuples! {
    ArchivedTuple1: A 0;
    ArchivedTuple2: A 0, B 1;
    ArchivedTuple3: A 0, B 1, C 2;
    ArchivedTuple4: A 0, B 1, C 2, D 3;
}

impl<const N: usize> ShardKey for [u8; N] {
    #[inline]
    fn shard_hash(&self) -> u64 {
        hash_bytes(self)
    }
}

impl<T: ShardKey + ?Sized> ShardKey for &T {
    #[inline]
    fn shard_hash(&self) -> u64 {
        (**self).shard_hash()
    }
}

impl<T: ShardKey + ?Sized> ShardKey for Box<T> {
    #[inline]
    fn shard_hash(&self) -> u64 {
        (**self).shard_hash()
    }
}

impl<T: ShardKey + ArchivePointee + ?Sized> ShardKey for ArchivedBox<T> {
    #[inline]
    fn shard_hash(&self) -> u64 {
        self.get().shard_hash()
    }
}
