//! Leases: received bytes that stay where they are for as long as somebody reads them.
//!
//! Between the ring and the handler on the path of a call. A lease keeps its buffer from the
//! kernel and from writers; a view is a lease on bytes that were validated once. Neither copies.

#![allow(unsafe_code)]

use std::{
    fmt,
    ops::{Deref, Range},
    ptr::NonNull,
};

use ringcall_codec::{BodyError, Message, access};

use super::{block::SharedBuffer, memory::Memory, pool::Filled};

/// Received bytes, wherever they are. Clones refer to the same bytes.
#[derive(Clone, Debug)]
pub struct Chunk {
    buffer: SharedBuffer,
    len: usize,
    is_copy: bool,
}

impl Chunk {
    /// The bytes that arrived in a buffer of the pool.
    #[inline]
    pub fn of_pool(filled: Filled) -> Self {
        let (buffer, len) = filled.into_parts();
        Self { buffer, len: len as usize, is_copy: false }
    }

    /// The first `len` bytes of a buffer of one's own; as many as it has.
    #[inline]
    pub fn of_owned(buffer: SharedBuffer, len: usize) -> Self {
        Self { len: len.min(buffer.len()), buffer, is_copy: false }
    }

    /// As [`of_owned`](Self::of_owned), of bytes that were received elsewhere and copied.
    #[inline]
    pub fn of_copy(buffer: SharedBuffer, len: usize) -> Self {
        Self { is_copy: true, ..Self::of_owned(buffer, len) }
    }

    /// Whether the bytes were received elsewhere and copied.
    #[inline]
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Whether the bytes are in a buffer of the pool, which then lacks it.
    #[inline]
    pub fn in_pool(&self) -> bool {
        self.buffer.in_pool()
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// A range of a chunk, and the right to read it. Clones refer to the same bytes.
///
/// A pointer and a word, so that it travels in registers.
#[derive(Clone)]
pub struct Lease {
    buffer: SharedBuffer,
    /// `start | len << 32`
    range: u64,
}

impl Lease {
    /// A lease on a range of a chunk. What of the range lies outside of the chunk is cut off.
    #[inline]
    pub fn new(chunk: &Chunk, range: Range<usize>) -> Self {
        let end = range.end.min(chunk.len).min(u32::MAX as usize);
        let start = range.start.min(end);
        let range = start as u64 | ((end - start) as u64) << 32;
        Self { buffer: chunk.buffer.clone(), range }
    }

    /// Whether the bytes are in a buffer of the pool, which then lacks it.
    #[inline]
    pub fn in_pool(&self) -> bool {
        self.buffer.in_pool()
    }

    /// The first bytes of the lease; as many as there are.
    #[must_use]
    pub fn cut(self, len: usize) -> Self {
        let (start, whole) = (self.range & u64::from(u32::MAX), (self.range >> 32) as usize);
        let range = start | (len.min(whole) as u64) << 32;
        Self { range, ..self }
    }

    /// The lease without its first bytes; as many as there are.
    #[must_use]
    pub fn skip(self, bytes: usize) -> Self {
        let (start, len) = (self.range as u32 as usize, (self.range >> 32) as usize);
        let bytes = bytes.min(len);
        let range = (start + bytes) as u64 | ((len - bytes) as u64) << 32;
        Self { range, ..self }
    }

    /// The memory of the buffer, for good, where this is its only reader and it is none of the
    /// pool. Gives the lease back where that is not so.
    pub(super) fn into_memory(self) -> Result<Memory, Self> {
        let range = self.range;
        self.buffer.into_memory().map_err(|buffer| Self { buffer, range })
    }

    /// The lease with so many of the bytes before it; as many as there are.
    #[must_use]
    pub fn with_before(self, bytes: usize) -> Self {
        let (start, len) = (self.range as u32 as usize, (self.range >> 32) as usize);
        let bytes = bytes.min(start);
        let range = (start - bytes) as u64 | ((len + bytes) as u64) << 32;
        Self { range, ..self }
    }

    /// Where in its buffer the lease begins.
    #[inline]
    pub fn start(&self) -> usize {
        self.range as u32 as usize
    }

    /// The bytes before those of the lease, in the same buffer; empty where there are fewer.
    pub fn before(&self, bytes: usize) -> &[u8] {
        let start = self.start();
        start.checked_sub(bytes).map_or(&[], |from| &self.buffer[from..start])
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.range as u32 as usize;
        &self.buffer[start..start + (self.range >> 32) as usize]
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("len", &self.len())
            .field("in_pool", &self.in_pool())
            .finish_non_exhaustive()
    }
}

/// A message that was validated, read where it was received. Derefs to the archived message.
///
/// Two words: it is what an item is, and a reply, of which many can be held.
pub struct View<T: Message> {
    buffer: SharedBuffer,
    /// Points into the buffer's bytes.
    archived: NonNull<T::Archived>,
}

impl<T: Message> View<T> {
    /// Validates the leased bytes as a message. This is done once; reading costs nothing more.
    ///
    /// # Errors
    ///
    /// Where the bytes are misaligned or no valid archive of `T`.
    // Inlined, as the view would be passed through memory otherwise.
    #[inline(always)]
    pub fn new(lease: Lease) -> Result<Self, BodyError> {
        match access::<T>(&lease).map(NonNull::from) {
            Ok(archived) => Ok(Self { buffer: lease.buffer, archived }),
            Err(error) => Err(error),
        }
    }

    /// A range of the buffer that the message is in; empty where it has no such range.
    pub fn buffer(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }
}

impl<T: Message> Deref for View<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY: `access` gave this reference into the leased bytes, or to a static where the
        // message has no size. A shared buffer's bytes neither move with it nor change while it
        // lives, and it lives as long as the view.
        unsafe { self.archived.as_ref() }
    }
}

impl<T: Message> Clone for View<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone(), archived: self.archived }
    }
}

impl<T: Message<Archived: fmt::Debug>> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&**self).finish()
    }
}
