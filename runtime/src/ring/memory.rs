//! Memory that the kernel writes into: page-aligned mappings and small aligned heap blocks.
//!
//! Below the receive buffers on the path of a call. It owns bytes and gives their address; it
//! never makes a reference to them, since only the owner knows whether the kernel may be writing.

#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    io,
    ptr::{NonNull, null_mut},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Alignment of heap blocks in bytes: a cache line, and more than any archived type asks for.
const HEAP_ALIGN: usize = 64;

/// Zeroed memory that is readable and writable for as long as the value lives, and does not move
/// with it.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Mapped,
    Heap(Layout),
}

// SAFETY: the memory is owned and not bound to a thread: any may unmap it, or give it back to the
// allocator, and the address is only given out.
unsafe impl Send for Memory {}

// SAFETY: what can be done with a shared one is to ask where the memory is.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `len` bytes of address space, page-aligned. Pages come when they are first touched.
    ///
    /// # Errors
    ///
    /// Where `len` is zero, or address space or mappings are exhausted.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a null hint lets the kernel choose a range that nothing else uses.
        let start =
            unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, origin: Origin::Mapped })
    }

    /// As [`map`](Self::map), with the smallest pages there are: a byte in the mapping then costs
    /// one of those, and not 2 MiB where the host backs everything with huge pages.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    pub(super) fn map_sparse(len: usize) -> io::Result<Self> {
        let memory = Self::map(len)?;
        let start = memory.start.as_ptr().cast();
        // SAFETY: the range is the mapping's, whose content this leaves as it is.
        let advised = unsafe { madvise(start, memory.len, Advice::LinuxNoHugepage) };
        // A kernel without huge pages refuses, and needs no advice.
        let _ = advised;
        Ok(memory)
    }

    /// Takes `len` zeroed bytes from the heap, aligned to a cache line.
    ///
    /// # Errors
    ///
    /// Where `len` is zero or the allocator has no memory.
    pub(super) fn heap(len: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(len, HEAP_ALIGN)
            .ok()
            .filter(|layout| layout.size() > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, origin: Origin::Heap(layout) })
    }

    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Length in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.origin {
            Origin::Mapped => {
                // SAFETY: `map` got exactly this range and nothing else unmaps it. Whoever owns
                // this value lends out no bytes beyond its life.
                let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
                debug_assert!(unmapped.is_ok());
            }
            // SAFETY: `heap` allocated this block with this layout and nothing else frees it.
            Origin::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
        }
    }
}
