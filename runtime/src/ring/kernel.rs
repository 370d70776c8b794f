//! The queues shared with the kernel, and the syscalls that turn them.
//!
//! Below the ring on the path of a call: it moves entries and knows nothing of what they mean.
//! It never blocks except in [`Kernel::wait`], and never retries what its caller can put off.

#![allow(unsafe_code)]

use std::{io, mem::ManuallyDrop, ptr::NonNull, time::Duration};

use io_uring::{
    CompletionQueue, CompletionStatus, EnterFlags, IoUring, SubmissionQueue, Submitter, squeue,
    types::{SubmitArgs, Timespec},
};
use rustix::io::Errno;

use super::{Bell, Pool, RingConfig, RingError, error::Step};

/// The group of provided buffers that multishot receives take from.
pub(super) const POOL_GROUP: u16 = 0;

/// A ring of the kernel. Stays on the thread that made it (single issuer).
pub(super) struct Kernel {
    // These two point into `ring` and are dropped before it; neither has anything to drop.
    submitter: Submitter<'static>,
    completions: CompletionStatus,
    ring: BoxedRing,
    enters: u64,
    cq_overflows: u64,
}

impl Kernel {
    /// Sets up a ring and registers its own descriptor, which makes entering cheaper.
    pub(super) fn new(config: &RingConfig) -> Result<Self, RingError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.cq_entries)
            .build(config.sq_entries)
            .map_err(|source| RingError::of(Step::Setup, source, config))?;
        let ring = BoxedRing(NonNull::from(Box::leak(Box::new(ring))));
        // SAFETY: `ring` owns the value, which does not move and lives until `ring` is dropped;
        // what is made from this reference is kept beside it in `Kernel` and dropped before.
        let shared: &'static IoUring = unsafe { ring.0.as_ref() };
        let mut submitter = shared.submitter();
        // Fails where the thread has 16 rings registered already; it works without.
        let _ = submitter.register_ring_fd();
        // SAFETY: no other completion queue of the ring exists.
        let queue = unsafe { shared.completion_shared() };
        // SAFETY: the status is kept beside the ring, and dropped before it.
        let completions = unsafe { queue.status() };
        drop(queue);
        Ok(Self { submitter, completions, ring, enters: 0, cq_overflows: 0 })
    }

    /// Lets receives take buffers from a pool.
    ///
    /// # Safety
    ///
    /// The pool's memory lives until the ring is gone and none of its operations is in flight.
    pub(super) unsafe fn register_pool(&self, pool: &Pool) -> io::Result<()> {
        // SAFETY: the address is that of `len` page-aligned entries; the caller guarantees that
        // they and the buffers they name live long enough.
        unsafe {
            self.submitter.register_buf_ring_with_flags(
                pool.entries_address(),
                pool.len() as u16,
                POOL_GROUP,
                0,
            )
        }
    }

    /// Has the kernel ring a bell when there is something to fetch; disabled at first.
    pub(super) fn register_bell(&self, bell: &Bell) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        self.set_bell(false);
        self.submitter.register_eventfd(bell.as_raw_fd())
    }

    pub(super) fn set_bell(&self, is_enabled: bool) {
        // SAFETY: no other completion queue exists: `completions` borrows mutably.
        let queue = unsafe { self.ring().completion_shared() };
        if is_enabled {
            queue.enable_eventfd();
        } else {
            queue.disable_eventfd();
        }
    }

    /// Queues an entry; false where the queue is full.
    ///
    /// # Safety
    ///
    /// What the entry points to stays valid, and the kernel's to write where it writes it, until
    /// the operation's final completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: no other submission queue exists: all are short-lived locals of this type's
        // methods, which do not call each other while one lives.
        let mut queue = unsafe { self.ring().submission_shared() };
        // SAFETY: the caller's promise.
        unsafe { queue.push(entry) }.is_ok()
    }

    /// Entries that are queued and not submitted.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        self.peek().len() as u32
    }

    /// Whether completions wait in the kernel for an enter.
    #[inline]
    pub(super) fn has_task_work(&self) -> bool {
        let queue = self.peek();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether no completion is there to be taken. Loads only.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.completions.is_empty()
    }

    /// The completions that are there; taking one frees its place.
    #[inline]
    pub(super) fn completions(&mut self) -> CompletionQueue<'_> {
        // SAFETY: the queue borrows this value mutably, so no other exists.
        unsafe { self.ring().completion_shared() }
    }

    /// Submits what is queued and runs the completions that are due; how many were submitted.
    /// Where the kernel cannot take more at present (EBUSY, EAGAIN) that is zero.
    pub(super) fn enter(&mut self) -> io::Result<u32> {
        if self.peek().cq_overflow() {
            self.cq_overflows += 1;
        }
        match self.enter_with(self.queued(), EnterFlags::GETEVENTS) {
            // Completions must come even so, since they are what frees resources.
            Err(Errno::BUSY | Errno::AGAIN) => match self.enter_with(0, EnterFlags::GETEVENTS) {
                Ok(_) | Err(Errno::BUSY | Errno::AGAIN) => Ok(0),
                Err(error) => Err(error.into()),
            },
            result => Ok(result?),
        }
    }

    /// Submits what is queued, to make room. What fails here fails again in [`enter`](Self::enter).
    #[cold]
    pub(super) fn submit(&mut self) {
        let _ = self.enter_with(self.queued(), EnterFlags::empty());
    }

    /// Submits what is queued and sleeps until a completion is there or the time is over. May
    /// return early where a signal arrives.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.enters += 1;
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        match self.submitter.submit_with_args(1, &args) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Syscalls made.
    #[inline]
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// Enters that found the completion queue overflown.
    #[inline]
    pub(super) fn cq_overflows(&self) -> u64 {
        self.cq_overflows
    }

    #[inline]
    fn enter_with(&mut self, to_submit: u32, flags: EnterFlags) -> Result<u32, Errno> {
        loop {
            self.enters += 1;
            // SAFETY: no argument is passed; the type gives the size of the signal mask that
            // there is not. The entries were vouched for when they were pushed.
            let entered = unsafe { self.submitter.enter::<u64>(to_submit, 0, flags.bits(), None) };
            return match entered {
                Ok(submitted) => Ok(submitted as u32),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => continue,
                    Some(errno) => Err(errno),
                    None => Err(Errno::IO),
                },
            };
        }
    }

    /// The submission queue for reading. Not dropped, since that stores to a cache line which
    /// the kernel writes from other cores.
    #[inline]
    fn peek(&self) -> ManuallyDrop<SubmissionQueue<'_>> {
        // SAFETY: no other submission queue exists, see `push`; this one is only read.
        ManuallyDrop::new(unsafe { self.ring().submission_shared() })
    }

    #[inline]
    fn ring(&self) -> &IoUring {
        // SAFETY: the value lives until `self.ring` is dropped, and only shared references to it
        // are ever made.
        unsafe { self.ring.0.as_ref() }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // A registered descriptor would keep the ring open until the thread ends.
        let _ = self.submitter.unregister_ring_fd();
    }
}

/// Owns the ring by a raw pointer, since others point into it.
struct BoxedRing(NonNull<IoUring>);

impl Drop for BoxedRing {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a leaked box and is freed here only; `Kernel` declares
        // what points into it before it, so nothing uses it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
