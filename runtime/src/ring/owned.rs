//! Buffers that belong to this process: for large frames, and for what is copied.
//!
//! They come in size classes and are used again. A fresh large one is address space only: its
//! pages come with the bytes that are received into them, so a length that a peer declares costs
//! nothing until the bytes are there.

#![allow(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::{Deref, DerefMut},
    rc::{Rc, Weak},
};

use super::memory::Mapping;

/// Smallest size class in bytes: a page.
const CLASS_MIN: usize = 4096;
/// Number of size classes, each twice as long as the one before: 4 KiB to 1 GiB.
const CLASSES: usize = 19;

/// Buffers kept for the next use.
pub struct OwnedPool {
    free: [RefCell<Vec<Rc<Block>>>; CLASSES],
    retained_bytes: Cell<usize>,
    retained_bytes_max: usize,
    outstanding_bytes: Cell<usize>,
}

/// The memory of one buffer.
struct Block {
    memory: Mapping,
    pool: Weak<OwnedPool>,
}

/// A buffer that one owner may write.
pub struct OwnedBuffer(Handle);

/// A buffer that is no longer written. Clones read the same bytes.
#[derive(Clone)]
pub struct SharedBuffer(Handle);

/// A reference to a block; the last to go gives it back to its pool.
struct Handle(Option<Rc<Block>>);

impl OwnedPool {
    pub(super) fn new(retained_bytes_max: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Default::default(),
            retained_bytes: Cell::new(0),
            retained_bytes_max,
            outstanding_bytes: Cell::new(0),
        })
    }

    /// A buffer of at least `len` bytes, aligned to a page. What it holds is initialised and
    /// otherwise arbitrary.
    ///
    /// # Panics
    ///
    /// Where the address space is used up, as any allocation.
    pub fn take(self: &Rc<Self>, len: usize) -> OwnedBuffer {
        let class = class_of(len);
        let kept = self.free.get(class).and_then(|free| free.borrow_mut().pop());
        let block = kept.unwrap_or_else(|| {
            let memory = Mapping::new(CLASS_MIN << class);
            let memory = memory.unwrap_or_else(|_| std::alloc::handle_alloc_error(layout(class)));
            self.retained_bytes.set(self.retained_bytes.get() + memory.len());
            Rc::new(Block { memory, pool: Rc::downgrade(self) })
        });
        self.retained_bytes.set(self.retained_bytes.get() - block.memory.len());
        self.outstanding_bytes.set(self.outstanding_bytes.get() + block.memory.len());
        OwnedBuffer(Handle(Some(block)))
    }

    /// Bytes of the buffers that are in use.
    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes.get()
    }

    fn put_back(&self, block: Rc<Block>) {
        let len = block.memory.len();
        self.outstanding_bytes.set(self.outstanding_bytes.get() - len);
        let retained = self.retained_bytes.get() + len;
        if let Some(free) = self.free.get(class_of(len))
            && retained <= self.retained_bytes_max
        {
            self.retained_bytes.set(retained);
            free.borrow_mut().push(block);
        }
    }
}

fn class_of(len: usize) -> usize {
    len.max(CLASS_MIN).next_power_of_two().trailing_zeros() as usize
        - CLASS_MIN.trailing_zeros() as usize
}

fn layout(class: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(CLASS_MIN << class, CLASS_MIN)
        .unwrap_or(std::alloc::Layout::new::<u8>())
}

impl OwnedBuffer {
    /// Ends writing: from now on the bytes can be shared.
    #[inline]
    pub fn share(self) -> SharedBuffer {
        SharedBuffer(self.0)
    }

    /// The first byte, for the kernel to write to.
    #[inline]
    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.memory().map_or(std::ptr::dangling_mut(), |memory| memory.start().as_ptr())
    }
}

impl Handle {
    #[inline]
    fn memory(&self) -> Option<&Mapping> {
        self.0.as_deref().map(|block| &block.memory)
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        let Some(memory) = self.memory() else { return &[] };
        // SAFETY: the mapping is initialised, and `self` keeps it. An `OwnedBuffer`'s handle is
        // its only one, and is borrowed for the slice; a `SharedBuffer`'s block is not written.
        unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), memory.len()) }
    }
}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        if let Some(block) = self.0.take()
            && Rc::strong_count(&block) == 1
            && let Some(pool) = block.pool.upgrade()
        {
            pool.put_back(block);
        }
    }
}

impl Deref for OwnedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl DerefMut for OwnedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let Some(memory) = self.0.memory() else { return &mut [] };
        // SAFETY: the mapping is initialised and `self` keeps it; the handle is the block's only
        // one, as it was taken from the pool's list or made new, and is not cloned before
        // `share`. It is borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.len()) }
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for OwnedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedBuffer({} bytes)", self.len())
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.len())
    }
}
