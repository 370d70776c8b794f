//! Blocks: pieces of receive memory, each with the pool that it goes back to.
//!
//! Under the pool's buffers and those of one's own. A block is shared by counting; when the last
//! reader lets go it goes home, to the kernel or to a size class. Whoever reads it holds one
//! pointer, so that a lease fits into two registers.

#![allow(unsafe_code)]

use std::{cell::Cell, fmt, mem::ManuallyDrop, ops::Deref, ptr::NonNull, rc::Rc, slice};

use super::{loan::Receipt, memory::Memory, owned::OwnedPool, pool::Pool};

/// A piece of receive memory. It does not know who may write it; its holders do.
pub(super) struct Block {
    start: NonNull<u8>,
    len: usize,
    /// The block's own memory, if it is no part of a pool's.
    memory: Option<Memory>,
    /// Where the block goes when its last reader lets go; none while nobody reads it.
    home: Cell<Option<Home>>,
    is_in_pool: bool,
}

/// Where a block goes when nobody reads it.
pub(super) enum Home {
    /// To the kernel, as buffer of this number.
    Kernel(Rc<Pool>, u16),
    /// To its size class.
    Class(Rc<OwnedPool>, Option<usize>),
    /// To the thread that has lent it.
    Lender(Receipt),
}

impl Block {
    /// A block with memory of its own.
    pub(super) fn owned(memory: Memory) -> Rc<Self> {
        let (start, len) = (memory.start(), memory.len());
        let home = Cell::new(None);
        Rc::new(Self { start, len, memory: Some(memory), home, is_in_pool: false })
    }

    /// A block of a pool's memory.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `start` on are initialised, and stay mapped for as long as the block
    /// has the pool as its home or the pool has the block.
    pub(super) unsafe fn of_pool(start: NonNull<u8>, len: usize) -> Rc<Self> {
        Rc::new(Self { start, len, memory: None, home: Cell::new(None), is_in_pool: true })
    }

    /// A block of memory that another thread has lent.
    ///
    /// # Safety
    ///
    /// The `len` bytes from `start` on are initialised, and stay mapped until the receipt is
    /// dropped.
    pub(super) unsafe fn of_loan(start: NonNull<u8>, len: usize, receipt: Receipt) -> Rc<Self> {
        let home = Cell::new(Some(Home::Lender(receipt)));
        Rc::new(Self { start, len, memory: None, home, is_in_pool: false })
    }

    /// The first byte.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Capacity in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Says where the block goes when its last reader lets go.
    #[inline]
    pub(super) fn set_home(&self, home: Home) {
        self.home.set(Some(home));
    }
}

/// A buffer that is only read. Clones read the same bytes; when the last is dropped, the buffer
/// goes back to where it came from.
pub struct SharedBuffer {
    /// Taken out when this drops.
    block: ManuallyDrop<Rc<Block>>,
}

impl SharedBuffer {
    /// Shares a block.
    ///
    /// # Safety
    ///
    /// The block's bytes are initialised, and nobody writes them before it has gone home.
    #[inline]
    pub(super) unsafe fn new(block: Rc<Block>) -> Self {
        Self { block: ManuallyDrop::new(block) }
    }

    /// Whether it is a buffer of the receive pool.
    #[inline]
    pub fn in_pool(&self) -> bool {
        self.block.is_in_pool
    }

    /// The memory itself, for good, where this is its only reader and it is no part of a pool's.
    /// Gives the buffer back where that is not so.
    pub(super) fn into_memory(self) -> Result<Memory, Self> {
        if self.block.is_in_pool || Rc::strong_count(&self.block) != 1 {
            return Err(self);
        }
        let mut buffer = ManuallyDrop::new(self);
        // SAFETY: it is not used again: the buffer that it was taken out of is not dropped.
        let block = unsafe { ManuallyDrop::take(&mut buffer.block) };
        let mut block = match Rc::try_unwrap(block) {
            Ok(block) => block,
            // There is no other reader, so it is not shared.
            Err(block) => return Err(Self { block: ManuallyDrop::new(block) }),
        };
        let home = block.home.take();
        match block.memory.take() {
            Some(memory) => {
                if let Some(Home::Class(pool, _)) = home {
                    pool.has_lost(memory.len());
                }
                Ok(memory)
            }
            None => {
                block.home.set(home);
                Err(Self { block: ManuallyDrop::new(Rc::new(block)) })
            }
        }
    }

    #[cold]
    fn go_home(block: Rc<Block>) {
        match block.home.take() {
            Some(Home::Kernel(pool, bid)) => pool.take_back(bid, block),
            Some(Home::Class(pool, class)) => pool.put_back(class, block),
            Some(Home::Lender(receipt)) => drop(receipt),
            None => {}
        }
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised and nobody writes it, which `new` was promised; it
        // lives as long as the block, which owns it or keeps its pool as its home.
        unsafe { slice::from_raw_parts(self.block.start.as_ptr(), self.block.len) }
    }
}

impl Clone for SharedBuffer {
    #[inline]
    fn clone(&self) -> Self {
        Self { block: ManuallyDrop::new(Rc::clone(&self.block)) }
    }
}

impl Drop for SharedBuffer {
    // Nothing is called with the place of the pointer, only with the pointer: a buffer, and what
    // holds one, can stay in registers.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: it is not used again, as this is the one place that takes it, and runs once.
        let block = unsafe { ManuallyDrop::take(&mut self.block) };
        if Rc::strong_count(&block) == 1 {
            Self::go_home(block);
        } else {
            // Another holds it: this only counts.
            drop(block);
        }
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer")
            .field("capacity", &self.block.len)
            .field("in_pool", &self.block.is_in_pool)
            .finish()
    }
}
