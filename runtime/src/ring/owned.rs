//! Buffers of one's own: for frames that no pool buffer holds whole, and for copies.
//!
//! Beside the pool on the path of a call. A buffer has one owner, who may write it or lend it to
//! the kernel, until it is shared; then nobody writes it until the last holder lets go and it
//! returns to its size class. It never hands out memory that is not initialised, and what it
//! keeps for later is bounded; the bytes of a recycled buffer are whatever was there.

#![allow(unsafe_code)]

use std::{
    alloc::{Layout, handle_alloc_error},
    array,
    cell::{Cell, RefCell},
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    rc::Rc,
    slice,
};

use super::{
    block::{Block, Home, SharedBuffer},
    memory::Memory,
};

/// Capacity of the smallest size class, in bytes. Each class is twice the one before.
const CLASS_LEN_MIN: usize = 4 * 1024;

/// Capacity of the largest size class, in bytes. Longer buffers are not recycled.
const CLASS_LEN_MAX: usize = 64 * 1024 * 1024;

const CLASSES: usize = (CLASS_LEN_MAX / CLASS_LEN_MIN).ilog2() as usize + 1;

/// From this capacity on, in bytes, a buffer is a mapping: it costs address space when it is
/// taken, and memory as bytes arrive.
const MAPPED_LEN_MIN: usize = 32 * 1024;

/// Gives out buffers and keeps some of those that come back, by size class.
pub struct OwnedPool {
    classes: RefCell<[Vec<Rc<Block>>; CLASSES]>,
    retained_bytes: Cell<usize>,
    retained_bytes_max: usize,
    outstanding_bytes: Cell<usize>,
}

impl OwnedPool {
    /// A pool that keeps at most `retained_bytes_max` bytes of unused buffers.
    pub fn new(retained_bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            classes: RefCell::new(array::from_fn(|_| Vec::new())),
            retained_bytes: Cell::new(0),
            retained_bytes_max,
            outstanding_bytes: Cell::new(0),
        })
    }

    /// A buffer whose capacity is `len` bytes or more, at least 64-aligned; from 32 KiB on
    /// page-aligned. Its content is unspecified. As with `Vec`, the process aborts where there
    /// is no memory; [`try_take`](Self::try_take) does not.
    #[inline]
    pub fn take(self: &Rc<Self>, len: usize) -> OwnedBuffer {
        self.try_take(len).unwrap_or_else(|_| {
            handle_alloc_error(Layout::from_size_align(len, 1).unwrap_or(Layout::new::<u8>()))
        })
    }

    /// [`take`](Self::take), where running out of memory is to be handled.
    ///
    /// # Errors
    ///
    /// Where memory, address space or mappings (`vm.max_map_count`) are exhausted.
    pub fn try_take(self: &Rc<Self>, len: usize) -> io::Result<OwnedBuffer> {
        let block = match class_of(len) {
            Some(class) => {
                let kept = self.classes.borrow_mut()[class].pop();
                match kept {
                    Some(block) => {
                        self.retained_bytes.set(self.retained_bytes.get() - block.len());
                        block
                    }
                    None => new_block(CLASS_LEN_MIN << class)?,
                }
            }
            None => new_block(len)?,
        };
        self.outstanding_bytes.set(self.outstanding_bytes.get() + block.len());
        block.set_home(Home::Class(Rc::clone(self), class_of(len)));
        // SAFETY: the memory is initialised. The one who could write it is the `OwnedBuffer`, the
        // block's only holder until it gives up writing with `share`.
        let buffer = unsafe { SharedBuffer::new(Rc::clone(&block)) };
        Ok(OwnedBuffer { start: block.start(), len: block.len(), buffer })
    }

    /// Capacity of all buffers that are in use, in bytes.
    #[inline]
    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes.get()
    }

    /// Capacity of the unused buffers that are kept, in bytes.
    #[inline]
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes.get()
    }

    /// A buffer of so many bytes went to another thread with its memory, and does not come back.
    pub(super) fn has_lost(&self, capacity: usize) {
        self.outstanding_bytes.set(self.outstanding_bytes.get() - capacity);
    }

    /// Keeps a block that nobody uses any more, or frees it.
    pub(super) fn put_back(&self, class: Option<usize>, block: Rc<Block>) {
        let capacity = block.len();
        self.outstanding_bytes.set(self.outstanding_bytes.get() - capacity);
        let retained = self.retained_bytes.get() + capacity;
        if let Some(class) = class
            && retained <= self.retained_bytes_max
        {
            self.retained_bytes.set(retained);
            self.classes.borrow_mut()[class].push(block);
        }
    }
}

impl fmt::Debug for OwnedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedPool")
            .field("outstanding_bytes", &self.outstanding_bytes.get())
            .field("retained_bytes", &self.retained_bytes.get())
            .finish_non_exhaustive()
    }
}

/// The size class of buffers for `len` bytes; None beyond the largest.
#[inline]
fn class_of(len: usize) -> Option<usize> {
    if len > CLASS_LEN_MAX {
        return None;
    }
    let capacity = len.next_power_of_two().max(CLASS_LEN_MIN);
    Some((capacity / CLASS_LEN_MIN).ilog2() as usize)
}

/// A buffer with one owner, dereferenced to all of its capacity. Returns to its pool when
/// dropped.
///
/// Invariant: the only reference to its block.
pub struct OwnedBuffer {
    start: NonNull<u8>,
    len: usize,
    /// Not read through while there is writing.
    buffer: SharedBuffer,
}

impl OwnedBuffer {
    /// Where the bytes are. They do not move with the value.
    #[inline]
    pub(super) fn start(&mut self) -> NonNull<u8> {
        self.start
    }

    /// Gives up writing, so that the bytes can have several readers. Allocates nothing.
    #[inline]
    pub fn share(self) -> SharedBuffer {
        self.buffer
    }
}

impl Deref for OwnedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised and lives as long as `buffer`. Nothing writes it
        // meanwhile: this is its only owner, and is borrowed; an operation that has the kernel
        // write it owns the buffer and does not dereference it.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for OwnedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; and `buffer` is the only holder of the block, not cloned before
        // `share`, and borrowed mutably with `self`.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for OwnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedBuffer").field("capacity", &self.len).finish()
    }
}

/// A block with `len` bytes of memory of its own.
fn new_block(len: usize) -> io::Result<Rc<Block>> {
    let memory = if len >= MAPPED_LEN_MIN { Memory::map_sparse(len)? } else { Memory::heap(len)? };
    Ok(Block::owned(memory))
}
