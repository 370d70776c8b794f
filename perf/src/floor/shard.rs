//! A thread of the floor's server: its ring, its connections, and what it does in a turn.

use std::{collections::VecDeque, io, mem, os::fd::OwnedFd, rc::Rc};

use ringcall::{
    SEND_BUFFER_MAX_DEFAULT, ShardCounters,
    limits::FRAME_LEN_MAX_DEFAULT,
    ring::{Chunk, Completion, Event, Filled, Lease, OpId, OwnedBuffer, Ring, Socket},
};
use rustix::{io::Errno, net::Shutdown};

use super::{Turns, Whole, frame_len_of};
use crate::measure::thread_cpu_ns;

/// The token of the listener's accepts; connections have their index in the table and the number
/// of its use.
const LISTENER: u64 = u64::MAX;

/// Everything that a thread of the server has.
pub(super) struct Shard {
    turns: Turns,
    listener: Socket,
    connections: Vec<Option<Connection>>,
    /// Places in the table that are free, the one longest so first.
    free: VecDeque<u32>,
    /// Numbers the uses of places, so that a late completion finds its connection or none.
    uses: u32,
    /// Connections with bytes to send.
    dirty: Vec<u64>,
    /// Kept for its capacity.
    completions: Vec<Completion>,
    counters: ShardCounters,
}

struct Connection {
    socket: Socket,
    token: u64,
    /// What arrived and is to be sent.
    output: Vec<u8>,
    /// The buffer of the last send, for the next output.
    spare: Vec<u8>,
    is_sending: bool,
    is_dirty: bool,
    /// The multishot receive, while it stands.
    multishot: Option<OpId>,
    /// Bytes received into the pool so far, to know where frames begin.
    received: u64,
    /// Set where its frames are longer than a pool buffer. Output is then empty.
    large: Option<Large>,
}

/// What a connection has if its frames are long: they are received whole, each into a buffer of
/// its own, and sent from there.
struct Large {
    whole: Whole,
    /// The buffer of a frame of which a part has arrived, while no receive has it.
    buffer: Option<OwnedBuffer>,
    is_receiving: bool,
    /// What arrived and is to be sent.
    output: VecDeque<Lease>,
    output_len: usize,
}

impl Shard {
    pub(super) fn new(mut turns: Turns, listener: OwnedFd) -> Self {
        let listener = Rc::new(listener);
        turns.ring.accept_multishot(&listener, LISTENER);
        Self {
            turns,
            listener,
            connections: Vec::new(),
            free: VecDeque::new(),
            uses: 0,
            dirty: Vec::new(),
            completions: Vec::with_capacity(1024),
            counters: ShardCounters::default(),
        }
    }

    /// Waits, handles what has completed, and queues a send for each connection with output.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.turns.wait()?;
        let mut completions = mem::take(&mut self.completions);
        self.turns.ring.drain(&mut completions);
        for completion in completions.drain(..) {
            self.handle(completion);
        }
        self.completions = completions;
        while let Some(token) = self.dirty.pop() {
            self.start_send(token);
        }
        Ok(())
    }

    pub(super) fn counters(&self) -> ShardCounters {
        let mut counters = self.counters;
        counters.enters = self.turns.ring.enters();
        counters.cq_overflows = self.turns.ring.cq_overflows();
        counters.parks = self.turns.parks;
        counters.cpu_ns = thread_cpu_ns();
        counters
    }

    #[inline]
    fn handle(&mut self, completion: Completion) {
        let Completion { token, event, .. } = completion;
        match event {
            Event::Accepted { result, more } => self.accepted(result, more),
            Event::Received { result, more } => self.received(token, result, more),
            Event::ReceivedInto { result, buffer } => self.received_into(token, result, buffer),
            Event::Sent { result, bytes, from } => self.sent(token, result, bytes, from),
            Event::SentShared { result, bytes, from } => {
                self.sent_shared(token, result, bytes, from);
            }
            Event::Connected { .. } | Event::Rung { .. } => {}
        }
    }

    fn accepted(&mut self, result: io::Result<OwnedFd>, more: bool) {
        if let Ok(socket) = result {
            let place = self.free.pop_front().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() as u32 - 1
            });
            self.uses = self.uses.wrapping_add(1) % u32::MAX;
            let token = u64::from(place) | u64::from(self.uses) << 32;
            self.connections[place as usize] = Some(Connection::new(Rc::new(socket), token));
            self.counters.connections_accepted += 1;
            self.receive(token);
        } else {
            self.counters.accept_errors += 1;
        }
        if !more {
            self.turns.ring.accept_multishot(&self.listener, LISTENER);
        }
    }

    #[inline]
    fn received(&mut self, token: u64, result: io::Result<Option<Filled>>, more: bool) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        if !more {
            connection.multishot = None;
        }
        match result {
            Ok(Some(bytes)) => {
                self.counters.bytes_received += bytes.len() as u64;
                if connection.received == 0
                    && let Some(frame_len) = frame_len_of(&bytes)
                {
                    connection.learn(frame_len, self.turns.ring.pool().buffer_len());
                }
                connection.received += bytes.len() as u64;
                connection.take(bytes);
                connection.mark_dirty(&mut self.dirty);
                // Large frames, or a peer that does not read: the multishot receive ends.
                if (connection.large.is_some() || connection.is_full())
                    && let Some(op) = connection.multishot
                {
                    self.turns.ring.cancel(op);
                }
            }
            Ok(None) => return self.close(token),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOBUFS) => self.counters.buffers_exhausted += 1,
                Some(Errno::CANCELED | Errno::INTR) => {}
                _ => return self.close(token),
            },
        }
        if !more {
            self.receive(token);
        }
    }

    fn received_into(&mut self, token: u64, result: io::Result<usize>, buffer: OwnedBuffer) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let (Some(large), Ok(received @ 1..)) = (&mut connection.large, result) else {
            return self.close(token);
        };
        self.counters.bytes_received += received as u64;
        large.received(received, buffer);
        if !large.output.is_empty() {
            connection.mark_dirty(&mut self.dirty);
        }
        self.receive(token);
    }

    fn sent(&mut self, token: u64, result: io::Result<usize>, mut bytes: Vec<u8>, from: usize) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        match result {
            Ok(sent) if sent > 0 => {
                self.counters.bytes_sent += sent as u64;
                if from + sent < bytes.len() {
                    self.counters.sends += 1;
                    self.turns.ring.send(&connection.socket, token, bytes, from + sent);
                    return;
                }
            }
            _ => return self.close(token),
        }
        bytes.clear();
        connection.spare = bytes;
        connection.is_sending = false;
        if !connection.output.is_empty() {
            connection.mark_dirty(&mut self.dirty);
        }
        // It may have ended because too much waited behind this send.
        if connection.multishot.is_none() {
            self.receive(token);
        }
    }

    fn sent_shared(&mut self, token: u64, result: io::Result<usize>, bytes: Lease, from: usize) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let (Some(large), Ok(sent @ 1..)) = (&mut connection.large, result) else {
            return self.close(token);
        };
        self.counters.bytes_sent += sent as u64;
        if from + sent < bytes.len() {
            self.counters.sends += 1;
            self.turns.ring.send_shared(&connection.socket, token, bytes, from + sent);
            return;
        }
        // Its buffer is then the next that is received into.
        drop(bytes);
        connection.is_sending = false;
        if !large.output.is_empty() {
            connection.mark_dirty(&mut self.dirty);
        }
        self.receive(token);
    }

    /// Sees to it that a receive stands, where one should.
    #[inline]
    fn receive(&mut self, token: u64) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        if connection.multishot.is_some() || connection.is_full() {
            return;
        }
        let ring = &mut self.turns.ring;
        match &mut connection.large {
            None => connection.multishot = Some(ring.recv_multishot(&connection.socket, token)),
            Some(large) => {
                if connection.received > 0 {
                    // The multishot receive has ended in the middle of a frame.
                    large.begin((connection.received % large.whole.frame_len as u64) as usize);
                    connection.received = 0;
                }
                large.receive(ring, &connection.socket, token);
            }
        }
    }

    #[inline]
    fn start_send(&mut self, token: u64) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        connection.is_dirty = false;
        if connection.is_sending {
            return;
        }
        connection.is_sending = true;
        self.counters.sends += 1;
        if let Some(bytes) = connection.large.as_mut().and_then(Large::next) {
            self.turns.ring.send_shared(&connection.socket, token, bytes, 0);
            return;
        }
        let bytes = mem::replace(&mut connection.output, mem::take(&mut connection.spare));
        self.turns.ring.send(&connection.socket, token, bytes, 0);
    }

    /// Ends a connection; what is in flight on it ends with it.
    fn close(&mut self, token: u64) {
        let place = token as u32;
        if let Some(connection) = self.connections.get_mut(place as usize).and_then(Option::take) {
            // The peer may be gone already.
            let _ = rustix::net::shutdown(&connection.socket, Shutdown::Both);
            self.free.push_back(place);
            self.counters.connections_closed += 1;
        }
    }
}

impl Connection {
    fn new(socket: Socket, token: u64) -> Self {
        Self {
            socket,
            token,
            output: Vec::new(),
            spare: Vec::new(),
            is_sending: false,
            is_dirty: false,
            multishot: None,
            received: 0,
            large: None,
        }
    }

    /// Puts bytes behind those to be sent.
    #[inline]
    fn take(&mut self, bytes: Filled) {
        match &mut self.large {
            None => self.output.extend_from_slice(&bytes),
            Some(large) => {
                let chunk = Chunk::of_pool(bytes);
                large.push(Lease::new(&chunk, 0..chunk.len()));
            }
        }
    }

    #[inline]
    fn mark_dirty(&mut self, dirty: &mut Vec<u64>) {
        if !self.is_sending && !self.is_dirty {
            self.is_dirty = true;
            dirty.push(self.token);
        }
    }

    /// Takes note of how long the frames of this connection are.
    fn learn(&mut self, frame_len: usize, pool_buffer_len: usize) {
        if frame_len > pool_buffer_len && frame_len <= FRAME_LEN_MAX_DEFAULT as usize {
            self.large = Some(Large {
                whole: Whole::new(frame_len, 0),
                buffer: None,
                is_receiving: false,
                output: VecDeque::new(),
                output_len: 0,
            });
        }
    }

    /// Whether so much waits behind a send that no more is to be received.
    #[inline]
    fn is_full(&self) -> bool {
        let waiting = self.large.as_ref().map_or(self.output.len(), |large| large.output_len);
        self.is_sending && waiting > SEND_BUFFER_MAX_DEFAULT
    }
}

impl Large {
    /// Begins with a frame of which `start` bytes have come to the pool.
    fn begin(&mut self, start: usize) {
        self.whole = Whole::new(self.whole.frame_len, start);
    }

    /// Receives the rest of the frame, unless that is under way.
    fn receive(&mut self, ring: &mut Ring, socket: &Socket, token: u64) {
        if self.is_receiving {
            return;
        }
        self.is_receiving = true;
        let begun = self.buffer.take();
        let buffer = begun.unwrap_or_else(|| ring.owned().take(self.whole.frame_len));
        self.whole.receive(ring, socket, token, buffer);
    }

    /// Takes note of bytes in the buffer. A frame that is complete is to be sent from there, and
    /// the next comes to another buffer.
    fn received(&mut self, bytes: usize, buffer: OwnedBuffer) {
        self.is_receiving = false;
        match self.whole.received(bytes) {
            None => self.buffer = Some(buffer),
            Some(frame) => {
                let chunk = Chunk::of_owned(buffer.share(), frame.end);
                self.push(Lease::new(&chunk, frame));
            }
        }
    }

    fn push(&mut self, bytes: Lease) {
        self.output_len += bytes.len();
        self.output.push_back(bytes);
    }

    /// What is to be sent next.
    fn next(&mut self) -> Option<Lease> {
        let bytes = self.output.pop_front()?;
        self.output_len -= bytes.len();
        Some(bytes)
    }
}

/// The connection with this token; none where it is gone.
#[inline]
fn find(connections: &mut [Option<Connection>], token: u64) -> Option<&mut Connection> {
    let connection = connections.get_mut(token as u32 as usize)?.as_mut();
    connection.filter(|connection| connection.token == token)
}
