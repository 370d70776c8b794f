//! The pool of receive buffers that the kernel fills in the order they come free.
//!
//! First on the path of a call: a multishot receive takes the next buffer of this
//! provided-buffer ring when bytes arrive, and the completion names it. A buffer belongs either
//! to the kernel, which may write it at any time, or to the [`Filled`]s that refer to it, and
//! then nobody writes it. It never gives the kernel a buffer twice.

#![allow(unsafe_code)]

use std::{
    cell::Cell,
    fmt, io,
    ops::Deref,
    ptr::NonNull,
    rc::Rc,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::memory::Memory;

/// The buffers of a ring: a power of two of them, all of one length, in one mapping.
///
/// Invariants: `references[bid] == 0` exactly while the kernel owns buffer `bid`; the kernel owns
/// `free` buffers, and `tail` counts the buffers ever given to it.
pub struct Pool {
    /// Entries that name the buffers for the kernel. Entry 0 also holds the tail.
    entries: Memory,
    data: Memory,
    len: u16,
    buffer_len: u32,
    tail: Cell<u16>,
    free: Cell<u16>,
    references: Box<[Cell<u32>]>,
}

impl Pool {
    /// Maps the memory and enters every buffer. `len` is a power of two up to 32768.
    pub(super) fn new(len: u16, buffer_len: u32) -> io::Result<Rc<Self>> {
        let pool = Self {
            entries: Memory::map(usize::from(len) * size_of::<BufRingEntry>())?,
            data: Memory::map(usize::from(len) * buffer_len as usize)?,
            len,
            buffer_len,
            tail: Cell::new(0),
            free: Cell::new(0),
            references: vec![Cell::new(0); usize::from(len)].into_boxed_slice(),
        };
        for bid in 0..len {
            pool.give(bid);
        }
        Ok(Rc::new(pool))
    }

    /// Address of the entries, for registering; page-aligned.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.start().as_ptr().expose_provenance() as u64
    }

    /// Buffers that the kernel has: those not referred to by any [`Filled`].
    #[inline]
    pub fn free(&self) -> usize {
        usize::from(self.free.get())
    }

    /// Number of buffers.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a pool has at least one buffer"
    )]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Length of each buffer, in bytes.
    #[inline]
    pub fn buffer_len(&self) -> usize {
        self.buffer_len as usize
    }

    /// Whether an address lies in one of the buffers.
    pub fn contains(&self, address: *const u8) -> bool {
        let offset = address
            .addr()
            .wrapping_sub(self.data.start().as_ptr().addr());
        offset < self.data.len()
    }

    /// Takes over a buffer that a completion names. None where the kernel does not own such a
    /// buffer, which a sane kernel does not claim.
    #[inline]
    pub(super) fn fill(self: &Rc<Self>, bid: u16, len: u32) -> Option<Filled> {
        let references = self.references.get(usize::from(bid))?;
        if references.get() != 0 {
            return None;
        }
        references.set(1);
        self.free.set(self.free.get() - 1);
        Some(Filled {
            pool: Rc::clone(self),
            bid,
            len: len.min(self.buffer_len),
        })
    }

    /// Gives a buffer to the kernel. Nothing may refer to it, and the kernel must not have it.
    #[inline]
    fn give(&self, bid: u16) {
        let tail = self.tail.get();
        let index = usize::from(tail & (self.len - 1));
        let first = self.entries.start().cast::<BufRingEntry>();
        // SAFETY: the index is less than `len`, the number of entries in the mapping.
        let entry = unsafe { first.add(index) };
        // SAFETY: `entry` lies in the mapping, aligned and initialised (zeroed). The kernel reads
        // entries before the tail only, this one is at it, and this thread alone writes them.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(self.buffer(bid).as_ptr().expose_provenance() as u64);
        entry.set_len(self.buffer_len);
        entry.set_bid(bid);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.free.set(self.free.get() + 1);
        // SAFETY: `first` is the base of the entries, which are initialised.
        let shared = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: the tail lies in the mapping, aligned; both sides access it atomically, and
        // the reference to an entry above is no longer used.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // Publishes the entry to the kernel, which loads the tail with acquire.
        shared.store(tail, Ordering::Release);
    }

    #[inline]
    fn buffer(&self, bid: u16) -> NonNull<u8> {
        debug_assert!(bid < self.len);
        // SAFETY: callers have a bid less than `len`, so the buffer lies in the mapping.
        unsafe {
            self.data
                .start()
                .add(usize::from(bid) * self.buffer_len as usize)
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("len", &self.len)
            .field("buffer_len", &self.buffer_len)
            .field("free", &self.free.get())
            .finish_non_exhaustive()
    }
}

/// Bytes received into a buffer of the pool. Clones refer to the same bytes; the last to be
/// dropped gives the buffer back to the kernel. May outlive the ring.
pub struct Filled {
    pool: Rc<Pool>,
    bid: u16,
    len: u32,
}

impl Filled {
    #[inline]
    fn references(&self) -> &Cell<u32> {
        &self.pool.references[usize::from(self.bid)]
    }
}

impl Deref for Filled {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.pool.buffer(self.bid);
        // SAFETY: `len` is at most a buffer's length, the mapping lives as long as the pool, its
        // bytes are initialised, and nobody writes a buffer while a `Filled` refers to it.
        unsafe { slice::from_raw_parts(start.as_ptr(), self.len as usize) }
    }
}

impl Clone for Filled {
    #[inline]
    fn clone(&self) -> Self {
        let references = self.references();
        // Where the count saturates (clones were leaked) the buffer is never given back.
        references.set(references.get().saturating_add(1));
        Self {
            pool: Rc::clone(&self.pool),
            bid: self.bid,
            len: self.len,
        }
    }
}

impl Drop for Filled {
    #[inline]
    fn drop(&mut self) {
        match self.references().get() {
            u32::MAX => {}
            1 => {
                self.references().set(0);
                self.pool.give(self.bid);
            }
            count => self.references().set(count - 1),
        }
    }
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filled")
            .field("bid", &self.bid)
            .field("len", &self.len)
            .finish()
    }
}

/// The kernel's layout of an entry.
const _: () = assert!(size_of::<BufRingEntry>() == 16);
