//! A raw echo on epoll: what non-blocking sockets cost when nothing is done with the bytes.
//!
//! The floor of every system here that waits with epoll, as the io_uring echo of ringcall-perf is
//! ringcall's. No frames, no calls: the server sends back whatever has arrived, a read and a write
//! for each socket that is ready; the client counts bytes, and keeps as many bodies in flight as
//! the workload has calls. Level-triggered, `TCP_NODELAY`, one buffer for all sockets of a side.
//! Nothing stands between two bodies, so that its messages are shorter than anyone else's.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use ringcall_perf::generator::{Clock, Latencies, Recorder, Timing};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
};

use super::PeerError;
use crate::{
    client::{ANSWER_MAX, ClientThread, FILL},
    cores,
    error::Failure,
    measure::ClientFigures,
    workload::Workload,
};

/// Bytes that are read at once.
const BUFFER_LEN: usize = 256 << 10;

/// Sockets that are taken from epoll at once.
const EVENTS_MAX: usize = 1024;

/// Longest wait for a socket, after which a client looks at the clock.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Not a connection's number: the listener's, and that of the stream that ends the server.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// An epoll instance and what it tells.
struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// A connection of the server.
struct Served {
    stream: TcpStream,
    /// What has arrived and could not be sent back yet; nothing is read until it is.
    pending: Vec<u8>,
}

/// A connection of the client.
struct Loaded {
    stream: TcpStream,
    /// Bytes to be sent.
    owed: usize,
    /// Whether it waits until the socket can be written to.
    is_blocked: bool,
    /// Bytes of the body that is being received.
    partial: usize,
    /// Bodies in flight with when they were sent, those that were so at once together, oldest first.
    bursts: VecDeque<(u64, usize)>,
}

/// Serves until the other end of `stop` is closed.
pub(super) fn serve(listener: TcpListener, _: Workload, stop: UnixStream) -> Result<(), PeerError> {
    let mut poll = Poll::new()?;
    listener.set_nonblocking(true)?;
    epoll::add(&poll.epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&poll.epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
    let mut connections: Vec<Option<Served>> = Vec::new();
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        poll.wait(None)?;
        for event in &poll.events {
            match event.data.u64() {
                STOP => return Ok(()),
                LISTENER => {
                    let (stream, _) = listener.accept()?;
                    poll.watch(&stream, connections.len())?;
                    connections.push(Some(Served { stream, pending: Vec::new() }));
                }
                index => {
                    let Some(slot) = connections.get_mut(index as usize) else { continue };
                    let Some(connection) = slot else { continue };
                    // Closed, or broken, which the client has noticed too.
                    if !connection.echo(&mut buffer, &poll.epoll, index).unwrap_or(false) {
                        *slot = None;
                    }
                }
            }
        }
    }
}

impl Served {
    /// Sends back what has arrived. False when the peer has closed.
    fn echo(&mut self, buffer: &mut [u8], epoll: &OwnedFd, index: u64) -> io::Result<bool> {
        if !self.pending.is_empty() {
            let sent = written(&mut self.stream, &self.pending)?;
            self.pending.drain(..sent);
            if self.pending.is_empty() {
                epoll::modify(epoll, &self.stream, EventData::new_u64(index), EventFlags::IN)?;
            }
            return Ok(true);
        }
        let len = match self.stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let sent = written(&mut self.stream, &buffer[..len])?;
        if sent < len {
            self.pending.extend_from_slice(&buffer[sent..len]);
            epoll::modify(epoll, &self.stream, EventData::new_u64(index), EventFlags::OUT)?;
        }
        Ok(true)
    }
}

/// Runs the client's side, as `client::run` does for calls.
pub(super) fn call(thread: &ClientThread) -> Result<ClientFigures, Failure> {
    thread.core.map_or(Ok(()), cores::pin)?;
    let mut load = Load::connect(thread).map_err(|source| thread.failed(source))?;
    let window = thread.pass_gate()?;
    let begun = load.begin(thread.workload.depth as usize);
    begun.map_err(|source| thread.failed(source))?;
    let mut record = Recorder::closed()?;
    let until = |load: &mut Load, record: &mut Recorder, end_ns| {
        while load.clock.now_ns() < end_ns {
            load.turn(record).map_err(|source| thread.failed(source))?;
        }
        Ok::<_, Failure>(())
    };
    until(&mut load, &mut record, window.start_ns)?;
    record.clear();
    let start_ns = load.clock.now_ns();
    until(&mut load, &mut record, window.end_ns)?;
    let elapsed = Duration::from_nanos(load.clock.now_ns() - start_ns);
    let bounds = Latencies::new()?;
    let (errors, first_error, offered_per_s) = (0, None, None);
    Ok(ClientFigures { record, bounds, errors, first_error, elapsed, offered_per_s })
}

/// All connections of a client.
struct Load {
    clock: Clock,
    poll: Poll,
    connections: Vec<Loaded>,
    body_len: usize,
    buffer: Vec<u8>,
    /// Any part of it is as good as another.
    bodies: Vec<u8>,
}

impl Load {
    fn connect(thread: &ClientThread) -> io::Result<Self> {
        let poll = Poll::new()?;
        let body_len = thread.workload.body_len();
        let mut connections = Vec::new();
        for index in 0..thread.workload.connections as usize {
            let mut stream = TcpStream::connect_timeout(&thread.address, ANSWER_MAX)?;
            check(&mut stream, body_len)?;
            poll.watch(&stream, index)?;
            let bursts = VecDeque::with_capacity(thread.workload.depth as usize);
            connections.push(Loaded { stream, owed: 0, is_blocked: false, partial: 0, bursts });
        }
        let bodies = vec![FILL; BUFFER_LEN];
        let (clock, buffer) = (Clock::new(), vec![0; BUFFER_LEN]);
        Ok(Self { clock, poll, connections, body_len, buffer, bodies })
    }

    /// Sends `depth` bodies on each connection.
    fn begin(&mut self, depth: usize) -> io::Result<()> {
        let now_ns = self.clock.now_ns();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.owed = depth * self.body_len;
            connection.bursts.push_back((now_ns, depth));
            connection.send(&self.bodies, &self.poll.epoll, index as u64)?;
        }
        Ok(())
    }

    /// Waits, takes what has arrived, and sends as many bodies as are complete.
    fn turn(&mut self, record: &mut Recorder) -> io::Result<()> {
        self.poll.wait(Some(&WAIT_MAX))?;
        let now_ns = self.clock.now_ns();
        for event in &self.poll.events {
            // The kernel's event is packed: its fields are copied out.
            let (index, flags) = ({ event.data }.u64(), { event.flags });
            let Some(connection) = self.connections.get_mut(index as usize) else { continue };
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                connection.receive(&mut self.buffer, self.body_len, now_ns, record)?;
            }
            if connection.owed > 0 {
                connection.send(&self.bodies, &self.poll.epoll, index)?;
            }
        }
        Ok(())
    }
}

impl Loaded {
    /// Takes what has arrived, records the bodies that are complete, and owes as many.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        body_len: usize,
        now_ns: u64,
        record: &mut Recorder,
    ) -> io::Result<()> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.partial += len;
        let mut complete = self.partial / body_len;
        self.partial %= body_len;
        if complete == 0 {
            return Ok(());
        }
        self.owed += complete * body_len;
        self.bursts.push_back((now_ns, complete));
        while let Some((sent_ns, in_flight)) = self.bursts.front_mut().filter(|_| complete > 0) {
            let arrived = complete.min(*in_flight);
            let (due_ns, free_ns, sent_ns) = (*sent_ns, *sent_ns, *sent_ns);
            let timing = Timing { due_ns, free_ns, sent_ns, done_ns: now_ns };
            (0..arrived).for_each(|_| record.record(timing));
            complete -= arrived;
            *in_flight -= arrived;
            if *in_flight == 0 {
                self.bursts.pop_front();
            }
        }
        Ok(())
    }

    /// Sends what is owed, as far as the socket takes it.
    fn send(&mut self, bodies: &[u8], epoll: &OwnedFd, index: u64) -> io::Result<()> {
        while self.owed > 0 {
            let wanted = self.owed.min(bodies.len());
            let sent = written(&mut self.stream, &bodies[..wanted])?;
            self.owed -= sent;
            if sent < wanted {
                break;
            }
        }
        let is_blocked = self.owed > 0;
        if is_blocked != self.is_blocked {
            self.is_blocked = is_blocked;
            let flags = if is_blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, &self.stream, EventData::new_u64(index), flags)?;
        }
        Ok(())
    }
}

impl Poll {
    fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Tells from now on when there is something to read.
    fn watch(&self, stream: &TcpStream, index: usize) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let index = EventData::new_u64(index as u64);
        Ok(epoll::add(&self.epoll, stream, index, EventFlags::IN)?)
    }

    /// Waits until a socket is ready, or for so long.
    fn wait(&mut self, at_most: Option<&Timespec>) -> io::Result<()> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), at_most) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Writes as much as the socket takes.
fn written(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// Sends a body that tells its places apart, and looks whether it comes back.
fn check(stream: &mut TcpStream, body_len: usize) -> io::Result<()> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let body: Vec<u8> = (0..body_len).map(|place| place as u8).collect();
    let mut answer = vec![0; body_len];
    let mut writer = stream.try_clone()?;
    // Both at once: a long body does not fit into what two sockets hold.
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| writer.write_all(&body));
        stream.read_exact(&mut answer)?;
        sent.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    })?;
    if answer == body { Ok(()) } else { Err(io::Error::other("another body came back")) }
}
