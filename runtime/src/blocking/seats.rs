//! Outcomes that wait to be taken, by the slots of their calls.
//!
//! A call keeps its slot until its outcome was taken, so no two have one seat. A client may be sent
//! to another thread between two calls, so what is kept here can be too.

use std::ops::Range;

use ringcall_codec::{CallId, Status, limits::FRAME_ALIGN};
use rkyv::util::AlignedVec;

/// The calls that were made and whose outcomes were not taken. As many as may be in flight.
#[derive(Debug, Default)]
pub(super) struct Seats {
    outcomes: Vec<Outcome>,
    taken: usize,
}

/// How far a call is.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The slot has no call, or nobody waits for it.
    Nobody,
    Awaited,
    Reply(Box<Kept>),
    Failed(Box<Status>),
}

/// A frame's metadata and body, in memory of their own.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) bytes: AlignedVec<FRAME_ALIGN>,
    /// Where in the bytes metadata and body are.
    pub(super) payload: Range<usize>,
    /// Length of the metadata in units of 16 bytes.
    pub(super) meta_len: u16,
}

impl Seats {
    /// Notes that somebody waits for the outcome of a call.
    pub(super) fn wait(&mut self, call: CallId) {
        let slot = call.slot() as usize;
        if slot >= self.outcomes.len() {
            self.outcomes.resize_with(slot + 1, || Outcome::Nobody);
        }
        debug_assert!(matches!(self.outcomes[slot], Outcome::Nobody), "the slot is taken");
        self.outcomes[slot] = Outcome::Awaited;
        self.taken += 1;
    }

    /// Leaves an outcome for who waits for it, if somebody does.
    pub(super) fn settle(&mut self, call: CallId, outcome: Outcome) {
        if let Some(seat @ Outcome::Awaited) = self.outcomes.get_mut(call.slot() as usize) {
            *seat = outcome;
        }
    }

    /// Takes the outcome of a call, once it is there: else it is still awaited.
    pub(super) fn take(&mut self, call: CallId) -> Outcome {
        match self.outcomes.get_mut(call.slot() as usize) {
            None | Some(Outcome::Nobody) => Outcome::Nobody,
            Some(Outcome::Awaited) => Outcome::Awaited,
            Some(seat) => {
                self.taken -= 1;
                std::mem::replace(seat, Outcome::Nobody)
            }
        }
    }

    /// Nobody waits for a call any more, or its outcome was taken elsewhere.
    pub(super) fn forget(&mut self, call: CallId) {
        if let Some(seat) = self.outcomes.get_mut(call.slot() as usize)
            && !matches!(seat, Outcome::Nobody)
        {
            *seat = Outcome::Nobody;
            self.taken -= 1;
        }
    }

    /// Fails every call that has no outcome yet.
    pub(super) fn fail_all(&mut self, status: &Status) {
        for seat in &mut self.outcomes {
            if let Outcome::Awaited = seat {
                *seat = Outcome::Failed(Box::new(status.clone()));
            }
        }
    }

    /// Calls whose outcomes were not taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}
