//! How a call can end other than with a reply: a code, a text, and whether the handler ran.

use alloc::borrow::Cow;
use core::fmt;

use crate::limits::STATUS_MESSAGE_LEN_MAX;

/// The outcome of a call that has no reply.
///
/// On the wire it is a RESPONSE whose `code` is not zero and whose body is the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
    not_executed: bool,
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
        Self { code, message: message.into(), not_executed: false }
    }

    /// Marks that no handler ran for the call, so that it may be made again without harm.
    #[must_use]
    pub fn not_executed(mut self) -> Self {
        self.not_executed = true;
        self
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
