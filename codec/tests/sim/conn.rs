//! A connection: two ends and the bytes between them.

use crate::{
    core::{Core, Place},
    end::{End, EndState},
    pipe::{Piece, Pipe},
};

pub(crate) struct Conn {
    pub(crate) ends: [End; 2],
    /// By the end that sends.
    pub(crate) pipes: [Pipe; 2],
    /// The nodes of the ends.
    pub(crate) nodes: [usize; 2],
    /// A node crashed without a word: nothing arrives, and nobody is told.
    pub(crate) has_vanished: bool,
}

impl Conn {
    pub(crate) fn new(core: &mut Core, conn: usize, nodes: [usize; 2]) -> Self {
        let [client, server] = [0, 1].map(|side| Place { conn, side });
        let mut conn = Self {
            ends: [End::new(core, client, nodes[0]), End::new(core, server, nodes[1])],
            pipes: [Pipe::new(server), Pipe::new(client)],
            nodes,
            has_vanished: false,
        };
        conn.settle(core, 0);
        conn.settle(core, 1);
        conn
    }

    /// The next piece arrives.
    pub(crate) fn deliver(&mut self, core: &mut Core, side: usize) {
        match self.pipes[1 - side].arrive(core) {
            None => return,
            Some(Piece::Bytes(bytes)) => self.ends[side].on_bytes(core, &bytes),
            Some(Piece::Fin) => self.ends[side].on_fin(core),
        }
        self.settle(core, side);
        // There is room on the line again.
        self.settle(core, 1 - side);
    }

    /// After anything that has happened at an end: checks it, and does what is due.
    pub(crate) fn settle(&mut self, core: &mut Core, side: usize) {
        let end = &mut self.ends[side];
        end.settle(core);
        match end.state {
            EndState::Live => {
                let room = self.pipes[side].room(core);
                let output = end.session.output();
                if core.is_sure(end.place) {
                    core.items.check_said(end.place, output);
                }
                if !output.is_empty() {
                    end.outbox.push(std::mem::take(output));
                }
                let bytes = end.outbox.take(room);
                if !bytes.is_empty() {
                    self.pipes[side].send(core, bytes);
                }
                if !end.outbox.is_empty() {
                    core.facts(end.place).is_backlogged = true;
                }
            }
            EndState::Closing => {
                end.outbox.push(std::mem::take(end.session.output()));
                self.pipes[side].send(core, end.outbox.take(usize::MAX));
                self.pipes[side].shut(core);
                end.state = EndState::Closed;
            }
            EndState::Closed => {}
        }
    }

    /// Nothing arrives any more, at either end.
    pub(crate) fn lose(&mut self) {
        for pipe in &mut self.pipes {
            pipe.lose();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.state == EndState::Closed)
    }
}
