//! The ring: a safe face of io_uring for sockets.
//!
//! First and last on the path of a call: bytes come from the kernel here, and go to it. Whoever
//! starts an operation hands over what the kernel will touch and gets it back with the final
//! completion, so dropping anything at any time is sound. All of the crate's unsafe code for
//! memory shared with the kernel is in this folder. It never blocks (but for [`Ring::wait`]),
//! never loses an operation, and never interprets a byte.
//!
//! A turn: start operations, [`enter`](Ring::enter) once, [`drain`](Ring::drain) the completions.

#![allow(unsafe_code)]

mod bell;
mod block;
#[cfg(test)]
mod buffer_tests;
mod detached;
mod error;
mod in_flight;
mod kernel;
mod lease;
mod loan;
mod memory;
mod owned;
mod pool;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt, io, mem,
    net::SocketAddr,
    ops::Range,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use io_uring::{opcode, squeue, types::CancelBuilder};

pub use self::{
    bell::Bell,
    block::SharedBuffer,
    detached::{Detached, DetachedView},
    error::{MemlockLimit, RingError, Step as RingStep},
    lease::{Chunk, Lease, View},
    loan::{Loan, Loans},
    owned::{OwnedBuffer, OwnedPool},
    pool::{Filled, Pool},
};
use self::{
    error::Step,
    in_flight::{InFlight, Submission},
    kernel::Kernel,
};

/// A socket. An operation in flight holds a clone, so the descriptor is not closed, and its
/// number not used again, under it.
pub type Socket = Rc<OwnedFd>;

/// Sizes of a ring and its pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Operations that one enter submits; more take more enters. From 1 to 32768.
    pub sq_entries: u32,
    /// Completions that wait without overflowing; more cost the kernel memory and time. At least
    /// `sq_entries`; more than 65536 count as that.
    pub cq_entries: u32,
    /// Receive buffers in the pool. A power of two up to 32768.
    pub pool_buffers: u16,
    /// Length of each receive buffer in bytes. A multiple of 16, up to 1 GiB for the whole pool.
    pub pool_buffer_len: u32,
    /// Unused buffers of one's own that are kept for later, in bytes.
    pub owned_retained_bytes_max: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            sq_entries: 1024,
            cq_entries: 8192,
            pool_buffers: 1024,
            pool_buffer_len: 16 * 1024,
            owned_retained_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl RingConfig {
    fn validate(&self) -> Result<(), RingError> {
        let Self { sq_entries, cq_entries, pool_buffers, pool_buffer_len, .. } = *self;
        let is_valid = (1..=32_768).contains(&sq_entries);
        check("sq_entries", sq_entries, "from 1 to 32768", is_valid)?;
        let is_valid = cq_entries >= sq_entries;
        check("cq_entries", cq_entries, "at least sq_entries", is_valid)?;
        let is_valid = pool_buffers.is_power_of_two();
        check("pool_buffers", pool_buffers, "a power of two up to 32768", is_valid)?;
        let pool_len = u64::from(pool_buffers) * u64::from(pool_buffer_len);
        let is_valid = pool_buffer_len.is_multiple_of(16) && (1..=1 << 30).contains(&pool_len);
        let wanted = "a multiple of 16, and the whole pool at most 1 GiB";
        check("pool_buffer_len", pool_buffer_len, wanted, is_valid)
    }
}

fn check(
    setting: &'static str,
    value: impl Into<u64>,
    wanted: &'static str,
    is_valid: bool,
) -> Result<(), RingError> {
    if is_valid {
        return Ok(());
    }
    Err(RingError::Config { setting, value: value.into(), wanted })
}

/// An operation. Never that of another, even when the table's place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpId(u64);

impl OpId {
    #[inline]
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(index) | u64::from(generation) << 32)
    }

    #[inline]
    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    #[inline]
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Something that happened to an operation.
#[derive(Debug)]
pub struct Completion {
    /// What the operation was started with.
    pub token: u64,
    /// The operation.
    pub op: OpId,
    /// What happened.
    pub event: Event,
}

/// What happened to an operation. Where there is a `more`, its being false ends the operation;
/// the other events end theirs.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted, or the accept failed.
    Accepted {
        /// The connection's socket, closed on exec.
        result: io::Result<OwnedFd>,
        /// Whether the accept goes on.
        more: bool,
    },
    /// Bytes were received into the pool, or the receive ended.
    Received {
        /// The bytes; None at the end of the stream. ENOBUFS where the pool is empty.
        result: io::Result<Option<Filled>>,
        /// Whether the receive goes on.
        more: bool,
    },
    /// Bytes were received into a buffer of one's own.
    ReceivedInto {
        /// Bytes received; zero at the end of the stream, or where none were asked for.
        result: io::Result<usize>,
        /// The buffer, as it was handed over but for the bytes received.
        buffer: OwnedBuffer,
    },
    /// Bytes were sent.
    Sent {
        /// Bytes sent; fewer than asked for only where the socket failed or the send was
        /// cancelled, or there were more than 1 GiB.
        result: io::Result<usize>,
        /// The bytes, as they were handed over.
        bytes: Vec<u8>,
        /// Where in `bytes` the send began.
        from: usize,
    },
    /// Received bytes were sent from where they lie.
    SentShared {
        /// As for [`Sent`](Self::Sent).
        result: io::Result<usize>,
        /// The bytes, as they were handed over. Dropping the last lease on them frees their buffer.
        bytes: Lease,
        /// Where in `bytes` the send began.
        from: usize,
    },
    /// A bell was rung, or the watch ended.
    Rung {
        /// Whether the watch goes on.
        more: bool,
    },
    /// A connection was made or refused.
    Connected {
        /// Whether it was made.
        result: io::Result<()>,
    },
}

/// A ring with its buffers. Belongs to the thread that makes it.
///
/// Operations are started at once or, where the kernel's queue is full and takes nothing, kept
/// in order until it does. Dropping the ring cancels what is in flight and waits for it, for a
/// second at most.
pub struct Ring {
    kernel: Kernel,
    in_flight: InFlight,
    /// Entries that the kernel's queue had no room for. At most two for each operation in
    /// flight: itself and its cancellation.
    backlog: VecDeque<squeue::Entry>,
    pool: Rc<Pool>,
    owned: Rc<OwnedPool>,
    /// Kept open while the kernel may ring it.
    bell: Option<Bell>,
    strays: u64,
}

/// Marks the completions of cancellations. No operation has this id: its index is out of reach.
const CANCELLATION: u64 = u64::MAX;

/// How long dropping a ring waits for the kernel to let go of its memory.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    ///
    /// Where io_uring is missing, forbidden, too old or short of memory, or a setting is out of
    /// its bounds; the error says what to do.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        const CQ_ENTRIES_MAX: u32 = 65_536;
        config.validate()?;
        let cq_entries = config.cq_entries.min(CQ_ENTRIES_MAX);
        let kernel = Kernel::new(&RingConfig { cq_entries, ..config.clone() })?;
        let pool = Pool::new(config.pool_buffers, config.pool_buffer_len).map_err(|source| {
            let buffer_bytes = u64::from(config.pool_buffer_len);
            let wanted_bytes = u64::from(config.pool_buffers) * buffer_bytes;
            RingError::Memory { wanted_bytes, source }
        })?;
        // SAFETY: the ring keeps the pool, and its `Drop` leaks it where operations are left.
        let registered = unsafe { kernel.register_pool(&pool) };
        registered.map_err(|source| RingError::of(Step::Pool, source, config))?;
        Ok(Self {
            kernel,
            in_flight: InFlight::default(),
            backlog: VecDeque::new(),
            pool,
            owned: OwnedPool::new(config.owned_retained_bytes_max),
            bell: None,
            strays: 0,
        })
    }

    /// The receive buffers.
    #[inline]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// Buffers of one's own, for [`recv_into`](Self::recv_into).
    #[inline]
    pub fn owned(&self) -> &Rc<OwnedPool> {
        &self.owned
    }

    /// Accepts connections until it fails or is cancelled: [`Event::Accepted`].
    pub fn accept_multishot(&mut self, listener: &Socket, token: u64) -> OpId {
        self.start(token, Submission::accept(Rc::clone(listener)))
    }

    /// Receives into the pool until the stream ends, the pool is empty or it is cancelled:
    /// [`Event::Received`].
    #[inline]
    pub fn recv_multishot(&mut self, socket: &Socket, token: u64) -> OpId {
        self.start(token, Submission::recv(Rc::clone(socket)))
    }

    /// Receives into `buffer[from..to]`, cut to its capacity: [`Event::ReceivedInto`]. With
    /// `wait_all` it completes when the range is full or the stream ends, else with the first
    /// bytes.
    #[inline]
    pub fn recv_into(
        &mut self,
        socket: &Socket,
        token: u64,
        buffer: OwnedBuffer,
        from: usize,
        to: usize,
        wait_all: bool,
    ) -> OpId {
        let socket = Rc::clone(socket);
        self.start(token, Submission::recv_into(socket, buffer, from..to, wait_all))
    }

    /// Sends `bytes[from..]`, all of it unless that fails: [`Event::Sent`]. Two sends on one
    /// socket at a time may be sent in any order, and mixed.
    #[inline]
    pub fn send(&mut self, socket: &Socket, token: u64, bytes: Vec<u8>, from: usize) -> OpId {
        let to = bytes.len();
        self.send_some(socket, token, bytes, from..to, false)
    }

    /// [`send`](Self::send) of a range of the bytes, cut to where they end. With `more` the kernel
    /// may keep them until the next send, which is to follow at once.
    #[inline]
    pub fn send_some(
        &mut self,
        socket: &Socket,
        token: u64,
        bytes: Vec<u8>,
        range: Range<usize>,
        more: bool,
    ) -> OpId {
        self.start(token, Submission::send(Rc::clone(socket), bytes, range, more))
    }

    /// [`send`](Self::send) of received bytes from where they lie: [`Event::SentShared`]. Their
    /// buffer is not received into before that.
    #[inline]
    pub fn send_shared(&mut self, socket: &Socket, token: u64, bytes: Lease, from: usize) -> OpId {
        self.start(token, Submission::send_shared(Rc::clone(socket), bytes, from))
    }

    /// Connects a socket: [`Event::Connected`].
    pub fn connect(&mut self, socket: &Socket, token: u64, address: &SocketAddr) -> OpId {
        let address = Rc::new((*address).into());
        self.start(token, Submission::connect(Rc::clone(socket), address))
    }

    /// Watches a bell that other threads ring: [`Event::Rung`], each time, until it fails or is
    /// cancelled. It need not be cleared.
    pub fn watch(&mut self, bell: &Bell, token: u64) -> OpId {
        self.start(token, Submission::watch(bell.clone()))
    }

    /// Asks the kernel to end an operation. Its final completion comes in any case: with
    /// ECANCELED, or with what it had done before. An operation that is over or being cancelled
    /// is left alone.
    pub fn cancel(&mut self, target: OpId) {
        if self.in_flight.cancel(target) {
            let entry = opcode::AsyncCancel::new(target.0)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(CANCELLATION);
            self.push(&entry);
        }
    }

    /// Operations without a final completion.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Submits what was started and runs the completions that are due, in one syscall; none
    /// where there is neither. Never blocks.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses for good (EBADR: it lost completions for want of memory). What
    /// passes (EINTR, EBUSY, EAGAIN) is retried, now or with the next enter.
    #[inline]
    pub fn enter(&mut self) -> io::Result<()> {
        if self.has_nothing_to_enter() {
            return Ok(());
        }
        self.enter_always()
    }

    /// [`enter`](Self::enter) without looking first whether there is a reason to: the last look
    /// before parking, after the bell was enabled.
    ///
    /// # Errors
    ///
    /// As for `enter`.
    pub fn enter_always(&mut self) -> io::Result<()> {
        loop {
            self.refill();
            let submitted = self.kernel.enter()?;
            if self.backlog.is_empty() || submitted == 0 {
                return Ok(());
            }
        }
    }

    /// Submits what was started and sleeps until there is a completion, or the time is over, or
    /// a signal arrives. For programs without an executor.
    ///
    /// # Errors
    ///
    /// As for [`enter`](Self::enter).
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.refill();
        if !self.backlog.is_empty() {
            self.enter_always()?;
        }
        if self.kernel.is_empty() { self.kernel.wait(timeout) } else { self.enter() }
    }

    /// Whether there is nothing to submit, to run or to drain. Reads shared memory only, and
    /// writes none: for spinning.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.kernel.is_empty() && self.has_nothing_to_enter()
    }

    /// Moves all completions that are there to the end of `out`.
    #[inline]
    pub fn drain(&mut self, out: &mut Vec<Completion>) {
        let Self { kernel, in_flight, pool, strays, .. } = self;
        let completions = kernel.completions();
        out.reserve(completions.len());
        for entry in completions {
            match in_flight.complete(&entry, pool) {
                Some(completion) => out.push(completion),
                None if entry.user_data() == CANCELLATION => {}
                None => *strays += 1,
            }
        }
    }

    /// Syscalls made to submit and to fetch completions.
    #[inline]
    pub fn enters(&self) -> u64 {
        self.kernel.enters()
    }

    /// Enters that found the completion queue overflown. Nothing is lost by that but time.
    #[inline]
    pub fn cq_overflows(&self) -> u64 {
        self.kernel.cq_overflows()
    }

    /// Completions that belonged to no operation. Zero, unless the kernel errs.
    #[inline]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Has the kernel ring a bell when there is a reason to enter; once in a ring's life.
    /// Disabled at first.
    ///
    /// # Errors
    ///
    /// Where the ring has a bell.
    pub fn register_bell(&mut self, bell: &Bell) -> Result<(), RingError> {
        self.kernel
            .register_bell(bell)
            .map_err(|source| RingError::of(Step::Bell, source, &RingConfig::default()))?;
        self.bell = Some(bell.clone());
        Ok(())
    }

    /// Lets the kernel ring the bell for what happens from now on. What happened before does not
    /// ring it: [`enter_always`](Self::enter_always) before relying on it.
    pub fn enable_bell(&self) {
        self.kernel.set_bell(true);
    }

    /// Keeps the kernel from ringing the bell, which costs it time. The bell may have been rung.
    pub fn disable_bell(&self) {
        self.kernel.set_bell(false);
    }

    #[inline]
    fn has_nothing_to_enter(&self) -> bool {
        self.kernel.queued() == 0 && !self.kernel.has_task_work() && self.backlog.is_empty()
    }

    #[inline]
    fn start(&mut self, token: u64, submission: Submission) -> OpId {
        let (op, entry) = self.in_flight.start(token, submission);
        self.push(&entry);
        op
    }

    /// Queues an entry of an operation in flight, or one that points to nothing.
    #[inline]
    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the entry points into what its operation owns, which stays in `in_flight`
        // until the final completion; `Drop` waits for that or leaks it.
        if !self.backlog.is_empty() || !unsafe { self.kernel.push(entry) } {
            self.push_late(entry);
        }
    }

    /// Makes room by submitting, and keeps what has no room even so.
    #[cold]
    fn push_late(&mut self, entry: &squeue::Entry) {
        self.backlog.push_back(entry.clone());
        self.kernel.submit();
        self.refill();
    }

    /// Moves the backlog to the kernel's queue, as far as it goes.
    #[inline]
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if !unsafe { self.kernel.push(entry) } {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let deadline = Instant::now() + DROP_PATIENCE;
        let mut completions = Vec::new();
        while self.in_flight.len() > 0 && Instant::now() < deadline {
            let cancel_all = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build();
            self.push(&cancel_all.user_data(CANCELLATION));
            if self.wait(Duration::from_millis(10)).is_err() {
                break;
            }
            self.drain(&mut completions);
            completions.clear();
        }
        if self.in_flight.len() > 0 {
            // The kernel may still read and write what these operations own, and the pool:
            // memory that is never freed is the lesser evil.
            mem::forget(mem::take(&mut self.in_flight));
            mem::forget(Rc::clone(&self.pool));
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight.len())
            .field("pool", &self.pool)
            .field("owned", &self.owned)
            .finish_non_exhaustive()
    }
}
