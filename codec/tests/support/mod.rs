//! Two sessions and the bytes between them: what every test of the codec stands on.
//!
//! Messages are derived by hand, since `#[ringcall::message]` is built on this crate.

#![allow(dead_code)]

mod messages;
pub(crate) mod parts;
pub(crate) mod streams;

use std::collections::VecDeque;

use ringcall_codec::{
    CallId, CallOptions, Decoder, Event, FrameBuffer, Header, Interleaver, Kind, Limits, Message,
    MethodInfo, Patience, Piece, Scratch, Session, SessionConfig, SessionError, ShardPlace, Step,
};
use rkyv::util::AlignedVec;

pub(crate) use messages::*;

pub(crate) type Body = AlignedVec<16>;

pub(crate) const ECHO: u32 = 0x0000_00ec;
pub(crate) const METHODS: &[MethodInfo] = &[MethodInfo::unary(
    ECHO,
    "Test.echo",
    <Blob as ringcall_codec::Field>::LAYOUT,
    <Blob as ringcall_codec::Field>::LAYOUT,
)];

/// Every kind of frame.
pub(crate) const KINDS: [Kind; 12] = [
    Kind::Hello,
    Kind::Request,
    Kind::Response,
    Kind::OneWay,
    Kind::Item,
    Kind::Credit,
    Kind::Cancel,
    Kind::Ping,
    Kind::Pong,
    Kind::GoAway,
    Kind::Notice,
    Kind::Part,
];

/// Patience without end.
pub(crate) const PATIENT: Patience = Patience {
    hello_us: 0,
    frame_us: 0,
    bytes_per_s_min: 0,
    ping_after_us: 0,
    ping_answer_us: 0,
    idle_us: 0,
    age_us: 0,
};

/// A client and a server, joined by bytes that travel in pieces of `piece_len`.
pub(crate) struct Pair {
    pub(crate) client: Session,
    pub(crate) server: Session,
    pub(crate) scratch: Scratch,
    pub(crate) piece_len: usize,
    /// The time at which bytes come.
    pub(crate) now_us: u64,
    /// What came out of each end, and the metadata and body it came with.
    pub(crate) client_events: VecDeque<(Event, Body)>,
    pub(crate) server_events: VecDeque<(Event, Body)>,
    client_decoder: Decoder<Body>,
    server_decoder: Decoder<Body>,
    client_pieces: Interleaver,
    server_pieces: Interleaver,
}

impl Pair {
    /// Two sessions that have said nothing yet.
    pub(crate) fn new(client: Limits, server: Limits) -> Self {
        Self::configured(&config(client), &config(server))
    }

    /// Two sessions that have said nothing yet: the client serves nothing.
    pub(crate) fn configured(client: &SessionConfig, server: &SessionConfig) -> Self {
        Self::between(client_of(client, &[]), server_of(server, &[]), client, server)
    }

    /// Two sessions that are open, and of which each serves what the other calls.
    pub(crate) fn open_both_ways() -> Self {
        Self::open_both_ways_with(Limits::default())
    }

    /// The same, of these limits.
    pub(crate) fn open_both_ways_with(limits: Limits) -> Self {
        let config = config(limits);
        let (client, server) = (client_of(&config, METHODS), server_of(&config, METHODS));
        let mut pair = Self::between(client, server, &config, &config);
        pair.open_now();
        pair
    }

    fn between(
        client: Session,
        server: Session,
        client_config: &SessionConfig,
        server_config: &SessionConfig,
    ) -> Self {
        Self {
            client,
            server,
            scratch: Scratch::default(),
            piece_len: usize::MAX,
            now_us: 0,
            client_events: VecDeque::new(),
            server_events: VecDeque::new(),
            client_decoder: Decoder::new(client_config.limits.frame_len_max),
            server_decoder: Decoder::new(server_config.limits.frame_len_max),
            client_pieces: Interleaver::default(),
            server_pieces: Interleaver::default(),
        }
    }

    /// Two sessions that are open.
    pub(crate) fn open() -> Self {
        Self::open_with(Limits::default(), Limits::default())
    }

    pub(crate) fn open_with(client: Limits, server: Limits) -> Self {
        Self::open_configured(&config(client), &config(server), 0)
    }

    /// Two sessions that began and opened at this time.
    pub(crate) fn open_configured(
        client: &SessionConfig,
        server: &SessionConfig,
        now_us: u64,
    ) -> Self {
        let mut pair = Self::configured(client, server);
        pair.now_us = now_us;
        pair.client.begin(now_us);
        pair.server.begin(now_us);
        pair.open_now();
        pair
    }

    fn open_now(&mut self) {
        self.drive();
        assert_eq!(self.server_events.pop_front().unwrap().0, Event::Opened);
        assert_eq!(self.client_events.pop_front().unwrap().0, Event::Opened);
        assert!(self.client.is_open() && self.server.is_open());
    }

    /// Carries bytes both ways until neither end has any.
    pub(crate) fn drive(&mut self) {
        self.try_drive().unwrap();
    }

    pub(crate) fn try_drive(&mut self) -> Result<(), SessionError> {
        loop {
            let up = next_piece(&mut self.client, &mut self.client_pieces);
            let down = next_piece(&mut self.server, &mut self.server_pieces);
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
            for piece in up.chunks(self.piece_len) {
                self.feed_server(piece)?;
            }
            for piece in down.chunks(self.piece_len) {
                self.feed_client(piece)?;
            }
        }
    }

    /// Sends frames longer than this in parts, of this length.
    pub(crate) fn in_parts_of(mut self, part_len: usize) -> Self {
        self.client_pieces = Interleaver::new(part_len);
        self.server_pieces = Interleaver::new(part_len);
        self
    }

    /// Lets it be so late, and both ends do what is due.
    pub(crate) fn wait_until(&mut self, now_us: u64) -> Result<(), SessionError> {
        self.now_us = now_us;
        let client = timeout(&mut self.client, now_us, &mut self.client_events);
        timeout(&mut self.server, now_us, &mut self.server_events).and(client)
    }

    /// Gives the server bytes as from its peer.
    pub(crate) fn feed_server(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let (session, events) = (&mut self.server, &mut self.server_events);
        feed(session, &mut self.server_decoder, bytes, self.now_us, events)
    }

    /// Gives the client bytes as from its peer.
    pub(crate) fn feed_client(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let (session, events) = (&mut self.client, &mut self.client_events);
        feed(session, &mut self.client_decoder, bytes, self.now_us, events)
    }

    pub(crate) fn call(&mut self, request: &Blob) -> CallId {
        self.client.call(&mut self.scratch, ECHO, CallOptions::default(), request).unwrap()
    }

    /// Makes a call that is to be answered so soon.
    pub(crate) fn call_within(&mut self, left_us: u64) -> CallId {
        let options = CallOptions {
            deadline_us: Some(self.now_us + left_us),
            now_us: self.now_us,
            ..CallOptions::default()
        };
        self.client.call(&mut self.scratch, ECHO, options, &Blob::new(0, 0)).unwrap()
    }

    /// Makes a call that gets no answer, and gives its number.
    pub(crate) fn one_way(&mut self) -> u64 {
        let (options, blob) = (CallOptions::default(), Blob::new(0, 0));
        self.client.one_way(&mut self.scratch, ECHO, options, &blob).unwrap()
    }

    pub(crate) fn reply<T: Message>(&mut self, call: CallId, reply: &T) {
        self.server.reply(&mut self.scratch, call, &[], reply).unwrap();
    }

    /// The next call that reached the server.
    pub(crate) fn next_call(&mut self) -> (CallId, Body) {
        match self.server_events.pop_front() {
            Some((Event::Call { call, method: ECHO }, body)) => (call, body),
            other => panic!("no call: {other:?}"),
        }
    }

    /// The next reply that reached the client.
    pub(crate) fn next_reply(&mut self) -> (CallId, Body) {
        match self.client_events.pop_front() {
            Some((Event::Reply(call), body)) => (call, body),
            other => panic!("no reply: {other:?}"),
        }
    }

    /// What the server said since it was asked last.
    pub(crate) fn take_server_events(&mut self) -> Vec<Event> {
        self.server_events.drain(..).map(|(event, _)| event).collect()
    }

    /// What the client said since it was asked last.
    pub(crate) fn take_client_events(&mut self) -> Vec<Event> {
        self.client_events.drain(..).map(|(event, _)| event).collect()
    }
}

/// A configuration of these limits, all else the default.
pub(crate) fn config(limits: Limits) -> SessionConfig {
    SessionConfig { limits, ..SessionConfig::default() }
}

/// A configuration of this patience, all else the default.
pub(crate) fn waiting(patience: Patience) -> SessionConfig {
    SessionConfig { patience, ..SessionConfig::default() }
}

/// A client that calls these methods and serves none, with the default configuration.
pub(crate) fn client(methods: &'static [MethodInfo]) -> Session {
    Session::client(&SessionConfig::default(), methods, &[])
}

/// A server of these methods that calls none, with the default configuration.
pub(crate) fn server(methods: &'static [MethodInfo]) -> Session {
    Session::server(&SessionConfig::default(), ShardPlace::default(), &[], methods)
}

fn client_of(config: &SessionConfig, serves: &'static [MethodInfo]) -> Session {
    Session::client(config, METHODS, serves)
}

fn server_of(config: &SessionConfig, calls: &'static [MethodInfo]) -> Session {
    Session::server(config, ShardPlace { index: 2, count: 4 }, calls, METHODS)
}

/// Gives a session bytes, as a transport does.
fn feed(
    session: &mut Session,
    decoder: &mut Decoder<Body>,
    bytes: &[u8],
    now_us: u64,
    events: &mut VecDeque<(Event, Body)>,
) -> Result<(), SessionError> {
    session.handle_bytes(now_us);
    decode_parts(decoder, bytes, |frame| {
        let Some((header, payload)) = frame else {
            session.handle_skipped();
            return Ok(());
        };
        let event = session.handle_frame(header, &payload)?;
        events.push_back((event, payload));
        Ok(())
    })?;
    if !decoder.is_between_frames() {
        session.handle_cut(decoder.cut_len());
    }
    let (missing, announced) = decoder.long_frames();
    session.handle_long_frames(missing, announced);
    Ok(())
}

/// What a session sends next.
fn next_piece(session: &mut Session, pieces: &mut Interleaver) -> Vec<u8> {
    pieces.push(std::mem::take(session.output()));
    let Some(Piece { bytes, range, .. }) = pieces.next_piece() else { return Vec::new() };
    let sent = bytes[range].to_vec();
    pieces.sent(bytes);
    sent
}

fn timeout(
    session: &mut Session,
    now_us: u64,
    events: &mut VecDeque<(Event, Body)>,
) -> Result<(), SessionError> {
    let mut due = Vec::new();
    let outcome = session.handle_timeout(now_us, &mut due);
    events.extend(due.into_iter().map(|event| (event, Body::new())));
    outcome
}

/// Decodes a piece of a stream and hands on each frame, what follows its header copied to where
/// it is aligned.
pub(crate) fn decode(
    decoder: &mut Decoder<Body>,
    input: &[u8],
    mut on_frame: impl FnMut(&Header, Body) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    decode_parts(decoder, input, |frame| {
        frame.map_or(Ok(()), |(header, payload)| on_frame(header, payload))
    })
}

/// The same, and tells of parts that end: as no frame.
fn decode_parts(
    decoder: &mut Decoder<Body>,
    input: &[u8],
    mut on_frame: impl FnMut(Option<(&Header, Body)>) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    let mut at = 0;
    loop {
        match decoder.next(input, &mut at, |_| Ok(Some(Body::new())))? {
            Step::InPlace { header, body } => on_frame(Some((&header, aligned(&input[body]))))?,
            Step::Assembled(partial) => {
                on_frame(Some((&partial.header, aligned(partial.body()))))?;
            }
            Step::Skipped => panic!("no frame is refused by its header"),
            Step::Part => on_frame(None)?,
            Step::More => {
                assert_eq!(at, input.len(), "all of the input is consumed");
                return Ok(());
            }
        }
    }
}

/// The frames in a whole stream.
pub(crate) fn frames_of(stream: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut decoder = Decoder::new(u32::MAX);
    decode(&mut decoder, stream, |header, body| {
        frames.push((*header, body.to_vec()));
        Ok(())
    })
    .unwrap();
    assert!(decoder.is_between_frames());
    frames
}

pub(crate) fn aligned(bytes: &[u8]) -> Body {
    let mut body = Body::with_capacity(bytes.len().max(1));
    body.append(bytes);
    body
}

/// The archive of a message, as it travels.
pub(crate) fn archive<T: Message>(message: &T) -> Body {
    let limits = Limits { frame_len_max: 1 << 30, ..Limits::default() };
    let mut pair = Pair::open_with(limits, limits);
    pair.client.call(&mut pair.scratch, ECHO, CallOptions::default(), message).unwrap();
    let frame = pair.client.output();
    let body_len = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    aligned(&frame[32..32 + body_len])
}

/// A frame of any header over any body, padded.
pub(crate) fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    frame_with(header, &[], body)
}

/// A frame of any header over any metadata and body, padded.
pub(crate) fn frame_with(header: Header, metadata: &[u8], body: &[u8]) -> Vec<u8> {
    let meta_len = u16::try_from(metadata.len() / 16).unwrap();
    let header = Header { body_len: body.len() as u32, meta_len, ..header };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(metadata);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

/// A header of this kind, all else zero that may be.
pub(crate) fn header(kind: Kind) -> Header {
    Header {
        body_len: if kind == Kind::Part { 16 } else { 0 },
        meta_len: 0,
        kind,
        flags: ringcall_codec::Flags::NONE,
        call: CallId(if kind == Kind::Hello { ringcall_codec::MAGIC } else { 0 }),
        code: if kind == Kind::Hello { 0x0001_0001 } else { 0 },
        time_us: 0,
        aux: u32::from(kind == Kind::Credit),
    }
}

pub(crate) fn request(call: CallId) -> Header {
    Header { call, code: ECHO, ..header(Kind::Request) }
}

/// The frames that an open session put out, which are taken.
pub(crate) fn take_frames(session: &mut Session) -> Vec<(Header, Vec<u8>)> {
    let mut frames = frames_of(&[hello(), std::mem::take(session.output())].concat());
    frames.remove(0);
    frames
}

/// A header of this kind and a call, all else zero.
pub(crate) fn of_call(kind: Kind, call: CallId) -> Header {
    Header { call, ..header(kind) }
}

pub(crate) fn response(call: CallId) -> Header {
    Header { call, ..header(Kind::Response) }
}

/// The HELLO of a client, as bytes.
pub(crate) fn hello() -> Vec<u8> {
    client(METHODS).output().clone()
}

/// Marsaglia's xorshift64: the same numbers on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
