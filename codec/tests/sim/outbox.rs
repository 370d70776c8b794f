//! What waits to be sent at one end: cut into pieces, each of which goes whole, however little the
//! line takes at a time.

use ringcall_codec::{Interleaver, Piece};

pub(crate) struct Outbox {
    interleaver: Interleaver,
    /// The piece that is being sent: from here to there.
    piece: Option<Piece>,
}

impl Outbox {
    /// Frames longer than `part_len` go in parts.
    pub(crate) fn new(part_len: usize) -> Self {
        Self { interleaver: Interleaver::new(part_len), piece: None }
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

    /// Sends as much as there is room for.
    pub(crate) fn send(&mut self, mut room: usize, mut send: impl FnMut(&[u8])) {
        while room > 0 {
            let Some(mut piece) = self.piece.take().or_else(|| self.interleaver.next_piece())
            else {
                return;
            };
            let to = piece.range.end.min(piece.range.start.saturating_add(room));
            send(&piece.bytes[piece.range.start..to]);
            room -= to - piece.range.start;
            piece.range.start = to;
            if piece.range.is_empty() {
                self.interleaver.sent(piece.bytes);
            } else {
                self.piece = Some(piece);
            }
        }
    }
}
