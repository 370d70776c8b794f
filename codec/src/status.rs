//! How a call can end other than with a reply: a code, a text, whether the handler ran, and
//! details for programs to read.
//!
//! Details are an archive that is received as bytes and validated when it is asked for, as the
//! type whose fingerprint stands before it.

use alloc::{borrow::Cow, boxed::Box, string::String, vec::Vec};
use core::fmt;

use rkyv::util::AlignedVec;

use crate::{
    encode::{EncodeError, Scratch, encode_message},
    header::{CallId, Flags, Header, Kind},
    limits::{FRAME_ALIGN, HEADER_LEN, STATUS_DETAILS_LEN_MAX, STATUS_MESSAGE_LEN_MAX},
    message::{Message, access},
};

/// The outcome of a call that has no reply.
///
/// On the wire it is a RESPONSE whose `code` is not zero and whose body is the message, after the
/// details where there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
    not_executed: bool,
    details: Option<Box<Details>>,
}

/// An archive, and the fingerprint of the type that it is said to be of.
#[derive(Clone)]
struct Details {
    layout: u64,
    archive: AlignedVec<FRAME_ALIGN>,
}

/// gRPC's status codes, with its numbers and meanings; 0 (OK) is a reply and not a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Code {
    /// The caller gave the call up.
    Cancelled = 1,
    /// An error of a kind that the peer did not say.
    Unknown = 2,
    /// The request is wrong whatever the state of the server.
    InvalidArgument = 3,
    /// The time for the call ran out.
    DeadlineExceeded = 4,
    /// What the request names does not exist.
    NotFound = 5,
    /// What the request would make exists already.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota, limit or resource is used up.
    ResourceExhausted = 8,
    /// The system is not in the state that the call needs.
    FailedPrecondition = 9,
    /// The call lost against another one; make the whole attempt again.
    Aborted = 10,
    /// Past the end, or outside what is valid now.
    OutOfRange = 11,
    /// The server does not have this method.
    Unimplemented = 12,
    /// A defect: something that must hold does not.
    Internal = 13,
    /// The service cannot be reached now; trying again may help.
    Unavailable = 14,
    /// Data is lost or damaged beyond repair.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

impl Status {
    /// A status with a text for people. The text travels cut to 1,024 bytes.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), not_executed: false, details: None }
    }

    /// Marks that no handler ran for the call, so that it may be made again without harm.
    #[must_use]
    pub fn not_executed(mut self) -> Self {
        self.not_executed = true;
        self
    }

    /// Adds details for programs to read, in place of earlier ones: at most 4,096 bytes of archive.
    ///
    /// # Errors
    ///
    /// Where the details are too long or cannot be serialized.
    pub fn with_details<T: Message>(mut self, details: &T) -> Result<Self, EncodeError> {
        let archive = archive_of(details)?;
        self.details = Some(Box::new(Details { layout: T::LAYOUT, archive }));
        Ok(self)
    }

    /// What kind of failure it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text for people; may be empty.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether it is certain that no handler ran for the call.
    pub fn is_not_executed(&self) -> bool {
        self.not_executed
    }

    /// Whether there are details, of whatever type.
    pub fn has_details(&self) -> bool {
        self.details.is_some()
    }

    /// The details, in place, where they are those of `T`.
    ///
    /// They are validated as a body is, at each call of this function. `None` where there are
    /// none, where their layout is not that of `T`, and where they are no valid archive.
    pub fn details<T: Message>(&self) -> Option<&T::Archived> {
        let details = self.details.as_ref().filter(|details| details.layout == T::LAYOUT)?;
        access::<T>(&details.archive).ok()
    }

    /// Appends the body of the frame that carries this status: the details, which the header's
    /// flag DETAILS announces, then the text.
    pub(crate) fn encode_wire(&self, out: &mut Vec<u8>) {
        if let Some(details) = &self.details {
            // At most STATUS_DETAILS_LEN_MAX.
            let archive_len = details.archive.len() as u32;
            out.extend_from_slice(&details.layout.to_le_bytes());
            out.extend_from_slice(&archive_len.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&details.archive);
            let padded_len = details.archive.len().next_multiple_of(FRAME_ALIGN);
            out.resize(out.len() + padded_len - details.archive.len(), 0);
        }
        out.extend_from_slice(self.wire_message().as_bytes());
    }

    /// A status as a peer sent it: in the text bytes that are not UTF-8 are replaced, and a long
    /// one is cut.
    ///
    /// `None` where the body has no such details as its first bytes say: they end beyond the body
    /// or are too long, or bytes that must be zero are not. Details may have any alignment here:
    /// they are copied.
    pub(crate) fn from_wire(
        code: u32,
        not_executed: bool,
        has_details: bool,
        body: &[u8],
    ) -> Option<Self> {
        let (details, text) = if has_details {
            let (details, text) = Details::split(body)?;
            (Some(Box::new(details)), text)
        } else {
            (None, body)
        };
        let text = &text[..text.len().min(STATUS_MESSAGE_LEN_MAX)];
        let message = Cow::Owned(String::from_utf8_lossy(text).into_owned());
        Some(Self { code: Code::from_u32(code), message, not_executed, details })
    }

    /// The message as it travels: cut at a character boundary to the limit.
    pub(crate) fn wire_message(&self) -> &str {
        let mut end = self.message.len().min(STATUS_MESSAGE_LEN_MAX);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        &self.message[..end]
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{}: {}", self.code, self.message)
        }
    }
}

impl core::error::Error for Status {}

impl Details {
    /// Takes the details from the front of a body and copies them to where they are aligned.
    fn split(body: &[u8]) -> Option<(Self, &[u8])> {
        let (layout, rest) = body.split_first_chunk()?;
        let (archive_len, rest) = rest.split_first_chunk()?;
        let (reserved, rest) = rest.split_first_chunk()?;
        let archive_len = u32::from_le_bytes(*archive_len) as usize;
        if archive_len > STATUS_DETAILS_LEN_MAX || *reserved != [0; 4] {
            return None;
        }
        let (padded, text) = rest.split_at_checked(archive_len.next_multiple_of(FRAME_ALIGN))?;
        let (archive, padding) = padded.split_at(archive_len);
        if padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some((Self { layout: u64::from_le_bytes(*layout), archive: aligned(archive) }, text))
    }
}

impl PartialEq for Details {
    fn eq(&self, other: &Self) -> bool {
        self.layout == other.layout && self.archive[..] == other.archive[..]
    }
}

impl Eq for Details {}

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of layout {:#018x}", self.archive.len(), self.layout)
    }
}

impl Code {
    /// The code with this number; a number that is none reads as [`Code::Unknown`], as a later
    /// version may have more.
    pub fn from_u32(number: u32) -> Self {
        match number {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid argument",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::Unauthenticated => "unauthenticated",
        })
    }
}

/// The archive of details, by way of a frame as every message is encoded.
fn archive_of<T: Message>(details: &T) -> Result<AlignedVec<FRAME_ALIGN>, EncodeError> {
    let header = Header {
        body_len: 0,
        meta_len: 0,
        kind: Kind::Response,
        flags: Flags::NONE,
        call: CallId(0),
        code: 0,
        time_us: 0,
        aux: 0,
    };
    let mut frame = Vec::new();
    let frame_len_max = (HEADER_LEN + STATUS_DETAILS_LEN_MAX) as u32;
    encode_message(&mut frame, &mut Scratch::default(), header, &[], details, frame_len_max)?;
    // Where the header has the length of the body.
    let archive_len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    Ok(aligned(&frame[HEADER_LEN..HEADER_LEN + archive_len]))
}

fn aligned(bytes: &[u8]) -> AlignedVec<FRAME_ALIGN> {
    let mut copy = AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// A status is moved on every path that may fail.
const _: () = assert!(size_of::<Status>() <= 40);

#[cfg(test)]
mod tests {
    use alloc::{
        borrow::ToOwned,
        string::{String, ToString},
        vec,
    };

    use rkyv::{Archive, Serialize};

    use super::*;
    use crate::{layout::Field, limits::STATUS_BODY_LEN_MAX};

    #[derive(Archive, Serialize)]
    struct Quota {
        name: String,
        left: u128,
    }

    impl Field for Quota {
        const LAYOUT: u64 = 0x0123_4567_89ab_cdef;
    }

    impl Message for Quota {}

    /// The same fields under another fingerprint.
    #[derive(Archive, Serialize)]
    struct Other {
        name: String,
        left: u128,
    }

    impl Field for Other {
        const LAYOUT: u64 = 2;
    }

    impl Message for Other {}

    fn detailed(text: &str) -> Status {
        let quota = Quota { name: "requests of this customer".to_owned(), left: 7 };
        let status = Status::new(Code::ResourceExhausted, text.to_owned());
        status.with_details(&quota).expect("short enough")
    }

    fn wire(status: &Status) -> Vec<u8> {
        let mut out = vec![0xaa; 3];
        status.encode_wire(&mut out);
        assert_eq!(out[..3], [0xaa; 3], "the body is appended");
        out.split_off(3)
    }

    fn read(body: &[u8]) -> Option<Status> {
        Status::from_wire(8, false, true, body)
    }

    #[test]
    fn a_status_without_details_is_its_text() {
        let status = Status::new(Code::NotFound, "no such key").not_executed();
        let body = wire(&status);
        assert_eq!(body, b"no such key");
        assert_eq!(Status::from_wire(5, true, false, &body), Some(status));
        assert_eq!(Status::from_wire(5, false, false, b"").expect("any text").message(), "");
        let unknown = Status::from_wire(999, false, false, b"\xff").expect("any text");
        assert_eq!(unknown, Status::new(Code::Unknown, "\u{fffd}"));
    }

    #[test]
    fn details_stand_before_the_text_with_their_lengths() {
        let status = detailed("come back tomorrow");
        let body = wire(&status);
        let archive = &status.details.as_ref().expect("has details").archive;
        assert_eq!(body[..8], Quota::LAYOUT.to_le_bytes());
        assert_eq!(body[8..12], (archive.len() as u32).to_le_bytes());
        assert_eq!(body[12..16], [0; 4]);
        assert_eq!(body[16..16 + archive.len()], archive[..]);
        let text_at = 16 + archive.len().next_multiple_of(16);
        assert!(body[16 + archive.len()..text_at].iter().all(|byte| *byte == 0));
        assert_eq!(&body[text_at..], b"come back tomorrow");
    }

    #[test]
    fn details_arrive_as_they_were_sent_at_any_alignment() {
        for text in ["", "x", "come back tomorrow"] {
            let status = detailed(text);
            let body = wire(&status);
            for offset in 0..16 {
                let mut shifted = vec![0; offset];
                shifted.extend_from_slice(&body);
                let received = read(&shifted[offset..]).expect("as it was sent");
                assert_eq!(received, status);
                let quota = received.details::<Quota>().expect("these were sent");
                assert_eq!(quota.name.as_str(), "requests of this customer");
                assert_eq!(quota.left.to_native(), 7);
                assert!(received.details::<Other>().is_none());
            }
        }
    }

    #[test]
    fn details_without_contents_travel() {
        #[derive(Archive, Serialize)]
        struct Retry;
        impl Field for Retry {
            const LAYOUT: u64 = 3;
        }
        impl Message for Retry {}
        let status = Status::new(Code::Unavailable, "busy").with_details(&Retry).expect("empty");
        let body = wire(&status);
        assert_eq!(body.len(), 16 + "busy".len());
        let received = Status::from_wire(14, false, true, &body).expect("as it was sent");
        assert_eq!(received, status);
        assert!(received.details::<Retry>().is_some());
    }

    #[test]
    fn the_longest_status_fits_its_limit() {
        let mut longest = 0;
        for len in 4000..=STATUS_DETAILS_LEN_MAX {
            let quota = Quota { name: "n".repeat(len), left: 0 };
            let status = Status::new(Code::Internal, "t".repeat(2 * STATUS_MESSAGE_LEN_MAX));
            if let Ok(status) = status.with_details(&quota) {
                longest = longest.max(wire(&status).len());
            }
        }
        assert_eq!(longest, STATUS_BODY_LEN_MAX);
    }

    #[test]
    fn details_whose_lengths_lie_are_refused() {
        let status = detailed("");
        let body = wire(&status);
        assert_eq!(read(&body), Some(status));
        for len in 0..body.len() {
            assert_eq!(read(&body[..len]), None, "cut to {len}");
        }
        let archive_len = u32::from_le_bytes([body[8], body[9], body[10], body[11]]);
        let padded_len = archive_len.next_multiple_of(16);
        for lie in [padded_len + 1, 4096, 4097, 0x7fff_ffff, u32::MAX - 15, u32::MAX] {
            let mut body = body.clone();
            body[8..12].copy_from_slice(&lie.to_le_bytes());
            assert_eq!(read(&body), None, "{lie} bytes of {padded_len}");
        }
        // Bytes enough, and more of them than details may have.
        let mut body = body;
        body.resize(16 + 8192, 0);
        body[8..12].copy_from_slice(&4097_u32.to_le_bytes());
        assert_eq!(read(&body), None);
    }

    #[test]
    fn bytes_that_must_be_zero_are_looked_at() {
        let mut body = vec![0; 32];
        body[8] = 5;
        assert!(read(&body).is_some());
        for at in (12..16).chain(21..32) {
            body[at] = 1;
            assert_eq!(read(&body), None, "at {at}");
            body[at] = 0;
        }
    }

    #[test]
    fn details_that_are_no_archive_leave_code_and_text() {
        let body = wire(&detailed("still told"));
        let text_at = body.len() - "still told".len();
        let (mut refused, mut total) = (0, 0);
        for at in 16..text_at {
            for bit in 0..8 {
                let mut flipped = body.clone();
                flipped[at] ^= 1 << bit;
                // A flip in the padding is refused as a whole.
                let Some(status) = read(&flipped) else { continue };
                assert_eq!(status.to_string(), "resource exhausted: still told");
                assert!(status.has_details());
                if let Some(quota) = status.details::<Quota>() {
                    assert!(quota.name.as_str().len() <= body.len());
                } else {
                    refused += 1;
                }
                total += 1;
            }
        }
        assert!(0 < refused && refused < total, "{refused} of {total} were refused");
    }

    #[test]
    fn details_nested_too_deep_are_refused() {
        #[derive(Archive, Serialize)]
        #[rkyv(serialize_bounds(
            __S: rkyv::ser::Writer + rkyv::ser::Allocator,
            __S::Error: rkyv::rancor::Source,
        ))]
        #[rkyv(bytecheck(bounds(
            __C: rkyv::validation::ArchiveContext,
            __C::Error: rkyv::rancor::Source,
        )))]
        struct Nest {
            #[rkyv(omit_bounds)]
            inner: Option<Box<Nest>>,
        }
        impl Field for Nest {
            const LAYOUT: u64 = 4;
        }
        impl Message for Nest {}

        for (levels, is_read) in [(1, true), (64, true), (65, false), (300, false)] {
            let mut nest = Nest { inner: None };
            for _ in 1..levels {
                nest = Nest { inner: Some(Box::new(nest)) };
            }
            let status = Status::new(Code::Internal, "deep").with_details(&nest).expect("short");
            let received = read(&wire(&status)).expect("its lengths are right");
            assert_eq!(received.details::<Nest>().is_some(), is_read, "{levels} levels");
        }
    }
}
