//! Loans: leased bytes that another shard's thread reads.
//!
//! Beside the leases on the path of a call that one shard receives and another runs. What counts
//! the holders of a buffer is not atomic, so the lease stays with its shard, in a table, and only
//! the address of its bytes travels. They are given back from any thread; until then the lease is
//! not let go of, and where its shard ends before that, never.

#![allow(unsafe_code)]

use std::{cell::RefCell, fmt, mem, ptr::NonNull, sync::Arc};

use crossbeam::queue::SegQueue;

use super::{
    block::{Block, SharedBuffer},
    lease::{Chunk, Lease},
};

/// What a shard has lent.
pub struct Loans {
    table: RefCell<Table>,
    desk: Arc<Desk>,
}

/// The leases that are lent, by number.
#[derive(Default)]
struct Table {
    leases: Vec<Option<Lease>>,
    free: Vec<u32>,
}

/// Where loans are given back.
struct Desk {
    /// The numbers of loans that nobody reads any more: each once.
    returned: SegQueue<u32>,
    /// Tells the lender's thread that there are some.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// The right to read bytes that another thread has leased. Given back when it is dropped.
pub struct Loan {
    start: NonNull<u8>,
    len: usize,
    receipt: Receipt,
}

/// Gives a loan back when it is dropped.
pub(super) struct Receipt {
    desk: Arc<Desk>,
    number: u32,
}

impl Loans {
    /// A table from which nothing is lent. `wake` is called, from any thread, when there is
    /// something to [`collect`](Self::collect).
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let desk = Desk { returned: SegQueue::new(), wake: Box::new(wake) };
        Self { table: RefCell::default(), desk: Arc::new(desk) }
    }

    /// Lends the bytes of a lease.
    pub fn lend(&self, lease: Lease) -> Loan {
        let (start, len) = (NonNull::from(&*lease).cast(), lease.len());
        let mut table = self.table.borrow_mut();
        let number = table.free.pop().unwrap_or_else(|| {
            table.leases.push(None);
            table.leases.len() as u32 - 1
        });
        table.leases[number as usize] = Some(lease);
        Loan { start, len, receipt: Receipt { desk: Arc::clone(&self.desk), number } }
    }

    /// Lets go of the leases whose loans were given back.
    pub fn collect(&self) {
        while let Some(number) = self.desk.returned.pop() {
            let mut table = self.table.borrow_mut();
            let lease = table.leases[number as usize].take();
            table.free.push(number);
            drop(table);
            drop(lease);
        }
    }

    /// How many are lent, those included that were not collected yet.
    pub fn len(&self) -> usize {
        let table = self.table.borrow();
        table.leases.len() - table.free.len()
    }

    /// Whether nothing is lent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for Loans {
    /// What is still lent may be read at any time from now on: it stays where it is, for ever.
    fn drop(&mut self) {
        self.collect();
        mem::take(&mut self.table.get_mut().leases).into_iter().for_each(mem::forget);
    }
}

// SAFETY: what is not `Send` in it is the address of bytes that are only read through it:
// - nobody writes them: their lender holds a lease on them until the receipt is dropped, or leaks
//   it, and a leased buffer is not written;
// - that they were written before they are read here, and are read before they are written again,
//   follows from how the loan and its number travel: both ways through a queue that orders memory.
unsafe impl Send for Loan {}

impl Loan {
    /// The bytes, as a lease of this thread. The loan is given back when its last clone is dropped.
    pub fn into_lease(self) -> Lease {
        let Self { start, len, receipt } = self;
        // SAFETY: the bytes are those of a lease, so they are initialised and stay mapped, and the
        // lease is held until the receipt is dropped, which the block now holds as its home.
        let block = unsafe { Block::of_loan(start, len, receipt) };
        // SAFETY: as above, and nobody writes a leased buffer.
        let buffer = unsafe { SharedBuffer::new(block) };
        Lease::new(&Chunk::of_owned(buffer, len), 0..len)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.desk.returned.push(self.number);
        (self.desk.wake)();
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("len", &self.len).finish_non_exhaustive()
    }
}

impl fmt::Debug for Loans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loans").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        rc::Rc,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        thread,
    };

    use super::*;
    use crate::ring::OwnedPool;

    fn lease(pool: &Rc<OwnedPool>, bytes: &[u8]) -> Lease {
        let mut buffer = pool.take(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        Lease::new(&Chunk::of_owned(buffer.share(), bytes.len()), 0..bytes.len())
    }

    fn loans() -> (Loans, Arc<AtomicUsize>) {
        let wakes = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&wakes);
        let wake = move || {
            count.fetch_add(1, Relaxed);
        };
        (Loans::new(wake), wakes)
    }

    #[test]
    fn bytes_are_read_on_another_thread_and_come_back_when_the_last_reader_lets_go() {
        let (pool, (loans, wakes)) = (OwnedPool::new(1 << 20), loans());
        let loan = loans.lend(lease(&pool, b"lent to another"));
        let held = pool.outstanding_bytes();
        let reader = thread::spawn(move || {
            let lease = loan.into_lease();
            let clone = lease.clone().skip(8);
            drop(lease);
            assert_eq!(&*clone, b"another");
            assert_eq!(clone.before(3), b"to ");
        });
        reader.join().unwrap();
        assert_eq!((wakes.load(Relaxed), loans.len(), pool.outstanding_bytes()), (1, 1, held));
        loans.collect();
        assert!(loans.is_empty());
        assert_eq!(pool.outstanding_bytes(), 0);
    }

    #[test]
    fn a_loan_that_nobody_reads_comes_back_and_its_number_is_used_again() {
        let (pool, (loans, wakes)) = (OwnedPool::new(1 << 20), loans());
        for round in 1..=3 {
            let (first, second) = (loans.lend(lease(&pool, b"a")), loans.lend(lease(&pool, b"")));
            assert_eq!(loans.len(), 2);
            drop(second);
            drop(first.into_lease());
            loans.collect();
            assert_eq!((loans.len(), wakes.load(Relaxed)), (0, 2 * round));
        }
        assert_eq!(loans.table.borrow().leases.len(), 2);
    }

    #[test]
    fn what_is_lent_outlives_its_lender() {
        let (pool, (loans, _)) = (OwnedPool::new(1 << 20), loans());
        let loan = loans.lend(lease(&pool, b"still here"));
        drop(loans);
        drop(pool);
        let read = thread::spawn(move || loan.into_lease().to_vec());
        assert_eq!(read.join().unwrap(), b"still here");
    }
}
