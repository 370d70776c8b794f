//! Outcomes that wait to be taken, by their calls.
//!
//! By the whole id and not by slot: the slot of a call that was given up at its deadline is free
//! as soon as the server has answered, and another call may have it before the first is finished.
//!
//! A client may be sent to another thread between two calls, so what is kept here can be too.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
};

use ringcall_codec::{CallId, Status, limits::FRAME_ALIGN};
use rkyv::util::AlignedVec;

/// The calls that were made and whose outcomes were not taken.
#[derive(Debug, Default)]
pub(super) struct Seats(HashMap<CallId, Outcome>);

/// How far a call is.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has no outcome yet.
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
        self.0.insert(call, Outcome::Awaited);
    }

    /// Leaves an outcome for who waits for it, if somebody does.
    pub(super) fn settle(&mut self, call: CallId, outcome: Outcome) {
        if let Some(seat @ Outcome::Awaited) = self.0.get_mut(&call) {
            *seat = outcome;
        }
    }

    /// Takes the outcome of a call, once it is there: else it is still awaited. None where nobody
    /// waits for the call.
    pub(super) fn take(&mut self, call: CallId) -> Option<Outcome> {
        match self.0.entry(call) {
            Entry::Occupied(seat) => match seat.get() {
                Outcome::Awaited => Some(Outcome::Awaited),
                _ => Some(seat.remove()),
            },
            Entry::Vacant(_) => None,
        }
    }

    /// Nobody waits for a call any more, or its outcome was taken elsewhere.
    pub(super) fn forget(&mut self, call: CallId) {
        self.0.remove(&call);
    }

    /// Fails every call that has no outcome yet.
    pub(super) fn fail_all(&mut self, status: &Status) {
        for seat in self.0.values_mut() {
            if let Outcome::Awaited = seat {
                *seat = Outcome::Failed(Box::new(status.clone()));
            }
        }
    }

    /// Calls whose outcomes were not taken.
    pub(super) fn taken(&self) -> usize {
        self.0.len()
    }
}
