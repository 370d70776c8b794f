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

use super::{owned::SharedBuffer, pool::Filled};

/// Received bytes, wherever they are. Clones refer to the same bytes.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// A buffer of the pool.
    Pool(Filled),
    /// The first bytes, as many as the number says, of a buffer of one's own.
    Owned(SharedBuffer, usize),
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Pool(filled) => filled,
            Self::Owned(buffer, len) => &buffer[..(*len).min(buffer.len())],
        }
    }
}

/// A range of a chunk, and the right to read it. Clones refer to the same bytes.
#[derive(Clone)]
pub struct Lease {
    chunk: Chunk,
    start: u32,
    len: u32,
}

impl Lease {
    /// A lease on a range of a chunk. What of the range lies outside of the chunk is cut off.
    #[inline]
    pub fn new(chunk: Chunk, range: Range<usize>) -> Self {
        let end = range.end.min(chunk.len()).min(u32::MAX as usize);
        let start = range.start.min(end);
        Self {
            chunk,
            start: start as u32,
            len: (end - start) as u32,
        }
    }

    /// The chunk that the bytes are in.
    #[inline]
    pub fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Whether the bytes are in a buffer of the pool, which then lacks it.
    #[inline]
    pub fn in_pool(&self) -> bool {
        matches!(self.chunk, Chunk::Pool(_))
    }
}

impl Deref for Lease {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.start as usize;
        &self.chunk[start..start + self.len as usize]
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("len", &self.len)
            .field("in_pool", &self.in_pool())
            .finish_non_exhaustive()
    }
}

/// A message that was validated, read where it was received. Derefs to the archived message.
pub struct View<T: Message> {
    lease: Lease,
    /// Points into the lease's bytes.
    archived: NonNull<T::Archived>,
}

impl<T: Message> View<T> {
    /// Validates the leased bytes as a message. This is done once; reading costs nothing more.
    ///
    /// # Errors
    ///
    /// Where the bytes are misaligned or no valid archive of `T`.
    #[inline]
    pub fn new(lease: Lease) -> Result<Self, BodyError> {
        let archived = NonNull::from(access::<T>(&lease)?);
        Ok(Self { lease, archived })
    }

    /// The bytes of the message.
    #[inline]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl<T: Message> Deref for View<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY: `access` gave this reference into the leased bytes. A lease's bytes neither
        // move with it nor change while it lives, and the lease lives as long as the view.
        unsafe { self.archived.as_ref() }
    }
}

impl<T: Message> Clone for View<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            lease: self.lease.clone(),
            archived: self.archived,
        }
    }
}

impl<T: Message<Archived: fmt::Debug>> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&**self).finish()
    }
}
