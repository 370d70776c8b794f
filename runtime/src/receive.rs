//! Bytes in: from the ring to frames, in place.
//!
//! Between the ring and the session on the path of a call. A connection receives in one of two
//! modes. *Small*: one multishot receive stands, and fills buffers of the shard's pool. *Large*:
//! a frame that no pool buffer can hold whole is received where it stays, into a buffer of its
//! own; while large frames follow each other, each is received so from its first byte on. A
//! buffer that is leased is never written, and a buffer that the kernel may write is never read.

use std::{collections::VecDeque, io, ops::Range, rc::Rc, time::Instant};

use ringcall_codec::{
    Decoder, FrameBuffer, Header, Partial, SessionError, Step,
    limits::{HEADER_LEN, PART_LEN},
};

use crate::{
    config::{LINGER_BYTES_MAX, POOL_PRESSURE_DIVISOR},
    connection::{Connection, State},
    long_frames::{LONG_START_LEN, PartPlace},
    ring::{Chunk, Filled, Lease, OpId, OwnedBuffer},
};

/// The receiving half of a connection.
pub(crate) struct Receive {
    pub(crate) decoder: Decoder<Assembly>,
    /// The receive that the kernel has.
    pub(crate) op: Option<OpId>,
    /// Length of the last frame if that was large: the next is expected to be so too. Else zero.
    large_len: u32,
    /// Waits in the shard's list for receive buffers.
    is_starved: bool,
    /// Kept for the next time, until the connection is idle.
    rest: Option<Box<Rest>>,
}

/// What a connection needs that receives large frames, or was blocked.
#[derive(Default)]
struct Rest {
    /// What a receive into a buffer of our own is for; its completion brings the buffer back.
    large: Option<Large>,
    /// The frame being received large has a prefix that was copied.
    has_copied_prefix: bool,
    /// Received while the connection was blocked, oldest first.
    backlog: VecDeque<Unread>,
    /// When what is being read was received, where that was in an earlier turn.
    taken_at: Option<Instant>,
    /// Bytes thrown away since the peer was told to go away.
    lingered: u64,
}

/// A chunk that was received, and not read to its end.
struct Unread {
    chunk: Chunk,
    /// What was read of it, in bytes.
    at: usize,
    taken_at: Instant,
}

/// A receive into a buffer of our own.
pub(crate) enum Large {
    /// From the first byte of a frame on; `filled` bytes are there.
    First { filled: usize },
    /// The rest of a frame whose header is known; `filled` bytes are there.
    Rest { frame_len: usize, filled: usize },
    /// The rest of a part of a frame.
    Part(PartPlace),
}

/// A cut frame, put together in a buffer of the shard.
pub(crate) struct Assembly {
    pub(crate) buffer: OwnedBuffer,
    pub(crate) progress: Progress,
}

/// How far a frame is put together.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) filled: usize,
    /// Bytes that were received elsewhere.
    pub(crate) copied: usize,
    /// When its header came.
    pub(crate) begun_us: u64,
}

impl FrameBuffer for Assembly {
    fn append(&mut self, bytes: &[u8]) {
        let Progress { filled, copied, .. } = &mut self.progress;
        self.buffer[*filled..*filled + bytes.len()].copy_from_slice(bytes);
        *filled += bytes.len();
        *copied += bytes.len();
    }

    fn filled(&self) -> &[u8] {
        &self.buffer[..self.progress.filled]
    }
}

impl Receive {
    pub(crate) fn new(frame_len_max: u32) -> Self {
        Self {
            decoder: Decoder::new(frame_len_max),
            op: None,
            large_len: 0,
            is_starved: false,
            rest: None,
        }
    }

    /// Notes the one operation that the kernel has for this half, so that it can be cancelled.
    pub(crate) fn has_begun(&mut self, op: OpId) {
        self.op = Some(op);
    }

    /// Notes that the kernel has done with it.
    pub(crate) fn has_ended(&mut self) {
        self.op = None;
    }

    #[inline]
    pub(crate) fn has_backlog(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.backlog.is_empty())
    }

    /// Notes what the receive into a buffer of our own is for that is begun.
    pub(crate) fn set_large(&mut self, large: Large) {
        self.rest().large = Some(large);
    }

    /// Whether a receive into a buffer of our own is under way.
    fn is_large(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.large.is_some())
    }

    /// Whether the frame that was received large has a prefix that was copied. Asked once.
    fn take_copied_prefix(&mut self) -> bool {
        self.rest.as_mut().is_some_and(|rest| std::mem::take(&mut rest.has_copied_prefix))
    }

    /// Gives memory back that only large frames and a backlog need.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.decoder.shrink_to_fit();
        self.rest.take_if(|rest| rest.is_empty());
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// Notes how long a frame is: the next is expected to be like it.
    #[inline]
    fn note_frame(&mut self, header: &Header, pool_buffer_len: usize) {
        let frame_len = header.frame_len() as usize;
        self.large_len = if frame_len <= pool_buffer_len {
            0
        } else if header.payload_len() <= PART_LEN as u64 {
            // Compared with the limit, which is no longer.
            frame_len as u32
        } else {
            LONG_START_LEN as u32
        };
    }

    /// Notes that the next frame is expected to be long.
    pub(crate) fn expect_long(&mut self) {
        self.large_len = LONG_START_LEN as u32;
    }

    /// Lets go of what was received and not read.
    pub(crate) fn forget(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.backlog.clear();
        }
        self.decoder.forget();
        self.large_len = 0;
    }

    /// Lets go of everything, and gives the receive that is to be cancelled.
    pub(crate) fn close(&mut self) -> Option<OpId> {
        self.forget();
        self.op.take()
    }
}

impl Rest {
    fn is_empty(&self) -> bool {
        let has_large = self.large.is_some() || self.has_copied_prefix;
        !has_large && self.backlog.is_empty() && self.taken_at.is_none() && self.lingered == 0
    }
}

impl Connection {
    /// The multishot receive brought bytes, or ended.
    #[inline]
    pub(crate) fn received(
        self: &Rc<Self>,
        op: OpId,
        result: io::Result<Option<Filled>>,
        more: bool,
    ) {
        if !more {
            let mut receive = self.receive.borrow_mut();
            if receive.op == Some(op) {
                receive.op = None;
            }
        }
        match result {
            Ok(Some(filled)) => {
                self.shard.counters.bytes_received.add(filled.len() as u64);
                self.take(Chunk::of_pool(filled));
            }
            Ok(None) => return self.peer_finished(),
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NOBUFS) => return self.starve(),
                Some(rustix::io::Errno::CANCELED | rustix::io::Errno::INTR) => {}
                _ => return self.finish(&format!("receiving failed: {error}")),
            },
        }
        if !more {
            self.rearm();
        }
    }

    /// A receive into a buffer of our own is done.
    pub(crate) fn received_into(self: &Rc<Self>, result: io::Result<usize>, buffer: OwnedBuffer) {
        let large = {
            let mut receive = self.receive.borrow_mut();
            receive.op = None;
            receive.rest.as_mut().and_then(|rest| rest.large.take())
        };
        let received = match result {
            Ok(0) => return self.peer_finished(),
            Ok(received) => received,
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::CANCELED | rustix::io::Errno::INTR) => 0,
                _ => return self.finish(&format!("receiving failed: {error}")),
            },
        };
        self.shard.counters.bytes_received.add(received as u64);
        match large {
            _ if !self.is_alive() => {}
            Some(Large::Rest { frame_len, filled }) if filled + received < frame_len => {
                self.note_large_cut(Some(frame_len));
                return self.receive_rest(buffer, frame_len, filled + received);
            }
            Some(Large::Part(place)) => return self.part_received(place, buffer, received),
            Some(Large::Rest { frame_len, .. }) => {
                self.take(Chunk::of_owned(buffer.share(), frame_len));
            }
            Some(Large::First { filled }) => {
                let filled = filled + received;
                let header = self.receive.borrow_mut().decoder.header_of(&buffer[..filled]);
                let frame_len = match header {
                    Ok(header) => header.map(|header| header.frame_len() as usize),
                    Err(error) => return self.fail(error),
                };
                match frame_len {
                    None => {
                        self.note_large_cut(None);
                        return self.receive_first(buffer, filled);
                    }
                    Some(frame_len) if filled < frame_len && frame_len <= buffer.len() => {
                        self.note_large_cut(Some(frame_len));
                        return self.receive_rest(buffer, frame_len, filled);
                    }
                    Some(_) => self.take(Chunk::of_owned(buffer.share(), filled)),
                }
            }
            None => {}
        }
        self.rearm();
    }

    /// Reads a chunk, or keeps it where the connection is blocked.
    pub(crate) fn take(self: &Rc<Self>, chunk: Chunk) {
        match self.state() {
            State::Lingering => return self.linger(chunk.len()),
            State::HandingOver => return self.carry(&chunk),
            _ => {}
        }
        if !self.receive.borrow().has_backlog() {
            return self.read(chunk, 0);
        }
        let kept = self.unread(chunk, 0);
        self.receive.borrow_mut().rest().backlog.push_back(kept);
    }

    /// Finds the frames in a chunk and gives each to the session.
    fn read(self: &Rc<Self>, chunk: Chunk, mut at: usize) {
        self.session.borrow_mut().handle_bytes(self.shard.now_us());
        let plain_len = self.stage.plain_len(chunk.len());
        let mut header = Header::EMPTY;
        while self.is_alive() {
            if self.must_not_read() {
                return self.block(chunk, at);
            }
            let input = &chunk[..plain_len];
            if let Some(body) = self.next_whole(input, &mut at, &mut header) {
                let lease = self.lease(&chunk, body);
                self.frame(&header, lease);
                continue;
            }
            if self.speaks_http(input) {
                return self.leave_for_http(chunk);
            }
            match self.next_step(input, &mut at) {
                Ok(Step::InPlace { header, body }) => {
                    let lease = self.lease(&chunk, body);
                    self.frame(&header, lease);
                }
                Ok(Step::Assembled(partial)) => self.assembled(partial),
                Ok(Step::Skipped | Step::Part) => self.session.borrow_mut().handle_skipped(),
                Ok(Step::More) => break,
                Err(error) => return self.fail(error),
            }
        }
        if self.state() == State::HandingOver {
            return self.carry(&chunk[at..]);
        }
        self.leave_small_mode();
        self.note_cut();
        self.set_timer();
        self.shard.chunk_ends();
    }

    /// Tells the session where the bytes so far end inside of a frame.
    #[inline]
    pub(crate) fn note_cut(self: &Rc<Self>) {
        let receive = self.receive.borrow();
        let mut session = self.session.borrow_mut();
        if receive.decoder.is_between_frames() {
            // A frame that was skipped is not told of otherwise.
            session.handle_skipped();
        } else {
            session.handle_cut(receive.decoder.cut_len());
        }
        let (missing, announced) = receive.decoder.long_frames();
        let had_long = session.has_long_frames();
        session.handle_long_frames(missing, announced);
        if had_long && missing == 0 {
            // A drain may have waited for it.
            drop(session);
            self.shard.mark_dirty(self);
        }
    }

    /// Tells the session of a large frame that began to arrive and is received where it stays.
    fn note_large_cut(&self, frame_len: Option<usize>) {
        let mut session = self.session.borrow_mut();
        session.handle_bytes(self.shard.now_us());
        session.handle_cut(frame_len.map(|len| len as u64));
        drop(session);
        self.set_timer();
    }

    #[inline(always)]
    fn next_whole(
        &self,
        input: &[u8],
        at: &mut usize,
        header: &mut Header,
    ) -> Option<Range<usize>> {
        let mut receive = self.receive.borrow_mut();
        let body = receive.decoder.next_whole(input, at, header)?;
        receive.note_frame(header, self.pool_buffer_len());
        Some(body)
    }

    #[inline(never)]
    pub(crate) fn next_step(
        self: &Rc<Self>,
        input: &[u8],
        at: &mut usize,
    ) -> Result<Step<Assembly>, SessionError> {
        let mut receive = self.receive.borrow_mut();
        let step = receive.decoder.next(input, at, |header| {
            if !self.admits(header)? {
                return Ok(None);
            }
            let frame_len = header.frame_len();
            match self.shard.owned.try_take(frame_len as usize) {
                Ok(buffer) => {
                    let begun_us = self.shard.now_us();
                    let progress = Progress { filled: 0, copied: 0, begun_us };
                    Ok(Some(Assembly { buffer, progress }))
                }
                Err(_) => Err(SessionError::NoMemory { frame_len }),
            }
        });
        if let Ok(Step::InPlace { header, .. } | Step::Assembled(Partial { header, .. })) = &step {
            receive.note_frame(header, self.pool_buffer_len());
        }
        step
    }

    /// A frame that was cut is complete.
    pub(crate) fn assembled(self: &Rc<Self>, partial: Partial<Assembly>) {
        let counters = &self.shard.counters;
        let body = partial.body_range();
        let Partial { header, buffer: Assembly { buffer, progress } } = partial;
        let Progress { filled, copied, begun_us } = progress;
        // Of one in parts that came to their places only the header was not received there.
        if copied == HEADER_LEN && copied < filled {
            counters.frames_in_place.add(1);
            return self.assembled_frame(&header, lease_of(buffer, filled, body), begun_us);
        }
        if filled > self.pool_buffer_len() {
            counters.frames_copied_large.add(1);
        } else {
            counters.frames_copied_straddle.add(1);
        }
        counters.bytes_copied.add(copied as u64);
        self.assembled_frame(&header, lease_of(buffer, filled, body), begun_us);
    }

    /// A lease on a body in a chunk; on a copy of it where it cannot be read in place.
    #[inline]
    fn lease(&self, chunk: &Chunk, body: Range<usize>) -> Lease {
        let counters = &self.shard.counters;
        let bytes = &chunk[body.clone()];
        if !bytes.as_ptr().addr().is_multiple_of(ringcall_codec::limits::FRAME_ALIGN) {
            counters.frames_copied_misaligned.add(1);
            counters.bytes_copied.add(bytes.len() as u64);
            return Lease::new(&self.copy(bytes), 0..bytes.len());
        }
        if chunk.in_pool() && self.is_pool_short() {
            counters.frames_copied_pressure.add(1);
            counters.bytes_copied.add(bytes.len() as u64);
            return Lease::new(&self.copy(bytes), 0..bytes.len());
        }
        if chunk.in_pool() {
            counters.frames_in_place.add(1);
        } else {
            self.count_owned(chunk);
        }
        Lease::new(chunk, body)
    }

    /// Counts a frame that is read in a buffer of our own.
    #[cold]
    fn count_owned(&self, chunk: &Chunk) {
        let counters = &self.shard.counters;
        if chunk.is_copy() {
            counters.frames_copied_pressure.add(1);
        } else if !self.receive.borrow_mut().take_copied_prefix() {
            counters.frames_in_place.add(1);
        }
    }

    /// A copy of bytes in a buffer of the shard.
    fn copy(&self, bytes: &[u8]) -> Chunk {
        let mut buffer = self.owned_buffer(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        Chunk::of_copy(buffer.share(), bytes.len())
    }

    /// What is to be kept of a chunk that cannot be read now: a peer that does not read its
    /// replies must not take the pool from its neighbours.
    fn unread(&self, chunk: Chunk, at: usize) -> Unread {
        let taken_at = self.taken_at();
        if !chunk.in_pool() || !self.is_pool_short() {
            return Unread { chunk, at, taken_at };
        }
        let unread = &chunk[at..];
        self.shard.counters.bytes_copied.add(unread.len() as u64);
        Unread { chunk: self.copy(unread), at: 0, taken_at }
    }

    /// When the shard took the bytes that are being read from its ring.
    pub(crate) fn taken_at(&self) -> Instant {
        let receive = self.receive.borrow();
        let taken_at = receive.rest.as_ref().and_then(|rest| rest.taken_at);
        taken_at.unwrap_or_else(|| self.shard.now())
    }

    /// Sees to it that the kernel has a receive for this connection, where it should have one.
    pub(crate) fn rearm(self: &Rc<Self>) {
        let mut receive = self.receive.borrow_mut();
        if receive.op.is_none() && self.state() == State::LeavingForHttp {
            drop(receive);
            return self.hand_to_http();
        }
        if receive.op.is_some() || receive.has_backlog() {
            return;
        }
        match self.state() {
            State::Open | State::Lingering => {}
            State::HandingOver => {
                drop(receive);
                return self.hand_over();
            }
            State::Connecting
            | State::PeerFinished
            | State::Leaving
            | State::LeavingForHttp
            | State::Closed => return,
        }
        let Some(socket) = self.socket() else { return };
        receive.is_starved = false;
        let pool_buffer_len = self.pool_buffer_len();
        let large = receive.decoder.partial().map(|partial| partial.header.frame_len() as usize);
        if let Some(frame_len) = large.filter(|frame_len| *frame_len > pool_buffer_len)
            && let Some(Partial { buffer, .. }) = receive.decoder.take_partial()
        {
            let Assembly { buffer, progress } = buffer;
            self.shard.counters.bytes_copied.add(progress.copied as u64);
            self.shard.counters.frames_copied_large.add(1);
            receive.rest().has_copied_prefix = true;
            drop(receive);
            return self.receive_rest(buffer, frame_len, progress.filled);
        }
        if receive.decoder.cut_part_len().is_some() {
            drop(receive);
            return self.receive_part();
        }
        if receive.decoder.long_frames().0 > pool_buffer_len as u64 {
            // The header of the next part, and none of what belongs to its place.
            receive.large_len = HEADER_LEN as u32;
        }
        let keeps_buffer = receive.large_len > 0
            && receive.decoder.is_between_frames()
            && self.shard.owned.outstanding_bytes() < self.shard.config.large_kept_max();
        if keeps_buffer && let Ok(buffer) = self.shard.owned.try_take(receive.large_len as usize) {
            drop(receive);
            return self.receive_first(buffer, 0);
        }
        let op = self.shard.ring.borrow_mut().recv_multishot(socket, self.key);
        receive.op = Some(op);
    }

    /// Receives a frame from its first byte on, expecting one as long as the last.
    fn receive_first(&self, buffer: OwnedBuffer, filled: usize) {
        let Some(socket) = self.socket() else { return };
        let mut receive = self.receive.borrow_mut();
        let to = (receive.large_len as usize).clamp(filled + 1, buffer.len());
        receive.set_large(Large::First { filled });
        let mut ring = self.shard.ring.borrow_mut();
        receive.op = Some(ring.recv_into(socket, self.key, buffer, filled, to, false));
    }

    /// Receives exactly the rest of a frame.
    fn receive_rest(&self, buffer: OwnedBuffer, frame_len: usize, filled: usize) {
        let Some(socket) = self.socket() else { return };
        let mut receive = self.receive.borrow_mut();
        receive.set_large(Large::Rest { frame_len, filled });
        let mut ring = self.shard.ring.borrow_mut();
        receive.op = Some(ring.recv_into(socket, self.key, buffer, filled, frame_len, true));
    }

    /// Ends the multishot receive where the frame that has begun wants a buffer of its own. What
    /// it still brings belongs to that frame; its end arms the next receive.
    fn leave_small_mode(&self) {
        let receive = self.receive.borrow();
        let decoder = &receive.decoder;
        let pool_buffer_len = self.pool_buffer_len() as u64;
        let is_large =
            decoder.partial().is_some_and(|partial| partial.header.frame_len() > pool_buffer_len)
                || decoder.cut_part_len().is_some() && decoder.long_frames().0 > pool_buffer_len;
        if let Some(op) = receive.op.filter(|_| is_large && !receive.is_large()) {
            self.shard.ring.borrow_mut().cancel(op);
        }
    }

    /// Keeps the rest of a chunk until the peer has read its replies, and receives no more.
    #[cold]
    fn block(&self, chunk: Chunk, at: usize) {
        self.session.borrow_mut().handle_pause();
        let kept = self.unread(chunk, at);
        self.receive.borrow_mut().rest().backlog.push_front(kept);
        self.stop_receiving();
    }

    /// Keeps a chunk that is not read here.
    pub(crate) fn keep_unread(&self, chunk: Chunk) {
        let kept = self.unread(chunk, 0);
        self.receive.borrow_mut().rest().backlog.push_back(kept);
    }

    /// The bytes that came and were not read as frames, and no more than so many; the rest is
    /// thrown away.
    pub(crate) fn take_unread(&self, len_max: usize) -> Vec<u8> {
        let mut receive = self.receive.borrow_mut();
        let mut unread = receive.decoder.first_bytes().unwrap_or_default().to_vec();
        let backlog = receive.rest.as_mut().map(|rest| std::mem::take(&mut rest.backlog));
        for Unread { chunk, at, .. } in backlog.into_iter().flatten() {
            let bytes = &chunk[at..];
            unread.extend_from_slice(&bytes[..bytes.len().min(len_max - unread.len())]);
        }
        unread
    }

    /// Ends the receive that the kernel has.
    pub(crate) fn stop_receiving(&self) {
        if let Some(op) = self.receive.borrow().op {
            self.shard.ring.borrow_mut().cancel(op);
        }
    }

    /// Reads on where the connection was blocked and is no longer.
    pub(crate) fn resume(self: &Rc<Self>) {
        if !self.receive.borrow().has_backlog() {
            return;
        }
        while self.is_alive() && !self.must_not_read() {
            let next = self.receive.borrow_mut().rest().backlog.pop_front();
            let Some(Unread { chunk, at, taken_at }) = next else { break };
            self.receive.borrow_mut().rest().taken_at = Some(taken_at);
            self.read(chunk, at);
            self.receive.borrow_mut().rest().taken_at = None;
        }
        if self.state() == State::PeerFinished && !self.receive.borrow().has_backlog() {
            self.nothing_comes();
        }
        self.rearm();
    }

    /// The pool was empty: receives again when a buffer has come back.
    fn starve(self: &Rc<Self>) {
        self.shard.counters.buffers_exhausted.add(1);
        let mut receive = self.receive.borrow_mut();
        if !receive.is_starved {
            receive.is_starved = true;
            self.shard.starved.borrow_mut().push(Rc::clone(self));
        }
    }

    /// Throws away what a peer sends that was told to go away, up to a limit.
    fn linger(&self, bytes: usize) {
        let mut receive = self.receive.borrow_mut();
        let lingered = &mut receive.rest().lingered;
        *lingered += bytes as u64;
        let is_over = *lingered > LINGER_BYTES_MAX;
        drop(receive);
        if is_over {
            self.finish("the peer goes on sending");
        }
    }

    /// A lease on no bytes.
    pub(crate) fn no_bytes(&self) -> Lease {
        Lease::new(&self.copy(&[]), 0..0)
    }

    fn owned_buffer(&self, len: usize) -> OwnedBuffer {
        self.shard.owned.take(len)
    }

    #[inline]
    pub(crate) fn pool_buffer_len(&self) -> usize {
        self.shard.config.ring.pool_buffer_len as usize
    }

    /// Whether so few receive buffers are free that none may be held.
    #[inline]
    fn is_pool_short(&self) -> bool {
        let pool = &self.shard.pool;
        pool.free() < pool.len() / POOL_PRESSURE_DIVISOR
    }
}

/// A lease on a body in a buffer of our own.
fn lease_of(buffer: OwnedBuffer, filled: usize, body: Range<usize>) -> Lease {
    Lease::new(&Chunk::of_owned(buffer.share(), filled), body)
}
