//! What only some calls have, by slot: a deadline, and the items of a stream.
//!
//! Deadlines cost nothing while calls are answered in time: the table knows a time before which
//! none of them falls, and only when that is past are its entries looked at, and the time found
//! anew. What a call has left behind when it ended is passed over there.

use alloc::boxed::Box;
use core::mem;

use super::streams::Stream;

/// The time of no deadline, and that of a table without any.
pub(super) const NEVER: u64 = u64::MAX;

/// The extras of one table's calls.
#[derive(Debug)]
pub(super) struct Extras {
    entries: Box<[Extra]>,
    /// No deadline falls before this time, in microseconds.
    earliest_us: u64,
}

#[derive(Debug)]
struct Extra {
    deadline_us: u64,
    stream: Option<Box<Stream>>,
}

impl Default for Extras {
    fn default() -> Self {
        Self { entries: Box::default(), earliest_us: NEVER }
    }
}

impl Extras {
    /// A call has begun in a slot.
    pub(super) fn begin(&mut self, slot: u32, deadline_us: u64) {
        let slot = slot as usize;
        if slot >= self.entries.len() {
            let empty = || Extra { deadline_us: NEVER, stream: None };
            grow(&mut self.entries, slot + 1, usize::MAX, empty);
        }
        self.entries[slot] = Extra { deadline_us, stream: None };
        self.earliest_us = self.earliest_us.min(deadline_us);
    }

    pub(super) fn set_stream(&mut self, slot: u32, stream: Box<Stream>) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.stream = Some(stream);
        }
    }

    pub(super) fn stream(&self, slot: u32) -> Option<&Stream> {
        self.entries.get(slot as usize)?.stream.as_deref()
    }

    #[inline]
    pub(super) fn stream_mut(&mut self, slot: u32) -> Option<&mut Stream> {
        self.entries.get_mut(slot as usize)?.stream.as_deref_mut()
    }

    pub(super) fn take_stream(&mut self, slot: u32) -> Option<Box<Stream>> {
        self.entries.get_mut(slot as usize)?.stream.take()
    }

    /// The deadline in a slot, in microseconds; [`NEVER`] where there is none.
    pub(super) fn deadline_us(&self, slot: u32) -> u64 {
        self.entries.get(slot as usize).map_or(NEVER, |entry| entry.deadline_us)
    }

    /// Gives each slot whose deadline is past, once. Its call may have ended long ago.
    pub(super) fn expire(&mut self, now_us: u64, mut on_past: impl FnMut(u32)) {
        if now_us < self.earliest_us {
            return;
        }
        self.earliest_us = NEVER;
        for (slot, entry) in (0..).zip(&mut self.entries) {
            if entry.deadline_us <= now_us {
                entry.deadline_us = NEVER;
                on_past(slot);
            } else {
                self.earliest_us = self.earliest_us.min(entry.deadline_us);
            }
        }
    }

    /// Forgets what calls have left behind, and gives the memory back. No call runs.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When to look for deadlines next, in microseconds.
    #[inline]
    pub(super) fn earliest_us(&self) -> u64 {
        self.earliest_us
    }
}

/// Lengthens a table to this many places at least, and to no more than `len_max`. Short tables grow
/// by as much again, from one place on: most connections have few calls in flight, and some have
/// none. Long ones grow by an eighth: most of them are as long as the calls in flight were once.
pub(super) fn grow<T>(table: &mut Box<[T]>, len: usize, len_max: usize, empty: impl FnMut() -> T) {
    let had = table.len();
    let more = if had < 1024 { had } else { had / 8 };
    let len = len.max((had + more).min(len_max));
    let mut longer = mem::take(table).into_vec();
    longer.reserve_exact(len - had);
    longer.resize_with(len, empty);
    *table = longer.into_boxed_slice();
}
