//! Two sessions and the bytes between them: what every test of the codec stands on.
//!
//! Messages are derived by hand, since `#[ringcall::message]` is built on this crate.

#![allow(dead_code)]

mod messages;

use std::collections::VecDeque;

use ringcall_codec::{
    CallId, ClientEvent, ClientSession, Decoder, FrameBuffer, Header, Kind, Limits, Message,
    MethodInfo, Scratch, ServerEvent, ServerSession, SessionError, ShardPlace, Step,
};
use rkyv::util::AlignedVec;

pub(crate) use messages::*;

pub(crate) type Body = AlignedVec<16>;

pub(crate) const ECHO: u32 = 0x0000_00ec;
pub(crate) const METHODS: &[MethodInfo] = &[MethodInfo {
    id: ECHO,
    name: "Test.echo",
    request: <Blob as ringcall_codec::Field>::LAYOUT,
    reply: <Blob as ringcall_codec::Field>::LAYOUT,
}];

/// A client and a server, joined by bytes that travel in pieces of `piece_len`.
pub(crate) struct Pair {
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    pub(crate) scratch: Scratch,
    pub(crate) piece_len: usize,
    /// What came out of each end, and the body it came with.
    pub(crate) client_events: VecDeque<(ClientEvent, Body)>,
    pub(crate) server_events: VecDeque<(ServerEvent, Body)>,
    client_decoder: Decoder<Body>,
    server_decoder: Decoder<Body>,
}

impl Pair {
    /// Two sessions that have said nothing yet.
    pub(crate) fn new(client: Limits, server: Limits) -> Self {
        Self {
            client: ClientSession::new(METHODS, client),
            server: ServerSession::new(METHODS, server, ShardPlace { index: 2, count: 4 }),
            scratch: Scratch::default(),
            piece_len: usize::MAX,
            client_events: VecDeque::new(),
            server_events: VecDeque::new(),
            client_decoder: Decoder::new(client.frame_len_max),
            server_decoder: Decoder::new(server.frame_len_max),
        }
    }

    /// Two sessions that are open.
    pub(crate) fn open() -> Self {
        Self::open_with(Limits::default(), Limits::default())
    }

    pub(crate) fn open_with(client: Limits, server: Limits) -> Self {
        let mut pair = Self::new(client, server);
        pair.drive();
        assert_eq!(pair.server_events.pop_front().unwrap().0, ServerEvent::Opened);
        assert_eq!(pair.client_events.pop_front().unwrap().0, ClientEvent::Opened);
        assert!(pair.client.is_open() && pair.server.is_open());
        pair
    }

    /// Carries bytes both ways until neither end has any.
    pub(crate) fn drive(&mut self) {
        self.try_drive().unwrap();
    }

    pub(crate) fn try_drive(&mut self) -> Result<(), SessionError> {
        loop {
            let up = std::mem::take(self.client.output());
            let down = std::mem::take(self.server.output());
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

    /// Gives the server bytes as from its peer.
    pub(crate) fn feed_server(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        decode(&mut self.server_decoder, bytes, |header, body| {
            let event = self.server.handle_frame(header, &body)?;
            self.server_events.push_back((event, body));
            Ok(())
        })
    }

    /// Gives the client bytes as from its peer.
    pub(crate) fn feed_client(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        decode(&mut self.client_decoder, bytes, |header, body| {
            let event = self.client.handle_frame(header, &body)?;
            self.client_events.push_back((event, body));
            Ok(())
        })
    }

    pub(crate) fn call(&mut self, request: &Blob) -> CallId {
        self.client.call(&mut self.scratch, ECHO, request).unwrap()
    }

    pub(crate) fn reply<T: Message>(&mut self, call: CallId, reply: &T) {
        self.server.reply(&mut self.scratch, call, reply).unwrap();
    }

    /// The next call that reached the server.
    pub(crate) fn next_call(&mut self) -> (CallId, Body) {
        match self.server_events.pop_front() {
            Some((ServerEvent::Call { call, method: ECHO }, body)) => (call, body),
            other => panic!("no call: {other:?}"),
        }
    }

    /// The next reply that reached the client.
    pub(crate) fn next_reply(&mut self) -> (CallId, Body) {
        match self.client_events.pop_front() {
            Some((ClientEvent::Reply(call), body)) => (call, body),
            other => panic!("no reply: {other:?}"),
        }
    }
}

/// Decodes a piece of a stream and hands on each frame, its body copied to where it is aligned.
pub(crate) fn decode(
    decoder: &mut Decoder<Body>,
    input: &[u8],
    mut on_frame: impl FnMut(&Header, Body) -> Result<(), SessionError>,
) -> Result<(), SessionError> {
    let mut at = 0;
    loop {
        match decoder.next(input, &mut at, |_| Ok(Body::new()))? {
            Step::InPlace { header, body } => on_frame(&header, aligned(&input[body]))?,
            Step::Assembled(partial) => on_frame(&partial.header, aligned(partial.body()))?,
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
    pair.client.call(&mut pair.scratch, ECHO, message).unwrap();
    let frame = pair.client.output();
    let body_len = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    aligned(&frame[32..32 + body_len])
}

/// A frame of any header over any body, padded.
pub(crate) fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    let header = Header { body_len: body.len() as u32, ..header };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

/// A header of this kind, all else zero.
pub(crate) fn header(kind: Kind) -> Header {
    Header {
        body_len: 0,
        kind,
        flags: ringcall_codec::Flags::NONE,
        call: CallId(if kind == Kind::Hello { ringcall_codec::MAGIC } else { 0 }),
        code: if kind == Kind::Hello { 0x0001_0001 } else { 0 },
        time_us: 0,
        aux: 0,
    }
}

pub(crate) fn request(call: CallId) -> Header {
    Header { call, code: ECHO, ..header(Kind::Request) }
}

pub(crate) fn response(call: CallId) -> Header {
    Header { call, ..header(Kind::Response) }
}

/// The HELLO of a client, as bytes.
pub(crate) fn hello() -> Vec<u8> {
    ClientSession::new(METHODS, Limits::default()).output().clone()
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
