//! Received bytes that somebody reads: they stay where they are, unchanged, for as long as a
//! lease on them lives.

#![allow(unsafe_code)]

use std::{
    ops::{Deref, Range},
    ptr::NonNull,
};

use ringcall_codec::{BodyError, Message, access};

use super::{owned::SharedBuffer, pool::Filled};

/// Bytes as one receive, or one copy, left them.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// In a buffer of the receive pool.
    Pool(Filled),
    /// In a buffer of our own; the first bytes of it, as many as the number says.
    Owned(SharedBuffer, usize),
}

/// A part of a chunk, most often the body of a frame.
#[derive(Clone, Debug)]
pub struct Lease {
    chunk: Chunk,
    start: u32,
    len: u32,
}

/// A body that was validated as a message, with its lease. Derefs to the archived message.
pub struct View<T: Message> {
    lease: Lease,
    archived: NonNull<T::Archived>,
}

impl Lease {
    /// A lease on a range of a chunk; on the part of it that the chunk has.
    #[inline]
    pub fn new(chunk: Chunk, range: Range<usize>) -> Self {
        let end = range.end.min(chunk.len());
        let start = range.start.min(end);
        // Frames are shorter than 4 GiB, and chunks hold few of them.
        Self { start: start as u32, len: (end - start) as u32, chunk }
    }

    /// Whether the bytes lie where the kernel put them, in the receive pool.
    pub fn is_in_pool(&self) -> bool {
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

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Pool(filled) => filled,
            Self::Owned(buffer, len) => &buffer[..*len],
        }
    }
}

impl<T: Message> View<T> {
    /// Validates a body and keeps it.
    ///
    /// # Errors
    ///
    /// Where it is not a valid `T`.
    #[inline]
    pub fn new(lease: Lease) -> Result<Self, BodyError> {
        let archived = NonNull::from(access::<T>(&lease)?);
        Ok(Self { lease, archived })
    }

    /// The lease on the body.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl<T: Message> Deref for View<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY:
        // - `access` gave this reference into the bytes of `lease`, after it validated them;
        // - those bytes do not move with the lease (they are in a mapping), and are neither
        //   written nor unmapped while it lives: `Filled` keeps its buffer from the kernel,
        //   `SharedBuffer` has no writers;
        // - the reference given lives no longer than `self`, and so than the lease.
        unsafe { self.archived.as_ref() }
    }
}

impl<T: Message> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { lease: self.lease.clone(), archived: self.archived }
    }
}
