//! The pool of receive buffers that a shard shares with the kernel.
//!
//! Each buffer belongs to exactly one side at a time: to the kernel while it is in the ring of
//! provided buffers, to this process from the completion that names it until the last
//! [`Filled`] of it is dropped. The kernel writes only what it has; this process reads only what
//! it has.

#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io,
    ops::Deref,
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::memory::Mapping;

/// Receive buffers of one length.
#[derive(Debug)]
pub struct Pool {
    /// The buffers, one after the other.
    buffers: Mapping,
    /// The ring of buffers that the kernel may fill; entries, then wrapped around.
    entries: Mapping,
    count: u16,
    buffer_len: u32,
    /// References to each buffer; zero while the kernel has it.
    references: Box<[Cell<u32>]>,
    /// Where the next entry goes; the kernel's copy is in the ring.
    tail: Cell<u16>,
    free: Cell<u16>,
}

/// What one receive brought: a reference to a buffer of the pool and how much of it was filled.
///
/// Cloning adds a reference. When the last is dropped, the kernel gets the buffer back.
#[derive(Debug)]
pub struct Filled {
    pool: Rc<Pool>,
    buffer: u16,
    len: u32,
}

impl Pool {
    /// A pool with every buffer in the ring, which is yet to be registered.
    pub(super) fn new(count: u16, buffer_len: u32) -> io::Result<Rc<Self>> {
        let pool = Rc::new(Self {
            buffers: Mapping::new(usize::from(count) * buffer_len as usize)?,
            entries: Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?,
            count,
            buffer_len,
            references: vec![Cell::new(0); usize::from(count)].into_boxed_slice(),
            tail: Cell::new(0),
            free: Cell::new(0),
        });
        (0..count).for_each(|buffer| pool.give(buffer));
        Ok(pool)
    }

    /// Address of the ring of buffers, for its registration.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.start().as_ptr().addr() as u64
    }

    /// Buffers that the kernel has.
    #[inline]
    pub fn free(&self) -> usize {
        usize::from(self.free.get())
    }

    /// Buffers there are.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Length of each buffer in bytes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        self.buffer_len as usize
    }

    /// Whether an address is inside of the pool's memory.
    pub fn contains(&self, address: *const u8) -> bool {
        let start = self.buffers.start().as_ptr().addr();
        (start..start + self.buffers.len()).contains(&address.addr())
    }

    /// Takes a buffer that the kernel has filled; `None` where the kernel names one it cannot
    /// have.
    #[inline]
    pub(super) fn filled(self: &Rc<Self>, buffer: u16, len: u32) -> Option<Filled> {
        let references = self.references.get(usize::from(buffer))?;
        if references.get() != 0 || len > self.buffer_len {
            return None;
        }
        references.set(1);
        self.free.set(self.free.get() - 1);
        Some(Filled { pool: Rc::clone(self), buffer, len })
    }

    /// Gives a buffer to the kernel.
    #[inline]
    fn give(&self, buffer: u16) {
        let tail = self.tail.get();
        let index = usize::from(tail & (self.count - 1));
        let start = self.buffers.start().as_ptr().addr();
        let address = start + usize::from(buffer) * self.buffer_len as usize;
        let entries = self.entries.start().as_ptr().cast::<BufRingEntry>();
        // SAFETY:
        // - `index` is below `count`, for which `entries` was mapped, page-aligned and zeroed;
        // - the kernel reads an entry only after the tail below was stored past it, and at most
        //   `count` buffers exist, so that this entry is not one it may still read;
        // - no reference to the memory lives beyond this block.
        unsafe {
            let entry = &mut *entries.add(index);
            entry.set_addr(address as u64);
            entry.set_len(self.buffer_len);
            entry.set_bid(buffer);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.free.set(self.free.get() + 1);
        // SAFETY: `entries` is the address of the first entry, which is mapped; the tail lies in
        // it, aligned for a u16, and only this thread writes it.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        // Release: the kernel sees the entry before the tail.
        shared.store(tail, Ordering::Release);
    }
}

impl Deref for Filled {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = usize::from(self.buffer) * self.pool.buffer_len as usize;
        // SAFETY:
        // - `buffer` is below `count` and `len` at most `buffer_len` (checked in `filled`), so the
        //   range lies in the mapping, which `pool` keeps alive and which is initialised;
        // - the kernel does not write it: the buffer is in its ring again only after the last
        //   `Filled` of it is dropped, and this one lives as long as the slice.
        unsafe {
            let start = self.pool.buffers.start().as_ptr().add(start);
            std::slice::from_raw_parts(start, self.len as usize)
        }
    }
}

impl Clone for Filled {
    #[inline]
    fn clone(&self) -> Self {
        let references = &self.pool.references[usize::from(self.buffer)];
        references.set(references.get() + 1);
        Self { pool: Rc::clone(&self.pool), buffer: self.buffer, len: self.len }
    }
}

impl Drop for Filled {
    #[inline]
    fn drop(&mut self) {
        let references = &self.pool.references[usize::from(self.buffer)];
        references.set(references.get() - 1);
        if references.get() == 0 {
            self.pool.give(self.buffer);
        }
    }
}
