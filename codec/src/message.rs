//! Bodies: an archive is validated once and then read where it lies.
//!
//! Between session and handler on the path of a frame. It never trusts a byte that it has not
//! checked, never recurses deeper than [`MESSAGE_DEPTH_MAX`], and allocates nothing on success.

use core::num::NonZeroUsize;

use rkyv::{
    Archive, Deserialize, Portable, Serialize,
    api::{
        access_with_context,
        low::{LowDeserializer, LowValidator},
    },
    bytecheck::CheckBytes,
    rancor::Failure,
    validation::{Validator as RkyvValidator, archive::ArchiveValidator},
};

use crate::{
    encode::Encoder,
    layout::Field,
    limits::{FRAME_ALIGN, MESSAGE_DEPTH_MAX},
};

/// The context in which a body is validated: bounds and depth, and no shared pointers.
pub type Validator<'a> = LowValidator<'a, Failure>;

/// The context in which an archived message becomes an owned value: no shared pointers.
pub type Deserializer = LowDeserializer<Failure>;

/// What travels as the body of a frame. Implemented by `#[ringcall::message]`.
///
/// The bounds are what reading in place and encoding in place need; there is nothing to
/// implement by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "not a message",
    note = "put `#[ringcall::message]` on the definition of `{Self}`"
)]
pub trait Message:
    Field
    + Archive<Archived: Portable + for<'a> CheckBytes<Validator<'a>>>
    + for<'a> Serialize<Encoder<'a>>
{
}

/// Why a body is not the message that the method names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The body does not start at a multiple of 16 bytes in memory; the transport must copy it.
    #[error("body is not aligned to 16 bytes")]
    Misaligned,
    /// The bytes are no archive of the type: a length, offset, tag or text in them is wrong, or
    /// it is nested deeper than 64 levels.
    #[error("body of {body_len} bytes is not a valid archive of the message")]
    Invalid {
        /// Length of the body in bytes.
        body_len: usize,
    },
}

/// Validates a body and gives it as the archived message, in place.
///
/// The message itself is the first level of nesting, and what a pointer in it leads to (a list, a
/// box, a string too long to stand inline) is one level deeper.
///
/// # Errors
///
/// Where the body is not aligned, is not a valid archive of `T`, or nests deeper than
/// [`MESSAGE_DEPTH_MAX`].
#[inline]
pub fn access<T: Message>(body: &[u8]) -> Result<&T::Archived, BodyError> {
    // Evaluated, so that what the compiler checks on the way to it holds of every `T` that is read.
    const { _ = T::LAYOUT };
    let mut body = body;
    if !body.as_ptr().addr().is_multiple_of(FRAME_ALIGN) {
        if !body.is_empty() {
            return Err(BodyError::Misaligned);
        }
        // An empty slice may point anywhere, as `&[]` does; a message without contents has no
        // other body, and the validator asks for an address.
        body = &NOTHING.0;
    }
    let mut validator =
        RkyvValidator::new(ArchiveValidator::with_max_depth(body, MESSAGE_DEPTH), ());
    access_with_context::<T::Archived, _, Failure>(body, &mut validator)
        .map_err(|Failure| BodyError::Invalid { body_len: body.len() })
}

/// Copies an archived message out of its buffer, into an owned value.
///
/// # Errors
///
/// Where the message's own deserialization fails; the ones of `#[ringcall::message]` do not.
pub fn deserialize<T: Message>(archived: &T::Archived) -> Result<T, BodyError>
where
    T::Archived: Deserialize<T, Deserializer>,
{
    let body_len = size_of::<T::Archived>();
    rkyv::api::deserialize_using(archived, &mut ())
        .map_err(|Failure| BodyError::Invalid { body_len })
}

/// No bytes, at an aligned address.
#[repr(align(16))]
struct Nothing([u8; 0]);

const NOTHING: &Nothing = &Nothing([]);
const _: () = assert!(align_of::<Nothing>() == FRAME_ALIGN);

/// The validator counts down, and refuses the level at which it comes to zero.
const MESSAGE_DEPTH: Option<NonZeroUsize> = NonZeroUsize::new(MESSAGE_DEPTH_MAX + 1);
