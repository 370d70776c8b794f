//! What the micro-benchmarks share: messages, two sessions and the bytes between them.
//!
//! `cargo bench -p ringcall-benches` runs them all. They measure single steps of a call, in
//! memory; what a call costs over a socket is measured by `ringcall-perf`. `alignment/` is a
//! crate of its own, since it builds `rkyv` with other features.

mod messages;

use ringcall_codec::{
    CallId, CallOptions, Decoder, Event, Flags, Header, Kind, Limits, Message, MethodInfo, Scratch,
    Session, SessionConfig, ShardPlace, Step, access, limits::HEADER_LEN,
};
use rkyv::util::AlignedVec;

pub use messages::{ArchivedBlob, ArchivedOrder, Blob, Order};

/// A buffer as the ring fills it: 16-aligned.
pub type Buffer = AlignedVec<16>;

/// A client and a server whose connection is open, and what one round trip needs.
pub struct Pair {
    client: Session,
    server: Session,
    scratch: Scratch,
    to_client: Wire,
    to_server: Wire,
}

/// One direction: the bytes on their way, and the decoder at their end.
struct Wire {
    received: Buffer,
    decoder: Decoder<Buffer>,
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// Opens a connection.
    pub fn new() -> Self {
        let config = SessionConfig::default();
        let place = ShardPlace { index: 0, count: 1 };
        let mut pair = Self {
            client: Session::client(&config, METHODS, &[]),
            server: Session::server(&config, place, &[], METHODS),
            scratch: Scratch::default(),
            to_client: Wire::new(),
            to_server: Wire::new(),
        };
        let (header, body) = pair.to_server.carry(pair.client.output());
        let opened = pair.server.handle_frame(&header, body);
        assert_eq!(opened, Ok(Event::Opened));
        let (header, body) = pair.to_client.carry(pair.server.output());
        let opened = pair.client.handle_frame(&header, body);
        assert_eq!(opened, Ok(Event::Opened));
        pair
    }

    /// Encodes a request, and gives its frame's length. Its slot is freed by a response that
    /// nobody encoded.
    #[inline(never)]
    pub fn encode<T: Message>(&mut self, message: &T) -> usize {
        let call = self.call(message);
        let frame_len = self.client.output().len();
        self.client.output().clear();
        let response = Header {
            body_len: 0,
            meta_len: 0,
            kind: Kind::Response,
            flags: Flags::NONE,
            call,
            code: 0,
            time_us: 0,
            aux: 0,
        };
        let event = self.client.handle_frame(&response, &[]);
        assert_eq!(event, Ok(Event::Reply(call)));
        self.client.release(call);
        frame_len
    }

    /// Makes a call, answers it with the same message and takes the reply: every step of the
    /// codec in both directions.
    ///
    /// The bytes are copied from one end to the other, as the kernel does.
    #[inline(never)]
    pub fn round_trip<T: Message>(&mut self, message: &T, read: fn(&T::Archived)) {
        let made = self.call(message);
        let (header, body) = self.to_server.carry(self.client.output());
        let Ok(Event::Call { call, method: ECHO }) = self.server.handle_frame(&header, body) else {
            unreachable!("a request was sent");
        };
        check::<T>(body, read);
        let replied = self.server.reply(&mut self.scratch, call, &[], message);
        assert_eq!(replied, Ok(()));
        let (header, body) = self.to_client.carry(self.server.output());
        let event = self.client.handle_frame(&header, body);
        assert_eq!(event, Ok(Event::Reply(made)));
        check::<T>(body, read);
        self.client.release(made);
    }

    #[inline(always)]
    fn call<T: Message>(&mut self, message: &T) -> CallId {
        match self.client.call(&mut self.scratch, ECHO, CallOptions::default(), message) {
            Ok(call) => call,
            Err(_) => unreachable!("a slot is free and the message short"),
        }
    }
}

impl Wire {
    fn new() -> Self {
        Self { received: Buffer::new(), decoder: Decoder::new(Limits::default().frame_len_max) }
    }

    /// Carries one frame from an output to the other end.
    #[inline]
    fn carry(&mut self, output: &mut Vec<u8>) -> (Header, &[u8]) {
        self.received.clear();
        self.received.extend_from_slice(output);
        output.clear();
        let step = self.decoder.next(&self.received, &mut 0, |_| Ok(Some(Buffer::new())));
        let Ok(Step::InPlace { header, body }) = step else {
            unreachable!("the frame is whole");
        };
        (header, &self.received[body])
    }
}

/// Validates a body and reads it.
#[inline]
fn check<T: Message>(body: &[u8], read: fn(&T::Archived)) {
    match access::<T>(body) {
        Ok(message) => read(message),
        Err(_) => unreachable!("the body is an archive"),
    }
}

/// The frames of `count` requests, one behind the other, as a client sends them.
pub fn requests<T: Message>(message: &T, count: u32) -> Buffer {
    let mut pair = Pair::new();
    for _ in 0..count {
        pair.call(message);
    }
    let mut frames = Buffer::new();
    frames.extend_from_slice(pair.client.output());
    frames
}

/// A message's archive.
pub fn archive<T: Message>(message: &T) -> Buffer {
    let frame = requests(message, 1);
    let Ok(Some(header)) = frame.first_chunk().map(Header::parse).transpose() else {
        unreachable!("a frame was encoded");
    };
    let mut body = Buffer::new();
    body.extend_from_slice(&frame[HEADER_LEN..HEADER_LEN + header.body_len as usize]);
    body
}

/// A decoder that has seen a HELLO.
pub fn open_decoder() -> Decoder<Buffer> {
    Pair::new().to_server.decoder
}

/// The id of the one method.
pub const ECHO: u32 = 1;

const METHODS: &[MethodInfo] = &[MethodInfo::unary(ECHO, "Bench.echo", 1, 1)];
