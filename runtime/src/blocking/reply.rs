//! A reply, as its caller reads it.

use std::{fmt, ops::Deref};

use ringcall_codec::{Deserializer, Message, MetadataRef, ServerTimes, Status};
use rkyv::Deserialize;

use crate::{call::Response, ring::Lease};

/// A reply, read where it was received. Derefs to the archived message.
///
/// It was validated once, and owns the buffer that it lies in: 64 KiB, or one as long as a frame
/// that is longer. Where a thread holds more than 1 MiB of those, short replies are copied out of
/// theirs. The buffer is used again when the reply is dropped.
pub struct Reply<T: Message>(Response<T>);

impl<T: Message> Reply<T> {
    /// Validates a body. Its metadata lies before it in the same buffer, so many times 16 bytes.
    pub(super) fn new(body: Lease, meta_len: u16) -> Result<Self, Status> {
        Response::new(body, meta_len).map(Self)
    }

    /// What the server sent beside the reply. Nothing is copied.
    pub fn metadata(&self) -> MetadataRef<'_> {
        self.0.metadata()
    }

    /// How long the server held the call, where it was
    /// [asked](super::Call::with_server_times) and has measured that. What it says is not checked.
    pub fn server_times(&self) -> Option<ServerTimes> {
        self.0.server_times()
    }

    /// The message itself, copied out of the buffer. Not for messages that borrow.
    ///
    /// # Errors
    ///
    /// Where a hand-written deserialization of the message fails.
    pub fn to_owned(&self) -> Result<T, Status>
    where
        T::Archived: Deserialize<T, Deserializer>,
    {
        self.0.to_owned()
    }
}

impl<T: Message> Deref for Reply<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.0
    }
}

impl<T: Message> Clone for Reply<T> {
    /// Another reader of the same buffer.
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Message<Archived: fmt::Debug>> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&**self).finish()
    }
}
