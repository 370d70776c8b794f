//! The ring: io_uring as a shard uses it, safe to call.
//!
//! First and last on the path of a call. Everything that is unsafe in ringcall is in this
//! directory, because everything in it shares memory with the kernel. The rules that make it
//! sound: an operation owns its buffer until its own last completion, whatever was dropped; a
//! buffer that the kernel may write is never read; a buffer that somebody reads is never given
//! back; a descriptor is not closed under an operation.
//!
//! It knows nothing of frames, calls or executors. The benchmark's floor, a raw echo, is written
//! on it too, so that both have the same ring and the same buffers.

#![allow(unsafe_code)]

mod bell;
mod error;
mod lease;
mod memory;
mod ops;
mod owned;
mod pool;

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{Fd, SubmitArgs, Timespec},
};
use rustix::io::Errno;

pub use self::{
    bell::Bell,
    error::RingError,
    lease::{Chunk, Lease, View},
    ops::{OpId, Socket},
    owned::{OwnedBuffer, OwnedPool, SharedBuffer},
    pool::{Filled, Pool},
};
use self::ops::{Op, Ops, socket_address};

/// Sizes of a ring and of its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Entries of the submission queue; a power of two. Default: 1,024.
    pub sq_entries: u32,
    /// Entries of the completion queue, at least four times as many: a multishot receive makes
    /// many completions of one submission. Default: 8,192.
    pub cq_entries: u32,
    /// Buffers of the receive pool; a power of two up to 32,768. Default: 1,024.
    pub pool_buffers: u16,
    /// Length of each in bytes; a multiple of 16. Default: 16 KiB.
    ///
    /// They are used in turn, so the whole pool walks through the cache: with 512 × 64 KiB a 4 KiB
    /// message costs 30 % more.
    pub pool_buffer_len: u32,
    /// Bytes of idle buffers for large frames and copies that are kept. Default: 16 MiB.
    pub owned_retained_bytes_max: usize,
}

/// An io_uring, its receive pool and the operations in flight. For one thread alone.
pub struct Ring {
    // Dropped first: with it the kernel forgets the pool.
    uring: IoUring,
    ops: Ops,
    /// Entries that the submission queue had no room for, oldest first. As many as operations are
    /// in flight, at most.
    backlog: VecDeque<squeue::Entry>,
    pool: Rc<Pool>,
    owned: Rc<OwnedPool>,
    enters: u64,
    cq_overflows: u64,
}

/// Something that the kernel has done.
#[derive(Debug)]
pub struct Completion {
    /// What the operation was submitted with.
    pub token: u64,
    /// The operation.
    pub op: OpId,
    /// What happened.
    pub event: Event,
}

/// What the kernel has done. `more` says that the operation goes on; without it, it has ended.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted.
    Accepted {
        /// Its socket.
        result: io::Result<OwnedFd>,
        /// Whether more will be accepted.
        more: bool,
    },
    /// Bytes arrived in the pool; none at the end of the stream.
    Received {
        /// The bytes. ENOBUFS where the pool was empty.
        result: io::Result<Option<Filled>>,
        /// Whether more will be received.
        more: bool,
    },
    /// Bytes arrived in a buffer of our own.
    ReceivedInto {
        /// How many; zero at the end of the stream.
        result: io::Result<usize>,
        /// The buffer.
        buffer: OwnedBuffer,
    },
    /// Bytes were taken by the socket.
    Sent {
        /// How many.
        result: io::Result<usize>,
        /// The buffer.
        bytes: Vec<u8>,
        /// Where in it the send began.
        from: usize,
    },
    /// A connection is made.
    Connected {
        /// Or why not.
        result: io::Result<()>,
    },
}

impl Ring {
    /// Sets a ring up, with its pool.
    ///
    /// # Errors
    ///
    /// Where the kernel has no io_uring, or an old one, or forbids it, or where too little memory
    /// may be locked. The error says what to do.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.cq_entries)
            .build(config.sq_entries)
            .map_err(RingError::from_setup)?;
        let pool =
            Pool::new(config.pool_buffers, config.pool_buffer_len).map_err(RingError::from_memory)?;
        // SAFETY: the entries are page-aligned, `pool_buffers` in number, and mapped for as long
        // as `pool` lives; `uring` is dropped before it, and with it the registration.
        let registered = unsafe {
            let submitter = uring.submitter();
            let (address, count) = (pool.entries_address(), config.pool_buffers);
            submitter.register_buf_ring_with_flags(address, count, POOL_GROUP, 0)
        };
        registered.map_err(RingError::from_pool)?;
        Ok(Self {
            uring,
            ops: Ops::default(),
            backlog: VecDeque::new(),
            pool,
            owned: OwnedPool::new(config.owned_retained_bytes_max),
            enters: 0,
            cq_overflows: 0,
        })
    }

    /// The receive pool.
    #[inline]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The buffers of our own.
    #[inline]
    pub fn owned(&self) -> &Rc<OwnedPool> {
        &self.owned
    }

    /// Accepts connections until it is cancelled or fails.
    pub fn accept_multishot(&mut self, listener: &Socket, token: u64) -> OpId {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()));
        let entry = entry.flags(SOCKET_CLOEXEC).build();
        self.submit(token, Op::Accept(Rc::clone(listener)), entry)
    }

    /// Receives into the pool until the stream ends, the pool is empty, or it is cancelled.
    pub fn recv_multishot(&mut self, socket: &Socket, token: u64) -> OpId {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), POOL_GROUP).build();
        self.submit(token, Op::Receive(Rc::clone(socket)), entry)
    }

    /// Receives once into `buffer[from..to]`; with `wait_all` until that is full, the stream ends
    /// or an error. A range that is not in the buffer is cut to it.
    pub fn recv_into(
        &mut self,
        socket: &Socket,
        token: u64,
        mut buffer: OwnedBuffer,
        from: usize,
        to: usize,
        wait_all: bool,
    ) -> OpId {
        let to = to.min(buffer.len());
        let from = from.min(to);
        // `from` is within the buffer, and `wrapping_add` makes no claim beyond that.
        let start = buffer.as_mut_ptr().wrapping_add(from);
        let flags = if wait_all { MSG_WAITALL } else { 0 };
        let len = u32::try_from(to - from).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), start, len).flags(flags).build();
        self.submit(token, Op::ReceiveInto(Rc::clone(socket), buffer), entry)
    }

    /// Sends `bytes[from..]`, all of it unless the connection fails.
    #[inline]
    pub fn send(&mut self, socket: &Socket, token: u64, bytes: Vec<u8>, from: usize) -> OpId {
        let part = bytes.get(from..).unwrap_or_default();
        let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), part.as_ptr(), len);
        let entry = entry.flags(MSG_NOSIGNAL | MSG_WAITALL).build();
        self.submit(token, Op::Send(Rc::clone(socket), bytes, from), entry)
    }

    /// Connects.
    pub fn connect(&mut self, socket: &Socket, token: u64, address: &SocketAddr) -> OpId {
        let address = socket_address(address);
        let (start, len) = (address.as_ptr(), address.len());
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), start.cast(), len).build();
        self.submit(token, Op::Connect(Rc::clone(socket), address), entry)
    }

    /// Asks for an operation to end. Its last completion still comes, and tells how it ended.
    pub fn cancel(&mut self, target: OpId) {
        let entry = opcode::AsyncCancel::new(target.0).build();
        self.submit(0, Op::Cancel, entry);
    }

    /// Operations in flight.
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// Submits what is queued and lets the kernel post completions; without a syscall where there
    /// is nothing of either.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot for now. What is queued stays so.
    #[inline]
    pub fn enter(&mut self) -> io::Result<()> {
        if self.has_nothing_to_enter_for() {
            return Ok(());
        }
        self.enter_always()
    }

    /// As [`enter`](Self::enter), always with a syscall.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn enter_always(&mut self) -> io::Result<()> {
        loop {
            self.refill();
            match self.enter_once(0) {
                Ok(()) => {}
                // The completion queue is full: there is something to drain first.
                Err(Errno::BUSY | Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if self.backlog.is_empty() || !self.uring.completion().is_empty() {
                return Ok(());
            }
        }
    }

    /// Submits what is queued and waits for a completion, for `timeout` at most. For a thread that
    /// has nothing else to do.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.refill();
        if !self.uring.completion().is_empty() {
            return self.enter();
        }
        self.enters += 1;
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        match self.uring.submitter().submit_with_args(1, &args) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether there is nothing to submit, nothing to drain, and nothing that an
    /// [`enter`](Self::enter) would bring. Reads shared memory alone.
    #[inline]
    pub fn is_quiet(&mut self) -> bool {
        self.uring.completion().is_empty() && self.has_nothing_to_enter_for()
    }

    /// Moves every completion that is there to `out`.
    #[inline]
    pub fn drain(&mut self, out: &mut Vec<Completion>) {
        let mut completions = self.uring.completion();
        self.cq_overflows = u64::from(completions.overflow());
        for entry in &mut completions {
            if let Some(completion) = complete(&mut self.ops, &self.pool, &entry) {
                out.push(completion);
            }
        }
    }

    /// Syscalls made to enter the ring.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Completions for which the queue had no room. The kernel keeps them.
    pub fn cq_overflows(&self) -> u64 {
        self.cq_overflows
    }

    /// Has the bell rung when something completes, while it is enabled. It is not at first.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses, or the ring has a bell.
    pub fn register_bell(&mut self, bell: &Bell) -> Result<(), RingError> {
        self.disable_bell();
        let registered = self.uring.submitter().register_eventfd(bell.as_raw_fd());
        registered.map_err(RingError::from_bell)
    }

    /// Lets completions ring the bell. Those from before do not: look once more before sleeping.
    pub fn enable_bell(&mut self) {
        self.uring.completion().enable_eventfd();
    }

    /// Keeps completions from ringing the bell.
    pub fn disable_bell(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    /// Enters an operation in the table and its entry in the queue.
    #[inline]
    fn submit(&mut self, token: u64, op: Op, entry: squeue::Entry) -> OpId {
        let id = self.ops.insert(token, op);
        let entry = entry.user_data(id.0);
        if self.backlog.is_empty() {
            // SAFETY: what the entry points to (a buffer on the heap or mapped, an address in a
            // box) and its descriptor are owned by the operation, which is in `ops` until its last
            // completion, or leaked with `ops` if that does not come; moving the owner does not
            // move them.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return id;
            }
        }
        self.backlog.push_back(entry);
        id
    }

    /// Moves entries from the backlog to the queue, as far as there is room.
    #[inline]
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `submit`.
            if unsafe { self.uring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    #[inline]
    fn has_nothing_to_enter_for(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() && self.backlog.is_empty()
    }

    #[inline]
    fn enter_once(&mut self, want: u32) -> Result<(), Errno> {
        self.enters += 1;
        let to_submit = self.uring.submission().len() as u32;
        // SAFETY: no argument is passed, and every entry in the queue was pushed in `submit` or
        // `refill`.
        let entered = unsafe {
            self.uring.submitter().enter::<()>(to_submit, want, ENTER_GETEVENTS, None)
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

impl Drop for Ring {
    /// Ends every operation before the memory goes that it may write to.
    fn drop(&mut self) {
        for id in self.ops.ids() {
            self.cancel(id);
        }
        let mut completions = Vec::new();
        for _ in 0..TEARDOWN_ROUNDS {
            if self.ops.len() == 0 {
                return;
            }
            if self.wait(TEARDOWN_WAIT).is_err() {
                break;
            }
            self.drain(&mut completions);
            completions.clear();
        }
        if self.ops.len() > 0 {
            // The kernel may still write to what these own: better lost than written to later.
            std::mem::forget(std::mem::take(&mut self.ops));
            std::mem::forget(Rc::clone(&self.pool));
        }
    }
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

/// What a completion entry says. None for one that nobody waits for.
#[inline]
fn complete(ops: &mut Ops, pool: &Rc<Pool>, entry: &cqueue::Entry) -> Option<Completion> {
    let id = OpId(entry.user_data());
    let more = cqueue::more(entry.flags());
    let result = match entry.result() {
        failed @ ..0 => Err(io::Error::from_raw_os_error(-failed)),
        done => Ok(done.cast_unsigned()),
    };
    let (token, op) = ops.get_mut(id)?;
    let event = match op {
        Op::Receive(_) => {
            let filled = cqueue::buffer_select(entry.flags()).and_then(|buffer| {
                let len = result.as_ref().copied().unwrap_or(0);
                pool.filled(buffer, len)
            });
            // A buffer that came with nothing in it goes straight back.
            let filled = filled.filter(|filled| !filled.is_empty());
            Event::Received { result: result.map(|_| filled), more }
        }
        Op::Accept(_) => {
            // SAFETY: a successful accept gives a descriptor that nobody else has.
            let owned = |fd: u32| unsafe { OwnedFd::from_raw_fd(fd.cast_signed()) };
            Event::Accepted { result: result.map(owned), more }
        }
        _ => {
            return ops.remove(id).and_then(|op| finished(token, id, op, result));
        }
    };
    if !more {
        ops.remove(id);
    }
    Some(Completion { token, op: id, event })
}

/// What the one completion of an operation says.
#[inline]
fn finished(token: u64, id: OpId, op: Op, result: io::Result<u32>) -> Option<Completion> {
    let event = match op {
        Op::Send(_, bytes, from) => {
            Event::Sent { result: result.map(|sent| sent as usize), bytes, from }
        }
        Op::ReceiveInto(_, buffer) => {
            Event::ReceivedInto { result: result.map(|received| received as usize), buffer }
        }
        Op::Connect(..) => Event::Connected { result: result.map(|_| ()) },
        Op::Accept(_) | Op::Receive(_) | Op::Cancel => return None,
    };
    Some(Completion { token, op: id, event })
}

/// Group of the pool's buffers: the ring has one.
const POOL_GROUP: u16 = 0;
const ENTER_GETEVENTS: u32 = 1;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_WAITALL: i32 = 0x100;
const SOCKET_CLOEXEC: i32 = 0o2_000_000;
/// How long, and how often, a ring that is dropped waits for its operations to end.
const TEARDOWN_WAIT: Duration = Duration::from_millis(10);
const TEARDOWN_ROUNDS: usize = 100;
