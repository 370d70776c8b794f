//! The protocol as a state machine, one for each end of a connection.
//!
//! After the decoder and before the dispatch of a call. It sees frames and the time, and makes
//! events and frames; it never sees a socket, a clock or a thread.
//!
//! Inputs are the `handle_*` methods, outputs the events they return and the bytes in `output`.
//! The order of calls is written on [`Session`]. What it does is in `serving.rs` for the calls of
//! the peer, in `calling.rs` for its own, and in `life.rs` for the connection itself.

mod calling;
mod calls;
mod config;
mod endpoint;
mod extras;
mod life;
mod relay;
mod serving;
#[expect(clippy::module_inception, reason = "the file of the type that the module is about")]
mod session;
mod streams;

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

pub use self::{
    calling::{CallOptions, OpenError},
    config::{Deadlines, Patience, SessionConfig},
    endpoint::Endpoint,
    serving::ReplyError,
    session::{Event, Session},
    streams::{ItemError, StreamId},
};
use crate::{
    header::{CallId, Flags, Header, HeaderError, Kind},
    hello::{HelloError, MethodLayout},
    metadata::MetadataError,
    status::{Code, Status},
};

/// A method of a service: what it is called, what travels, and how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// FNV-1a (32 bits) of the name, or the number that `#[rpc(id = ...)]` gives.
    pub id: u32,
    /// `Service.method`.
    pub name: &'static str,
    /// Fingerprint of the request.
    pub request: u64,
    /// Fingerprint of the reply; zero for a method that has none.
    pub reply: u64,
    /// What a call of it consists of.
    pub kind: MethodKind,
    /// Time that a call gets unless its caller says otherwise, in microseconds; zero is for ever.
    pub timeout_us: u32,
    /// Whether a call may be made twice without harm.
    pub idempotent: bool,
    /// Whether a handler is finished although its caller gave up.
    pub no_cancel: bool,
    /// Whether calls are sent to the shard that owns a key in the request.
    pub shard_by: bool,
}

impl MethodInfo {
    /// A unary method, whose calls have no time limit of their own.
    pub const fn unary(id: u32, name: &'static str, request: u64, reply: u64) -> Self {
        let kind = MethodKind::Unary;
        let timeout_us = 0;
        let (idempotent, no_cancel, shard_by) = (false, false, false);
        Self { id, name, request, reply, kind, timeout_us, idempotent, no_cancel, shard_by }
    }
}

/// What a call of a method consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MethodKind {
    /// A request and a reply.
    Unary,
    /// A request.
    OneWay,
    /// A request, items from the server, and a reply.
    ServerStream,
    /// A request, items from the client, and a reply.
    ClientStream,
    /// A request, items from both, and a reply.
    TwoWay,
}

/// What ends a connection: something its peer sent that no correct peer sends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Bytes that are no header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A frame longer than this side accepts.
    #[error(
        "frame of {frame_len} bytes, the limit is {frame_len_max}; raise frame_len_max or send less at a time"
    )]
    FrameTooLong {
        /// Length that the header declares, in bytes.
        frame_len: u64,
        /// Longest frame accepted, in bytes.
        frame_len_max: u32,
    },
    /// A frame for which this side has no memory left.
    #[error("no memory for a frame of {frame_len} bytes; send less at a time, or later")]
    NoMemory {
        /// Length that the header declares, in bytes.
        frame_len: u64,
    },
    /// A HELLO that cannot be accepted.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The two sides were built with different layouts of a method's messages.
    #[error(
        "the layouts of method {method} differ ({part}); build both sides from the same interface"
    )]
    LayoutMismatch {
        /// The method's name, or its id where this side does not know the name.
        method: String,
        /// Which of its messages differ.
        part: &'static str,
    },
    /// A frame that is not expected now.
    #[error("unexpected {kind} frame: {why}")]
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// What was expected.
        why: &'static str,
    },
    /// A call id whose slot is beyond the announced limit.
    #[error("call {call} is beyond the limit of {limit} calls in flight")]
    SlotBeyondLimit {
        /// The call.
        call: CallId,
        /// The announced limit.
        limit: u32,
    },
    /// A call id with generation zero, which is that of no call.
    #[error("call {0} has generation zero")]
    GenerationZero(CallId),
    /// A call id that was used before.
    #[error("call {0} was used before")]
    CallReused(CallId),
    /// A response to a call that is not in flight.
    #[error("response to call {0}, which is not in flight")]
    NoSuchCall(CallId),
    /// A part, or a frame that comes in parts, that no correct peer sends.
    #[error("a frame in parts that cannot be: {0}")]
    PartUnexpected(&'static str),
    /// An item of a call that is no stream, or not in flight.
    #[error("item of call {0}, which is no stream in flight")]
    NoSuchStream(CallId),
    /// An item for which there was no credit.
    #[error("item of call {0}, beyond its credit")]
    CreditOverdrawn(CallId),
    /// More credit than can be.
    #[error("more credit for call {0} than 2^32 - 1 bytes")]
    CreditOverflow(CallId),
    /// An item that is not the next of its stream.
    #[error("item of call {0} out of order, or after the last")]
    ItemOutOfOrder(CallId),
    /// A packed body, of a kind that the two sides have not agreed on.
    #[error("packed body in a {0} frame, which the two sides have not agreed on")]
    NotAgreed(Kind),
    /// A body that is not what its checksum says.
    #[error("wrong checksum: the body was damaged on its way")]
    ChecksumWrong,
    /// A compressed body that cannot be decompressed to what it says.
    #[error("malformed compressed body")]
    CompressedMalformed,
    /// Metadata that is none.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A status whose details are none.
    #[error("status with malformed details")]
    StatusMalformed,
    /// More frames of a kind within a second than are allowed.
    #[error("too many {0} frames within a second")]
    TooMany(&'static str),
    /// The peer did not say HELLO in time.
    #[error("no HELLO in time")]
    NoHello,
    /// A frame began and did not end in time.
    #[error("a frame began and did not end in time")]
    FrameStalled,
    /// The peer was asked for a sign of life and gave none.
    #[error("the peer gives no sign of life")]
    PeerSilent,
}

impl SessionError {
    /// The status that tells the peer, in a GOAWAY.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::FrameTooLong { .. } | Self::NoMemory { .. } | Self::SlotBeyondLimit { .. } => {
                Code::ResourceExhausted
            }
            Self::TooMany(_) | Self::CreditOverdrawn(_) | Self::CreditOverflow(_) => {
                Code::ResourceExhausted
            }
            Self::ChecksumWrong => Code::DataLoss,
            Self::NoHello | Self::FrameStalled | Self::PeerSilent => Code::DeadlineExceeded,
            Self::LayoutMismatch { .. } | Self::Hello(HelloError::Version { .. }) => {
                Code::FailedPrecondition
            }
            _ => Code::InvalidArgument,
        };
        Status::new(code, format!("{self}"))
    }
}

/// Why the layouts of a method differ, as an error that names it.
fn layout_mismatch(
    calls: &[MethodInfo],
    serves: &[MethodInfo],
    ours: MethodLayout,
    theirs: MethodLayout,
) -> SessionError {
    let mut methods = calls.iter().chain(serves);
    let name = methods.find(|method| method.id == ours.id).map(|method| method.name);
    let part = match (ours.request == theirs.request, ours.reply == theirs.reply) {
        (false, true) => "request",
        (true, false) => "reply",
        _ => "request and reply",
    };
    let method = name.map_or_else(|| format!("{:#010x}", ours.id), ToOwned::to_owned);
    SessionError::LayoutMismatch { method, part }
}

fn layouts_of(calls: &[MethodInfo], serves: &[MethodInfo]) -> Vec<MethodLayout> {
    let layouts = calls.iter().chain(serves).map(|method| MethodLayout {
        id: method.id,
        request: method.request,
        reply: method.reply,
    });
    layouts.collect()
}

fn goaway_header(status: &Status) -> Header {
    Header {
        body_len: 0,
        meta_len: 0,
        kind: Kind::GoAway,
        flags: Flags::NONE,
        call: CallId(0),
        code: status.code() as u32,
        time_us: 0,
        aux: 0,
    }
}

/// A status as a peer sent it: bytes that are not UTF-8 are replaced, a long text is cut.
fn status_from_wire(header: &Header, payload: &[u8]) -> Result<Status, SessionError> {
    let body = payload.get(header.meta_bytes()..).unwrap_or_default();
    let not_executed = header.flags.contains(Flags::NOT_EXECUTED);
    let has_details = header.flags.contains(Flags::DETAILS);
    Status::from_wire(header.code, not_executed, has_details, body)
        .ok_or(SessionError::StatusMalformed)
}
