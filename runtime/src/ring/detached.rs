//! Bytes that have left their shard: what another thread reads of a reply.
//!
//! Behind leases on the path of a call that was made from elsewhere. A lease counts its readers
//! without atomics, so it stays on its thread; what goes to another is a copy, or the memory
//! itself where it is a buffer of its own that nobody else reads.

#![allow(unsafe_code)]

use std::{fmt, ops::Deref, ptr::NonNull, slice};

use ringcall_codec::{BodyError, Message, access, limits::FRAME_ALIGN};

use super::{lease::Lease, memory::Memory};

/// A body and the metadata before it, on whatever thread.
pub struct Detached {
    bytes: Bytes,
    /// Where the metadata begins, at a multiple of 16 in memory.
    start: usize,
    meta_len: usize,
    body_len: usize,
}

enum Bytes {
    Copied(Vec<u8>),
    /// The memory that it was received to.
    Taken(Memory),
}

impl Detached {
    /// A body without bytes.
    pub const EMPTY: Self =
        Self { bytes: Bytes::Copied(Vec::new()), start: 0, meta_len: 0, body_len: 0 };

    /// A copy of a body and of the metadata before it, so many bytes. `room` is used for it.
    pub fn copy(body: &Lease, meta_len: usize, mut room: Vec<u8>) -> Self {
        let metadata = body.before(meta_len);
        room.clear();
        // More than is wanted, as where it will begin is known only once it is there.
        room.reserve(FRAME_ALIGN + metadata.len() + body.len());
        let start = room.as_ptr().align_offset(FRAME_ALIGN).min(FRAME_ALIGN);
        room.extend_from_slice(&[0; FRAME_ALIGN][..start]);
        room.extend_from_slice(metadata);
        room.extend_from_slice(body);
        let (meta_len, body_len) = (metadata.len(), body.len());
        Self { bytes: Bytes::Copied(room), start, meta_len, body_len }
    }

    /// The buffer of a body, with the metadata before it, where the lease is its only reader and
    /// it is no buffer of the pool. Gives the lease back where that is not so.
    pub fn take(body: Lease, meta_len: usize) -> Result<Self, Lease> {
        let (body_start, body_len) = (body.start(), body.len());
        let meta_len = body.before(meta_len).len();
        let memory = body.into_memory()?;
        Ok(Self { bytes: Bytes::Taken(memory), start: body_start - meta_len, meta_len, body_len })
    }

    /// The metadata.
    pub fn metadata(&self) -> &[u8] {
        &self.as_slice()[self.start..self.start + self.meta_len]
    }

    /// The body.
    #[inline]
    pub(super) fn body(&self) -> &[u8] {
        let start = self.start + self.meta_len;
        &self.as_slice()[start..start + self.body_len]
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Copied(bytes) => bytes,
            Bytes::Taken(memory) => {
                // SAFETY: the memory is initialised, and lives as long as this. It is owned here
                // alone, and is not written from here on.
                unsafe { slice::from_raw_parts(memory.start().as_ptr(), memory.len()) }
            }
        }
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("meta_len", &self.meta_len)
            .field("body_len", &self.body_len)
            .field("is_copy", &matches!(self.bytes, Bytes::Copied(_)))
            .finish_non_exhaustive()
    }
}

/// A message that was validated, read in memory that it owns. Derefs to the archived message.
pub struct DetachedView<T: Message> {
    /// Points into the bytes, or to a static where the message has no size.
    archived: NonNull<T::Archived>,
    bytes: Detached,
}

// SAFETY: the bytes may go to another thread, as they are owned; what is read there is a
// `&T::Archived`, and nobody else has one.
unsafe impl<T: Message<Archived: Send>> Send for DetachedView<T> {}

// SAFETY: threads that share it read a `&T::Archived`.
unsafe impl<T: Message<Archived: Sync>> Sync for DetachedView<T> {}

impl<T: Message> DetachedView<T> {
    /// Validates a body as a message. This is done once; reading costs nothing more.
    ///
    /// # Errors
    ///
    /// Where the bytes are no valid archive of `T`.
    #[inline]
    pub fn new(bytes: Detached) -> Result<Self, BodyError> {
        match access::<T>(bytes.body()).map(NonNull::from) {
            Ok(archived) => Ok(Self { archived, bytes }),
            Err(error) => Err(error),
        }
    }

    /// The metadata beside the message.
    pub fn metadata(&self) -> &[u8] {
        self.bytes.metadata()
    }
}

impl<T: Message> Deref for DetachedView<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY: `access` gave this reference into the bytes, or to a static where the message
        // has no size. They lie on the heap or in a mapping, so they do not move with it; nobody
        // writes them; and they live as long as the view.
        unsafe { self.archived.as_ref() }
    }
}

/// Bytes that go from thread to thread.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Detached>();
};
