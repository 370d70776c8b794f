//! The floor's client, for a floor or a server of ringcall: keeps frames in flight on each
//! connection and waits for as many bytes.
//!
//! The same closed loop as ringcall's: each frame that is complete is followed by the next. It
//! reads the clock when bytes have arrived and when frames are sent, once a turn each, and
//! records each frame. It sends from frames made beforehand, and looks at no byte that it receives
//! while it measures.

use std::{
    collections::VecDeque,
    io, mem,
    net::TcpStream,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use ringcall::{
    SEND_BUFFER_MAX_DEFAULT, ShardCounters,
    ring::{Completion, Event, Socket},
};

use super::{
    Turns, Whole,
    frames::{self, CallIds},
};
use crate::{
    cores,
    error::Failure,
    load::ClientThread,
    measure::{Latencies, ThreadFigures, thread_cpu_ns},
};

/// Time within which a server must connect, and answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Everything that a client thread has.
struct Client {
    turns: Turns,
    connections: Vec<Connection>,
    frame_len: usize,
    latencies: Latencies,
    /// Connections with frames to send.
    dirty: Vec<usize>,
    /// Kept for its capacity.
    completions: Vec<Completion>,
    counters: ShardCounters,
}

struct Connection {
    socket: Socket,
    /// As many frames as are sent at once; a send of fewer begins further back. None while a
    /// send has it.
    frames: Option<Vec<u8>>,
    /// What is written into frames that are calls.
    calls: Option<CallIds>,
    /// Frames to be sent.
    owed: usize,
    /// Frames in flight, those that were sent at once together, oldest first.
    bursts: VecDeque<(Instant, usize)>,
    /// Bytes of the frame that is being received.
    partial: usize,
    /// Set where frames are longer than a pool buffer.
    whole: Option<Whole>,
}

/// Runs a client thread: connects, keeps frames in flight until the window closes, and gives its
/// figures.
pub(crate) fn run(thread: &ClientThread) -> Result<ThreadFigures, Failure> {
    cores::pin(thread.core).map_err(|source| Failure::Pin { core: thread.core, source })?;
    let io_failure = |source| Failure::Io { target: thread.target, side: "client", source };
    let mut client = Client::connect(thread)?;
    let window = thread.gate.pass()?;
    client.begin(thread.workload.depth as usize);
    while Instant::now() < window.start && !thread.gate.is_given_up() {
        client.turn().map_err(io_failure)?;
    }
    client.latencies.clear();
    let start = Instant::now();
    let before = client.counters();
    let mut now = start;
    while now < window.end && !thread.gate.is_given_up() {
        now = client.turn().map_err(io_failure)?;
    }
    let elapsed = start.elapsed();
    let counters = client.counters().since(&before);
    let latencies = mem::replace(&mut client.latencies, Latencies::new()?);
    if !thread.gate.is_given_up() {
        client.drain().map_err(io_failure)?;
        client.check().map_err(|source| no_echo(thread, source))?;
    }
    Ok(ThreadFigures { elapsed, counters, latencies, errors: 0, first_error: None })
}

fn no_echo(thread: &ClientThread, source: io::Error) -> Failure {
    Failure::NoEcho { address: thread.address, target: thread.target, source }
}

impl Client {
    fn connect(thread: &ClientThread) -> Result<Self, Failure> {
        let frame_len = thread.workload.frame_len();
        let turns = Turns::new(thread.spin)?;
        let is_large = frame_len > turns.ring.pool().buffer_len();
        let at_once =
            (SEND_BUFFER_MAX_DEFAULT / frame_len).clamp(1, thread.workload.depth as usize);
        let mut connections = Vec::new();
        for _ in 0..thread.connections {
            if thread.gate.is_given_up() {
                return Err(Failure::Interrupted);
            }
            let address = thread.address;
            let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)
                .map_err(|source| Failure::FloorConnect { address, source })?;
            let opened = frames::open(&mut stream, thread.target, thread.workload, ANSWER_MAX);
            let (frame, mut calls) = opened.map_err(|source| no_echo(thread, source))?;
            let mut frames = frame.repeat(at_once);
            check(&mut stream, &mut frames[..frame_len], calls.as_mut())
                .map_err(|source| no_echo(thread, source))?;
            connections.push(Connection {
                socket: Rc::new(OwnedFd::from(stream)),
                frames: Some(frames),
                calls,
                owed: 0,
                bursts: VecDeque::with_capacity(thread.workload.depth as usize),
                partial: 0,
                whole: is_large.then(|| Whole::new(frame_len, 0)),
            });
        }
        Ok(Self {
            turns,
            dirty: Vec::with_capacity(connections.len()),
            connections,
            frame_len,
            latencies: Latencies::new()?,
            completions: Vec::with_capacity(1024),
            counters: ShardCounters::default(),
        })
    }

    /// Begins to receive on each connection, and to send `depth` frames.
    fn begin(&mut self, depth: usize) {
        let ring = &mut self.turns.ring;
        for (token, connection) in (0..).zip(&self.connections) {
            match &connection.whole {
                Some(whole) => {
                    let buffer = ring.owned().take(self.frame_len);
                    whole.receive(ring, &connection.socket, token, buffer);
                }
                None => {
                    ring.recv_multishot(&connection.socket, token);
                }
            }
        }
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.owed = depth;
            self.dirty.push(index);
        }
        self.send_owed(Instant::now());
    }

    /// Waits, takes what has arrived, and sends as many frames as are complete. Gives the time
    /// at which it arrived.
    fn turn(&mut self) -> io::Result<Instant> {
        let now = self.receive()?;
        if !self.dirty.is_empty() {
            self.send_owed(Instant::now());
        }
        Ok(now)
    }

    /// Waits and takes what has arrived. Gives the time at which it did.
    #[inline]
    fn receive(&mut self) -> io::Result<Instant> {
        self.turns.wait()?;
        let mut completions = mem::take(&mut self.completions);
        self.turns.ring.drain(&mut completions);
        let now = Instant::now();
        for completion in completions.drain(..) {
            self.handle(completion, now)?;
        }
        self.completions = completions;
        Ok(now)
    }

    #[inline]
    fn handle(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let Completion { token, event, .. } = completion;
        let index = token as usize;
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        match event {
            Event::Received { result, more } => {
                match result {
                    Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(Some(bytes)) => {
                        let len = bytes.len();
                        // Back to the kernel with it, before anything else.
                        drop(bytes);
                        self.counters.bytes_received += len as u64;
                        connection.partial += len;
                        let frames = connection.partial / self.frame_len;
                        connection.partial %= self.frame_len;
                        self.complete(index, frames, now);
                    }
                    Err(error) if is_no_buffers(&error) => self.counters.buffers_exhausted += 1,
                    Err(error) => return Err(error),
                }
                if !more {
                    let socket = &self.connections[index].socket;
                    self.turns.ring.recv_multishot(socket, token);
                }
            }
            Event::ReceivedInto { result, buffer } => {
                let len = result?;
                let Some(whole) = connection.whole.as_mut().filter(|_| len > 0) else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                self.counters.bytes_received += len as u64;
                let is_complete = whole.received(len).is_some();
                whole.receive(&mut self.turns.ring, &connection.socket, token, buffer);
                self.complete(index, usize::from(is_complete), now);
            }
            Event::Sent { result, bytes, from } => {
                let sent = result?;
                self.counters.bytes_sent += sent as u64;
                if from + sent < bytes.len() {
                    self.counters.sends += 1;
                    self.turns.ring.send(&connection.socket, token, bytes, from + sent);
                    return Ok(());
                }
                connection.frames = Some(bytes);
                if connection.owed > 0 {
                    self.dirty.push(index);
                }
            }
            // It starts no such operation.
            Event::SentShared { .. } | Event::Accepted { .. } | Event::Connected { .. } => {}
        }
        Ok(())
    }

    /// Records frames that have arrived, and owes as many.
    #[inline]
    fn complete(&mut self, index: usize, mut frames: usize, now: Instant) {
        let connection = &mut self.connections[index];
        if frames == 0 {
            return;
        }
        if connection.owed == 0 && connection.frames.is_some() {
            self.dirty.push(index);
        }
        connection.owed += frames;
        while frames > 0 {
            let Some((sent, in_flight)) = connection.bursts.front_mut() else {
                return;
            };
            let arrived = frames.min(*in_flight);
            for _ in 0..arrived {
                self.latencies.record(now - *sent);
            }
            frames -= arrived;
            *in_flight -= arrived;
            if *in_flight == 0 {
                connection.bursts.pop_front();
            }
        }
    }

    /// One send for each connection that owes frames and has none under way.
    #[inline]
    fn send_owed(&mut self, now: Instant) {
        for index in self.dirty.drain(..) {
            let connection = &mut self.connections[index];
            let Some(mut frames) = connection.frames.take() else {
                continue;
            };
            let count = connection.owed.min(frames.len() / self.frame_len);
            connection.owed -= count;
            connection.bursts.push_back((now, count));
            let from = frames.len() - count * self.frame_len;
            if let Some(calls) = &mut connection.calls {
                calls.number(&mut frames[from..], self.frame_len);
            }
            self.counters.sends += 1;
            self.turns.ring.send(&connection.socket, index as u64, frames, from);
        }
    }

    /// Waits for what is in flight, and sends no more.
    fn drain(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        let is_busy = |it: &Connection| !it.bursts.is_empty() || it.frames.is_none();
        while self.connections.iter().any(is_busy) {
            if self.receive()? > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Looks at one answer more, when nothing is in flight.
    fn check(self) -> io::Result<()> {
        let Self { turns, mut connections, frame_len, .. } = self;
        // The receives that stand end with the ring.
        drop(turns);
        let Some(Connection { socket, frames: Some(frames), calls, .. }) = connections.first_mut()
        else {
            return Ok(());
        };
        let mut stream = TcpStream::from(socket.try_clone()?);
        check(&mut stream, &mut frames[..frame_len], calls.as_mut())
    }

    fn counters(&self) -> ShardCounters {
        let mut counters = self.counters;
        counters.enters = self.turns.ring.enters();
        counters.cq_overflows = self.turns.ring.cq_overflows();
        counters.parks = self.turns.parks;
        counters.cpu_ns = thread_cpu_ns();
        counters
    }
}

fn is_no_buffers(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::NOBUFS)
}

/// Sends a frame that the server has not seen, and looks whether the right one comes back.
fn check(stream: &mut TcpStream, frame: &mut [u8], calls: Option<&mut CallIds>) -> io::Result<()> {
    let is_call = calls.is_some();
    if let Some(calls) = calls {
        calls.number(frame, frame.len());
    }
    frames::check(stream, frame, is_call)
}
