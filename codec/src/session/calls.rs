//! Tables of the calls in flight, one entry a slot: looked up by index, bounded, and a stale id
//! never finds a later call.

use alloc::vec::Vec;

use crate::header::CallId;

/// The caller's side: hands out slots.
#[derive(Debug)]
pub(super) struct OpenCalls {
    slots: Vec<OpenSlot>,
    free: Vec<u32>,
    limit: u32,
}

#[derive(Clone, Copy, Debug)]
struct OpenSlot {
    generation: u32,
    state: OpenState,
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
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// Takes a slot; `None` where all are taken.
    #[inline]
    pub(super) fn open(&mut self) -> Option<CallId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.limit as usize => {
                self.slots.push(OpenSlot { generation: 0, state: OpenState::Free });
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let entry = &mut self.slots[slot as usize];
        // Zero is no generation, so that no call has the id zero.
        entry.generation = entry.generation.wrapping_add(1).max(1);
        entry.state = OpenState::Waiting;
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

    /// Marks that nobody waits for the call any more. The slot of one that was answered is free
    /// at once.
    pub(super) fn abandon(&mut self, call: CallId) {
        let Some(entry) = self.slots.get_mut(call.slot() as usize) else {
            return;
        };
        if entry.generation != call.generation() {
            return;
        }
        match entry.state {
            OpenState::Waiting => entry.state = OpenState::Abandoned,
            OpenState::Answered => self.release(call),
            OpenState::Free | OpenState::Abandoned => {}
        }
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
}

#[derive(Clone, Copy, Debug, Default)]
struct AcceptedSlot {
    /// The generation of the last call in this slot; zero before the first.
    generation: u32,
    running: bool,
}

/// Why a call is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BeyondLimit,
    GenerationZero,
    Reused,
}

impl AcceptedCalls {
    pub(super) fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), limit, len: 0 }
    }

    /// Enters a call.
    #[inline]
    pub(super) fn accept(&mut self, call: CallId) -> Result<(), Refusal> {
        if call.slot() >= self.limit {
            return Err(Refusal::BeyondLimit);
        }
        if call.generation() == 0 {
            return Err(Refusal::GenerationZero);
        }
        let slot = call.slot() as usize;
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, AcceptedSlot::default());
        }
        let entry = &mut self.slots[slot];
        // A later generation is less than half the range ahead.
        let ahead = call.generation().wrapping_sub(entry.generation);
        let is_later = ahead != 0 && ahead < 1 << 31;
        if entry.running || (entry.generation != 0 && !is_later) {
            return Err(Refusal::Reused);
        }
        *entry = AcceptedSlot { generation: call.generation(), running: true };
        self.len += 1;
        Ok(())
    }

    /// Ends a call; false where it is not running.
    #[inline]
    pub(super) fn finish(&mut self, call: CallId) -> bool {
        match self.slots.get_mut(call.slot() as usize) {
            Some(entry) if entry.running && entry.generation == call.generation() => {
                entry.running = false;
                self.len -= 1;
                true
            }
            _ => false,
        }
    }

    /// Ends every call that runs, and gives them.
    pub(super) fn finish_all(&mut self) -> Vec<CallId> {
        self.len = 0;
        let running = self.slots.iter_mut().enumerate().filter(|(_, entry)| entry.running);
        running
            .map(|(slot, entry)| {
                entry.running = false;
                CallId::new(slot as u32, entry.generation)
            })
            .collect()
    }

    /// Calls running.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}
