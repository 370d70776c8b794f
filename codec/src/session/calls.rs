//! Tables of the calls in flight, one entry a slot: looked up by index, bounded, and a stale id
//! never finds a later call.
//!
//! Deadlines stand in the tables. Each table knows a time before which none of its deadlines
//! falls; only when that is past are its entries looked at, and the time is found anew. So a
//! deadline costs nothing while calls are answered in time, and needs no memory of its own.

use alloc::{boxed::Box, vec::Vec};

use super::streams::Stream;
use crate::{header::CallId, status::Code};

/// What both tables say of the streams among their calls.
pub(super) trait StreamState {
    /// The stream of a call, where it is one and has not ended.
    fn stream(&self, call: CallId) -> Option<&Stream>;
}

/// The time of no deadline, and that of a table without any.
pub(super) const NEVER: u64 = u64::MAX;

/// The caller's side: hands out slots.
#[derive(Debug)]
pub(super) struct OpenCalls {
    slots: Vec<OpenSlot>,
    free: Vec<u32>,
    limit: u32,
    /// No deadline falls before this time, in microseconds.
    earliest_us: u64,
}

#[derive(Debug)]
struct OpenSlot {
    generation: u32,
    state: OpenState,
    deadline_us: u64,
    /// The items of a call that is a stream, while somebody waits for them.
    stream: Option<Box<Stream>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenState {
    /// No call has the slot.
    Free,
    /// Somebody waits for the response.
    Waiting,
    /// The response came and its outcome was not taken yet.
    Answered,
    /// The response will come and nobody waits for it. The slot stays taken until then, or the
    /// peer would see it used twice.
    Abandoned,
}

impl OpenCalls {
    pub(super) fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit, earliest_us: NEVER }
    }

    /// Takes a slot; `None` where all are taken.
    #[inline]
    pub(super) fn open(&mut self, deadline_us: u64) -> Option<CallId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.limit as usize => {
                let (state, deadline_us) = (OpenState::Free, NEVER);
                self.slots.push(OpenSlot { generation: 0, state, deadline_us, stream: None });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let entry = &mut self.slots[slot as usize];
        // Zero is no generation, so that no call has the id zero.
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.state = OpenState::Waiting;
        entry.deadline_us = deadline_us;
        self.earliest_us = self.earliest_us.min(deadline_us);
        Some(CallId::new(slot, entry.generation))
    }

    /// Notes that a call's response came, and says how the call was left until then; `None`
    /// where it is not in flight. The slot of an abandoned call is free at once, the slot of
    /// another after [`release`](Self::release).
    #[inline]
    pub(super) fn answer(&mut self, call: CallId) -> Option<OpenState> {
        let entry = self.slots.get_mut(call.slot() as usize)?;
        if entry.generation != call.generation() {
            return None;
        }
        let was = entry.state;
        match was {
            OpenState::Waiting => entry.state = OpenState::Answered,
            OpenState::Abandoned => {
                entry.state = OpenState::Free;
                self.free.push(call.slot());
            }
            OpenState::Free | OpenState::Answered => return None,
        }
        Some(was)
    }

    /// Frees the slot of a call that was answered. The slot of another stays taken: the peer
    /// still runs it.
    #[inline]
    pub(super) fn release(&mut self, call: CallId) {
        self.free_from(call, OpenState::Answered);
    }

    /// Frees the slot of a call whose request was not sent.
    #[cold]
    pub(super) fn undo_open(&mut self, call: CallId) {
        self.free_from(call, OpenState::Waiting);
    }

    #[inline]
    fn free_from(&mut self, call: CallId, state: OpenState) {
        if let Some(entry) = self.slots.get_mut(call.slot() as usize)
            && entry.generation == call.generation()
            && entry.state == state
        {
            entry.state = OpenState::Free;
            self.free.push(call.slot());
        }
    }

    /// Marks that nobody waits for the call any more, and says whether its response is still to
    /// come. The slot of one that was answered is free at once.
    pub(super) fn abandon(&mut self, call: CallId) -> bool {
        let Some(entry) = self.slots.get_mut(call.slot() as usize) else {
            return false;
        };
        if entry.generation != call.generation() {
            return false;
        }
        match entry.state {
            OpenState::Waiting => {
                entry.state = OpenState::Abandoned;
                true
            }
            OpenState::Answered => {
                self.release(call);
                false
            }
            OpenState::Free | OpenState::Abandoned => false,
        }
    }

    /// Abandons every call whose deadline is past.
    pub(super) fn expire(&mut self, now_us: u64, mut on_expired: impl FnMut(CallId)) {
        if now_us < self.earliest_us {
            return;
        }
        self.earliest_us = NEVER;
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.state != OpenState::Waiting {
                continue;
            }
            if entry.deadline_us <= now_us {
                entry.state = OpenState::Abandoned;
                on_expired(CallId::new(slot as u32, entry.generation));
            } else {
                self.earliest_us = self.earliest_us.min(entry.deadline_us);
            }
        }
    }

    /// When to look for expired calls next, in microseconds.
    pub(super) fn earliest_us(&self) -> u64 {
        self.earliest_us
    }

    /// Makes a call that was just opened a stream.
    pub(super) fn begin_stream(&mut self, call: CallId, stream: Box<Stream>) {
        if let Some(entry) = self.slots.get_mut(call.slot() as usize) {
            entry.stream = Some(stream);
        }
    }

    #[inline]
    pub(super) fn stream_mut(&mut self, call: CallId) -> Option<&mut Stream> {
        let entry = self.slots.get_mut(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.as_deref_mut() } else { None }
    }

    /// Ends the stream of a call, if it is one.
    #[inline]
    pub(super) fn take_stream(&mut self, call: CallId) -> Option<Box<Stream>> {
        let entry = self.slots.get_mut(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.take() } else { None }
    }

    /// Whether the response of a call is still to come, and nobody waits for it.
    pub(super) fn is_abandoned(&self, call: CallId) -> bool {
        self.slots.get(call.slot() as usize).is_some_and(|entry| {
            entry.generation == call.generation() && entry.state == OpenState::Abandoned
        })
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
        self.slots.len() - self.free.len()
    }
}

/// The server's side: the peer chooses slots, and may not choose one twice.
#[derive(Debug)]
pub(super) struct AcceptedCalls {
    slots: Vec<AcceptedSlot>,
    limit: u32,
    len: u32,
    /// No deadline falls before this time, in microseconds.
    earliest_us: u64,
}

#[derive(Debug)]
struct AcceptedSlot {
    /// The generation of the last call in this slot; zero before the first.
    generation: u32,
    state: AcceptedState,
    deadline_us: u64,
    /// The items of a call that is a stream, while it runs.
    stream: Option<Box<Stream>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptedState {
    /// No call runs in the slot.
    Free,
    Running,
    /// The call is to end with this code, as soon as its handler has stopped.
    Stopping(Code),
}

impl AcceptedSlot {
    const EMPTY: Self =
        Self { generation: 0, state: AcceptedState::Free, deadline_us: NEVER, stream: None };
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
        Self { slots: Vec::new(), limit, len: 0, earliest_us: NEVER }
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
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || AcceptedSlot::EMPTY);
        }
        let entry = &mut self.slots[slot];
        // A later generation is less than half the range ahead.
        let ahead = call.generation().wrapping_sub(entry.generation);
        let is_later = ahead != 0 && ahead < 1 << 31;
        if entry.state != AcceptedState::Free || (entry.generation != 0 && !is_later) {
            return Err(Refusal::Reused);
        }
        let state = AcceptedState::Running;
        entry.generation = call.generation();
        entry.state = state;
        entry.deadline_us = deadline_us;
        self.earliest_us = self.earliest_us.min(deadline_us);
        self.len += 1;
        Ok(())
    }

    /// Ends a call.
    #[inline]
    pub(super) fn finish(&mut self, call: CallId) -> Finished {
        let Some(entry) = self.slots.get_mut(call.slot() as usize) else {
            return Finished::NotRunning;
        };
        if entry.generation != call.generation() {
            return Finished::NotRunning;
        }
        let finished = match entry.state {
            AcceptedState::Free => return Finished::NotRunning,
            AcceptedState::Running => Finished::InTime,
            AcceptedState::Stopping(code) => Finished::Stopped(code),
        };
        entry.state = AcceptedState::Free;
        self.len -= 1;
        finished
    }

    /// Marks that a call is to stop. False where it does not run, or was told so before.
    pub(super) fn stop(&mut self, call: CallId, code: Code) -> bool {
        match self.slots.get_mut(call.slot() as usize) {
            Some(entry)
                if entry.state == AcceptedState::Running
                    && entry.generation == call.generation() =>
            {
                entry.state = AcceptedState::Stopping(code);
                true
            }
            _ => false,
        }
    }

    /// Marks every call whose deadline is past to stop.
    pub(super) fn expire(&mut self, now_us: u64, mut on_expired: impl FnMut(CallId)) {
        if now_us < self.earliest_us {
            return;
        }
        self.earliest_us = NEVER;
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.state != AcceptedState::Running {
                continue;
            }
            if entry.deadline_us <= now_us {
                entry.state = AcceptedState::Stopping(Code::DeadlineExceeded);
                on_expired(CallId::new(slot as u32, entry.generation));
            } else {
                self.earliest_us = self.earliest_us.min(entry.deadline_us);
            }
        }
    }

    /// The deadline of a call that runs, in microseconds; [`NEVER`] where it has none.
    pub(super) fn deadline_us(&self, call: CallId) -> u64 {
        match self.slots.get(call.slot() as usize) {
            Some(entry) if entry.generation == call.generation() => entry.deadline_us,
            _ => NEVER,
        }
    }

    /// Whether a call runs and was told to stop.
    pub(super) fn is_stopping(&self, call: CallId) -> bool {
        self.slots.get(call.slot() as usize).is_some_and(|entry| {
            entry.generation == call.generation()
                && matches!(entry.state, AcceptedState::Stopping(_))
        })
    }

    /// When to look for expired calls next, in microseconds.
    pub(super) fn earliest_us(&self) -> u64 {
        self.earliest_us
    }

    /// Makes a call that was just accepted a stream.
    pub(super) fn begin_stream(&mut self, call: CallId, stream: Box<Stream>) {
        if let Some(entry) = self.slots.get_mut(call.slot() as usize) {
            entry.stream = Some(stream);
        }
    }

    #[inline]
    pub(super) fn stream_mut(&mut self, call: CallId) -> Option<&mut Stream> {
        let entry = self.slots.get_mut(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.as_deref_mut() } else { None }
    }

    /// Ends the stream of a call, if it is one.
    #[inline]
    pub(super) fn take_stream(&mut self, call: CallId) -> Option<Box<Stream>> {
        let entry = self.slots.get_mut(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.take() } else { None }
    }

    /// Whether the call has ended, and none has come in its slot since.
    pub(super) fn was_last(&self, call: CallId) -> bool {
        self.slots.get(call.slot() as usize).is_some_and(|entry| {
            entry.generation == call.generation() && entry.state == AcceptedState::Free
        })
    }

    /// Ends every call that runs, and gives them.
    pub(super) fn finish_all(&mut self) -> Vec<CallId> {
        self.len = 0;
        let running = self.slots.iter_mut().enumerate();
        running
            .filter(|(_, entry)| entry.state != AcceptedState::Free)
            .map(|(slot, entry)| {
                entry.state = AcceptedState::Free;
                entry.stream = None;
                CallId::new(slot as u32, entry.generation)
            })
            .collect()
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

impl StreamState for OpenCalls {
    fn stream(&self, call: CallId) -> Option<&Stream> {
        let entry = self.slots.get(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.as_deref() } else { None }
    }
}

impl StreamState for AcceptedCalls {
    fn stream(&self, call: CallId) -> Option<&Stream> {
        let entry = self.slots.get(call.slot() as usize)?;
        if entry.generation == call.generation() { entry.stream.as_deref() } else { None }
    }
}
