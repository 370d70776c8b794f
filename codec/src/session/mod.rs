//! The protocol as two state machines, one for each end of a connection.
//!
//! After the decoder and before the dispatch of a call. They see frames and make events and
//! frames; they never see a socket, a clock or a thread.
//!
//! Inputs are the `handle_*` methods, outputs the events they return and the bytes in `output`.
//! The order of calls is written on [`ServerSession`] and [`ClientSession`].

mod calls;
mod client;
mod server;

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};

pub use self::{
    client::{ClientEvent, ClientSession, OpenError},
    server::{ReplyError, ServerEvent, ServerSession},
};
use crate::{
    header::{CallId, Flags, Header, HeaderError, Kind},
    hello::{HelloError, MethodLayout},
    status::{Code, Status},
};

/// A method of a service: its id and name, and the fingerprints of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// FNV-1a (32 bits) of the name, or the number that `#[rpc(id = ...)]` gives.
    pub id: u32,
    /// `Service.method`.
    pub name: &'static str,
    /// Fingerprint of the request.
    pub request: u64,
    /// Fingerprint of the reply.
    pub reply: u64,
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
}

impl SessionError {
    /// The status that tells the peer, in a GOAWAY.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::FrameTooLong { .. } | Self::NoMemory { .. } | Self::SlotBeyondLimit { .. } => {
                Code::ResourceExhausted
            }
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
    methods: &[MethodInfo],
    ours: MethodLayout,
    theirs: MethodLayout,
) -> SessionError {
    let name = methods.iter().find(|method| method.id == ours.id).map(|method| method.name);
    let part = match (ours.request == theirs.request, ours.reply == theirs.reply) {
        (false, true) => "request",
        (true, false) => "reply",
        _ => "request and reply",
    };
    let method = name.map_or_else(|| format!("{:#010x}", ours.id), ToOwned::to_owned);
    SessionError::LayoutMismatch { method, part }
}

fn layouts_of(methods: &[MethodInfo]) -> Vec<MethodLayout> {
    let layouts = methods.iter().map(|method| MethodLayout {
        id: method.id,
        request: method.request,
        reply: method.reply,
    });
    layouts.collect()
}

fn goaway_header(status: &Status) -> Header {
    Header {
        body_len: 0,
        kind: Kind::GoAway,
        flags: Flags::NONE,
        call: CallId(0),
        code: status.code() as u32,
        time_us: 0,
        aux: 0,
    }
}

/// A status as a peer sent it: bytes that are not UTF-8 are replaced, a long text is cut.
fn status_from_wire(header: &Header, body: &[u8]) -> Status {
    let text = &body[..body.len().min(crate::limits::STATUS_MESSAGE_LEN_MAX)];
    let message = String::from_utf8_lossy(text).into_owned();
    let status = Status::new(Code::from_u32(header.code), message);
    if header.flags.contains(Flags::NOT_EXECUTED) { status.not_executed() } else { status }
}
