//! The serving end of a connection.

use alloc::vec::Vec;

use super::{
    MethodInfo, SessionError,
    calls::{AcceptedCalls, Refusal},
    goaway_header, layout_mismatch, layouts_of, status_from_wire,
};
use crate::{
    encode::{EncodeError, Scratch, encode_bytes, encode_message},
    header::{CallId, Flags, Header, Kind},
    hello::{Hello, Limits, ShardPlace},
    limits::FRAME_LEN_MAX_DEFAULT,
    message::Message,
    status::{Code, Status},
};

/// The serving end of a connection: calls in, responses out.
///
/// For each frame that a [`Decoder`](crate::Decoder) finds, in order:
/// [`handle_frame`](Self::handle_frame). For each call it gives, once, in any order and at any
/// time: [`reply`](Self::reply) or [`refuse`](Self::refuse). Whenever [`output`](Self::output)
/// is not empty, its bytes are to be sent, in order. After an error:
/// [`go_away`](Self::go_away), send the output, close.
#[derive(Debug)]
pub struct ServerSession {
    methods: &'static [MethodInfo],
    hello: Hello,
    /// Longest frame that the peer accepts.
    peer_frame_len_max: u32,
    state: State,
    calls: AcceptedCalls,
    output: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Neither side has said HELLO.
    New,
    /// Both have said HELLO, and the peer's was refused.
    Refused,
    /// Both have said HELLO, and calls may come.
    Open,
    /// The peer has said GOAWAY: nothing may come, and the calls that run are answered.
    PeerLeft,
    /// This side has said GOAWAY.
    Closed,
}

/// What a frame means for the transport.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The peer is one of ours, and calls may come.
    Opened,
    /// A call to be run: the frame's body is the request.
    Call {
        /// To be answered with [`ServerSession::reply`] or [`ServerSession::refuse`].
        call: CallId,
        /// The method's id.
        method: u32,
    },
    /// The peer closes the connection and says why.
    GoAway(Status),
}

/// Why a reply was not sent as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The call is not running; nothing was sent.
    #[error("the call is not running")]
    NotRunning,
    /// This side has said GOAWAY; nothing was sent.
    #[error("the connection is closed")]
    Closed,
    /// The reply could not be encoded; a status was sent in its place.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl ServerSession {
    /// A session that serves `methods` within `limits`.
    pub fn new(methods: &'static [MethodInfo], limits: Limits, shard: ShardPlace) -> Self {
        Self {
            methods,
            hello: Hello::with_methods(limits, shard, layouts_of(methods)),
            peer_frame_len_max: FRAME_LEN_MAX_DEFAULT,
            state: State::New,
            calls: AcceptedCalls::new(limits.calls_in_flight_max),
            output: Vec::new(),
        }
    }

    /// Takes a frame and says what it means.
    ///
    /// # Errors
    ///
    /// Where no correct peer sends this frame now. The connection ends.
    #[inline]
    pub fn handle_frame(
        &mut self,
        header: &Header,
        body: &[u8],
    ) -> Result<ServerEvent, SessionError> {
        if header.kind == Kind::Request && self.state == State::Open {
            return match self.calls.accept(header.call) {
                Ok(()) => Ok(ServerEvent::Call { call: header.call, method: header.code }),
                Err(refusal) => Err(self.call_error(header.call, &refusal)),
            };
        }
        self.handle_other(header, body)
    }

    /// Answers a call with its reply, encoded straight into the output.
    ///
    /// # Errors
    ///
    /// Where the call is not running or the connection is closed, or where the reply cannot be
    /// encoded; the caller was then answered with a status.
    #[inline]
    pub fn reply<T: Message>(
        &mut self,
        scratch: &mut Scratch,
        call: CallId,
        reply: &T,
    ) -> Result<(), ReplyError> {
        if !self.calls.finish(call) {
            return Err(ReplyError::NotRunning);
        }
        if self.state == State::Closed {
            return Err(ReplyError::Closed);
        }
        let header = self.response(call, 0, Flags::NONE);
        let frame_len_max = self.peer_frame_len_max;
        encode_message(&mut self.output, scratch, header, reply, frame_len_max).map_err(|error| {
            let code = match error {
                EncodeError::TooLong { .. } => Code::ResourceExhausted,
                EncodeError::Serialize => Code::Internal,
            };
            self.write_status(call, &Status::new(code, alloc::format!("reply: {error}")));
            ReplyError::Encode(error)
        })
    }

    /// Answers a call with a status. False where the call is not running.
    pub fn refuse(&mut self, call: CallId, status: &Status) -> bool {
        let is_running = self.calls.finish(call);
        if is_running {
            self.write_status(call, status);
        }
        is_running
    }

    /// Answers every call that runs with a status, and says how many they were.
    pub fn refuse_all(&mut self, status: &Status) -> usize {
        let running = self.calls.finish_all();
        for call in &running {
            self.write_status(*call, status);
        }
        running.len()
    }

    /// Appends the frame that ends the connection and tells the peer why. Nothing follows it in
    /// the output: calls that run end without a frame.
    pub fn go_away(&mut self, status: &Status) {
        if self.state == State::Closed {
            return;
        }
        if self.state == State::New {
            self.say_hello();
        }
        self.state = State::Closed;
        encode_bytes(&mut self.output, goaway_header(status), status.wire_message().as_bytes());
    }

    /// The bytes to be sent. The transport takes them, and may leave an empty vector with
    /// capacity in their place.
    #[inline]
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Calls that run.
    #[inline]
    pub fn calls_in_flight(&self) -> u32 {
        self.calls.len()
    }

    /// Whether both sides have said HELLO and this one has not said GOAWAY.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Frames other than a call on an open connection.
    #[cold]
    fn handle_other(&mut self, header: &Header, body: &[u8]) -> Result<ServerEvent, SessionError> {
        let kind = header.kind;
        match (kind, self.state) {
            (Kind::Hello, State::New) => self.open(header, body),
            (Kind::Hello, State::Refused | State::Open | State::Closed) => {
                Err(SessionError::Unexpected { kind, why: "a connection has one HELLO" })
            }
            (_, State::PeerLeft) => {
                Err(SessionError::Unexpected { kind, why: "the peer has said GOAWAY" })
            }
            (Kind::GoAway, _) => Ok(self.peer_leaves(header, body)),
            (_, State::New | State::Refused) => {
                Err(SessionError::Unexpected { kind, why: "a connection begins with HELLO" })
            }
            (_, State::Closed) => {
                Err(SessionError::Unexpected { kind, why: "this end has said GOAWAY" })
            }
            (_, State::Open) => {
                Err(SessionError::Unexpected { kind, why: "this end serves calls and makes none" })
            }
        }
    }

    fn open(&mut self, header: &Header, body: &[u8]) -> Result<ServerEvent, SessionError> {
        self.say_hello();
        self.state = State::Refused;
        let peer = Hello::parse(header, body)?;
        if let Some((ours, theirs)) = self.hello.disagreement(&peer) {
            return Err(layout_mismatch(self.methods, ours, theirs));
        }
        self.peer_frame_len_max = peer.limits.frame_len_max;
        self.state = State::Open;
        Ok(ServerEvent::Opened)
    }

    fn peer_leaves(&mut self, header: &Header, body: &[u8]) -> ServerEvent {
        if self.state == State::Open {
            self.state = State::PeerLeft;
        }
        ServerEvent::GoAway(status_from_wire(header, body))
    }

    /// Ours goes out even where the peer's is refused: the peer finds out by the same rules what
    /// is wrong, and which versions this side speaks.
    fn say_hello(&mut self) {
        encode_bytes(&mut self.output, self.hello.header(), &self.hello.body());
    }

    #[cold]
    fn write_status(&mut self, call: CallId, status: &Status) {
        if self.state == State::Closed {
            return;
        }
        let flags = if status.is_not_executed() { Flags::NOT_EXECUTED } else { Flags::NONE };
        let header = self.response(call, status.code() as u32, flags);
        encode_bytes(&mut self.output, header, status.wire_message().as_bytes());
    }

    #[inline]
    fn response(&self, call: CallId, code: u32, flags: Flags) -> Header {
        let aux = self.calls.len();
        Header { body_len: 0, kind: Kind::Response, flags, call, code, time_us: 0, aux }
    }

    #[cold]
    fn call_error(&self, call: CallId, refusal: &Refusal) -> SessionError {
        match refusal {
            Refusal::BeyondLimit => {
                SessionError::SlotBeyondLimit { call, limit: self.hello.limits.calls_in_flight_max }
            }
            Refusal::GenerationZero => SessionError::GenerationZero(call),
            Refusal::Reused => SessionError::CallReused(call),
        }
    }
}
