//! A client's connection: the protocol's state, and who waits for which outcome.
//!
//! Everything here happens inside of a call of the user's: it sends what was collected, reads what
//! comes, and does what is due, until the outcome it wants is there.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ringcall_codec::{
    CallId, CallOptions, Code, Event, Flags, Header, Message, Metadata, MethodInfo, OpenError,
    RoutingKey, Scratch, Session, SessionError, ShardPlace, Status, Step,
};

use super::{
    config::{COLLECTED_MAX, ClientConfig, LOOK_AFTER_US, LOOKS_MAX},
    receive::{self, Hands, Input, Payload, Receiver, payload_range},
    seats::{Kept, Outcome, Seats},
    socket::Socket,
};
use crate::{client::ConnectError, ring::Lease, times};

/// No deadline, and the time of what is never due.
pub(super) const NEVER: u64 = u64::MAX;

/// The calls whose tickets were dropped. Its address is the connection's identity.
pub(super) type GivenUp = Arc<Mutex<Vec<CallId>>>;

/// Is told of a one-way call that failed: its number, and why.
type OnNotice = Box<dyn FnMut(u64, &Status) + Send>;

pub(super) struct Connection {
    session: Session,
    scratch: Scratch,
    socket: Socket,
    receiver: Receiver,
    seats: Seats,
    given_up: GivenUp,
    on_notice: Option<OnNotice>,
    began: Instant,
    /// The time in microseconds since then, when it was looked at last.
    now_us: u64,
    /// When the socket was looked at last.
    looked_us: u64,
    /// Why the connection is closed, if it is.
    closed: Option<Status>,
}

/// What a call is made with, beside its method and request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    /// Time until the outcome, in microseconds; zero is for ever.
    pub(super) timeout_us: u32,
    pub(super) metadata: Option<&'a Metadata>,
    /// Whether the server is asked how long it holds the call.
    pub(super) wants_times: bool,
    /// Whose shard the call is.
    pub(super) key: Option<RoutingKey>,
}

/// What ends a connection.
#[derive(Debug)]
pub(super) enum Lost {
    /// The socket fails.
    Io(&'static str, io::Error),
    /// The server sent what no correct server sends, or nothing for too long.
    Session(SessionError),
    /// The server has said why it closes the connection.
    Left(Status),
    /// The stream has ended.
    Ended,
}

impl Connection {
    /// Connects to one address and exchanges HELLOs.
    pub(super) fn open(
        config: &ClientConfig,
        address: SocketAddr,
        methods: &'static [MethodInfo],
    ) -> Result<Self, ConnectError> {
        let timeout = config.connect_timeout;
        let socket = Socket::connect(address, &config.socket, timeout);
        let socket = socket.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => ConnectError::Timeout { address, timeout },
            _ => ConnectError::Connect { address, source },
        })?;
        let session_config = config.session();
        let mut session = Session::client(&session_config, methods, &[]);
        session.begin(0);
        let mut connection = Self {
            session,
            scratch: Scratch::default(),
            socket,
            receiver: Receiver::new(session_config.limits.frame_len_max),
            seats: Seats::default(),
            given_up: GivenUp::default(),
            on_notice: None,
            began: Instant::now(),
            now_us: 0,
            looked_us: 0,
            closed: None,
        };
        let mut hands = Hands::new(None);
        while !connection.session.is_open() {
            if let Err(lost) = connection.try_turn(&mut hands, NEVER) {
                return Err(connection.not_opened(lost, address, timeout));
            }
        }
        connection.leave(hands);
        Ok(connection)
    }

    #[cold]
    fn not_opened(&mut self, lost: Lost, address: SocketAddr, timeout: Duration) -> ConnectError {
        match lost {
            Lost::Session(SessionError::NoHello) => {
                self.close(Lost::Session(SessionError::NoHello));
                ConnectError::Timeout { address, timeout }
            }
            Lost::Session(source) => {
                self.close(Lost::Session(source.clone()));
                ConnectError::Session { address, source }
            }
            lost => {
                let status = lost.status();
                self.close(lost);
                ConnectError::Closed { address, status }
            }
        }
    }

    /// Makes a call. Its request is sent with the next that is waited for.
    pub(super) fn call<Q: Message>(
        &mut self,
        method: &MethodInfo,
        terms: Terms<'_>,
        request: &Q,
    ) -> Result<CallId, Status> {
        let deadline_us = self.begin(terms)?;
        let mut room = Metadata::new();
        let metadata = times::block_of_request(terms.metadata, terms.wants_times, &mut room);
        loop {
            let options = CallOptions { key: terms.key, ..self.options(metadata, deadline_us) };
            match self.session.call(&mut self.scratch, method.id, options, request) {
                Ok(call) => {
                    self.seats.wait(call);
                    return Ok(call);
                }
                // Calls that were given up make room when the server has answered them. Those
                // whose outcomes were not taken do not.
                Err(OpenError::TooManyInFlight)
                    if self.session.calls_made() > self.seats.taken() =>
                {
                    let mut hands = Hands::new(None);
                    self.turn(&mut hands, deadline_us.unwrap_or(NEVER));
                    self.leave(hands);
                }
                Err(error) => return Err(self.refusal(error)),
            }
        }
    }

    /// Makes a call that gets no answer. It is sent with the next that is waited for.
    pub(super) fn one_way<Q: Message>(
        &mut self,
        method: &MethodInfo,
        terms: Terms<'_>,
        request: &Q,
    ) -> Result<(), Status> {
        let deadline_us = self.begin(terms)?;
        let metadata = terms.metadata.map_or(&[][..], Metadata::as_bytes);
        let options = CallOptions { key: terms.key, ..self.options(metadata, deadline_us) };
        match self.session.one_way(&mut self.scratch, method.id, options, request) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// Sends what was collected, where that is much.
    pub(super) fn flush_if_long(&mut self) -> Result<(), Status> {
        if self.session.output().len() < COLLECTED_MAX { Ok(()) } else { self.flush() }
    }

    /// Sends what was collected, and reads meanwhile where the server takes no more.
    pub(super) fn flush(&mut self) -> Result<(), Status> {
        let mut hands = Hands::new(None);
        while self.closed.is_none() {
            match self.try_flush(&mut hands) {
                Ok(false) => {}
                Ok(true) => break,
                Err(lost) => self.close(lost),
            }
        }
        self.leave(hands);
        self.check_open()
    }

    /// The outcome of a call, once it is there: the body of its reply, and the length of the
    /// metadata before it in units of 16 bytes.
    pub(super) fn wait(&mut self, call: CallId) -> Result<(Lease, u16), Status> {
        let mut hands = Hands::new(Some(call));
        let outcome = loop {
            if let Some(reply) = hands.reply.take() {
                break Ok(reply);
            }
            match self.seats.take(call) {
                Outcome::Awaited => {
                    self.turn(&mut hands, NEVER);
                }
                Outcome::Reply(kept) => break lease_of(&kept),
                Outcome::Failed(status) => break Err(*status),
                Outcome::Nobody => {
                    break Err(Status::new(Code::Internal, "nobody waits for the call"));
                }
            }
        };
        self.session.release(call);
        self.leave(hands);
        outcome
    }

    /// Reads and answers what has come, without waiting for more.
    pub(super) fn tend(&mut self) -> Result<(), Status> {
        self.refresh();
        self.reap();
        self.look();
        self.check_open()
    }

    pub(super) fn on_notice(&mut self, on_notice: OnNotice) {
        self.on_notice = Some(on_notice);
    }

    pub(super) fn given_up(&self) -> &GivenUp {
        &self.given_up
    }

    pub(super) fn shard(&self) -> ShardPlace {
        self.session.shard().unwrap_or_default()
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none() && !self.session.peer_drains()
    }

    /// Before a call is made: sees what has happened meanwhile. Gives the call's deadline.
    fn begin(&mut self, terms: Terms<'_>) -> Result<Option<u64>, Status> {
        self.refresh();
        self.reap();
        if self.now_us - self.looked_us > LOOK_AFTER_US {
            self.look();
        }
        self.check_open()?;
        let timeout_us = u64::from(terms.timeout_us);
        Ok((timeout_us > 0).then(|| self.now_us + timeout_us))
    }

    fn options<'a>(&mut self, metadata: &'a [u8], deadline_us: Option<u64>) -> CallOptions<'a> {
        self.session.set_now(self.now_us);
        let now_us = self.now_us;
        CallOptions { deadline_us, now_us, metadata, is_stream: false, key: None }
    }

    fn refresh(&mut self) {
        self.now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(NEVER);
    }

    /// Gives up the calls whose tickets were dropped.
    fn reap(&mut self) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        for call in given_up.drain(..) {
            self.session.abandon(call);
            self.seats.forget(call);
        }
    }

    fn look(&mut self) {
        let mut hands = Hands::new(None);
        for _ in 0..LOOKS_MAX {
            let now_us = self.now_us;
            if self.closed.is_some() || !self.turn(&mut hands, now_us) {
                break;
            }
        }
        self.leave(hands);
    }

    /// One exchange with the server: whether something came. Where that ends the connection, every
    /// call on it has failed.
    fn turn(&mut self, hands: &mut Hands, until_us: u64) -> bool {
        self.try_turn(hands, until_us).unwrap_or_else(|lost| {
            self.close(lost);
            false
        })
    }

    /// Sends what was collected, waits for bytes until something is due or until this time, and
    /// does what they mean and what is due. Whether some came.
    fn try_turn(&mut self, hands: &mut Hands, until_us: u64) -> Result<bool, Lost> {
        self.send(hands)?;
        self.take_in(hands, until_us)
    }

    /// Sends what was collected. True where nothing is left, else waits for room once.
    fn try_flush(&mut self, hands: &mut Hands) -> Result<bool, Lost> {
        if self.send(hands)? {
            return Ok(true);
        }
        self.take_in(hands, NEVER)?;
        Ok(false)
    }

    /// Sends as much as the socket takes at once. True where nothing is left.
    fn send(&mut self, hands: &mut Hands) -> Result<bool, Lost> {
        match self.socket.send(self.session.output()) {
            Ok(is_done) => Ok(is_done),
            Err(error) => {
                // The server may have answered calls, and have said why it closes the connection.
                while self.read_once(hands, Some(Duration::ZERO))? {}
                Err(Lost::Io("sending failed", error))
            }
        }
    }

    /// Reads once, and does what is due. Whether something came.
    fn take_in(&mut self, hands: &mut Hands, until_us: u64) -> Result<bool, Lost> {
        let due_us = self.session.next_timeout_us().min(until_us);
        let wait =
            (due_us != NEVER).then(|| Duration::from_micros(due_us.saturating_sub(self.now_us)));
        let has_read = self.read_once(hands, wait)?;
        if self.now_us >= self.session.next_timeout_us() {
            self.do_what_is_due()?;
        }
        Ok(has_read)
    }

    #[cold]
    fn do_what_is_due(&mut self) -> Result<(), Lost> {
        let mut events = Vec::new();
        let outcome = self.session.handle_timeout(self.now_us, &mut events);
        for event in events {
            self.event(event)?;
        }
        Ok(outcome?)
    }

    /// Reads once, and gives what came to the session. False where nothing came.
    fn read_once(&mut self, hands: &mut Hands, wait: Option<Duration>) -> Result<bool, Lost> {
        let input = self.receiver.receive(hands, &mut self.socket, wait)?;
        self.refresh();
        self.looked_us = self.now_us;
        let cut = match input {
            Input::Nothing => return Ok(false),
            Input::Part => {
                self.session.handle_bytes(self.now_us);
                Some(hands.large_len())
            }
            Input::Frame(header, chunk) => {
                self.session.handle_bytes(self.now_us);
                let range = payload_range(&header);
                self.frame(hands, &header, Payload::InPlace(&chunk, range))?;
                None
            }
            Input::Chunk(chunk, mut at) => {
                self.session.handle_bytes(self.now_us);
                loop {
                    match self.receiver.next(&chunk, &mut at)? {
                        Step::InPlace { header, body } => {
                            self.frame(hands, &header, Payload::InPlace(&chunk, body))?;
                        }
                        Step::Assembled(partial) => {
                            let (header, range) = (partial.header, partial.body_range());
                            self.frame(hands, &header, Payload::Apart(partial.buffer, range))?;
                        }
                        Step::Skipped | Step::Part => self.session.handle_skipped(),
                        Step::More => break,
                    }
                }
                self.receiver.chunk_ended()
            }
        };
        if let Some(frame_len) = cut {
            self.session.handle_cut(frame_len);
        }
        let (missing, announced) = self.receiver.long_frames();
        self.session.handle_long_frames(missing, announced);
        Ok(true)
    }

    fn frame(
        &mut self,
        hands: &mut Hands,
        header: &Header,
        payload: Payload<'_>,
    ) -> Result<(), Lost> {
        if header.flags.intersects(Flags::PACKED) {
            // Nothing was agreed on, so that this refuses it.
            self.session.check_packed(header)?;
        }
        match self.session.handle_frame(header, payload.bytes())? {
            Event::Reply(call) if hands.awaited == Some(call) => {
                let body = payload.lease(&hands.pool)?.skip(header.meta_bytes());
                hands.reply = Some((body, header.meta_len));
                self.seats.forget(call);
                Ok(())
            }
            Event::Reply(call) => {
                let kept = Box::new(payload.into_kept(header.meta_len));
                self.seats.settle(call, Outcome::Reply(kept));
                Ok(())
            }
            event => self.event(event),
        }
    }

    /// Events that need no body.
    fn event(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Failed(call, status) => {
                self.seats.settle(call, Outcome::Failed(Box::new(status)));
            }
            Event::Notice { number, status } => {
                if let Some(on_notice) = &mut self.on_notice {
                    on_notice(number, &status);
                }
            }
            Event::GoAway(status) => return Err(Lost::Left(status)),
            // What the session does by itself, and what only who serves or streams is told.
            _ => {}
        }
        Ok(())
    }

    /// Nobody waits any more: what is to be answered is sent, what is begun is kept.
    fn leave(&mut self, mut hands: Hands) {
        if self.closed.is_none()
            && let Err(lost) = self.send(&mut hands)
        {
            self.close(lost);
        }
        self.receiver.keep(hands);
        // Nobody reads until the next call, so that the server is not blamed for half a frame.
        self.session.handle_pause();
        let is_over = self.session.peer_drains() && self.session.calls_made() == 0;
        if self.closed.is_none() && is_over {
            self.socket.close(self.session.output());
            let why = "the server takes no more calls on it";
            self.closed = Some(Status::new(Code::Unavailable, why));
        }
    }

    /// Ends the connection: every call on it has failed.
    #[cold]
    fn close(&mut self, lost: Lost) {
        let status = lost.status();
        if let Lost::Session(error) = &lost {
            self.session.go_away(&error.status());
            // A server that does not take it has to do without.
            let _ = self.socket.send(self.session.output());
        }
        self.socket.finish();
        self.seats.fail_all(&status);
        self.closed = Some(status);
    }

    fn check_open(&self) -> Result<(), Status> {
        match &self.closed {
            None => Ok(()),
            Some(why) => Err(closed(why)),
        }
    }

    /// The status of a call that was not made.
    #[cold]
    fn refusal(&self, error: OpenError) -> Status {
        let code = match error {
            OpenError::NotOpen => match &self.closed {
                Some(why) => return closed(why),
                None => Code::Unavailable,
            },
            OpenError::Draining => Code::Unavailable,
            OpenError::TooLate => Code::DeadlineExceeded,
            _ => Code::ResourceExhausted,
        };
        Status::new(code, format!("call not made: {error}")).not_executed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.closed.is_none() {
            self.socket.close(self.session.output());
        }
    }
}

impl Lost {
    pub(super) fn receiving(error: io::Error) -> Self {
        Self::Io("receiving failed", error)
    }

    /// What the calls in flight fail with.
    fn status(&self) -> Status {
        match self {
            Self::Io(what, error) => Status::new(Code::Unavailable, format!("{what}: {error}")),
            // The callers' arguments are not what is wrong.
            Self::Session(error) => {
                let text = format!("the server broke the protocol: {error}");
                Status::new(Code::Internal, text)
            }
            Self::Left(status) => status.clone(),
            Self::Ended => Status::new(Code::Unavailable, "the server closed the connection"),
        }
    }
}

impl From<SessionError> for Lost {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// The status of a call that is made when the connection is closed already.
fn closed(why: &Status) -> Status {
    let text = match why.message() {
        "" => "the connection is closed".to_owned(),
        why => format!("the connection is closed: {why}"),
    };
    Status::new(Code::Unavailable, text).not_executed()
}

/// A lease on what was kept of a reply.
fn lease_of(kept: &Kept) -> Result<(Lease, u16), Status> {
    let Kept { bytes, payload, meta_len } = kept;
    let lease = receive::copy(&receive::pool(), &bytes[payload.clone()]);
    let lease = lease.map_err(|error| Status::new(Code::ResourceExhausted, error.to_string()))?;
    Ok((lease.skip(usize::from(*meta_len) * ringcall_codec::limits::FRAME_ALIGN), *meta_len))
}
