//! A caller that decides which byte it sends when: the client's half of the protocol on a
//! blocking socket.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use ringcall::{Limits, Message, MethodInfo};
use ringcall_codec::{ClientEvent, ClientSession, Decoder, FrameBuffer, Scratch, Step, access};

/// A connection whose sends and receives are the test's.
pub struct Caller {
    pub stream: TcpStream,
    session: ClientSession,
    scratch: Scratch,
    decoder: Decoder<Frame>,
    received: Vec<u8>,
    at: usize,
}

/// A frame put together from parts. Aligned as a body must be.
struct Frame(ringcall::rkyv::util::AlignedVec<16>);

impl FrameBuffer for Frame {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn filled(&self) -> &[u8] {
        &self.0
    }
}

impl Caller {
    /// Connects and exchanges HELLOs.
    pub fn connect(address: SocketAddr, methods: &'static [MethodInfo]) -> Self {
        Self::on(TcpStream::connect(address).unwrap(), methods)
    }

    /// Exchanges HELLOs on a connection.
    pub fn on(stream: TcpStream, methods: &'static [MethodInfo]) -> Self {
        stream.set_nodelay(true).unwrap();
        let limits = Limits::default();
        let mut caller = Self {
            stream,
            session: ClientSession::new(methods, limits),
            scratch: Scratch::default(),
            decoder: Decoder::new(limits.frame_len_max),
            received: Vec::new(),
            at: 0,
        };
        let hello = std::mem::take(caller.session.output());
        caller.stream.write_all(&hello).unwrap();
        assert_eq!(caller.event().0, ClientEvent::Opened);
        caller
    }

    /// The frame of a call, to be sent by the test.
    pub fn frame<Q: Message>(&mut self, method: u32, request: &Q) -> Vec<u8> {
        self.session
            .call(&mut self.scratch, method, request)
            .unwrap();
        std::mem::take(self.session.output())
    }

    /// The next reply, which must be one.
    pub fn reply<R: Message, T>(&mut self, read: impl FnOnce(&R::Archived) -> T) -> T {
        let (event, body) = self.event();
        match event {
            ClientEvent::Reply(call) => self.session.release(call),
            event => panic!("no reply: {event:?}"),
        }
        read(access::<R>(&body).unwrap())
    }

    /// What the next frame means, and its body.
    pub fn event(&mut self) -> (ClientEvent, ringcall::rkyv::util::AlignedVec<16>) {
        loop {
            let take = |_| Frame(ringcall::rkyv::util::AlignedVec::new());
            let step = self.decoder.next(&self.received, &mut self.at, take);
            let mut aligned = ringcall::rkyv::util::AlignedVec::new();
            let header = match step.unwrap() {
                Step::InPlace { header, body } => {
                    aligned.extend_from_slice(&self.received[body]);
                    header
                }
                Step::Assembled(partial) => {
                    aligned.extend_from_slice(partial.body());
                    partial.header
                }
                Step::More => {
                    self.receive();
                    continue;
                }
            };
            let event = self.session.handle_frame(&header, &aligned).unwrap();
            return (event, aligned);
        }
    }

    fn receive(&mut self) {
        self.received.resize(64 * 1024, 0);
        self.at = 0;
        let received = self.stream.read(&mut self.received).unwrap();
        assert!(received > 0, "the server closed the connection");
        self.received.truncate(received);
    }
}
