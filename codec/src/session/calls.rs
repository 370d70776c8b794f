//! Tables of the calls in flight, one entry a slot: looked up by index, bounded, and a stale id
//! never finds a later call.
//!
//! What only some calls have (a deadline, items) stands beside the table, in `extras.rs`, so that
//! what every call looks at is eight bytes. A table is as long as the calls in flight were once;
//! all its places are filled, so that it is two words of the session.

use alloc::{boxed::Box, vec::Vec};

use super::{
    extras::{Extras, NEVER, grow},
    streams::Stream,
};
use crate::{header::CallId, status::Code};

/// What both sides have: calls by their slots, and what some of them have beside that.
#[derive(Debug)]
pub(super) struct Table<S> {
    slots: Box<[Slot<S>]>,
    extras: Extras,
}

#[derive(Clone, Copy, Debug)]
struct Slot<S> {
    /// The generation of the last call in this slot; zero before the first.
    generation: u32,
    state: S,
    has_extras: bool,
}

const _: () = assert!(size_of::<Slot<OpenState>>() == 8);
const _: () = assert!(size_of::<Slot<AcceptedState>>() == 8);

impl<S> Table<S> {
    fn new() -> Self {
        Self { slots: Box::default(), extras: Extras::default() }
    }

    /// The slot of a call, where the call is the last that had it.
    #[inline]
    fn get(&self, call: CallId) -> Option<&Slot<S>> {
        let slot = self.slots.get(call.slot() as usize);
        slot.filter(|slot| slot.generation == call.generation())
    }

    #[inline]
    fn get_mut(&mut self, call: CallId) -> Option<&mut Slot<S>> {
        let slot = self.slots.get_mut(call.slot() as usize);
        slot.filter(|slot| slot.generation == call.generation())
    }

    #[inline]
    fn has_extras(&self, call: CallId) -> bool {
        self.get(call).is_some_and(|slot| slot.has_extras)
    }

    /// Gives the memory back of what only some calls have. No call runs. The slots stay, which tell
    /// what an id of the past is from one that was never used.
    fn clear_extras(&mut self) {
        self.extras.clear();
        for slot in &mut self.slots {
            slot.has_extras = false;
        }
    }

    /// When to look for expired calls next, in microseconds.
    #[inline]
    pub(super) fn earliest_us(&self) -> u64 {
        self.extras.earliest_us()
    }

    /// Makes a call that was just entered a stream.
    pub(super) fn begin_stream(&mut self, call: CallId, stream: Box<Stream>) {
        if let Some(slot) = self.get_mut(call) {
            if !core::mem::replace(&mut slot.has_extras, true) {
                self.extras.begin(call.slot(), NEVER);
            }
            self.extras.set_stream(call.slot(), stream);
        }
    }

    /// The stream of a call, where it is one and has not ended.
    pub(super) fn stream(&self, call: CallId) -> Option<&Stream> {
        if self.has_extras(call) { self.extras.stream(call.slot()) } else { None }
    }

    #[inline]
    pub(super) fn stream_mut(&mut self, call: CallId) -> Option<&mut Stream> {
        if self.has_extras(call) { self.extras.stream_mut(call.slot()) } else { None }
    }

    /// Ends the stream of a call, if it is one.
    #[inline]
    pub(super) fn take_stream(&mut self, call: CallId) -> Option<Box<Stream>> {
        if self.has_extras(call) { self.extras.take_stream(call.slot()) } else { None }
    }
}

/// The caller's side: hands out slots.
#[derive(Debug)]
pub(super) struct OpenCalls {
    pub(super) table: Table<OpenState>,
    /// As long as the table: first the slots that are free, the next to be taken last.
    free: Box<[u32]>,
    free_len: u32,
    limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenState {
    /// No call has the slot.
    Free,
    /// Somebody waits for the response.
    Waiting,
    /// The response came and its outcome was not taken yet.
    Answered,
    /// Its time was up, which was not taken yet, and the response is still to come. The slot stays
    /// taken until both, or who made the call would take another call's outcome.
    Expired,
    /// The response will come and nobody waits for it. The slot stays taken until then, or the
    /// peer would see it used twice.
    Abandoned,
}

impl OpenCalls {
    pub(super) fn new(limit: u32) -> Self {
        Self { table: Table::new(), free: Box::default(), free_len: 0, limit }
    }

    /// Takes a slot; `None` where all are taken.
    #[inline]
    pub(super) fn open(&mut self, deadline_us: u64) -> Option<CallId> {
        if self.free_len == 0 && !self.grow() {
            return None;
        }
        self.free_len -= 1;
        let slot = self.free[self.free_len as usize];
        let entry = &mut self.table.slots[slot as usize];
        // Zero is no generation, so that no call has the id zero.
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.state = OpenState::Waiting;
        entry.has_extras = deadline_us != NEVER;
        if entry.has_extras {
            self.table.extras.begin(slot, deadline_us);
        }
        Some(CallId::new(slot, entry.generation))
    }

    /// Makes more slots, all of them free. False where there are as many as there may be.
    #[cold]
    fn grow(&mut self) -> bool {
        let (had, limit) = (self.table.slots.len(), self.limit as usize);
        if had >= limit {
            return false;
        }
        grow(&mut self.table.slots, had + 1, limit, || Slot::<OpenState>::EMPTY);
        let len = self.table.slots.len();
        grow(&mut self.free, len, len, || 0);
        // The lowest is taken first.
        for slot in (had as u32..len as u32).rev() {
            self.push_free(slot);
        }
        true
    }

    #[inline]
    fn push_free(&mut self, slot: u32) {
        self.free[self.free_len as usize] = slot;
        self.free_len += 1;
    }

    /// Notes that a call's response came, and says how the call was left until then; `None`
    /// where it is not in flight. The slot of an abandoned call is free at once, the slot of
    /// another after [`release`](Self::release), which may have been before.
    #[inline]
    pub(super) fn answer(&mut self, call: CallId) -> Option<OpenState> {
        let entry = self.table.get_mut(call)?;
        let was = entry.state;
        match was {
            OpenState::Waiting | OpenState::Expired => entry.state = OpenState::Answered,
            OpenState::Abandoned => {
                entry.state = OpenState::Free;
                self.push_free(call.slot());
            }
            OpenState::Free | OpenState::Answered => return None,
        }
        Some(was)
    }

    /// Frees the slot of a call whose outcome was taken, where it was answered. The slot of another
    /// stays taken: the peer still runs it.
    #[inline]
    pub(super) fn release(&mut self, call: CallId) {
        if !self.free_from(call, OpenState::Answered) {
            self.release_expired(call);
        }
    }

    #[cold]
    fn release_expired(&mut self, call: CallId) {
        if let Some(entry) = self.table.get_mut(call)
            && entry.state == OpenState::Expired
        {
            entry.state = OpenState::Abandoned;
        }
    }

    /// Frees the slot of a call whose request was not sent.
    #[cold]
    pub(super) fn undo_open(&mut self, call: CallId) {
        let was_open = self.free_from(call, OpenState::Waiting);
        debug_assert!(was_open, "it was opened just before");
    }

    /// Frees the slot of a call where it is in this state. False where it is not.
    #[inline]
    fn free_from(&mut self, call: CallId, state: OpenState) -> bool {
        if let Some(entry) = self.table.get_mut(call)
            && entry.state == state
        {
            entry.state = OpenState::Free;
            self.push_free(call.slot());
            return true;
        }
        false
    }

    /// Marks that nobody waits for the call any more, and says whether its response is still to
    /// come. The slot of one that was answered is free at once.
    pub(super) fn abandon(&mut self, call: CallId) -> bool {
        let Some(entry) = self.table.get_mut(call) else { return false };
        match entry.state {
            OpenState::Waiting => {
                entry.state = OpenState::Abandoned;
                true
            }
            OpenState::Answered | OpenState::Expired => {
                self.release(call);
                false
            }
            OpenState::Free | OpenState::Abandoned => false,
        }
    }

    /// Ends every call whose deadline is past, for who made it.
    pub(super) fn expire(&mut self, now_us: u64, mut on_expired: impl FnMut(CallId)) {
        let slots = &mut self.table.slots;
        self.table.extras.expire(now_us, |slot| match slots.get_mut(slot as usize) {
            Some(entry) if entry.state == OpenState::Waiting && entry.has_extras => {
                entry.state = OpenState::Expired;
                on_expired(CallId::new(slot, entry.generation));
            }
            _ => {}
        });
    }

    /// Whether the response of a call is still to come, and nobody waits for it.
    pub(super) fn is_abandoned(&self, call: CallId) -> bool {
        let entry = self.table.get(call);
        entry.is_some_and(|entry| matches!(entry.state, OpenState::Abandoned | OpenState::Expired))
    }

    /// Whether the response of a call is still to come.
    pub(super) fn is_in_flight(&self, call: CallId) -> bool {
        self.table
            .get(call)
            .is_some_and(|entry| !matches!(entry.state, OpenState::Free | OpenState::Answered))
    }

    /// Lowers the limit to what the peer accepts.
    pub(super) fn limit_to(&mut self, limit: u32) {
        self.limit = self.limit.min(limit);
    }

    /// Whether a slot is free.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.len() < self.limit as usize
    }

    /// Calls in flight, abandoned ones included.
    pub(super) fn len(&self) -> usize {
        self.table.slots.len() - self.free_len as usize
    }

    /// Gives memory back that only calls in flight need. There are none.
    pub(super) fn shrink_to_fit(&mut self) {
        self.table.clear_extras();
    }
}

impl Slot<OpenState> {
    const EMPTY: Self = Self { generation: 0, state: OpenState::Free, has_extras: false };
}

/// The server's side: the peer chooses slots, and may not choose one twice.
#[derive(Debug)]
pub(super) struct AcceptedCalls {
    pub(super) table: Table<AcceptedState>,
    limit: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AcceptedState {
    /// No call runs in the slot.
    Free,
    Running,
    /// The call is to end as soon as its handler has stopped: its caller gave up.
    Cancelled,
    /// The same: its deadline is past.
    Expired,
}

impl Slot<AcceptedState> {
    const EMPTY: Self = Self { generation: 0, state: AcceptedState::Free, has_extras: false };
}

/// Why a call is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BeyondLimit,
    GenerationZero,
    Reused,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// It was not running.
    NotRunning,
    /// As its handler wanted.
    InTime,
    /// After it was told to stop, for this reason.
    Stopped(Code),
}

impl AcceptedCalls {
    pub(super) fn new(limit: u32) -> Self {
        Self { table: Table::new(), limit, len: 0 }
    }

    /// Enters a call.
    #[inline]
    pub(super) fn accept(&mut self, call: CallId, deadline_us: u64) -> Result<(), Refusal> {
        if call.slot() >= self.limit {
            return Err(Refusal::BeyondLimit);
        }
        if call.generation() == 0 {
            return Err(Refusal::GenerationZero);
        }
        let slot = call.slot() as usize;
        if slot >= self.table.slots.len() {
            let limit = self.limit as usize;
            grow(&mut self.table.slots, slot + 1, limit, || Slot::<AcceptedState>::EMPTY);
        }
        let entry = &mut self.table.slots[slot];
        // A later generation is less than half the range ahead.
        let ahead = call.generation().wrapping_sub(entry.generation);
        let is_later = ahead != 0 && ahead < 1 << 31;
        if entry.state != AcceptedState::Free || (entry.generation != 0 && !is_later) {
            return Err(Refusal::Reused);
        }
        let (state, has_extras) = (AcceptedState::Running, deadline_us != NEVER);
        *entry = Slot { generation: call.generation(), state, has_extras };
        if has_extras {
            self.table.extras.begin(call.slot(), deadline_us);
        }
        self.len += 1;
        Ok(())
    }

    /// Ends a call.
    #[inline]
    pub(super) fn finish(&mut self, call: CallId) -> Finished {
        let Some(entry) = self.table.get_mut(call) else { return Finished::NotRunning };
        let finished = match entry.state {
            AcceptedState::Free => return Finished::NotRunning,
            AcceptedState::Running => Finished::InTime,
            AcceptedState::Cancelled => Finished::Stopped(Code::Cancelled),
            AcceptedState::Expired => Finished::Stopped(Code::DeadlineExceeded),
        };
        entry.state = AcceptedState::Free;
        self.len -= 1;
        finished
    }

    /// Marks that the caller gave a call up. False where it does not run, or is to stop already.
    pub(super) fn cancel(&mut self, call: CallId) -> bool {
        match self.table.get_mut(call) {
            Some(entry) if entry.state == AcceptedState::Running => {
                entry.state = AcceptedState::Cancelled;
                true
            }
            _ => false,
        }
    }

    /// Marks every call whose deadline is past to stop.
    pub(super) fn expire(&mut self, now_us: u64, mut on_expired: impl FnMut(CallId)) {
        let slots = &mut self.table.slots;
        self.table.extras.expire(now_us, |slot| match slots.get_mut(slot as usize) {
            Some(entry) if entry.state == AcceptedState::Running && entry.has_extras => {
                entry.state = AcceptedState::Expired;
                on_expired(CallId::new(slot, entry.generation));
            }
            _ => {}
        });
    }

    /// The deadline of a call that runs, in microseconds; [`NEVER`] where it has none, or it is
    /// past.
    pub(super) fn deadline_us(&self, call: CallId) -> u64 {
        if self.table.has_extras(call) { self.table.extras.deadline_us(call.slot()) } else { NEVER }
    }

    /// Whether a call runs and was told to stop.
    pub(super) fn is_stopping(&self, call: CallId) -> bool {
        self.table.get(call).is_some_and(|entry| {
            matches!(entry.state, AcceptedState::Cancelled | AcceptedState::Expired)
        })
    }

    /// Why a call that runs was told to stop, where it was.
    pub(super) fn why_stopping(&self, call: CallId) -> Option<Code> {
        match self.table.get(call)?.state {
            AcceptedState::Cancelled => Some(Code::Cancelled),
            AcceptedState::Expired => Some(Code::DeadlineExceeded),
            AcceptedState::Free | AcceptedState::Running => None,
        }
    }

    /// Whether the call has ended, and none has come in its slot since.
    pub(super) fn was_last(&self, call: CallId) -> bool {
        self.table.get(call).is_some_and(|entry| entry.state == AcceptedState::Free)
    }

    /// Ends every call that runs, and gives them.
    pub(super) fn finish_all(&mut self) -> Vec<CallId> {
        self.len = 0;
        let extras = &mut self.table.extras;
        let running = self.table.slots.iter_mut().enumerate();
        running
            .filter(|(_, entry)| entry.state != AcceptedState::Free)
            .map(|(slot, entry)| {
                entry.state = AcceptedState::Free;
                if entry.has_extras {
                    extras.take_stream(slot as u32);
                }
                CallId::new(slot as u32, entry.generation)
            })
            .collect()
    }

    /// Gives memory back that only calls that run need. There are none.
    pub(super) fn shrink_to_fit(&mut self) {
        self.table.clear_extras();
    }

    /// Highest slot that a call may have, and one.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Calls running.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}
