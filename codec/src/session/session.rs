//! One end of a connection: its state, and which frame means what in it.

use alloc::{sync::Arc, vec::Vec};

use super::{
    MethodInfo, SessionError,
    calls::{AcceptedCalls, Finished, OpenCalls},
    config::SessionConfig,
    endpoint::{Common, Endpoint},
    extras::NEVER,
    goaway_header, layout_mismatch,
    life::{Due, Life},
    status_from_wire,
    streams::{Credit, StreamId},
};
use crate::{
    encode::encode_bytes,
    header::{CallId, Flags, Header, Kind},
    hello::{Hello, HelloError, ShardPlace},
    limits::{FRAME_ALIGN, FRAME_LEN_MAX_DEFAULT},
    pack::features,
    status::{Code, Status},
};

/// One end of a connection: calls out and their outcomes in, calls in and their outcomes out.
///
/// The end that connected is the client: its HELLO is in the [`output`](Self::output) from the
/// start, and the server answers with its own. Both may serve, and both may call.
///
/// The order of things, for a transport:
///
/// 1. [`handle_bytes`](Self::handle_bytes) when bytes have come, then
///    [`handle_frame`](Self::handle_frame) for each frame that a [`Decoder`](crate::Decoder) finds
///    in them, in order, then [`handle_cut`](Self::handle_cut) where they end inside of a frame;
///    [`handle_sent`](Self::handle_sent) when bytes have gone.
/// 2. At [`next_timeout_us`](Self::next_timeout_us), or later, or earlier:
///    [`handle_timeout`](Self::handle_timeout).
/// 3. Once it has given [`Event::Opened`], [`call`](Self::call) and [`one_way`](Self::one_way) at
///    any time; for each call, once, [`release`](Self::release) when its outcome was taken or
///    [`abandon`](Self::abandon).
/// 4. For each [`Event::Call`], once, in any order and at any time, [`reply`](Self::reply) or
///    [`refuse`](Self::refuse); for each [`Event::OneWay`], once,
///    [`end_one_way`](Self::end_one_way). Before any of these, and before
///    [`drain`](Self::drain), [`set_now`](Self::set_now).
/// 5. Whenever the output is not empty, its bytes are to be sent, in order.
/// 6. After an error: [`go_away`](Self::go_away), send the output, close; every call in flight has
///    failed. After [`drain`](Self::drain): the same once [`is_drained`](Self::is_drained).
///
/// Times are in microseconds, from any start that the transport chooses, and never go back. One
/// that has none gives none: then nothing is ever due.
#[derive(Debug)]
pub struct Session {
    pub(super) end: Arc<Common>,
    pub(super) peer: Peer,
    pub(super) state: State,
    /// Whether this end has announced that it takes no more calls.
    pub(super) drains: bool,
    /// Whether the peer has.
    pub(super) peer_drains: bool,
    pub(super) life: Life,
    pub(super) made: OpenCalls,
    pub(super) running: AcceptedCalls,
    /// One-way calls that run here.
    pub(super) one_ways_running: u32,
    /// One-way calls that were made from here.
    pub(super) one_ways_made: u64,
    /// The credit of all streams together.
    pub(super) credit: Credit,
    pub(super) output: Vec<u8>,
}

/// What is kept of the peer's HELLO.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// The features that both sides have.
    pub(super) features: u64,
    /// Longest frame to send as it is encoded, in bytes: what is added to one later has room
    /// beyond that.
    pub(super) frame_len_max: u32,
    pub(super) stream_window: u32,
    /// None before the HELLO.
    pub(super) shard: Option<ShardPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The peer has not said HELLO.
    New,
    /// The peer's HELLO was refused.
    Refused,
    /// Both have said HELLO.
    Open,
    /// The peer has said its last word: nothing may come, and the calls that run are answered.
    PeerLeft,
    /// This end has said its last word.
    Closed,
}

/// What a frame, or the time, means for the transport.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Nothing that the transport has to know.
    Nothing,
    /// A call or one-way call has come and was refused with this code, as not executed.
    Refused(Code),
    /// The peer is one of ours: calls can be made and may come.
    Opened,
    /// The client wants to be connected to another shard of this server. Nothing was said yet: the
    /// connection can be handed over, with this frame to begin with, or be
    /// [declined](Session::decline).
    WrongShard(u16),
    /// A call to be run: the frame's body is the request.
    Call {
        /// To be answered with [`Session::reply`] or [`Session::refuse`].
        call: CallId,
        /// The method's id.
        method: u32,
    },
    /// A call to be run that gets no answer: the frame's body is the request.
    OneWay {
        /// To be ended with [`Session::end_one_way`].
        number: u64,
        /// The method's id.
        method: u32,
    },
    /// Nobody waits for a call that runs here any more: its handler is to stop, and the call to
    /// be ended with [`Session::end_stopped`] then. One that ends in time may still reply.
    Stop(CallId),
    /// A call has its reply: the frame's body.
    Reply(CallId),
    /// A call has ended otherwise.
    Failed(CallId, Status),
    /// A response to a call that was [abandoned](Session::abandon), or whose time was up: its slot
    /// is free, once it is [released](Session::release) too.
    Abandoned,
    /// An item of a stream: the frame's body. To be given back by [`Session::item_taken`] when
    /// somebody has taken it.
    Item(StreamId),
    /// The peer sends no more items on a stream.
    ItemsEnded(StreamId),
    /// There is more credit for a stream, or for all of them.
    Credit(Option<StreamId>),
    /// A one-way call has failed at the peer.
    Notice {
        /// Its number.
        number: u64,
        /// Why.
        status: Status,
    },
    /// The peer has answered a PING, after so many microseconds.
    Pong(u64),
    /// The peer takes no more calls; those that run are still answered.
    Draining(Status),
    /// The peer closes the connection and says why.
    GoAway(Status),
}

impl Session {
    /// The end that connected. Its HELLO is in the output. It calls `calls`, and serves `serves`
    /// to its server.
    pub fn client(
        config: &SessionConfig,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        Endpoint::client(config, calls, serves).session(config.patience.age_us)
    }

    /// As [`client`](Self::client), of one that wants to be connected to this shard: a server that
    /// knows of shards hands it over to that, and one that does not lets it be where it arrived.
    pub fn client_of_shard(
        config: &SessionConfig,
        shard: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        Endpoint::client_of_shard(config, shard, calls, serves).session(config.patience.age_us)
    }

    /// The end that was connected to. It serves `serves`, and calls `calls` of its client.
    pub fn server(
        config: &SessionConfig,
        shard: ShardPlace,
        calls: &'static [MethodInfo],
        serves: &'static [MethodInfo],
    ) -> Self {
        Endpoint::server(config, shard, calls, serves).session(config.patience.age_us)
    }

    pub(super) fn new(end: Arc<Common>, age_us: u64) -> Self {
        let calls_max = end.hello.limits.calls_in_flight_max;
        let mut session = Self {
            peer: Peer::UNKNOWN,
            state: State::New,
            drains: false,
            peer_drains: false,
            life: Life::new(&end.patience, age_us),
            made: OpenCalls::new(calls_max),
            running: AcceptedCalls::new(calls_max),
            one_ways_running: 0,
            one_ways_made: 0,
            credit: Credit::default(),
            output: Vec::new(),
            end,
        };
        if session.end.is_client {
            session.say_hello();
        }
        session
    }

    /// Tells when the connection began. For a transport that has a clock, before anything else.
    pub fn begin(&mut self, now_us: u64) {
        self.life.begin(now_us);
    }

    /// Tells the time. What is not told it (calls, answers, a drain) counts from the time that was
    /// told last: a PING sent with an old time is given up too early, and idleness begins too early.
    #[inline]
    pub fn set_now(&mut self, now_us: u64) {
        self.life.set_now(now_us);
    }

    /// Notes that bytes have come, and when.
    #[inline]
    pub fn handle_bytes(&mut self, now_us: u64) {
        self.life.received(now_us);
    }

    /// Notes that bytes of the output were taken by the network, and when: the answer to a PING
    /// that waits behind them is not late yet.
    #[inline]
    pub fn handle_sent(&mut self, now_us: u64) {
        self.life.sent(now_us);
    }

    /// Notes that the bytes that came end inside of a frame, of this length where its header is
    /// complete: the rest is to come in time.
    pub fn handle_cut(&mut self, frame_len: Option<u64>) {
        self.life.frame_is_cut(&self.end.patience, frame_len);
    }

    /// Tells of the frames that come in parts: the bytes that are still to come of those that have
    /// begun, and the bytes that were announced in the life of the connection. What has begun is to
    /// go on.
    #[inline]
    pub fn handle_long_frames(&mut self, missing: u64, announced: u64) {
        self.life.long_frames(&self.end.patience, missing, announced);
    }

    /// Whether frames that come in parts have begun and not ended.
    #[inline]
    pub fn has_long_frames(&self) -> bool {
        self.life.has_long_frames()
    }

    /// [`handle_frame`](Self::handle_frame) of a frame whose header came earlier, at this time:
    /// what time a call has counts from there.
    ///
    /// # Errors
    ///
    /// As for `handle_frame`.
    pub fn handle_assembled(
        &mut self,
        header: &Header,
        payload: &[u8],
        begun_us: u64,
    ) -> Result<Event, SessionError> {
        self.life.set_call_begun(begun_us);
        let event = self.handle_frame(header, payload);
        self.life.set_call_begun(NEVER);
        event
    }

    /// Notes that what the peer sends is not read for now, so that the peer is not blamed for
    /// the frame that is cut.
    pub fn handle_pause(&mut self) {
        self.life.frame_ended();
        self.life.pause_long_frames();
    }

    /// Notes that a frame was skipped, or a part of one has ended.
    #[inline]
    pub fn handle_skipped(&mut self) {
        self.life.frame_ended();
    }

    /// Takes a frame and says what it means. `payload` is its metadata and body.
    ///
    /// # Errors
    ///
    /// Where no correct peer sends this frame now. The connection ends.
    // Inlined, as the event would be passed through memory otherwise.
    #[inline(always)]
    pub fn handle_frame(&mut self, header: &Header, payload: &[u8]) -> Result<Event, SessionError> {
        self.life.frame_ended();
        if self.state == State::Open {
            match header.kind {
                Kind::Request => return self.request(header, payload),
                Kind::Response => return self.response(header, payload),
                Kind::Item => return self.item(header),
                _ => {}
            }
        }
        self.handle_other(header, payload)
    }

    /// Does what is due at this time, and appends what it means to `events`.
    ///
    /// # Errors
    ///
    /// Where the peer was waited for long enough. The connection ends.
    pub fn handle_timeout(
        &mut self,
        now_us: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), SessionError> {
        self.life.set_now(now_us);
        if self.has_ended() {
            return Ok(());
        }
        self.expire_made(events);
        self.running.expire(now_us, |call| events.push(Event::Stop(call)));
        loop {
            let has_calls = self.has_calls();
            match self.life.due(&self.end.patience, self.is_open(), has_calls, self.drains) {
                Due::Nothing => return Ok(()),
                Due::NoHello => return Err(SessionError::NoHello),
                Due::FrameStalled => return Err(SessionError::FrameStalled),
                Due::PeerSilent => return Err(SessionError::PeerSilent),
                Due::Ping => {
                    let number = self.life.begin_ping();
                    self.write_plain(Kind::Ping, number);
                }
                Due::Idle => self.drain(&Status::new(Code::Unavailable, "the connection is idle")),
                Due::Aged => self.drain(&Status::new(Code::Unavailable, "the connection is old")),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, at the earliest, in
    /// microseconds; `u64::MAX` where it never has.
    #[inline]
    pub fn next_timeout_us(&self) -> u64 {
        if self.has_ended() {
            return NEVER;
        }
        let calls_us = self.made.table.earliest_us().min(self.running.table.earliest_us());
        let (is_open, has_calls) = (self.is_open(), self.has_calls());
        calls_us.min(self.life.next_us(&self.end.patience, is_open, has_calls, self.drains))
    }

    /// Announces that this end takes no more calls, and why. Calls that run are answered; calls
    /// that still come are refused, as not executed.
    pub fn drain(&mut self, status: &Status) {
        if self.drains || self.state != State::Open {
            return;
        }
        self.drains = true;
        self.write_goaway(status, Flags::NONE);
        // What the peer sends before it answers this, it may have sent without knowing.
        let number = self.life.begin_drain();
        self.write_plain(Kind::Ping, number);
    }

    /// Whether this end drains, no call runs here or was made here or is still coming, and the peer
    /// knows.
    pub fn is_drained(&self) -> bool {
        let is_known = !self.life.awaits_drain_pong() && !self.life.has_long_frames();
        self.drains && is_known && !self.has_calls()
    }

    /// Whether this end has announced that it takes no more calls.
    pub fn drains(&self) -> bool {
        self.drains
    }

    /// Whether the peer has.
    pub fn peer_drains(&self) -> bool {
        self.peer_drains
    }

    /// Appends the frame that ends the connection and tells the peer why. Nothing follows it in
    /// the output: calls that run end without a frame.
    pub fn go_away(&mut self, status: &Status) {
        if self.state == State::Closed {
            return;
        }
        if self.state == State::New && !self.end.is_client {
            self.say_hello();
        }
        self.state = State::Closed;
        self.write_goaway(status, Flags::END);
    }

    /// Appends the frame that ends a connection which is not opened, in place of this end's HELLO,
    /// and tells the peer why.
    pub fn decline(&mut self, status: &Status) {
        if self.state == State::New {
            self.state = State::Closed;
            self.write_goaway(status, Flags::END);
        }
    }

    /// The bytes to be sent. The transport takes them, and may leave an empty vector with
    /// capacity in their place.
    #[inline]
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether both sides have said HELLO, and neither its last word.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The features that both sides have, once the connection is open.
    pub fn features(&self) -> u64 {
        self.peer.features
    }

    /// Checks that a packed body may come: both sides have said so.
    ///
    /// # Errors
    ///
    /// Where one has not.
    pub fn check_packed(&self, header: &Header) -> Result<(), SessionError> {
        let agreed = self.features();
        let has_sum = header.flags.contains(Flags::CHECKSUM);
        let is_compressed = header.flags.contains(Flags::COMPRESSED);
        let may_sum = agreed & features::CHECKSUM != 0;
        let may_compress = agreed & (features::LZ4 | features::ZSTD) != 0;
        if (has_sum && !may_sum) || (is_compressed && !may_compress) {
            return Err(SessionError::NotAgreed(header.kind));
        }
        Ok(())
    }

    /// Gives back what an item was shortened by when it was packed, so that both sides count the
    /// same: the frame had `before` bytes and has `after`.
    pub fn item_packed(&mut self, stream: StreamId, before: u64, after: u64) {
        self.recount(stream, before, after);
    }

    /// The shard that a client's connection arrived at, once it is open.
    pub fn shard(&self) -> Option<ShardPlace> {
        self.peer.shard
    }

    /// Whether nothing can become due any more.
    #[inline]
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Closed | State::Refused)
    }

    /// Whether frames that belong to calls may be sent: the peer may have left, and still reads.
    #[inline]
    pub(super) fn is_open_or_answers(&self) -> bool {
        matches!(self.state, State::Open | State::PeerLeft)
    }

    /// How long no call was made, came, ran or ended, in microseconds.
    pub fn unused_us(&self) -> u64 {
        if self.has_calls() { 0 } else { self.life.unused_us() }
    }

    /// Gives memory back that is not needed while there are no calls. For a transport that has
    /// found the connection [unused](Self::unused_us) for a while: the next calls take it again.
    pub fn shrink_to_fit(&mut self) {
        self.output.shrink_to_fit();
        if !self.has_calls() {
            self.made.shrink_to_fit();
            self.running.shrink_to_fit();
        }
    }

    fn has_calls(&self) -> bool {
        self.made.len() > 0 || self.running.len() > 0 || self.one_ways_running > 0
    }

    /// Frames other than calls and their outcomes on an open connection.
    #[cold]
    fn handle_other(&mut self, header: &Header, payload: &[u8]) -> Result<Event, SessionError> {
        let kind = header.kind;
        let unexpected = |why| Err(SessionError::Unexpected { kind, why });
        match (kind, self.state) {
            (Kind::Hello, State::New) => self.open(header, payload),
            (_, State::PeerLeft) => unexpected("the peer has said GOAWAY"),
            (Kind::Hello, _) => unexpected("a connection has one HELLO"),
            (Kind::GoAway, _) => self.peer_leaves(header, payload),
            (_, State::New | State::Refused) => unexpected("a connection begins with HELLO"),
            (_, State::Closed) => unexpected("this end has said GOAWAY"),
            (Kind::Request, State::Open) => self.request(header, payload),
            (Kind::Response, State::Open) => self.response(header, payload),
            (Kind::Item, State::Open) => self.item(header),
            (Kind::Credit, State::Open) => self.credited(header),
            (Kind::OneWay, State::Open) => self.one_way_request(header, payload),
            (Kind::Cancel, State::Open) => self.cancelled(header.call),
            (Kind::Notice, State::Open) => self.notice(header, payload),
            (Kind::Ping, State::Open) => self.pinged(header.call.0),
            (Kind::Pong, State::Open) => Ok(self.ponged(header.call.0)),
            (Kind::Part, State::Open) => unexpected("the decoder puts parts together"),
        }
    }

    fn open(&mut self, header: &Header, payload: &[u8]) -> Result<Event, SessionError> {
        if let Some(event) = self.wrong_shard(header, payload) {
            return Ok(event);
        }
        if !self.end.is_client {
            // Ours goes out even where the peer's is refused: the peer finds out by the same rules
            // what is wrong, and which versions this side speaks.
            self.say_hello();
        }
        self.state = State::Refused;
        let peer = Hello::parse(header, payload)?;
        if let Some((ours, theirs)) = self.end.hello.disagreement(&peer) {
            return Err(layout_mismatch(self.end.calls, self.end.serves, ours, theirs));
        }
        let ShardPlace { count, .. } = self.end.hello.shard;
        if let Some(index) = peer.wanted_shard().filter(|index| self.knows_shards(*index, count)) {
            return Err(HelloError::NoSuchShard { index, count }.into());
        }
        self.made.limit_to(peer.limits.calls_in_flight_max);
        self.credit.send_left = peer.limits.connection_window.into();
        self.credit.receive_left = self.end.hello.limits.connection_window.into();
        self.peer = Peer::of(&peer, self.end.hello.features);
        self.state = State::Open;
        self.life.hello_came();
        Ok(Event::Opened)
    }

    /// Whether this end has shards, and not this one.
    fn knows_shards(&self, index: u16, count: u16) -> bool {
        !self.end.is_client && self.end.hello.features & features::SHARDS != 0 && index >= count
    }

    /// What to do with a client that wants another shard of this server. One that is refused is
    /// told so by this shard.
    fn wrong_shard(&self, header: &Header, payload: &[u8]) -> Option<Event> {
        let ShardPlace { index, count } = self.end.hello.shard;
        if self.end.is_client || count < 2 || self.end.hello.features & features::SHARDS == 0 {
            return None;
        }
        let peer = Hello::parse(header, payload).ok()?;
        let wanted = peer.wanted_shard()?;
        (wanted != index && wanted < count && self.end.hello.disagreement(&peer).is_none())
            .then_some(Event::WrongShard(wanted))
    }

    fn peer_leaves(&mut self, header: &Header, payload: &[u8]) -> Result<Event, SessionError> {
        let status = status_from_wire(header, payload)?;
        let is_new = self.state == State::New;
        if !header.flags.contains(Flags::END) {
            if is_new {
                let (kind, why) = (Kind::GoAway, "a connection begins with HELLO");
                return Err(SessionError::Unexpected { kind, why });
            }
            self.peer_drains = true;
            return Ok(Event::Draining(status));
        }
        if is_new || self.state == State::Open {
            self.state = State::PeerLeft;
            self.life.hello_came();
        }
        Ok(Event::GoAway(status))
    }

    fn pinged(&mut self, number: u64) -> Result<Event, SessionError> {
        if !self.life.allows_ping() {
            return Err(SessionError::TooMany("PING"));
        }
        self.write_plain(Kind::Pong, number);
        Ok(Event::Nothing)
    }

    fn ponged(&mut self, number: u64) -> Event {
        self.life.pong(number).map_or(Event::Nothing, Event::Pong)
    }

    /// Ends the calls made here whose time is up.
    fn expire_made(&mut self, events: &mut Vec<Event>) {
        let (is_open, before) = (self.is_open(), events.len());
        let mut output = core::mem::take(&mut self.output);
        self.made.expire(self.life.now_us, |call| {
            // A peer that has left runs nothing for this end any more.
            if is_open {
                encode_bytes(&mut output, plain(Kind::Cancel, call), b"");
            }
            let status = Status::new(Code::DeadlineExceeded, "no outcome in time");
            events.push(Event::Failed(call, status));
        });
        self.output = output;
        for event in &events[before..] {
            if let Event::Failed(call, _) = event
                && let Some(stream) = self.made.table.stream_mut(*call)
            {
                stream.close();
            }
        }
    }

    fn say_hello(&mut self) {
        let hello = &self.end.hello;
        encode_bytes(&mut self.output, hello.header(), &hello.body());
    }

    fn write_goaway(&mut self, status: &Status, flags: Flags) {
        let header = Header { flags, ..goaway_header(status) };
        encode_bytes(&mut self.output, header, status.wire_message().as_bytes());
    }

    /// A frame of its call id alone.
    pub(super) fn write_plain(&mut self, kind: Kind, call: u64) {
        encode_bytes(&mut self.output, plain(kind, CallId(call)), b"");
    }
}

impl Peer {
    /// The peer before its HELLO.
    const UNKNOWN: Self =
        Self { features: 0, frame_len_max: FRAME_LEN_MAX_DEFAULT, stream_window: 0, shard: None };

    /// What is kept of its HELLO, by a side that has these features.
    fn of(hello: &Hello, features: u64) -> Self {
        let features = hello.features & features;
        // A checksum behind the longest body needs room too.
        let sum_len = if features & features::CHECKSUM == 0 { 0 } else { FRAME_ALIGN as u32 };
        Self {
            features,
            frame_len_max: hello.limits.frame_len_max - sum_len,
            stream_window: hello.limits.stream_window,
            shard: Some(hello.shard),
        }
    }
}

/// The header of a frame that says nothing but its kind and call.
pub(super) fn plain(kind: Kind, call: CallId) -> Header {
    let (flags, code) = (Flags::NONE, 0);
    Header { body_len: 0, meta_len: 0, kind, flags, call, code, time_us: 0, aux: 0 }
}

/// Whether the call ran until now.
pub(super) fn was_running(finished: Finished) -> bool {
    finished != Finished::NotRunning
}
