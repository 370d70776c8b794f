//! One call at a time on one connection: the protocol by the codec, and the times of each step.

use std::{fmt, io, net::SocketAddr};

use ringcall::{
    MetadataRef, ServerTimes,
    limits::{FRAME_ALIGN, FRAME_LEN_MAX_DEFAULT, HEADER_LEN},
    rkyv::util::AlignedVec,
};
use ringcall_codec::{
    CallId, CallOptions, Decoder, Event, Header, Scratch, Session, SessionConfig, Step,
};

use super::{
    clock::{RealTime, now_ns},
    socket::{Received, StampedSocket},
    stages::CallTimes,
};
use crate::{
    error::Failure,
    target::{EchoClient, Payload},
    workload::Workload,
};

/// Bytes of a read.
const READ_LEN: usize = 64 * 1024;

/// A connection to a server of the benchmark's echo.
pub(super) struct Caller {
    socket: StampedSocket,
    session: Session,
    decoder: Decoder<AlignedVec<FRAME_ALIGN>>,
    scratch: Scratch,
    /// What each call carries.
    payload: Vec<u8>,
    /// Its archive, which is what comes back. Empty until the first call was made.
    body: Vec<u8>,
    received: Vec<u8>,
    no_stamps: Option<io::Error>,
}

/// What one read has brought.
struct Arrival {
    received: Received,
    /// When this thread had it.
    received_ns: u64,
    /// Where it was the last of the reply that is awaited.
    reply: Option<Reply>,
}

/// The reply that was awaited, and what the server told beside it.
struct Reply {
    times: Option<ServerTimes>,
}

impl Caller {
    /// Connects, exchanges HELLOs, asks the kernel for timestamps and makes a call that is not
    /// measured. Where the kernel refuses, calls have none.
    pub(super) fn connect(address: SocketAddr, size: u32) -> Result<Self, Failure> {
        let refused = |source| Failure::FloorConnect { address, source };
        let socket = StampedSocket::connect(address).map_err(refused)?;
        let workload = Workload { connections: 1, depth: 1, size };
        let mut caller = Self {
            socket,
            session: Session::client(&SessionConfig::default(), EchoClient::METHODS, &[]),
            decoder: Decoder::new(FRAME_LEN_MAX_DEFAULT),
            scratch: Scratch::default(),
            payload: vec![0x5a; workload.payload_len()],
            body: Vec::new(),
            received: vec![0; READ_LEN],
            no_stamps: None,
        };
        caller.open().map_err(|source| super::no_echo(address, source))?;
        Ok(caller)
    }

    fn open(&mut self) -> io::Result<()> {
        self.session.begin(now_us());
        self.send()?;
        while !self.session.is_open() {
            self.read(None)?;
        }
        self.no_stamps = self.socket.begin_stamps().err();
        self.call(now_ns()).map(drop)
    }

    /// Makes a call and waits for its reply.
    pub(super) fn call(&mut self, intended_ns: u64) -> io::Result<CallTimes> {
        self.session.set_now(now_us());
        let method = EchoClient::METHODS.first().map_or(0, |method| method.id);
        let payload = Payload { bytes: &self.payload };
        let options = CallOptions { metadata: ServerTimes::WANTED, ..CallOptions::default() };
        let call = self.session.call(&mut self.scratch, method, options, &payload);
        let call = call.map_err(io::Error::other)?;
        if self.body.is_empty() {
            self.body = body_of(self.session.output())?;
        }
        let sent_ns = now_ns();
        self.send()?;
        let (received, received_ns, server) = loop {
            let Arrival { received, received_ns, reply } = self.read(Some(call))?;
            if let Some(Reply { times }) = reply {
                break (received, received_ns, times);
            }
        };
        self.session.release(call);
        let sent = self.socket.send_stamps();
        let clocks = RealTime::compare();
        let monotonic_ns = |real_ns| clocks.monotonic_ns(real_ns);
        Ok(CallTimes {
            intended_ns,
            sent_ns,
            queued_ns: sent.queued_ns.map(monotonic_ns),
            driver_out_ns: sent.driver_ns.map(monotonic_ns),
            acknowledged_ns: sent.acknowledged_ns.map(monotonic_ns),
            driver_in_ns: received.driver_ns.map(monotonic_ns),
            received_ns,
            server,
            nic_to_nic_ns: sent
                .nic_ns
                .zip(received.nic_ns)
                .and_then(|(out_ns, in_ns)| in_ns.checked_sub(out_ns)),
        })
    }

    /// Why the kernel gives no timestamps, where it refuses to.
    pub(super) fn no_stamps(&self) -> Option<&io::Error> {
        self.no_stamps.as_ref()
    }

    fn send(&mut self) -> io::Result<()> {
        let output = self.session.output();
        self.socket.send(output)?;
        output.clear();
        Ok(())
    }

    /// Reads once.
    fn read(&mut self, awaited: Option<CallId>) -> io::Result<Arrival> {
        let received = self.socket.receive(&mut self.received)?;
        let received_ns = now_ns();
        if received.len == 0 {
            return Err(wrong("it closed the connection"));
        }
        self.session.handle_bytes(now_us());
        let (mut at, mut reply) = (0, None);
        loop {
            let input = &self.received[..received.len];
            let new_buffer = |header: &Header| {
                Ok(Some(
                    AlignedVec::with_capacity(header.whole_len().min(READ_LEN as u64) as usize),
                ))
            };
            let step = self.decoder.next(input, &mut at, new_buffer).map_err(io::Error::other)?;
            let Self { session, body, .. } = self;
            let found = match &step {
                Step::InPlace { header, body: payload } => {
                    outcome_of(session, header, &input[payload.clone()], awaited, body)?
                }
                Step::Assembled(partial) => {
                    outcome_of(session, &partial.header, partial.body(), awaited, body)?
                }
                Step::Skipped | Step::Part => None,
                Step::More => return Ok(Arrival { received, received_ns, reply }),
            };
            reply = found.or(reply);
        }
    }
}

/// What a frame means for the call that is awaited, and is to be answered with this body.
fn outcome_of(
    session: &mut Session,
    header: &Header,
    payload: &[u8],
    awaited: Option<CallId>,
    expected: &[u8],
) -> io::Result<Option<Reply>> {
    match session.handle_frame(header, payload).map_err(io::Error::other)? {
        Event::Reply(call) if awaited == Some(call) => {
            let (metadata, body) = payload.split_at(header.meta_bytes());
            if body != expected {
                return Err(wrong("another body came back"));
            }
            // The session has checked it.
            let metadata = MetadataRef::parse(metadata).unwrap_or(MetadataRef::EMPTY);
            Ok(Some(Reply { times: ServerTimes::of(&metadata) }))
        }
        Event::Failed(_, status) | Event::GoAway(status) | Event::Draining(status) => {
            Err(wrong(status))
        }
        // What the session does by itself.
        _ => Ok(None),
    }
}

/// The body of the request that was just made.
fn body_of(output: &[u8]) -> io::Result<Vec<u8>> {
    let head = output.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    let header = Header::parse(head).map_err(io::Error::other)?;
    let start = HEADER_LEN + header.meta_bytes();
    let body = output.get(start..start + header.body_len as usize);
    Ok(body.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
}

fn wrong(what: impl fmt::Display) -> io::Error {
    io::Error::other(what.to_string())
}

/// The session's time.
fn now_us() -> u64 {
    now_ns() / 1000
}
