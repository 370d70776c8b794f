//! A raw peer: frames written byte by byte, as `docs/wire.md` lays them out, on a blocking socket.
//!
//! Independent of the codec, so that both being wrong in the same way would not look right.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use ringcall::{
    Code, MethodInfo,
    rkyv::{
        Serialize, api::high::HighSerializer, rancor::Error, ser::allocator::ArenaHandle, to_bytes,
        util::AlignedVec,
    },
};
use socket2::{Domain, Socket, Type};

pub(crate) const HELLO: u8 = 1;
pub(crate) const REQUEST: u8 = 2;
pub(crate) const RESPONSE: u8 = 3;
pub(crate) const ONEWAY: u8 = 4;
pub(crate) const ITEM: u8 = 5;
pub(crate) const CREDIT: u8 = 6;
pub(crate) const CANCEL: u8 = 7;
pub(crate) const PING: u8 = 8;
pub(crate) const PONG: u8 = 9;
pub(crate) const GOAWAY: u8 = 10;
pub(crate) const NOTICE: u8 = 11;
pub(crate) const PART: u8 = 12;

/// The flag of a last frame.
pub(crate) const END: u8 = 1;

/// The flag of a status whose handler did not run.
pub(crate) const NOT_EXECUTED: u8 = 2;

/// The flags of a body that is to be unpacked: a checksum behind it, and compressed.
pub(crate) const PACKED: u8 = 0x0c;

/// The flag of a status with details.
pub(crate) const DETAILS: u8 = 0x10;

/// The flag of items and credit from the side that serves the call.
pub(crate) const CALLEE: u8 = 0x20;

/// The flag of a call with which items travel.
pub(crate) const STREAM: u8 = 0x40;

/// The flag of a frame whose payload comes in parts.
pub(crate) const IN_PARTS: u8 = 0x80;

/// Bytes of items that may be on their way at first: of each stream, and of all together.
const WINDOWS: [u32; 2] = [256 << 10, 16 << 20];

/// Versions 1 to 1.
pub(crate) const VERSIONS: u32 = 0x0001_0001;

/// A read that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A frame, every field of it as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) meta_len: u16,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) call: u64,
    pub(crate) code: u32,
    pub(crate) time_us: u32,
    pub(crate) aux: u32,
    pub(crate) check: u32,
    /// The metadata, where there is some, and the body.
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// Header, body and padding.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let metadata_len = usize::from(self.meta_len) * 16;
        let mut bytes = self.declaring(self.body.len().saturating_sub(metadata_len) as u32);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes
    }

    /// A header that declares a length of its own, and the body as it is.
    pub(crate) fn declaring(&self, body_len: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48 + self.body.len());
        bytes.extend(body_len.to_le_bytes());
        bytes.extend(self.meta_len.to_le_bytes());
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.call.to_le_bytes());
        bytes.extend(self.code.to_le_bytes());
        bytes.extend(self.time_us.to_le_bytes());
        bytes.extend(self.aux.to_le_bytes());
        bytes.extend(self.check.to_le_bytes());
        assert_eq!(bytes.len(), 32);
        bytes.extend(&self.body);
        bytes
    }

    /// Whether this answers a call with a status that no handler made, of this code and text.
    #[track_caller]
    pub(crate) fn assert_refusal(&self, call: u64, code: Code, text: &str) {
        let expected = Self { flags: NOT_EXECUTED, aux: self.aux, ..status(call, code, text) };
        assert_eq!(*self, expected, "{}", String::from_utf8_lossy(&self.body));
    }
}

/// The id of a slot's use.
pub(crate) fn call(slot: u32, generation: u32) -> u64 {
    u64::from(slot) | u64::from(generation) << 32
}

pub(crate) fn request(call: u64, method: u32, body: &[u8]) -> Frame {
    Frame { kind: REQUEST, call, code: method, body: body.to_vec(), ..Frame::default() }
}

pub(crate) fn reply(call: u64, body: &[u8]) -> Frame {
    Frame { kind: RESPONSE, call, body: body.to_vec(), ..Frame::default() }
}

pub(crate) fn status(call: u64, code: Code, text: &str) -> Frame {
    Frame { code: code as u32, ..reply(call, text.as_bytes()) }
}

/// The last word of a side.
pub(crate) fn goaway(code: Code, text: &str) -> Frame {
    Frame { flags: END, ..draining(code, text) }
}

/// The announcement that a side takes no more calls.
pub(crate) fn draining(code: Code, text: &str) -> Frame {
    Frame { kind: GOAWAY, code: code as u32, body: text.as_bytes().to_vec(), ..Frame::default() }
}

/// A frame that has no body.
pub(crate) fn plain(kind: u8, call: u64) -> Frame {
    Frame { kind, call, ..Frame::default() }
}

/// The HELLO of a side that serves or calls these methods.
pub(crate) fn hello_with(methods: &[MethodInfo]) -> Frame {
    hello_of(16 << 20, 4096, (0, 0), methods)
}

pub(crate) fn hello() -> Frame {
    hello_with(&[])
}

pub(crate) fn hello_of(
    frame_len: u32,
    calls: u32,
    shard: (u16, u16),
    methods: &[MethodInfo],
) -> Frame {
    let mut methods = methods.to_vec();
    methods.sort_by_key(|method| method.id);
    let mut body = vec![0; 8];
    body.extend(frame_len.to_le_bytes());
    body.extend(calls.to_le_bytes());
    WINDOWS.iter().for_each(|window| body.extend(window.to_le_bytes()));
    body.extend(shard.0.to_le_bytes());
    body.extend(shard.1.to_le_bytes());
    body.extend((methods.len() as u32).to_le_bytes());
    for method in methods {
        body.extend(u64::from(method.id).to_le_bytes());
        body.extend(method.request.to_le_bytes());
        body.extend(method.reply.to_le_bytes());
    }
    Frame {
        kind: HELLO,
        call: u64::from_le_bytes(*b"ringcall"),
        code: VERSIONS,
        body,
        ..Frame::default()
    }
}

/// One end of a connection, driven by the test.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// Frames of which parts are still to come, and the bytes that they lack.
    long: Vec<(u64, Frame, usize)>,
    /// How many came in parts.
    long_count: u64,
}

impl Peer {
    /// Connects, and says nothing yet.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// Connects and exchanges HELLOs.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.send(&hello());
        peer.expect_hello();
        peer
    }

    /// Connects with little room for replies, so that it is the server that has to hold them.
    pub(crate) fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(64 * 1024).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::on(socket.into())
    }

    /// Accepts a client, and says nothing yet.
    pub(crate) fn accept(listener: &TcpListener) -> Self {
        Self::on(listener.accept().unwrap().0)
    }

    /// Accepts a client and exchanges HELLOs, as a server of these methods.
    pub(crate) fn serve(listener: &TcpListener, methods: &[MethodInfo]) -> Self {
        let mut peer = Self::accept(listener);
        peer.expect_hello();
        peer.send(&hello_of(16 << 20, 4096, (0, 1), methods));
        peer
    }

    pub(crate) fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, long: Vec::new(), long_count: 0 }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.bytes());
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends no more; what comes can still be read.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads the next frame, put together where it comes in parts.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Frame {
        loop {
            let frame = self.frame_or_part();
            if frame.flags & IN_PARTS != 0 {
                self.long_count += 1;
                let missing = frame.body.len();
                let (flags, body) = (frame.flags & !IN_PARTS, Vec::with_capacity(missing));
                self.long.push((self.long_count, Frame { flags, body, ..frame }, missing));
            } else if frame.kind == PART {
                let at = self.long.iter().position(|(number, ..)| *number == frame.call).unwrap();
                let (_, long, missing) = &mut self.long[at];
                long.body.extend(&frame.body);
                *missing = missing.checked_sub(frame.body.len()).unwrap();
                if *missing == 0 {
                    return self.long.remove(at).1;
                }
                assert!(frame.body.len().is_multiple_of(16));
            } else {
                return frame;
            }
        }
    }

    /// Reads the next frame as it is, whose padding must be zero. One that comes in parts has a
    /// body of zeros.
    #[track_caller]
    pub(crate) fn frame_or_part(&mut self) -> Frame {
        let mut header = [0; 32];
        self.stream.read_exact(&mut header).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let meta_len = u32_at(4) as u16;
        let body_len = u32_at(0) as usize + usize::from(meta_len) * 16;
        let mut body = vec![0; body_len.next_multiple_of(16)];
        if header[7] & IN_PARTS == 0 {
            self.stream.read_exact(&mut body).unwrap();
        }
        let padding = body.split_off(body_len);
        assert!(padding.iter().all(|byte| *byte == 0), "{padding:?}");
        Frame {
            meta_len,
            kind: header[6],
            flags: header[7],
            call: u64::from_le_bytes(header[8..16].try_into().unwrap()),
            code: u32_at(16),
            time_us: u32_at(20),
            aux: u32_at(24),
            check: u32_at(28),
            body,
        }
    }

    /// Reads the other side's HELLO.
    #[track_caller]
    pub(crate) fn expect_hello(&mut self) -> Frame {
        let frame = self.frame();
        let body = frame.body.clone();
        assert_eq!(frame, Frame { body, ..hello() });
        frame
    }

    /// Reads a GOAWAY of this code and text, and the end of the stream. A reset is no end.
    #[track_caller]
    pub(crate) fn expect_goaway(&mut self, code: Code, text: &str) {
        let frame = self.frame();
        let expected = goaway(code, text);
        assert_eq!(frame, expected, "{}", String::from_utf8_lossy(&frame.body));
        self.expect_end();
    }

    /// Reads the end of the stream. A reset is no end.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("still open"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What makes an archive that stands alone.
pub(crate) type Archiver<'a> = HighSerializer<AlignedVec, ArenaHandle<'a>, Error>;

/// The archive of a message, as it travels.
pub(crate) fn archive(message: &impl for<'a> Serialize<Archiver<'a>>) -> Vec<u8> {
    to_bytes::<Error>(message).unwrap().to_vec()
}

/// Marsaglia's xorshift64: the same numbers on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }
}
