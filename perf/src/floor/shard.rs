//! A thread of the floor's server: its ring, its connections, and what it does in a turn.

use std::{collections::VecDeque, io, mem, os::fd::OwnedFd, rc::Rc};

use ringcall::{
    SEND_BUFFER_MAX_DEFAULT, ShardCounters,
    limits::FRAME_LEN_MAX_DEFAULT,
    ring::{Completion, Event, Filled, OpId, OwnedBuffer, Socket},
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
    /// Bytes received so far, to know where frames begin.
    received: u64,
    /// Set where its frames are longer than a pool buffer.
    whole: Option<Whole>,
    /// The buffer for those, while no receive has it.
    buffer: Option<OwnedBuffer>,
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
            Event::Connected { .. } => {}
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
                connection.take(&bytes, &mut self.dirty);
                let is_first = connection.received == 0;
                connection.received += bytes.len() as u64;
                if is_first && let Some(frame_len) = frame_len_of(&bytes) {
                    connection.learn(frame_len, self.turns.ring.pool().buffer_len());
                }
                // Large frames, or a peer that does not read: the multishot receive ends.
                if (connection.whole.is_some() || connection.is_full())
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
        let Some(whole) = &mut connection.whole else {
            return;
        };
        let Ok(received) = result else {
            return self.close(token);
        };
        if received == 0 {
            return self.close(token);
        }
        self.counters.bytes_received += received as u64;
        if let Some(bytes) = whole.received(received) {
            connection.take(&buffer[bytes], &mut self.dirty);
        }
        connection.buffer = Some(buffer);
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
        match (&mut connection.whole, connection.buffer.take()) {
            (Some(whole), Some(buffer)) => {
                whole.receive(ring, &connection.socket, token, buffer);
            }
            (Some(whole), None) if connection.received > 0 => {
                // The multishot receive has ended; the frame that it was in ends in the buffer.
                let start = (connection.received % whole.frame_len as u64) as usize;
                *whole = Whole::new(whole.frame_len, start);
                connection.received = 0;
                let buffer = ring.owned().take(whole.frame_len);
                whole.receive(ring, &connection.socket, token, buffer);
            }
            // A receive has the buffer.
            (Some(_), None) => {}
            (None, _) => {
                connection.multishot = Some(ring.recv_multishot(&connection.socket, token));
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
            whole: None,
            buffer: None,
        }
    }

    /// Puts bytes behind those to be sent.
    #[inline]
    fn take(&mut self, bytes: &[u8], dirty: &mut Vec<u64>) {
        self.output.extend_from_slice(bytes);
        self.mark_dirty(dirty);
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
            self.whole = Some(Whole::new(frame_len, 0));
        }
    }

    /// Whether so much waits behind a send that no more is to be received.
    #[inline]
    fn is_full(&self) -> bool {
        self.is_sending && self.output.len() > SEND_BUFFER_MAX_DEFAULT
    }
}

/// The connection with this token; none where it is gone.
#[inline]
fn find(connections: &mut [Option<Connection>], token: u64) -> Option<&mut Connection> {
    let connection = connections.get_mut(token as u32 as usize)?.as_mut();
    connection.filter(|connection| connection.token == token)
}
