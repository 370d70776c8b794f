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
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::{
    block::{Block, Home, SharedBuffer},
    memory::Memory,
};

/// The buffers of a ring: a power of two of them, all of one length, in one mapping.
///
/// Invariants: `blocks[bid]` is there exactly while the kernel owns buffer `bid`; the kernel owns
/// `free` buffers, and `tail` counts the buffers ever given to it.
pub struct Pool {
    /// Entries that name the buffers for the kernel. Entry 0 also holds the tail.
    entries: Memory,
    data: Memory,
    len: u16,
    buffer_len: u32,
    tail: Cell<u16>,
    free: Cell<u16>,
    blocks: Box<[Cell<Option<Rc<Block>>>]>,
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
            blocks: (0..len).map(|_| Cell::new(None)).collect(),
        };
        for bid in 0..len {
            // SAFETY: the buffer lies in `data`, which is initialised, and which the pool keeps;
            // a block that is read keeps the pool as its home (see `fill`).
            let block = unsafe { Block::of_pool(pool.buffer(bid), pool.buffer_len as usize) };
            pool.take_back(bid, block);
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
    #[expect(clippy::len_without_is_empty, reason = "a pool has at least one buffer")]
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
        let offset = address.addr().wrapping_sub(self.data.start().as_ptr().addr());
        offset < self.data.len()
    }

    /// Takes over a buffer that a completion names. None where the kernel does not own such a
    /// buffer, which a sane kernel does not claim.
    #[inline]
    pub(super) fn fill(self: &Rc<Self>, bid: u16, len: u32) -> Option<Filled> {
        let block = self.blocks.get(usize::from(bid))?.take()?;
        block.set_home(Home::Kernel(Rc::clone(self), bid));
        self.free.set(self.free.get() - 1);
        // SAFETY: the kernel has completed its writing with the completion that names the buffer,
        // and writes it again only after `give`, which follows the block's going home.
        let buffer = unsafe { SharedBuffer::new(block) };
        Some(Filled { buffer, len: len.min(self.buffer_len) })
    }

    /// Takes a buffer back that nobody reads any more, and gives it to the kernel.
    #[inline]
    pub(super) fn take_back(&self, bid: u16, block: Rc<Block>) {
        self.blocks[usize::from(bid)].set(Some(block));
        self.give(bid);
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
        unsafe { self.data.start().add(usize::from(bid) * self.buffer_len as usize) }
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
#[derive(Clone, Debug)]
pub struct Filled {
    buffer: SharedBuffer,
    len: u32,
}

impl Filled {
    /// The buffer, and how many bytes of it were filled.
    #[inline]
    pub(super) fn into_parts(self) -> (SharedBuffer, u32) {
        (self.buffer, self.len)
    }
}

impl Deref for Filled {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len as usize]
    }
}

/// The kernel's layout of an entry.
const _: () = assert!(size_of::<BufRingEntry>() == 16);
