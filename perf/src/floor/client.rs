//! The floor's client, for a floor or a server of ringcall: keeps frames in flight on each
//! connection and waits for as many bytes.
//!
//! The same loops as ringcall's client. Closed: each frame that is complete is followed by the
//! next. Open: frames are sent when they are due, on each connection in turn, and the thread never
//! sleeps. It reads the clock when bytes have arrived and when frames are sent, once a turn each,
//! and records each frame. It sends from frames made beforehand, and looks at no byte that it
//! receives while it measures.

use std::{
    collections::VecDeque, io, iter::repeat_n, mem, net::TcpStream, os::fd::OwnedFd, rc::Rc,
    time::Duration,
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
    extras::Extras,
    gate::{ThreadEnd, Tick},
    generator::{Clock, Recorder, Schedule, Timing, Unanswered},
    load::{ClientThread, Pace},
    measure::thread_cpu_ns,
};

/// Time within which a server must connect, and answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Everything that a client thread has.
struct Client {
    turns: Turns,
    connections: Vec<Connection>,
    frame_len: usize,
    clock: Clock,
    recorder: Box<Recorder>,
    /// What is due, where the load is open.
    open: Option<OpenLoad>,
    /// Connections with frames to send.
    dirty: Vec<usize>,
    /// Kept for its capacity.
    completions: Vec<Completion>,
    counters: ShardCounters,
}

/// Frames that are due at a time.
struct OpenLoad {
    schedule: Schedule,
    /// Most frames in flight on a connection.
    depth: usize,
    /// The connection whose turn it was.
    turn: usize,
    /// When there was last no room for one more: whatever was due by then waited for it.
    full_ns: u64,
    /// When one came back last.
    freed_ns: u64,
}

/// Frames that were sent at once and are alike in all times.
struct Burst {
    due_ns: u64,
    free_ns: u64,
    sent_ns: u64,
    frames: usize,
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
    /// The same with their times, oldest first.
    due: VecDeque<Burst>,
    /// Frames in flight, oldest first.
    bursts: VecDeque<Burst>,
    /// How many they are, with those to be sent.
    in_flight: usize,
    /// Bytes of the frame that is being received.
    partial: usize,
    /// Set where frames are longer than a pool buffer.
    whole: Option<Whole>,
}

/// Runs a client thread: connects, keeps frames in flight until it is over. No call fails here
/// without the run.
pub(crate) fn run(thread: &ClientThread) -> Result<ThreadEnd, Failure> {
    cores::pin(thread.core).map_err(|source| Failure::Pin { core: thread.core, source })?;
    let io_failure = |source| Failure::Io { target: thread.target, side: "client", source };
    let mut client = Client::connect(thread)?;
    let grid = thread.gate.pass()?;
    // What connecting cost is no call's.
    let begun = client.counters();
    let measuring_ns = grid.measuring_ns();
    if let Some(open) = &mut client.open {
        open.schedule.begin(measuring_ns, measuring_ns - grid.begin_ns);
    }
    client.begin(thread.workload.depth as usize);
    let is_open = thread.plan.pace.is_open();
    for number in 0.. {
        let end_ns = grid.end_of(number);
        let mut now_ns = 0;
        while now_ns < end_ns && !thread.gate.is_over() {
            now_ns = client.turn().map_err(io_failure)?;
        }
        if thread.gate.is_over() {
            break;
        }
        let recorder = mem::replace(&mut client.recorder, thread.gate.recorder(is_open)?);
        let (ended_ns, counters) = (client.clock.now_ns(), client.counters().since(&begun));
        let (errors, slow_calls, unanswered) = (0, 0, client.unanswered());
        let tick = Tick { recorder, errors, slow_calls, unanswered, ended_ns, counters };
        thread.gate.tell(tick);
    }
    if !thread.gate.is_given_up() {
        client.drain().map_err(io_failure)?;
        client.check().map_err(|source| no_echo(thread, source))?;
    }
    Ok(ThreadEnd { first_error: None, extras: Extras::new()? })
}

fn no_echo(thread: &ClientThread, source: io::Error) -> Failure {
    Failure::NoEcho { address: thread.address, target: thread.target, source }
}

impl Client {
    fn connect(thread: &ClientThread) -> Result<Self, Failure> {
        let frame_len = thread.workload.frame_len();
        let turns = Turns::new(thread.plan.spin)?;
        let is_large = frame_len > turns.ring.pool().buffer_len();
        let at_once =
            (SEND_BUFFER_MAX_DEFAULT / frame_len).clamp(1, thread.workload.depth as usize);
        let mut connections = Vec::new();
        for _ in 0..thread.connections {
            if thread.gate.is_over() {
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
                due: VecDeque::new(),
                bursts: VecDeque::with_capacity(thread.workload.depth as usize),
                in_flight: 0,
                partial: 0,
                whole: is_large.then(|| Whole::new(frame_len, 0)),
            });
        }
        Ok(Self {
            turns,
            dirty: Vec::with_capacity(connections.len()),
            connections,
            frame_len,
            clock: Clock::new(),
            recorder: thread.gate.recorder(thread.plan.pace.is_open())?,
            open: match &thread.plan.pace {
                Pace::Closed => None,
                Pace::Open(arrivals) => Some(OpenLoad {
                    schedule: arrivals.schedule(thread.number, thread.threads, thread.seed()),
                    depth: thread.workload.depth as usize,
                    turn: 0,
                    full_ns: 0,
                    freed_ns: 0,
                }),
            },
            completions: Vec::with_capacity(1024),
            counters: ShardCounters::default(),
        })
    }

    /// Begins to receive on each connection, and to send `depth` frames where the loop is closed.
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
        if self.open.is_some() {
            return;
        }
        let now_ns = self.clock.now_ns();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            connection.owe(depth, now_ns);
            self.dirty.push(index);
        }
        self.send_owed();
    }

    /// Waits, takes what has arrived, and sends as many frames as are complete, or due. Gives the
    /// time at which it arrived.
    fn turn(&mut self) -> io::Result<u64> {
        let now_ns = self.receive()?;
        self.take_due(now_ns);
        if !self.dirty.is_empty() {
            self.send_owed();
        }
        Ok(now_ns)
    }

    /// Owes the frames that are due, each on the next connection that may have one more in flight.
    fn take_due(&mut self, now_ns: u64) {
        let Some(open) = &mut self.open else { return };
        while open.schedule.due_ns() <= now_ns {
            let free = (0..self.connections.len()).find_map(|_| {
                open.turn = (open.turn + 1) % self.connections.len();
                (self.connections[open.turn].in_flight < open.depth).then_some(open.turn)
            });
            let Some(index) = free else {
                open.full_ns = now_ns;
                return;
            };
            let due_ns = open.schedule.due_ns();
            let free_ns = if due_ns <= open.full_ns { open.freed_ns } else { 0 };
            open.schedule.advance();
            let connection = &mut self.connections[index];
            if connection.owed == 0 && connection.frames.is_some() {
                self.dirty.push(index);
            }
            connection.owed += 1;
            connection.in_flight += 1;
            // A frame is sent when it is owed: that the send before it is still under way is the
            // server's affair, or the kernel's.
            connection.due.push_back(Burst { due_ns, free_ns, sent_ns: now_ns, frames: 1 });
        }
    }

    /// Calls of an open load that are not answered: in flight, or not yet sent.
    fn unanswered(&self) -> Unanswered {
        let Some(open) = &self.open else { return Unanswered::default() };
        let bursts = self.connections.iter().flat_map(|it| it.bursts.iter().chain(&it.due));
        let made = bursts.flat_map(|burst| repeat_n(burst.due_ns, burst.frames)).collect();
        Unanswered { made, rest: Some(open.schedule.clone()), full_ns: open.full_ns }
    }

    /// Waits and takes what has arrived. Gives the time at which it did.
    #[inline]
    fn receive(&mut self) -> io::Result<u64> {
        match self.open {
            // What is due next may not wait for what arrives.
            Some(_) => self.turns.look()?,
            None => self.turns.wait()?,
        }
        let mut completions = mem::take(&mut self.completions);
        self.turns.ring.drain(&mut completions);
        let now_ns = self.clock.now_ns();
        for completion in completions.drain(..) {
            self.handle(completion, now_ns)?;
        }
        self.completions = completions;
        Ok(now_ns)
    }

    #[inline]
    fn handle(&mut self, completion: Completion, now_ns: u64) -> io::Result<()> {
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
                        self.complete(index, frames, now_ns);
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
                self.complete(index, usize::from(is_complete), now_ns);
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
            Event::SentShared { .. }
            | Event::Accepted { .. }
            | Event::Connected { .. }
            | Event::Rung { .. } => {}
        }
        Ok(())
    }

    /// Records frames that have arrived, and owes as many where the loop is closed.
    #[inline]
    fn complete(&mut self, index: usize, mut frames: usize, now_ns: u64) {
        let connection = &mut self.connections[index];
        if frames == 0 {
            return;
        }
        if let Some(open) = &mut self.open {
            connection.in_flight -= frames.min(connection.in_flight);
            open.freed_ns = now_ns;
        } else {
            if connection.owed == 0 && connection.frames.is_some() {
                self.dirty.push(index);
            }
            connection.owe(frames, now_ns);
        }
        while frames > 0 {
            let Some(burst) = connection.bursts.front_mut() else {
                return;
            };
            let arrived = frames.min(burst.frames);
            let Burst { due_ns, free_ns, sent_ns, .. } = *burst;
            let timing = Timing { due_ns, free_ns, sent_ns, done_ns: now_ns };
            for _ in 0..arrived {
                self.recorder.record(timing);
            }
            frames -= arrived;
            burst.frames -= arrived;
            if burst.frames == 0 {
                connection.bursts.pop_front();
            }
        }
    }

    /// One send for each connection that owes frames and has none under way.
    #[inline]
    fn send_owed(&mut self) {
        for index in self.dirty.drain(..) {
            let connection = &mut self.connections[index];
            let Some(mut frames) = connection.frames.take() else {
                continue;
            };
            let count = connection.owed.min(frames.len() / self.frame_len);
            connection.sends(count);
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
        // What is owed and not yet sent is never sent.
        for connection in &mut self.connections {
            connection.owed = 0;
        }
        let deadline_ns = self.clock.now_ns() + ANSWER_MAX.as_nanos() as u64;
        let is_busy = |it: &Connection| !it.bursts.is_empty() || it.frames.is_none();
        while self.connections.iter().any(is_busy) {
            if self.receive()? > deadline_ns {
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

impl Connection {
    /// Owes frames that follow others, or are the first.
    #[inline]
    fn owe(&mut self, frames: usize, now_ns: u64) {
        self.owed += frames;
        let (due_ns, free_ns, sent_ns) = (now_ns, now_ns, now_ns);
        self.due.push_back(Burst { due_ns, free_ns, sent_ns, frames });
    }

    /// Takes note that the oldest frames that are owed are sent.
    #[inline]
    fn sends(&mut self, mut frames: usize) {
        self.owed -= frames;
        while let Some(due) = self.due.front_mut()
            && frames > 0
        {
            let sent = frames.min(due.frames);
            self.bursts.push_back(Burst { frames: sent, ..*due });
            frames -= sent;
            due.frames -= sent;
            if due.frames == 0 {
                self.due.pop_front();
            }
        }
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
