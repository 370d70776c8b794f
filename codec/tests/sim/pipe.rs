//! One direction of a connection: bytes that arrive in order, later, in other pieces.

use std::collections::VecDeque;

use crate::core::{Core, Place, Task};

/// Room that is worth a piece, in bytes. The smallest window has more.
const ROOM_MIN: usize = 1 << 10;

pub(crate) struct Pipe {
    /// The end that receives.
    to: Place,
    pieces: VecDeque<Piece>,
    /// Bytes on their way, those that never arrive included.
    in_flight: u64,
    last_due_us: u64,
    /// When the line is free for the next byte.
    line_free_us: u64,
    stalled_until_us: u64,
    changes_next: bool,
    /// Nothing more is taken: the last piece is the end.
    is_shut: bool,
    /// Nothing arrives any more.
    is_lost: bool,
}

pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Fin,
}

impl Pipe {
    pub(crate) fn new(to: Place) -> Self {
        Self {
            to,
            pieces: VecDeque::new(),
            in_flight: 0,
            last_due_us: 0,
            line_free_us: 0,
            stalled_until_us: 0,
            changes_next: false,
            is_shut: false,
            is_lost: false,
        }
    }

    /// How many more bytes can be on their way. As with TCP not told of before it is worth a piece,
    /// or a full line would go on byte by byte.
    pub(crate) fn room(&self, core: &Core) -> usize {
        let room = core.plan.window.saturating_sub(self.in_flight) as usize;
        if room < ROOM_MIN { 0 } else { room }
    }

    /// Sends bytes, cut into pieces.
    pub(crate) fn send(&mut self, core: &mut Core, bytes: &[u8]) {
        if self.is_shut {
            return;
        }
        self.in_flight += bytes.len() as u64;
        if self.is_lost {
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = self.piece_len(core).min(rest.len());
            let (piece, after) = rest.split_at(len);
            rest = after;
            // A line that was slow is not once faults have stopped.
            let line_us = piece.len() as u64 * 1_000_000 / core.plan.bytes_per_s;
            let line_us = if core.is_calm { 0 } else { line_us };
            self.line_free_us = self.line_free_us.max(core.now_us) + line_us;
            self.push(core, Piece::Bytes(piece.to_vec()));
        }
    }

    fn piece_len(&self, core: &mut Core) -> usize {
        if core.random.percent(core.plan.tiny_pieces) {
            core.random.between(1, 70) as usize
        } else {
            core.random.between(1, 1 << 15) as usize
        }
    }

    /// Sends the end, after all that was sent.
    pub(crate) fn shut(&mut self, core: &mut Core) {
        if !self.is_shut && !self.is_lost {
            self.push(core, Piece::Fin);
        }
        self.is_shut = true;
    }

    fn push(&mut self, core: &mut Core, piece: Piece) {
        let delay_us = core.random.between(core.plan.delay_us_max / 2, core.plan.delay_us_max);
        let due_us = self.last_due_us.max(core.now_us.max(self.line_free_us) + delay_us);
        self.last_due_us = due_us;
        if due_us > core.now_us + 2 * core.plan.delay_us_max + 20_000 {
            core.facts(self.to).is_backlogged = true;
        }
        self.pieces.push_back(piece);
        core.at(due_us, Task::Deliver(self.to));
    }

    /// The next piece, if it arrives now.
    pub(crate) fn arrive(&mut self, core: &mut Core) -> Option<Piece> {
        if self.stalled_until_us > core.now_us {
            core.at(self.stalled_until_us, Task::Deliver(self.to));
            return None;
        }
        let mut piece = self.pieces.pop_front()?;
        if let Piece::Bytes(bytes) = &mut piece {
            self.in_flight -= bytes.len() as u64;
            if std::mem::take(&mut self.changes_next) {
                core.facts(self.to).is_tainted = true;
                core.excuse(self.to, "changed bytes");
                for _ in 0..core.random.between(1, 3) {
                    let at = core.random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << core.random.below(8);
                }
                core.note(self.to, "bytes change", &[]);
            }
        }
        Some(piece)
    }

    /// Stands still until then.
    pub(crate) fn stall(&mut self, until_us: u64) {
        self.stalled_until_us = self.stalled_until_us.max(until_us);
    }

    /// Changes bits of the next piece that arrives.
    pub(crate) fn change_next(&mut self) {
        self.changes_next = true;
    }

    /// Stands still and changes bytes no more.
    pub(crate) fn heal(&mut self) {
        self.stalled_until_us = 0;
        self.changes_next = false;
    }

    /// Ends somewhere in what is on its way; what is sent from now on is thrown away.
    pub(crate) fn cut(&mut self, core: &mut Core) {
        if self.is_shut || self.is_lost {
            return;
        }
        let kept = core.random.below(self.pieces.len() as u64 + 1) as usize;
        for piece in self.pieces.drain(kept..) {
            if let Piece::Bytes(bytes) = piece {
                self.in_flight -= bytes.len() as u64;
            }
        }
        if let Some(Piece::Bytes(bytes)) = self.pieces.back_mut() {
            let len = core.random.between(1, bytes.len() as u64);
            self.in_flight -= bytes.len() as u64 - len;
            bytes.truncate(len as usize);
        }
        self.shut(core);
    }

    /// Nothing arrives any more, the end neither.
    pub(crate) fn lose(&mut self) {
        self.is_lost = true;
        self.pieces.clear();
    }
}
