//! A reply that came through a handle, as its caller reads it.

use std::{fmt, ops::Deref};

use ringcall_codec::{
    BodyError, Code, Deserializer, Message, MetadataRef, ServerTimes, Status, deserialize,
};
use rkyv::Deserialize;

use crate::ring::{Detached, DetachedView};

/// A reply, in memory that it owns. Derefs to the archived message.
///
/// It was validated once. It is a copy of what was received; of a reply above 64 KiB it is most
/// often the buffer itself that was received to.
pub struct Reply<T: Message>(DetachedView<T>);

impl<T: Message> Reply<T> {
    #[inline]
    pub(super) fn new(bytes: Detached) -> Result<Self, Status> {
        DetachedView::new(bytes).map(Self).map_err(|error| invalid(&error))
    }

    /// What the server sent beside the reply. Nothing is copied.
    pub fn metadata(&self) -> MetadataRef<'_> {
        // It was checked when it came.
        MetadataRef::parse(self.0.metadata()).unwrap_or(MetadataRef::EMPTY)
    }

    /// How long the server held the call, where it was
    /// [asked](super::Call::with_server_times) and has measured that. What it says is not checked.
    pub fn server_times(&self) -> Option<ServerTimes> {
        ServerTimes::of(&self.metadata())
    }

    /// The message itself, copied out. Not for messages that borrow.
    ///
    /// # Errors
    ///
    /// Where a hand-written deserialization of the message fails.
    pub fn to_owned(&self) -> Result<T, Status>
    where
        T::Archived: Deserialize<T, Deserializer>,
    {
        let owned = deserialize::<T>(&self.0);
        owned.map_err(|error| Status::new(Code::Internal, error.to_string()))
    }
}

impl<T: Message> Deref for Reply<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        &self.0
    }
}

impl<T: Message<Archived: fmt::Debug>> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").field(&**self).finish()
    }
}

#[cold]
fn invalid(error: &BodyError) -> Status {
    Status::new(Code::Internal, format!("reply: {error}"))
}
