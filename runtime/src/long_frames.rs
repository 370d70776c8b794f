//! Frames that come in parts: each part received to its place.
//!
//! Beside the path of a call, after the ring. A part is received exactly, and with it the header
//! that follows: it lands where the next part of the frame belongs, is taken from there, and the
//! next part is received over it. So a long body is contiguous, is not copied, and costs one
//! receive for each part.

use std::rc::Rc;

use ringcall_codec::{Header, Kind, Lent, Partial, Step, limits::HEADER_LEN};

use crate::{
    connection::Connection,
    receive::{Assembly, Large, Progress},
    ring::{Chunk, OwnedBuffer},
};

/// What is received of a stream in which a long frame is expected: its header, and that of its
/// first part.
pub(crate) const LONG_START_LEN: usize = 2 * HEADER_LEN;

/// A part that is being received, while the kernel has the buffer.
pub(crate) struct PartPlace {
    lent: Lent<Progress>,
    /// Bytes of it that have come.
    received: usize,
    /// Whether the header behind it comes with it: there is one in any case, and room for it.
    with_head: bool,
}

impl PartPlace {
    /// Bytes to be received: the part, and perhaps the header behind it.
    fn len(&self) -> usize {
        let head = if self.with_head { HEADER_LEN } else { 0 };
        self.part_len() + head
    }

    /// Bytes of the part, with its padding.
    fn part_len(&self) -> usize {
        self.lent.len + self.lent.padding
    }
}

impl Connection {
    /// Receives what is still to come of the part that is cut.
    pub(crate) fn receive_part(self: &Rc<Self>) {
        let lent = self.receive.borrow_mut().decoder.lend_part();
        let Some(lent) = lent else { return };
        let mut kept = None;
        let lent = lent.map(|Assembly { buffer, progress }| {
            kept = Some(buffer);
            progress
        });
        if let Some(buffer) = kept {
            let end = lent.buffer.filled + lent.len + lent.padding;
            let with_head = lent.more && end + HEADER_LEN <= buffer.len();
            self.receive_rest_of_part(PartPlace { lent, received: 0, with_head }, buffer);
        }
    }

    fn receive_rest_of_part(&self, place: PartPlace, buffer: OwnedBuffer) {
        let Some(socket) = self.socket() else { return };
        let start = place.lent.buffer.filled;
        let (from, to) = (start + place.received, start + place.len());
        let mut receive = self.receive.borrow_mut();
        receive.set_large(Large::Part(place));
        let mut ring = self.shard.ring.borrow_mut();
        receive.op = Some(ring.recv_into(socket, self.key, buffer, from, to, true));
    }

    /// Bytes of a part have come to their place.
    pub(crate) fn part_received(
        self: &Rc<Self>,
        mut place: PartPlace,
        buffer: OwnedBuffer,
        received: usize,
    ) {
        self.session.borrow_mut().handle_bytes(self.shard.now_us());
        place.received += received;
        if place.received < place.len() {
            self.set_timer();
            return self.receive_rest_of_part(place, buffer);
        }
        let (len, with_head) = (place.part_len(), place.with_head);
        let end = place.lent.buffer.filled + len;
        let head: Option<[u8; HEADER_LEN]> =
            buffer[end..].first_chunk().copied().filter(|_| with_head);
        let body_len = place.lent.len;
        let lent = place.lent.map(|mut progress| {
            progress.filled += body_len;
            Assembly { buffer, progress }
        });
        let step = self.receive.borrow_mut().decoder.take_part_back(lent, len);
        match step {
            Step::Assembled(frame) => self.long_frame(frame),
            _ => self.session.borrow_mut().handle_skipped(),
        }
        if let Some(head) = head {
            self.read_head(&head);
        }
        self.note_cut();
        self.set_timer();
        self.rearm();
    }

    /// A frame whose last part was received to its place is complete.
    fn long_frame(self: &Rc<Self>, frame: Partial<Assembly>) {
        self.receive.borrow_mut().expect_long();
        self.assembled(frame);
    }

    /// Reads the header that came with a part.
    fn read_head(self: &Rc<Self>, head: &[u8; HEADER_LEN]) {
        let is_part = Header::parse(head).is_ok_and(|header| header.kind == Kind::Part);
        if !is_part || self.must_not_read() {
            let mut buffer = self.shard.owned.take(HEADER_LEN);
            buffer[..HEADER_LEN].copy_from_slice(head);
            return self.take(Chunk::of_owned(buffer.share(), HEADER_LEN));
        }
        match self.next_step(head, &mut 0) {
            Ok(_) => {}
            Err(error) => self.fail(error),
        }
    }
}
