//! What waits to be sent at one end: cut into pieces, each of which goes whole, however little the
//! line takes at a time.

use std::ops::Range;

use ringcall_codec::{Interleaver, Piece};

pub(crate) struct Outbox {
    interleaver: Interleaver,
    /// The piece that is being sent: from here to there.
    piece: Option<Piece>,
    /// What is sent together.
    bytes: Vec<u8>,
}

impl Outbox {
    /// Frames longer than `part_len` go in parts.
    pub(crate) fn new(part_len: usize) -> Self {
        Self { interleaver: Interleaver::new(part_len), piece: None, bytes: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.piece.is_none() && self.interleaver.is_empty()
    }

    /// Takes output of the session: whole frames.
    pub(crate) fn push(&mut self, output: Vec<u8>) {
        self.interleaver.push(output);
    }

    /// Bytes that wait, but for one long frame and the piece that is being sent.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.interleaver.waiting_bytes()
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.interleaver.shrink_to_fit();
    }

    /// Takes as much as there is room for.
    pub(crate) fn take(&mut self, room: usize) -> &[u8] {
        self.bytes.clear();
        while self.bytes.len() < room {
            let next = self.piece.take().or_else(|| self.interleaver.next_piece());
            let Some(mut piece) = next else { break };
            let Range { start, end } = piece.range;
            let to = end.min(start.saturating_add(room - self.bytes.len()));
            self.bytes.extend_from_slice(&piece.bytes[start..to]);
            piece.range.start = to;
            if piece.range.is_empty() {
                self.interleaver.sent(piece.bytes);
            } else {
                self.piece = Some(piece);
            }
        }
        &self.bytes
    }
}
