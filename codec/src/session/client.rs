//! The calling end of a connection.

use alloc::vec::Vec;

use super::{
    MethodInfo, SessionError,
    calls::{OpenCalls, OpenState},
    goaway_header, layout_mismatch, layouts_of, status_from_wire,
};
use crate::{
    encode::{EncodeError, Scratch, encode_bytes, encode_message},
    header::{CallId, Flags, Header, Kind},
    hello::{Hello, Limits, ShardPlace},
    message::Message,
    status::Status,
};

/// The calling end of a connection: calls out, responses in.
///
/// A new session has its HELLO in [`output`](Self::output). For each frame that a
/// [`Decoder`](crate::Decoder) finds, in order: [`handle_frame`](Self::handle_frame). Once it has
/// given [`ClientEvent::Opened`], [`call`](Self::call) at any time; for each call, once,
/// [`release`](Self::release) when its outcome was taken or [`abandon`](Self::abandon). Whenever
/// [`output`](Self::output) is not empty, its bytes are to be sent, in order. After an error:
/// [`go_away`](Self::go_away), send the output, close, and every call in flight has failed.
#[derive(Debug)]
pub struct ClientSession {
    methods: &'static [MethodInfo],
    hello: Hello,
    peer: Option<Peer>,
    /// Whether this side has said GOAWAY.
    is_closed: bool,
    calls: OpenCalls,
    output: Vec<u8>,
}

/// What is kept of the server's HELLO.
#[derive(Clone, Copy, Debug)]
struct Peer {
    frame_len_max: u32,
    shard: ShardPlace,
}

/// What a frame means for the transport.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server is one of ours: calls can be made.
    Opened,
    /// A call has its reply: the frame's body.
    Reply(CallId),
    /// A call has ended otherwise.
    Failed(CallId, Status),
    /// A response to a call that was [abandoned](ClientSession::abandon).
    Abandoned,
    /// The server closes the connection and says why.
    GoAway(Status),
}

/// Why a call was not made; nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The server has not said HELLO, or this side has said GOAWAY.
    #[error("the connection is not open")]
    NotOpen,
    /// As many calls as the server accepts are in flight.
    #[error("as many calls as the server accepts are in flight")]
    TooManyInFlight,
    /// The request could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl ClientSession {
    /// A session that calls `methods` and accepts what is within `limits`. Its HELLO is in the
    /// output.
    pub fn new(methods: &'static [MethodInfo], limits: Limits) -> Self {
        let hello = Hello::with_methods(limits, ShardPlace::default(), layouts_of(methods));
        let mut output = Vec::new();
        encode_bytes(&mut output, hello.header(), &hello.body());
        let calls = OpenCalls::new(limits.calls_in_flight_max);
        Self { methods, hello, peer: None, is_closed: false, calls, output }
    }

    /// Makes a call: the request is encoded straight into the output.
    ///
    /// # Errors
    ///
    /// Where the connection is not open, too many calls are in flight, or the request cannot be
    /// encoded. Nothing was sent then.
    #[inline]
    pub fn call<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        method: u32,
        request: &T,
    ) -> Result<CallId, OpenError> {
        let Some(peer) = self.peer.filter(|_| !self.is_closed) else {
            return Err(OpenError::NotOpen);
        };
        let call = self.calls.open().ok_or(OpenError::TooManyInFlight)?;
        let header = Header {
            body_len: 0,
            kind: Kind::Request,
            flags: Flags::NONE,
            call,
            code: method,
            time_us: 0,
            aux: 0,
        };
        match encode_message(&mut self.output, scratch, header, request, peer.frame_len_max) {
            Ok(()) => Ok(call),
            Err(error) => {
                self.calls.undo_open(call);
                Err(error.into())
            }
        }
    }

    /// Frees the slot of a call whose [`Reply`](ClientEvent::Reply) or
    /// [`Failed`](ClientEvent::Failed) was taken by who made the call.
    #[inline]
    pub fn release(&mut self, call: CallId) {
        self.calls.release(call);
    }

    /// Marks that nobody waits for the call any more. Its slot stays taken until its response
    /// comes.
    pub fn abandon(&mut self, call: CallId) {
        self.calls.abandon(call);
    }

    /// Takes a frame and says what it means.
    ///
    /// # Errors
    ///
    /// Where no correct server sends this frame now. The connection ends.
    #[inline]
    pub fn handle_frame(
        &mut self,
        header: &Header,
        body: &[u8],
    ) -> Result<ClientEvent, SessionError> {
        if header.kind != Kind::Response || self.peer.is_none() {
            return self.handle_other(header, body);
        }
        match self.calls.answer(header.call) {
            Some(OpenState::Waiting) if header.code == 0 => Ok(ClientEvent::Reply(header.call)),
            Some(OpenState::Waiting) => {
                Ok(ClientEvent::Failed(header.call, status_from_wire(header, body)))
            }
            Some(_) => Ok(ClientEvent::Abandoned),
            None => Err(SessionError::NoSuchCall(header.call)),
        }
    }

    /// Appends the frame that ends the connection and tells the peer why. Nothing follows it in
    /// the output.
    pub fn go_away(&mut self, status: &Status) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        encode_bytes(&mut self.output, goaway_header(status), status.wire_message().as_bytes());
    }

    /// The bytes to be sent. The transport takes them, and may leave an empty vector with
    /// capacity in their place.
    #[inline]
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether the server has said HELLO.
    pub fn is_open(&self) -> bool {
        self.peer.is_some()
    }

    /// The shard that the connection arrived at, once it is open.
    pub fn shard(&self) -> Option<ShardPlace> {
        self.peer.map(|peer| peer.shard)
    }

    /// Whether one more call can be in flight.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.calls.has_room()
    }

    /// Calls in flight, abandoned ones included.
    pub fn calls_in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Frames other than a response on an open connection.
    #[cold]
    fn handle_other(&mut self, header: &Header, body: &[u8]) -> Result<ClientEvent, SessionError> {
        let kind = header.kind;
        match (kind, self.is_open()) {
            (Kind::Hello, false) => self.open(header, body),
            (Kind::Hello, true) => {
                Err(SessionError::Unexpected { kind, why: "a connection has one HELLO" })
            }
            (Kind::GoAway, _) => Ok(ClientEvent::GoAway(status_from_wire(header, body))),
            (_, false) => {
                Err(SessionError::Unexpected { kind, why: "a connection begins with HELLO" })
            }
            (_, true) => {
                Err(SessionError::Unexpected { kind, why: "this end makes calls and serves none" })
            }
        }
    }

    fn open(&mut self, header: &Header, body: &[u8]) -> Result<ClientEvent, SessionError> {
        let peer = Hello::parse(header, body)?;
        if let Some((ours, theirs)) = self.hello.disagreement(&peer) {
            return Err(layout_mismatch(self.methods, ours, theirs));
        }
        self.calls.limit_to(peer.limits.calls_in_flight_max);
        self.peer = Some(Peer { frame_len_max: peer.limits.frame_len_max, shard: peer.shard });
        Ok(ClientEvent::Opened)
    }
}
